"""Validation errors of settings and options, each field as one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sage_kit.errors import did_you_mean, shortened


def explain(error: ValidationError, model: type[BaseModel], noun: str, places: Mapping[str, str] | None = None) -> str:
    """A validation error of a settings or options class as one line.

    Parameters
    ----------
    error : ValidationError
    model : type
        The class that was validated.
    noun : str
        What a field of it is called: "setting", "option".
    places : mapping of str to str
        Where a field's value comes from, for those where it is worth telling, e.g. ``" in run.toml"``.
    """
    by_field: dict[str, list[ErrorDetails]] = {}
    for item in error.errors():
        by_field.setdefault(str(item["loc"][0]) if item["loc"] else "", []).append(item)
    return "; ".join(_explain_field(name, items, model, noun, places or {}) for name, items in by_field.items())


def _explain_field(
    name: str, items: list[ErrorDetails], model: type[BaseModel], noun: str, places: Mapping[str, str]
) -> str:
    """All errors of one field as one sentence; `name` is "" for an error of several fields together."""
    messages = [item["msg"].removeprefix("Value error, ") for item in items]
    if not name:
        mentioned = {places[word] for word in re.findall(r"\w+", " ".join(messages)) if word in places}
        return "; ".join(messages) + "".join(f" ({place.strip()})" for place in sorted(mentioned))
    place = places.get(name, "")
    is_top = len(items[0]["loc"]) == 1  # rather than a field of an item of a list
    if items[0]["type"] == "extra_forbidden" and is_top:
        elsewhere = "`sage-kit config` lists all settings." if noun == "setting" else ""
        return f"Unknown {noun} {name!r}{place}.{did_you_mean(name, model.model_fields, elsewhere=elsewhere)}"
    if items[0]["type"] == "missing" and is_top:
        return f"{noun} {name!r}{place} is required"
    # A union reports each of its branches, under the branch's label; the branches that got deepest into the value are
    # those that the user meant.
    skipped = 2 if name in model.model_fields and _is_union(model.model_fields[name].annotation) else 1
    depth = max(len(item["loc"][skipped:]) for item in items)
    closest = [item for item in items if len(item["loc"][skipped:]) == depth]
    if closest[0]["type"] in ("extra_forbidden", "missing"):
        *steps, field = closest[0]["loc"]
        where = "".join(f", item {step + 1}" for step in steps if isinstance(step, int))
        what = f"unknown {noun} {field!r}" if closest[0]["type"] == "extra_forbidden" else f"{field!r} is required"
        return f"{noun} {name!r}{place}{where}: {what}"
    value = shortened(repr(closest[0]["input"]), 80)
    inner = "".join(
        f", item {step + 1}," if isinstance(step, int) else f", {step!r}," for step in closest[0]["loc"][skipped:]
    )
    return f"{noun} {name!r}{place}{inner} is {value}: {_join(closest)}"


def _join(items: list[ErrorDetails]) -> str:
    """Messages of the branches of a union: "input should be A or B"."""
    prefix = "Input should be "
    parts = []
    for item in items:
        # what Python calls a tuple is a list in TOML and on the command line
        message = item["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "a list")
        if len(items) > 1 and message.startswith(prefix):
            message = message.removeprefix(prefix).partition(", unable to parse")[0]
        elif message.startswith(prefix):
            message = "i" + message[1:]
        parts.append(message)
    joined = " or ".join(dict.fromkeys(parts))
    return f"input should be {joined}" if len(items) > 1 and items[0]["msg"].startswith(prefix) else joined


def _is_union(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_union(get_args(annotation)[0])
    branches = [branch for branch in get_args(annotation) if branch is not type(None)]
    return get_origin(annotation) in (Union, UnionType) and len(branches) > 1
