"""Components that are broken on purpose: each is caught by the check that is meant for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from soundreducer import Axes

from sage_kit import hookimpl
from sage_kit.builtin.lifts import sage_lifts
from sage_kit.components import (
    DecoderSpec,
    FilterSpec,
    Guesses,
    InverterSpec,
    LiftSpec,
    MetricSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    Samples,
    StopRuleSpec,
    TaskSpec,
    TokenBatch,
)
from sage_kit.errors import CompatibilityError
from sage_kit.testing import check_component, run_checks


def axes(factory: Any = Axes, **fields: Any) -> ReducerSpec:
    given = {"has_transform": True, "has_inverse": True, "has_state": True, **fields}
    return ReducerSpec(name="axes", summary="The first columns", factory=factory, **given)


def failed(spec: Any, **arguments: Any) -> dict[str, str]:
    """Messages of the failures by check."""
    return {result.name: result.message for result in check_component(spec, **arguments) if not result.passed}


def failure(spec: Any, name: str) -> str:
    """The message of one check that is failed: of all others, those alone are run whose failure would hide it."""
    wanted = (name, "protocol", f"{spec.kind}_shapes")
    chosen = [check for check in run_checks.checks_for(spec.kind) if check.name in wanted]
    with mock.patch.object(run_checks, "checks_for", return_value=chosen):
        return failed(spec)[name]


def test_the_sound_reducer_passes() -> None:
    assert failed(axes()) == {}


# ---- reducers


class WrongShape(Axes):
    def transform(self, vectors: Any) -> Any:
        return super().transform(vectors)[:, :1]


class Mutating(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        vectors -= vectors.mean(0)
        return super().fit_transform(vectors)


class Unseeded(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        coordinates = super().fit_transform(vectors)
        return coordinates + np.random.default_rng().standard_normal(coordinates.shape, np.float32) * np.float32(1e-3)


class WithoutMethod:
    fit_transform = Axes.fit_transform
    transform = Axes.transform
    __init__ = Axes.__init__


class WrongInverse(Axes):
    def inverse_transform(self, coordinates: Any) -> Any:
        return super().inverse_transform(-coordinates)


class LostState(Axes):
    def get_state(self) -> dict[str, Any]:
        return {"mean": np.zeros_like(self.mean_)}


class Batchwise(Axes):
    def transform(self, vectors: Any) -> Any:
        return super().transform(vectors - vectors.mean(0))


class Fragile(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        if len(np.unique(vectors, axis=0)) < len(vectors):
            raise ZeroDivisionError("no distance")
        return super().fit_transform(vectors)


class TurnedTransform(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        return -super().fit_transform(vectors)


class ZeroInverse(Axes):
    def inverse_transform(self, coordinates: Any) -> Any:
        return np.zeros((len(coordinates), 16), np.float32)


class HidingNaN(Axes):
    def fit_transform(self, vectors: Any) -> Any:
        return super().fit_transform(np.nan_to_num(vectors))


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (axes(WrongShape), "reducer_shapes", "has shape (96, 1) instead of (96, 2)"),
        (axes(Mutating), "reducer_keeps_its_input", "it changes its input in place: vectors"),
        (axes(Unseeded), "reducer_is_repeatable", "two fits under the same seed give different coordinates"),
        (axes(WithoutMethod, has_state=False), "protocol", "without inverse_transform()"),
        (axes(TurnedTransform, has_inverse=False), "reducer_transform_agrees", "elsewhere than fit_transform does"),
        (axes(ZeroInverse), "reducer_inverse_beats_mean", "no better than the mean vector"),
        (axes(WrongInverse), "reducer_inverse_beats_mean", "no better than the mean vector"),
        (axes(LostState), "reducer_state_round_trip", "inverse_transform differs after set_state"),
        (axes(Batchwise), "reducer_batch_invariance", "standard deviations between batches"),
        (axes(Fragile), "reducer_takes_hard_data", "it raises ZeroDivisionError: no distance"),
        (axes(HidingNaN), "reducer_does_not_hide_nan", "a vector that holds NaN gets finite coordinates"),
        (axes(max_components=0), "reducer_limit_is_kept", "max_components is 0"),
    ],
    ids=lambda value: value.factory.__name__ if isinstance(value, ReducerSpec) else None,
)
def test_broken_reducers_are_caught_by_name(spec: ReducerSpec, check: str, message: str) -> None:
    told = failure(spec, check)
    assert message in told
    assert "To fix: " in told
    assert "\n" not in told


def test_one_fault_is_not_blamed_on_sound_parts() -> None:
    assert set(failed(axes(Mutating))) <= {"reducer_keeps_its_input", "reducer_inverse_beats_mean"}
    assert set(failed(axes(Batchwise))) <= {"reducer_batch_invariance", "reducer_inverse_beats_mean"}
    assert set(failed(axes(Fragile))) == {"reducer_takes_hard_data"}


def test_an_unrepeatable_reducer_that_says_so_passes() -> None:
    results = {result.name: result for result in check_component(axes(Unseeded, repeatable=False, has_state=False))}
    assert results["reducer_is_repeatable"].skipped
    assert all(result.passed for result in results.values())


HEAVY_PLUGIN = """
import {module}

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec


class HeavyOptions(Options):
    pass


@hookimpl
def sage_reducers():
    yield ReducerSpec(name="heavy", summary="Heavy", factory=lambda options, context: None, options=HeavyOptions)
"""


@pytest.mark.parametrize(("module", "passed"), [("torch", False), ("sklearn", False), ("json", True)])
def test_importing_at_discovery_is_caught(
    module: str, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"heavy_plugin_{module}"
    (tmp_path / f"{name}.py").write_text(HEAVY_PLUGIN.format(module=module), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (spec,) = __import__(name).sage_reducers()
    if passed:
        assert "light_discovery" not in failed(spec)
    else:
        told = failure(spec, "light_discovery")
        assert f"importing {name} loads " in told
        assert module in told


HEAVY_OBSERVER = """
import torch

from sage_kit import hookimpl
from sage_kit.components import ObserverSpec


class MemoryObserver:
    @hookimpl
    def sage_round_finished(self):
        print(torch.cuda.max_memory_allocated())


@hookimpl
def sage_observers():
    yield ObserverSpec(name="memory", summary="Memory", factory=lambda options, context: MemoryObserver())
"""


def test_an_observer_that_imports_torch_at_discovery_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_observer.py").write_text(HEAVY_OBSERVER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (spec,) = __import__("heavy_observer").sage_observers()
    assert "importing heavy_observer loads " in failure(spec, "light_discovery")


# ---- other kinds


class Sampler:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def sample(self, request: Any) -> Samples:
        anchors = request.rng.integers(len(request.losses), size=request.count)
        return Samples(anchors=anchors, coordinates=request.coordinates[anchors])


class SampleTooFew(Sampler):
    def sample(self, request: Any) -> Samples:
        samples = super().sample(request)
        return Samples(samples.anchors[1:], samples.coordinates[1:])


class SampleUnseeded(Sampler):
    def sample(self, request: Any) -> Samples:
        anchors = np.random.default_rng().integers(len(request.losses), size=request.count)
        return Samples(anchors, request.coordinates[anchors])


class SampleGoesOn(Sampler):
    """Keeps a generator, which a resumed run would find in another state."""

    def __init__(self, options: Any, context: Any) -> None:
        self.rng = np.random.default_rng(context.seed)

    def sample(self, request: Any) -> Samples:
        anchors = self.rng.integers(len(request.losses), size=request.count)
        return Samples(anchors, request.coordinates[anchors])


class SampleWantsGradient(Sampler):
    def sample(self, request: Any) -> Samples:
        samples = super().sample(request)
        request.divergence_gradient(samples.anchors)
        return samples


class SampleMutating(Sampler):
    def sample(self, request: Any) -> Samples:
        request.losses.sort()
        return super().sample(request)


class SampleByWeight(Sampler):
    def sample(self, request: Any) -> Samples:
        anchors = request.rng.choice(len(request.losses), request.count, p=request.losses / request.losses.sum())
        return Samples(anchors, request.coordinates[anchors])


class Inverter:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def fit(self, coordinates: Any, vectors: Any, reducer: Any) -> Any:
        self.vectors, self.coordinates = vectors, coordinates
        return self

    def nearest(self, coordinates: Any) -> Any:
        return np.square(coordinates[:, None] - self.coordinates[None]).sum(-1).argmin(1)

    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return self.vectors[self.nearest(coordinates)]


class InvertBackwards(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return super().invert(coordinates, anchors)[::-1]


class InvertInDouble(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return super().invert(coordinates, anchors).astype(float)


class FitReturnsNothing(Inverter):
    def fit(self, coordinates: Any, vectors: Any, reducer: Any) -> Any:
        super().fit(coordinates, vectors, reducer)


class InvertMutating(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        coordinates += 0.5
        return super().invert(coordinates, anchors)


class Lift:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def lift(self, request: Any) -> TokenBatch:
        states = request.anchor.states + request.displacement.unsqueeze(1)
        return TokenBatch(states.masked_fill(~request.anchor.mask.unsqueeze(2), 0), request.anchor.mask)


class LiftOverPadding(Lift):
    def lift(self, request: Any) -> TokenBatch:
        return TokenBatch(request.anchor.states + request.displacement.unsqueeze(1), request.anchor.mask)


class LiftInPlace(Lift):
    def lift(self, request: Any) -> TokenBatch:
        request.anchor.states.mul_(2)
        return request.anchor


class LiftUnseeded(Lift):
    def lift(self, request: Any) -> TokenBatch:
        batch = super().lift(request)
        return TokenBatch(batch.states * torch.rand(1), batch.mask)


class LiftNeighbors(Lift):
    def lift(self, request: Any) -> TokenBatch:
        return request.states(request.neighbors[:, 0])


class Keep:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def keep(self, request: Any) -> Any:
        return np.ones(len(request.vectors), dtype=bool)


class KeepNumbers(Keep):
    def keep(self, request: Any) -> Any:
        return np.ones(len(request.vectors), dtype=int)


class KeepAtRandom(Keep):
    def keep(self, request: Any) -> Any:
        return np.random.random(len(request.vectors)) < 0.5


class KeepByPlace(Keep):
    def keep(self, request: Any) -> Any:
        return request.coordinates[:, 0] < 100


class KeepMutating(Keep):
    def keep(self, request: Any) -> Any:
        request.vectors[:] = 0
        return super().keep(request)


class Decode:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def fit(self, teacher: Any) -> Any:
        return self

    def decode(self, batch: Any) -> list[str]:
        return [f"{int(length)} tokens" for length in batch.mask.sum(1)]


class DecodeTooFew(Decode):
    def decode(self, batch: Any) -> list[str]:
        return super().decode(batch)[1:]


class DecodeMutating(Decode):
    def decode(self, batch: Any) -> list[str]:
        batch.states.mul_(2)
        return super().decode(batch)


class DecodeUnseeded(Decode):
    def fit(self, teacher: Any) -> Any:
        self.number = np.random.random()
        return self

    def decode(self, batch: Any) -> list[str]:
        return [f"{text} {self.number}" for text in super().decode(batch)]


class DecodePadding(Decode):
    def decode(self, batch: Any) -> list[str]:
        return [f"{len(row)} tokens" for row in batch.mask]


class FitForgetsItself(Decode):
    def fit(self, teacher: Any) -> Any:
        self.tokenizer = teacher.tokenizer


class FitMutating(Decode):
    def fit(self, teacher: Any) -> Any:
        teacher.train.states[:] -= 1
        return self


class DecodeLongest(Decode):
    def decode(self, batch: Any) -> list[str]:
        batch.mask.sum(1).max()
        return super().decode(batch)


class GuessRising(Decode):
    def guess(self, batch: Any, k: int) -> Any:
        ids = np.broadcast_to(np.arange(k), (*batch.mask.shape, k))
        return Guesses(ids, ids.astype(np.float32))


class GuessTwice(Decode):
    def guess(self, batch: Any, k: int) -> Any:
        shape = (*batch.mask.shape, k)
        return Guesses(np.zeros(shape, np.int64), np.zeros(shape, np.float32))


class Rule:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def reason_to_stop(self, history: Any) -> Any:
        return history[-1].round > 2


class DeafObserver:
    def __init__(self, options: Any, context: Any) -> None:
        pass


class FailingObserver(DeafObserver):
    @hookimpl
    def sage_round_finished(self, result: Any) -> None:
        raise ValueError("no such metric")


class EagerObserver(DeafObserver):
    @hookimpl
    def sage_message(self, run: Any) -> None:
        print(run.directory)


class EagerStepObserver(DeafObserver):
    @hookimpl
    def sage_step_finished(self, run: Any) -> None:
        print(run.directory)


class MistypedObserver(DeafObserver):
    @hookimpl
    def sage_round_finished(self, results: Any) -> None:
        print(results)


class MisnamedObserver(DeafObserver):
    @hookimpl
    def sage_round_ended(self, result: Any) -> None:
        print(result)


class ObserverFailsAtEnd(DeafObserver):
    @hookimpl
    def sage_run_finished(self, summary: Any) -> None:
        print(summary["accuracy"])


class ObserverFailsOnFailure(DeafObserver):
    @hookimpl
    def sage_run_failed(self, error: Any) -> None:
        print(error.exit_code)


class ObserverTrustsLosses(DeafObserver):
    @hookimpl
    def sage_losses_profiled(self, losses: Any) -> None:
        print(int(losses[0]))


class ObserverSorts(DeafObserver):
    @hookimpl
    def sage_losses_profiled(self, losses: Any) -> None:
        losses.sort()


class ObserverScales(DeafObserver):
    @hookimpl
    def sage_synthetic_created(self, synthetic: Any) -> None:
        synthetic.vectors /= np.linalg.norm(synthetic.vectors, axis=1, keepdims=True)


class ObserverSpends(DeafObserver):
    @hookimpl
    def sage_round_finished(self, run: Any) -> None:
        run.costs.add("observer", seconds=1.0)


class ObserverDraws(DeafObserver):
    @hookimpl
    def sage_step_finished(self, done: int) -> None:
        torch.rand(done)


class ObserverSeeds(DeafObserver):
    @hookimpl
    def sage_round_finished(self) -> None:
        torch.manual_seed(0)
        np.random.seed(0)


class InvertToAnchor(Inverter):
    def invert(self, coordinates: Any, anchors: Any) -> Any:
        return self.vectors[anchors]


class InvertWantsReducer(Inverter):
    def fit(self, coordinates: Any, vectors: Any, reducer: Any) -> Any:
        self.inverse = reducer.inverse_transform
        return super().fit(coordinates, vectors, reducer)


class LiftWantsShares(Lift):
    def lift(self, request: Any) -> TokenBatch:
        return TokenBatch(request.anchor.states * request.shares.mean(), request.anchor.mask)


class LiftGoesOn(Lift):
    def __init__(self, options: Any, context: Any) -> None:
        self.generator = torch.Generator().manual_seed(context.seed)

    def lift(self, request: Any) -> TokenBatch:
        factor = torch.rand((), generator=self.generator)
        return TokenBatch(request.anchor.states * factor, request.anchor.mask)


class KeepGoesOn(Keep):
    def __init__(self, options: Any, context: Any) -> None:
        self.rng = np.random.default_rng(context.seed)

    def keep(self, request: Any) -> Any:
        return self.rng.random(len(request.vectors)) < 0.5


SPECS = {"sampler": SamplerSpec, "inverter": InverterSpec, "lift": LiftSpec, "filter": FilterSpec}
SPECS |= {"stop_rule": StopRuleSpec, "observer": ObserverSpec, "decoder": DecoderSpec, "metric": MetricSpec}


class ObserverSaysStop(DeafObserver):
    @hookimpl
    def sage_control(self, done: int) -> Any:
        return "stop" if done else None


class Hits:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def score(self, labels: Any, predictions: Any) -> Any:
        return float(np.mean(self.contributions(labels, predictions)))

    def contributions(self, labels: Any, predictions: Any) -> Any:
        return (labels == predictions).astype(np.float64)


class HitsInPercent(Hits):
    def contributions(self, labels: Any, predictions: Any) -> Any:
        return 100.0 * super().contributions(labels, predictions)


class Misses(Hits):
    def contributions(self, labels: Any, predictions: Any) -> Any:
        return 1.0 - super().contributions(labels, predictions)


class HitsAsText(Hits):
    def score(self, labels: Any, predictions: Any) -> Any:
        return "good"


class HitsSorted(Hits):
    def score(self, labels: Any, predictions: Any) -> Any:
        labels.sort()
        return super().score(labels, predictions)


class HitsByLabel(Hits):
    def score(self, labels: Any, predictions: Any) -> Any:
        return super().score(labels, predictions) if np.ptp(labels) else [][0]


class HitsOfHalf(Hits):
    def contributions(self, labels: Any, predictions: Any) -> Any:
        return super().contributions(labels, predictions)[::2]


class Observer(DeafObserver):
    @hookimpl
    def sage_losses_profiled(self, losses: Any) -> None:
        print(np.sort(losses))


@pytest.mark.parametrize(
    ("kind", "factory"),
    [
        ("sampler", Sampler),
        ("inverter", Inverter),
        ("lift", Lift),
        ("filter", Keep),
        ("observer", Observer),
        ("metric", Hits),
    ],
)
def test_sound_components_pass(kind: str, factory: Any) -> None:
    assert failed(SPECS[kind](name="sound", summary="Sound", factory=factory)) == {}


@pytest.mark.parametrize(
    ("kind", "factory", "check", "message"),
    [
        ("sampler", SampleTooFew, "sampler_shapes", "anchors have shape (31,) instead of (32,)"),
        ("sampler", SampleUnseeded, "sampler_is_repeatable", "anchors differ between two samplers"),
        ("sampler", SampleGoesOn, "sampler_is_repeatable", "anchors differ between two calls of one sampler"),
        ("sampler", SampleWantsGradient, "sampler_shapes", "None without needs_gradient=True"),
        ("inverter", InvertToAnchor, "inverter_follows_coordinates", "two places far apart give the same vector"),
        ("inverter", InvertWantsReducer, "inverter_shapes", "None without needs_inverse=True"),
        ("lift", LiftWantsShares, "lift_shapes", "None without needs_shares=True"),
        ("lift", LiftGoesOn, "lift_is_repeatable", "the same batch lifted twice"),
        ("filter", KeepGoesOn, "filter_is_repeatable", "answered differently"),
        ("sampler", SampleMutating, "sampler_keeps_its_input", "in place: losses"),
        ("sampler", SampleByWeight, "sampler_takes_hard_data", "with losses of zero it raises"),
        ("inverter", InvertBackwards, "inverter_beats_mean", "no better than the mean vector"),
        ("inverter", InvertInDouble, "inverter_shapes", "is float64 instead of float32"),
        ("inverter", FitReturnsNothing, "inverter_shapes", "it must return self"),
        ("inverter", InvertMutating, "inverter_keeps_its_input", "in place: points"),
        ("lift", LiftOverPadding, "lift_shapes", "padding positions are not zero"),
        ("lift", LiftInPlace, "lift_keeps_its_input", "in place: states"),
        ("lift", LiftUnseeded, "lift_is_repeatable", "lifted twice comes out differently"),
        ("lift", LiftNeighbors, "lift_takes_hard_data", "with no neighbours it raises TypeError"),
        ("filter", KeepNumbers, "filter_shapes", "keep returns int64 instead of bool"),
        ("filter", KeepAtRandom, "filter_is_repeatable", "answered differently"),
        ("filter", KeepByPlace, "filter_takes_hard_data", "with no coordinates it raises TypeError"),
        ("filter", KeepMutating, "filter_keeps_its_input", "in place: vectors"),
        ("decoder", DecodeTooFew, "decoder_shapes", "decode returns 5 texts for 6 rows"),
        ("decoder", DecodeMutating, "decoder_keeps_its_input", "in place: states"),
        ("decoder", DecodeUnseeded, "decoder_is_repeatable", "decoded differently"),
        ("decoder", DecodePadding, "decoder_ignores_padding", "row 0 is decoded as '3 tokens' alone"),
        ("decoder", FitMutating, "decoder_fit", "read-only"),
        ("decoder", FitForgetsItself, "decoder_fit", "fit returns something without decode: it must return self"),
        ("decoder", DecodeLongest, "decoder_takes_hard_data", "with no rows it raises"),
        ("metric", HitsAsText, "metric_shapes", "score() returned 'good' instead of a number"),
        ("metric", HitsInPercent, "metric_shapes", "lies outside its range, 0 to 1"),
        ("metric", Misses, "metric_tells_good_from_bad", "right predictions score 0"),
        ("metric", HitsSorted, "metric_keeps_its_input", "in place: labels"),
        ("metric", HitsByLabel, "metric_takes_hard_data", "one row it raises IndexError"),
        ("metric", HitsOfHalf, "metric_contributions", "the contributions have shape (48,), not (96,)"),
        ("stop_rule", Rule, "stop_rule_answers", "it answers False after 1 rounds"),
        ("observer", DeafObserver, "observer_hooks", "implements no hook"),
        ("observer", EagerObserver, "observer_hooks", "'NoneType' object has no attribute 'directory'"),
        ("observer", EagerStepObserver, "observer_hooks", "'NoneType' object has no attribute 'directory'"),
        ("observer", MistypedObserver, "observer_hooks", "{'results'}"),
        ("observer", MisnamedObserver, "observer_hooks", "unknown hook 'sage_round_ended'"),
        ("observer", FailingObserver, "observer_bears_every_hook", "sage_round_finished raised ValueError"),
        ("observer", FailingObserver, "loop_run", "no such metric"),
        ("observer", ObserverSaysStop, "observer_bears_every_hook", "sage_control returned 'stop': it is no Control"),
        ("observer", ObserverFailsAtEnd, "observer_bears_every_hook", "sage_run_finished raised KeyError: 'accuracy'"),
        ("observer", ObserverFailsOnFailure, "observer_bears_every_hook", "sage_run_failed raised AttributeError"),
        ("observer", ObserverTrustsLosses, "observer_bears_every_hook", "cannot convert float NaN to integer"),
        (
            "observer",
            ObserverSorts,
            "observer_keeps_its_input",
            "sage_losses_profiled raised ValueError: sort array is read",
        ),
        ("observer", ObserverSorts, "observer_bears_every_hook", "read-only"),
        (
            "observer",
            ObserverScales,
            "observer_keeps_its_input",
            "sage_synthetic_created raised ValueError: output array",
        ),
        (
            "observer",
            ObserverSpends,
            "observer_keeps_its_input",
            "sage_round_finished raised TypeError: this table is read",
        ),
        ("observer", ObserverDraws, "observer_leaves_random_states", "global random state of torch"),
        ("observer", ObserverSeeds, "observer_leaves_random_states", "global random state of numpy, torch"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_broken_components_are_caught_by_name(kind: str, factory: Any, check: str, message: str) -> None:
    told = failure(SPECS[kind](name="broken", summary="Broken", factory=factory), check)
    assert message in told
    assert "To fix: " in told


@pytest.mark.parametrize(
    ("factory", "check", "message"),
    [
        (Decode, "protocol", "is a Decode without guess()"),
        (GuessRising, "decoder_guesses", "scores do not fall along the last axis"),
        (GuessTwice, "decoder_guesses", "an id is named twice"),
    ],
)
def test_guesses_that_are_declared_must_be_there_and_right(factory: Any, check: str, message: str) -> None:
    assert message in failure(DecoderSpec(name="broken", summary="Broken", factory=factory, has_guesses=True), check)


def test_a_task_with_an_unknown_metric_is_caught() -> None:
    spec = TaskSpec(name="odd", summary="Odd", text_columns=("text",), labels=("a", "b"), metrics=("accurracy",))
    assert "Did you mean 'accuracy'?" in failure(spec, "task_is_declared")


# ---- what every spec has


class Undescribed(Options):
    k: int = 3


class Required(Options):
    k: int


def _refuse(options: Any, context: Any) -> Any:
    raise CompatibilityError("not today")


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        ({"name": "My-Axes"}, "valid_name", "'My-Axes' is malformed"),
        ({"summary": "one\ntwo"}, "summary_is_one_line", "several lines"),
        ({"summary": " "}, "summary_is_one_line", "is empty"),
        ({"options": Undescribed}, "options_are_checked", "option 'k' has no description"),
        ({"options": Required}, "options_are_checked", "option 'k' has no default"),
        ({"install": "first\nsecond"}, "missing_package_is_named", "several lines"),
        ({"factory": _refuse}, "protocol", "CompatibilityError: not today"),
    ],
)
def test_faults_of_a_spec_are_caught_by_name(change: dict[str, Any], check: str, message: str) -> None:
    assert message in failure(dataclasses.replace(axes(), **change), check)


def test_a_component_whose_package_is_missing_is_skipped_where_it_would_be_built() -> None:
    spec = dataclasses.replace(axes(), requires=("sage-kit-absent>=1",), install="pip install absent")
    results = {result.name: result for result in check_component(spec)}
    assert results["reducer_shapes"].skipped
    assert "sage-kit-absent>=1" in results["reducer_shapes"].message
    assert not results["valid_name"].skipped
    assert all(result.passed for result in results.values())


def _first(hook: Callable[[], Any]) -> Any:
    return next(iter(hook()))


def test_results_carry_time_and_reasons() -> None:
    results = check_component(_first(sage_lifts))
    assert all(result.seconds >= 0 for result in results)
    assert all(result.passed and not result.skipped and not result.message for result in results)
