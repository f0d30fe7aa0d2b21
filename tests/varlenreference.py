"""What a card's attention over packed rows computes, in plain torch and in any precision, one example at a time."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F


class Reference:
    """`sage_kit.models.varlen.VarlenAttention`; it checks what it is handed and notes the calls.

    Attributes
    ----------
    calls : list of dict
        Type, dropout, and most queries of each call.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, query, key, value, query_bounds, key_bounds, most_queries, most_keys, p, scale):
        for rows, bounds, most in ((query, query_bounds, most_queries), (key, key_bounds, most_keys)):
            assert bounds.dtype == torch.int32
            assert bounds.device == rows.device
            sizes = bounds.diff()
            assert int(bounds[0]) == 0
            assert int(bounds[-1]) == len(rows)
            assert 0 < int(sizes.min()) <= int(sizes.max()) == most
            assert rows.stride(-1) == 1
        assert query.dtype == key.dtype == value.dtype
        assert key.shape == value.shape
        assert query.shape[1:] == key.shape[1:]
        self.calls.append({"dtype": query.dtype, "p": p, "most_queries": most_queries})
        examples = zip(itertools.pairwise(query_bounds.tolist()), itertools.pairwise(key_bounds.tolist()), strict=True)
        return torch.cat([_one(query[a:b], key[c:d], value[c:d], p, scale) for (a, b), (c, d) in examples])


def _one(query, key, value, p, scale):
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    # adding up in single precision, as the kernel does
    exact = torch.promote_types(scores.dtype, torch.float32)
    probabilities = F.dropout(scores.to(exact).softmax(-1), p).to(value.dtype)
    return torch.einsum("hqk,khd->qhd", probabilities, value)
