"""Sampler `mixup` and lift `mixup`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from samplerequest import request_of
from scipy.stats import beta, kstest

from sage_kit.components import LiftRequest, TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import CompatibilityError
from sage_kit.recipe import resolve


def test_vectors_lie_on_the_way_to_the_partner(build: Any, vectors: Any) -> None:
    samples = build("sampler", "mixup", {"fraction": 0.3}).sample(request_of(vectors, 900))
    partners = samples.neighbors[:, 0]
    assert samples.neighbors.shape == (900, 1)
    assert (partners != samples.anchors).all()
    assert len(set(partners.tolist())) > 250  # any example may be a partner
    assert len(set(samples.anchors.tolist())) <= 90
    exact = vectors.astype(np.float64)
    shares = samples.shares[:, None].astype(np.float64)
    expected = (1 - shares) * exact[samples.anchors] + shares * exact[partners]
    np.testing.assert_allclose(samples.vectors, expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_are_the_smaller_part_of_a_beta_draw(build: Any, vectors: Any, alpha: float) -> None:
    shares = build("sampler", "mixup", {"alpha": alpha}).sample(request_of(vectors, 4000)).shares
    assert shares.max() <= 0.5
    assert kstest(shares, lambda x: 2 * beta.cdf(x, alpha, alpha)).pvalue > 1e-3


def test_one_example_has_no_partner(build: Any, vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match="only one example"):
        build("sampler", "mixup").sample(request_of(vectors[:1], 3))


# ---- the lift -------------------------------------------------------------------------------------------------------


def tokens(lengths: list[int], seed: int, dim: int = 6) -> TokenBatch:
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    states = rng.standard_normal((*mask.shape, dim)).astype(np.float32) * mask[..., None]
    return TokenBatch(torch.from_numpy(states), torch.from_numpy(mask))


def lift_request(anchor: TokenBatch, partner: TokenBatch, shares: list[float]) -> LiftRequest:
    m = len(shares)
    given: dict[str, Any] = {
        "anchor": anchor,
        "vectors": torch.zeros(m, 6),
        "displacement": torch.zeros(m, 6),
        "anchors": np.arange(m),
        "neighbors": np.arange(m)[:, None],
        "states": lambda indices: partner,
        "generator": torch.Generator(),
        "n_real": m,
        "shares": np.array(shares, np.float32),
    }
    return LiftRequest(**given)


@pytest.mark.parametrize(
    ("anchors", "partners"), [([5, 5], [5, 5]), ([6, 3], [4, 8]), ([2, 7], [9, 1]), ([1, 1], [4, 4])]
)
def test_tokens_are_mixed_place_by_place(build: Any, anchors: list[int], partners: list[int]) -> None:
    anchor, partner, shares = tokens(anchors, 0), tokens(partners, 1), [0.25, 0.5]
    before = anchor.states.clone()
    result = build("lift", "mixup").lift(lift_request(anchor, partner, shares))
    assert torch.equal(result.mask, anchor.mask)
    assert torch.equal(anchor.states, before)
    for row, (length, other, share) in enumerate(zip(anchors, partners, shares, strict=True)):
        for place in range(result.states.shape[1]):
            expected = before[row, place].double()
            if place < min(length - 1, other):  # the last token of the anchor stays
                expected = (1 - share) * expected + share * partner.states[row, place].double()
            torch.testing.assert_close(result.states[row, place].double(), expected, atol=1e-6, rtol=1e-5)


def test_a_share_of_zero_is_the_anchor(build: Any) -> None:
    anchor = tokens([4, 6], 0)
    result = build("lift", "mixup").lift(lift_request(anchor, tokens([5, 5], 1), [0.0, 0.0]))
    assert torch.equal(result.states, anchor.states)


def test_without_partners_it_is_refused(build: Any, plugins: Plugins) -> None:
    request = dataclasses.replace(lift_request(tokens([3], 0), tokens([3], 1), [0.2]), shares=None)
    with pytest.raises(CompatibilityError, match="take sampler 'mixup'"):
        build("lift", "mixup").lift(request)
    config = load_config({"lift": "mixup", "sampler": "smote"})
    with pytest.raises(CompatibilityError, match=r"sampler 'smote' names none: .*\(mixup\)"):
        resolve(config, plugins)
    resolve(config.model_copy(update={"sampler": "mixup"}), plugins)
    with pytest.raises(CompatibilityError, match="has only one"):
        build("lift", "mixup", config=load_config({"granularity": "pooled"}))
