"""What is said of the best, and what mattered."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.searching.search_finals import Check
from sage_kit.searching.search_loop import Search, duration, values_text
from sage_kit.searching.search_plan import SearchPlan
from sage_kit.searching.search_result import importance
from sage_kit.searching.search_space import read_space
from sage_kit.searching.search_trials import Trials
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS


def check(difference: float, reach: float, unit: str, p: float, seeds: int = 5) -> Check:
    return Check(list(range(1, seeds + 1)), 0.2, 0.1, difference, difference - reach, difference + reach, p, unit, [80])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (check(math.log(0.9), 0.05, PERCENT_CHANGE, 0.01), "-10.0 % (95 % interval -14.4 to -5.4). The best beat"),
        (check(math.log(1.1), 0.05, PERCENT_CHANGE, 0.01), "The best are worse than the default"),
        (check(0.02, 0.01, POINTS, 0.01), "+2.00 points (95 % interval +1.00 to +3.00). The best beat the default."),
        (check(-0.02, 0.01, POINTS, 0.01), "The best are worse than the default"),
        (check(0.02, 0.03, POINTS, 0.2), "That shows no difference."),
        (check(0.02, 0.01, POINTS, 0.01, seeds=3), "fewer than 5 seeds decide nothing"),
        (check(0.02, 0.03, POINTS, 0.2, seeds=3), "That shows no difference."),
        (check(math.nan, math.nan, POINTS, math.nan), "there is no comparison"),
    ],
)  # fmt: skip
def test_one_sentence_by_rule(found: Check, said: str) -> None:
    assert said in found.verdict("divergence")
    assert f"Under {len(found.seeds)} new seeds" in found.verdict("divergence")


def search_of(folder: Path, texts: tuple[str, ...], value: Any, count: int) -> Search:
    """A search whose trials have what a function says of their values."""
    plan = SearchPlan(load_config({"reducer": "pca", "sampler": "high_loss"}), read_space(texts))
    trials = Trials(folder, plan, Plugins(allow=""))
    for _ in range(count):
        claim = trials.claim(count)
        assert claim is not None
        trials.end(claim, value(plan.run_config(claim.values, 0)), seconds=1.0)
    return cast(Search, SimpleNamespace(plan=plan, trials=trials))


def test_what_decides_the_result_matters_most(tmp_path: Path) -> None:
    texts = ("learning_rate=log:1e-5:1e-3", "temperature=1.0:4.0", "sampler=high_loss,random",
             "sampler_options.fraction=0.1:1.0")  # fmt: skip
    shares, why = importance(search_of(tmp_path, texts, lambda config: abs(config.temperature - 2.0), 12))
    assert why == ""
    # an option that some trials do not have is left out
    assert set(shares) == {"learning_rate", "temperature", "sampler"}
    assert next(iter(shares)) == "temperature"
    assert shares["temperature"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("texts", "value", "count", "said"),
    [
        (("temperature=1.0:4.0",), lambda config: config.temperature, 5, "needs two settings"),
        (("temperature=1.0:4.0", "learning_rate=1e-5:1e-3"), lambda config: config.temperature, 3, "and 3 are there"),
        (("temperature=1.0:4.0", "learning_rate=1e-5:1e-3"), lambda config: 0.5, 6, "all trials came out alike"),
    ],
)
def test_where_too_little_is_known_a_line_says_why(
    texts: tuple[str, ...], value: Any, count: int, said: str, tmp_path: Path
) -> None:
    shares, why = importance(search_of(tmp_path, texts, value, count))
    assert shares == {}
    assert said in why


def test_numbers_are_short() -> None:
    assert values_text({"learning_rate": 0.000123456, "sampler": "random"}) == "learning_rate 0.000123, sampler random"
    assert [duration(seconds) for seconds in (3.4, 99, 150, 7200)] == ["3 s", "99 s", "2 min", "2.0 h"]
