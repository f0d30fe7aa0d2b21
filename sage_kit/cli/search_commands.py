"""The command that searches for settings: search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sage_kit.cli.options import INTERRUPTED, ConfigFile, PluginFiles, Preset, TrustPlugins, take_settings, warn

app = typer.Typer()


@app.command("search")
@take_settings
def search_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the search, a new one or one to go on in.")
    ],
    *,
    settings: dict[str, Any],
    search: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(
            "-s",
            "--search",
            metavar="NAME=VALUES",
            help="Setting to search: LOW:HIGH, log:LOW:HIGH, or values with commas. May be given more than once.",
        ),
    ] = None,
    space: Annotated[str, typer.Option("--space", metavar="FILE", help="TOML file of settings to search.")] = "",
    trials: Annotated[
        Optional[int],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(metavar="N", min=1, help="Trials of all processes together.", show_default="20"),
    ] = None,
    measure: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NAME", help="What counts on dev: divergence, agreement or metric.", show_default="divergence"
        ),
    ] = None,
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Runs of a trial, under a seed each.", show_default="1"),
    ] = None,
    finalists: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Best trials to run again beside the default, to choose from; 0: none."),
    ] = 3,
    final_seeds: Annotated[int, typer.Option(metavar="N", min=1, help="New seeds that these run under.")] = 3,
    check_seeds: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Further seeds to hold the best against the default under; 0: none."),
    ] = 5,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Trials at a time; they share the cores.")] = 1,
    prune: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--prune/--no-prune", help="End a trial after a round in which it is behind others.", show_default="prune"
        ),
    ] = None,
    search_seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Seed of the search itself.", show_default="0"),
    ] = None,
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
    config: ConfigFile = "",
    preset: Preset = "",
    plugin: PluginFiles = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Search settings on dev, in one process or several; ends with the best as TOML, checked under new seeds.

    The same command goes on where it was ended, and so does `sage-kit search DIR`; started again at the same time, it
    shares the trials with the first. The settings of a run, as `sage-kit run` takes them, are the default that is tried
    first; those of the output say nothing here.
    """
    if worker:
        from sage_kit.system.parent import end_with

        end_with(worker)
    from sage_kit.searching.search_plan import Ending, SearchPlan, asked_plan
    from sage_kit.searching.search_space import check_space, read_space

    own = {
        "measure": measure, "seeds": seeds, "prune": prune, "search_seed": search_seed, "trials": trials,
        "plugin_files": [str(Path(file).resolve()) for file in plugin] if plugin else None,
    }  # fmt: skip
    given = {name: value for name, value in own.items() if value is not None}
    plan = asked_plan(directory, read_space(search or (), space), settings, given, config=config, preset=preset)
    from sage_kit.rundir.run_record import trusted_plugins

    recorded = (plan or SearchPlan.read(directory)).plugin_files
    files = trusted_plugins(f"search {directory}", recorded, plugin or (), trust=trust_plugins)
    from sage_kit.searching.pruning import WatchedPlugins

    plugins = WatchedPlugins(files)
    ending = Ending(finalists, final_seeds, check_seeds)
    if plan is not None:
        check_space(plan.base, plan.space, plugins)  # before torch is imported: a misspelt name is answered at once
        ending.check(plan)
        from sage_kit.recipe import resolve
        from sage_kit.unused_settings import unused_settings

        searched = {name.partition(".")[0] for name in plan.space}
        if unused := unused_settings(resolve(plan.base, plugins), searched):
            warn(f"searched, but with the default {unused}")
    _run(directory, plan, plugins, trials, ending, jobs, is_worker=bool(worker))


def _run(
    directory: Path, plan: Any, plugins: Any, trials: int | None, ending: Any, jobs: int, *, is_worker: bool
) -> None:
    try:
        from sage_kit.searching.search_finals import check_best, choose
        from sage_kit.searching.search_loop import Search, open_search
        from sage_kit.searching.search_result import FILES, finish
        from sage_kit.searching.search_workers import make_trials

        plan, store = open_search(directory, plan, plugins)
        ending.check(plan)
        limit = trials or plan.trials
        search = Search(directory, plan, store, limit, lambda line: print(line, flush=True))
        if jobs > 1 and not is_worker and len(search.trials.finished()) < limit:
            search.run(1)  # what all share is made once, and what is wrong with it is told once
            make_trials(search.folder, jobs, limit, ending)
        search.run()
        if is_worker:
            check_best(search, choose(search, ending).winner, ending)
            return
        report = finish(search, ending, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        if not is_worker:
            print(f"sage-kit: interrupted; `sage-kit search {directory}` goes on with it", file=sys.stderr)
        sys.exit(INTERRUPTED)
    typer.echo(f"\n{report}")
    for name in FILES:
        if (search.folder / name).exists():
            typer.echo(f"Written: {directory / name}")
