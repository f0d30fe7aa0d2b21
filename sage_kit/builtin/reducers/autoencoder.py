"""Reducer `autoencoder`: a network that squeezes vectors through a layer as narrow as the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sage_kit.builtin.networks import NetworkReducer

if TYPE_CHECKING:
    from sage_kit.builtin.reducers import AutoencoderOptions
    from sage_kit.components import BuildContext


class AutoencoderReducer(NetworkReducer):
    """An encoder and a decoder trained together to reproduce the vectors (Hinton and Salakhutdinov, "Reducing the
    dimensionality of data with neural networks", Science 313, 2006).

    Training minimises the mean squared error on standardised vectors. The encoder is given them with noise, so that the
    map holds more of vectors it was not fitted on (Vincent et al., "Extracting and composing robust features with
    denoising autoencoders", ICML 2008). Coordinates are the encoder's output moved to mean zero and, by one scale for
    all dimensions, to mean variance one over the vectors it was fitted on.

    Parameters
    ----------
    options : AutoencoderOptions
    context : BuildContext
        Gives the number of components, the seed, and the torch device on which it computes.
    """

    NAME = "autoencoder"

    def __init__(self, options: AutoencoderOptions, context: BuildContext) -> None:
        super().__init__(options, context)
        self.options = options

    def objective(self, tensors: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Mean squared error; in training, of what is made of noisy rows."""
        (rows,) = tensors
        inputs = rows
        if self.encoder_.training and self.options.noise:
            noise = torch.randn(rows.shape, generator=generator, device=rows.device)
            inputs = rows + self.options.noise * noise
        return nn.functional.mse_loss(self.decoder_(self.encoder_(inputs)), rows)
