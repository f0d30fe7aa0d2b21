"""Folders of sentence-transformers: what is read of one, what is refused, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from sentences import make_folder, write

from sage_kit.errors import ModelError
from sage_kit.models.sentence_folders import SentenceSettings, read_sentence_settings, write_sentence_folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_folder_says_how_it_pools(tmp_path: Path, pooling: Any) -> None:
    found = read_sentence_settings(str(make_folder(tmp_path, pooling=pooling)), "cls" if pooling == "mean" else "mean")
    assert (found.pooling, found.normalizes, found.from_folder, found.prompt) == (pooling, True, True, "")
    assert found.encoder == str(tmp_path)
    assert "as its modules.json says" in found.describe()


def test_the_name_of_the_way_in_newer_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, pooling_mode="cls")
    assert read_sentence_settings(str(folder), "mean").pooling == "cls"
    write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32})
    assert read_sentence_settings(str(folder), "cls").pooling == "mean"


def test_an_encoder_alone_is_pooled_as_the_setting_says(tmp_path: Path) -> None:
    found = read_sentence_settings(str(tiny.make_checkpoint(tmp_path / "plain")), "cls", "query: ")
    assert (found.pooling, found.prompt, found.from_folder) == ("cls", "query: ", False)
    assert "as the setting pooling says; each text begins with 'query: '" in found.describe()
    listed = make_folder(tmp_path / "one", modules=["Transformer"])
    assert read_sentence_settings(str(listed), "cls").pooling == "cls"


def test_an_encoder_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, folder="0_Transformer", modules=["Transformer", "Pooling"])
    found = read_sentence_settings(f"{folder}/", "cls")
    assert (found.encoder, found.pooling, found.normalizes) == (f"{folder}/0_Transformer", "mean", False)
    assert "the student's have length 1" in found.describe()


def test_prompts(tmp_path: Path) -> None:
    folder = str(make_folder(tmp_path, prompts={"query": "query: ", "passage": "passage: "}, default="query"))
    assert read_sentence_settings(folder, "mean").prompt == "query: "
    assert read_sentence_settings(folder, "mean", "passage: ").prompt == "passage: "
    make_folder(tmp_path, prompts={"query": "query: "})
    assert read_sentence_settings(folder, "mean").prompt == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modules": ["Transformer", "Pooling", "Dense", "Normalize"]}, "lists Transformer, Pooling, Dense, Normalize"),
        ({"modules": ["StaticEmbedding"]}, "lists StaticEmbedding, and read are Transformer, Pooling and Normalize"),
        ({"modules": []}, "its modules.json lists nothing"),
        ({"pooling": "max"}, "pools by max, and known are mean and cls"),
        ({"pooling_mode_lasttoken": True}, "pools by mean, lasttoken"),
        ({"pooling_mode": ["mean", "max"]}, "pools by mean, max"),
        (
            {"include_prompt": False, "prompts": {"a": "say: "}, "default": "a"},
            "leaves the prompt 'say: ' out of what it pools",
        ),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    pooling = fields.pop("pooling", "mean")
    folder = make_folder(tmp_path, pooling=pooling, **fields)
    if pooling == "max":
        write(folder / "1_Pooling" / "config.json", {"pooling_mode_max_tokens": True})
    with pytest.raises(ModelError, match=message) as error:
        read_sentence_settings(str(folder), "mean")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_small_letters_and_broken_files_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    with pytest.raises(ModelError, match=r"asks for texts in small letters \(do_lower_case\)"):
        read_sentence_settings(str(folder), "mean")
    (folder / "modules.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"its modules\.json cannot be read"):
        read_sentence_settings(str(folder), "mean")


@pytest.mark.parametrize("prompt", ["", "query: ", "other: "])
def test_what_is_written_is_read_again(tmp_path: Path, prompt: str) -> None:
    settings = SentenceSettings("cls", prompt, {"query": "query: ", "passage": "passage: "}, "teacher")
    write_sentence_folder(tmp_path, settings, dim=32, max_length=48)
    found = read_sentence_settings(str(tmp_path), "mean")
    assert (found.pooling, found.prompt, found.normalizes, found.from_folder) == ("cls", prompt, True, True)
    # a name that the teacher's users know stays
    assert list(found.prompts) == {"": [], "query: ": ["query"], "other: ": ["default"]}[prompt]
    limits = json.loads((tmp_path / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert limits == {"max_seq_length": 48, "do_lower_case": False}
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text(encoding="utf-8"))[
        "word_embedding_dimension"
    ] == 32  # fmt: skip
