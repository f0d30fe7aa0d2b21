"""The exported pair gives the run's own scores, in whatever state the teacher's tokenizer was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from scipy.special import softmax
from toyrun import toy_run

from sage_kit.components import TaskSpec
from sage_kit.models.export import export_student

MAX_LENGTH = 24
LENGTHS = (1, 30, 3, 50, 22, 23, 60, 12, 70, 2)
"""Words per text: some are cut, at `MAX_LENGTH` or a few tokens below, and two have more than the model's positions."""

TOLERANCE = {"rtol": 0, "atol": 2e-6}
"""Of probabilities: float32 sums in another order, as batches are padded to other lengths."""


def words(count: int, seed: int) -> str:
    rng = np.random.default_rng([count, seed])
    return " ".join(rng.choice(tiny.WORDS, count)).capitalize()


def rows(pairs: bool) -> list[dict[str, Any]]:
    made = [{"text": words(count, 0), "label": index % 2} for index, count in enumerate(LENGTHS)]
    if pairs:
        for row, count in zip(made, reversed(LENGTHS), strict=True):
            row["second"] = words(count, 1)
    return made


def backend(**calls: dict[str, Any]) -> Callable[[Any], None]:
    def change(tokenizer: Any) -> None:
        for name, arguments in calls.items():
            getattr(tokenizer.backend_tokenizer, name)(**arguments)

    return change


def attributes(**values: Any) -> Callable[[Any], None]:
    def change(tokenizer: Any) -> None:
        for name, value in values.items():
            setattr(tokenizer, name, value)
            tokenizer.init_kwargs[name] = value

    return change


def without_special_tokens(tokenizer: Any) -> None:
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])


def with_case(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])


STATES: dict[str, Callable[[Any], None]] = {
    "as it comes": lambda tokenizer: None,
    "padding to a length": backend(enable_padding={"length": 64, "pad_id": 0, "pad_token": "[PAD]"}),
    "padding to a multiple": backend(enable_padding={"pad_to_multiple_of": 16, "direction": "left", "pad_type_id": 1}),
    "truncation": backend(enable_truncation={"max_length": 8}),
    "odd truncation": backend(
        enable_truncation={"max_length": 12, "stride": 2, "strategy": "only_first", "direction": "left"}
    ),
    "both": backend(enable_truncation={"max_length": 9}, enable_padding={"length": 9, "direction": "left"}),
    "left padding": attributes(padding_side="left"),
    "left truncation": attributes(truncation_side="left"),
    "no limit": attributes(model_max_length=int(1e30)),
    "a limit too small": attributes(model_max_length=8),
    "a limit too large": attributes(model_max_length=4096),
    "arguments of a call": attributes(
        max_length=7, stride=3, truncation_strategy="only_second", pad_to_multiple_of=8, padding="max_length"
    ),
    "token type of padding": lambda tokenizer: tokenizer.init_kwargs.update(pad_token_type_id=1),
    "no mask": attributes(model_input_names=["input_ids", "token_type_ids"]),
}
"""States that must change nothing."""

RULES: dict[str, Callable[[Any], None]] = {
    "no special tokens": without_special_tokens,
    "case": with_case,
    "no token types": attributes(model_input_names=["input_ids", "attention_mask"]),
}
"""What a tokenizer does to text: it stays as it is."""

Outcome = tuple[Path, "np.ndarray[Any, Any]"]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Runs by state, family and kind of text, each made once: the student's folder and its logits on validation."""
    made: dict[tuple[str, str, bool], Outcome] = {}

    def run(state: str, family: str = "bert", pairs: bool = False) -> Outcome:
        key = (state, family, pairs)
        if key not in made:
            folder = tmp_path_factory.mktemp("odd")
            teacher = tiny.make_checkpoint(folder / "teacher", family, layers=2, labels=2)
            tokenizer = tiny.make_tokenizer(family)
            (STATES | RULES)[state](tokenizer)
            tokenizer.save_pretrained(teacher)
            tiny.write_jsonl(folder / "train.jsonl", rows(pairs))
            tiny.write_jsonl(folder / "validation.jsonl", rows(pairs))
            directory, _ = toy_run(
                folder, teacher, max_length=MAX_LENGTH, student_layers=1, schedule="none", rounds=1,
                text_pair_column="second" if pairs else "", dev_fraction=0.3,
            )  # fmt: skip
            made[key] = (directory.student, directory.predictions()["validation"]["student"])
        return made[key]

    return run


def pipeline_scores(student: Path, pairs: bool, batch_size: int) -> Any:
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    classify = pipeline("text-classification", str(student), truncation=True, top_k=None, device="cpu")
    texts: list[Any] = [row["text"] for row in rows(False)]
    if pairs:
        texts = [{"text": row["text"], "text_pair": row["second"]} for row in rows(True)]
    found = classify(texts, batch_size=batch_size)
    return np.array([[next(x["score"] for x in row if x["label"] == label) for label in ("0", "1")] for row in found])


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("state", [*STATES, *RULES])
def test_a_pipeline_gives_the_runs_scores_at_any_batch_size(
    distilled: Callable[..., Outcome], state: str, pairs: bool
) -> None:
    student, logits = distilled(state, pairs=pairs)
    expected = softmax(logits.astype(np.float64), axis=1)
    assert np.ptp(expected[:, 0]) > 0.01  # texts are told apart
    for batch_size in (1, 8):
        np.testing.assert_allclose(pipeline_scores(student, pairs, batch_size), expected, **TOLERANCE)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("state", [state for state in STATES if state != "as it comes"])
def test_the_state_changes_nothing_of_a_run(distilled: Callable[..., Outcome], state: str, pairs: bool) -> None:
    np.testing.assert_array_equal(distilled(state, pairs=pairs)[1], distilled("as it comes", pairs=pairs)[1])


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
@pytest.mark.parametrize("state", ["both", "left padding", "no limit"])
def test_other_families(distilled: Callable[..., Outcome], state: str, family: str) -> None:
    student, logits = distilled(state, family)
    for batch_size in (1, 8):
        np.testing.assert_allclose(pipeline_scores(student, False, batch_size), softmax(logits, axis=1), **TOLERANCE)


def test_what_is_saved(distilled: Callable[..., Outcome]) -> None:
    student, _ = distilled("both")
    settings = json.loads((student / "tokenizer_config.json").read_text())
    assert {name: settings[name] for name in ("model_max_length", "padding_side", "truncation_side")} == {
        "model_max_length": MAX_LENGTH, "padding_side": "right", "truncation_side": "right",
    }  # fmt: skip
    assert not {"max_length", "stride", "truncation_strategy", "pad_to_multiple_of"} & set(settings)
    rules = json.loads((student / "tokenizer.json").read_text())
    assert rules["padding"] is None
    assert rules["truncation"] == {
        "direction": "Right", "max_length": MAX_LENGTH, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    # the tokenizers library alone, which asks for nothing, cuts as well
    from tokenizers import Tokenizer

    assert len(Tokenizer.from_file(str(student / "tokenizer.json")).encode(words(90, 0)).ids) == MAX_LENGTH


@pytest.mark.parametrize(
    ("family", "limit", "saved"), [("bert", int(1e30), 64), ("roberta", 4096, 64), ("distilbert", 16, 16)]
)
def test_an_export_alone_keeps_to_the_limit_and_to_the_models_positions(
    tmp_path: Path, family: str, limit: int, saved: int
) -> None:
    from transformers import AutoTokenizer

    spec = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("0", "1"))
    tokenizer = tiny.make_tokenizer(family, max_length=limit)
    tokenizer.padding_side = "left"
    export_student(tiny.make_model(family), tokenizer, tmp_path, spec)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.model_max_length, again.padding_side) == (saved, "right")
    assert ("token_type_ids" in again.model_input_names) == (family == "bert")
    # the tokenizer at hand stays as it was
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (limit, "left")
    assert tokenizer.backend_tokenizer.truncation is None
    assert pipeline_scores(tmp_path, False, 8).shape == (len(LENGTHS), 2)


def test_a_tokenizer_of_python_code(tmp_path: Path) -> None:
    """PhoBERT's: not built on the tokenizers library, so that it has no rules file."""
    from transformers import PhobertTokenizer

    folder = tmp_path / "teacher"
    tiny.make_checkpoint(folder, "roberta", layers=2, labels=2)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (tmp_path / "vocab.txt").write_text("".join(f"{word} 1\n" for word in tiny.WORDS), encoding="utf-8")
    (tmp_path / "bpe.codes").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = PhobertTokenizer(
        str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"), padding_side="left", truncation_side="left",
        model_max_length=int(1e30),
    )  # fmt: skip
    assert not tokenizer.is_fast
    tokenizer.save_pretrained(folder)
    tiny.write_jsonl(tmp_path / "train.jsonl", rows(False))
    tiny.write_jsonl(tmp_path / "validation.jsonl", rows(False))
    directory, _ = toy_run(
        tmp_path, folder, max_length=MAX_LENGTH, student_layers=1, schedule="none", rounds=1, dev_fraction=0.3
    )
    expected = softmax(directory.predictions()["validation"]["student"], axis=1)
    for batch_size in (1, 8):
        np.testing.assert_allclose(pipeline_scores(directory.student, False, batch_size), expected, **TOLERANCE)
