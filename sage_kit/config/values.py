"""Values of settings: what TOML, flags and notebooks may write, and the types that it becomes."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from sage_kit.storage.frozen import freeze
from sage_kit.storage.reading import toml_loads

LARGEST_SEED = 2**32 - 1  # scikit-learn and umap-learn take no larger one
LARGEST_NUMBER = 1e15  # whose square and product with a loss are finite in single precision, too


def toml_item(value: Any) -> Any:
    """A value as an item of a TOML document: a mapping as an inline table, so that a setting stays one line."""
    import tomlkit

    if not isinstance(value, Mapping):
        return value
    table = tomlkit.inline_table()
    table.update(value)
    return table


def _cut(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value.strip()):
        return int(value)
    return value


def _layer_list(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[\[ ]*[0-9]+( *, *[0-9]+)*[, \]]*", value):
        return [int(part) for part in re.findall(r"[0-9]+", value)]
    return value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _numbers(value: Any) -> Any:
    return value.strip().removeprefix("[").removesuffix("]").split(",") if isinstance(value, str) and value else value


def _class_names(value: Any) -> Any:
    """Names of classes as text with commas, as text that is a TOML list (for names with blanks), or as a list.

    A number or boolean in a list is the name that it spells.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = toml_loads(f"names = {value}")["names"]
        except ValueError:
            raise ValueError('a list is written like ["one", "two"]') from None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(item).lower() if isinstance(item, bool) else _number_as_text(item) for item in value]
    return _names(value)


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _character(value: Any) -> Any:
    """One character, of which the tab may be spelled out, or none."""
    if isinstance(value, str):
        value = {"tab": "\t", "\\t": "\t"}.get(value, value)
        if len(value) > 1 or value in ("\n", "\r"):
            raise ValueError("expected one character, 'tab', or nothing")
    return value


def _table(value: Any) -> Any:
    """Options as a table, or as text, ``a=1, b="x"``: a TOML table's inside, with bare words taken as strings."""
    if isinstance(value, str):
        return _table_from_text(value)
    return _plain(value, "") if isinstance(value, Mapping) else value


def _table_from_text(value: str) -> dict[str, Any]:
    text = value.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    lines: list[str] = []
    for part in _split_at_commas(text):
        key, equals, word = (piece.strip() for piece in part.partition("="))
        if lines and not equals:
            before = lines[-1].partition(" = ")[0]
            raise ValueError(f"{key!r} has no name; a list stands in brackets, like {before}=[one, two]")
        if not equals or not key:
            raise ValueError("expected name=value pairs separated by commas")
        try:
            lines.append(f"{key} = {_as_toml(key, word)}")
        except ValueError:
            raise ValueError(f"{part.strip()!r} is not a name=value pair; put text in quotes") from None
    return toml_loads("\n".join(lines))


def _as_toml(key: str, word: str) -> str:
    """A value as TOML writes it; bare words, alone or in a list, become strings."""
    try:
        toml_loads(f"{key} = {word}")
    except ValueError:
        if word.startswith("[") and word.endswith("]"):
            return f"[{', '.join(_as_toml(key, item.strip()) for item in _split_at_commas(word[1:-1]))}]"
        if re.search(r"[\"'\[\]{}#]", word):
            raise
        return f"'{word}'"
    return word


def _split_at_commas(text: str) -> Iterator[str]:
    """The parts of `text` between commas that stand outside quotes and brackets; empty parts are left out."""
    part, depth, quote = "", 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            if part.strip():
                yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def _plain(value: Any, path: str) -> Any:
    """`value` in the types that TOML has; what it lacks is an error here rather than when the run is recorded."""
    if isinstance(value, bool | int | float | str | datetime.date | datetime.time):
        return value
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise ValueError(f"the name {wrong!r} is not text")
        return {str(key): _plain(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, path) for item in value]
    raise ValueError(f"{path!r} is {value!r}, which is neither text, number, boolean, list nor table")


def usable(value: Any) -> Any:
    """The value, whose numbers are of a size that a run can compute with, and whose texts can be written as UTF-8.

    Raises
    ------
    ValueError
        For another one, here or in a list or table.
    """
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{value!a} holds bytes that are no UTF-8: rename the file, or correct it") from None
    elif isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ValueError(f"numbers beyond {LARGEST_NUMBER:g}, and what is no number, are taken by no setting")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            usable(key)
            if not (isinstance(item, float) and math.isinf(item)):  # which an option may mean: a temperature, say
                usable(item)
    elif isinstance(value, list | tuple):
        for item in value:
            usable(item)
    return value


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Bypass = Annotated[Literal["embeddings"] | Annotated[int, Field(ge=1)], BeforeValidator(_cut)]
# lists and tables are frozen, since components and observers get the settings
Frozen = AfterValidator(freeze)
Init = Annotated[
    Literal["uniform", "spread", "last", "scratch"] | list[Annotated[int, Field(ge=0)]],
    BeforeValidator(_layer_list),
    Frozen,
]
HiddenLayers = Annotated[
    Literal["last", "mapped"] | list[Annotated[int, Field(ge=1)]], BeforeValidator(_layer_list), Frozen
]
LrSchedule = Literal[
    "linear", "constant", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "inverse_sqrt",
    "constant_with_warmup", "warmup_stable_decay",
]  # fmt: skip
Weights = Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_numbers), Frozen]
Names = Annotated[list[str], BeforeValidator(_names), Frozen]
ClassNames = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_class_names), Frozen]
Character = Annotated[str, BeforeValidator(_character)]
Table = Annotated[dict[str, Any], BeforeValidator(_table), AfterValidator(usable), Frozen]


def setting(default: Any, help: str, group: str, unit: str = "", *, shown_default: str = "", **constraints: Any) -> Any:
    """A field of `RunConfig`: default, help text, the group it is listed in, and its unit.

    `shown_default` describes a default that depends on the machine.
    """
    extra: dict[str, JsonValue] = {"group": group, "unit": unit, "shown_default": shown_default}
    if callable(default):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **constraints)
    return Field(default=default, description=help, json_schema_extra=extra, **constraints)
