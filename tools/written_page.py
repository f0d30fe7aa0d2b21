"""What the tools that write a page share: write it, or say whether it is up to date."""

from __future__ import annotations

from pathlib import Path

from sage_kit.storage.files import write_text


def write_or_check(path: Path, text: str, command: str, *, only_check: bool) -> int:
    """Write a page or, with `only_check`, compare it; the exit status. `command` is what writes it."""
    if only_check:
        is_current = path.is_file() and path.read_text(encoding="utf-8") == text
        print("up to date" if is_current else f"{path} is not up to date: run {command}")
        return 0 if is_current else 1
    write_text(path, text)
    print(f"Written: {path}")
    return 0
