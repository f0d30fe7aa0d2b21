from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import make_tokenizer

from sage_kit.builtin.tasks import movie_reviews
from sage_kit.data import Split, plan_batches, tokenize
from sage_kit.errors import MissingPackageError


@pytest.fixture
def lengths() -> NDArray[np.int64]:
    # long-tailed, as sentences are
    return np.clip(np.random.default_rng(3).gamma(3.0, 9.0, size=3000), 4, 128).astype(np.int64)


def padded_tokens(lengths: NDArray[np.int64], batch: NDArray[np.int64]) -> int:
    return int(lengths[batch].max()) * len(batch)


def padding_share(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    """Share of padding among the tokens of batches that are each padded to their longest example."""
    return 1 - lengths.sum() / sum(padded_tokens(lengths, batch) for batch in batches)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_batches_hold_every_example_once_and_stay_within_both_limits(
    lengths: NDArray[np.int64], seed: int | None
) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    batches = plan_batches(lengths, batch_size=16, batch_tokens=700, rng=rng)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(batch.dtype == np.int64 for batch in batches)
    assert max(len(batch) for batch in batches) == 16
    assert max(padded_tokens(lengths, batch) for batch in batches) <= 700


def test_padding_stays_under_five_percent(lengths: NDArray[np.int64]) -> None:
    for rng in (None, np.random.default_rng(0)):
        batches = plan_batches(lengths, batch_size=32, batch_tokens=4096, rng=rng)
        assert 0 < padding_share(lengths, batches) < 0.05


def test_padding_stays_under_five_percent_on_real_sentences() -> None:
    try:
        texts = [str(text) for text in movie_reviews.load()["train"]["text"][:2000]]
    except MissingPackageError as error:  # which package carries the reviews
        pytest.skip(str(error))
    split = Split("train", texts, None, np.zeros(len(texts), np.int64))
    lengths = tokenize(split, make_tokenizer(max_length=128), 128).lengths
    for seed in range(3):
        batches = plan_batches(lengths, batch_size=32, batch_tokens=4096, rng=np.random.default_rng(seed))
        assert padding_share(lengths, batches) < 0.05


def test_an_example_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    batches = plan_batches([5, 200, 6, 300, 5], batch_size=8, batch_tokens=50)
    assert [batch.tolist() for batch in batches[:2]] == [[3], [1]]
    assert sorted(np.concatenate(batches[2:])) == [0, 2, 4]


def test_the_number_and_sizes_of_batches_do_not_depend_on_the_generator(lengths: NDArray[np.int64]) -> None:
    plans = [
        plan_batches(lengths, batch_size=32, batch_tokens=1500, rng=rng)
        for rng in (None, np.random.default_rng(0), np.random.default_rng(1))
    ]
    assert len({tuple(sorted(len(batch) for batch in plan)) for plan in plans}) == 1


def test_without_a_generator_the_plan_is_fixed_and_the_longest_batch_comes_first(lengths: NDArray[np.int64]) -> None:
    one, other = (plan_batches(lengths, batch_size=32, batch_tokens=1500) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    longest = [int(lengths[batch].max()) for batch in one]
    assert longest == sorted(longest, reverse=True)


def test_a_generator_draws_composition_and_order_and_the_same_seed_the_same(lengths: NDArray[np.int64]) -> None:
    plans = [
        plan_batches(lengths, batch_size=32, batch_tokens=1500, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(plans[0], plans[1], strict=True))
    compositions = [{frozenset(batch.tolist()) for batch in plan} for plan in plans]
    assert len(compositions[0] & compositions[2]) < 0.1 * len(plans[0])
    longest = [int(lengths[batch].max()) for batch in plans[0]]
    assert longest != sorted(longest, reverse=True)


def test_examples_of_one_bucket_differ_by_five_percent_at_most() -> None:
    lengths = np.arange(1, 513)
    batches = plan_batches(np.repeat(lengths, 50), batch_size=25, batch_tokens=10**6, rng=np.random.default_rng(0))
    repeated = np.repeat(lengths, 50)
    assert all(repeated[batch].max() <= np.ceil(1.05 * repeated[batch].min()) for batch in batches)


def test_the_last_two_batches_share_their_examples_evenly() -> None:
    assert [len(batch) for batch in plan_batches([7] * 33, batch_size=32, batch_tokens=4096)] == [17, 16]
    # the last batch is larger than the one before, which must not grow beyond the budget
    assert [len(batch) for batch in plan_batches([100] + [1] * 20, batch_size=32, batch_tokens=100)] == [1, 20]


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_no_examples_give_no_batches(rng: np.random.Generator | None) -> None:
    assert plan_batches(np.empty(0, np.int64), batch_size=4, batch_tokens=64, rng=rng) == []
