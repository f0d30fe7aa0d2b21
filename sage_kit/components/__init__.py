"""What a plugin contributes: one frozen spec per component, and the protocol that the spec's factory must satisfy.

Every spec has the same head (`name`, `summary`, `factory`, `options`, `requires`) and then the capabilities of its
kind. The core asks the capabilities; it never tries and catches. Every factory is called as
``factory(options, context)``, where `options` is an instance of the spec's options class and `context` a
:class:`BuildContext`.

This module is light: numpy and torch appear in annotations only.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from sage_kit.storage.frozen import freeze

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sage_kit.components.records import RoundResult
    from sage_kit.config import RunConfig

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]


class Options(BaseModel):
    """Base of every component's options: immutable, and unknown names are errors.

    Give each field a default, a constraint and a description with its unit; they are checked and shown for you.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def model_post_init(self, context: Any) -> None:
        """Freeze the lists and tables among the values."""
        for values in (self.__dict__, self.__pydantic_extra__ or {}):
            values.update({name: freeze(value) for name, value in values.items()})


@dataclass(frozen=True)
class BuildContext:
    """What a factory may know about the run it builds for.

    Attributes
    ----------
    config : RunConfig
        The run's settings, read-only.
    seed : int
        The seed this component must draw all its randomness from.
    device : str
        Torch device of the run, for components that compute in torch ("cpu", "cuda:0").
    n_components : int
        Dimensions of the map (reducers).
    announce : callable
        Shows one line of text to the user.
    component : callable
        ``component(kind, name, options, **changes)`` builds another component in the same context, e.g. an inverter's
        base; `changes` replaces fields of the context, e.g. ``n_components=50`` for the first step of a chain.
    cached : callable
        ``cached(name, parts, compute)`` returns what ``compute()`` gives, a dictionary of arrays: from the cache, if
        the same component computed it before for the same `parts` (text, numbers, arrays). Options, seed, version and
        source of the component count by themselves. Where a run has no cache, it computes.
    """

    config: RunConfig
    seed: int = 0
    device: str = "cpu"
    n_components: int = 2
    announce: Callable[[str], None] = lambda text: None
    component: Callable[..., Any] = lambda kind, name, options, **changes: None
    cached: Callable[[str, Sequence[Any], Callable[[], Mapping[str, NDArray[Any]]]], dict[str, NDArray[Any]]] = (
        lambda name, parts, compute: dict(compute())
    )


Factory = Callable[[Any, BuildContext], Any]


def lazy(target: str) -> Factory:
    """A factory that imports ``"package.module:Class"`` when it is first called, so that discovery stays light.

    The class is called as ``Class(options, context)``.

    Raises
    ------
    ValueError
        When `target` is not of that form.
    """
    if not re.fullmatch(r"[\w.]+:\w+", target):
        raise ValueError(f"lazy({target!r}): expected 'package.module:Class'")

    def factory(options: Any, context: BuildContext) -> Any:
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)(options, context)

    factory.__name__ = factory.__qualname__ = target
    return factory


# ---- the specs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """The head that every component's spec shares.

    Attributes
    ----------
    name : str
        How the configuration names it: lower case letters, digits and underscores, a letter first.
    summary : str
        One line for listings.
    factory : callable
        ``factory(options, context)`` returns the component.
    options : type of Options
        The class that checks the component's options.
    requires : tuple of str
        Requirement strings of packages that must be installed, e.g. ``("openTSNE>=1.0",)``.
    install : str
        The command that installs what `requires` names; shown when a package is missing.
    """

    kind: ClassVar[str] = "component"

    name: str
    summary: str
    factory: Factory
    options: type[Options] = Options
    requires: tuple[str, ...] = ()
    install: str = ""

    def capabilities(self) -> dict[str, Any]:
        """The fields of the kind beyond the shared head, for listings."""
        head = ComponentSpec.__dataclass_fields__
        return {f: getattr(self, f) for f in self.__dataclass_fields__ if f not in head}


@dataclass(frozen=True, kw_only=True)
class ReducerSpec(ComponentSpec):
    """A reducer: pooled vectors to coordinates, in the manner of scikit-learn (see :class:`Reducer`).

    Attributes
    ----------
    has_transform : bool
        It can place vectors it was not fitted on.
    has_inverse : bool
        It has an ``inverse_transform`` of its own.
    max_components : int or None
        The most dimensions it takes; None for no limit of its own.
    min_rows : callable or None
        ``min_rows(options, n_components)`` gives the fewest rows it can be fitted on; None for ``n_components + 1``.
    uses_gpu : bool
        It computes on ``context.device``.
    repeatable : bool
        The same seed and input give the same coordinates.
    has_state : bool
        It has ``get_state`` and ``set_state`` (see :class:`StatefulReducer`), so a fitted map is stored, not refitted.
    needs_labels : bool
        It is called as ``fit_transform(vectors, labels)`` (see :class:`SupervisedReducer`).
    inverse_min_components : int
        The fewest dimensions that its ``inverse_transform`` takes.
    refine : callable or None
        For a reducer whose capabilities depend on its options: ``refine(options, spec_of)`` returns the capabilities
        that these options give, by field name; ``spec_of(name, options)`` is the refined spec of another reducer.
    """

    kind: ClassVar[str] = "reducer"

    has_transform: bool = False
    has_inverse: bool = False
    max_components: int | None = None
    min_rows: Callable[[Any, int], int] | None = None
    uses_gpu: bool = False
    repeatable: bool = True
    has_state: bool = False
    needs_labels: bool = False
    inverse_min_components: int = 1
    refine: Callable[[Any, Callable[[str, Mapping[str, Any]], ReducerSpec]], Mapping[str, Any]] | None = None

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        caps = super().capabilities()
        caps.pop("min_rows")
        return {"by_options": True} if caps.pop("refine") else caps


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(ComponentSpec):
    """A sampler: chooses anchors and new points near them.

    Attributes
    ----------
    space : "map" or "full"
        Whether it returns coordinates in the map or, bypassing the reducer and the inverter, vectors in full space.
    min_rows : callable or None
        ``min_rows(options)`` gives the fewest real examples it can work with; None for one.
    needs_classes : bool
        It cannot work on a regression task.
    needs_gradient : bool
        It calls ``request.divergence_gradient``.
    needs_hidden : bool
        It calls ``request.student_hidden``.
    gives_shares : bool
        Its samples say how far each lies on the way to a partner (``Samples.shares``).
    anchors_alone : bool
        Without a map (``request.coordinates is None``) it returns anchors and nothing else, so that a run whose lift
        and filter look at no synthetic vector needs neither reducer nor inverter.
    needs_losses : bool
        It looks at what the student has learned: losses, its outputs, gradients or hidden states. One that does not is
        asked from round one on, before the student was trained.
    """

    kind: ClassVar[str] = "sampler"

    space: Literal["map", "full"] = "map"
    min_rows: Callable[[Any], int] | None = None
    needs_classes: bool = False
    needs_gradient: bool = False
    needs_hidden: bool = False
    gives_shares: bool = False
    anchors_alone: bool = False
    needs_losses: bool = True

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        caps = super().capabilities()
        caps.pop("min_rows")
        return caps


@dataclass(frozen=True, kw_only=True)
class InverterSpec(ComponentSpec):
    """An inverter: coordinates back to pooled vectors.

    Attributes
    ----------
    needs_inverse : bool
        It calls the reducer's own ``inverse_transform``.
    base_option : str
        The option that names another inverter it is built over, or "" when it stands alone.
    """

    kind: ClassVar[str] = "inverter"

    needs_inverse: bool = False
    base_option: str = ""


@dataclass(frozen=True, kw_only=True)
class LiftSpec(ComponentSpec):
    """A lift: a synthetic pooled vector and its anchor's token states to synthetic token states.

    Attributes
    ----------
    needs_shares : bool
        It goes by ``request.shares``, so it takes samplers that give them only.
    uses_vectors : bool
        It looks at the synthetic vectors or at the neighbours that the sampler names. One that does not needs no map.
    makes_text : bool
        What it returns is text, ``request.embed`` of token ids, so that every synthetic example can be read.
    refine : callable or None
        For a lift whose capabilities depend on its options: ``refine(options)`` returns the capabilities that these
        options give, by field name.
    """

    kind: ClassVar[str] = "lift"

    needs_shares: bool = False
    uses_vectors: bool = True
    makes_text: bool = False
    refine: Callable[[Any], Mapping[str, Any]] | None = None

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        caps = super().capabilities()
        return {"by_options": True} if caps.pop("refine") else caps


@dataclass(frozen=True, kw_only=True)
class FilterSpec(ComponentSpec):
    """A filter: keeps or drops synthetic examples.

    Attributes
    ----------
    needs_labels : bool
        It looks at the teacher's logits of the synthetic examples, so it runs after labelling instead of before.
    needs_classes : bool
        It cannot work on a regression task.
    uses_vectors : bool
        It looks at the synthetic vectors or their coordinates. One that does not needs no map.
    needs_student : bool
        It looks at ``request.student_logits``, for which the student reads every synthetic example; needs labels too.
    surplus : callable or None
        ``surplus(options)`` gives how many times as many synthetic examples are to be made as the settings ask for, of
        which the filter keeps the others; None for one.
    """

    kind: ClassVar[str] = "filter"

    needs_labels: bool = False
    needs_classes: bool = False
    uses_vectors: bool = True
    needs_student: bool = False
    surplus: Callable[[Any], int] | None = None

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        return {**super().capabilities(), "surplus": self.surplus is not None}


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(ComponentSpec):
    """A decoder: synthetic token states to text.

    Attributes
    ----------
    has_guesses : bool
        It has ``guess(batch, k)``: the k likeliest tokens at each position with their scores (see :class:`Guesser`).
    """

    kind: ClassVar[str] = "decoder"

    has_guesses: bool = False


@dataclass(frozen=True, kw_only=True)
class StopRuleSpec(ComponentSpec):
    """A stop rule: looks at the rounds so far and may end the run."""

    kind: ClassVar[str] = "stop_rule"


@dataclass(frozen=True, kw_only=True)
class ObserverSpec(ComponentSpec):
    """An observer: its object implements any of the observing hooks (``sage_run_started``, ...)."""

    kind: ClassVar[str] = "observer"


@dataclass(frozen=True)
class HubSource:
    """Where a task lies on the Hugging Face hub: repository, configuration and revision."""

    repository: str
    configuration: str = ""
    revision: str = "main"


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A labelled task: which columns hold text and label, how it is scored, and where its splits come from.

    Attributes
    ----------
    name, summary : str
        As in every spec.
    text_columns : tuple of one or two str
        Columns of the text, or of the two texts of a pair.
    label_column : str
        Column of the label: an integer index into `labels`, one of their names, or a number for regression.
    labels : tuple of str
        Class names in the order of their indices, as in the hub's data set; empty for regression.
    label_range : tuple of two float
        Smallest and largest label of a regression task.
    metrics : tuple of str
        Names from :data:`sage_kit.data.metrics.METRICS`; the first is the primary one.
    local : str
        Folder below ``data_dir`` that holds ``<split>.parquet``; "" when the task has no local form.
    hub : HubSource or None
        The hub's data set.
    loader : callable or None
        ``loader(config)`` returns ``{split name: {column: list}}`` for tasks that come from a package or a file.
    train_split : str
        Name of the training split.
    validation_splits : tuple of str
        Names of the official validation splits, used for reporting only.
    may_be_half_empty : bool
        One text of a pair may be empty, as in a few rows of QQP.
    requires, install : as in :class:`ComponentSpec`
    """

    kind: ClassVar[str] = "task"

    name: str
    summary: str
    text_columns: tuple[str, ...]
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    label_range: tuple[float, float] = (0.0, 1.0)
    metrics: tuple[str, ...] = ("accuracy",)
    local: str = ""
    hub: HubSource | None = None
    loader: Callable[[RunConfig], Mapping[str, Mapping[str, Sequence[Any]]]] | None = None
    train_split: str = "train"
    validation_splits: tuple[str, ...] = ("validation",)
    may_be_half_empty: bool = False
    requires: tuple[str, ...] = ()
    install: str = ""

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number rather than a class."""
        return not self.labels

    @property
    def n_outputs(self) -> int:
        """Width of the model's output layer."""
        return max(1, len(self.labels))

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        sources = {"local": bool(self.local), "hub": self.hub is not None, "package": self.loader is not None}
        return {
            "texts": len(self.text_columns),
            "labels": list(self.labels),
            "metrics": list(self.metrics),
            "sources": [name for name, there in sources.items() if there],
        }


# ---- what the components pass around --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBatch:
    """Token states of some examples, padded to the longest.

    Attributes
    ----------
    states : Tensor of shape (batch, tokens, dim)
        Input-layer output; padding positions are zero.
    mask : Tensor of shape (batch, tokens), bool
        True at real tokens.
    text : TextBatch or None
        The text that these are the token states of, where they are those of text.
    """

    states: torch.Tensor
    mask: torch.Tensor
    text: TextBatch | None = None


@dataclass(frozen=True)
class TextBatch:
    """Some texts, or pairs of texts, as token ids, padded to the longest. All of shape (batch, tokens).

    Attributes
    ----------
    ids : Tensor, int64
        Token ids; the padding's at padding positions.
    types : Tensor, int64
        Token type ids, all 0 where the tokenizer has none.
    mask : Tensor, bool
        True at real tokens.
    special : Tensor, bool
        True at the tokens that the tokenizer adds around and between texts.
    second : Tensor, bool
        True at the tokens of the second text of a pair.
    """

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    special: torch.Tensor
    second: torch.Tensor

    @property
    def words(self) -> torch.Tensor:
        """True at the tokens of the texts themselves: real ones that are not special."""
        return self.mask & ~self.special


@dataclass(frozen=True)
class TokenIds:
    """Text as the teacher reads it: token ids, flat, one example after the other.

    Attributes
    ----------
    ids : array of shape (total_tokens,), int32
    types : array of shape (total_tokens,), uint8
        Token type ids, all 0 where the tokenizer has none.
    offsets : array of shape (n + 1,), int64
        Example i has the rows ``offsets[i]`` to ``offsets[i + 1]``.
    special : array of shape (total_tokens,), bool
        True at the tokens that the tokenizer adds around and between texts.
    second : array of shape (total_tokens,), bool
        True at the tokens of the second text of a pair.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    offsets: Integers
    special: NDArray[np.bool_]
    second: NDArray[np.bool_]


@dataclass(frozen=True)
class SampleRequest:
    """What a sampler chooses from. Arrays are read-only and aligned with the real examples.

    Attributes
    ----------
    count : int
        How many synthetic examples to return.
    losses : array of shape (n,), float32
        Per-instance student-teacher loss of the latest pass; NaN before the first, where the spec says `needs_losses`
        is false.
    rng : numpy Generator
        Source of all randomness; a fresh one, derived from the seed and the round, at every call.
    coordinates : array of shape (n, n_components), float32, or None
        The map; None for samplers whose space is "full", and where nothing else needs a map (`anchors_alone`).
    vectors : array of shape (n, dim), float32
        Pooled vectors.
    teacher_logits, student_logits : array of shape (n, n_outputs), float32
        Outputs on the real examples; the student's are of the same pass as the losses.
    round : int
        Number of the round that will train on the result, from 1.
    divergence_gradient : callable or None
        ``divergence_gradient(indices)`` gives, of shape (m, dim), float32, the gradient of each example's divergence of
        student from teacher by a rigid shift of its token states; None unless the spec says `needs_gradient`.
    labels : array of shape (n,), int64 or float32, or None
        Gold labels: class indices, or numbers for regression.
    loss_history : array of shape (rounds, n), float32, or None
        The losses of every round so far, the latest last, which is `losses`; NaN for an example not seen by then.
    tokens : TokenIds or None
        Token ids of the real examples.
    student_hidden : callable or None
        ``student_hidden(indices)`` gives, of shape (m, student_layers, dim), float32, the mean over an example's tokens
        of what each block of the student puts out, dropout off; None unless the spec says `needs_hidden`.
    """

    count: int
    losses: Floats
    rng: np.random.Generator
    vectors: Floats
    teacher_logits: Floats
    student_logits: Floats
    coordinates: Floats | None = None
    round: int = 1
    divergence_gradient: Callable[[Integers], Floats] | None = None
    labels: NDArray[Any] | None = None
    loss_history: Floats | None = None
    tokens: TokenIds | None = None
    student_hidden: Callable[[Integers], Floats] | None = None


@dataclass(frozen=True)
class Samples:
    """What a sampler returns: `count` anchors, and for each a new point.

    Attributes
    ----------
    anchors : array of shape (count,), int64
        Real examples that synthesis starts from.
    coordinates : array of shape (count, n_components), float32, or None
        New points of the map, from samplers whose space is "map" where there is one.
    vectors : array of shape (count, dim), float32, or None
        New pooled vectors, from samplers whose space is "full".
    neighbors : array of shape (count, k), int64, or None
        The real examples each new point was drawn between, when the sampler has such.
    shares : array of shape (count,), float32, or None
        How far each new point lies on the way from its anchor, 0, to its partner ``neighbors[:, 0]``, 1.
    """

    anchors: Integers
    coordinates: Floats | None = None
    vectors: Floats | None = None
    neighbors: Integers | None = None
    shares: Floats | None = None


@dataclass(frozen=True)
class LiftRequest:
    """What a lift turns into token states. All tensors are on the run's device.

    Attributes
    ----------
    anchor : TokenBatch
        The anchors' token states, one row per synthetic example; not to be changed in place.
    vectors : Tensor of shape (batch, dim)
        The synthetic pooled vectors; where no map was needed, the anchors' own.
    displacement : Tensor of shape (batch, dim)
        Synthetic minus anchor's pooled vector.
    anchors : array of shape (batch,), int64
        The anchors' indices among the real examples.
    neighbors : array of shape (batch, k), int64, or None
        As the sampler returned them.
    states : callable
        ``states(indices)`` gives the token states of any real examples as a TokenBatch.
    generator : torch Generator
        Source of all randomness, on the CPU, seeded for this batch: the same batch lifted twice must come out the same.
    n_real : int
        How many real examples there are.
    shares : array of shape (batch,), float32, or None
        As the sampler returned them; an array for lifts whose spec says `needs_shares`.
    text : TextBatch or None
        The anchors' text; None with ``granularity="pooled"``, whose examples are one vector each.
    embed : callable or None
        ``embed(text)`` runs the input layers on a TextBatch and returns its TokenBatch: each token gets the position
        and the type of its place, and behind encoder blocks its context. What stands at padding does not count.
    embed_alone : callable or None
        ``embed_alone(text)`` gives, of shape (batch, tokens, dim), what the embeddings alone make of each token at its
        place, without any block: what `embed` gives at ``bypass="embeddings"``.
    tokens : TokenIds or None
        Token ids of the real examples, read-only.
    teacher_logits : array of shape (n, n_outputs), float32, or None
        The teacher's outputs on the real examples, read-only.
    vocabulary : Vocabulary or None
        Tokens that are alike, and proposals of a language model.
    """

    anchor: TokenBatch
    vectors: torch.Tensor
    displacement: torch.Tensor
    anchors: Integers
    neighbors: Integers | None
    states: Callable[[Integers], TokenBatch]
    generator: torch.Generator
    n_real: int
    shares: Floats | None = None
    text: TextBatch | None = None
    embed: Callable[[TextBatch], TokenBatch] | None = None
    embed_alone: Callable[[TextBatch], torch.Tensor] | None = None
    tokens: TokenIds | None = None
    teacher_logits: Floats | None = None
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True)
class FilterRequest:
    """What a filter judges. Arrays are read-only.

    Attributes
    ----------
    vectors : array of shape (m, dim), float32
        Synthetic pooled vectors.
    anchors : array of shape (m,), int64
        Their anchors.
    coordinates : array of shape (m, n_components), float32, or None
        Their place in the map.
    real_vectors : array of shape (n, dim), float32
        Pooled vectors of the real examples.
    real_logits : array of shape (n, n_outputs), float32
        The teacher's logits of the real examples.
    logits : array of shape (m, n_outputs), float32, or None
        The teacher's logits of the synthetic examples; None unless the spec says `needs_labels`.
    real_labels : array of shape (n,), int64 or float32, or None
        Gold labels of the real examples: class indices, or numbers for regression.
    loss_history : array of shape (rounds, n), float32, or None
        Losses of the real examples in every round so far, the latest last; NaN for an example not seen by then.
    tokens : TokenIds or None
        Token ids of the real examples.
    round : int
        Number of the round that will train on what is kept, from 1.
    wanted : int
        How many examples the settings ask for; there are `surplus` times as many.
    student_logits : array of shape (m, n_outputs), float32, or None
        The student's outputs on the synthetic examples, dropout off; None unless the spec says `needs_student`.
    """

    vectors: Floats
    anchors: Integers
    coordinates: Floats | None
    real_vectors: Floats
    real_logits: Floats
    logits: Floats | None = None
    real_labels: NDArray[Any] | None = None
    loss_history: Floats | None = None
    tokens: TokenIds | None = None
    round: int = 1
    wanted: int = 0
    student_logits: Floats | None = None


@dataclass(frozen=True)
class TokenText(TokenIds):
    """Token ids of real text and their input-layer output.

    Attributes
    ----------
    ids, types, offsets
        As in :class:`TokenIds`.
    states : array of shape (total_tokens, dim), float32 or float16
        Token states; may be a memory map.
    """

    states: NDArray[Any]


@dataclass(frozen=True)
class TeacherView:
    """What a decoder may use of the teacher. Modules are frozen and in evaluation mode.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    input_layers : callable
        ``input_layers(input_ids, token_type_ids, mask)``, each of shape (batch, tokens), gives token states of shape
        (batch, tokens, dim).
    masked_lm : callable
        ``masked_lm()`` loads the teacher's checkpoint with its masked-language-model head and returns a function of
        ``(states, mask)`` that gives logits of shape (batch, tokens, vocabulary). It raises CompatibilityError when the
        checkpoint has no such head.
    bypass : "embeddings" or int
        Where the input layers end.
    n_types : int
        Token types that the input layers know, at least 1.
    fingerprint : str
        Of the teacher's weights and the bypass.
    device : str
        Torch device of the modules.
    train, held_out : TokenText
        Real text: to learn from, and to be scored on.
    """

    tokenizer: Any
    input_layers: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    masked_lm: Callable[[], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
    bypass: str | int
    n_types: int
    fingerprint: str
    device: str
    train: TokenText
    held_out: TokenText


@dataclass(frozen=True)
class Guesses:
    """The likeliest tokens at each position of a batch.

    Attributes
    ----------
    ids : array of shape (batch, tokens, k), int64
        Token ids, the best first; what stands at padding positions is arbitrary.
    scores : array of shape (batch, tokens, k), float32
        Their scores, in the decoder's unit, falling along the last axis.
    """

    ids: Integers
    scores: Floats

    @property
    def margin(self) -> Floats:
        """Score of the best less that of the second best, of shape (batch, tokens); needs k of at least 2."""
        return self.scores[..., 0] - self.scores[..., 1]


# ---- the protocols --------------------------------------------------------------------------------------------------


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
        """The k tokens nearest to each, by cosine in the teacher's embedding table: int64 of shape (*ids.shape, k).

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


PROTOCOLS: Mapping[str, type] = {
    "reducer": Reducer,
    "sampler": Sampler,
    "inverter": Inverter,
    "lift": Lift,
    "filter": Filter,
    "decoder": Decoder,
    "stop_rule": StopRule,
}
"""The protocol that a factory's result must satisfy, by kind; observers implement hooks instead."""
