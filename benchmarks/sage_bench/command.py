"""The command `python benchmarks [NAME]`. Heavy modules are imported when it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sage_bench import chosen_benches
from sage_kit.cli.options import AsJson, print_all
from sage_kit.config import load_config

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Bench; all of them unless given.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small and few: three minutes on two idle cores.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for JSON and PNG.")] = "benchmarks/results",
    as_json: AsJson = False,
) -> None:
    """Measure this project beside its peers on the same work, alternately, with the machine's ceilings.

    Benches: start, distill, synthesis, scale, rows, predict, explorer. Texts are GLUE's where the environment sets
    data_dir, else packaged reviews.
    """
    names = chosen_benches(name)  # before torch is imported: a misspelt name is answered at once
    data_dir = load_config().data_dir
    from sage_bench import runner
    from sage_bench.report import result_tables

    def tell(run: runner.BenchRun) -> None:
        if not as_json:
            print_all("", f"{run.machine}", *result_tables(run.result), *run.result.notes)
            print_all(f"{run.seconds:.0f} s. Saved: {', '.join(map(str, run.files))}")

    runs = runner.run_benches(
        names, quick=quick, out=Path(out), data_dir=data_dir,
        announce=lambda text: typer.echo(text, err=True), finished=tell,
    )  # fmt: skip
    if as_json:
        typer.echo(runner.as_json(runs))
