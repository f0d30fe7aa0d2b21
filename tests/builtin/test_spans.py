"""Kind of task `spans`, against a plain port of transformers' example script for question answering."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toyspans
from numpy.typing import NDArray

from sage_kit.builtin.task_kinds.spans import LONGEST, NOWHERE, best_spans
from sage_kit.components import Answers, TaskSpec, handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.scoring import score_encoded, with_measures
from sage_kit.data.splits import Split, TaskData

PLUGINS = Plugins(allow="")
FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])


def make_split(rows: Sequence[dict[str, Any]]) -> Split:
    labels = np.empty(len(rows), object)
    labels[:] = [Answers(tuple(r["answers"]["text"]), tuple(r["answers"]["answer_start"])) for r in rows]
    return Split("dev", [row["question"] for row in rows], [row["context"] for row in rows], labels)


def spec_of(*, unanswered: bool = False) -> TaskSpec:
    return replace(PLUGINS.task("squad_sample"), unanswered=unanswered)


def encoded_rows(
    family: str = "bert", max_length: int = 24, *, unanswered: float = 0.3, count: int = 60, allowed: bool = True
) -> tuple[list[dict[str, Any]], EncodedSplit, Any]:
    rows = toyspans.rows(count, 3, unanswered=unanswered)
    tokenizer = tiny.make_tokenizer(family)
    spec = spec_of(unanswered=allowed and unanswered > 0)
    return rows, encode(make_split(rows), spec, tokenizer, max_length), tokenizer


# ---- the reference, one feature at a time ---------------------------------------------------------------------------


def reference_features(rows: Sequence[dict[str, Any]], tokenizer: Any, max_length: int, stride: int) -> dict[str, Any]:
    """`prepare_train_features` and `prepare_validation_features` of run_qa.py."""
    tokenized = tokenizer(
        [row["question"] for row in rows], [row["context"] for row in rows], truncation="only_second",
        max_length=max_length, stride=stride, return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    found: dict[str, Any] = {"targets": [], "rows": [], "offsets": [], "ids": tokenized["input_ids"]}
    for i, offsets in enumerate(tokenized["offset_mapping"]):
        sequence_ids, sample = tokenized.sequence_ids(i), tokenized["overflow_to_sample_mapping"][i]
        answers = rows[sample]["answers"]
        found["rows"].append(sample)
        found["offsets"].append([place if sequence_ids[k] == 1 else None for k, place in enumerate(offsets)])
        if not answers["answer_start"]:
            found["targets"].append((0, 0))
            continue
        start_char = answers["answer_start"][0]
        end_char = start_char + len(answers["text"][0])
        first, last = 0, len(offsets) - 1
        while sequence_ids[first] != 1:
            first += 1
        while sequence_ids[last] != 1:
            last -= 1
        if not (offsets[first][0] <= start_char and offsets[last][1] >= end_char):
            found["targets"].append((0, 0))
            continue
        # the script looks at the special token behind the context, too, and so misses an answer of its last token
        while sequence_ids[first] == 1 and offsets[first][0] <= start_char:
            first += 1
        while offsets[last][1] >= end_char:
            last -= 1
        found["targets"].append((first - 1, last + 1))
    return found


def reference_answers(
    rows: Sequence[dict[str, Any]], features: dict[str, Any], logits: Sequence[NDArray[Any]], *, unanswered: bool
) -> list[str]:
    """`postprocess_qa_predictions` of utils_qa.py, with all starts and ends in the place of the 20 likeliest."""
    answers = []
    for number, row in enumerate(rows):
        null, best, text = None, -np.inf, ""
        for i in (i for i, owner in enumerate(features["rows"]) if owner == number):
            offsets, (starts, ends) = features["offsets"][i], logits[i].astype(np.float64).T
            null = starts[0] + ends[0] if null is None else min(null, starts[0] + ends[0])
            for start, end in itertools.product(range(len(offsets)), repeat=2):
                if offsets[start] is None or offsets[end] is None or end < start or end - start + 1 > LONGEST:
                    continue
                if starts[start] + ends[end] > best:
                    best = starts[start] + ends[end]
                    text = row["context"][offsets[start][0] : offsets[end][1]]
        answers.append("" if unanswered and null > best else text)
    return answers


def by_sequence(encoded: EncodedSplit, flat: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(flat, encoded.tokens.offsets[1:-1])


# ---- tokens, targets and predictions --------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("max_length", [20, 24, 64])
def test_windows_and_targets_are_those_of_the_example_script(family: str, max_length: int) -> None:
    rows, encoded, tokenizer = encoded_rows(family, max_length)
    features = reference_features(rows, tokenizer, max_length, max_length // 3)
    assert encoded.texts.row_of.tolist() == features["rows"]
    assert [ids.tolist() for ids in by_sequence(encoded, encoded.tokens.ids)] == features["ids"]
    assert encoded.alignment.targets.tolist() == [list(pair) for pair in features["targets"]]
    assert len(features["rows"]) > len(rows) or max_length == 64
    positions = by_sequence(encoded, encoded.alignment.positions)
    in_context = [[place is not None for place in offsets] for offsets in features["offsets"]]
    assert [own.tolist() for own in positions] == [[True, *own[1:]] for own in in_context]
    # what is not the context's is left alone by synthesis
    assert (encoded.tokens.special != encoded.tokens.second).all()


@FAMILIES
@pytest.mark.parametrize("unanswered", [0.0, 0.4])
def test_predictions_are_those_of_the_example_script(family: str, unanswered: float) -> None:
    rows, encoded, tokenizer = encoded_rows(family, unanswered=unanswered)
    features = reference_features(rows, tokenizer, 24, 8)
    rng, expected = np.random.default_rng(0), []
    for offset in (0.0, 3.0):
        logits = rng.standard_normal((len(encoded.tokens.ids), 2)).astype(np.float32)
        logits[encoded.tokens.offsets[:-1]] += offset
        split = by_sequence(encoded, logits)
        expected = reference_answers(rows, features, split, unanswered=unanswered > 0)
        assert encoded.predictions(logits) == expected
    assert ("" in expected) == (unanswered > 0)
    assert any(expected)


def test_the_gold_spans_are_their_own_predictions() -> None:
    """And a row of several windows counts once."""
    rows, encoded, _ = encoded_rows(unanswered=0.3)
    offsets, targets = encoded.tokens.offsets[:-1], encoded.alignment.targets
    logits = np.zeros((len(encoded.tokens.ids), 2), np.float32)
    for side in range(2):
        logits[offsets + targets[:, side], side] = 5
    assert encoded.predictions(logits) == [row["answers"]["text"][0] if row["answers"]["text"] else "" for row in rows]
    data = with_measures(TaskData(encoded.spec, *[make_split(rows)] * 2, {}), PLUGINS, load({}))
    scores = score_encoded(replace(encoded, spec=data.spec), logits, logits)
    assert scores == {"answer_f1": 1.0, "exact_match": 1.0, "agreement": 1.0}
    # without a window in which its answer lies whole, it is lost
    short = toyspans.rows(1, 5)
    short[0]["answers"] = {"text": [short[0]["context"]], "answer_start": [0]}
    long = encode(make_split(short), spec_of(), tiny.make_tokenizer("bert"), 16)
    assert (long.alignment.targets == 0).all()


def load(settings: dict[str, Any]) -> Any:
    from sage_kit.config import load_config

    return load_config(settings)


def test_an_answer_of_more_than_thirty_tokens_is_none() -> None:
    context = " ".join(["good"] * 40)
    rows = [{"question": "what?", "context": context, "answers": {"text": ["good"], "answer_start": [0]}}]
    encoded = encode(make_split(rows), spec_of(), tiny.make_tokenizer("bert"), 64)
    logits = np.zeros((len(encoded.tokens.ids), 2), np.float32)
    first = int(np.flatnonzero(encoded.tokens.second)[0])
    logits[first, 0], logits[first + 29, 1], logits[first + 30, 1] = 4, 2, 9
    # the best of all is too long, so it begins later
    assert encoded.predictions(logits) == [" ".join(["good"] * 30)]
    logits[first, 0] = 12
    assert len(encoded.predictions(logits)[0].split()) == 30


def test_an_answer_of_which_a_part_is_no_token_of_its_own() -> None:
    """It begins and ends with the tokens that its first and last characters are of; blanks around it do not count."""
    rows = [
        {"question": "what?", "context": "a good-looking film", "answers": {"text": given, "answer_start": start}}
        for given, start in ((["ok"], [8]), ([" good-"], [1]), ([" "], [1]), (["zz", "film"], [-1, 15]))
    ]
    encoded = encode(make_split(rows), spec_of(), tiny.make_tokenizer("bert"), 24)
    offsets = encoded.tokens.offsets[:-1]
    places = encoded.texts.places
    assert places is not None
    spans = [
        rows[0]["context"][places[offset + start][0] : places[offset + end][1]] if start else ""
        for offset, (start, end) in zip(offsets, encoded.alignment.targets, strict=True)
    ]
    assert spans == ["looking", "good-", "", "film"]


def test_contexts_and_questions_without_tokens() -> None:
    tokenizer = tiny.make_tokenizer("bert")
    rows = [
        {"question": "what?", "context": "\u0300", "answers": {"text": [], "answer_start": []}},
        {"question": "\u0300", "context": "good film", "answers": {"text": ["good"], "answer_start": [0]}},
    ]
    encoded = encode(make_split(rows), spec_of(unanswered=True), tokenizer, 24)
    logits = np.zeros((len(encoded.tokens.ids), 2), np.float32)
    logits[np.flatnonzero(encoded.tokens.second)] = 1
    assert encoded.predictions(logits)[1] == "good"
    assert encoded.alignment.positions is not None
    assert (np.add.reduceat(encoded.alignment.positions, encoded.tokens.offsets[:-1]) >= 1).all()


def test_no_row_and_no_context_token() -> None:
    _, encoded, _ = encoded_rows(count=2)
    texts = encoded.texts
    none = replace(encoded.alignment.details, **{
        name: np.zeros(0, np.int64) for name in ("places", "windows", "left", "starts", "ends")
    })  # fmt: skip
    starts, ends = best_spans(np.zeros((len(texts.tokens.ids), 2), np.float32), texts, none)
    assert starts.tolist() == ends.tolist() == [0, 0]


def test_agreement_is_the_overlap_of_both_answers() -> None:
    context = "good film and fine music"
    rows = [{"question": "what?", "context": context, "answers": {"text": ["good"], "answer_start": [0]}}] * 4
    encoded = encode(make_split(rows), spec_of(unanswered=True), tiny.make_tokenizer("bert"), 24)
    first = [int(np.flatnonzero(own)[0]) for own in by_sequence(encoded, encoded.tokens.second)]

    def outputs(*spans: tuple[int, int] | None) -> NDArray[np.float32]:
        logits = np.zeros((len(encoded.tokens.ids), 2), np.float32)
        for offset, begin, span in zip(encoded.tokens.offsets, first, spans, strict=False):
            places = (0, 0) if span is None else (begin + span[0], begin + span[1])
            logits[offset + places[0], 0] = logits[offset + places[1], 1] = 5
        return logits

    student = outputs((0, 1), (0, 0), None, None)  # good film, good, none, none
    teacher = outputs((1, 2), (0, 0), None, (3, 4))  # film and, good, none, fine music
    # "film" of "good film" and "film and", which have nine and eight characters
    assert encoded.agreement(student, teacher).tolist() == [2 * 4 / 17, 1.0, 1.0, 0.0]


# ---- what losses compare --------------------------------------------------------------------------------------------


def loss_pairs(dtype: torch.dtype = torch.float64) -> tuple[EncodedSplit, list[torch.Tensor], torch.Tensor]:
    _, encoded, _ = encoded_rows(count=12)
    generator = torch.Generator().manual_seed(0)
    total = len(encoded.tokens.ids)
    return encoded, [torch.randn(total, 2, generator=generator, dtype=dtype) * 3 for _ in range(2)], generator


def padded(encoded: EncodedSplit, flat: torch.Tensor, more: int = 0) -> torch.Tensor:
    parts = flat.split(np.diff(encoded.tokens.offsets).tolist())
    batch = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=7.0)
    return torch.nn.functional.pad(batch, (0, 0, 0, more), value=-3.0) if batch.ndim == 3 else batch


def loss_of(encoded: EncodedSplit, name: str, pair: list[torch.Tensor], **settings: Any) -> torch.Tensor:
    from sage_kit.components import BuildContext, LossBatch, ModelOutputs
    from sage_kit.config import load_config
    from sage_kit.data.targets import Targets

    rows = np.arange(len(encoded.texts.row_of))
    labels, positions = Targets.of(encoded).batch(rows, torch.device("cpu"))
    assert positions is not None
    positions = torch.nn.functional.pad(positions, (0, pair[0].shape[1] - positions.shape[1]))
    student, teacher = (encoded.handling.compared(one, positions) for one in pair)
    loss = PLUGINS.build("loss", name, {}, BuildContext(load_config(settings)))
    batch = LossBatch(
        ModelOutputs(student.logits), ModelOutputs(teacher.logits), labels,
        positions=student.counts, outcomes=student.outcomes,
    )  # fmt: skip
    found: torch.Tensor = loss.per_example(batch)
    return found


def naive(encoded: EncodedSplit, name: str, student: torch.Tensor, teacher: torch.Tensor) -> list[float]:
    """By the formula, one sequence at a time, over the places that there are."""
    found = []
    places = [np.flatnonzero(own) for own in by_sequence(encoded, np.asarray(encoded.alignment.positions))]
    for own, offset, target in zip(places, encoded.tokens.offsets, encoded.alignment.targets, strict=False):
        sides = []
        for side in range(2):
            s, t = student[offset + own, side].double(), teacher[offset + own, side].double()
            if name == "kl":
                p, q = torch.softmax(t / 2, 0), torch.softmax(s / 2, 0)
                sides.append(4 * (p * (p.log() - q.log())).sum())
            elif name == "logits_mse":
                sides.append((s - t).square().mean())
            else:
                sides.append(-torch.log_softmax(s, 0)[own.tolist().index(target[side])])
        found.append(float(sum(sides) / 2))
    return found


@pytest.mark.parametrize("name", ["kl", "logits_mse", "hard_labels"])
@pytest.mark.parametrize("more", [0, 9])
def test_losses_are_those_of_the_places_that_there_are(name: str, more: int) -> None:
    """Whatever stands at the question and at padding, and however much padding there is."""
    encoded, (student, teacher), _ = loss_pairs()
    pair = [padded(encoded, one, more) for one in (student, teacher)]
    pair[0].requires_grad_()
    losses = loss_of(encoded, name, pair, temperature=2.0)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(naive(encoded, name, student, teacher), rel=2e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), pair[0])
    assert gradient.isfinite().all()
    positions = padded(encoded, torch.from_numpy(np.asarray(encoded.alignment.positions))[:, None], more)
    counted = torch.nn.functional.pad(
        torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(own) for own in by_sequence(encoded, np.asarray(encoded.alignment.positions))],
            batch_first=True,
        ),
        (0, more),
    )
    assert positions.shape[1] == counted.shape[1]
    assert (gradient[~counted] == 0).all()
    assert (gradient[counted] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_finite(dtype: torch.dtype) -> None:
    encoded, (student, teacher), _ = loss_pairs()
    pair = [padded(encoded, one).to(dtype) for one in (student, teacher)]
    pair[0].requires_grad_()
    for name in ("kl", "logits_mse", "hard_labels"):
        losses = loss_of(encoded, name, pair, temperature=0.5)
        assert losses.isfinite().all()
        (gradient,) = torch.autograd.grad(losses.sum(), pair[0])
        assert gradient.isfinite().all()


def test_compared_and_answers() -> None:
    encoded, (student, _), _ = loss_pairs(torch.float32)
    batch = padded(encoded, student)
    positions = torch.zeros(batch.shape[:2], dtype=torch.bool)
    positions[:, [0, 3, 4]] = True
    compared = encoded.handling.compared(batch, positions)
    assert compared.logits.shape == (len(batch), 2, batch.shape[1])
    assert (compared.logits[:, :, [1, 2, 5]] == NOWHERE).all()
    assert torch.equal(compared.logits[:, 1, 3], batch[:, 3, 1])
    answers = encoded.handling.answers(compared)
    assert answers.shape == (len(batch), 2)
    assert set(answers.flatten().tolist()) <= {0, 3, 4}
    assert handling_of(encoded.spec).spec.architecture == "span"
