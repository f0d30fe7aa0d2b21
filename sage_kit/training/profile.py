"""The loss profile: loss and outputs of the student on each example, gathered while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sage_kit.data.encoding import EncodedSplit


class Profile:
    """Loss and student logits of each example, gathered on the device while training goes on.

    Parameters
    ----------
    rows, n_outputs : int
        Sizes; no outputs where there is one per token, and of embeddings.
    device : torch.device

    Attributes
    ----------
    losses : Tensor of shape (rows,), float32
        NaN for examples not seen yet.
    logits : Tensor of shape (rows, n_outputs), float32
        The student's.
    alike : Tensor of shape (rows,), float32
        Where there is an output per token, how far student and teacher agree; of embeddings their cosine.
    fresh : Tensor of shape (rows,), bool
        Seen since `start_pass`.
    """

    def __init__(self, rows: int, n_outputs: int, device: torch.device) -> None:
        self.losses = torch.full((rows,), float("nan"), device=device)
        self.logits = torch.zeros(rows, n_outputs, device=device)
        self.alike = torch.zeros(rows if not n_outputs else 0, device=device)
        self.fresh = torch.zeros(rows, dtype=torch.bool, device=device)

    def start_pass(self) -> None:
        """Forget which examples were seen; their losses stay until they are seen again."""
        self.fresh.zero_()

    def record(self, rows: torch.Tensor, losses: torch.Tensor, outputs: torch.Tensor) -> None:
        """Take over the losses of one batch, and its logits or how far they agree; never waits for the device."""
        self.losses[rows] = losses.detach()
        if outputs.ndim == 1:
            self.alike[rows] = outputs.detach().float()
        else:
            self.logits[rows] = outputs.detach().float()
        self.fresh[rows] = True

    def merge(self, accelerator: Accelerator) -> None:
        """Bring together what several processes saw."""
        if accelerator.num_processes == 1:
            return
        seen = self.fresh.float()
        count = accelerator.reduce(seen, "sum").clamp(min=1)
        losses = accelerator.reduce(torch.where(self.fresh, self.losses, 0.0), "sum") / count
        logits = accelerator.reduce(self.logits * seen[:, None], "sum") / count[:, None]
        fresh = accelerator.reduce(seen, "sum") > 0
        self.losses = torch.where(fresh, losses, self.losses)
        self.logits = torch.where(fresh[:, None], logits, self.logits)
        if len(self.alike):
            self.alike = accelerator.reduce(torch.where(self.fresh, self.alike, 0.0), "sum") / count
        self.fresh = fresh

    def attribute(self, anchors: NDArray[np.int64], children: Profile) -> None:
        """Give anchors that were not seen in this pass the mean loss of their synthetic examples."""
        index = torch.from_numpy(anchors).to(self.losses.device)
        index, losses, logits = index[children.fresh], children.losses[children.fresh], children.logits[children.fresh]
        count = torch.zeros_like(self.losses).index_add_(0, index, torch.ones_like(losses))
        take = (count > 0) & ~self.fresh
        divisor = count.clamp(min=1)
        self.losses = torch.where(
            take, torch.zeros_like(self.losses).index_add_(0, index, losses) / divisor, self.losses
        )
        summed = torch.zeros_like(self.logits).index_add_(0, index, logits)
        self.logits = torch.where(take[:, None], summed / divisor[:, None], self.logits)

    def mean_loss(self) -> float:
        """Mean loss of the examples of this pass; NaN without any."""
        return float(self.losses[self.fresh].mean()) if bool(self.fresh.any()) else float("nan")

    def agreement(self, teacher: NDArray[np.float32], encoded: EncodedSplit) -> float:
        """Agreement with the teacher's outputs on the examples of this pass; NaN without any.

        Where several sequences are of one text, and with an output per token, it is the mean over sequences of the
        share of distributions whose likeliest outcome is the same; of embeddings the mean of the cosines of sequences.
        """
        fresh = self.fresh.cpu().numpy()
        if not fresh.any():
            return float("nan")
        if len(self.alike):
            return float(self.alike[self.fresh].mean())
        return float(encoded.agreement(np.where(fresh[:, None], self.logits.cpu().numpy(), 0), teacher)[fresh].mean())
