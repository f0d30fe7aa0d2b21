"""Tasks of XTREME (Hu et al. 2020, arXiv 2003.11080): tags, answers and pairs of sentences in many languages.

Each is trained in one language, English unless told otherwise, and scored in several. Those that are scored by default
are those of which the project's data folder holds a validation split; others are read from the hub, or from a folder
that holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sage_kit.builtin.tasks.languages import HubOf, own_first, scored, split_fields, validation_splits
from sage_kit.components import HubSource, Options, SplitSource, TaskSpec

REPOSITORY = "google/xtreme"
SQUAD = HubSource("rajpurkar/squad")

SCORED = "Languages to score as well; empty takes all."

PanxLanguage = Literal[
    "af", "ar", "bg", "bn", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja",
    "jv", "ka", "kk", "ko", "ml", "mr", "ms", "my", "nl", "pl", "pt", "ru", "sw", "ta", "te", "th", "tl", "tr", "ur",
    "vi", "yo", "zh",
]  # fmt: skip
UdposLanguage = Literal[
    "ar", "bg", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko", "mr",
    "nl", "pt", "ru", "ta", "te", "tr", "ur", "vi", "zh",
]  # fmt: skip
XquadLanguage = Literal["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
MlqaLanguage = Literal["ar", "de", "en", "es", "hi", "vi", "zh"]
TydiqaLanguage = Literal["ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te"]
TatoebaLanguage = Literal["ar", "bg", "de", "es", "fr", "hi", "ja", "ru", "sw", "tr"]
PairLanguage = Literal["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]

UDPOS_NAMES: Mapping[str, str] = {
    "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "mr": "Marathi",
    "nl": "Dutch", "pt": "Portuguese", "ru": "Russian", "ta": "Tamil", "te": "Telugu", "tr": "Turkish", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""How the hub calls the languages of `udpos`."""


class PanxOptions(Options):
    """Options of task `panx`."""

    language: PanxLanguage = Field("en", description="Language to train on.")
    languages: tuple[PanxLanguage, ...] = Field(("de", "es", "nl", "pl", "ru"), description=SCORED)


class UdposOptions(Options):
    """Options of task `udpos`."""

    language: UdposLanguage = Field("en", description="Language to train on.")
    languages: tuple[UdposLanguage, ...] = Field(
        ("ar", "bg", "de", "el", "es", "fi", "fr", "ja", "nl", "tr", "ur", "vi", "zh"), description=SCORED
    )


class XquadOptions(Options):
    """Options of task `xquad`."""

    languages: tuple[XquadLanguage, ...] = Field(("en", "de"), description="Languages to score; empty takes all.")


class MlqaOptions(Options):
    """Options of task `mlqa`."""

    languages: tuple[MlqaLanguage, ...] = Field(("en",), description="Languages to score; empty takes all.")


class TydiqaOptions(Options):
    """Options of task `tydiqa_goldp`."""

    language: TydiqaLanguage = Field("en", description="Language to train on.")
    languages: tuple[TydiqaLanguage, ...] = Field(("en", "ko"), description="Languages to score; empty takes all.")


class TatoebaOptions(Options):
    """Options of task `tatoeba`."""

    language: PairLanguage = Field("en", description="Language of the pairs of sentences to train on, those of XNLI.")
    languages: tuple[TatoebaLanguage, ...] = Field((), description="Languages to score; empty takes all.")


def _panx(options: PanxOptions) -> dict[str, Any]:
    # Polish is part of XTREME-R, not of XTREME
    return own_first(options, "panx", lambda each: None if each == "pl" else HubSource(REPOSITORY, f"PAN-X.{each}"))


def _udpos(options: UdposOptions) -> dict[str, Any]:
    return own_first(options, "udpos", lambda each: HubSource(REPOSITORY, f"udpos.{UDPOS_NAMES[each]}"))


def _from_squad(options: Any, folder: str, hub: HubOf) -> dict[str, Any]:
    """Splits of a task that has no training split of its own, and is trained on SQuAD."""
    return split_fields(
        SplitSource("squad_sample/train", SQUAD, "train"), validation_splits(scored(options), folder, hub)
    )


def _xquad(options: XquadOptions) -> dict[str, Any]:
    return _from_squad(options, "xquad", lambda each: HubSource("google/xquad", f"xquad.{each}"))


def _mlqa(options: MlqaOptions) -> dict[str, Any]:
    return _from_squad(options, "mlqa", lambda each: HubSource(REPOSITORY, f"MLQA.{each}.{each}"))


def _tydiqa(options: TydiqaOptions) -> dict[str, Any]:
    # the hub has all languages in one
    languages = sorted(scored(options), key=lambda each: each != options.language)
    return split_fields(
        SplitSource(f"tydiqa_goldp/{options.language}/train", None, "train"),
        validation_splits(languages, "tydiqa_goldp", lambda each: None),
    )


def _sentences(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Premise and hypothesis of XNLI under the names that Tatoeba's two sentences have."""
    return {"sentence": columns["premise"], "english": columns["hypothesis"]}


def _tatoeba(options: TatoebaOptions) -> dict[str, Any]:
    hub = HubSource("facebook/xnli", options.language)
    pairs = SplitSource(f"xnli/{options.language}/train", hub, "train", ("premise", "hypothesis"), _sentences)
    return split_fields(
        pairs, {f"test_{each}": SplitSource(f"tatoeba/{each}/test", None, "test") for each in scored(options)}
    )


ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
PARTS_OF_SPEECH = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
)  # fmt: skip

NAMES: Mapping[str, Any] = {
    "task_kind": "tags",
    "text_columns": ("tokens",),
    "label_column": "ner_tags",
    "metrics": ("span_f1", "tag_accuracy"),
}
"""What tasks of names share."""

ANSWERS: Mapping[str, Any] = {
    "task_kind": "spans",
    "text_columns": ("question", "context"),
    "label_column": "answers",
    "metrics": ("answer_f1", "exact_match"),
    "group_column": "context",
}
"""What tasks of answers share: questions about one paragraph go to one split."""

XTREME: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="panx",
        summary="names of persons, organizations and places in Wikipedia (PAN-X of XTREME), in 41 languages",
        labels=ENTITIES,
        options=PanxOptions,
        refine=_panx,
        **NAMES,
        **_panx(PanxOptions()),
    ),
    TaskSpec(
        name="udpos",
        summary="parts of speech (Universal Dependencies 2.5, XTREME), in 28 languages",
        task_kind="tags",
        text_columns=("tokens",),
        label_column="pos_tags",
        labels=PARTS_OF_SPEECH,
        metrics=("tag_accuracy",),
        options=UdposOptions,
        refine=_udpos,
        **_udpos(UdposOptions()),
    ),
    TaskSpec(
        name="xquad",
        summary="answers from a paragraph; trained on SQuAD in English, scored in 12 languages (XQuAD)",
        options=XquadOptions,
        refine=_xquad,
        **ANSWERS,
        **_xquad(XquadOptions()),
    ),
    TaskSpec(
        name="mlqa",
        summary="answers from a paragraph; trained on SQuAD in English, scored in 7 languages (MLQA)",
        options=MlqaOptions,
        refine=_mlqa,
        **ANSWERS,
        **_mlqa(MlqaOptions()),
    ),
    TaskSpec(
        name="tydiqa_goldp",
        summary="answers from a paragraph, to questions asked in 9 languages (TyDi QA, gold passage)",
        options=TydiqaOptions,
        refine=_tydiqa,
        **ANSWERS,
        **_tydiqa(TydiqaOptions()),
    ),
    TaskSpec(
        name="tatoeba",
        summary="a sentence's translation into English among all; trained on pairs of sentences without labels",
        task_kind="embeddings",
        text_columns=("sentence", "english"),
        label_column="",
        metrics=("retrieval_accuracy",),
        options=TatoebaOptions,
        refine=_tatoeba,
        **_tatoeba(TatoebaOptions()),
    ),
)
