"""The command that uses a finished student: predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sage_kit.cli.options import PluginFiles, load_plugins, print_all

app = typer.Typer()


@app.command("predict")
def predict_command(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="A run directory, or a checkpoint.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Texts: .csv, .tsv, .jsonl, .json or .parquet.")],
    output: Annotated[Path, typer.Option("--out", metavar="FILE", help="Predictions: .jsonl, .csv, .tsv or .parquet.")],
    text_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the text; default: the run's.")] = "",
    text_pair_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the second text.")] = "",
    keep: Annotated[str, typer.Option(metavar="NAMES", help="Columns to write as well, with commas.")] = "",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class or label.")
    ] = False,
    kind: Annotated[str, typer.Option(metavar="KIND", help="Kind of task; default: what the student says.")] = "",
    text_prefix: Annotated[str, typer.Option(metavar="TEXT", help="In front of each text of embeddings.")] = "",
    max_length: Annotated[int, typer.Option(metavar="N", min=0, help="Longest text [tokens]; 0: the student's.")] = 0,
    delimiter: Annotated[str, typer.Option(metavar="C", help="Between the fields of .csv and .tsv files.")] = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")] = "auto",
    plugin: PluginFiles = None,
) -> None:
    """Write what a student predicts for each row of a file, of any length, in order."""
    from sage_kit.config import load_config
    from sage_kit.data.formats import Dialect
    from sage_kit.inference.prediction_files import check_output, predict_file
    from sage_kit.inference.predictor import load_student

    check_output(output, file)
    dialect = Dialect.of(load_config({"delimiter": delimiter}))
    predictor = load_student(
        student, kind=kind, text_prefix=text_prefix, max_length=max_length, device=device, precision=precision,
        plugins=load_plugins(plugin),
    )  # fmt: skip
    usual = predictor.spec.text_columns
    second = text_pair_column or (usual[1] if len(usual) > 1 and not text_column else "")
    columns = tuple(filter(None, (text_column or usual[0], second)))
    kept = [name.strip() for name in keep.split(",") if name.strip()]

    def on_rows(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} rows", end="", file=sys.stderr, flush=True)

    rows = predict_file(
        predictor, file, output, columns, keep=kept, probabilities=probabilities, dialect=dialect, on_rows=on_rows
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print_all(f"{output}: {rows:,} rows")
