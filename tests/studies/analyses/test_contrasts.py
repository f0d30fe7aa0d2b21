"""Planned pairs of arms: each against its own baseline, one family for Holm's correction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sage_kit.errors import StudyError
from sage_kit.studies import statistics
from sage_kit.studies.analyses.contrasts import closest, contrasts

SHIFTS = {"a": 0.03, "b": 0.02, "c": 0.0}


class FakeStudy:
    """Compares by scores, as `Study.compare` does by predictions."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.table = pd.DataFrame(
            [
                {"task": task, "arm": arm, "seed": seed, "value": 0.8 + shift + rng.normal(0, 0.01)}
                for task in ("cola", "sst2")
                for arm, shift in SHIFTS.items()
                for seed in range(5)
            ]
        )

    def compare(self, runs: Any, baseline: str, *, split: str | None, metric: str, arms: list[str]) -> pd.DataFrame:
        assert (split, metric) == (None, "")
        return statistics.compare_arms(self.table[self.table["arm"].isin([*arms, baseline])], baseline)


@pytest.fixture
def study() -> Any:
    return FakeStudy()


PAIRS = [("a", "b"), ("b", "c"), ("a", "c")]


def test_each_pair_is_its_own_difference(study: Any) -> None:
    table = contrasts(study, None, PAIRS)  # type: ignore[arg-type]
    assert list(table["task"]) == ["cola"] * 3 + ["sst2"] * 3 + ["average"] * 3
    assert list(zip(table["arm"], table["against"], strict=True)) == PAIRS * 3
    values = study.table.pivot_table(index=["task", "seed"], columns="arm", values="value")
    for row in table[table["task"] != "average"].itertuples():
        own = values.loc[row.task]
        assert row.difference == pytest.approx((own[row.arm] - own[row.against]).mean())
        assert row.p == pytest.approx(stats.ttest_rel(own[row.arm], own[row.against]).pvalue)


def test_closest_is_the_strongest_rival(study: Any) -> None:
    table = contrasts(study, None, [("a", "c"), ("a", "b")])  # type: ignore[arg-type]
    assert closest(table, "average") == "b"
    assert closest(table, "average", lower_is_better=True) == "c"


@pytest.mark.parametrize("pairs", [[], [("a", "b"), ("a", "b")]])
def test_no_pair_or_one_twice_is_refused(study: Any, pairs: Any) -> None:
    with pytest.raises(StudyError, match="name at least one, and each once"):
        contrasts(study, None, pairs)  # type: ignore[arg-type]


def test_an_arm_that_was_not_run_is_refused(study: Any) -> None:
    with pytest.raises(StudyError, match=r"no arm 'd' to compare with 'a'"):
        contrasts(study, None, [("d", "a")])  # type: ignore[arg-type]
