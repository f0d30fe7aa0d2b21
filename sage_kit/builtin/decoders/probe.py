"""Decoder `probe`: a token classifier trained from token states of real text back to its ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sage_kit.builtin import networks
from sage_kit.builtin.decoders.token_decoder import TokenDecoder, require_candidates, to_guesses
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.decoders import ProbeOptions
    from sage_kit.components import BuildContext, Guesses, Integers, TeacherView, TokenBatch, TokenText

CHUNK = 2048
"""Token states that are classified at once."""
SHRINKAGE = 0.05
"""Share of the identity in the covariance within classes."""
LEAST_VARIANCE = 1e-6
"""Smallest variance within a class, as a share of that between classes."""
ODDS = 20.0
"""Logarithm of the odds between two classes at their typical distance when the training of a linear probe begins."""


class ProbeDecoder(TokenDecoder):
    """A classifier of single token states over the ids that occur in the training text; it cannot say any other.

    Trained by cross-entropy; a share of the training tokens decides when to stop. A linear one, the default, starts as
    the linear discriminants of the ids (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section
    4.3), so that rare ids are known from the first step on. Training is cached. It reads each state by itself and works
    at any bypass.

    Training holds `max_tokens` states, and weights, gradients and optimizer state of 16 bytes for each dimension and
    id: 74 MB for 12,000 ids of 384 dimensions.

    Parameters
    ----------
    options : ProbeOptions
    context : BuildContext
        Its `announce` is told how many tokens of the held-out text are found.

    Attributes
    ----------
    held_out_accuracy_ : float
        Share of the held-out text's tokens, special ones left out, that are found; NaN when it has none.
    held_out_known_ : float
        Share of these tokens whose ids occur in the training text: the most that could be found.
    """

    def __init__(self, options: ProbeOptions, context: BuildContext) -> None:
        self.options = options
        self.context = context

    def fit(self, teacher: TeacherView) -> ProbeDecoder:
        """Train the classifier, or find it in the cache; return self.

        Raises
        ------
        CompatibilityError
            When the training text has fewer than two different tokens, or training diverges.
        """
        self.tokenizer_ = teacher.tokenizer
        self._device = torch.device(teacher.device)
        train, held_out = teacher.train, teacher.held_out
        if len(np.unique(np.asarray(train.ids))) < 2:
            raise CompatibilityError("decoder 'probe' has nothing to tell apart: the training text has but one token")
        # the states follow from the teacher and the text; their precision is a setting
        texts = [part for text in (train, held_out) for part in (text.ids, text.types, text.offsets)]
        parts = [networks.FORMAT, teacher.fingerprint, str(train.states.dtype), *map(np.asarray, texts)]
        arrays = self.context.cached("decoder 'probe'", parts, lambda: self._trained(train, held_out))
        self._take(arrays)
        self.held_out_accuracy_, self.held_out_known_ = (float(share) for share in arrays["held_out"])
        self.context.announce(
            f"decoder 'probe': finds {self.held_out_accuracy_:.1%} of the tokens of held-out real text, special ones "
            f"left out; {1 - self.held_out_known_:.1%} of them do not occur in the training text"
        )
        return self

    def guess(self, batch: TokenBatch, k: int) -> Guesses:
        """The k likeliest tokens at each position, with the logarithms of their probabilities.

        Raises
        ------
        CompatibilityError
            When k is larger than the number of ids in the training text.
        """
        require_candidates("probe", k, len(self._ids))
        rows, tokens, dim = batch.states.shape
        scores = torch.zeros(rows * tokens, k)
        places = torch.zeros(rows * tokens, k, dtype=torch.int64)
        with torch.no_grad():
            for start, logits in self._logits(batch.states.reshape(-1, dim)):
                part = slice(start, start + CHUNK)
                scores[part], places[part] = logits.log_softmax(-1).topk(k, dim=-1)
        ids = torch.from_numpy(self._ids)[places]
        return to_guesses(ids.view(rows, tokens, k), scores.view(rows, tokens, k))

    def _logits(self, states: torch.Tensor) -> Any:
        """Start and logits, of shape (chunk, ids), of chunks of states of shape (n, dim)."""
        for start in range(0, len(states), CHUNK):
            part = states[start : start + CHUNK].to(self._device, torch.float32)
            yield start, self._network((part - self._mean) / self._scale)

    def _take(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Make the classifier from its arrays."""
        self._ids = np.array(arrays["ids"], dtype=np.int64)
        self._mean = torch.from_numpy(np.array(arrays["mean"])).to(self._device)
        self._scale = torch.from_numpy(np.array(arrays["scale"])).to(self._device)
        self._network = networks.with_weights(arrays, "layers", self._device)

    # ---- training

    def _trained(self, train: TokenText, held_out: TokenText) -> dict[str, NDArray[Any]]:
        """Ids, standard, weights, and the held-out text's accuracy and share of known tokens."""
        options, seed, device = self.options, self.context.seed, self._device
        chosen = self._chosen(np.asarray(train.ids))
        states = np.asarray(train.states[chosen], dtype=np.float32)
        networks.require_finite("decoder 'probe'", "token state", states)
        ids, classes = np.unique(np.asarray(train.ids)[chosen], return_inverse=True)
        classes = classes.reshape(-1).astype(np.int64)
        standard = networks.Standard.of(states)
        states = standard.to_units(states)
        network = networks.perceptron([states.shape[1], *options.hidden, len(ids)], torch.Generator().manual_seed(seed))
        if not options.hidden:
            _start_from_means(cast(nn.Linear, network[0]), states, classes, len(ids))
        network.to(device)

        def loss(rows: Any, generator: torch.Generator) -> torch.Tensor:
            # in chunks, since the held-out tokens come many at once and each has as many logits as there are ids
            pairs = zip(rows[0].split(CHUNK), rows[1].split(CHUNK), strict=True)
            return torch.stack([cross_entropy(network(x), y, reduction="sum") for x, y in pairs]).sum() / len(rows[0])

        tensors = [networks.on_device(states, device), torch.from_numpy(classes).to(device)]
        with networks.learning():
            networks.train("decoder 'probe'", network, loss, tensors, options, seed=seed, device=device)
        arrays: dict[str, NDArray[Any]] = {
            "ids": ids.astype(np.int64),
            "mean": standard.mean,
            "scale": np.atleast_1d(standard.scale),
            **networks.weights_of(network, "layers"),
        }
        self._take(arrays)
        return {**arrays, "held_out": np.array(self._score(held_out), dtype=np.float64)}

    def _chosen(self, ids: NDArray[np.int32]) -> Integers:
        """Places, in order, of the token states to learn from: one of each id, then any, up to the limit or more."""
        order = np.random.default_rng(self.context.seed).permutation(len(ids))
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids[order], return_index=True)[1]] = True
        ranked = np.concatenate([order[first], order[~first]])
        chosen: Integers = np.sort(ranked[: max(self.options.max_tokens, int(first.sum()))])
        return chosen

    def _score(self, text: TokenText) -> tuple[float, float]:
        """Shares of the text's tokens, special ones left out, that are found and that are known."""
        ids = np.asarray(text.ids, dtype=np.int64)
        counted = np.flatnonzero(~np.isin(ids, self.tokenizer_.all_special_ids))
        if not len(counted):
            return float("nan"), float("nan")
        states = torch.from_numpy(np.asarray(text.states[counted], dtype=np.float32))
        with torch.no_grad():
            found = torch.cat([logits.argmax(-1).cpu() for _, logits in self._logits(states)]).numpy()
        right = self._ids[found] == ids[counted]
        return float(right.mean()), float(np.isin(ids[counted], self._ids).mean())


def _start_from_means(layer: nn.Linear, states: NDArray[np.float32], classes: Integers, count: int) -> None:
    """Set a linear layer to the linear discriminants ``s (x - m_c / 2) . C^-1 m_c + log n_c``.

    m_c is the mean state and n_c the number of states of class c, and C the covariance within the classes, shrunk
    toward a multiple of the identity. The factor s is 1 or, if that is smaller, what gives two classes at their typical
    distance the log-odds `ODDS`: states that depend on little but their token hardly vary within a class, and the
    likelihood of any other state would then be beyond all measure.
    """
    dim = states.shape[1]
    sizes = np.bincount(classes, minlength=count)
    order = np.argsort(classes, kind="stable")
    sums = np.add.reduceat(states[order], np.cumsum(sizes) - sizes, axis=0, dtype=np.float64)
    means = sums / sizes[:, None]
    # products about zero, the states' mean; their difference is the one within the classes
    between = (means.T * sizes) @ means
    products = np.zeros((dim, dim))
    for start in range(0, len(states), CHUNK):
        part = states[start : start + CHUNK].astype(np.float64)
        products += part.T @ part
    covariance = (products - between) / max(1, len(states) - count)
    # where no class has two states there is nothing within them, and the identity alone remains
    ridge = SHRINKAGE * np.trace(covariance) + LEAST_VARIANCE * np.trace(between) / len(states)
    covariance = (1 - SHRINKAGE) * covariance + np.eye(dim) * ridge / dim
    directions = np.linalg.solve(covariance, means.T).T
    squares = (directions * means).sum(1)
    # half the squared distance of two classes is, on average, one mean's square
    odds = float((sizes * squares).sum()) / len(states)
    factor = min(1.0, ODDS / odds) if odds > 0 else 1.0
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(factor * directions))
        layer.bias.copy_(torch.from_numpy(np.log(sizes) - factor * squares / 2))
