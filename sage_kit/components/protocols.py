"""The protocol that a factory's result must satisfy, by kind of component.

This module is light: numpy and torch appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sage_kit.components.task_kinds import TaskKind

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sage_kit.components.loss_messages import LossBatch
    from sage_kit.components.messages import (
        FilterRequest,
        Floats,
        Guesses,
        Integers,
        LiftRequest,
        SampleRequest,
        Samples,
        TeacherView,
        TextBatch,
        TokenBatch,
    )
    from sage_kit.components.records import RoundResult


@runtime_checkable
class Reducer(Protocol):
    """Pooled vectors of shape (n, dim), float32, to coordinates of shape (n, n_components). Input is never changed.

    A reducer whose spec says so has two more methods: ``transform(vectors) -> coordinates`` for vectors it was not
    fitted on (`has_transform`), and ``inverse_transform(coordinates) -> vectors`` (`has_inverse`).
    """

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit on `vectors` and return their coordinates."""
        ...


@runtime_checkable
class SupervisedReducer(Protocol):
    """A reducer that learns from the labels too; its spec says `needs_labels`."""

    def fit_transform(self, vectors: Floats, labels: NDArray[Any]) -> Floats:
        """Fit on `vectors` and gold labels of shape (n,), and return coordinates of shape (n, n_components)."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A component whose state is a dictionary of arrays, so that it can be stored without pickling.

    A sampler, filter or stop rule that carries something from round to round has both methods: its state is kept in
    each checkpoint and given to the new instance when the run is resumed.
    """

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Arrays of numbers by name; a single number is an array without dimensions."""
        ...

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned, of this or another instance of the same options."""
        ...


@runtime_checkable
class StatefulReducer(Reducer, Stateful, Protocol):
    """A reducer whose fitted map is stored: after ``set_state`` it behaves as if fitted."""


@runtime_checkable
class Sampler(Protocol):
    """Chooses anchors and new points near them."""

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples."""
        ...


@runtime_checkable
class Inverter(Protocol):
    """Coordinates back to pooled vectors."""

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> Inverter:
        """Learn from the real examples' coordinates (n, n_components) and vectors (n, dim); return self.

        `reducer` is the fitted reducer if the spec says `needs_inverse`, else None.
        """
        ...

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32, for coordinates of shape (m, n_components) near `anchors` (m,)."""
        ...


class Vocabulary(Protocol):
    """What a lift may ask about tokens. Special and unused tokens are never among the answers."""

    def nearest(self, ids: torch.Tensor, k: int) -> torch.Tensor:
        """The k tokens nearest to each, by cosine in the teacher's embedding table: int64 of shape ``(*ids.shape, k)``.

        -1 where there are fewer.
        """
        ...

    def between(self, first: torch.Tensor, second: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The token nearest to the point that lies so far on the way from a token's embedding to another's.

        Not the first itself; -1 where there is none. All of one shape.
        """
        ...

    def likely(self, text: TextBatch, places: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What a masked language model would put at places, bool of shape (batch, tokens), all of which are masked.

        Returns
        -------
        ids : Tensor of shape (n, k), int64
            For the n places, row by row, the likeliest tokens; -1 where there are fewer.
        log_probabilities : Tensor of shape (n, k)
        """
        ...


@runtime_checkable
class Lift(Protocol):
    """A synthetic pooled vector and its anchor's token states to synthetic token states."""

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states, one row per row of the request; lengths may differ from the anchors'."""
        ...


@runtime_checkable
class Filter(Protocol):
    """Keeps or drops synthetic examples."""

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep."""
        ...


@runtime_checkable
class Loss(Protocol):
    """What the student is trained by.

    A loss that is a ``torch.nn.Module`` may own parameters: they are trained with the student, kept in checkpoints and
    given back when the run is resumed, and not exported.
    """

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """Return one value for each example, of shape (batch,), float32, through which gradients reach the student."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """Synthetic token states to text."""

    def fit(self, teacher: TeacherView) -> Decoder:
        """Take from the teacher, and learn from its real text, what decoding needs; return self."""
        ...

    def decode(self, batch: TokenBatch) -> list[str]:
        """Return one text per row."""
        ...


@runtime_checkable
class Guesser(Decoder, Protocol):
    """A decoder that says how sure it is of each token."""

    def guess(self, batch: TokenBatch, k: int) -> Guesses:
        """Return the k likeliest tokens at each position."""
        ...


@runtime_checkable
class StopRule(Protocol):
    """May end the run after a round."""

    def reason_to_stop(self, history: Sequence[RoundResult]) -> str | None:
        """Return why to stop after the last round of `history`, or None to go on."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Scores predictions.

    One that studies can give intervals over examples for has a second method, ``contributions(labels, predictions)``:
    what each example contributes to the score, an array of shape (n,), float64, whose mean is the score (see
    `sage_kit.studies.statistics.cells`).
    """

    def score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        """Return the score of predictions; NaN if there is none.

        Of classes, int64, and numbers both are of shape (n,); `sage_kit.components.specs.LABEL_KINDS` says what they
        are for other kinds of label.
        """
        ...


@runtime_checkable
class Family(Protocol):
    """How the blocks of a family of encoders compute that are not built as BERT's; one object serves all its models.

    `model` is the stock model with any head, `block` one of its blocks. What carries gradients must be computed at each
    call, since a teacher's fine-tuning trains all weights. A method ``flops(block, lengths) -> int`` may say what a
    block costs for examples of these lengths; without it, its linear layers and the attention's two products count.
    """

    def surroundings(self, model: Any, states: torch.Tensor, mask: torch.Tensor | None) -> Any:
        """What all blocks need of a padded batch beside its states, such as masks and tables of positions.

        `states` of shape (batch, tokens, dim) enter the first block that is computed; `mask` of shape (batch, tokens)
        is True at real tokens, and None where nothing is padded.
        """
        ...

    def block(self, block: Any, states: torch.Tensor, surroundings: Any) -> torch.Tensor:
        """Return a block's output, of the shape of `states`; what stands at padding has no meaning."""
        ...

    def project(self, block: Any, states: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values that a block makes of `states`, of shape (batch, tokens, 3, dim)."""
        ...


PROTOCOLS: Mapping[str, type] = {
    "reducer": Reducer,
    "sampler": Sampler,
    "inverter": Inverter,
    "lift": Lift,
    "filter": Filter,
    "loss": Loss,
    "decoder": Decoder,
    "metric": Metric,
    "stop_rule": StopRule,
    "family": Family,
    "task_kind": TaskKind,
}
"""The protocol that a factory's result must satisfy, by kind; observers implement hooks instead."""
