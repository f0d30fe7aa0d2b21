"""Targets: what a model learns of a batch of sequences, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.tokens import padded_rows
from sage_kit.system.transfer import Placing, pinned, to_device

if TYPE_CHECKING:
    from sage_kit.components import Alignment
    from sage_kit.data.encoding import EncodedSplit


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of all sequences of a split.

    Attributes
    ----------
    alignment : Alignment
    offsets : array of shape (sequences + 1,), int64
        Of their tokens.
    """

    alignment: Alignment
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, encoded: EncodedSplit) -> Targets:
        """Those of a split."""
        return cls(encoded.alignment, encoded.tokens.offsets)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Targets and positions of some sequences.

        Returns
        -------
        targets : Tensor of shape (batch,) or (batch, k); flat ones of shape (batch, tokens)
            At padding those of the last token.
        positions : Tensor of shape (batch, tokens), bool, or None
            Where outputs count.
        """
        return self.gather(rows, device)()

    def gather(
        self, rows: NDArray[np.int64], device: torch.device
    ) -> Placing[tuple[torch.Tensor, torch.Tensor | None]]:
        """The same in two steps: gathers them on the host, and returns what puts them on the device."""
        found = self.alignment
        where = padded_rows(self.offsets, rows)[0] if found.flat else rows
        targets = pinned(torch.from_numpy(np.asarray(found.targets)[where]), device)
        positions = self.gather_positions(rows, device)
        return lambda: (to_device(targets, device), positions())

    def positions(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor | None:
        """Where the outputs of some sequences count, of shape (batch, tokens), bool; None for one output a sequence."""
        return self.gather_positions(rows, device)()

    def gather_positions(self, rows: NDArray[np.int64], device: torch.device) -> Placing[torch.Tensor | None]:
        """The same in two steps, as `gather`."""
        found = self.alignment.positions
        if found is None:
            return lambda: None
        places, mask = padded_rows(self.offsets, rows)
        positions = pinned(torch.from_numpy(found[places] & mask), device)
        return lambda: to_device(positions, device)
