"""The command `sage-kit`. Heavy modules are imported inside the commands, so that `--help` stays instant."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import sage_kit
from sage_kit.config import GROUPS, PRESETS, RunConfig, field_extra, load_config, to_toml
from sage_kit.errors import DEBUG_VARIABLE, ConfigError, PluginError, SageError
from sage_kit.guard import counting_interrupts, show_traceback
from sage_kit.studies.commands import ResultsDir, study_app

TRACEBACK = "--traceback"
INTERRUPTED = 130

USAGE_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""Base of the command line's own errors; newer versions of typer bring their own copy of click."""

app = typer.Typer(
    name="sage-kit",
    help="Experiments in SAGE knowledge distillation: run, resume, look at and compare. "
    f"Where it ends with an error, {TRACEBACK} anywhere on the command line, or {DEBUG_VARIABLE}=1 in the environment, "
    "shows the traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PluginFiles = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
    typer.Option("--plugin", metavar="FILE", help="Load a one-file plugin. May be given more than once."),
]
ConfigFile = Annotated[str, typer.Option("--config", metavar="FILE", help="TOML file of settings.")]
Preset = Annotated[str, typer.Option("--preset", metavar="NAME", help=f"Named settings: {', '.join(PRESETS)}.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _load_plugins(files: list[str] | None) -> Any:
    from sage_kit.plugins import Plugins

    return Plugins(files or ())


def _print(*renderables: Any) -> None:
    from rich.console import Console

    # where there is no terminal, a table must not be folded to 80 columns
    # what stands in brackets, in a plugin's summary or a path, is no markup
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    for item in renderables:
        console.print(item)


def _take_settings(function: Any) -> Any:
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
        )
        kind: Any = Optional[bool if is_flag else str]  # noqa: UP045 (typer reads it at run time on Python 3.10)
        annotation: Any = Annotated[kind, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


@app.command("run")
@_take_settings
def run_command(
    *,
    settings: dict[str, Any],
    config: ConfigFile = "",
    preset: Preset = "",
    plugin: PluginFiles = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say where a round goes; the same as --trace.")] = False,
) -> None:
    """Distil a student and write a run directory.

    Settings come from the preset, then the TOML file, then the flags; `sage-kit config` prints them all.
    """
    if profile:
        settings["trace"] = True
    checked = load_config(settings, preset=preset, file=config)
    plugins = _load_plugins(plugin)
    from sage_kit.compatibility import check_choices

    check_choices(checked, plugins)  # before torch is imported: a misspelt name is answered at once
    from sage_kit.unused_settings import unused_settings

    usual = load_config()
    given = {
        name for name in checked.model_fields_set if name in settings or getattr(checked, name) != getattr(usual, name)
    }
    if unused := unused_settings(checked, plugins, given):
        typer.echo(f"sage-kit: {unused}", err=True)
    from sage_kit.distill import run

    directory, summary = run(checked, plugins, [str(Path(file).resolve()) for file in plugin or ()])
    _print_outcome(directory.path, {_arm_name(checked): summary})


@app.command()
def resume(directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")]) -> None:
    """Go on with a run that was interrupted, from its newest checkpoint."""
    from sage_kit.rundir import RunDirectory

    run_directory = RunDirectory.open(directory)
    config = run_directory.config()
    plugins = _load_plugins(run_directory.plugin_files())
    if run_directory.summary() is not None:
        _print(f"{directory} is finished already; nothing to do.")
    from sage_kit.distill import resume as resume_run

    summary = resume_run(run_directory, plugins)
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
    plugins = _load_plugins(None)
    from sage_kit.compatibility import check_choices

    settings = {"runs_dir": runs_dir, "seed": seed}
    if rounds is not None:
        settings["rounds"] = rounds
    # before torch is imported: a missing package is told at once
    check_choices(load_config({"task": "movie_reviews", **settings}), plugins)
    from sage_kit.quickstart import SMOKE_NOTE, compare_with_plain, quickstart_config
    from sage_kit.tables import comparison_table, evaluation_table

    if smoke:
        _print(SMOKE_NOTE)
    arms = compare_with_plain(quickstart_config(settings, smoke=smoke), plugins)
    summaries = {name: summary for name, (_, summary) in arms.items()}
    _print("", *filter(None, (comparison_table(summaries), evaluation_table(summaries))))
    if smoke:
        _print(SMOKE_NOTE)
    for name, (directory, _) in arms.items():
        _print(f"{name}: {directory.path}")
    _print(f"Look at a run: sage-kit show {arms['SAGE'][0].path}")


@app.command()
def show(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")],
    figures: Annotated[bool, typer.Option(help="Draw learning curves and the map as PNG.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print a run's tables and draw its learning curves and map."""
    from sage_kit.rundir import RunDirectory
    from sage_kit.tables import comparison_table, costs_table, evaluation_table, rounds_table

    run_directory = RunDirectory.open(directory)
    config = run_directory.config()
    summary, history = run_directory.summary(), run_directory.history()
    disabled = run_directory.disabled_observers()
    if as_json:
        rounds = {"rounds": [result.to_json() for result in history], "disabled_observers": disabled}
        typer.echo(json.dumps(summary or rounds, indent=2))
        return
    if summary:
        arms = {_arm_name(config): summary}
        _print(*filter(None, (comparison_table(arms), evaluation_table(arms))))
        _print(*_warnings(summary), f"Stopped: {summary['stopped']}.")
    else:
        _print(f"The run is not finished; go on with: sage-kit resume {directory}")
    _print_disabled(disabled)
    if not history:
        _print("No round is finished yet.")
        return
    primary = summary["primary_metric"] if summary else next(iter(history[-1].dev))
    _print(rounds_table(history, primary))
    costs = run_directory.path / "costs.json"
    if costs.exists():
        _print(costs_table(json.loads(costs.read_text(encoding="utf-8"))))
    if figures:
        from sage_kit.figures import draw_run

        for path in draw_run(run_directory):
            _print(f"Drawn: {path}")


@app.command("decode")
def decode_command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Run directory.")],
    decoder: Annotated[str, typer.Option(metavar="NAME", help="Decoder.")] = "nearest_token",
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
) -> None:
    """Read a run's synthetic examples: their token states as text, beside the text of their anchors."""
    from sage_kit.rundir import RunDirectory

    run_directory = RunDirectory.open(directory)
    files = dict.fromkeys(str(Path(file).resolve()) for file in [*run_directory.plugin_files(), *(plugin or ())])
    plugins = _load_plugins(list(files))
    given = _component_options(options)
    plugins.options("decoder", decoder, given)  # before torch is imported: a misspelt name is answered at once
    from sage_kit.decoding import decode_run
    from sage_kit.tables import decoding_table

    decoding = decode_run(
        run_directory, plugins, decoder, given, round=round, limit=limit,
        announce=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(decoding.to_json(), indent=2))
        return
    known = f"{decoding.accuracy:.1%} of the {decoding.counted}" if decoding.counted else "none of the 0"
    _print(f"Decoder {decoder!r} finds {known} {decoding.unit} of these anchors' real text, which is training text.")
    _print(decoding_table(decoding))


@app.command("scorecard")
@_take_settings
def scorecard_command(
    *,
    settings: dict[str, Any],
    config: ConfigFile = "",
    preset: Preset = "",
    plugin: PluginFiles = None,
    every_pair: Annotated[
        bool, typer.Option("--all", help="Score every reducer with every inverter that goes with it, and draw them.")
    ] = False,
    budget: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="With --all, time for all pairs.")] = 600.0,
    fine_tuned: Annotated[
        bool,
        typer.Option(
            "--fine-tuned/--pre-trained",
            help="Take the front end of the teacher fine-tuned on the task, as a run does, or of the checkpoint.",
        ),
    ] = False,
    points: Annotated[int, typer.Option(min=10, help="Most held-out vectors to score on.")] = 1000,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the scorecards.")] = "scorecards",
    as_json: AsJson = False,
) -> None:
    """Score how well vectors come back from a map, on held-out vectors beside baselines.

    Takes the settings of a run; task, teacher, reducer, n_components, inverter and their options count. The vectors are
    those of the checkpoint's front end unless --fine-tuned is given.
    """
    checked = load_config(settings, preset=preset, file=config)
    plugins = _load_plugins(plugin)
    # before torch is imported: a misspelt name is answered at once
    plugins.task(checked.task)
    for kind in ("reducer", "inverter"):
        name, options = checked.component_choice(kind)
        if kind in settings or not every_pair:
            plugins.options(kind, name, options)
    from sage_kit import scorecard
    from sage_kit.compatibility import check_choices
    from sage_kit.components import BuildContext
    from sage_kit.files import only_finite

    if not every_pair:
        check_choices(scorecard.scoring_config(checked), plugins)
    plugins.add_observer("progress", plugins.build("observer", "progress", {}, BuildContext(config=checked)))
    vectors = scorecard.load_vectors(checked, plugins, fine_tune=fine_tuned, points=points)
    if every_pair:
        grid = scorecard.score_grid(checked, plugins, vectors, budget=budget, out=out, plugin_files=plugin or ())
        picture = scorecard.draw_grid(grid)
        if as_json:
            typer.echo(json.dumps(only_finite(grid.to_json()), indent=2))
            return
        _print(scorecard.grid_table(grid), *scorecard.grid_notes(grid))
        _print(f"Saved: {grid.directory / 'grid.json'}", f"Drawn: {picture}")
        return
    card = scorecard.score_pair(checked, plugins, vectors)
    path = card.save(out)
    if as_json:
        typer.echo(json.dumps(only_finite(card.to_json()), indent=2))
        return
    _print(*scorecard.scorecard_tables(card), f"Saved: {path}")


@app.command("bench")
def bench_command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Bench; all of them unless given.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small and few: three minutes on two idle cores.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for JSON and PNG.")] = "benchmarks/results",
    as_json: AsJson = False,
) -> None:
    """Measure this project beside its peers on the same work, alternately, with the machine's ceilings.

    Benches: start, distill, synthesis, scale. Texts are GLUE's where the environment sets data_dir, else packaged
    reviews.
    """
    from sage_kit.bench import chosen_benches

    names = chosen_benches(name)  # before torch is imported: a misspelt name is answered at once
    data_dir = load_config().data_dir
    from sage_kit.bench import runner
    from sage_kit.bench.report import result_tables

    def tell(run: runner.BenchRun) -> None:
        if not as_json:
            _print("", f"{run.machine}", *result_tables(run.result), *run.result.notes)
            _print(f"{run.seconds:.0f} s. Saved: {', '.join(map(str, run.files))}")

    runs = runner.run_benches(
        names, quick=quick, out=Path(out), data_dir=data_dir,
        announce=lambda text: typer.echo(text, err=True), finished=tell,
    )  # fmt: skip
    if as_json:
        typer.echo(runner.as_json(runs))


app.add_typer(study_app, name="study")


@app.command("claims")
def claims_command(
    results: ResultsDir = "",
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Print the ledger: the paper's claims and open questions, and what the studies say of each."""
    from sage_kit.studies.claims import ledger_json, ledger_markdown, ledger_of, ledger_table, read_results
    from sage_kit.studies.places import result_folders

    found, faults = read_results(*result_folders(results))
    entries = ledger_of(found)
    for fault in faults:
        typer.echo(f"sage-kit: {fault}", err=True)
    if as_json:
        typer.echo(json.dumps(ledger_json(entries, faults), indent=2))
    elif markdown:
        typer.echo(ledger_markdown(entries))
    else:
        _print(ledger_table(entries))


@app.command("plugins")
def plugins_command(
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="Only components of this kind.")] = "",
) -> None:
    """List every component with its kind, summary, origin and capabilities, and the plugins in quarantine."""
    from sage_kit.errors import did_you_mean
    from sage_kit.plugins import KINDS

    plugins = _load_plugins(plugin)
    if kind and kind not in KINDS:
        raise ConfigError(f"Unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    items = plugins.components(kind or None)
    if as_json:
        listing = {
            "components": [
                {
                    "kind": item.spec.kind,
                    "name": item.spec.name,
                    "summary": item.spec.summary,
                    "distribution": item.origin.distribution,
                    "version": item.origin.version,
                    "capabilities": item.spec.capabilities(),
                    "requires": list(item.spec.requires),
                }
                for item in items
            ],
            "quarantined": [
                {
                    "plugin": bad.origin.plugin,
                    "distribution": bad.origin.distribution,
                    "version": bad.origin.version,
                    "component": bad.component,
                    "cause": bad.cause,
                }
                for bad in plugins.quarantined
            ],
        }
        typer.echo(json.dumps(listing, indent=2))
        return
    from rich.table import Table

    table = Table()
    for heading in ("kind", "name", "summary", "origin", "capabilities"):
        table.add_column(heading)
    for item in items:
        table.add_row(
            item.spec.kind.replace("_", " "), item.spec.name, item.spec.summary, str(item.origin),
            _capabilities_text(item.spec.capabilities()),
        )  # fmt: skip
    _print(table)
    for bad in plugins.quarantined:
        typer.echo(f"In quarantine: {bad}: {bad.cause}")


@app.command("check")
def check_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Component to check; may be left out with --plugin.")
    ] = "",
    kind: Annotated[str, typer.Option(metavar="KIND", help="Only components of this kind.")] = "",
    plugin: PluginFiles = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="Processor time that each check may take.")
    ] = 120.0,
) -> int:
    """Run the conformance checks of a component, or of all that the plugin files contribute.

    Each component is checked in a process of its own. The exit status is 0 when no check failed and none was left out
    for a missing package.
    """
    plugins = _load_plugins(plugin)
    from sage_kit.testing.report import check_all, chosen_components

    tables, ok = check_all(chosen_components(plugins, name, kind, plugin or []), plugin or [], time_limit)
    _print(*tables)
    return 0 if ok else 1


@app.command("new-plugin")
def new_plugin_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="reducer, sampler, inverter, lift, filter, decoder, task, observer or stop_rule.",
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component.")],
    dest: Annotated[str, typer.Option(metavar="DIR", help="Folder that gets the new distribution.")] = "plugins",
    register: Annotated[
        bool, typer.Option("--register", help="Make it part of the clone of sage-kit's repository that DIR lies in.")
    ] = False,
) -> None:
    """Write an installable plugin distribution that passes its checks, to start your own from."""
    from sage_kit.registration import new_registered_plugin
    from sage_kit.scaffold import distribution_name, new_plugin, next_steps

    taken = next((item for item in _load_plugins([]).components(kind) if item.spec.name == name), None)
    # a plugin that is installed from the repository may still have to be registered
    if taken is not None and not (register and taken.origin.distribution == distribution_name(name)):
        raise ConfigError(
            f"there is a {kind.replace('_', ' ')} {name!r} already (from {taken.origin}): choose another name"
        )
    if register:
        folder, changed = new_registered_plugin(kind, name, dest)
        typer.echo(next_steps(folder, kind, name, changed, is_registered=True))
    else:
        typer.echo(next_steps(new_plugin(kind, name, dest), kind, name))


@app.command("config")
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


@app.command("cache")
def cache_command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries instead of listing them.")] = False,
    kind: Annotated[str, typer.Option(metavar="KIND", help="Only entries of this kind.")] = "",
    cache_dir: Annotated[str, typer.Option(metavar="DIR", help="Folder of the cache.")] = "",
) -> None:
    """List what is cached (teachers, vectors, labels, maps), or clear it."""
    from sage_kit.cache import Cache

    directory = Path(cache_dir or load_config().cache_dir).expanduser()
    cache = Cache(directory, _print)
    if clear:
        freed = cache.clear(kind)
        _print(f"{directory}: {freed / 1e6:,.1f} MB freed")
        return
    from rich.table import Table

    entries = [entry for entry in cache.entries() if not kind or entry.kind == kind]
    table = Table(title=str(directory), title_justify="left")
    for heading in ("kind", "key", "created", "MB", "about"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for entry in entries:
        about = ", ".join(f"{name}: {value}" for name, value in entry.about.items())
        table.add_row(entry.kind, entry.key[:8], entry.created, f"{entry.bytes / 1e6:,.1f}", about)
    _print(table, f"{len(entries)} entries, {sum(entry.bytes for entry in entries) / 1e6:,.1f} MB")


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
) -> None:
    pass


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


def _arm_name(config: RunConfig) -> str:
    return "plain distillation" if config.schedule == "none" else "SAGE"


def _warnings(summary: dict[str, Any]) -> list[Any]:
    """What a run warned of before it trained, as it stands in the summary; none in summaries of earlier versions."""
    from rich.text import Text

    # text, since brackets would be taken for markup
    return [Text(warning) for warning in summary["teacher"].get("report", {}).get("warnings", ())]


def _print_outcome(path: Path, arms: dict[str, Any]) -> None:
    from sage_kit.tables import comparison_table, evaluation_table

    summary = next(iter(arms.values()))
    _print("", *filter(None, (comparison_table(arms), evaluation_table(arms))))
    _print(*_warnings(summary), f"Stopped: {summary['stopped']}.", f"Run directory: {path}")
    _print_disabled(summary["disabled_observers"])
    _print(f"Student (plain transformers checkpoint): {path / 'student'}", f"Look at it: sage-kit show {path}")


def _print_disabled(disabled: dict[str, str]) -> None:
    """The observers that failed in a run, so that nobody takes what they have left for all there was."""
    for name, cause in disabled.items():
        typer.echo(f"Disabled in the run: {name}: {cause}")


def _capabilities_text(capabilities: dict[str, Any]) -> str:
    parts = []
    for name, value in capabilities.items():
        text = name.replace("_", " ")
        if value is True:
            parts.append(text)
        elif value not in (False, None, "", [], ()):
            parts.append(f"{text}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
    return "; ".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    # Threads that wait for each other by spinning slow a busy machine down manyfold; sleeping costs an idle one little.
    # OpenMP reads this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    if TRACEBACK in options:
        arguments = [word for word in options if word != TRACEBACK] + given[len(options) :]
        os.environ[DEBUG_VARIABLE] = "1"  # processes that are started see it, too
    try:
        with counting_interrupts():
            code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # what newer versions of typer make of KeyboardInterrupt; no command of ours returns it
            raise KeyboardInterrupt
    except USAGE_ERROR as error:
        _fail(error.format_message(), error.exit_code)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; a run goes on from its last checkpoint with `sage-kit resume DIR`", INTERRUPTED)
    except SageError as error:
        show_traceback(error)
        _fail(_message(error), error.exit_code)
    except OSError as error:
        show_traceback(error)
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
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
    print(f"sage-kit: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
