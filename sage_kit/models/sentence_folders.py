"""Folders of sentence-transformers: what one says of the encoder in it, and how such a folder is written.

``modules.json`` lists what is applied one after the other. Read are an encoder, the mean of its tokens' states or the
first one's, and a normalisation to length 1 (Reimers and Gurevych 2019, arXiv 1908.10084, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sage_kit.errors import ModelError, one_line
from sage_kit.models.layouts import inside
from sage_kit.models.locations import resolve
from sage_kit.storage.reading import json_loads

MODULES, SETTINGS, LIMITS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
POOLING_FOLDER, NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"

POOLING_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How older folders say the way of pooling, each true or false; newer ones have its name as ``pooling_mode``."""

DEFAULT = "default"
"""Name of a prompt that the teacher does not know."""


@dataclass(frozen=True)
class SentenceSettings:
    """How a sentence encoder makes one vector of the states of its tokens.

    Attributes
    ----------
    pooling : "mean" or "cls"
        Mean of the real tokens' states, or the first one.
    prompt : str
        What stands in front of each text; "" for nothing.
    prompts : mapping of str to str
        All prompts that it knows, by name.
    encoder : str
        The folder of the encoder, as the user calls it.
    from_folder : bool
        Whether a folder of sentence-transformers says so, or else the settings of the run.
    normalizes : bool
        Whether the vectors have length 1.
    """

    pooling: Literal["mean", "cls"] = "mean"
    prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    encoder: str = ""
    from_folder: bool = False
    normalizes: bool = True

    def describe(self) -> str:
        """In words, for the user."""
        way = "the first token's state" if self.pooling == "cls" else "the mean of the tokens' states"
        where = "as its modules.json says" if self.from_folder else "as the setting pooling says"
        text = f"the embedding of a text is {way}, {where}"
        if self.prompt:
            text += f"; each text begins with {self.prompt!r}"
        if not self.normalizes:
            text += "; only its direction is learned, and the student's have length 1"
        return text


def read_sentence_settings(name: str, pooling: Literal["mean", "cls"], prefix: str = "") -> SentenceSettings:
    """How a teacher makes vectors of texts: as its folder says, or as the settings do where it is an encoder alone.

    Parameters
    ----------
    name : str
        A checkpoint, named as in `sage_kit.models.locations.resolve`.
    pooling : "mean" or "cls"
        The setting.
    prefix : str
        The setting `text_prefix`; "" takes the folder's default prompt, where it has one.

    Raises
    ------
    ModelError
        When the folder applies anything else, or a file of it cannot be read.
    """
    source = resolve(name, needs="")
    modules = _read(source, MODULES, name)
    if modules is None:
        return SentenceSettings(pooling, prefix, encoder=name)
    listed = modules if isinstance(modules, list) else []
    paths = [(str(_of(one, "type")).rpartition(".")[2], str(_of(one, "path"))) for one in listed]
    kinds = [kind for kind, _ in paths]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"model {name!r}: its modules.json lists {', '.join(kinds) or 'nothing'}, and read are Transformer, "
            "Pooling and Normalize in this order: choose another sentence encoder"
        )
    folder = paths[0][1]
    if folder and not Path(source).is_dir():
        raise ModelError(
            f"model {name!r} has its encoder in the folder {folder!r}: download it, and set teacher to the directory"
        )
    found = SentenceSettings(pooling, prefix, encoder=inside(name, folder), from_folder=True)
    limits = _table(_read(source, f"{folder}/{LIMITS}" if folder else LIMITS, name))
    if limits.get("do_lower_case"):
        raise ModelError(
            f"model {name!r}: its {LIMITS} asks for texts in small letters (do_lower_case): choose another, or set "
            "that to false there if its tokenizer does so by itself"
        )
    found = replace(found, normalizes=kinds[-1] == "Normalize")
    settings = _table(_read(source, SETTINGS, name))
    prompts = {str(key): str(text) for key, text in _table(settings.get("prompts")).items()}
    found = replace(found, prompts=prompts, prompt=prefix or prompts.get(str(settings.get("default_prompt_name")), ""))
    if len(kinds) == 1:
        return replace(found, from_folder=False)
    return replace(found, pooling=_pooling(_table(_read(source, f"{paths[1][1]}/config.json", name)), found, name))


def _pooling(table: Mapping[str, Any], found: SentenceSettings, name: str) -> Literal["mean", "cls"]:
    """The way of pooling that a folder's module has."""
    named = table.get("pooling_mode", [way for key, way in POOLING_KEYS.items() if table.get(key)] or ["mean"])
    ways = [named] if isinstance(named, str) else list(named)
    if ways not in (["mean"], ["cls"]):
        raise ModelError(
            f"model {name!r} pools by {', '.join(map(str, ways))}, and known are mean and cls: choose another sentence "
            "encoder"
        )
    if found.prompt and not table.get("include_prompt", True):
        raise ModelError(
            f"model {name!r} leaves the prompt {found.prompt!r} out of what it pools (include_prompt): choose another "
            "sentence encoder"
        )
    return "cls" if ways == ["cls"] else "mean"


def write_sentence_folder(directory: Path, settings: SentenceSettings, *, dim: int, max_length: int) -> None:
    """Write what makes a folder with an encoder one of sentence-transformers; its vectors have length 1.

    Parameters
    ----------
    directory : Path
        With the encoder and its tokenizer.
    settings : SentenceSettings
    dim : int
        Width of the vectors.
    max_length : int
        Longest text, in tokens.
    """
    modules = [("Transformer", ""), ("Pooling", POOLING_FOLDER), ("Normalize", NORMALIZE_FOLDER)]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    prompts, default = {}, None
    if settings.prompt:
        default = next((key for key, text in settings.prompts.items() if text == settings.prompt), DEFAULT)
        prompts = {default: settings.prompt}
    for folder in (POOLING_FOLDER, NORMALIZE_FOLDER):
        (directory / folder).mkdir(exist_ok=True)
    pooling = {key: way == settings.pooling for key, way in POOLING_KEYS.items()}
    _write(directory / MODULES, listed)
    _write(directory / POOLING_FOLDER / "config.json", {"word_embedding_dimension": dim, **pooling})
    _write(directory / LIMITS, {"max_seq_length": max_length, "do_lower_case": False})
    _write(
        directory / SETTINGS,
        {"prompts": prompts, "default_prompt_name": default, "similarity_fn_name": "cosine"},
    )


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _of(module: Any, key: str) -> Any:
    return module.get(key, "") if isinstance(module, Mapping) else ""


def _table(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def _read(source: str, file: str, name: str) -> Any:
    """What a JSON file of a folder, or of a model on the hub, holds; None where it has none."""
    path = Path(source) / file if Path(source).is_dir() else _from_hub(source, file)
    if path is None or not path.is_file():
        return None
    try:
        return json_loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name!r}: its {file} cannot be read: {one_line(error)[:200]}") from None


def _from_hub(source: str, file: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(source, file))
    # what is wrong with the model as a whole is told when its configuration is read
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError):
        return None
