"""What a plugin contributes as a task: its columns, labels, metrics and sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sage_kit.components.specs import Options

if TYPE_CHECKING:
    from sage_kit.components.task_handling import TaskHandling
    from sage_kit.config import RunConfig


@dataclass(frozen=True)
class HubSource:
    """Where a task lies on the Hugging Face hub: repository, configuration and revision."""

    repository: str
    configuration: str = ""
    revision: str = "main"


@dataclass(frozen=True)
class SplitSource:
    """Where a split of a task lies, where that is apart from the others, as for another language.

    Attributes
    ----------
    local : str
        Its file below ``data_dir``, without ``.parquet``; "" when it has no local form.
    hub : HubSource or None
        Its data set on the hub.
    split : str
        Its name there.
    columns : tuple of str
        The source's columns from which `arrange` makes those of the task; empty where they are the task's own.
    arrange : callable or None
        For a source of another shape: ``arrange(columns)`` gets a mapping of names to lists and returns the task's
        columns likewise, of one length; messages count its rows. Classes in a column of the label column's name come
        as names where the source names them.
    """

    local: str = ""
    hub: HubSource | None = None
    split: str = ""
    columns: tuple[str, ...] = ()
    arrange: Callable[[Mapping[str, Sequence[Any]]], Mapping[str, Sequence[Any]]] | None = None


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
        Column of the label: an integer index into `labels`, one of their names, or a number for regression; "" for
        embeddings without labels.
    task_kind : str
        What is asked of the rows: "" for a class of `labels`, or a number where there are none; "label_sets" for any
        number of the labels, "tags" for one of them at each word, "spans" for an answer from the second text to the
        question that is the first, "embeddings" for a vector of each of two texts, or a kind that a plugin contributes.
    labels : tuple of str
        Class names in the order of their indices, as in the hub's data set; empty for regression, spans and
        embeddings.
    labels_from_data : bool
        The classes are those that the training split names and holds, and `labels` is empty until it is read. Rows of
        other splits that are of none of them are left out, and told.
    label_range : tuple of two float
        Smallest and largest label of a regression task.
    unanswered : bool
        Of answers, whether the training split has questions without one; filled in by the core once it is read.
    metrics : tuple of str
        Names of metrics, those of plugins too; the first is the primary one.
    local : str
        Folder below ``data_dir`` that holds ``<split>.parquet``; "" when the task has no local form.
    hub : HubSource or None
        The hub's data set.
    sources : mapping of str to SplitSource
        The splits that lie elsewhere, by name.
    loader : callable or None
        ``loader(config)`` returns ``{split name: {column: list}}`` for tasks that come from a package or a file.
    train_split : str
        Name of the training split.
    validation_splits : tuple of str
        Names of the official validation splits, used for reporting only.
    may_be_half_empty : bool
        One text of a pair may be empty, as in a few rows of QQP.
    group_column : str
        Rows with the same value in this column, such as the turns of a dialogue, stay together when splits are made.
    options : type of Options
        The class that checks the setting `task_options`.
    refine : callable or None
        ``refine(options)`` returns the fields of the spec that these options give, by name.
    requires, install : as in :class:`ComponentSpec`
    measures : mapping of str to sage_kit.data.metrics.Measure
        The metrics that the settings or `metrics` name, built; filled in by the core once a task's data is loaded.
    handling : TaskHandling or None
        The kind in use; filled in by the core when it looks the task up.
    """

    kind: ClassVar[str] = "task"

    name: str
    summary: str
    text_columns: tuple[str, ...]
    label_column: str = "label"
    task_kind: str = ""
    labels: tuple[str, ...] = ()
    labels_from_data: bool = False
    label_range: tuple[float, float] = (0.0, 1.0)
    unanswered: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    local: str = ""
    hub: HubSource | None = None
    sources: Mapping[str, SplitSource] = field(default_factory=dict, hash=False)
    loader: Callable[[RunConfig], Mapping[str, Mapping[str, Sequence[Any]]]] | None = None
    train_split: str = "train"
    validation_splits: tuple[str, ...] = ("validation",)
    may_be_half_empty: bool = False
    group_column: str = ""
    options: type[Options] = Options
    refine: Callable[[Any], Mapping[str, Any]] | None = None
    requires: tuple[str, ...] = ()
    install: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    handling: TaskHandling | None = field(default=None, compare=False, repr=False)

    @property
    def kind_name(self) -> str:
        """The name of its kind of task."""
        return self.task_kind or ("classification" if self.labels or self.labels_from_data else "regression")

    @property
    def label_kind(self) -> str:
        """What its labels are, of `LABEL_KINDS`."""
        if self.handling is not None:
            return self.handling.spec.labels
        return {"classification": "classes", "regression": "numbers"}.get(self.kind_name, self.kind_name)

    @property
    def has_classes(self) -> bool:
        """Whether each text has one label, a class."""
        return self.label_kind == "classes"

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number rather than a class."""
        return self.label_kind == "numbers"

    @property
    def is_structured(self) -> bool:
        """Whether its labels are neither classes nor numbers."""
        return self.label_kind not in ("classes", "numbers")

    @property
    def n_outputs(self) -> int:
        """Width of the model's output layer; of embeddings it is the model's own."""
        return 2 if self.label_kind == "spans" else max(1, len(self.labels))

    def source_of(self, split: str) -> SplitSource:
        """Where a split lies."""
        local = f"{self.local}/{split}" if self.local else ""
        return self.sources.get(split) or SplitSource(local, self.hub, split)

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        places = [self.source_of(split) for split in (self.train_split, *self.validation_splits)]
        sources = {
            "local": any(place.local for place in places),
            "hub": any(place.hub is not None for place in places),
            "package": self.loader is not None,
        }
        return {
            **({"task_kind": self.task_kind} if self.task_kind else {}),
            "texts": len(self.text_columns),
            "labels": ["of the data"] if self.labels_from_data else list(self.labels),
            "metrics": list(self.metrics),
            "sources": [name for name, there in sources.items() if there],
        }
