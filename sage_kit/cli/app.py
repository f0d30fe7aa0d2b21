"""The command `sage-kit`. Heavy modules are imported inside the commands, so that `--help` stays instant."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import sage_kit
from sage_kit.cli import (
    component_commands,
    doctor_commands,
    explore_commands,
    export_commands,
    inference_commands,
    run_commands,
    search_commands,
    sharing_commands,
    submission_commands,
    worth_commands,
)
from sage_kit.cli.completion import words_so_far
from sage_kit.cli.options import INTERRUPTED, USAGE_ERROR, ConfigFile, Preset, make_table, print_all
from sage_kit.cli.plugin_commands import with_plugin_commands
from sage_kit.cli.study_commands import claims_app, study_app
from sage_kit.cli.verbosity import LogLevel, Quiet, Verbose, on_every_command, own_level, take_flags
from sage_kit.components.guard import counting_interrupts, show_traceback
from sage_kit.config import RunConfig, load_config, to_toml
from sage_kit.errors import DEBUG_VARIABLE, PluginError, SageError, is_out_of_memory, one_line, printable

TRACEBACK = "--traceback"

app = typer.Typer(
    name="sage-kit",
    help="Experiments in SAGE knowledge distillation: run, resume, look at and compare. "
    f"Where it ends with an error, {TRACEBACK} anywhere on the command line, or {DEBUG_VARIABLE}=1 in the environment, "
    "shows the traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
settings_app = typer.Typer()
app.add_typer(run_commands.app)
app.add_typer(explore_commands.app)
app.add_typer(inference_commands.app)
app.add_typer(export_commands.app)
app.add_typer(worth_commands.app)
app.add_typer(sharing_commands.app)
app.add_typer(submission_commands.app)
app.add_typer(search_commands.app)
app.add_typer(study_app, name="study")
app.add_typer(claims_app)
app.add_typer(component_commands.app)
app.add_typer(settings_app)
app.add_typer(doctor_commands.app)


@settings_app.command("config")
def config_command(
    preset: Preset = "",
    config: ConfigFile = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the settings instead.")] = False,
) -> None:
    """Print every setting as commented TOML, which `sage-kit run --config` reads back."""
    if schema:
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
        return
    typer.echo(to_toml(load_config(preset=preset, file=config)), nl=False)


@settings_app.command("cache")
def cache_command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries instead of listing them.")] = False,
    kind: Annotated[str, typer.Option(metavar="KIND", help="Only entries of this kind.")] = "",
    cache_dir: Annotated[str, typer.Option(metavar="DIR", help="Folder of the cache.")] = "",
) -> None:
    """List what is cached (teachers, vectors, labels, maps), or clear it."""
    from sage_kit.storage.cache import Cache

    directory = Path(cache_dir or load_config().cache_dir).expanduser()
    cache = Cache(directory, print_all)
    if clear:
        freed = cache.clear(kind)
        print_all(f"{directory}: {freed / 1e6:,.1f} MB freed")
        return
    entries = [entry for entry in cache.entries() if not kind or entry.kind == kind]
    table = make_table("kind", "key", "created", "MB", "about", title=str(directory))
    for entry in entries:
        about = ", ".join(f"{name}: {value}" for name, value in entry.about.items())
        table.add_row(entry.kind, entry.key[:8], entry.created, f"{entry.bytes / 1e6:,.1f}", about)
    print_all(table, f"{len(entries)} entries, {sum(entry.bytes for entry in entries) / 1e6:,.1f} MB")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"sage-kit {sage_kit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    # `main` takes it from wherever it stands; it is declared for the help
    traceback: Annotated[
        bool,
        typer.Option(
            TRACEBACK, help=f"Show the traceback of an error, as {DEBUG_VARIABLE}=1 does; may stand behind the command."
        ),
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
    log_level: LogLevel = "",
) -> None:
    take_flags(verbose, quiet, log_level)


on_every_command(app)


def main(arguments: list[str] | None = None, command: typer.Typer = app) -> None:
    """Run a command line; a user's mistake is one line on stderr and exit code 2."""
    # Threads that wait for each other by spinning slow a busy machine down manyfold; sleeping costs an idle one little.
    # OpenMP reads this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of bytes that are no UTF-8 is shown with escapes
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    if TRACEBACK in options:
        given = [word for word in options if word != TRACEBACK] + given[len(options) :]
        os.environ[DEBUG_VARIABLE] = "1"  # processes that are started see it, too
    try:
        with counting_interrupts(), own_level():
            called = with_plugin_commands(app, words_so_far() or given) if command is app else command
            code = called(given, standalone_mode=False)
        if code == INTERRUPTED:  # what newer versions of typer make of KeyboardInterrupt; no command of ours returns it
            raise KeyboardInterrupt
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help, of many lines
            error.show()  # type: ignore[attr-defined]
            sys.exit(error.exit_code)  # type: ignore[attr-defined]
        _fail(error.format_message(), error.exit_code)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; a run goes on from its last checkpoint with `sage-kit resume DIR`", INTERRUPTED)
    except SageError as error:
        show_traceback(error)
        _fail(_message(error), error.exit_code)
    except OSError as error:
        show_traceback(error)
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        show_traceback(error)
        _fail(f"memory ran out ({one_line(error, 100)}): lower what is large, such as batch_tokens or student_ffn", 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _message(error: SageError) -> str:
    """An error's line; where a plugin raised something of its own, it says how to see the traceback."""
    text = str(error)
    if not isinstance(error, PluginError) or error.__cause__ is None or os.environ.get(DEBUG_VARIABLE):
        return text
    tail = f" at {error.place}" if error.place else ""
    return f"{text.removesuffix(tail)} ({TRACEBACK} or {DEBUG_VARIABLE}=1 shows more){tail}"


def _fail(message: str, code: int) -> None:
    print(f"sage-kit: {printable(message)}", file=sys.stderr)
    sys.exit(code)
