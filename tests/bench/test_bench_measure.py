"""Alternating repeats, spreads, and targets."""

from __future__ import annotations

import math

import pytest

from sage_bench.measure import Contender, Work, alternate
from sage_bench.records import Line, Result, Spread, Target


class Clock:
    """A clock that only moves when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def worker(name: str, seconds: float, clock: Clock, log: list[str], amount: float = 6.0) -> Contender:
    def do() -> Work:
        log.append(name)
        clock.now += seconds
        return Work({"examples": amount})

    return Contender(name, do)


def test_contenders_take_turns_in_both_orders_after_a_warm_up() -> None:
    clock, log = Clock(), []
    sides = [worker("a", 1.0, clock, log), worker("b", 2.0, clock, log), worker("c", 3.0, clock, log)]
    measured = alternate(sides, repeats=3, budget=1e9, clock=clock)
    assert "".join(log) == "abc" + "abc" + "cba" + "abc"
    assert measured["b"].seconds().values == (2.0, 2.0, 2.0)
    assert measured["c"].rate("examples").values == (2.0, 2.0, 2.0)


def test_no_repeat_begins_that_would_end_after_the_budget() -> None:
    clock, log = Clock(), []
    # warm-up and each repeat take 3 s
    sides = [worker("a", 1.0, clock, log), worker("b", 2.0, clock, log)]
    assert len(alternate(sides, repeats=9, budget=12.5, clock=clock)["a"].works) == 3
    clock.now = 0.0
    assert len(alternate(sides, repeats=9, budget=0.1, clock=clock)["a"].works) == 1


def test_a_contender_may_time_itself() -> None:
    side = Contender("a", lambda: Work({"vectors": 8.0}, seconds=2.0, figures={"fit": 0.5}))
    measured = alternate([side], repeats=2, budget=1e9, warm_up=False)["a"]
    assert measured.rate("vectors").values == (4.0, 4.0)
    assert measured.figure("fit").median == 0.5


def test_names_must_differ() -> None:
    side = Contender("a", lambda: Work({}))
    with pytest.raises(ValueError, match="different names"):
        alternate([side, side], repeats=1, budget=1.0)


def test_a_ratio_is_paired_repeat_by_repeat() -> None:
    # the machine was twice as slow in the second repeat, for both
    ratio = Spread.of([30.0, 15.0, 33.0]).over(Spread.of([10.0, 5.0, 10.0]))
    assert ratio.values == pytest.approx((3.0, 3.0, 3.3))
    assert (ratio.median, ratio.low) == (3.0, 3.0)
    with pytest.raises(ValueError, match="cannot be paired"):
        Spread.of([1.0]).over(Spread.of([1.0, 2.0]))
    assert math.isnan(Spread.of([1.0]).over(Spread.of([0.0])).median)
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


def test_a_target_is_met_by_the_median() -> None:
    spread = Spread.of([1.0, 3.0, 9.0])
    assert Target("speed", spread, 3.0).is_met
    assert not Target("speed", spread, 3.1).is_met
    assert Target("cost", spread, 3.0, at_least=False).is_met
    assert not Target("cost", spread, 2.9, at_least=False).is_met


def test_json_has_no_nan() -> None:
    line = Line("work", "who", {"examples/s": Spread.of([math.nan, 1.0])}, note="n")
    data = Result("b", [line], [Target("t", Spread.of([2.0]), 1.0)], ["a note"], {"x": math.inf}).to_json()
    assert data["lines"][0]["values"]["examples/s"]["values"] == [None, 1.0]
    assert data["details"] == {"x": None}
    assert data["targets"][0]["is_met"] is True
