"""Questions as the files of SQuAD nest them, ``data``, ``paragraphs``, ``qas``, laid out as columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_kit.errors import DataError

COLUMNS = ("id", "title", "context", "question", "answers")


def is_squad(content: Any) -> bool:
    """Whether a JSON document is such a file, of version 1.1 or 2.0."""
    articles = content.get("data") if isinstance(content, Mapping) else None
    return isinstance(articles, list) and any(
        isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list) for article in articles
    )


def squad_columns(path: Path, content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The questions of a file, one a row, in `COLUMNS`.

    Answers stand as the file has them; those of a question that is marked as impossible are an empty list, and of one
    that has none in the file None.

    Raises
    ------
    DataError
        For the first paragraph or question without its text, or with answers though it is marked as impossible.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for i, article in enumerate(content["data"]):
        title = article.get("title", "") if isinstance(article, Mapping) else ""
        for j, paragraph in enumerate(_list(path, article, "paragraphs", f"data[{i}]")):
            where = f"data[{i}].paragraphs[{j}]"
            context = _text(path, paragraph, "context", where)
            for k, question in enumerate(_list(path, paragraph, "qas", where)):
                text = _text(path, question, "question", f"{where}.qas[{k}]")
                answers = question.get("answers")
                if question.get("is_impossible"):
                    if answers:
                        raise DataError(
                            f"{path}, {where}.qas[{k}] is marked is_impossible, and has answers: correct one of them"
                        )
                    answers = []
                row = (question.get("id"), title, context, text, answers)
                for name, value in zip(COLUMNS, row, strict=True):
                    columns[name].append(value)
    return columns


def _list(path: Path, record: Any, name: str, where: str) -> list[Any]:
    found = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(found, list):
        raise DataError(f"{path}, {where} has no list {name!r}: write it as SQuAD's files do, or give a table")
    return found


def _text(path: Path, record: Any, name: str, where: str) -> str:
    found = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"{path}, {where} has no text {name!r}: write it, or remove that part")
    return found
