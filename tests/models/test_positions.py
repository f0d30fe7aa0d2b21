from __future__ import annotations

import math

import pytest
import tiny
import torch

from sage_kit.models.families import family_of
from sage_kit.models.positions import position_bias, score_bias


def bucket(distance: int) -> int:
    """Of 32 buckets: 8 exact ones and 8 growing ones, up to a distance of 128, for each direction."""
    side, far = (16, distance) if distance > 0 else (0, -distance)
    if far < 8:
        return side + far
    return side + min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8))


def test_the_bias_of_each_pair_of_places_is_that_of_its_bucket():
    model = tiny.make_model("mpnet")
    found = position_bias(model, family_of(model.config))
    assert found is not None
    weights = model.mpnet.encoder.relative_attention_bias.weight
    assert found.weights.weight is weights
    bias = found(60)
    assert bias.shape == (4, 60, 60)
    for query in range(0, 60, 7):
        for key in range(60):
            assert torch.equal(bias[:, query, key], weights[bucket(key - query)])
    assert torch.equal(found(5), bias[:, :5, :5])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_absolute_positions_have_no_bias(family):
    model = tiny.make_model(family)
    assert position_bias(model, family_of(model.config)) is None


def test_what_is_added_to_the_scores():
    mask = torch.tensor([[True, True, True], [True, False, True]])
    bias = torch.randn(2, 3, 3)
    assert score_bias(None, None) is None
    plain = score_bias(mask, None)
    assert plain is not None
    assert plain.dtype == torch.bool
    assert plain.shape == (2, 1, 1, 3)
    unpadded = score_bias(None, bias)
    assert unpadded is not None
    assert torch.equal(unpadded, bias[None])
    both = score_bias(mask, bias)
    assert both is not None
    assert torch.equal(both[0], bias)
    assert bool((both[1, :, :, 1] == -torch.inf).all())
    assert torch.equal(both[1][:, :, [0, 2]], bias[:, :, [0, 2]])
