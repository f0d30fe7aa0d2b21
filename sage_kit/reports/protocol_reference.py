"""The page of all protocols: what every kind of component promises, has to implement and is given, with shapes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sage_kit import components
from sage_kit.components import PROTOCOLS, ComponentSpec
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.components.spec_checks import CONTRIBUTING_HOOKS, plural
from sage_kit.reports.page_text import NOTICE, markdown, sections_of, table_head, table_row

RECORDS: tuple[type, ...] = (RunInfo, RoundResult, Costs)
"""What observers and stop rules are told, from a module of its own."""


WITHOUT = {
    "observer": "whose factory returns an object with any of the [observing hooks](hooks.md)",
    "task": "which is all that there is to a task",
}
"""What the specs of the kinds without a protocol stand for."""


def protocols_page() -> str:
    """The protocols of all kinds of component, their specs, and the classes of what they exchange, as Markdown."""
    lines = [
        NOTICE,
        "",
        "# Protocols",
        "",
        "A plugin yields specs from a [hook](hooks.md). A spec's factory is called as `factory(options, context)` and "
        "returns an object with the methods of its kind's protocol; no base class is needed. Names are imported from "
        "`sage_kit.components`. [Writing a plugin](writing-a-plugin.md) has an example of each kind.",
        "",
        "`n` counts real examples, `m` synthetic ones, `dim` is the width of the token states. `Floats` is an array of "
        "float32, `Integers` one of int64.",
    ]
    further = [protocol for protocol in public_protocols() if protocol not in PROTOCOLS.values()]
    for hook, spec in CONTRIBUTING_HOOKS.items():
        own = PROTOCOLS.get(spec.kind)
        lines += ["", f"## {plural(spec.kind.replace('_', ' ')).capitalize()}", ""]
        made = f"whose factory returns an object with the methods of `{own.__name__}`" if own else WITHOUT[spec.kind]
        lines.append(f"`{hook}` yields `{spec.__name__}`, {made}.")
        if own is not None:
            lines += _protocol(own)
            for protocol in [one for one in further if own in one.__mro__]:
                lines += _protocol(protocol)
        lines += _fields(f"What `{spec.__name__}` says", spec, {*ComponentSpec.__dataclass_fields__})
    lines += ["", "## Every spec"]
    lines += _fields("The head that all share", ComponentSpec, set())
    lines += ["", "## Further protocols"]
    for protocol in further:
        if not set(PROTOCOLS.values()) & set(protocol.__mro__):
            lines += _protocol(protocol)
    lines += ["", "## What components are given and return"]
    for message in messages():
        lines += _fields(f"`{message.__name__}`", message, set(), with_text=True)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def public_protocols() -> list[type]:
    """All protocols that `sage_kit.components` offers, by the order of their definition."""
    found = [getattr(components, name) for name in components.__all__]
    protocols = [one for one in found if inspect.isclass(one) and getattr(one, "_is_protocol", False)]
    return sorted(protocols, key=lambda one: (one.__module__, inspect.getsourcelines(one)[1]))


def messages() -> list[type]:
    """The classes of what components are given and return, which are neither specs nor protocols."""
    found = [getattr(components, name) for name in components.__all__]
    specs = (ComponentSpec, components.TaskSpec)
    classes = [
        one
        for one in found
        if inspect.isclass(one) and hasattr(one, "__dataclass_fields__") and not issubclass(one, specs)
    ]
    return [*sorted(classes, key=lambda one: one.__name__), *RECORDS]


def _protocol(protocol: type) -> Iterator[str]:
    """A protocol's text and its own methods."""
    text, _ = sections_of(inspect.getdoc(protocol) or "")
    yield from ["", f"### `{protocol.__name__}`", "", markdown(text), ""]
    for name, function in vars(protocol).items():
        if inspect.isfunction(function) and not name.startswith("_"):
            yield from _method(name, function)


def _method(name: str, function: Any) -> Iterator[str]:
    """A method, its parameters with their types, and what it returns, as an item of a list."""
    signature = inspect.signature(function)
    parameters = [
        str(one.replace(annotation=inspect.Parameter.empty)) + f": {one.annotation}"
        for one in list(signature.parameters.values())[1:]
    ]
    text, sections = sections_of(inspect.getdoc(function) or "")
    yield f"- `{name}({', '.join(parameters)}) -> {signature.return_annotation}`"
    for paragraph in markdown(text).split("\n\n"):
        yield from ["", f"  {' '.join(paragraph.split())}"]
    for title in ("Parameters", "Returns", "Raises"):
        for names, kind, meaning in entries(sections.get(title, "")):
            label = f"`{names}`" if names else "Returns"
            yield from ["", f"  {label}{f' ({markdown(kind)})' if kind else ''}{f': {meaning}' if meaning else ''}"]
    yield ""


def _fields(title: str, kind: type, hidden: Iterable[str], with_text: bool = False) -> list[str]:
    """A table of what a dataclass holds, as its docstring says; nothing where nothing is left."""
    text, sections = sections_of(inspect.getdoc(kind) or "")
    own = {field.name for field in dataclasses.fields(kind)} - set(hidden)
    rows = []
    for names, described, meaning in entries(sections.get("Attributes", "")):
        each = [name.strip() for name in names.split(",")]
        if own & set(each):
            rows.append(table_row([", ".join(f"`{name}`" for name in each), markdown(described), meaning]))
    if not rows:
        return []
    lines = ["", f"### {title}", ""]
    if with_text:
        lines += [markdown(text), ""]
    return [*lines, *table_head(["field", "type and shape", "meaning"]), *rows]


def entries(section: str) -> Iterator[tuple[str, str, str]]:
    """Names, type and meaning of each entry of a section of a numpydoc docstring; no name for a bare type."""
    for entry in re.split(r"\n(?=\S)", section) if section else ():
        head, _, meaning = entry.partition("\n")
        names, is_typed, kind = head.partition(" : ")
        yield names, kind if is_typed else "", " ".join(markdown(inspect.cleandoc(meaning)).split())
