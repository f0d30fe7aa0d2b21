"""Targets: what a model learns of a batch of sequences, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.tokens import padded_rows

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
        found = self.alignment
        where = padded_rows(self.offsets, rows)[0] if found.flat else rows
        targets = torch.from_numpy(np.asarray(found.targets)[where])
        return targets.to(device, non_blocking=True), self.positions(rows, device)

    def positions(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor | None:
        """Where the outputs of some sequences count, of shape (batch, tokens), bool; None for one output a sequence."""
        found = self.alignment.positions
        if found is None:
            return None
        places, mask = padded_rows(self.offsets, rows)
        return torch.from_numpy(found[places] & mask).to(device, non_blocking=True)
