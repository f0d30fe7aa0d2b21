"""What the machine can do at best, measured beside what is compared: matrix products (GEMM) and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_bench.measure import Work
from sage_kit.system.devices import synchronize


@dataclass(frozen=True)
class Product:
    """A matrix product (m, k) times (k, n); `layout` as a linear layer's passes ask for it.

    Attributes
    ----------
    m, k, n : int
        Sizes.
    layout : "forward", "input" or "weight"
        ``X W^T``, ``G W`` or ``G^T X``: forward pass, gradient of the input, gradient of the weight. What is transposed
        is handed over transposed, as torch's autograd does.
    """

    m: int
    k: int
    n: int
    layout: str = "forward"

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n


def linear_products(tokens: int, inputs: int, outputs: int) -> list[Product]:
    """The three products of a linear layer's training step on that many tokens."""
    return [
        Product(tokens, inputs, outputs, "forward"),
        Product(tokens, outputs, inputs, "input"),
        Product(outputs, tokens, inputs, "weight"),
    ]


def block_products(tokens: int, dim: int, inner: int) -> list[Product]:
    """The products of a training step of an encoder block's linear layers.

    Queries, keys and values are one product of three times the width, which is the fastest way to compute them.
    """
    sizes = [(dim, 3 * dim), (dim, dim), (dim, inner), (inner, dim)]
    return [product for inputs, outputs in sizes for product in linear_products(tokens, inputs, outputs)]


def stock_flops(config: Any, lengths: NDArray[np.integer], *, per_token: bool = False) -> int:
    """Forward FLOPs of a stock classifier's matrix products over real tokens: all blocks for every token, and the head.

    With d the width and f the inner width, a block costs ``2 (4 d^2 + 2 d f)`` per token and ``4 d n^2`` per example of
    n tokens, the head ``2 (d^2 + d n_outputs)`` per example, or ``2 d n_outputs`` per token.

    Parameters
    ----------
    config : PreTrainedConfig
        Of the BERT kind.
    lengths : integer array of shape (n,)
        Real tokens of each example.
    per_token : bool
        Whether its head is one of tags or answers, a single layer on every token.
    """
    wide = lengths.astype(np.int64)
    dim, inner = int(config.hidden_size), int(config.intermediate_size)
    block = 2 * (4 * dim**2 + 2 * dim * inner) * int(wide.sum()) + 4 * dim * int((wide**2).sum())
    output = 2 * dim * int(config.num_labels)
    head = output * int(wide.sum()) if per_token else (2 * dim**2 + output) * len(wide)
    return int(config.num_hidden_layers) * block + head


class Gemm:
    """Matrix products of given shapes, again and again: the ceiling of compute.

    Each call does whole rounds of all products until `seconds` have passed and reports FLOP and time of the products
    alone. Operands lie ready in the precision's type, and results go to memory that lies ready too.

    Parameters
    ----------
    products : sequence of Product
    device : torch.device
    dtype : torch.dtype
        float32 or bfloat16.
    seconds : float
        Least time per call [s].
    """

    def __init__(
        self, products: Sequence[Product], device: torch.device, dtype: torch.dtype, seconds: float = 0.25
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def operand(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, generator=generator).to(device, dtype)

        self._device = device
        self._seconds = seconds
        self._flops = sum(product.flops for product in products)
        self._operands: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for product in products:
            left = operand(product.k, product.m).T if product.layout == "weight" else operand(product.m, product.k)
            right = operand(product.n, product.k).T if product.layout == "forward" else operand(product.k, product.n)
            self._operands.append((left, right, torch.empty(product.m, product.n, dtype=dtype, device=device)))

    def __call__(self) -> Work:
        """FLOP and seconds of some rounds of all products."""
        rounds = 0
        with torch.no_grad():
            synchronize(self._device)
            started = time.perf_counter()
            while True:
                for left, right, out in self._operands:
                    torch.mm(left, right, out=out)
                rounds += 1
                synchronize(self._device)
                seconds = time.perf_counter() - started
                if seconds >= self._seconds:
                    return Work({"FLOP": float(rounds * self._flops)}, seconds)


class Copy:
    """A copy of memory much larger than any cache: the ceiling of memory traffic.

    Parameters
    ----------
    device : torch.device
    megabytes : int
        Size of what is copied [MB].
    times : int
        Copies per call.
    """

    def __init__(self, device: torch.device, megabytes: int = 256, times: int = 4) -> None:
        self._source = torch.ones(megabytes * 1_000_000 // 4, dtype=torch.float32, device=device)
        self._target = torch.empty_like(self._source)
        self._times = times
        self._device = device

    def __call__(self) -> Work:
        """Bytes read and written, and seconds."""
        synchronize(self._device)
        started = time.perf_counter()
        for _ in range(self._times):
            self._target.copy_(self._source)
        synchronize(self._device)
        moved = 2.0 * self._times * self._source.numel() * self._source.element_size()
        return Work({"bytes": moved}, time.perf_counter() - started)


CEILING, SHARE = "ceiling", "share of ceiling"
"""Figures that `beside` adds: the ceiling's rate [amount/s] and the share of it that was reached."""


def beside(do: Callable[[], Work], ceiling: Gemm | Copy, amount: str) -> Callable[[], Work]:
    """The same work with a ceiling measured immediately before and after it, outside its time.

    Parameters
    ----------
    do : callable
        Does the work.
    ceiling : Gemm or Copy
    amount : str
        What both count: "FLOP" or "bytes".

    Returns
    -------
    callable
        Its work has the figures `CEILING` and `SHARE` besides.
    """

    def measured() -> Work:
        before = ceiling()
        started = time.perf_counter()
        work = do()
        seconds = time.perf_counter() - started if work.seconds is None else work.seconds
        after = ceiling()
        assert before.seconds is not None
        assert after.seconds is not None
        best = (before.amounts[amount] + after.amounts[amount]) / (before.seconds + after.seconds)
        figures = {**work.figures, CEILING: best, SHARE: work.amounts[amount] / seconds / best}
        return Work(work.amounts, seconds, figures)

    return measured
