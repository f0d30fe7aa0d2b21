"""Upper layers behind torch.compile, for batches of any size, or for batches that are padded to a few sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.models.split import UpperOutput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Tokens that batches are padded to; longer ones to a multiple of the last."""

MOST_KINDS = 256
"""Kinds of calls for which torch compiles the same code, before it goes on without: sizes, with and without gradients,
training or not."""


class Compiled(nn.Module):
    """Upper layers, compiled; called as they are.

    Parameters
    ----------
    upper : UpperLayers
    buckets : bool
        Whether to pad batches to the tokens of `LENGTHS` and to a power of two of examples, and to compile for each of
        these sizes. Otherwise the code is compiled once for all sizes.
    backend : str or callable
        As of `torch.compile`.

    Attributes
    ----------
    uncompiled : UpperLayers
    """

    def __init__(self, upper: Any, buckets: bool, backend: Any = "inductor") -> None:
        super().__init__()
        self.uncompiled = upper
        self._buckets = buckets
        if buckets:
            config: Any = torch._dynamo.config
            config.cache_size_limit = max(config.cache_size_limit, MOST_KINDS)
        # not a submodule: its parameters are those of `uncompiled`
        self._calls: list[Any] = [torch.compile(upper, dynamic=not buckets, backend=backend)]
        self.train(upper.training)

    @property
    def head(self) -> Any:
        """The head of the upper layers."""
        return self.uncompiled.head

    @property
    def n_outputs(self) -> int:
        """Width of the logits."""
        return int(self.uncompiled.n_outputs)

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        hidden: bool = False,
        projections: Sequence[int] = (),
        lengths: NDArray[np.int64] | None = None,
    ) -> UpperOutput:
        """What the upper layers give; `lengths` are not looked at, since a compiled pass is a padded one."""
        (call,) = self._calls
        if not self._buckets:
            return UpperOutput(*call(states, mask, hidden=hidden, projections=projections))
        batch, tokens = states.shape[:2]
        if mask is None:
            mask = states.new_ones(batch, tokens, dtype=torch.bool)
        more = padded_length(tokens) - tokens
        fillers = padded_batch(batch) - batch
        states = F.pad(states, (0, 0, 0, more, 0, fillers))
        mask = F.pad(mask, (0, more, 0, fillers))
        if fillers:  # attention must see something
            mask[batch:, 0] = True
        output = UpperOutput(*call(states, mask, hidden=hidden, projections=projections))
        logits = output.logits[:batch]
        return UpperOutput(
            logits[:, :tokens] if logits.ndim == 3 else logits,
            tuple(one[:batch, :tokens] for one in output.hidden),
            tuple(one[:batch, :tokens] for one in output.projections),
        )


def padded_length(tokens: int) -> int:
    """Tokens that a batch of so many is padded to."""
    fitting = [length for length in LENGTHS if length >= tokens]
    return fitting[0] if fitting else -(-tokens // LENGTHS[-1]) * LENGTHS[-1]


def padded_batch(examples: int) -> int:
    """Examples that a batch of so many is padded to."""
    return 1 << (examples - 1).bit_length()
