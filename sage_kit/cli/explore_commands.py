"""The command that shows runs on a page: explore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sage_kit.cli.options import PluginFiles, announce, load_plugins, print_all
from sage_kit.errors import RunDirectoryError

app = typer.Typer()


@app.command("explore")
def explore_command(
    directories: Annotated[list[str], typer.Argument(metavar="DIR...", help="Run directories, at most six.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(metavar="FILE", help="The page.", show_default="explorer.html in the first run directory"),
    ] = None,
    points: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            metavar="N",
            min=1,
            help="Most training examples held, and most synthetic ones; of more, an even draw.",
            show_default="100000, fewer where the page would exceed 30 MB",
        ),
    ] = None,
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="Read the data again, and show its texts.")] = True,
    compute: Annotated[
        bool,
        typer.Option("--compute", help="Make the teacher's outputs again where the cache no longer has them; slow."),
    ] = False,
    scorecard: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="DIR", help="Show a scorecard that `sage-kit scorecard` wrote. May be given again."),
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Write one page to look at runs: map, texts, outputs, learning curves, costs. It opens without a network."""
    from sage_kit.rundir import RunDirectory

    first = RunDirectory.open(directories[0])  # before torch is imported: a wrong name is answered at once
    path = out or first.path / "explorer.html"
    if path.is_dir():
        raise RunDirectoryError(f"{path} is a folder: name a file for the page with --out")
    from sage_kit.explorer.page_data import page_data
    from sage_kit.explorer.page_file import write_page

    files = [str(Path(file).resolve()) for file in plugin or ()]
    data = page_data(
        directories, points=points, texts=texts, compute=compute, scorecards=scorecard or (), announce=announce,
        plugins=lambda own: load_plugins(list(dict.fromkeys([*own, *files]))),
    )  # fmt: skip
    names = ", ".join(Path(directory).resolve().name for directory in directories)
    write_page(path, data, f"{names} · sage-kit")
    print_all(f"Page: {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")
