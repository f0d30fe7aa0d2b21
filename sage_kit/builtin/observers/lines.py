"""Files of one JSON object per round and line, which grow while a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records_by_round(path: Path) -> dict[int, dict[str, Any]]:
    """The objects of an earlier process's file by their "round", as far as its lines are whole; none without a file."""
    records: dict[int, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record: Any = json.loads(line)
            except (ValueError, RecursionError):
                continue  # the last line of a killed process may end anywhere
            if isinstance(record, dict) and isinstance(record.get("round"), int):
                records[record["round"]] = record
    return records


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append an object; the file is closed again, so nothing waits in a buffer."""
    with path.open("a", encoding="utf-8") as file:
        file.write(as_line(record))


def as_line(record: dict[str, Any]) -> str:
    """An object as a line."""
    return json.dumps(record, allow_nan=False) + "\n"
