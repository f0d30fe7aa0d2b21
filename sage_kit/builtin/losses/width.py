"""A learned map from the student's width to the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sage_kit.components import BuildContext


def to_teacher_width(context: BuildContext) -> torch.nn.Module:
    """A linear map of the student's states to the teacher's width; none where the widths are the same.

    Romero et al. 2015 (FitNets, arXiv 1412.6550, section 2.2) and Jiao et al. 2020 (TinyBERT, arXiv 1909.10351,
    equation 8). Drawn from the context's seed; the global random state is left as it was.
    """
    sizes = context.sizes
    assert sizes is not None, "a loss is built with the sizes of the models"
    if sizes.student_dim == sizes.teacher_dim:
        return torch.nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        return torch.nn.Linear(sizes.student_dim, sizes.teacher_dim, bias=False)
