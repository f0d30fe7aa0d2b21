"""The commands around a run: run, resume, quickstart, show, decode."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sage_kit.cli import completion
from sage_kit.cli.options import (
    LOGGER,
    AsJson,
    ConfigFile,
    PluginFiles,
    Preset,
    TrustPlugins,
    announce,
    load_plugins,
    make_table,
    print_all,
    take_settings,
    warn,
)
from sage_kit.config import RunConfig, load_config
from sage_kit.errors import ConfigError, RunDirectoryError, SageError, one_line

app = typer.Typer()

MOST_FAULTS = 10
"""Most lines on damaged files beside the last."""


@app.command("run")
@take_settings
def run_command(
    *,
    settings: dict[str, Any],
    config: ConfigFile = "",
    preset: Preset = "",
    plugin: PluginFiles = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say where a round goes; the same as --trace.")] = False,
    check_only: Annotated[
        bool,
        typer.Option(
            "--check-only",
            help="Check everything, show settings, components, steps, time and disk, and start nothing.",
        ),
    ] = False,
) -> None:
    """Distil a student and write a run directory.

    Settings come from the preset, then the TOML file, then the flags; `sage-kit config` prints them all.
    """
    if profile:
        settings["trace"] = True
    checked = load_config(settings, preset=preset, file=config)
    plugins = load_plugins(plugin)
    from sage_kit.recipe import resolve
    from sage_kit.unused_settings import unused_settings

    recipe = resolve(checked, plugins)  # before torch is imported: a misspelt name is answered at once
    usual = load_config()
    given = {
        name for name in checked.model_fields_set if name in settings or getattr(checked, name) != getattr(usual, name)
    }
    if unused := unused_settings(recipe, given):
        warn(unused)
    from sage_kit.cli.run_preview import component_rows, origins, preview_lines, setting_rows

    origin_of = origins(checked, settings, preset, config)
    if check_only:
        tables = make_table("group", "setting", "value", "from"), make_table("kind", "component", "from", "options")
        lines = preview_lines(recipe, plugins)  # before anything is shown: it may be an error
        for row in setting_rows(checked, origin_of):
            tables[0].add_row(*row)
        for row in component_rows(recipe):
            tables[1].add_row(*row)
        print_all(*tables, *lines, "Nothing was started or written.")
        return
    for name, origin in origin_of.items():
        if origin != "default":
            LOGGER.debug("%s = %r, from %s", name, getattr(checked, name), origin)
    from sage_kit.distill import run

    directory, summary = run(checked, plugins, [str(Path(file).resolve()) for file in plugin or ()])
    if _is_first_process():
        _write_card(directory.path, plugins)
        _print_outcome(directory.path, {_arm_name(checked): summary})


@app.command()
def resume(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")],
    plugin: PluginFiles = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Go on with a run that was interrupted, from its newest checkpoint.

    Python files that the run began with as plugins are executed only where they are named again, or trusted.
    """
    from sage_kit.rundir import RunDirectory

    run_directory = RunDirectory.open(directory)
    config = run_directory.config()
    plugins = load_plugins(run_directory.trusted_plugins(plugin or (), trust=trust_plugins, announce=announce))
    if run_directory.summary() is not None:
        run_directory.require_whole()
        print_all(f"{directory} is finished already; nothing to do.")
    from sage_kit.distill import resume as resume_run

    summary = resume_run(run_directory, plugins)
    if _is_first_process():
        _write_card(run_directory.path, plugins)
        _print_outcome(run_directory.path, {_arm_name(config): summary})


@app.command()
def quickstart(
    runs_dir: Annotated[str, typer.Option(metavar="DIR", help="Folder for the two run directories.")] = "runs",
    seed: Annotated[int, typer.Option(help="Seed of both arms.")] = 0,
    rounds: Annotated[
        Optional[int],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(help="Rounds of the SAGE arm.", show_default="7, in a smoke run 2"),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Only show that it runs, on a few hundred reviews.")] = False,
) -> None:
    """Fine-tune a packaged teacher on packaged reviews; distil it with SAGE and, for as many steps, plainly."""
    plugins = load_plugins(None)
    from sage_kit.recipe import resolve

    settings = {"runs_dir": runs_dir, "seed": seed}
    if rounds is not None:
        settings["rounds"] = rounds
    # before torch is imported: a missing package is told at once
    resolve(load_config({"task": "movie_reviews", **settings}), plugins)
    from sage_kit.quickstart import PLAIN_SETTINGS, SMOKE_NOTE, compare_with_plain, quickstart_config
    from sage_kit.reports.tables import outcome_tables

    if smoke:
        print_all(SMOKE_NOTE)
    arms = compare_with_plain(quickstart_config(settings, smoke=smoke), plugins, plain=PLAIN_SETTINGS)
    summaries = {name: summary for name, (_, summary) in arms.items()}
    print_all("", *outcome_tables(summaries))
    if smoke:
        print_all(SMOKE_NOTE)
    for name, (directory, _) in arms.items():
        _write_card(directory.path, plugins)
        print_all(f"{name}: {directory.path}")
    print_all(f"Look at a run: sage-kit show {arms['SAGE'][0].path}")


@app.command()
def show(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")],
    figures: Annotated[bool, typer.Option(help="Draw learning curves and the map as PNG.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print a run's tables and draw its learning curves and map."""
    from sage_kit.reports.tables import (
        comparison_table,
        costs_table,
        evaluation_table,
        primary_of,
        rounds_table,
        splits_table,
    )
    from sage_kit.rundir import RunDirectory
    from sage_kit.storage.files import only_finite

    run_directory = RunDirectory.open(directory)
    faults: list[str] = []

    def attempt(read: Callable[[], Any], what: str = "") -> Any:
        """What can be read; of what cannot, the rest of the page is shown all the same."""
        try:
            return read()
        except SageError as error:
            faults.append(str(error))
        # of values that have the right type and make no sense together, such as scores of no metric
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            faults.append(f"{what} cannot be shown ({type(error).__name__}: {one_line(error, 100)})")
        return None

    config = attempt(run_directory.config)
    summary = attempt(lambda: run_directory.summary(lenient=True))
    is_unknown = summary is None and bool(faults) and run_directory.is_finished
    faults += summary.faults if summary is not None else ()
    history = attempt(run_directory.history) or []
    disabled = attempt(run_directory.disabled_observers) or {}
    faults += run_directory.damage()
    if as_json:
        rounds = {"rounds": [result.to_json() for result in history], "disabled_observers": disabled}
        typer.echo(json.dumps(only_finite(summary or rounds), indent=2))
        _tell_of_faults(directory, faults)
        return
    if summary is not None:
        arms = {_arm_name(config): summary}
        for table in (comparison_table, splits_table, evaluation_table):
            found = attempt(partial(table, arms), "a table of scores")
            print_all(*([found] if found is not None else []))
        print_all(*(attempt(lambda: _warnings(summary), "warnings") or []))
        print_all(*(attempt(lambda: [f"Stopped: {summary['stopped']}."]) or []))
        if summary.get("exported_round", len(history)) != len(history):
            print_all(f"Exported: round {summary['exported_round']}, the best on dev.")
    elif not is_unknown:
        print_all(f"The run is not finished; go on with: sage-kit resume {directory}")
    _print_disabled(disabled)
    if not history:
        print_all("No round is finished yet." if not faults else "No round can be shown.")
        _tell_of_faults(directory, faults)
        return
    primary = attempt(lambda: primary_of(summary, history))
    if primary is not None:
        table = attempt(lambda: rounds_table(history, primary), "the table of rounds")
        print_all(*([table] if table is not None else []))
    if run_directory.has_costs:
        table = attempt(lambda: costs_table(run_directory.costs()), "costs.json")
        print_all(*([table] if table is not None else []))
    if figures and primary is not None:
        from sage_kit.reports.figures import draw_run

        for path in attempt(lambda: draw_run(run_directory), "a figure") or []:
            print_all(f"Drawn: {path}")
    _tell_of_faults(directory, faults)


def _tell_of_faults(directory: str, faults: list[str]) -> None:
    """Name on the error output what of a run cannot be read, and end with an error where there was something."""
    if faults:
        first, *others = dict.fromkeys(faults)
        for line in others[:MOST_FAULTS]:
            announce(line)
        more = f" (and {len(others) - MOST_FAULTS} more)" if len(others) > MOST_FAULTS else ""
        raise RunDirectoryError(f"{directory} is damaged: {first}{more}")


@app.command("decode")
def decode_command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")],
    decoder: Annotated[
        str, typer.Option(metavar="NAME", help="Decoder.", autocompletion=completion.decoders)
    ] = "nearest_token",
    options: Annotated[
        str, typer.Option(metavar="VALUE", help="Options of the decoder, name=value pairs separated by commas.")
    ] = "",
    round: Annotated[
        Optional[int],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(metavar="N", help="Round; the last one with synthetic examples unless given."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most examples to show.")] = 10,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Read a run's synthetic examples: their token states as text, beside the text of their anchors."""
    from sage_kit.rundir import RunDirectory

    run_directory = RunDirectory.open(directory)
    plugins = load_plugins(run_directory.trusted_plugins(plugin or (), trust=trust_plugins, announce=announce))
    given = _component_options(options)
    plugins.options("decoder", decoder, given)  # before torch is imported: a misspelt name is answered at once
    from sage_kit.reports.decoding import decode_run
    from sage_kit.reports.tables import decoding_table

    decoding = decode_run(
        run_directory, plugins, decoder, given, round=round, limit=limit,
        announce=lambda text: announce(text, prefix=""),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(decoding.to_json(), indent=2))
        return
    known = f"{decoding.accuracy:.1%} of the {decoding.counted}" if decoding.counted else "none of the 0"
    print_all(f"Decoder {decoder!r} finds {known} {decoding.unit} of these anchors' real text, which is training text.")
    print_all(decoding_table(decoding))


def _component_options(text: str) -> dict[str, Any]:
    """Options of a component as a table, from the text that the settings take for such tables."""
    from pydantic import TypeAdapter, ValidationError

    from sage_kit.config import Table

    try:
        table: dict[str, Any] = TypeAdapter(Table).validate_python(text)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"options is {text!r}: {problem}") from None
    return table


def _arm_name(config: RunConfig | None) -> str:
    if config is None:
        return "student"
    return "plain distillation" if config.schedule == "none" else "SAGE"


def _warnings(summary: dict[str, Any]) -> list[Any]:
    """What a run warned of before it trained, as it stands in the summary; none in summaries of earlier versions."""
    from rich.text import Text

    # text, since brackets would be taken for markup
    return [Text(warning) for warning in summary["teacher"].get("report", {}).get("warnings", ())]


def _print_outcome(path: Path, arms: dict[str, Any]) -> None:
    from sage_kit.reports.tables import outcome_tables

    summary = next(iter(arms.values()))
    print_all("", *outcome_tables(arms))
    print_all(*_warnings(summary), f"Stopped: {summary['stopped']}.", f"Run directory: {path}")
    _print_disabled(summary["disabled_observers"])
    print_all(f"Student (plain transformers checkpoint): {path / 'student'}", f"Look at it: sage-kit show {path}")


def _is_first_process() -> bool:
    """Whether this is the process that speaks for a run, of several that a launcher started."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _write_card(path: Path, plugins: Any) -> None:
    """Write the card of the run that has just ended; where that fails, the run is none the worse."""
    from sage_kit.inference.model_card import write_model_card

    try:
        write_model_card(path, plugins)
    except SageError as error:
        warn(f"no model card: {error}")


def _print_disabled(disabled: dict[str, str]) -> None:
    """The observers that failed in a run, so that nobody takes what they have left for all there was."""
    for name, cause in disabled.items():
        typer.echo(f"Disabled in the run: {name}: {cause}")
