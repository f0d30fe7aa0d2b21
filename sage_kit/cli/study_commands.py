"""The commands `sage-kit study`: list, run, plan, status, verify, report; and `sage-kit claims`.

Whatever takes time to import is imported inside them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sage_kit.cli import completion
from sage_kit.cli.options import AsJson, announce, make_table, print_all, warn
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.places import CELLS, RESULTS, SHARED_RESULTS, in_project, result_folders, shown

if TYPE_CHECKING:
    from sage_kit.studies.verification import Check

study_app = typer.Typer(
    help="The studies: notebooks that ask one question each. List them, run them alone or in grids, look at them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

claims_app = typer.Typer()

Notebooks = Annotated[
    str,
    typer.Option(
        "--notebooks",
        metavar="DIR",
        help="Folder of the notebooks.",
        show_default="the project's, or the packaged ones",
    ),
]
CellsOut = Annotated[
    str,
    typer.Option(
        "--out", metavar="DIR", help="Folder of the executed notebooks.", show_default=f"{CELLS} of the project"
    ),
]
ResultsDir = Annotated[
    str,
    typer.Option(
        "--results",
        "--results-dir",
        metavar="DIR",
        help="Folder of the studies' results.",
        show_default=f"{SHARED_RESULTS} and {RESULTS} of the project",
    ),
]
Name = Annotated[
    str,
    typer.Argument(
        metavar="[NAME]",
        help="Study: its name, its number, or the beginning of its name.",
        autocompletion=completion.studies,
    ),
]
# `Optional`, since typer reads these annotations at run time on Python 3.10
Parameters = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Parameter; may be given more than once."),
]
Profile = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Size: smoke, small, medium or full; short for -p.",
        autocompletion=completion.profiles,
    ),
]
Grid = Annotated[str, typer.Option("--grid", metavar="FILE", help="Grid of cells: a .toml, .json or .yaml file.")]
PluginFiles = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--plugin", metavar="FILE", help="Load a one-file plugin. May be given more than once."),
]


@study_app.command("list")
def list_command(notebooks: Notebooks = "", as_json: AsJson = False) -> None:
    """List the studies: name, title and question."""
    from sage_kit.studies.parameters import describe_notebook, list_notebooks, notebooks_folder

    folder = notebooks_folder(notebooks)
    studies = [(path, *describe_notebook(path)) for path in list_notebooks(folder)]
    if as_json:
        listing = [
            {"study": path.stem, "title": title, "question": question, "notebook": str(path)}
            for path, title, question in studies
        ]
        typer.echo(json.dumps(listing, indent=2))
        return
    table = make_table("study", "title", "question")
    for path, title, question in studies:
        table.add_row(path.stem, title, question)
    print_all(table, f"{len(studies)} in {folder}")


@study_app.command("run")
def run_command(
    name: Name = "",
    parameter: Parameters = None,
    profile: Profile = "",
    grid: Grid = "",
    jobs: Annotated[int, typer.Option(metavar="N", help="Cells at a time; they share the cores.")] = 1,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="joblib (processes of this machine) or dask (a cluster).")
    ] = "joblib",
    scheduler: Annotated[str, typer.Option(metavar="ADDRESS", help="Scheduler of the dask cluster.")] = "",
    scheduler_security: Annotated[
        str, typer.Option(metavar="FILE", help="TOML file that names the certificates of a tls:// scheduler.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Execute cells that are done too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells, which are done, and about how long the others take.")
    ] = False,
    out: CellsOut = "",
    notebooks: Notebooks = "",
    plugin: PluginFiles = None,
) -> int:
    """Execute a study, or the cells of a grid. Cells that are done already are not executed again.

    Exit codes: 0 all done, 1 a cell failed or was left, 2 bad parameters (nothing was started), 130 interrupted.
    """
    from sage_kit.studies.backends import check_backend, run_cells
    from sage_kit.studies.dask_cluster import Scheduler
    from sage_kit.studies.grid import grid_cells
    from sage_kit.studies.parameters import notebooks_folder

    overrides = _overrides(parameter or [], profile, plugin or [])
    cells = grid_cells(notebooks_folder(notebooks), in_project(out, CELLS), name, grid, overrides)

    reached = Scheduler(scheduler, scheduler_security) if scheduler or scheduler_security else None

    if dry_run:
        from sage_kit.studies.dry_run import expected_cells, total_text

        check_backend(backend, jobs, reached)
        expected = expected_cells(cells, again=again)
        print_all(_expected_table(expected), total_text(expected, jobs))
        return 0

    def tell(line: str) -> None:
        announce(line, prefix="")

    if len(cells) > 1:
        tell(f"{len(cells)} cells; what they print is in {shown(cells[0].out)}/*/*/log.txt")
    try:
        outcomes = run_cells(cells, backend, jobs, reached, again=again, announce=tell)
    except KeyboardInterrupt:
        typer.echo("sage-kit: interrupted; what is done is kept, and the same command goes on from there", err=True)
        sys.exit(130)  # a returned 130 is what typer makes of an interruption that nobody has told yet
    print_all(_outcomes_table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    for outcome in failed:
        typer.echo(
            f"sage-kit: {outcome.cell.name} {outcome.state}: {outcome.error}; see {outcome.cell.directory}", err=True
        )
    return 1 if failed else 0


@study_app.command("plan")
def plan_command(
    name: Name = "",
    parameter: Parameters = None,
    profile: Profile = "",
    grid: Grid = "",
    notebooks: Notebooks = "",
    plugin: PluginFiles = None,
) -> int:
    """Tell which differences a study can detect, how many runs it makes and about how long they take.

    Executes its notebook up to the first run: some seconds for each cell, in which no teacher is trained and nothing is
    saved. Arms that a notebook makes of its first results come on top.

    Exit codes: 0 all planned, 1 a notebook failed, 2 bad parameters.
    """
    from sage_kit.studies.grid import grid_cells
    from sage_kit.studies.parameters import notebooks_folder
    from sage_kit.studies.plan_only import PLANNED, plan_cell
    from sage_kit.studies.runner import parameters_text

    overrides = _overrides(parameter or [], profile, plugin or [])
    is_good = True
    for cell in grid_cells(notebooks_folder(notebooks), in_project("", CELLS), name, grid, overrides):
        typer.echo(f"{cell.study}: {parameters_text(cell.parameters)}")
        outcome = plan_cell(cell, lambda line: typer.echo(f"  {line}"))
        if outcome.state != PLANNED:
            is_good = False
            typer.echo(f"sage-kit: {cell.study} has no plan: {outcome.error}", err=True)
    return 0 if is_good else 1


@study_app.command()
def status(out: CellsOut = "", as_json: AsJson = False) -> None:
    """List the cells with their state, and the last line that each logged."""
    from sage_kit.studies.runner import find_cells, parameters_text

    folder = in_project(out, CELLS)
    records = find_cells(folder)
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    table = make_table("study", "key", "state", "started", "seconds", "parameters", "last line of the log")
    for record in records:
        seconds = record.get("seconds")
        table.add_row(
            record["study"], record["key"][:8], record["state"], record.get("started") or "",
            "" if seconds is None else f"{seconds:.1f}", parameters_text(record["parameters"]),
            record["error"] or record["last_line"],
        )  # fmt: skip
    counts = sorted(Counter(record["state"] for record in records).items())
    print_all(table, ", ".join(f"{count} {state}" for state, count in counts) or f"No cells in {shown(folder)}.")


@study_app.command()
def report(
    out: Annotated[str, typer.Option(metavar="FILE", help="The page.")] = "report.html",
    results: ResultsDir = "",
    cells: Annotated[
        str,
        typer.Option(metavar="DIR", help="Folder of the executed notebooks.", show_default=f"{CELLS} of the project"),
    ] = "",
) -> None:
    """Build one HTML page of every result: verdicts, figures, and a table of the numbers.

    Beside FILE lie its findings as CSV and parquet, under its name. A result that is broken is told on standard error
    and in the page; the others are shown, and the exit code stays 0, as with `sage-kit claims`.
    """
    from sage_kit.studies.gallery import build_gallery

    gallery = build_gallery(results_dir=result_folders(results), out=Path(out), cells_dir=in_project(cells, CELLS))
    for fault in gallery.faults:
        warn(str(fault))
    if not gallery.results:
        warn("there is no whole result yet: `sage-kit study run NAME` makes one")
    print_all(f"Saved: {gallery.page}, {gallery.csv.name}, {gallery.parquet.name}")


@study_app.command()
def verify(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Study: its name, its number, or the beginning; all without it.",
            autocompletion=completion.studies,
        ),
    ] = "",
    every_seed: Annotated[bool, typer.Option("--all", help="Execute every run, not one of each arm.")] = False,
    seed: Annotated[
        Optional[int],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(metavar="N", help="Which run of each arm.", show_default="the smallest seed"),
    ] = None,
    label: Annotated[str, typer.Option(metavar="LABEL", help="Only the result in the folder of this name.")] = "",
    results: ResultsDir = "",
    plugin: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option("--plugin", metavar="FILE", help="One-file plugin of the result. May be given more than once."),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Where all are equal, let studies find the runs by the code that is here.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Execute runs of saved results again, in a temporary folder, and compare their predictions with those saved.

    A study finds no runs that were made before the code changed. With --renew, the runs of a result whose predictions
    are equal in every bit count as made by the code that is here, and say so.

    Exit codes: 0 every run that was executed is equal or within tolerance, 1 one differs or cannot be executed, or a
    result is not renewed.
    """
    from sage_kit.studies.parameters import pick_study
    from sage_kit.studies.result import find_folders

    if every_seed and seed is not None:
        raise StudyError("both --all and --seed are given: leave one out")
    folders = [folder for place in result_folders(results) for folder in find_folders(place)]
    where = ", ".join(shown(place) for place in result_folders(results)) or "this project"
    if name:
        study = pick_study(name, {folder.parent.name for folder in folders}, where)
        folders = [folder for folder in folders if folder.parent.name == study]
    if label:
        known = [folder.name for folder in folders]
        folders = [folder for folder in folders if folder.name == label]
        if not folders:
            raise StudyError(f"there is no result {label!r}.{did_you_mean(label, known, 'Results')}")
    if not folders:
        raise StudyError(f"there are no results in {where}: name their folder with --results")

    from sage_kit.studies.verification import MEANINGS, verify_folder

    def tell(line: str) -> None:
        announce(line, prefix="")

    checks, is_renewed = [], True
    for folder in folders:
        found = verify_folder(folder, seed=seed, every_seed=every_seed, plugin_files=plugin or (), announce=tell)
        checks += found
        if renew:
            is_renewed &= _renew(folder, found, plugin or [], tell)
    if as_json:
        from sage_kit.storage.files import only_finite

        typer.echo(json.dumps(only_finite([{**vars(check), "is_good": check.is_good} for check in checks]), indent=2))
    else:
        table = make_table("study", "result", "task", "arm", "seed", "code", "predictions", "seconds", "note")
        for check in checks:
            table.add_row(
                check.study, check.label, check.task, check.arm,
                str(check.seed) if check.arm else "", check.code, MEANINGS[check.state], f"{check.seconds:.0f}",
                check.note,
            )  # fmt: skip
        counts = {text: sum(check.state == state for check in checks) for state, text in MEANINGS.items()}
        print_all(table, ", ".join(f"{count} {text}" for text, count in counts.items() if count))
    return 0 if all(check.is_good for check in checks) and is_renewed else 1


def _renew(folder: Path, checks: list[Check], plugin_files: list[str], tell: Callable[[str], None]) -> bool:
    """Renew a result and say so; whether it could be."""
    from sage_kit.studies.renewal import renew

    try:
        number = renew(folder, checks, plugin_files)
    except StudyError as error:
        typer.echo(f"sage-kit: {error}", err=True)
        return False
    tell(f"{folder.parent.name} {folder.name}: {number} runs renewed")
    return True


@claims_app.command("claims")
def claims_command(
    results: ResultsDir = "",
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Print the ledger: the paper's claims and open questions, and what the studies say of each."""
    from sage_kit.studies.ledger import ledger_of, read_results
    from sage_kit.studies.ledger_text import ledger_json, ledger_markdown, ledger_table
    from sage_kit.studies.places import result_folders

    found, faults = read_results(*result_folders(results))
    entries = ledger_of(found)
    for fault in faults:
        warn(str(fault))
    if as_json:
        typer.echo(json.dumps(ledger_json(entries, faults), indent=2))
    elif markdown:
        typer.echo(ledger_markdown(entries))
    else:
        print_all(ledger_table(entries))


def _overrides(pairs: list[str], profile: str, plugins: list[str]) -> dict[str, str]:
    """The parameters that the command line gives, as text."""
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise StudyError(f"-p {pair!r} is no NAME=VALUE, as in -p task=mrpc")
        if name.strip() in given:
            raise StudyError(f"parameter {name.strip()!r} is given twice: give it once, or several values in a --grid")
        given[name.strip()] = value.strip()
    flags = {"profile": profile, "plugin": ",".join(plugins)}
    for name, value in flags.items():
        if value and name in given:
            raise StudyError(f"both --{name} and -p {name}= are given: leave one out")
        if value:
            given[name] = value
    return given


def _outcomes_table(outcomes: list[Any]) -> Any:
    from sage_kit.studies.runner import parameters_text

    table = make_table("study", "key", "state", "seconds", "parameters", "folder")
    for outcome in outcomes:
        cell = outcome.cell
        state = "done before" if outcome.reused else outcome.state
        text = parameters_text(cell.parameters, _varying(outcomes, cell.study) or None)
        table.add_row(cell.study, cell.key[:8], state, f"{outcome.seconds:.1f}", text, shown(cell.directory))
    return table


def _expected_table(expected: list[Any]) -> Any:
    from sage_kit.studies.runner import parameters_text

    table = make_table("study", "key", "state", "seconds", "known from", "parameters", "folder")
    for one in expected:
        cell = one.cell
        seconds = "" if one.seconds is None else f"{one.seconds:,.0f}"
        text = parameters_text(cell.parameters, _varying(expected, cell.study) or None)
        table.add_row(cell.study, cell.key[:8], one.state, seconds, one.source, text, shown(cell.directory))
    return table


def _varying(outcomes: list[Any], study: str) -> list[str]:
    """The parameters in which the cells of a study differ."""
    rows = [outcome.cell.parameters for outcome in outcomes if outcome.cell.study == study]
    return [name for name in rows[0] if any(row[name] != rows[0][name] for row in rows)]
