"""Runs with several teachers: the student learns from the weighted mean of their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toyspans
import toytags
from toyrun import check_resumed, toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config, to_toml
from sage_kit.distill import run
from sage_kit.errors import ConfigError, SageError
from sage_kit.reports.tables import outcome_tables
from sage_kit.rundir import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def second(folder: Path) -> Path:
    """Another teacher of the same tokenizer, with a head that is trained, as far as one can see."""
    return tiny.make_checkpoint(folder / "second", "electra", labels=2)


def outputs(checkpoint: str | Path, texts: list[str], max_length: int = 32) -> np.ndarray:
    """The logits of a whole model in plain transformers, float64."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval().double()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=max_length)
    with torch.no_grad():
        return np.asarray(model(**batch).logits)


def test_outputs_are_the_weighted_mean(folder: Path, second: Path) -> None:
    """Of two teachers with trained heads, on real texts and on synthetic ones, in plain transformers."""
    first = tiny.make_checkpoint(folder / "first", "bert", labels=2)
    directory, summary = toy_run(folder, first, other_teachers=[str(second)], teacher_weights=[3, 1], rounds=2)
    texts = [row["text"] for row in tiny.toy_task_rows(120, seed=2)]
    expected = 0.75 * outputs(first, texts) + 0.25 * outputs(second, texts)
    saved = directory.predictions()["validation"]
    np.testing.assert_allclose(saved["teacher"], expected, atol=2e-5)
    assert summary["teacher"]["others"] == [{"name": str(second), "weight": 0.25}]
    assert summary["teacher"]["weight"] == 0.75
    (table, *_) = outcome_tables({"SAGE": summary})
    assert next(iter(table.columns[0].cells)) == "mean of 2 teachers"
    synthetic = synthetic_of(directory, 2)
    read = tokens_as_text(first, synthetic)
    wanted = 0.75 * outputs(first, read) + 0.25 * outputs(second, read)
    np.testing.assert_allclose(synthetic.logits, wanted, atol=2e-5)


def synthetic_of(directory: RunDirectory, number: int) -> Any:
    from sage_kit.synthesis.synthetic_set import SyntheticSet

    return SyntheticSet.load(directory.synthetic(number))


def tokens_as_text(checkpoint: Path, synthetic: Any) -> list[str]:
    """Synthetic examples as texts, which the word-level tokenizer reads back as the same tokens."""
    from transformers import AutoTokenizer

    tokenizer, tokens = AutoTokenizer.from_pretrained(checkpoint), synthetic.tokens
    rows = [tokens.ids[begin:end] for begin, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    texts = [" ".join(tokenizer.convert_ids_to_tokens(row[1:-1])) for row in rows]
    assert all(tokenizer(text)["input_ids"] == list(row) for text, row in zip(texts, rows, strict=True))
    return texts


def test_fine_tuned_teachers_of_other_tokens_teach_plainly(folder: Path, tiny_bert: Path, tiny_roberta: Path) -> None:
    settings: dict[str, Any] = {"other_teachers": [str(tiny_roberta)], "schedule": "none", "rounds": 2}
    directory, summary = toy_run(folder, tiny_bert, **settings, losses={"kl": 1.0, "minilm_relations": 0.1})
    alone = [
        toy_run(folder, teacher, schedule="none", rounds=1)[0].predictions()["dev"]["teacher"]
        for teacher in (tiny_bert, tiny_roberta)
    ]
    np.testing.assert_allclose(directory.predictions()["dev"]["teacher"], sum(alone) / 2, atol=1e-6)
    assert summary["rounds"][-1]["dev"]["agreement"] > 0.8


def test_a_resumed_run_ends_the_same(folder: Path, tiny_bert: Path, second: Path, tmp_path: Path) -> None:
    check_resumed(tmp_path, tiny_bert, other_teachers=[str(second)], filter="choose")


def test_the_teacher_as_a_list(tmp_path: Path) -> None:
    given = load_config({"teacher": ["a", "b", "c"], "teacher_weights": "2, 1,1"})
    assert (given.teacher, given.other_teachers, given.teacher_weights) == ("a", ["b", "c"], [2, 1, 1])
    (tmp_path / "run.toml").write_text('teacher = ["a", "b"]\n')
    from_file = load_config(file=tmp_path / "run.toml")
    assert (from_file.teacher, from_file.other_teachers) == ("a", ["b"])
    (tmp_path / "again.toml").write_text(to_toml(given))
    assert load_config(file=tmp_path / "again.toml") == given
    assert load_config({"teacher": ["a"]}) == load_config({"teacher": "a"})
    with pytest.raises(ConfigError, match="teacher lists several, and other_teachers names more"):
        load_config({"teacher": ["a", "b"], "other_teachers": ["c"]})


def test_tags_of_teachers_with_other_tokens(tmp_path: Path, tiny_bert: Path, tiny_roberta: Path) -> None:
    settings = toytags.settings(tmp_path, "tags", schedule="none", rounds=2, teacher_epochs=10)
    both, summary = toy_run(tmp_path, tiny_bert, **settings, other_teachers=[str(tiny_roberta)])
    alone = [toy_run(tmp_path, teacher, **settings)[0].predictions()["dev"] for teacher in (tiny_bert, tiny_roberta)]
    # the words of a row stand in the same order, whatever the tokens
    mine, other = (one["teacher"][one["positions"].astype(bool)] for one in alone)
    saved = both.predictions()["dev"]
    np.testing.assert_allclose(saved["teacher"][saved["positions"].astype(bool)], (mine + other) / 2, atol=1e-5)
    assert summary["rounds"][-1]["dev"]["agreement"] > 0.5


def refused(config: RunConfig, message: str) -> None:
    with pytest.raises(SageError, match=message) as caught:
        run(config, Plugins(allow=""))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lift": "shift"}, "lift 'shift' makes states .* take a lift that makes text"),
        ({"sampler": "adversarial"}, "sampler 'adversarial' follows the gradient .* take another sampler"),
        ({"teacher_weights": [1]}, "teacher_weights has 1 weights for 2 teacher"),
        ({"teacher_weights": [1, 0]}, "teacher_weights.*greater than 0"),
        ({"tokenizer": "somewhere"}, "tokenizer is set, and says nothing of the teachers in other_teachers"),
        ({"teacher_labels": ["a", "b"]}, "teacher_labels is set, and says nothing"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together(
    folder: Path, tiny_bert: Path, second: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SageError, match=message):
        toy_run(folder, tiny_bert, other_teachers=[str(second)], **settings)


def test_synthesis_needs_the_teachers_tokens(tmp_path: Path, tiny_bert: Path, tiny_roberta: Path) -> None:
    """Told before any teacher is fine-tuned."""
    config = toy_config(tmp_path, tiny_bert, other_teachers=[str(tiny_roberta)])
    refused(config, "other_teachers .* knows other tokens than teacher .*: set schedule to 'none'")
    assert not list((tmp_path / "cache").glob("teacher/*"))


def test_answers_need_the_same_tokens(tmp_path: Path, tiny_bert: Path, tiny_roberta: Path) -> None:
    settings = toyspans.settings(tmp_path, schedule="none", teacher_epochs=1)
    config = toy_config(tmp_path, tiny_bert, **settings, other_teachers=[str(tiny_roberta)])
    refused(config, "read different tokens, and answers are places among these: choose models with the same tokenizer")
