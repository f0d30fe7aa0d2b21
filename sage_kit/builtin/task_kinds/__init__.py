"""Built-in kinds of task."""

from __future__ import annotations

from collections.abc import Iterable

from sage_kit import hookimpl
from sage_kit.components import TaskKindSpec, lazy


@hookimpl
def sage_task_kinds() -> Iterable[TaskKindSpec]:
    yield TaskKindSpec(
        name="classification",
        summary="One class a text",
        factory=lazy("sage_kit.builtin.task_kinds.classification:Classification"),
        problem_type="single_label_classification",
    )
    yield TaskKindSpec(
        name="regression",
        summary="A number a text",
        factory=lazy("sage_kit.builtin.task_kinds.regression:Regression"),
        labels="numbers",
        problem_type="regression",
        needs_names=False,
    )
    yield TaskKindSpec(
        name="label_sets",
        summary="Any number of labels a text, each by a probability of its own",
        factory=lazy("sage_kit.builtin.task_kinds.label_sets:LabelSets"),
        labels="label_sets",
        problem_type="multi_label_classification",
        metrics=("micro_f1", "macro_f1", "exact_set"),
    )
    yield TaskKindSpec(
        name="tags",
        summary="A tag a word, such as names of people and places, or parts of speech",
        factory=lazy("sage_kit.builtin.task_kinds.tags:Tags"),
        architecture="token",
        labels="tags",
        needs_places=True,
        metrics=("span_f1", "tag_accuracy"),
    )
    yield TaskKindSpec(
        name="spans",
        summary="The answer to a question, a piece of a text that may be long",
        factory=lazy("sage_kit.builtin.task_kinds.spans:Spans"),
        architecture="span",
        labels="spans",
        needs_names=False,
        needs_places=True,
        splits_long=True,
        metrics=("answer_f1", "exact_match"),
    )
    yield TaskKindSpec(
        name="embeddings",
        summary="A vector a text, alone or of pairs, with how alike they are or without labels",
        factory=lazy("sage_kit.builtin.task_kinds.embeddings:Embeddings"),
        architecture="embedding",
        labels="embeddings",
        needs_names=False,
        splits_pairs=True,
        metrics=("cosine_spearman", "cosine_pearson", "retrieval_accuracy"),
    )
