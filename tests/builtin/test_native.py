"""Inverter `native`: chunks, the estimate and the budget, with a clock that the reducer moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.inverters import native
from sage_kit.builtin.inverters.native import estimate
from sage_kit.errors import BudgetError, CompatibilityError, PluginError


@dataclass
class Clock:
    now: float = 100.0


@dataclass
class SlowReducer:
    """Doubles its input; takes `per_call` and `per_vector` seconds of the clock, and `compile` at the first call."""

    clock: Clock
    per_call: float = 0.0
    per_vector: float = 0.0
    compile: float = 0.0
    sizes: list[int] = field(default_factory=list)

    def inverse_transform(self, coordinates: Any) -> Any:
        self.clock.now += self.per_call + self.per_vector * len(coordinates) + (0 if self.sizes else self.compile)
        self.sizes.append(len(coordinates))
        return np.repeat(coordinates, 2, axis=1) * 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(native, "perf_counter", lambda: clock.now)
    return clock


def points(count: int) -> Any:
    return np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)


def fitted(build: Any, reducer: Any, said: list[str] | None = None, **options: Any) -> Any:
    announce = (said if said is not None else []).append
    inverter = build("inverter", "native", options, announce=announce)
    return inverter.fit(points(9), np.zeros((9, 4), np.float32), reducer)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 18, 19, 20, 700])
@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_every_point_is_inverted_once(build: Any, clock: Clock, count: int, chunk: int) -> None:
    reducer = SlowReducer(clock)
    result = fitted(build, reducer, chunk=chunk).invert(points(count), np.zeros(count, np.int64))
    np.testing.assert_array_equal(result, np.repeat(points(count), 2, axis=1) * 2)
    assert result.shape == (count, 4)
    assert result.dtype == np.float32
    assert sum(reducer.sizes) == count
    assert max(reducer.sizes, default=0) <= chunk


def test_the_estimate_is_announced_before_the_rest(build: Any, clock: Clock) -> None:
    reducer = SlowReducer(clock, per_call=3.0, per_vector=0.1, compile=50.0)
    said: list[str] = []
    done_when_said: list[int] = []

    class Recorder(list[str]):
        def append(self, text: str) -> None:
            done_when_said.append(sum(reducer.sizes))
            said.append(text)

    started = clock.now
    fitted(build, reducer, Recorder()).invert(points(1000), np.zeros(1000, np.int64))
    # compiling is not charged to the rest: 5 calls, 1000 points, one compilation
    assert clock.now - started == pytest.approx(5 * 3 + 100 + 50)
    assert said == ["native inverse of 1000 points: about 165.0 s (6.06 vectors/s)"]
    assert done_when_said == [19]


def test_too_long_an_estimate_stops_the_run_with_advice(build: Any, clock: Clock) -> None:
    reducer = SlowReducer(clock, per_vector=1.0)
    with pytest.raises(BudgetError) as caught:
        fitted(build, reducer, budget_seconds=60).invert(points(1000), np.zeros(1000, np.int64))
    assert str(caught.value) == (
        "native inverse of 1000 points would take about 1000 s and budget_seconds is 60: take inverter 'knn' or "
        "'anchored', which need a fraction of it, or raise budget_seconds in inverter_options"
    )
    assert sum(reducer.sizes) == 19


def test_passing_the_budget_on_the_way_stops_the_run(build: Any, clock: Clock) -> None:
    class Tiring(SlowReducer):
        def inverse_transform(self, coordinates: Any) -> Any:
            self.per_vector = 0.0 if len(self.sizes) < 4 else 10.0
            return super().inverse_transform(coordinates)

    reducer = Tiring(clock)
    with pytest.raises(BudgetError, match=r"has taken 1000 s for 219 of 1000 points and budget_seconds is 60"):
        fitted(build, reducer, budget_seconds=60, chunk=100).invert(points(1000), np.zeros(1000, np.int64))
    assert sum(reducer.sizes) == 219


def test_a_run_that_ends_over_its_budget_is_not_thrown_away(build: Any, clock: Clock) -> None:
    class LastCallSlow(SlowReducer):
        def inverse_transform(self, coordinates: Any) -> Any:
            self.per_call = 1000.0 if len(self.sizes) == 3 else 0.0
            return super().inverse_transform(coordinates)

    result = fitted(build, LastCallSlow(clock), budget_seconds=60).invert(points(100), np.zeros(100, np.int64))
    assert len(result) == 100


@pytest.mark.parametrize(
    ("short", "long", "rest", "chunk", "expected"),
    [
        (0.2, 1.6, 1000, 512, 100.0),  # by the vector
        (3.0, 3.0, 1000, 512, 6.0),  # by the call
        (3.2, 4.6, 1000, 512, 106.0),  # both
        (4.0, 3.0, 1000, 512, 8.0),  # disturbed: never negative
        (0.5, 0.5, 100, 1, 50.0),  # chunks of one
    ],
)
def test_estimate(short: float, long: float, rest: int, chunk: int, expected: float) -> None:
    assert estimate(short, long, rest, chunk) == pytest.approx(expected)


def test_a_reducer_without_an_inverse_is_refused(build: Any) -> None:
    for reducer in (None, object()):
        with pytest.raises(CompatibilityError, match="needs a reducer that has an inverse"):
            fitted(build, reducer)


def test_a_wrong_shape_is_named(build: Any, clock: Clock) -> None:
    class Wrong(SlowReducer):
        def inverse_transform(self, coordinates: Any) -> Any:
            return super().inverse_transform(coordinates)[:, :3]

    with pytest.raises(PluginError, match=r"shape \(1, 3\) instead of \(1, 4\)"):
        fitted(build, Wrong(clock)).invert(points(5), np.zeros(5, np.int64))


def test_with_pca_it_is_the_linear_inverse(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "pca", n_components=3)
    coordinates = reducer.fit_transform(vectors)
    inverter = build("inverter", "native", {"chunk": 70}).fit(coordinates, vectors, reducer)
    result = inverter.invert(coordinates, np.arange(300))
    np.testing.assert_allclose(result, reducer.inverse_transform(coordinates), rtol=1e-5, atol=1e-6)
