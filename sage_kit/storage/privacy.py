"""What a record that others may read tells of this machine: no passwords in addresses, and no home folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@")
_SECRET = re.compile(r"([?&](?:[\w-]*(?:token|key|password|passwd|secret|signature)|sig)=)[^&\s#]+", re.IGNORECASE)
HIDDEN = "***"
"""Stands in the place of a secret in an address."""


def without_secrets(text: str) -> str:
    """A text whose addresses hold no user, password, token or key; bytes that are no UTF-8 are written as escapes."""
    text = text.encode(errors="backslashreplace").decode()
    return _SECRET.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(r"\1", text))


def private(value: Any) -> Any:
    """A value of settings as it is recorded: texts without secrets, paths below the home folder from ``~`` on."""
    home = _home()

    def hidden(text: str) -> str:
        text = without_secrets(text)
        return f"~{text[len(home) :]}" if home and (text == home or text.startswith(f"{home}{os.sep}")) else text

    return _each_text(value, hidden)


def private_words(words: list[str]) -> list[str]:
    """A command line as it is recorded, where a path may stand within a word: ``--out=~/x``."""
    home = _home()
    pattern = re.compile(rf"(?<![\w./~-]){re.escape(home)}(?=[/\\,:;\s\"']|$)") if home else None
    found = [without_secrets(word) for word in words]
    return [pattern.sub("~", word) for word in found] if pattern else found


def revealed(value: Any) -> Any:
    """What `private` recorded, its paths as they are on this machine."""
    home = _home()

    def shown(text: str) -> str:
        return f"{home}{text[1:]}" if home and (text == "~" or text.startswith(("~/", f"~{os.sep}"))) else text

    return _each_text(value, shown)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value


def _home() -> str:
    """The home folder; "" where there is none, or it is the root of all paths."""
    home = os.path.expanduser("~").rstrip("/\\")
    return "" if home == "~" else home
