"""The reference pages, written from the code: settings, components, protocols and hooks.

``python -m sage_kit.reports.reference docs`` writes them into a folder.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sage_kit.components import Options, hookspecs
from sage_kit.components.hooks import COMMANDS, HOOKS, OBSERVING_HOOKS
from sage_kit.components.loader import ENTRY_POINT_GROUP
from sage_kit.components.plugins import FIRST_PARTY, Plugins, Registered
from sage_kit.components.spec_checks import CONTRIBUTING_HOOKS, KINDS, plural
from sage_kit.config import GROUPS, PRESETS, RunConfig, field_extra
from sage_kit.errors import MissingPackageError, SageError
from sage_kit.reports.page_text import NOTICE, code, markdown, sections_of, table_head, table_row
from sage_kit.reports.protocol_reference import protocols_page

# ---- settings -------------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """The reference of all settings, as Markdown."""
    other_presets = [name for name in PRESETS if name != "default"]
    lines = [
        NOTICE,
        "",
        "# Settings",
        "",
        "Every setting has one flat name, the same in a TOML file, on the command line (`--student-layers 3`) and in a "
        "notebook's parameters. Later ones win: preset, file, command line. `sage-kit config` prints a complete "
        "commented file to start from.",
        "",
        "Lists are given on the command line as `1,3,5`, options as `name=value,name=value`.",
    ]
    for group in GROUPS:
        names = [name for name in RunConfig.model_fields if field_extra(name)["group"] == group]
        if not names:
            continue
        presets = [preset for preset in other_presets if any(name in PRESETS[preset] for name in names)]
        lines += ["", f"## {group.capitalize()}", ""]
        lines += table_head(["setting", "values", "default", *(f"preset `{preset}`" for preset in presets), "meaning"])
        for name in names:
            field, extra = RunConfig.model_fields[name], field_extra(name)
            default = extra["shown_default"] or code(PRESETS["default"].get(name, _default(field)))
            differing = [code(PRESETS[preset][name]) if name in PRESETS[preset] else "" for preset in presets]
            unit = f" [{extra['unit']}]" if extra["unit"] else ""
            lines.append(table_row([f"`{name}`", _values(field), default, *differing, f"{field.description}{unit}"]))
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _values(field: FieldInfo) -> str:
    """What a field accepts, in words."""
    return _accepts(field.annotation, field.metadata)


def _accepts(annotation: Any, metadata: list[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        constraints = [item for info in more for item in (info.metadata if isinstance(info, FieldInfo) else [info])]
        return _accepts(inner, [*metadata, *constraints])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(_accepts(branch, []) for branch in get_args(annotation) if branch is not type(None))
    if origin in (list, tuple):
        item = _accepts(get_args(annotation)[0], [])
        return f"list of {item}"
    if origin is dict or annotation is dict:
        return "options"
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return f"table of {', '.join(f'`{name}`' for name in annotation.model_fields)}"
    names = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}
    return f"{names.get(annotation, getattr(annotation, '__name__', str(annotation)))}{_bounds(metadata)}"


def _bounds(metadata: list[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    shown = [f" {signs[name]} {getattr(item, name)}" for item in metadata for name in signs if hasattr(item, name)]
    return ",".join(shown)


# ---- components -----------------------------------------------------------------------------------------------------


def components_page(plugins: Plugins) -> str:
    """The reference of all components that `plugins` holds, with their options, as Markdown."""
    lines = [
        NOTICE,
        "",
        "# Components",
        "",
        "What the settings `reducer`, `sampler`, `inverter`, `lift`, `filter`, `losses`, `stop_rule`, `metrics`, "
        "`observers` and `task` may name, and the families of encoders that `teacher` may be of. `sage-kit plugins` "
        "lists those that are installed, and [Protocols](protocols.md) says what a capability means: one that is not "
        "named, a component has not. The options of a component go into the setting `<kind>_options`, those of a "
        "loss, a metric or an observer into `loss_options`, `metric_options` or `observer_options`, under its name.",
    ]
    for kind in KINDS:
        items = plugins.components(kind)
        if not items:
            continue
        words = kind.replace("_", " ")
        lines += ["", f"## {plural(words).capitalize()}", ""]
        lines += table_head(["name", "from", "summary", "capabilities"])
        for item in items:
            told = (_capability(name, value) for name, value in item.spec.capabilities().items())
            shown = "; ".join(text for text in told if text)
            lines.append(table_row([f"`{item.spec.name}`", item.origin.distribution, item.spec.summary, shown]))
        for item in items:
            lines += _options_of(item)
    return "\n".join(lines) + "\n"


def _capability(name: str, value: Any) -> str:
    """A capability in words; "" for one that a component lacks, as most lack most of them."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else ""
    if isinstance(value, list | tuple):
        return f"{words}: {', '.join(str(item) for item in value) or 'none'}"
    return f"{words}: {'any' if value is None else value}" if value != "" else f"{words}: none"


def _options_of(item: Registered) -> Iterator[str]:
    spec = item.spec
    if not spec.options.model_fields:
        return
    yield from ["", f"### Options of `{spec.name}`", ""]
    yield from table_head(["option", "values", "default", "meaning"])
    for name, field in spec.options.model_fields.items():
        default = "required" if field.is_required() else code(_default(field))
        yield table_row([f"`{name}`", _values(field), default, field.description or ""])


# ---- hooks ----------------------------------------------------------------------------------------------------------


def hooks_page() -> str:
    """The reference of all hooks, as Markdown."""
    introduction = inspect.cleandoc(hookspecs.__doc__ or "").partition("\n\n")[2]
    lines = [NOTICE, "", "# Hooks", "", markdown(introduction)]
    for title, names in (
        ("Contributing hooks", [name for name in HOOKS if name in CONTRIBUTING_HOOKS]),
        ("The command line", [COMMANDS]),
        ("Observing hooks", OBSERVING_HOOKS),
    ):
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", *_hook(name, getattr(hookspecs, name))]
    return "\n".join(lines) + "\n"


def _hook(name: str, function: Callable[..., Any]) -> Iterator[str]:
    text, sections = sections_of(inspect.cleandoc(function.__doc__ or ""))
    yield f"### `{name}({', '.join(inspect.signature(function).parameters)})`"
    yield from ["", markdown(text)]
    if "Parameters" in sections:
        yield ""
        for entry in re.split(r"\n(?=\S)", sections["Parameters"]):
            head, _, meaning = entry.partition("\n")
            names, _, kind = head.partition(" : ")
            shown = ", ".join(f"`{name.strip()}`" for name in names.split(","))
            meaning = " ".join(meaning.split())
            yield markdown(f"- {shown}{f' ({kind})' if kind else ''}{f': {meaning}' if meaning else ''}")
    if "Returns" in sections:
        yield from ["", f"Returns {markdown(sections['Returns'].strip())}."]
    example = inspect.cleandoc(sections["Examples"].partition("::\n")[2].strip("\n"))
    yield from ["", "```python", example, "```"]


# ---- pages ----------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """File name and text of every page; of the external plugins only the first-party ones are shown.

    Raises
    ------
    MissingPackageError
        When one of these is not installed.
    """
    first_party = sorted(set(FIRST_PARTY.values()))
    installed = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    missing = [name for name in first_party if name not in installed]
    if missing:
        commands = " ".join(f"./plugins/{name}" for name in missing)
        raise MissingPackageError(
            f"the pages show every plugin of the repository, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install {commands}"
        )
    return {
        "configuration.md": configuration_page(),
        "components.md": components_page(Plugins(allow=",".join(first_party))),
        "hooks.md": hooks_page(),
        "protocols.md": protocols_page(),
    }


def main(folder: str) -> None:
    """Write all pages into `folder`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "docs")
    except SageError as error:
        sys.exit(f"sage_kit.reports.reference: {error}")
