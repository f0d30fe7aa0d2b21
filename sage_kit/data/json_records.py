"""JSON as data files hold it: one document, or one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_kit.data.streams import open_text
from sage_kit.errors import DataError, one_line


class NotJSONError(Exception):
    """A text is no JSON, or a name stands twice in one object of it."""


class _NameTwiceError(ValueError):
    pass


def json_records(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines; empty lines are passed over.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Names that must not stand twice in one object.

    Raises
    ------
    DataError
        For a line that is no JSON object; names it.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = parse_json(line, columns)
            except NotJSONError as error:
                whole = "; a file that is one JSON document is named .json" if number == 1 else ""
                raise DataError(f"{path}, line {number} is not valid JSON: {error}{whole}") from None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}, line {number} is not a JSON object: each line must be {{column: value, ...}}; a file "
                    "that is one JSON document is named .json"
                )
            yield record


def parse_json(text: str, columns: Sequence[str]) -> Any:
    """What a text holds; raises NotJSONError, also where one of the columns stands twice in one object."""
    # the hooks double the time, so they are for the texts that may need them
    careful = any(text.count(f'"{name}"') > 1 for name in columns)
    try:
        try:
            return json.loads(text, object_pairs_hook=_unambiguous if careful else None)
        except (json.JSONDecodeError, _NameTwiceError):
            raise
        except ValueError:
            return json.loads(text, parse_int=_integer)  # Python refuses integers of many thousand digits
    except (ValueError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        raise NotJSONError("it is nested too deeply" if is_deep else one_line(error, 200)) from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NameTwiceError(f"the name {twice!r} stands twice in one object")
    return record


def is_json_object(line: str) -> bool:
    """Whether a line is a JSON object by itself."""
    try:
        return isinstance(parse_json(line, ()), dict)
    except NotJSONError:
        return False
