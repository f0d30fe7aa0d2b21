"""What a folder holds that cannot be read as a checkpoint, and what to give instead."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_kit.storage.reading import json_loads

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Files of weights that transformers looks for; the second belongs to weights in several files."""

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "bpe.codes")
"""Files of which a folder with a tokenizer holds at least one."""

DEPTH = 3
"""Levels of subfolders that are searched: a folder of the hub's cache has its checkpoints two levels down."""

MOST_FOLDERS = 2000
"""Folders that are looked at, so that a home directory given by mistake gets its answer at once."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_OTHER_FORMATS = {
    "*.onnx": "an ONNX model", "onnx/*.onnx": "an ONNX model", "*.h5": "weights of TensorFlow",
    "*.msgpack": "weights of Flax", "*.gguf": "a GGUF model", "openvino_model.xml": "an OpenVINO model",
}  # fmt: skip
_NOT_WEIGHTS = {
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
}
_BY_SAVE_PRETRAINED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_CLASS_NAME = re.compile(r"[A-Za-z]\w*")


def instead_of_folder(path: Path, name: str) -> str:
    """What is wrong with a folder without config.json, and what to do.

    Parameters
    ----------
    path : Path
    name : str
        What the user calls it.

    Returns
    -------
    str
        To stand behind "... is no checkpoint: ". "" where the folder gives no hint.
    """
    below = settings_of_checkpoint_below(path, name)
    if below:
        return f"it has no config.json, but a folder in it is one: set {below}"
    odd = _explained(path, name)
    if odd:
        return odd
    for folder in _folders(path):
        odd = _explained(folder, inside(name, folder.relative_to(path).as_posix()))
        if odd:
            where = folder.relative_to(path).as_posix()
            return f"its folder {where} has no model.safetensors {odd}" if odd[0] == "(" else f"in {where}, {odd}"
    return ""


def instead_of_file(path: Path, name: str) -> str:
    """What to give instead of a file, to stand behind "... is a file: ". The setting is ready to copy."""
    folder = parent(name)
    if path.suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"):
        return "unpack it, and give the directory of the checkpoint in it"
    if (path.parent / "config.json").is_file():
        text = f"give the directory of the checkpoint, teacher = {quoted(folder)}"
        if path.suffix == ".safetensors" and not has_weights(path.parent):
            text += f", and rename {path.name} to model.safetensors"
        return text
    return (
        "give the directory of a checkpoint, which holds config.json, model.safetensors and a tokenizer"
        f"{'; here there is no config.json beside it' if path.suffix in ('.safetensors', '.bin', '.pt') else ''}"
    )


def instead_of_weights(path: Path, name: str) -> str:
    """What a folder with config.json holds in place of weights that are read, and what to do; "" where nothing."""
    below = settings_of_checkpoint_below(path, name)
    if below:
        return f"has no model.safetensors, but a checkpoint is in a folder of it: set {below}"
    return _explained(path, name)


def pickled(file: str, name: str, architectures: Any, target: str) -> str:
    """What to do about pickled weights that transformers reads: nothing here does, and it rewrites them itself."""
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    # the class that saved it: another would drop its head, or save a random one beside it
    model = first if isinstance(first, str) and _CLASS_NAME.fullmatch(first) else "AutoModel"
    return (
        f"({file} is not read: it is a pickle): choose a checkpoint with safetensors weights or, if you trust "
        f'this one, convert it with python -c "from transformers import {model} as M; '
        f'M.from_pretrained({name!r}, use_safetensors=False).save_pretrained({target!r})"'
    )


def tokenizer_near(path: Path, name: str) -> str:
    """The setting that names a tokenizer in a folder inside the one at hand or around it; "" where there is none."""
    for folder in _folders(path):
        if has_tokenizer(folder):
            return f"tokenizer = {quoted(inside(name, folder.relative_to(path).as_posix()))}"
    return f"tokenizer = {quoted(parent(name))}" if has_tokenizer(path.parent) else ""


def settings_of_checkpoint_below(path: Path, name: str) -> str:
    """The settings that name a checkpoint in a folder inside another, ready to copy; "" where there is none.

    Of several, that of the last step of a training, or of the hub's main branch; the others are listed.
    """
    found = [folder.relative_to(path).as_posix() for folder in _folders(path) if is_checkpoint(folder)]
    if not found:
        return ""
    best = f"snapshots/{_main_branch(path)}"
    if best not in found:
        best = found[-1]
    text = f"teacher = {quoted(inside(name, best))}"
    if not has_tokenizer(path / best):
        near = [""] if has_tokenizer(path) else []
        near += [folder.relative_to(path).as_posix() for folder in _folders(path) if has_tokenizer(folder)]
        if near:
            text += f" and tokenizer = {quoted(inside(name, near[0]))}"
    others = [other for other in found if other != best]
    if others:
        more = ", ..." if len(others) > 3 else ""
        text += f" (or one of the others: {', '.join(others[-3:])}{more})"
    return text


# ---- what a folder holds --------------------------------------------------------------------------------------------


def has_weights(path: Path) -> bool:
    """Whether a folder holds weights that transformers finds and that are no pickle."""
    return any((path / file).is_file() for file in WEIGHTS)


def has_tokenizer(path: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return any((path / file).is_file() for file in TOKENIZERS)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder holds a model's configuration and its weights."""
    return has_weights(path) and bool(_json(path / "config.json").get("model_type"))


def _pickles(path: Path) -> list[str]:
    return sorted({file.name for kind in _PICKLES for file in path.glob(kind)} - _NOT_WEIGHTS)


def _explained(path: Path, name: str) -> str:
    """What a folder holds that is no checkpoint as it must be, and the remedy."""
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        base = _json(adapter).get("base_model_name_or_path")
        of = f" of {base!r}" if base else ""
        tokenizer = f" and tokenizer = {quoted(str(base))}" if base and not has_tokenizer(path) else ""
        return (
            f"it holds an adapter{of} (PEFT) and no whole model: merge it with "
            f"AutoPeftModelForSequenceClassification.from_pretrained({name!r}, num_labels=N).merge_and_unload()"
            f".save_pretrained({name + '-merged'!r}), of the package peft, and set teacher = {quoted(name + '-merged')}"
            f"{tokenizer}"
        )
    safetensors = sorted(file.name for file in path.glob("*.safetensors"))
    if safetensors and not has_weights(path):
        return f"its weights are called {safetensors[0]}: rename the file to model.safetensors"
    if safetensors:
        return "it has weights but no config.json, which says what model they are of: copy it there from its source"
    pickles = _pickles(path)
    if pickles:
        settings = _json(path / "config.json")
        if settings.get("model_type") and any(_BY_SAVE_PRETRAINED.fullmatch(file) for file in pickles):
            return pickled(pickles[0], name, settings.get("architectures"), name)
        return (
            f"{pickles[0]} is not read: it is a pickle. Load it with the code that wrote it, and save the model with "
            "save_pretrained of transformers"
        )
    for kind, what in _OTHER_FORMATS.items():
        if any(path.glob(kind)):
            return f"it holds {what}, which is not read: give the checkpoint in safetensors that it was made from"
    return ""


def _folders(path: Path) -> Iterator[Path]:
    """The folders inside a folder, those of one level in the order of the numbers in their names."""
    waiting = deque([(path, 0)])
    seen = 0
    while waiting:
        folder, depth = waiting.popleft()
        if depth == DEPTH:
            continue
        try:
            inner = [item for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")]
        except OSError:  # a folder that may not be read holds nothing to name
            continue
        for item in sorted(
            inner, key=lambda item: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", item.name)]
        ):
            seen += 1
            if seen > MOST_FOLDERS:
                return
            yield item
            waiting.append((item, depth + 1))


def _main_branch(path: Path) -> str:
    """The commit of the main branch, where a folder is one of the hub's cache."""
    try:
        return (path / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json_loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# ---- names ----------------------------------------------------------------------------------------------------------


def inside(name: str, folder: str) -> str:
    """The name of a folder inside another, as the user calls that."""
    return f"{name.rstrip('/')}/{folder}" if folder else name


def parent(name: str) -> str:
    """The name of the folder around another, as the user calls that."""
    head, slash, tail = name.rstrip("/").rpartition("/")
    if tail in (".", "..") or (tail and not slash):
        return f"{name.rstrip('/')}/.." if tail in (".", "..") else "."
    return head or "/"


def quoted(name: str) -> str:
    """A name as text in a TOML file."""
    return json.dumps(name, ensure_ascii=False)
