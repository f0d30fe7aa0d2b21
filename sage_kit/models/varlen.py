"""Attention over packed rows on a card: texts of different lengths one after the other, none of them padded.

The kernel is the flash attention (Dao 2023, arXiv 2307.08691) that torch brings along, which computes in bf16 and fp16,
and drops out probabilities in training. `torch.nn.attention.varlen` calls the same operator, without dropout.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

WIDEST_HEAD = 256
"""Dimensions of a head that the kernel takes at most; it wants a multiple of 8."""

LOWEST_CAPABILITY = (8, 0)
"""Compute capability from which on it runs."""


class VarlenAttention(Protocol):
    """Scaled dot-product attention of each example of a packed batch."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_bounds: Tensor,
        key_bounds: Tensor,
        most_queries: int,
        most_keys: int,
        p: float,
        scale: float,
    ) -> Tensor:
        """What each query gets from the keys of its example.

        Parameters
        ----------
        query : Tensor of shape (queries, heads, width)
        key, value : Tensor of shape (total, heads, width)
        query_bounds, key_bounds : Tensor of shape (batch + 1,), int32
            Example i has the rows ``bounds[i]`` to ``bounds[i + 1]``; on the device.
        most_queries, most_keys : int
            Of one example.
        p : float
            Of the dropout on the probabilities.
        scale : float
            Factor of the scores.

        Returns
        -------
        Tensor of shape (queries, heads, width)
        """
        ...


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    most_queries: int,
    most_keys: int,
    p: float,
    scale: float,
) -> Tensor:
    """`VarlenAttention` by torch's flash attention: CUDA, bf16 or fp16."""
    found: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, query_bounds, key_bounds, most_queries, most_keys, p, False, False, scale=scale
    )[0]
    return found


def varlen_attention(states: Tensor, width: int) -> VarlenAttention | None:
    """What attends over packed rows of such token states; None where the padded stock blocks are to be taken.

    These are taken in single precision, which no flash attention computes in: batches of like lengths have little
    padding, and whoever wants speed of a card takes bf16.

    Parameters
    ----------
    states : Tensor
        Token states, float32.
    width : int
        Of an attention head.
    """
    if states.device.type != "cuda" or states.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    if width % 8 or width > WIDEST_HEAD or not torch.is_autocast_enabled("cuda"):
        return None
    dtype = torch.get_autocast_dtype("cuda")
    if dtype not in (torch.bfloat16, torch.float16) or not _is_known(states.device, dtype):
        return None
    return flash_attention


@functools.cache
def _is_known(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the operator is there and gives what it should: it is no public one, so it is tried on two short texts.

    With a query of zeros each text's result is the mean of its values, exact in half precision for these.
    """
    if torch.version.hip or torch.cuda.get_device_capability(device) < LOWEST_CAPABILITY:
        return False
    values = torch.tensor([4.0, 1.0, 3.0], device=device, dtype=dtype).view(3, 1, 1).expand(3, 1, 8).contiguous()
    bounds = torch.tensor([0, 1, 3], device=device, dtype=torch.int32)
    try:
        with torch.no_grad():
            nothing = torch.zeros_like(values)
            found: Any = flash_attention(nothing, nothing, values, bounds, bounds, 2, 2, 0.0, 1.0)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(found.flatten(1)[:, 0].tolist() == [4.0, 2.0, 2.0])
