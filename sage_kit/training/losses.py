"""Formulas of losses: each function maps a batch to one loss per example, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sage_kit.components import Compared


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""Kullback-Leibler divergence of the softened distributions, times the squared temperature.

    .. math:: T^2 \sum_c p_c (\log p_c - \log q_c), \quad p = \mathrm{softmax}(t / T), q = \mathrm{softmax}(s / T)

    The factor keeps the gradient's size independent of the temperature (Hinton et al. 2015, arXiv 1503.02531,
    section 2).

    Parameters
    ----------
    student, teacher : Tensor of shape (batch, n_outputs)
        Logits.
    temperature : float

    Returns
    -------
    Tensor of shape (batch,)
    """
    p = F.log_softmax(teacher.float() / temperature, dim=-1)
    q = F.log_softmax(student.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def example_divergence(
    student: Compared, teacher: Compared, temperature: float = 1.0, *, regression: bool = False
) -> torch.Tensor:
    """How far the student's outputs are from the teacher's: one value per example, (batch,).

    The KL divergence, its mean over the distributions that count, or for numbers and vectors the squared error.
    """
    if regression:
        return squared_error(student.logits, teacher.logits)
    values, counts = kl_divergence(student.logits, teacher.logits, temperature), student.counts
    return values if counts is None else (values * counts).sum(1) / counts.sum(1)


def hard_label_loss(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to integer labels: (batch, n_outputs) and (batch,) int64 to (batch,)."""
    return F.cross_entropy(student.float(), labels, reduction="none")


def squared_error(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over the outputs: (batch, n_outputs) twice to (batch,)."""
    return (student.float() - target.float()).square().mean(-1)


def hidden_state_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, kind: Literal["cosine", "mse"]
) -> torch.Tensor:
    """Distance of hidden states, averaged over the real tokens and the layers.

    Parameters
    ----------
    student, teacher : Tensor of shape (batch, tokens, n_layers, dim)
        What stands at padding positions does not count, as long as it is finite.
    mask : Tensor of shape (batch, tokens), bool
        True at real tokens.
    kind : "cosine" or "mse"
        One minus the cosine similarity, or the mean squared difference over the dimensions.

    Returns
    -------
    Tensor of shape (batch,)
    """
    student, teacher = student.float(), teacher.float()
    if kind == "cosine":
        distance = 1 - F.cosine_similarity(student, teacher, dim=-1)
    else:
        distance = (student - teacher).square().mean(-1)
    weights = mask.float()
    return (distance.mean(-1) * weights).sum(1) / weights.sum(1)


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    r"""Divergence of the relations among queries, among keys and among values: the loss of MiniLMv2.

    .. math:: \frac{1}{3 A n} \sum_{X \in \{Q, K, V\}} \sum_{a=1}^{A} \sum_{t=1}^{n}
        \mathrm{KL}(R^T_{X, a, t} \| R^S_{X, a, t}), \quad R_{X, a} = \mathrm{softmax}(X_a X_a^\top / \sqrt{w})

    over the n real tokens of an example. The heads of the attention lie beside each other and are split anew into A
    relation heads of width w = dim / A (Wang et al. 2020, arXiv 2012.15828, section 3.1, where the three kinds are
    summed; here their mean is taken).

    Parameters
    ----------
    student, teacher : Tensor of shape (batch, tokens, 3, dim)
        Queries, keys and values. What stands at padding positions does not count, as long as it is finite.
    mask : Tensor of shape (batch, tokens), bool
        True at real tokens.
    heads : int
        Relation heads; a divisor of `dim`.

    Returns
    -------
    Tensor of shape (batch,)
    """
    padding = ~mask[:, None, None, :]

    def log_relations(projections: torch.Tensor) -> torch.Tensor:
        """Logarithms of shape (batch, 3 * heads, tokens, tokens)."""
        batch, tokens, kinds, dim = projections.shape
        # half of the scale on each side of the product, which has more elements than its factors
        scaled = projections.float() * (dim // heads) ** -0.25
        split = scaled.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4).reshape(batch * kinds * heads, tokens, -1)
        scores = torch.bmm(split, split.transpose(1, 2)).view(batch, kinds * heads, tokens, tokens)
        # finite, since the difference of two infinities is none
        return F.log_softmax(scores.masked_fill(padding, torch.finfo(scores.dtype).min), dim=-1)

    parting = F.kl_div(log_relations(student), log_relations(teacher), reduction="none", log_target=True).sum(-1)
    weights = mask.float()
    return (parting.mean(1) * weights).sum(1) / weights.sum(1)
