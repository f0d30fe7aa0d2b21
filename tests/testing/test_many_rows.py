"""Faults that show only with many rows, in a second use or after a resume are caught by name."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from soundreducer import Axes

from sage_kit import hookimpl
from sage_kit.components import (
    DecoderSpec,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    ObserverSpec,
    ReducerSpec,
    SamplerSpec,
    Samples,
    StopRuleSpec,
    TaskSpec,
    TokenBatch,
)
from sage_kit.testing.registry import CheckResult
from sage_kit.testing.run_checks import checks_for
from sage_kit.testing.subject import Subject

MANY = 1000


def outcome(spec: Any, name: str) -> CheckResult:
    """The result of one check."""
    (check,) = (check for check in checks_for(spec.kind) if check.name == name)
    return check.result(Subject(spec))


class View(Axes):
    def transform(self, vectors: Any) -> Any:
        return vectors[:, : self.width]


class Double(Axes):
    def inverse_transform(self, coordinates: Any) -> Any:
        return super().inverse_transform(coordinates).astype(float)


class NaNAtMany(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        found = super().fit_transform(vectors)
        found[MANY:] = np.nan
        return found


class ShuffledAtMany(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        found = super().fit_transform(vectors)
        return found[np.random.default_rng(0).permutation(len(found))] if len(found) > MANY else found


class ChangesManyRows(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        if len(vectors) > MANY:
            vectors[0] = 0
        return super().fit_transform(vectors)


class SeedOfTheClock(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        rng = np.random.default_rng(int(time.time()))
        return (super().fit_transform(vectors) + 1e-3 * rng.standard_normal((len(vectors), 1))).astype(np.float32)


class GoesOn(Axes):
    calls = 0

    def fit_transform(self, vectors: Any) -> Any:
        self.calls += 1
        return super().fit_transform(vectors) * np.float32(self.calls)


class OneBuffer(Axes):
    buffer: Any = None

    def fit_transform(self, vectors: Any) -> Any:
        found = super().fit_transform(vectors)
        if self.buffer is None or len(self.buffer) != len(found):
            self.buffer = found
        else:
            self.buffer += 1
        return self.buffer


class BatchwiseAtMany(Axes):
    def transform(self, vectors: Any) -> Any:
        shift = vectors[:, : self.width].max() if len(vectors) > MANY else 0
        return super().transform(vectors) + np.float32(shift)


class PairLoop(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        found = super().fit_transform(vectors)
        for row in found[:, 0].tolist():
            sum(abs(other - row) for other in found[:, 0].tolist())
            max(abs(other + row) for other in found[:, 0].tolist())
        return found


class Sampler:
    def __init__(self, options: Any, context: Any) -> None:
        self.history: list[Any] = []

    def sample(self, request: Any) -> Samples:
        anchors = request.rng.integers(len(request.losses), size=request.count)
        return Samples(anchors, request.coordinates[anchors])


class OutOfRangeAtMany(Sampler):
    def sample(self, request: Any) -> Samples:
        samples = super().sample(request)
        if request.count > MANY:
            samples.anchors[-1] = len(request.losses)
        return samples


class Trend(Sampler):
    """Chooses by the losses of the first round it has seen."""

    def sample(self, request: Any) -> Samples:
        self.history.append(np.array(request.losses))
        anchors = np.argsort(-self.history[0] - request.losses, kind="stable")[
            np.arange(request.count) % len(request.losses)
        ]
        return Samples(anchors, request.coordinates[anchors])


class TrendKept(Trend):
    def get_state(self) -> dict[str, Any]:
        return {"history": np.array(self.history, dtype=np.float32)}

    def set_state(self, state: Any) -> None:
        self.history = list(state["history"])


class TrendHalfKept(TrendKept):
    def get_state(self) -> dict[str, Any]:
        return {"history": np.array(self.history, dtype=np.float32)[-1:] * 0}


class TrendAsList(TrendKept):
    def get_state(self) -> dict[str, Any]:
        return {"history": [values.tolist() for values in self.history]}


class Inverter:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def fit(self, coordinates: Any, vectors: Any, reducer: Any) -> Any:
        from scipy.spatial import cKDTree

        self.tree, self.vectors = cKDTree(coordinates), vectors
        return self

    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return self.vectors[self.tree.query(coordinates)[1]]


class InvertByBatch(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return super().invert(coordinates, anchors) + np.float32(0.01 * coordinates.std())


class InvertShuffledAtMany(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        found = super().invert(coordinates, anchors)
        return found[::-1].copy() if len(found) > MANY else found


class LiftByCall:
    def __init__(self, options: Any, context: Any) -> None:
        self.rounds: set[int] = set()

    def lift(self, request: Any) -> TokenBatch:
        self.rounds.add(int(request.anchors[0]))
        return TokenBatch(request.anchor.states * len(self.rounds), request.anchor.mask)


class KeepFewAtMany:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def keep(self, request: Any) -> Any:
        return np.ones(min(MANY, len(request.vectors)), dtype=bool)


class DecodeFewAtMany:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def fit(self, teacher: Any) -> Any:
        return self

    def decode(self, batch: Any) -> list[str]:
        return ["text"] * min(256, len(batch.states))


class Rule:
    def __init__(self, options: Any, context: Any) -> None:
        self.best = 0.0

    def reason_to_stop(self, history: Any) -> str | None:
        return None


class RuleWrites(Rule):
    def reason_to_stop(self, history: Any) -> str | None:
        history[-1].dev["accuracy"] = 1.0
        return None


class RuleAtLength(Rule):
    def reason_to_stop(self, history: Any) -> str | None:
        return "one\ntwo" if len(history) > 10 else None


class Observer:
    def __init__(self, options: Any, context: Any) -> None:
        self.losses: list[Any] = []


class ReadsEachLoss(Observer):
    @hookimpl
    def sage_step_finished(self, loss: Any) -> None:
        if loss is not None:
            self.losses.append(float(loss))


class ReadsAtTheEnd(Observer):
    @hookimpl
    def sage_step_finished(self, loss: Any, done: int, total: int) -> None:
        if loss is not None:
            self.losses.append(loss.detach())
            if done == total:
                self.mean = torch.stack(self.losses).mean().item()


class Synchronizes(Observer):
    @hookimpl
    def sage_step_finished(self) -> None:
        torch.cuda.synchronize()


class RemovesCheckpoints(Observer):
    @hookimpl
    def sage_checkpoint_saved(self, path: Path) -> None:
        next(path.glob("*.safetensors")).unlink()


class ChangesSettings(Observer):
    @hookimpl
    def sage_run_finished(self, run: Any) -> None:
        run.config.observer_options["other"] = {}


class Uploads(Observer):
    """Right: it looks into the checkpoint and the student, which are there."""

    @hookimpl
    def sage_checkpoint_saved(self, path: Path) -> None:
        assert sum(file.stat().st_size for file in path.iterdir()) > 0

    @hookimpl
    def sage_run_finished(self, run: Any) -> None:
        assert (run.directory / "student" / "config.json").exists()
        assert (run.directory / "summary.json").exists()


def reducer(factory: Any, **fields: Any) -> ReducerSpec:
    given = {"has_transform": True, "has_inverse": True, **fields}
    return ReducerSpec(name="broken", summary="Broken", factory=factory, **given)


def of(kind: str, factory: Any) -> Any:
    specs = {"sampler": SamplerSpec, "inverter": InverterSpec, "lift": LiftSpec, "filter": FilterSpec}
    specs |= {"decoder": DecoderSpec, "stop_rule": StopRuleSpec, "observer": ObserverSpec}
    return specs[kind](name="broken", summary="Broken", factory=factory)


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (reducer(View), "returns_no_view", "coordinates with 96 rows is a view of vectors"),
        (reducer(Double), "reducer_returns_float32", "inverse_transform returns float64 instead of float32"),
        (reducer(NaNAtMany), "works_with_many_rows", "with 2,500 rows: what fit_transform returns holds NaN"),
        (reducer(ShuffledAtMany), "reducer_keeps_order", "with many rows transform places the same vectors elsewhere"),
        (
            reducer(ShuffledAtMany, has_transform=False),
            "reducer_keeps_order",
            "with many rows its inverse is no better than the mean vector",
        ),
        (
            reducer(ShuffledAtMany, has_transform=False, has_inverse=False),
            "reducer_keeps_order",
            "neighbours among the vectors are no nearer in the map than rows at random",
        ),
        (reducer(ChangesManyRows), "keeps_many_rows", "in place: vectors with 2,500 rows"),
        (reducer(SeedOfTheClock), "is_repeatable_with_many_rows", "two objects give different coordinates"),
        (reducer(GoesOn), "second_use_agrees", "one object gives different coordinates"),
        (reducer(OneBuffer), "second_use_agrees", "its second use overwrites what the first returned: coordinates"),
        (reducer(BatchwiseAtMany, has_inverse=False), "reducer_batch_invariance", "a batch of them and one of many"),
        (of("sampler", OutOfRangeAtMany), "works_with_many_rows", "with 2,500 rows: an anchor lies outside 0 to 2499"),
        (of("sampler", Trend), "survives_a_resume", "and a resumed run has lost that. To fix:"),
        (of("sampler", TrendHalfKept), "survives_a_resume", "set_state does not bring everything back"),
        (of("sampler", TrendAsList), "survives_a_resume", "the state's 'history' is a list and no array of numbers"),
        (of("inverter", InvertByBatch), "inverter_batch_invariance", "standard deviations between batches"),
        (of("inverter", InvertShuffledAtMany), "inverter_keeps_order", "with many rows it is no better than the mean"),
        (of("lift", LiftByCall), "survives_a_resume", "its states in round three depend on what it saw in round two"),
        (of("filter", KeepFewAtMany), "works_with_many_rows", "keep returns shape (1000,), unlike the 2500 rows"),
        (of("decoder", DecodeFewAtMany), "works_with_many_rows", "decode returns 256 texts for 300 rows"),
        (of("stop_rule", RuleWrites), "stop_rule_answers", "this table is read-only"),
        (of("stop_rule", RuleAtLength), "works_with_many_rows", "with 25 rounds: it answers 'one\\ntwo'"),
        (of("observer", ReadsEachLoss), "observer_waits_for_no_step", "at 48 of 48 steps"),
        (of("observer", Synchronizes), "observer_waits_for_no_step", "or waits for the device"),
        (of("observer", RemovesCheckpoints), "observer_keeps_its_input", "the run's file checkpoints/round-000/"),
        (of("observer", ChangesSettings), "observer_bears_every_hook", "this table is read-only"),
    ],
    ids=lambda value: value.factory.__name__ if hasattr(value, "factory") else None,
)
def test_a_fault_is_caught_by_name(spec: Any, check: str, message: str) -> None:
    result = outcome(spec, check)
    assert not result.passed
    assert message in result.message
    assert "To fix: " in result.message


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        (reducer(Axes), "reducer_keeps_order"),
        (reducer(Axes), "time_grows_slowly"),
        (of("sampler", Sampler), "survives_a_resume"),
        (of("sampler", TrendKept), "survives_a_resume"),
        (of("sampler", TrendKept), "sampler_is_repeatable"),
        (of("inverter", Inverter), "inverter_batch_invariance"),
        (of("observer", ReadsAtTheEnd), "observer_waits_for_no_step"),
        (of("observer", Uploads), "observer_bears_every_hook"),
        (of("observer", Uploads), "observer_keeps_its_input"),
    ],
    ids=lambda value: value.factory.__name__ if hasattr(value, "factory") else None,
)
def test_what_is_right_passes(spec: Any, check: str) -> None:
    result = outcome(spec, check)
    assert result.passed, result.message
    assert not result.warned
    assert not result.skipped


def test_quadratic_time_is_a_warning() -> None:
    result = outcome(reducer(PairLoop, has_inverse=False), "time_grows_slowly")
    assert result.passed
    assert result.warned, result.message
    assert "s of processor time with 2,500 rows and" in result.message
    assert "with 100,000 rows that would be about" in result.message


# ---- tasks


def task(rows: list[tuple[str, Any]], held_out: list[tuple[str, Any]], shuffled: bool = False) -> TaskSpec:
    def loader(config: Any) -> dict[str, dict[str, list[Any]]]:
        train = list(rows)
        if shuffled:
            random.shuffle(train)
        parts = {"train": train, "validation": held_out}
        return {name: {"text": [t for t, _ in part], "label": [c for _, c in part]} for name, part in parts.items()}

    return TaskSpec(
        name="own", summary="Own", text_columns=("text",), labels=("arts", "sport", "travel"), loader=loader
    )


CLASSES = ("arts", "sport", "travel")
TRAIN = [(f"text {number} of {CLASSES[number % 3]}", CLASSES[number % 3]) for number in range(60)]
HELD_OUT = [(f"held-out text {number}", CLASSES[number % 3]) for number in range(15)]


@pytest.mark.parametrize("check", ["task_loads", "task_is_repeatable", "task_splits_apart", "task_runs"])
def test_a_task_with_other_classes_than_the_teacher_passes(check: str) -> None:
    result = outcome(task(TRAIN, HELD_OUT), check)
    assert result.passed, result.message
    assert not result.skipped


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (task([], HELD_OUT), "task_loads", "DataError: task 'own', split 'train' has no rows"),
        (task([(text, [label]) for text, label in TRAIN], HELD_OUT), "task_loads", "['arts']"),
        (task([("", "arts"), *TRAIN], HELD_OUT), "task_loads", "text"),
        (task(TRAIN, TRAIN[:10] + HELD_OUT), "task_splits_apart", "10 of the 25 rows of split 'validation'"),
        (task(TRAIN, HELD_OUT, shuffled=True), "task_is_repeatable", "split 'train' is not the same"),
        (task(TRAIN, HELD_OUT, shuffled=True), "leaves_random_states", "its loader changes random"),
    ],
    ids=["no rows", "lists", "empty text", "overlap", "shuffled", "global state"],
)
def test_a_broken_task_is_caught_in_the_words_of_the_run(spec: TaskSpec, check: str, message: str) -> None:
    result = outcome(spec, check)
    assert not result.passed
    assert message in result.message
