"""Folders and files that are no checkpoint: what is wrong is said, and what is to be set instead works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from sage_kit.config import toml_loads
from sage_kit.errors import ModelError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.locations import resolve


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("classifier") / "model", layers=1, labels=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder "given", named relative to the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def copy(source: Path, target: Path, *without: str) -> Path:
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
    return target


def refused(name: str, load: Callable[[str], Any] = load_classifier) -> str:
    with pytest.raises(ModelError) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def remedy(message: str) -> dict[str, Any]:
    """The settings that a message gives, as a configuration file would have them."""
    return toml_loads("\n".join(re.findall(r'(?:teacher|tokenizer) = "[^"]*"', message)))


def check_that_it_works(message: str) -> dict[str, Any]:
    settings = remedy(message)
    assert not load_classifier(settings["teacher"]).missing
    load_tokenizer(settings.get("tokenizer", settings["teacher"]))
    return settings


# ---- the checkpoint is in a folder inside


@pytest.mark.parametrize(
    "inner", ["0_Transformer", "model", "student", "checkpoint-500", "snapshots/0123abc", "out/run/checkpoint-7"]
)
def test_a_folder_inside_is_named(classifier: Path, folder: Path, inner: str) -> None:
    copy(classifier, folder / inner)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": false}')
    (folder / ".git").mkdir()
    message = refused("given")
    assert message == (
        f"'given' is no checkpoint: it has no config.json, but a folder in it is one: set teacher = \"given/{inner}\""
    )
    assert check_that_it_works(message) == {"teacher": f"given/{inner}"}
    assert check_that_it_works(refused(f"{folder}/")) == {"teacher": f"{folder}/{inner}"}


def test_of_several_checkpoints_the_last_is_named(classifier: Path, folder: Path) -> None:
    for step in (1000, 500, 9500):
        copy(classifier, folder / f"checkpoint-{step}")
    message = refused("given")
    assert message.endswith('teacher = "given/checkpoint-9500" (or one of the others: checkpoint-500, checkpoint-1000)')
    check_that_it_works(message)


def test_in_the_hubs_cache_the_main_branch_is_named(classifier: Path, folder: Path) -> None:
    for commit in ("aaaa", "bbbb", "cccc"):
        copy(classifier, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("bbbb")
    (folder / "blobs").mkdir()
    assert check_that_it_works(refused("given")) == {"teacher": "given/snapshots/bbbb"}


def test_a_tokenizer_elsewhere_is_named_too(classifier: Path, folder: Path) -> None:
    copy(classifier, folder / "checkpoint-500", "tokenizer*")
    copy(classifier, folder, "config.json", "model.safetensors")
    assert check_that_it_works(refused("given")) == {"teacher": "given/checkpoint-500", "tokenizer": "given"}
    for path in folder.glob("tokenizer*"):
        path.unlink()
    copy(classifier, folder / "tokenizer", "config.json", "model.safetensors")
    assert check_that_it_works(refused("given")) == {"teacher": "given/checkpoint-500", "tokenizer": "given/tokenizer"}


def test_a_missing_tokenizer_is_looked_for_nearby(classifier: Path, folder: Path) -> None:
    copy(classifier, folder / "checkpoint-500", "tokenizer*")
    assert remedy(refused("given/checkpoint-500", load_tokenizer)) == {}
    copy(classifier, folder, "config.json", "model.safetensors")
    settings = remedy(refused("given/checkpoint-500", load_tokenizer))
    assert settings == {"tokenizer": "given"}
    load_tokenizer(settings["tokenizer"])


def test_a_configuration_of_something_else_beside_a_checkpoint(classifier: Path, folder: Path) -> None:
    (folder / "config.json").write_text('{"learning_rate": 1}')
    copy(classifier, folder / "best")
    message = refused("given")
    assert "of type 'unknown'" in message
    assert check_that_it_works(message) == {"teacher": "given/best"}


def test_a_configuration_whose_weights_are_in_a_folder_inside(classifier: Path, folder: Path) -> None:
    copy(classifier, folder, "model.safetensors")
    copy(classifier, folder / "checkpoint-500", "tokenizer*")
    message = refused("given")
    assert message.startswith("model 'given' has no model.safetensors, but a checkpoint is in a folder of it: set ")
    assert check_that_it_works(message) == {"teacher": "given/checkpoint-500", "tokenizer": "given"}


def test_a_folder_inside_a_package(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(classifier, tmp_path / "layouts_package" / "old" / "0_Transformer")
    (tmp_path / "layouts_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refused("package:layouts_package/old")
    assert check_that_it_works(message) == {"teacher": "package:layouts_package/old/0_Transformer"}


def test_a_folder_with_nothing(folder: Path) -> None:
    assert refused("given").endswith("has no config.json; a local directory goes before a hub model of the same name, "
                                     "so rename it if you mean that")  # fmt: skip
    assert refused(f"{folder}").endswith("/given has no config.json")


def test_a_large_tree_gets_its_answer_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sage_kit.models.layouts as layouts

    monkeypatch.setattr(layouts, "MOST_FOLDERS", 50)
    looked: list[Path] = []
    monkeypatch.setattr(layouts, "is_checkpoint", lambda path: looked.append(path))
    for number in range(80):
        (folder / f"d{number}" / "inner").mkdir(parents=True)
    refused("given")
    assert len(looked) == 50


# ---- weights that are not read


def pickle(classifier: Path, folder: Path) -> None:
    from safetensors.torch import load_file

    copy(classifier, folder, "model.safetensors")
    torch.save(load_file(classifier / "model.safetensors"), folder / "pytorch_model.bin")


def test_pickled_weights_are_converted_by_the_command_that_is_given(classifier: Path, folder: Path) -> None:
    pickle(classifier, folder)
    message = refused("given")
    assert "has no model.safetensors (pytorch_model.bin is not read: it is a pickle): choose" in message
    command = re.search(r'python -c "(.*)"', message)
    assert command, message
    assert "BertForSequenceClassification" in command[1]
    subprocess.run([sys.executable, "-c", command[1]], check=True, capture_output=True)
    loaded = load_classifier("given")
    assert not loaded.missing
    ids = torch.arange(11, 19)[None]
    assert torch.equal(loaded.model(ids).logits, load_classifier(str(classifier)).model(ids).logits)


def test_pickled_weights_in_a_folder_inside(classifier: Path, folder: Path) -> None:
    pickle(classifier, folder / "checkpoint-500")
    message = refused("given")
    assert (
        "its folder checkpoint-500 has no model.safetensors (pytorch_model.bin is not read: it is a pickle)" in message
    )
    assert "M.from_pretrained('given/checkpoint-500'" in message


def test_an_adapter_names_its_base(classifier: Path, folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "bert-base-uncased"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    message = refused("given")
    assert "it holds an adapter of 'bert-base-uncased' (PEFT) and no whole model: merge it with " in message
    assert ".merge_and_unload().save_pretrained('given-merged')" in message
    assert remedy(message) == {"teacher": "given-merged", "tokenizer": "bert-base-uncased"}


@pytest.mark.parametrize("with_configuration", [False, True])
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("model.onnx", "it holds an ONNX model, which is not read: give the checkpoint in safetensors"),
        ("onnx/model_quantized.onnx", "it holds an ONNX model"),
        ("tf_model.h5", "it holds weights of TensorFlow"),
        ("flax_model.msgpack", "it holds weights of Flax"),
        ("best.pt", "best.pt is not read: it is a pickle. Load it with the code that wrote it"),
        ("weights.safetensors", "its weights are called weights.safetensors: rename the file to model.safetensors"),
    ],
)
def test_other_formats(classifier: Path, folder: Path, file: str, expected: str, with_configuration: bool) -> None:
    if with_configuration:
        copy(classifier, folder, "model.safetensors")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"x")
    assert expected in refused("given")


def test_weights_alone(classifier: Path, folder: Path) -> None:
    copy(classifier, folder, "config.json", "tokenizer*")
    assert "it has weights but no config.json" in refused("given")


# ---- a file


def test_a_file_of_weights_names_its_folder(classifier: Path, folder: Path) -> None:
    copy(classifier, folder)
    message = refused("given/model.safetensors", resolve)
    assert message == "'given/model.safetensors' is a file: give the directory of the checkpoint, teacher = \"given\""
    check_that_it_works(message)


def test_a_file_in_the_current_folder(classifier: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(classifier, folder)
    monkeypatch.chdir(folder)
    assert check_that_it_works(refused("model.safetensors", resolve)) == {"teacher": "."}


def test_weights_of_another_name(classifier: Path, folder: Path) -> None:
    copy(classifier, folder)
    (folder / "model.safetensors").rename(folder / "best.safetensors")
    assert "rename best.safetensors to model.safetensors" in refused("given/best.safetensors", resolve)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("lone.safetensors", "give the directory of a checkpoint, which holds config.json, model.safetensors and a "),
        ("model.zip", "unpack it"),
        ("model.tar.gz", "unpack it"),
    ],
)
def test_other_files(folder: Path, file: str, expected: str) -> None:
    (folder / file).write_bytes(b"x")
    assert expected in refused(f"given/{file}", resolve)
