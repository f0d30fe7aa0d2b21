"""Reducer `vae`: a variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sage_kit.builtin.networks import NetworkReducer, Standard

if TYPE_CHECKING:
    from sage_kit.builtin.reducers import VAEOptions
    from sage_kit.components import BuildContext, Floats

LEAST_VARIANCE = 1e-6
"""Least variance of the decoder's Gaussian [variance of the vectors]: rows that it reproduces exactly have no other."""
ACTIVE = 0.01
"""Variance over the data from which on a posterior mean counts as active (Burda, Grosse and Salakhutdinov, "Importance
weighted autoencoders", ICLR 2016)."""


class VAEReducer(NetworkReducer):
    """A variational autoencoder; a vector's coordinates are the mean of its posterior.

    Training maximises the evidence lower bound of Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014
    (arXiv 1312.6114): encoder and decoder are diagonal Gaussians, the prior is a standard normal, and the gradient goes
    through one draw of the code per row. The divergence from the prior is weighted by `beta` (Higgins et al.,
    "beta-VAE", ICLR 2017). The decoder's variance, one for all dimensions, is the one that is best for the batch
    (Rybkin, Daniilidis and Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021), so that
    `beta` = 1 is the bound itself whatever share of the variance the map can hold.

    Coordinates are in units of the prior's standard deviation. A direction that is not worth its divergence has
    coordinates near zero; how many are active is announced.

    Parameters
    ----------
    options : VAEOptions
    context : BuildContext
        Gives the number of components, the seed, and the torch device on which it computes.
    """

    NAME = "vae"
    OUTPUTS = 2

    def __init__(self, options: VAEOptions, context: BuildContext) -> None:
        super().__init__(options, context)
        self.options = options

    def objective(self, tensors: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """The negative bound, a mean over the rows [nats]."""
        (rows,) = tensors
        mean, log_variance = self.encoder_(rows).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        found = self.decoder_(mean + (log_variance / 2).exp() * noise)
        return negative_log_likelihood(rows, found) + self.options.beta * divergence(mean, log_variance).mean()

    def standard_of(self, codes: Floats) -> Standard:
        """Codes are coordinates as they are."""
        return Standard(np.zeros(self.n_components, dtype=np.float32), np.ones(1, dtype=np.float32))

    def remark(self, codes: Floats) -> str:
        """How many components are active."""
        active = int((codes.var(axis=0, dtype=np.float64) > ACTIVE).sum())
        return f"; {active} of {self.n_components} components active"


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians from the standard normal (Kingma and Welling 2014, appendix B).

    Parameters
    ----------
    mean, log_variance : Tensor of shape (n, k)

    Returns
    -------
    Tensor of shape (n,)
        In nats.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def negative_log_likelihood(truth: Tensor, mean: Tensor) -> Tensor:
    """Of Gaussians with one variance for all rows and dimensions: the best one, which is the mean squared error.

    Parameters
    ----------
    truth, mean : Tensor of shape (n, dim)

    Returns
    -------
    Tensor, a scalar
        Mean over the rows [nats].
    """
    error = (truth - mean).square().mean()
    variance = error.clamp(min=LEAST_VARIANCE)
    return truth.shape[1] * (torch.log(2 * torch.pi * variance) + error / variance) / 2
