"""The command that makes a submission to a leaderboard: submit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from sage_kit.cli.inference_commands import Device, Precision
from sage_kit.cli.options import PluginFiles, announce, load_plugins, make_table, print_all, warn
from sage_kit.config import DATA_DIR_VARIABLE

app = typer.Typer()


@app.command("submit")
def submit_command(
    students: Annotated[
        list[str],
        typer.Argument(metavar="TASK=STUDENT...", help="Students by task; of a run, the task may be left out."),
    ],
    output: Annotated[Path, typer.Option("--out", metavar="FILE", help="The archive, a .zip file.")],
    data_dir: Annotated[
        Optional[str],  # noqa: UP045 (typer reads this annotation at run time on Python 3.10)
        typer.Option(
            metavar="DIR",
            help=f"Holds glue/<task>/test.parquet; default: ${DATA_DIR_VARIABLE}, or else, and where empty, the hub.",
        ),
    ] = None,
    files: Annotated[
        Optional[list[str]],  # noqa: UP045 (the same)
        typer.Option("--file", metavar="NAME=FILE", help="Other test rows, such as mnli-m=FILE. May be repeated."),
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Fill files without a student with one answer.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    plugin: PluginFiles = None,
) -> None:
    """Write the archive that the GLUE server takes: what students predict for its test sets, in its names."""
    from sage_kit.inference.glue_submission import files_by_part, missing_files, students_by_task, submit

    folder = os.environ.get(DATA_DIR_VARIABLE, "") if data_dir is None else data_dir
    written = submit(
        students_by_task(students), output, plugins=load_plugins(plugin), data_dir=folder,
        files=files_by_part(files or []), fill=fill, device=device, precision=precision, announce=announce,
    )  # fmt: skip
    table = make_table("file", "rows", "from")
    for one in written:
        table.add_row(one.part.file, f"{one.rows:,}", one.student or f"{one.part.filler} for every row: no student")
    print_all(table, f"Archive: {output}")
    if lacking := missing_files(written):
        warn(f"the server wants all files, and there is no {', '.join(lacking)}: name students, or --fill them")
