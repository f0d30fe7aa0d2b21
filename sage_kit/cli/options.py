"""What several commands take and print: the flags of a run's settings, and tables on the terminal."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from typing import Annotated, Any, Optional

import typer

from sage_kit.cli import completion
from sage_kit.cli.verbosity import shows
from sage_kit.config import GROUPS, PRESETS, RunConfig, field_extra
from sage_kit.errors import printable

USAGE_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""Base of the command line's own errors; newer versions of typer bring their own copy of click."""

PluginFiles = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
    typer.Option("--plugin", metavar="FILE", help="Load a one-file plugin. May be given more than once."),
]
TrustPlugins = Annotated[
    bool,
    typer.Option("--trust-plugins", help="Execute the Python files that the directory names as its plugins."),
]
ConfigFile = Annotated[str, typer.Option("--config", metavar="FILE", help="TOML file of settings.")]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"Named settings: {', '.join(PRESETS)}.",
        autocompletion=completion.presets,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


LOGGER = logging.getLogger("sage_kit.cli")

INTERRUPTED = 130
"""Exit code of a command that was interrupted."""


def announce(line: str, *, prefix: str = "sage-kit: ") -> None:
    """Show a line to the user that is no result, unless fewer are asked for."""
    if shows("info"):
        print(f"{prefix}{printable(line)}", file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Show a line about something that may be wrong, though the command goes on."""
    if shows("warning"):
        print(f"sage-kit: {printable(line)}", file=sys.stderr, flush=True)


def load_plugins(files: list[str] | None) -> Any:
    """The plugins that are installed and those of files."""
    from sage_kit.components.plugins import Plugins

    started = time.perf_counter()
    plugins = Plugins(files or ())
    LOGGER.debug(
        "%d components in %.2f s, %d in quarantine",
        len(plugins.components()), time.perf_counter() - started, len(plugins.quarantined),
    )  # fmt: skip
    return plugins


def make_table(*headings: str, title: str | None = None) -> Any:
    """A table for the terminal; columns of seconds and of sizes are flush right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("seconds", "MB") else "left", overflow="fold")
    return table


def print_all(*renderables: Any) -> None:
    """Print lines and tables; where there is no terminal, a table is not folded to 80 columns."""
    from rich.console import Console

    # what stands in brackets, in a plugin's summary or a path, is no markup
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    for item in renderables:
        console.print(_harmless(item))


def _harmless(item: Any) -> Any:
    """A line or a table without control characters: what is shown may come from a file of somebody else's."""
    from rich.table import Table
    from rich.text import Text

    if isinstance(item, str):
        return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in item)
    if isinstance(item, Text):
        return Text(_harmless(item.plain)) if not item.plain.isprintable() else item
    if isinstance(item, Table):
        item.title, item.caption = _harmless(item.title), _harmless(item.caption)
        for column in item.columns:
            column.header = _harmless(column.header)
            column._cells = [_harmless(cell) for cell in column._cells]
    return item


def take_settings(function: Any) -> Any:
    """Give a command one flag for each setting; `function` gets those that were given as the mapping `settings`."""

    def command(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in RunConfig.model_fields}
        function(settings={name: value for name, value in given.items() if value is not None}, **arguments)

    parameters = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "settings"]
    by_group = sorted(RunConfig.model_fields.items(), key=lambda item: GROUPS.index(field_extra(item[0])["group"]))
    for name, field in by_group:
        extra = field_extra(name)
        flag = "--" + name.replace("_", "-")
        is_flag = field.annotation is bool
        default = field.get_default(call_default_factory=True)
        shown = ",".join(default) if isinstance(default, list) else default
        unit = f" [{extra['unit']}]" if extra["unit"] else ""
        tail = "" if shown in ("", {}) or is_flag else f" Default: {shown}."
        option = typer.Option(
            *([f"{flag}/--no-{flag[2:]}"] if is_flag else [flag]),
            help=f"{field.description}{unit}{tail}",
            metavar=None if is_flag else "VALUE",
            show_default=False,
            rich_help_panel=extra["group"].capitalize(),
            autocompletion=completion.for_setting(name),
        )
        kind: Any = Optional[bool if is_flag else str]  # noqa: UP045 (typer reads it at run time on Python 3.10)
        annotation: Any = Annotated[kind, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command
