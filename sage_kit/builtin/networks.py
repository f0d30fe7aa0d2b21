"""Small networks in torch for built-in components: making them, training them with early stopping, storing them.

It imports torch, so only implementation files import it. Torch's global random state is neither read nor changed:
initial weights, shuffles and noise come from generators of their own, seeded by the component's seed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.network_options import NetworkOptions
    from sage_kit.components import BuildContext, Floats

FORMAT = "networks-1"
"""Part of the key of cached weights; another number where training comes to give other weights."""

LEAST_TO_HOLD_OUT = 10
"""Fewest rows of which some are held out."""
LEAST_BATCH = 8
STEPS_PER_EPOCH = 8
"""With few rows, batches are so small that an epoch has about so many steps, but no smaller than `LEAST_BATCH`."""
CHUNK = 8192
"""Rows that go through a network at once where nothing is learnt, so that memory does not grow with their number."""
BETTER = 1e-5
"""Least share by which a held-out loss must fall to count as better."""

Objective = Callable[[Sequence[Tensor], torch.Generator], Tensor]
"""``objective(rows, generator)``: mean loss, a scalar, of some rows of the tensors; noise comes from the generator."""


# ---- data -----------------------------------------------------------------------------------------------------------


def require_finite(who: str, what: str, rows: Floats) -> None:
    """Refuse rows that hold NaN or infinity.

    Raises
    ------
    CompatibilityError
        With the number of the first such row, from 1.
    """
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise CompatibilityError(
            f"{who} cannot be trained: {what} {bad[0] + 1} of {len(rows)} holds NaN or infinity, the first of "
            f"{len(bad)} such: leave these rows out or correct them"
        )


@dataclass(frozen=True)
class Standard:
    """Moves rows to mean zero and, by one scale for all dimensions, to mean variance one.

    One scale keeps the proportions between the dimensions, so that a squared error in standard units is a squared error
    in the rows' own units, and a dimension without variance does no harm.

    Attributes
    ----------
    mean : array of shape (dim,), float32
    scale : array of shape (1,), float32
        Root of the dimensions' mean variance; 1 where all rows are equal.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, rows: Floats) -> Standard:
        """The standard of rows of shape (n, dim)."""
        mean = rows.mean(axis=0, dtype=np.float64)
        squares = sum(
            float(np.square(rows[start : start + CHUNK] - mean).sum()) for start in range(0, len(rows), CHUNK)
        )
        scale = math.sqrt(squares / rows.size)
        # what rounding leaves of a spread is none
        least = np.finfo(np.float32).eps * float(np.abs(mean).max(initial=0))
        return cls(mean.astype(np.float32), np.array([scale if scale > least else 1], dtype=np.float32))

    def to_units(self, rows: Floats) -> Floats:
        """Rows in standard units, a new array of float32."""
        return np.asarray((rows - self.mean) / self.scale, dtype=np.float32)

    def from_units(self, rows: Floats) -> Floats:
        """The inverse of `to_units`."""
        return np.asarray(rows * self.scale + self.mean, dtype=np.float32)


# ---- networks -------------------------------------------------------------------------------------------------------


def perceptron(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with SiLU between them.

    Weights and biases are drawn uniformly from within ``1 / sqrt(inputs)`` of zero, as torch's own linear layers do,
    but from the generator, which is one on the CPU: the same on every device.

    Parameters
    ----------
    widths : sequence of int
        Of the input, the hidden layers and the output.
    generator : torch Generator
    """
    network = _layers(widths)
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    return network


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """The layers with weights that are not set; torch would draw them from its global state."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float32), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def weights_of(network: nn.Sequential, name: str) -> dict[str, NDArray[Any]]:
    """Weights of shape (outputs, inputs) and biases of each layer: ``{name}.0.weight``, ``{name}.0.bias``, ..."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return {
        f"{name}.{number}.{part}": getattr(layer, part).detach().cpu().numpy().copy()
        for number, layer in enumerate(linear)
        for part in ("weight", "bias")
    }


def with_weights(arrays: Mapping[str, NDArray[Any]], name: str, device: torch.device) -> nn.Sequential:
    """The network whose weights `weights_of` gave under that name, on a device; its widths are those of the arrays."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in arrays)
    weights = [np.array(arrays[f"{name}.{number}.weight"], dtype=np.float32) for number in range(count)]
    biases = [np.array(arrays[f"{name}.{number}.bias"], dtype=np.float32) for number in range(count)]
    network = _layers([weights[0].shape[1], *(len(bias) for bias in biases)])
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(linear, weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return network.to(device).eval()


def apply(network: nn.Module, rows: Floats, device: torch.device) -> Floats:
    """What the network makes of rows of shape (n, inputs): shape (n, outputs), float32."""
    parts = []
    with torch.inference_mode():
        # one pass at least, so that no rows give an empty array of the right width
        for start in range(0, max(1, len(rows)), CHUNK):
            part = torch.from_numpy(np.array(rows[start : start + CHUNK], dtype=np.float32)).to(device)
            parts.append(network(part).cpu().numpy())
    return np.concatenate(parts)


# ---- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Training:
    """How a training went.

    Attributes
    ----------
    epochs : int
        Passes over the training rows.
    best_epoch : int
        The pass whose weights were kept, from 1.
    train, held_out : array of int64
        Rows that were trained on, and those that decided when to stop.
    """

    epochs: int
    best_epoch: int
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def report(self, truth: Tensor, found: Callable[[Tensor], Tensor]) -> str:
        """One line: epochs, and the share of variance explained, R2, against the mean of the training rows.

        Parameters
        ----------
        truth : Tensor of shape (n, dim)
            All rows.
        found : callable
            ``found(rows)`` gives what is found for some rows, by their numbers.
        """
        rows = self.held_out if len(self.held_out) else self.train
        with torch.no_grad():
            mean = truth[torch.from_numpy(self.train).to(truth.device)].mean(dim=0)
            error = total = 0.0
            for start in range(0, len(rows), CHUNK):
                part = torch.from_numpy(rows[start : start + CHUNK]).to(truth.device)
                error += float((truth[part] - found(part).to(truth.device)).square().sum(dtype=torch.float64))
                total += float((truth[part] - mean).square().sum(dtype=torch.float64))
        share = f"{1 - error / total:.3f}" if total > 0 else "undefined, as all are equal,"
        data = (
            f"held-out R2 {share} against the mean vector on {len(self.held_out)} of {len(truth)} vectors"
            if len(self.held_out)
            else f"R2 {share} on the {len(truth)} vectors it was trained on, none being held out"
        )
        return f"{self.epochs} epochs, the best {self.best_epoch}; {data}"


@contextmanager
def learning() -> Iterator[None]:
    """Gradients on, though a caller may have turned them off for everything else."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def on_device(rows: Floats, device: torch.device) -> Tensor:
    """A copy of the rows as a tensor on the device or, where it would take half of what is free there, on the host."""
    tensor = torch.from_numpy(np.array(rows, dtype=np.float32))
    if device.type == "cuda" and tensor.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return tensor
    return tensor.to(device)


def train(
    who: str,
    network: nn.Module,
    objective: Objective,
    tensors: Sequence[Tensor],
    options: NetworkOptions,
    *,
    seed: int,
    device: torch.device,
) -> Training:
    """Train by AdamW on minibatches until the held-out loss falls no more, and leave the best weights in the network.

    Parameters
    ----------
    who : str
        Names the component in messages.
    network : Module
        On `device`; its parameters are trained. It is in training mode for the steps only.
    objective : callable
        See `Objective`. The held-out loss is computed with the same noise each time, so that passes can be compared.
    tensors : sequence of Tensor
        Aligned rows, on the device or on the host.
    options : NetworkOptions
    seed : int
    device : torch.device

    Raises
    ------
    CompatibilityError
        When the held-out loss is never finite or, without held-out rows, the weights are not at the end.
    """
    n = len(tensors[0])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device).manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    count = min(n - 1, max(1, round(options.held_out * n))) if options.held_out and n >= LEAST_TO_HOLD_OUT else 0
    held_out, rows = order[:count].sort().values, order[count:].sort().values
    size = min(options.batch_size, max(LEAST_BATCH, len(rows) // STEPS_PER_EPOCH))
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )

    def batch(indices: Tensor) -> list[Tensor]:
        return [tensor[indices.to(tensor.device)].to(device) for tensor in tensors]

    def held_out_loss() -> float:
        same = torch.Generator(device).manual_seed(seed + 1)
        network.eval()
        with torch.no_grad():
            losses = [objective(batch(part), same) * len(part) for part in held_out.split(CHUNK)]
        return float(torch.stack(losses).sum()) / count

    best_loss, best_epoch, best = math.inf, 0, [parameter.detach().clone() for parameter in parameters]
    epoch = 0
    for epoch in range(1, options.epochs + 1):
        network.train()
        shuffled = rows[torch.randperm(len(rows), generator=generator)].to(tensors[0].device)
        for part in shuffled.split(size):
            loss = objective(batch(part), noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if not count:
            continue
        current = held_out_loss()
        if current < best_loss - BETTER * abs(best_loss) if best_epoch else math.isfinite(current):
            best_loss, best_epoch = current, epoch
            for kept, parameter in zip(best, parameters, strict=True):
                kept.copy_(parameter.detach())
        elif epoch - best_epoch >= options.patience:
            break
    network.eval()
    if count:
        with torch.no_grad():
            for kept, parameter in zip(best, parameters, strict=True):
                parameter.copy_(kept)
    else:
        best_epoch = epoch
    if not best_epoch or not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise CompatibilityError(
            f"{who} cannot be trained: its loss is not finite at learning_rate={options.learning_rate:g}: "
            "lower learning_rate"
        )
    return Training(epoch, best_epoch, rows.numpy(), held_out.numpy())


# ---- reducers -------------------------------------------------------------------------------------------------------


class NetworkReducer(ABC):
    """A reducer of an encoder and a decoder. A subclass says what they are trained for, and gives itself a name.

    Parameters
    ----------
    options : NetworkOptions
    context : BuildContext
        Gives the number of components, the seed, and the torch device on which it computes.

    Attributes
    ----------
    vectors_ : Standard
        How vectors are standardised.
    codes_ : Standard
        How the encoder's first outputs, as many as there are components, become coordinates.
    encoder_, decoder_ : torch.nn.Sequential
    """

    NAME: ClassVar[str]
    OUTPUTS: ClassVar[int] = 1
    """Outputs of the encoder for each component."""

    vectors_: Standard
    codes_: Standard
    encoder_: nn.Sequential
    decoder_: nn.Sequential

    def __init__(self, options: NetworkOptions, context: BuildContext) -> None:
        self.network_options = options
        self.n_components = context.n_components
        self.seed = context.seed % 2**62
        self.device = torch.device(context.device)
        self._announce = context.announce

    @abstractmethod
    def objective(self, tensors: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Mean loss, a scalar, of rows in standard units: ``(rows,) = tensors``."""

    def standard_of(self, codes: Floats) -> Standard:
        """How codes of shape (n, n_components) become coordinates."""
        return Standard.of(codes)

    def remark(self, codes: Floats) -> str:
        """What the line that ends the training says besides."""
        return ""

    def fit(self, vectors: Floats) -> NetworkReducer:
        """Train on vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For vectors with NaN or infinity, fewer vectors than components and one more, more components than
            dimensions, and a learning rate at which the training diverges.
        """
        rows, dim = vectors.shape
        if self.n_components > min(rows - 1, dim):
            raise CompatibilityError(
                f"reducer {self.NAME!r} cannot make {self.n_components} components of {rows} vectors with {dim} "
                f"dimensions: n_components may be at most {max(0, min(rows - 1, dim))}"
            )
        require_finite(f"reducer {self.NAME!r}", "vector", vectors)
        self.vectors_ = Standard.of(vectors)
        with learning():
            data = on_device(self.vectors_.to_units(vectors), self.device)
            generator = torch.Generator().manual_seed(self.seed)
            hidden, n_codes = self.network_options.hidden, self.n_components
            self.encoder_ = perceptron([dim, *hidden, self.OUTPUTS * self.n_components], generator).to(self.device)
            self.decoder_ = perceptron([self.n_components, *hidden[::-1], dim], generator).to(self.device)
            training = train(
                f"reducer {self.NAME!r}",
                nn.ModuleList([self.encoder_, self.decoder_]),
                self.objective,
                [data],
                self.network_options,
                seed=self.seed,
                device=self.device,
            )
            report = training.report(
                data, lambda rows: self.decoder_(self.encoder_(data[rows].to(self.device))[:, :n_codes])
            )
        codes = apply(self.encoder_, data.cpu().numpy(), self.device)[:, :n_codes]
        self.codes_ = self.standard_of(codes)
        self._announce(f"reducer {self.NAME!r}: {report}{self.remark(codes)}")
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of any vectors of shape (n, dim)."""
        codes = apply(self.encoder_, self.vectors_.to_units(vectors), self.device)
        return self.codes_.to_units(codes[:, : self.n_components])

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, then transform the same vectors."""
        return self.fit(vectors).transform(vectors)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors of shape (n, dim), float32, that the decoder makes of coordinates of shape (n, n_components)."""
        codes = self.codes_.from_units(coordinates)
        return self.vectors_.from_units(apply(self.decoder_, codes, self.device))

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The weights of both networks, and the standards of vectors and codes, by name."""
        return {
            "vectors.mean": self.vectors_.mean,
            "vectors.scale": self.vectors_.scale,
            "codes.mean": self.codes_.mean,
            "codes.scale": self.codes_.scale,
            **weights_of(self.encoder_, "encoder"),
            **weights_of(self.decoder_, "decoder"),
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned."""
        arrays = {name: np.array(values, dtype=np.float32) for name, values in state.items()}
        self.vectors_ = Standard(arrays["vectors.mean"], arrays["vectors.scale"])
        self.codes_ = Standard(arrays["codes.mean"], arrays["codes.scale"])
        self.encoder_ = with_weights(arrays, "encoder", self.device)
        self.decoder_ = with_weights(arrays, "decoder", self.device)
