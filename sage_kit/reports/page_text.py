"""What the reference pages are written with: tables, code and docstrings as Markdown."""

from __future__ import annotations

import json
import re
from typing import Any

REGENERATE = "python -m sage_kit.reports.reference docs"

NOTICE = f"<!-- Written by `{REGENERATE}`; change the code, not this page. -->"


def table_head(titles: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [table_row(titles), table_row(["---"] * len(titles))]


def table_row(cells: list[str]) -> str:
    """A line of a table."""
    escaped = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def code(value: Any) -> str:
    """A value as it is written in TOML, as far as a table needs it."""
    plain = json.dumps(value, ensure_ascii=False, default=lambda model: model.model_dump(exclude_defaults=True))
    return f"`{plain}`"


def markdown(text: str) -> str:
    """Docstring text with its literals marked as in Markdown."""
    roles = re.sub(r":\w+:`(?:~[\w.]*?(?=\w+`))?([^`]+)`", r"`\1`", text)
    return roles.replace("``", "`")


def sections_of(doc: str) -> tuple[str, dict[str, str]]:
    """A numpydoc docstring as its text and its sections by title."""
    text, *rest = re.split(r"^(\w+)\n-{3,}\n", doc, flags=re.MULTILINE)
    return text.strip(), {title: body.rstrip() for title, body in zip(rest[::2], rest[1::2], strict=True)}
