"""The commands that plugins add to `sage-kit`, loaded where the command line may mean one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer

from sage_kit.cli.options import USAGE_ERROR, warn
from sage_kit.cli.verbosity import LEVEL_FLAG
from sage_kit.components.guard import Failure, attempt, plugin_error

HELP = ("-h", "--help")


def with_plugin_commands(app: typer.Typer, given: Sequence[str]) -> Any:
    """The command line to call: the app's own, with what plugins add where none of its commands is named.

    A plugin whose commands cannot be taken is told in a line on standard error, and the others go on.

    Parameters
    ----------
    app : typer.Typer
        Stays as it is.
    given : sequence of str
        The words of the command line.
    """
    group: Any = typer.main.get_command(app)
    command = next(
        (word for before, word in zip(["", *given], given, strict=False) if _may_be_command(before, word)), None
    )
    wants_help = not given or (command is None and set(given) & set(HELP))
    if command in group.commands or not (command or wants_help):
        return group
    from sage_kit.components.plugins import Plugins

    owners = dict.fromkeys(group.commands, "sage-kit")
    for plugin, own in Plugins().commands(typer.Typer):
        if isinstance(own, Exception):
            warn(str(own))
            continue
        for name, added in _commands_of(own):
            if name in owners:
                warn(f"command {name!r} of plugin {plugin} is left out: {owners[name]} has one of that name")
                continue
            owners[name] = f"plugin {plugin}"
            _guard(added, f"command {name!r} of plugin {plugin}")
            group.add_command(added, name)
    return group


def _may_be_command(before: str, word: str) -> bool:
    """Whether a word is none of the options that stand in front of the command, nor the value of one."""
    return not word.startswith("-") and before != LEVEL_FLAG


def _commands_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_group(app)
    yield from group.commands.items()


def _guard(command: Any, title: str) -> None:
    """Let what the plugin's code raises become a PluginError; exits, usage errors and Ctrl-C stay what they are."""
    for inner in getattr(command, "commands", {}).values():
        _guard(inner, title)
    callback: Callable[..., Any] | None = command.callback
    if callback is None:
        return

    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return attempt(lambda: callback(*arguments, **named))
        except Failure as failure:
            if isinstance(failure.error, (typer.Exit, typer.Abort, SystemExit, USAGE_ERROR)):
                raise failure.error from None
            raise plugin_error(title, failure.error, callback) from failure.error

    command.callback = guarded
