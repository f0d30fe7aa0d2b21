"""Lifts `replace` and `replace_random` with carried positions, against a choice made one pair at a time in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sage_kit.builtin.lifts.token_replacement import inner_tokens
from sage_kit.components import LiftRequest, TokenBatch
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError

DIM = 5
CARRIED: dict[str, dict[str, Any]] = {
    "replace": {"positions": "carried", "source": "auto", "temperature": 0.0},
    "replace_random": {"positions": "carried"},
}  # fmt: skip


class Corpus:
    """Twelve examples of 1 to 12 tokens; no two token states are alike."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        rng = np.random.default_rng(0)
        self.examples = [rng.standard_normal((length, DIM)).astype(np.float32) for length in range(1, 13)]
        self.dtype = dtype
        self.asked: list[Any] = []

    def states(self, indices: Any) -> TokenBatch:
        self.asked.append(np.asarray(indices))
        lengths = torch.tensor([len(self.examples[index]) for index in indices])
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        states = torch.zeros(*mask.shape, DIM)
        for row, index in enumerate(indices):
            states[row, : lengths[row]] = torch.from_numpy(self.examples[index])
        return TokenBatch(states.to(self.dtype), mask)

    def request(self, anchors: Any, neighbors: Any, displacement: Any, seed: int = 0) -> LiftRequest:
        anchors = np.asarray(anchors, np.int64)
        displacement = torch.as_tensor(np.asarray(displacement, np.float32))
        means = np.stack([self.examples[index].mean(0) for index in anchors])
        return LiftRequest(
            anchor=self.states(anchors),
            vectors=torch.from_numpy(means) + displacement,
            displacement=displacement,
            anchors=anchors,
            neighbors=None if neighbors is None else np.asarray(neighbors, np.int64),
            states=self.states,
            generator=torch.Generator().manual_seed(seed),
            n_real=len(self.examples),
        )


def pair_by_pair(anchor: Any, sources: list[Any], displacement: Any, share: float) -> Any:
    """The reference: as often as the share allows, exchange the pair of the largest gain."""
    tokens = anchor.astype(np.float64)
    incoming = np.concatenate([source[1:-1] for source in sources]).astype(np.float64)
    inner = max(len(anchor) - 2, 0)
    left = list(range(1, inner + 1))
    for _ in range(max(1, int(np.floor(share * inner + 0.5)))):
        if not left or not len(incoming):
            break
        gains = (incoming[None] - tokens[left][:, None]) @ displacement.astype(np.float64)
        old, new = np.unravel_index(gains.argmax(), gains.shape)
        if gains[old, new] <= 0:
            break
        tokens[left.pop(int(old))] = incoming[new]
        incoming = np.delete(incoming, new, axis=0)
    return tokens


ANCHORS = [11, 3, 0, 7, 1, 2, 11]
NEIGHBORS = [[9, 10, 4], [2, 1, 0], [5, 6, 7], [0, 1, 2], [3, 4, 5], [11, 9, 8], [11, 11, 11]]
DISPLACEMENT = np.random.default_rng(1).standard_normal((7, DIM))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("examples", [1, 2, 5])
def test_replace_takes_the_best_pairs(build: Any, share: float, examples: int) -> None:
    corpus = Corpus()
    request = corpus.request(ANCHORS, NEIGHBORS, DISPLACEMENT)
    before = request.anchor.states.clone()
    lifted = build("lift", "replace", CARRIED["replace"] | {"share": share, "examples": examples}).lift(request)
    assert torch.equal(request.anchor.states, before)
    assert torch.equal(lifted.mask, request.anchor.mask)
    assert not lifted.states[~lifted.mask].any()
    for row, index in enumerate(ANCHORS):
        anchor = corpus.examples[index]
        sources = [corpus.examples[source] for source in NEIGHBORS[row][:examples]]
        expected = pair_by_pair(anchor, sources, DISPLACEMENT[row], share)
        got = lifted.states[row, : len(anchor)].numpy()
        np.testing.assert_array_equal(got[[0, -1]], anchor[[0, -1]])
        # the order in which pairs are made is free: the tokens of each text are the same, and so is their mean
        np.testing.assert_allclose(np.sort(got, axis=0), np.sort(expected, axis=0), rtol=1e-6)


def test_replace_moves_the_mean_further_with_each_token_and_further_than_chance(build: Any) -> None:
    corpus = Corpus()
    request = corpus.request([11] * 64, [[9, 10, 8]] * 64, np.random.default_rng(3).standard_normal((64, DIM)))

    def progress(name: str, **options: Any) -> Any:
        lifted = build("lift", name, CARRIED[name] | options).lift(request)
        moved = (lifted.states - request.anchor.states).mean(1)
        return (moved * request.displacement).sum(1)

    some, more, chance = progress("replace", share=0.2), progress("replace", share=0.5), progress("replace_random")
    assert (some > 0).all()
    assert (more > some).all()
    assert (chance < some).all()


def test_replace_keeps_what_no_token_improves(build: Any) -> None:
    corpus = Corpus()
    # the anchor's own tokens along the direction are all better than the neighbour's
    corpus.examples[11][:, 0] += 100
    request = corpus.request([11, 11], [[9], [9]], [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    lifted = build("lift", "replace", CARRIED["replace"] | {"share": 1}).lift(request)
    assert torch.equal(lifted.states, request.anchor.states)


def test_replace_needs_neighbours_or_another_source(build: Any) -> None:
    request = Corpus().request([11, 5], None, DISPLACEMENT[:2])
    with pytest.raises(CompatibilityError, match="source='any'") as caught:
        build("lift", "replace", CARRIED["replace"] | {"source": "neighbors"}).lift(request)
    assert "\n" not in str(caught.value)
    lifted = build("lift", "replace", CARRIED["replace"] | {"source": "any"}).lift(request)
    assert not torch.equal(lifted.states, request.anchor.states)


@pytest.mark.parametrize(("neighbors", "same_as"), [(NEIGHBORS, "neighbors"), (None, "any")])
def test_replace_takes_neighbours_where_there_are_any(build: Any, neighbors: Any, same_as: str) -> None:
    lifted = [
        build("lift", "replace", CARRIED["replace"] | options)
        .lift(Corpus().request(ANCHORS, neighbors, DISPLACEMENT))
        .states
        for options in ({}, {"source": same_as})
    ]
    assert torch.equal(*lifted)


def test_replace_from_any_example_takes_the_best_pairs(build: Any) -> None:
    corpus = Corpus()
    request = corpus.request(ANCHORS, NEIGHBORS, DISPLACEMENT)
    corpus.asked.clear()
    lifted = build("lift", "replace", CARRIED["replace"] | {"source": "any", "examples": 3}).lift(request)
    drawn = np.stack(corpus.asked, axis=1)
    assert drawn.shape == (7, 3)
    for row, index in enumerate(ANCHORS):
        anchor = corpus.examples[index]
        expected = pair_by_pair(anchor, [corpus.examples[i] for i in drawn[row]], DISPLACEMENT[row], 0.3)
        got = lifted.states[row, : len(anchor)].numpy()
        np.testing.assert_allclose(np.sort(got, axis=0), np.sort(expected, axis=0), rtol=1e-6)


def test_replace_random_exchanges_as_many_tokens_anywhere(build: Any) -> None:
    corpus = Corpus()
    everything = np.concatenate([example[1:-1] for example in corpus.examples])
    places, incoming, examples = np.zeros(12), set(), set()
    for seed in range(40):
        corpus.asked.clear()
        request = corpus.request([11] * 8, None, np.zeros((8, DIM)), seed)
        corpus.asked.clear()
        lifted = build("lift", "replace_random", CARRIED["replace_random"] | {"share": 0.3}).lift(request)
        examples |= set(np.concatenate(corpus.asked).tolist())
        assert len(corpus.asked) == 5
        changed = (lifted.states != request.anchor.states).any(-1)
        places += changed.sum(0).numpy()
        for state in lifted.states[changed].numpy():
            where = np.flatnonzero((everything == state).all(1))
            assert len(where) == 1
            incoming.add(int(where[0]))
        # ten inner tokens; a token that is exchanged for itself does not show
        assert set(changed.sum(1).tolist()) <= {2, 3}
    assert places[0] == places[11] == 0
    assert places[1:11].min() > 0.6 * places[1:11].mean()
    assert len(incoming) > 0.8 * len(everything)
    assert examples == set(range(12))


@pytest.mark.parametrize(("name", "options"), [("replace", {"source": "any"}), ("replace_random", {})])
def test_the_same_generator_gives_the_same_tokens(build: Any, name: str, options: dict[str, Any]) -> None:
    corpus = Corpus()
    first, again, other = (
        build("lift", name, CARRIED[name] | options).lift(corpus.request(ANCHORS, None, DISPLACEMENT, seed)).states
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["replace", "replace_random"])
def test_special_tokens_stay_and_short_texts_are_left_alone(build: Any, name: str) -> None:
    corpus = Corpus()
    request = corpus.request([0, 1], [[9], [10]], DISPLACEMENT[:2])
    lifted = build("lift", name, CARRIED[name] | {"share": 1}).lift(request)
    assert torch.equal(lifted.states, request.anchor.states)
    # sources of one and two tokens have none to give
    request = corpus.request([9, 11], [[0], [1]], DISPLACEMENT[:2])
    lifted = build("lift", "replace", CARRIED["replace"] | {"share": 1}).lift(request)
    assert torch.equal(lifted.states, request.anchor.states)


@pytest.mark.parametrize("name", ["replace", "replace_random"])
def test_the_states_type_is_kept(build: Any, name: str) -> None:
    corpus = Corpus(torch.float16)
    lifted = build("lift", name, CARRIED[name]).lift(corpus.request(ANCHORS, NEIGHBORS, DISPLACEMENT))
    assert lifted.states.dtype == torch.float16
    assert torch.isfinite(lifted.states).all()


def test_inner_tokens() -> None:
    mask = torch.arange(5) < torch.tensor([[1], [2], [3], [5]])
    assert inner_tokens(mask).int().tolist() == [[0] * 5, [0] * 5, [0, 1, 0, 0, 0], [0, 1, 1, 1, 0]]


@pytest.mark.parametrize("name", ["replace", "replace_random"])
def test_pooled_examples_have_no_tokens_to_replace(build: Any, name: str) -> None:
    with pytest.raises(CompatibilityError, match="granularity='pooled'"):
        build("lift", name, config=RunConfig(granularity="pooled"))
