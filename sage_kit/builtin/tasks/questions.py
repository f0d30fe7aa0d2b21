"""Questions in English: SQuAD, and HotpotQA and MuSiQue, whose answers are pieced together from several paragraphs.

The context of the latter two is their paragraphs, one a line, each after its title. HotpotQA also asks questions that
are answered by yes or no: its contexts begin with the words "yes no", so that each answer is a piece of its context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sage_kit.builtin.tasks.xtreme import ANSWERS, SQUAD
from sage_kit.components import HubSource, Options, SplitSource, TaskSpec

YES_NO = "yes no"
HOTPOT_COLUMNS = ("question", "answer", "supporting_facts", "context")
MUSIQUE_COLUMNS = ("question", "answer", "answer_aliases", "paragraphs")


class ParagraphOptions(Options):
    """Options of tasks `hotpotqa` and `musique`."""

    paragraphs: Literal["all", "supporting"] = Field(
        "all", description="Paragraphs that make up a context: all that come with the question, or those it needs."
    )


Paragraph = tuple[str, str, bool]
"""Title, text, and whether the answer needs it."""


def _row(paragraphs: Sequence[Paragraph], answers: Sequence[str], first_line: str, supporting: bool) -> dict[str, Any]:
    """Context and answers of a question; an answer stands where a paragraph that it needs has it first."""
    context, places = first_line, []
    for title, text, is_needed in paragraphs:
        if not supporting or is_needed:
            context += "\n" if context else ""
            context += f"{title}: "
            places += [(not is_needed, len(context), text)]
            context += text
    found = {}
    for answer in answers:
        starts = [(rest, start + text.find(answer)) for rest, start, text in places if answer in text]
        whole = first_line.split()
        # a yes or no is the word that the context begins with
        start = first_line.index(answer) if answer in whole else min(starts)[1] if starts else context.find(answer)
        found[answer] = start
    return {"context": context, "answers": {"text": list(found), "answer_start": list(found.values())}}


def _columns(questions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    return {"question": questions, **{name: [row[name] for row in rows] for name in ("context", "answers")}}


def _arrange_hotpotqa(supporting: bool) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, Sequence[Any]]]:
    def arrange(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        rows = []
        for answer, facts, context in zip(*(columns[name] for name in HOTPOT_COLUMNS[1:]), strict=True):
            needed = set(facts["title"])
            parts = zip(context["title"], context["sentences"], strict=True)
            paragraphs = [(title, "".join(sentences).strip(), title in needed) for title, sentences in parts]
            rows.append(_row(paragraphs, [answer], YES_NO, supporting))
        return _columns(columns["question"], rows)

    return arrange


def _arrange_musique(supporting: bool) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, Sequence[Any]]]:
    def arrange(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        rows = []
        for answer, aliases, found in zip(*(columns[name] for name in MUSIQUE_COLUMNS[1:]), strict=True):
            paragraphs = list(zip(found["title"], found["text"], found["is_supporting"], strict=True))
            rows.append(_row(paragraphs, [answer, *aliases], "", supporting))
        return _columns(columns["question"], rows)

    return arrange


def _hotpotqa(options: ParagraphOptions) -> dict[str, Any]:
    arrange = _arrange_hotpotqa(options.paragraphs == "supporting")
    hub = HubSource("hotpotqa/hotpot_qa", "distractor")
    files = {"train": "distractor_train_sample2", "validation": "distractor_sample"}
    return {
        "sources": {
            split: SplitSource(f"hotpotqa/{file}", hub, split, HOTPOT_COLUMNS, arrange) for split, file in files.items()
        }
    }


def _musique(options: ParagraphOptions) -> dict[str, Any]:
    arrange = _arrange_musique(options.paragraphs == "supporting")
    return {"sources": {"train": SplitSource("musique/train_sample", None, "", MUSIQUE_COLUMNS, arrange)}}


QUESTIONS: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="squad_sample",
        summary="answers from a paragraph of Wikipedia (SQuAD 1.1): a sample in the data folder, all on the hub",
        local="squad_sample",
        hub=SQUAD,
        **ANSWERS,
    ),
    TaskSpec(
        name="hotpotqa",
        summary="answers, yes and no among them, from two of ten paragraphs (HotpotQA, distractor setting)",
        options=ParagraphOptions,
        refine=_hotpotqa,
        **{**ANSWERS, "metrics": ("hotpot_f1", "exact_match")},
        **_hotpotqa(ParagraphOptions()),
    ),
    TaskSpec(
        name="musique",
        summary="answers from two to four of twenty paragraphs (MuSiQue)",
        options=ParagraphOptions,
        refine=_musique,
        validation_splits=(),
        **ANSWERS,
        **_musique(ParagraphOptions()),
    ),
)
