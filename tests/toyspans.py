"""Toy questions that a tiny teacher learns to answer, and the settings of a run on them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import tiny

NEUTRAL = [word for word in tiny.NEUTRAL if word not in ("very", "not")]


def rows(n: int, seed: int = 0, *, unanswered: float = 0.0, longest: int = 40) -> list[dict[str, Any]]:
    """Rows whose answer is the one piece of praise in the context, of one to three words; the question says nothing.

    Parameters
    ----------
    n, seed : int
    unanswered : float
        Share of the contexts without praise.
    longest : int
        Most words of a context, some of which are as short as eight.

    Returns
    -------
    list of dict
        Keys "question", "context" and "answers", the latter as Hugging Face datasets have it.
    """
    rng, found = random.Random(seed), []
    for _ in range(n):
        words = [rng.choice(NEUTRAL) for _ in range(rng.randint(8, longest))]
        question = " ".join(rng.choice(NEUTRAL) for _ in range(rng.randint(2, 5))) + "?"
        context, answers = " ".join(words), {"text": [], "answer_start": []}
        if rng.random() >= unanswered:
            answer = " ".join(rng.choice(tiny.POSITIVE) for _ in range(rng.randint(1, 3)))
            place = rng.randint(0, len(words))
            before = " ".join(words[:place])
            context = " ".join(filter(None, [before, answer, *words[place:]]))
            answers = {"text": [answer], "answer_start": [len(before) + bool(before)]}
        found.append({"question": question, "context": context, "answers": answers})
    return found


def settings(folder: Path, *, unanswered: float = 0.0, **overrides: Any) -> dict[str, Any]:
    """For `toyrun.toy_run`: 240 questions, whose contexts are read in windows of 24 tokens."""
    train, validation = folder / "spans_train.jsonl", folder / "spans_validation.jsonl"
    if not train.exists():
        tiny.write_jsonl(train, rows(240, 1, unanswered=unanswered))
        tiny.write_jsonl(validation, rows(80, 2, unanswered=unanswered))
    return {
        "task_kind": "spans", "text_column": "question", "text_pair_column": "context", "label_column": "answers",
        "train_file": str(train), "validation_file": str(validation), "max_length": 24, **overrides,
    }  # fmt: skip
