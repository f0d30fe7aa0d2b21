"""Toy texts with a tag a word, or with a set of labels, that a tiny teacher learns, and settings of runs on them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import tiny

NEUTRAL = [word for word in tiny.NEUTRAL if word not in ("very", "not")]
TAGS = ("O", "B-GOOD", "I-GOOD", "B-BAD", "I-BAD")


def tagged(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with "tokens" and "tags": pieces of praise and of blame of one or two words among neutral ones."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        words, tags = [], []
        for _ in range(rng.randint(2, 6)):
            name, chosen = rng.choice([("", NEUTRAL), ("", NEUTRAL), ("GOOD", tiny.POSITIVE), ("BAD", tiny.NEGATIVE)])
            for place in range(rng.randint(1, 2)):
                words.append(rng.choice(chosen))
                tags.append(f"{'I' if place else 'B'}-{name}" if name else "O")
            words.append(rng.choice(NEUTRAL))  # two pieces never touch
            tags.append("O")
        found.append({"tokens": words, "tags": tags})
    return found


def with_sets(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with "text" and "labels": which of praise and blame a text holds, and whether it is long."""
    found = []
    for row in tagged(n, seed):
        kinds = {tag.partition("-")[2].lower() for tag in row["tags"]} - {""}
        labels = sorted(kinds) + ["long"] * (len(row["tokens"]) > 9)
        found.append({"text": " ".join(row["tokens"]), "labels": labels})
    return found


def settings(folder: Path, kind: str, **overrides: Any) -> dict[str, Any]:
    """For `toyrun.toy_run`: 300 texts, of kind "tags" or "label_sets"."""
    make, text, label = {"tags": (tagged, "tokens", "tags"), "label_sets": (with_sets, "text", "labels")}[kind]
    train, validation = folder / f"{kind}_train.jsonl", folder / f"{kind}_validation.jsonl"
    if not train.exists():
        tiny.write_jsonl(train, make(300, 1))
        tiny.write_jsonl(validation, make(100, 2))
    return {
        "task_kind": kind, "text_column": text, "label_column": label, "train_file": str(train),
        "validation_file": str(validation), **overrides,
    }  # fmt: skip
