"""What the intervals of differences cover, by simulation: new seeds and new examples, of which the truth is known.

Two arms of the same kind have no difference on average over seeds and examples, so an interval covers when it holds
zero. Meant to cover 95 %, none may cover less than 94 %, but for the simulation's own error (three standard errors).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_kit.studies.statistics import average, contributions, log_mean, t_interval, two_way

Array = NDArray[Any]

LEAST = 0.94

# standard deviations of seeds, of examples and of the rest, the first per root of the number of examples
SOURCES = {
    "seeds alone": (1.0, 0.0, 0.01),
    "examples alone": (0.0, 1.0, 0.01),
    "examples and the rest": (0.0, 1.0, 1.0),
    "the rest alone": (0.0, 0.0, 1.0),
    "mixed": (1.0, 1.0, 1.0),
    "few of the seeds'": (0.5, 1.0, 1.0),
}


def error(repeats: int) -> float:
    return 3 * float(np.sqrt(LEAST * (1 - LEAST) / repeats))


def effects(source: str, repeats: int, seeds: int, examples: int, seed: int) -> Array:
    """Normal effects of one arm: (repeats, seeds, examples)."""
    rng = np.random.default_rng([seed, seeds, examples, *source.encode()])
    of_seed, of_example, of_rest = SOURCES[source]
    return np.asarray(
        of_seed / np.sqrt(examples) * rng.normal(size=(repeats, seeds, 1))
        + of_example * rng.normal(size=(repeats, 1, examples))
        + of_rest * rng.normal(size=(repeats, seeds, examples))
    )


def holds_zero(tables: Array) -> float:
    intervals = [two_way(table) for table in tables]
    return float(np.mean([one.low <= 0 <= one.high for one in intervals]))


@pytest.mark.parametrize("examples", [60, 400])
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("source", SOURCES)
def test_a_mean_of_numbers(source: str, seeds: int, examples: int) -> None:
    repeats = 1200
    assert holds_zero(effects(source, repeats, seeds, examples, 0)) > LEAST - error(repeats)


@pytest.mark.parametrize("examples", [60, 400])
@pytest.mark.parametrize("source", SOURCES)
def test_a_share_of_hits(source: str, examples: int) -> None:
    repeats = 1200
    # most examples are too easy or too hard for the arms to differ on, as in a real evaluation set
    depth = 3 * np.random.default_rng(9).normal(size=(repeats, 1, examples))
    ours, base = (depth + effects(source, repeats, 5, examples, seed) > 0 for seed in (1, 2))
    assert holds_zero(ours.astype(float) - base) > LEAST - error(repeats)


@pytest.mark.parametrize("metric", ["f1", "matthews", "pearson", "spearman", "divergence"])
@pytest.mark.parametrize("source", ["seeds alone", "examples and the rest", "mixed"])
def test_other_metrics(metric: str, source: str) -> None:
    repeats, examples = 300, 250
    depth = 2 * np.random.default_rng(8).normal(size=(repeats, examples))
    arms = []
    for seed in (3, 4):
        latent = depth[:, None] + effects(source, repeats, 5, examples, seed)
        if metric == "divergence":
            arms.append([log_mean(np.exp(each / 2)) for each in latent])
            continue
        is_class = metric in ("f1", "matthews")
        labels = depth > 1 if is_class else depth
        arms.append(
            [contributions(metric, own.astype(int) if is_class else own, each > 1 if is_class else each)
             for own, each in zip(labels, latent, strict=True)]
        )  # fmt: skip
    assert holds_zero(np.array(arms[0]) - np.array(arms[1])) > LEAST - error(repeats)


def test_an_average_over_tasks() -> None:
    repeats = 1200
    tables = [effects("mixed", repeats, 5, examples, examples) for examples in (60, 100, 200)]
    intervals = [average([two_way(table[i]) for table in tables]) for i in range(repeats)]
    assert np.mean([one.low <= 0 <= one.high for one in intervals]) > LEAST - error(repeats)


def test_arms_that_hardly_differ() -> None:
    # a difference on one example of 200, on average: often there is none in the table, and the interval is a bound
    rng = np.random.default_rng(0)
    tables = rng.choice([-1.0, 0, 1], size=(1200, 1, 200), p=[0.0025, 0.995, 0.0025]) * np.ones((1, 5, 1))
    assert (tables.reshape(1200, -1).any(axis=1)).mean() < 0.7
    assert holds_zero(tables) > 0.97


def test_seeds_alone_are_not_enough() -> None:
    # why not Student's interval over seeds, which takes the examples as given
    tables = effects("examples alone", 400, 5, 100, 5)
    assert np.mean([one.low <= 0 <= one.high for one in (t_interval(table.mean(axis=1)) for table in tables)]) < 0.3
