"""Tests of differences and their sizes, against scipy and worked examples."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from studies.statistics.pairedruns import DIFFERENCES

from sage_kit.errors import DataError
from sage_kit.studies.statistics import effect_size, holm, paired_p, sign_flip_p


def test_paired_p_is_scipys() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    assert paired_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_sign_flips_are_scipys(n: int) -> None:
    a, b = np.random.default_rng(n).normal(0.3, 1, size=(2, n)).round(1)
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_p(a - b) == pytest.approx(expected.pvalue)


def test_sign_flips_are_drawn_beyond_a_dozen_seeds() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, 13)
    patterns = 1 - 2 * ((np.arange(2**13)[:, None] >> np.arange(13)) & 1)
    exact = np.mean(np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.004)
    assert sign_flip_p(np.ones(40)) == pytest.approx(1 / 100_001)  # never zero


def test_sign_flips_hand_worked() -> None:
    # Of the eight patterns of 1, 2, 3 only +++ and --- reach 6; of 1, 1, 2 the sum 4 the same; of 1, 1, -2 all reach 0.
    assert sign_flip_p(np.array([1.0, 2, 3])) == 2 / 8
    assert sign_flip_p(np.array([0.1, 0.1, 0.2])) == 2 / 8
    assert sign_flip_p(np.array([1.0, 1, -2])) == 1


@pytest.mark.parametrize("p_of", [paired_p, sign_flip_p])
def test_tests_without_spread(p_of: Any) -> None:
    assert np.isnan(p_of(np.array([0.1])))
    assert np.isnan(p_of(np.array([0.1, np.nan])))
    assert p_of(np.zeros(5)) == 1
    assert p_of(np.full(5, 0.1)) == 2 / 32
    assert p_of(np.array([0.1, 0.1, 0.3 - 0.2])) == 2 / 8


def test_holm_hand_worked() -> None:
    # Rising: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 raised to 0.06.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])
    np.testing.assert_allclose(holm(np.array([np.nan, 0.01, np.nan, 0.04])), [np.nan, 0.02, np.nan, 0.04])
    assert holm(np.array([])).shape == (0,)
    with pytest.raises(DataError, match="between 0 and 1"):
        holm(np.array([0.1, 1.2]))


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    # Closure: p of a hypothesis is the largest Bonferroni p of all families that contain it.
    p = np.random.default_rng(0).random(5) ** 3
    for index, adjusted in enumerate(holm(p)):
        families = [list(f) for size in range(1, 6) for f in combinations(range(5), size) if index in f]
        assert adjusted == pytest.approx(max(min(1, len(f) * p[f].min()) for f in families))


def test_effect_size() -> None:
    # J(4) = Gamma(2) / (sqrt(2) Gamma(1.5)) = 1 / (1.41421 x 0.886227) = 0.797885.
    assert effect_size(DIFFERENCES) == pytest.approx(0.797885 * DIFFERENCES.mean() / DIFFERENCES.std(ddof=1), rel=1e-5)
    for values in ([0.1], [0.1, 0.2], [0.1, 0.1, 0.3 - 0.2], [0.0, 0.0, 0.0]):
        assert np.isnan(effect_size(np.array(values)))


def test_effect_size_is_unbiased() -> None:
    draws = np.random.default_rng(0).normal(0.7, 1, (4000, 5))
    assert np.mean([effect_size(d) for d in draws]) == pytest.approx(0.7, abs=0.03)
