"""Scores on validation splits beside published ones, transfer between splits, and how settings are told."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from sage_kit.components import TaskSpec
from sage_kit.studies.analyses.published import GLUE_SIZES, METRICS, PUBLISHED, published, split_text
from sage_kit.studies.analyses.scores import (
    beside_published,
    compare_splits,
    other_split_gains,
    taught,
    teacher_over_constant,
    transfer,
    validation_scores,
)
from sage_kit.studies.claims import CLAIMS
from sage_kit.studies.predictions import compare_outputs
from sage_kit.studies.runs import Runs
from sage_kit.studies.statistics import p_value, two_way

SEEDS = 4
LABELS = {split: np.random.default_rng(n).integers(0, 2, 60 + n) for n, split in enumerate(("en", "de", "zh"))}


def logits_of(arm: str, seed: int, split: str) -> Any:
    """Right with a chance that depends on arm and split."""
    chance = {"plain": 0.7, "SAGE": 0.8, "teacher": 0.9}[arm] - {"en": 0.0, "de": 0.1, "zh": 0.2}[split]
    rng = np.random.default_rng([seed, len(arm), len(split), ord(split[0])])
    labels = LABELS[split]
    right = rng.random(len(labels)) < chance
    return np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]


def accuracy(logits: Any, split: str) -> float:
    return float((logits.argmax(axis=1) == LABELS[split]).mean())


def make_runs(task: str, splits: Sequence[str], metric: str = "accuracy") -> list[Any]:
    runs = []
    teacher = {split: logits_of("teacher", 0, split) for split in splits}

    def scores(logits: Any, split: str) -> dict[str, float]:
        value = accuracy(logits, split)
        return {metric: value, **({"accuracy": value - 0.01} if metric != "accuracy" else {}), "calibration_error": 0.1}

    for arm in ("plain", "SAGE"):
        for seed in range(SEEDS):
            student = {split: logits_of(arm, seed, split) for split in splits}
            summary = {
                "validation": {split: {**scores(student[split], split), "agreement": 0.9} for split in splits},
                "teacher": {"validation": {split: scores(teacher[split], split) for split in splits}},
                "examples": {"train": 90, "dev": 10, **{split: len(LABELS[split]) for split in splits}},
            }
            predictions = {
                split: {"student": student[split], "teacher": teacher[split], "labels": LABELS[split]}
                for split in splits
            }
            runs.append(
                SimpleNamespace(
                    arm=arm,
                    task=task,
                    seed=seed,
                    metric=metric,
                    summary=summary,
                    predictions=predictions,
                    config=task,
                    splits=list(summary["validation"]),
                )
            )
    return runs


@pytest.fixture
def runs() -> Runs:
    return Runs([*make_runs("pawsx", ["en", "de", "zh"]), *make_runs("qqp", ["en"], "f1")])


def test_scores_are_means_with_intervals_over_seeds_and_examples(runs: Runs) -> None:
    table = validation_scores(runs)
    values = [accuracy(logits_of("SAGE", seed, "de"), "de") for seed in range(SEEDS)]
    (row,) = table.query("task == 'pawsx' and split == 'de' and arm == 'SAGE'").to_dict("records")
    assert row["mean"] == pytest.approx(np.mean(values))
    right = np.stack([logits_of("SAGE", seed, "de").argmax(axis=1) == LABELS["de"] for seed in range(SEEDS)])
    expected = two_way(right.astype(float))
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (row["n_seeds"], row["n_examples"]) == (SEEDS, len(LABELS["de"]))
    assert row["setting"] == "61 rows of de; trained on 90 rows"
    assert set(table["metric"]) == {"accuracy", "f1"}
    assert set(table.query("task == 'qqp' and primary")["metric"]) == {"f1"}
    teacher = table.query("task == 'pawsx' and split == 'en' and arm == 'teacher'").iloc[0]
    assert teacher["mean"] == pytest.approx(accuracy(logits_of("teacher", 0, "en"), "en"))
    assert np.isnan(teacher["low"])


def test_published_rows_stand_only_beside_their_own_tasks(runs: Runs) -> None:
    table = beside_published(validation_scores(runs))
    others = table[table["by"] == "published"]
    assert set(others["task"]) == {"qqp"}
    assert set(others["metric"]) == {"accuracy"}
    assert (others["source"].str.len() > 0).all()
    # ours in both: the task's own metric, and the one that others report
    assert set(table.query("by == 'ours' and task == 'qqp'")["metric"]) == {"f1", "accuracy"}
    assert set(table.query("task == 'pawsx'")["metric"]) == {"accuracy"}
    # only a task's first split
    assert len(table.query("task == 'pawsx'")) == 3


def test_compare_splits_pairs_each_split(runs: Runs) -> None:
    spec = TaskSpec(name="pawsx", summary="", text_columns=("a",), labels=("x", "y"))
    study: Any = SimpleNamespace(
        compare=lambda runs, base, split: compare_outputs(runs, {"pawsx": spec}, base, split=split)
    )
    table = compare_splits(study, Runs(runs.of(task="pawsx")), "plain")
    assert list(table["split"]) == ["en", "de", "zh"]
    for row in table.itertuples():
        ours, base = (
            np.array([accuracy(logits_of(arm, seed, row.split), row.split) for seed in range(SEEDS)])
            for arm in ("SAGE", "plain")
        )
        assert row.difference == pytest.approx((ours - base).mean())
        hits = [np.stack([logits_of(arm, seed, row.split).argmax(1) for seed in range(SEEDS)]) == LABELS[row.split]
                for arm in ("SAGE", "plain")]  # fmt: skip
        assert row.p == pytest.approx(p_value(two_way(hits[0].astype(float) - hits[1])))


def knowing(task: str, labels: Any, logits: Any, metric: str) -> tuple[Any, Runs]:
    """A study of one task and a run whose teacher answers with these logits."""
    names = ("x", "y") if logits.shape[1] == 2 else ()
    spec = TaskSpec(name=task, summary="", text_columns=("a",), labels=names, metrics=(metric,))
    study = SimpleNamespace(store=SimpleNamespace(data=lambda config: SimpleNamespace(spec=spec)))
    run: Any = SimpleNamespace(
        arm="plain", task=task, seed=0, metric=metric, config=task, summary={"validation": {"validation": {}}},
        predictions={"validation": {"student": logits, "teacher": logits, "labels": labels}},
    )  # fmt: skip
    return study, Runs([run])


def test_a_teacher_that_answers_always_alike_is_not_ahead_of_a_constant() -> None:
    labels = np.array([1] * 70 + [0] * 30)
    study, runs = knowing("mrpc", labels, np.tile([[0.0, 1.0]], (100, 1)), "f1")
    table = teacher_over_constant(study, runs)
    (row,) = table.to_dict("records")
    assert row["teacher"] == row["constant"] == pytest.approx(metrics.f1_score(labels, np.ones(100)))
    assert row["difference"] == 0
    # no example of 100 tells them apart, and a few may among others
    assert row["high"] == -row["low"] == pytest.approx(1 - 0.025 ** (1 / 100))
    assert taught(runs, table).tasks == []


def test_the_lead_over_a_constant_has_the_interval_of_its_examples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    guesses = np.where(rng.random(400) < 0.8, labels, 1 - labels)
    study, runs = knowing("sst2", labels, np.eye(2)[guesses], "accuracy")
    table = teacher_over_constant(study, runs)
    (row,) = table.to_dict("records")
    share = max(labels.mean(), 1 - labels.mean())
    assert row["teacher"] == pytest.approx((guesses == labels).mean())
    assert row["constant"] == pytest.approx(share)
    each = (guesses == labels).astype(float) - (labels == int(labels.mean() > 0.5))
    error = stats.sem(each)
    assert row["low"] == pytest.approx(each.mean() - 1.96 * error, abs=0.3 * error)
    assert row["high"] == pytest.approx(each.mean() + 1.96 * error, abs=0.3 * error)
    assert taught(runs, table).tasks == ["sst2"]


def test_a_constant_has_no_correlation() -> None:
    labels = np.linspace(0, 5, 50)
    study, runs = knowing("stsb", labels, labels[:, None], "pearson")
    (row,) = teacher_over_constant(study, runs).to_dict("records")
    assert (row["teacher"], row["constant"]) == (pytest.approx(1), 0)


def test_transfer_tells_the_fall_and_what_a_constant_answer_scores(runs: Runs) -> None:
    table = transfer(runs)
    assert set(table["task"]) == {"pawsx"}
    assert len(table) == 9
    (row,) = table.query("split == 'zh' and arm == 'plain'").to_dict("records")
    here, there = (
        np.array([accuracy(logits_of("plain", seed, split), split) for seed in range(SEEDS)]) for split in ("zh", "en")
    )
    assert row["mean"] == pytest.approx(here.mean())
    assert row["gap"] == pytest.approx((there - here).mean())
    for name, values in (("", here), ("gap_", there - here)):
        low, high = stats.t.interval(0.95, SEEDS - 1, values.mean(), stats.sem(values))
        assert (row[f"{name}low"], row[f"{name}high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["source"] == "en"
    assert row["constant"] == pytest.approx(max(LABELS["zh"].mean(), 1 - LABELS["zh"].mean()))
    assert (table.query("split == 'en'")["gap"] == 0).all()


def test_other_split_gains_average_over_the_other_splits_within_each_seed(runs: Runs) -> None:
    (row,) = other_split_gains(runs, "SAGE", "plain").to_dict("records")
    gains = [
        np.mean([
            accuracy(logits_of("SAGE", s, split), split) - accuracy(logits_of("plain", s, split), split)
            for split in ("de", "zh")
        ])
        for s in range(SEEDS)
    ]  # fmt: skip
    assert row["difference"] == pytest.approx(np.mean(gains))
    parts = [
        two_way(
            np.stack([
                (logits_of("SAGE", s, split).argmax(axis=1) == LABELS[split]) * 1.0
                - (logits_of("plain", s, split).argmax(axis=1) == LABELS[split])
                for s in range(SEEDS)
            ])
        )
        for split in ("de", "zh")
    ]  # fmt: skip
    assert row["low"] == pytest.approx(np.mean([part.low for part in parts]))
    assert row["high"] == pytest.approx(np.mean([part.high for part in parts]))
    assert row["df"] == min(part.df for part in parts)
    assert (row["n_splits"], row["n_examples"]) == (2, 61 + 62)


def test_without_several_splits_the_tables_are_empty_but_whole() -> None:
    alone = Runs(make_runs("reviews", ["en"]))
    assert transfer(alone).empty
    assert "gap" in transfer(alone)
    assert other_split_gains(alone, "SAGE", "plain").empty


# ---- the published scores


def test_published_scores_are_shares_with_sources() -> None:
    for one in PUBLISHED:
        assert 0.3 < one.score < 1
        assert one.metric == METRICS[one.task]
        assert one.source
        assert one.split
    assert len({(one.model, one.task) for one in PUBLISHED}) == len(PUBLISHED)
    frame = pd.DataFrame(published(["sst2", "cola"]))
    assert list(dict.fromkeys(frame["task"])) == ["sst2", "cola"]
    assert frame.query("model == 'DistilBERT' and task == 'cola'")["score"].item() == 0.513


def test_the_papers_scores_are_those_of_the_claims() -> None:
    stated = {one.task: one.score for one in PUBLISHED if one.model.startswith("SAGE")}
    claims = {claim.task: claim for claim in CLAIMS if claim.study == "09_glue" and claim.task}
    assert stated.keys() == claims.keys()
    for task, score in stated.items():
        assert f"({score:.3f} " in claims[task].paper_value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("validation", 872, 3000, "sst2"), "validation; trained on 3,000 of 67,349 rows"),
        (("validation", 277, 2490, "rte"), "validation; trained on 2,490 of 2,490 rows"),
        (("validation", 8403, 3000, "qqp"), "8,403 of 40,430 rows of validation; trained on 3,000 of 363,846 rows"),
        (("en", 10, 20, "xnli"), "10 rows of en; trained on 20 rows"),
    ],
)
def test_split_text(arguments: Any, expected: str) -> None:
    assert split_text(*arguments) == expected


def test_sizes_are_those_of_the_released_files(data_dir: Any) -> None:
    import pyarrow.parquet as pq

    for task in ("cola", "sst2", "mrpc", "stsb", "rte", "wnli"):
        rows = [
            pq.ParquetFile(data_dir / "glue" / task / f"{split}.parquet").metadata.num_rows
            for split in ("train", "validation")
        ]
        assert tuple(rows) == GLUE_SIZES[task]
