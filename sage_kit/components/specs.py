"""What a plugin contributes: one frozen spec per component.

Every spec has the same head (`name`, `summary`, `factory`, `options`, `requires`) and then the capabilities of its
kind. The core asks the capabilities; it never tries and catches. Every factory is called as
``factory(options, context)``, where `options` is an instance of the spec's options class and `context` a
`BuildContext`; what it returns satisfies the kind's protocol in :mod:`sage_kit.components.protocols`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from sage_kit.components.messages import BuildContext
from sage_kit.storage.frozen import freeze

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sage_kit.components.loss_messages import LossLayers, ModelSizes


class Options(BaseModel):
    """Base of every component's options: immutable, and unknown names are errors.

    Give each field a default, a constraint and a description with its unit; they are checked and shown for you.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def model_post_init(self, context: Any) -> None:
        """Freeze the lists and tables among the values."""
        for values in (self.__dict__, self.__pydantic_extra__ or {}):
            values.update({name: freeze(value) for name, value in values.items()})


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
        if getattr(self, "refine", None):
            return {"by_options": True}
        hidden = {*ComponentSpec.__dataclass_fields__, "min_rows", "refine"}
        return {f: getattr(self, f) for f in self.__dataclass_fields__ if f not in hidden}


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
    needs_outputs : bool
        It compares `teacher_logits` or `student_logits`, one class or number an example: of no other kind of task.
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
    needs_outputs: bool = False
    needs_losses: bool = True


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
class LossSpec(ComponentSpec):
    """A loss that the student is trained by: one value per example (see :class:`Loss`).

    Attributes
    ----------
    layers : callable or None
        ``layers(options, sizes)`` returns the :class:`LossLayers` that it looks at, given the :class:`ModelSizes`; None
        for logits alone. It raises CompatibilityError where the models do not fit the options.
    needs_embeddings : bool
        It looks at ``embeddings``, one vector per example.
    needs_labels : bool
        It looks at gold labels.
    needs_classes : bool
        It cannot work on a regression task.
    needs_tokens : bool
        It compares the tokens of an example with each other, of which ``granularity="pooled"`` leaves one.
    of_batch : bool
        It is a property of the whole batch: what it returns is each example's share, so that the mean over the batch is
        the loss. The value of an example then depends on what it was batched with.
    flops : callable or None
        ``flops(options, sizes, lengths)`` gives the FLOPs, multiplications and additions, that it adds to a training
        step on examples of these lengths, without what gives its inputs; None for next to none.
    """

    kind: ClassVar[str] = "loss"

    layers: Callable[[Any, ModelSizes], LossLayers] | None = None
    needs_embeddings: bool = False
    needs_labels: bool = False
    needs_classes: bool = False
    needs_tokens: bool = False
    of_batch: bool = False
    flops: Callable[[Any, ModelSizes, NDArray[np.integer]], int] | None = None

    @property
    def of_outputs(self) -> bool:
        """Whether it looks at logits and labels alone."""
        return self.layers is None and not self.needs_embeddings

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        found = {name: value for name, value in super().capabilities().items() if name != "flops"}
        return {**found, "layers": self.layers is not None}


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


LABEL_KINDS = ("classes", "numbers", "label_sets", "tags", "spans", "embeddings")
"""What a metric may score, n rows of one of these:

- "classes" and "numbers": labels and predictions of shape (n,), int64 indices or float32 numbers
- "label_sets": labels (n, C), int8, 1 for each of C labels that a row has; predictions (n, C), float32, the probability
  of each, of which 0.5 and more counts as predicted
- "tags": labels and predictions are lists of n tuples of str, a tag for each word
- "spans": labels are a list of n :class:`Answers`, predictions one of n str, "" for no answer
- "embeddings": labels (n,), float32, how alike the two texts of a row are, or None; predictions (n, 2, dim), float32,
  the embeddings of both
"""


@dataclass(frozen=True, kw_only=True)
class MetricSpec(ComponentSpec):
    """A metric: gold labels and predictions to a number.

    Attributes
    ----------
    takes : tuple of str
        Kinds of label that it is for, of `LABEL_KINDS`.
    max_classes : int or None
        The most classes that it can tell apart; None for any number.
    larger_is_better : bool
        False for an error or a distance.
    range : tuple of two float
        The smallest and the largest score.
    needs_labels : bool
        Whether it looks at labels, which embeddings may lack; it gets None in their place where it does not.
    """

    kind: ClassVar[str] = "metric"

    takes: tuple[str, ...] = ("classes",)
    max_classes: int | None = None
    larger_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    needs_labels: bool = True

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        low, high = self.range
        return {**super().capabilities(), "range": f"{low:g} to {high:g}"}
