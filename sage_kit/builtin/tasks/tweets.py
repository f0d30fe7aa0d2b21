"""Names in tweets: WNUT-17 and the Broad Twitter Corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sage_kit.builtin.tasks.xtreme import NAMES
from sage_kit.components import Options, SplitSource, TaskSpec

Section = Literal["a", "b", "e", "f", "g", "h"]


class BtcOptions(Options):
    """Options of task `btc`."""

    section: Section = Field("g", description="Section to train on; g is the largest.")
    sections: tuple[Section, ...] = Field(("h", "f"), description="Sections to score; none is the one of training.")


def _without_empty(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The words and tags without words that are empty, of which the corpus has four, one of them a whole tweet."""
    rows = zip(columns["tokens"], columns["ner_tags"], strict=True)
    kept = [[pair for pair in zip(words, tags, strict=True) if pair[0]] for words, tags in rows]
    kept = [row for row in kept if row]
    return {name: [[pair[place] for pair in row] for row in kept] for place, name in enumerate(("tokens", "ner_tags"))}


def _btc(options: BtcOptions) -> dict[str, Any]:
    def source(section: str) -> SplitSource:
        return SplitSource(f"btc/{section}", None, "", ("tokens", "ner_tags"), _without_empty)

    scored = [section for section in options.sections if section != options.section]
    sources = {"train": source(options.section), **{f"section_{each}": source(each) for each in scored}}
    return {"validation_splits": tuple(sources)[1:], "sources": sources}


WNUT_TYPES = ("corporation", "creative-work", "group", "location", "person", "product")

TWEETS: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="wnut17",
        summary="new and rare names in tweets and comments (WNUT 2017), six types",
        labels=("O", *(f"{part}-{kind}" for kind in WNUT_TYPES for part in "BI")),
        local="wnut17",
        **NAMES,
    ),
    TaskSpec(
        name="btc",
        summary="names of persons, organizations and places in tweets; trained on one section, scored on others",
        labels=("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"),
        options=BtcOptions,
        refine=_btc,
        **NAMES,
        **_btc(BtcOptions()),
    ),
)
