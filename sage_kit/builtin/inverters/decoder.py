"""Inverter `decoder`: a network trained from coordinates to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sage_kit.builtin import networks
from sage_kit.builtin.networks import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.inverters import NetworkDecoderOptions
    from sage_kit.components import BuildContext, Floats, Integers


class DecoderInverter:
    """A multilayer perceptron that predicts a vector from its place in the map; it needs nothing of the reducer.

    Training minimises the mean squared error on standardised coordinates and vectors, see `sage_kit.builtin.networks`.
    The weights are kept in the run's cache.

    The line that ends the training gives R2 on real examples that were not trained on. The reducer has seen them,
    though: vectors that a reducer such as UMAP places later come back less well than that.

    Parameters
    ----------
    options : NetworkDecoderOptions
    context : BuildContext
        Gives the seed, the torch device on which it computes, and the cache.
    """

    def __init__(self, options: NetworkDecoderOptions, context: BuildContext) -> None:
        self.options = options
        self.seed = context.seed % 2**62
        self.device = torch.device(context.device)
        self._announce = context.announce
        self._cached = context.cached

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> DecoderInverter:
        """Train on the real examples, or find the weights in the cache; return self.

        Raises
        ------
        CompatibilityError
            For coordinates or vectors with NaN or infinity, and a learning rate at which the training diverges.
        """
        networks.require_finite("inverter 'decoder'", "the coordinates of vector", coordinates)
        networks.require_finite("inverter 'decoder'", "vector", vectors)
        self._places, self._vectors = Standard.of(coordinates), Standard.of(vectors)

        def train() -> dict[str, NDArray[Any]]:
            return self._train(coordinates, vectors)

        weights = self._cached("decoder", [coordinates, vectors, networks.FORMAT], train)
        self._network = networks.with_weights(weights, "decoder", self.device)
        return self

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32."""
        places = self._places.to_units(coordinates)
        return self._vectors.from_units(networks.apply(self._network, places, self.device))

    def _train(self, coordinates: Floats, vectors: Floats) -> dict[str, NDArray[Any]]:
        with networks.learning():
            places = networks.on_device(self._places.to_units(coordinates), self.device)
            truth = networks.on_device(self._vectors.to_units(vectors), self.device)
            widths = [places.shape[1], *self.options.hidden[::-1], truth.shape[1]]
            network = networks.perceptron(widths, torch.Generator().manual_seed(self.seed)).to(self.device)

            def objective(tensors: Sequence[Tensor], generator: torch.Generator) -> Tensor:
                inputs, targets = tensors
                return nn.functional.mse_loss(network(inputs), targets)

            training = networks.train(
                "inverter 'decoder'",
                network,
                objective,
                [places, truth],
                self.options,
                seed=self.seed,
                device=self.device,
            )
            report = training.report(truth, lambda rows: network(places[rows].to(self.device)))
        self._announce(f"inverter 'decoder': {report}")
        return networks.weights_of(network, "decoder")
