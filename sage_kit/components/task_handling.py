"""A kind of task in use: what it answers is checked, and what it raises is reported under its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sage_kit.errors import PluginError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sage_kit.components.messages import Floats
    from sage_kit.components.task_kinds import Alignment, Compared, EncodedTexts, LabelColumn, TaskKind, TaskKindSpec
    from sage_kit.components.task_specs import TaskSpec


class TaskHandling:
    """A kind of task in use.

    Parameters
    ----------
    spec : TaskKindSpec
    build : callable
        Builds the kind, when it is first asked.
    call : callable
        ``call(function, *arguments)`` calls one of its functions, as `Plugins.call` does.

    Attributes
    ----------
    spec : TaskKindSpec
    """

    def __init__(self, spec: TaskKindSpec, build: Callable[[], TaskKind], call: Callable[..., Any]) -> None:
        self.spec = spec
        self._build = build
        self._call = call

    @cached_property
    def _kind(self) -> Any:
        return self._build()

    def __str__(self) -> str:
        return f"task kind {self.spec.name!r}"

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """The labels of a column (see :class:`~sage_kit.components.ReadsLabels`)."""
        found: NDArray[Any] = self._call(self._kind.read, column)
        if len(found) != len(column.values):
            raise PluginError(f"{self} read {len(found)} labels of {len(column.values)} values")
        return found

    def find_names(self, column: LabelColumn) -> tuple[str, ...]:
        """The names of the labels in a column."""
        return tuple(self._call(self._kind.find_names, column))

    def align(self, encoded: EncodedTexts) -> Alignment:
        """How the labels of a split and the outputs align with its tokens; the shapes are checked."""
        found: Alignment = self._call(self._kind.align, encoded)
        total, sequences = int(encoded.tokens.offsets[-1]), len(encoded.row_of)
        expected = total if found.flat else sequences
        if len(found.targets) != expected:
            raise PluginError(f"{self} aligned {len(found.targets)} targets with {expected} places")
        if (found.positions is None) == self.spec.per_token:
            raise PluginError(f"{self} says where outputs count if and only if there is one per token")
        for name in ("positions", "kept"):
            flags = getattr(found, name)
            if flags is not None and (flags.shape != (total,) or flags.dtype != bool):
                raise PluginError(
                    f"{self} gave {name} of {flags.dtype} and shape {flags.shape}, not bool of ({total},)"
                )
        return found

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None = None) -> Compared:
        """A model's outputs on a batch as losses compare them."""
        found: Compared = self._call(self._kind.compared, logits, positions)
        return found

    def answers(self, compared: Compared) -> torch.Tensor:
        """The hard labels that outputs stand for."""
        found: torch.Tensor = self._call(self._kind.answers, compared)
        return found

    def gold(self, encoded: EncodedTexts) -> Any:
        """The labels as metrics take them, for each row of the data."""
        return self._call(self._kind.gold, encoded)

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> Any:
        """What metrics score, for each row of the data."""
        return self._call(self._kind.predictions, outputs, encoded, alignment)

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """How far student and teacher agree on each row of the data, of shape (rows,)."""
        found: NDArray[Any] = self._call(self._kind.agreement, student, teacher, encoded, alignment)
        if found.shape != (len(encoded.labels),):
            raise PluginError(f"{self} gave an agreement of shape {found.shape} for {len(encoded.labels)} rows")
        return found


def handling_of(spec: TaskSpec) -> TaskHandling:
    """The kind of task in use: what the look-up of the task has found, or that of a spec that somebody made.

    Raises
    ------
    SageError
        As `Plugins.build` does.
    """
    if spec.handling is not None:
        return spec.handling
    from sage_kit.components.plugins import Plugins

    return Plugins.in_use().handling(spec.kind_name)
