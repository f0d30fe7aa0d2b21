"""The commands that use a finished student: predict, evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sage_kit.cli import completion
from sage_kit.cli.options import AsJson, PluginFiles, announce, load_plugins, make_table, print_all
from sage_kit.cli.verbosity import shows

if TYPE_CHECKING:
    from sage_kit.inference.predictor import Predictor

app = typer.Typer()

Student = Annotated[str, typer.Argument(metavar="STUDENT", help="A run directory, or a checkpoint.")]
TextColumn = Annotated[str, typer.Option(metavar="NAME", help="Column of the text; default: the run's.")]
TextPairColumn = Annotated[str, typer.Option(metavar="NAME", help="Column of the second text.")]
Kind = Annotated[str, typer.Option(metavar="KIND", help="Kind of task; default: what the student says.")]
TextPrefix = Annotated[str, typer.Option(metavar="TEXT", help="In front of each text of embeddings.")]
MaxLength = Annotated[int, typer.Option(metavar="N", min=0, help="Longest text [tokens]; 0: the student's.")]
Delimiter = Annotated[str, typer.Option(metavar="C", help="Between the fields of .csv and .tsv files.")]
TaskOptions = Annotated[str, typer.Option(metavar="VALUE", help="Options of the task.")]
DataDir = Annotated[str, typer.Option(metavar="DIR", help="Folder of parquet files, for the task.")]
Metrics = Annotated[str, typer.Option(metavar="NAMES", help="Metrics, with commas.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")]


@app.command("predict")
def predict_command(
    student: Student,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Texts: .csv, .tsv, .jsonl, .json or .parquet.")],
    output: Annotated[Path, typer.Option("--out", metavar="FILE", help="Predictions: .jsonl, .csv, .tsv or .parquet.")],
    text_column: TextColumn = "",
    text_pair_column: TextPairColumn = "",
    keep: Annotated[str, typer.Option(metavar="NAMES", help="Columns to write as well, with commas.")] = "",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class or label.")
    ] = False,
    kind: Kind = "",
    text_prefix: TextPrefix = "",
    max_length: MaxLength = 0,
    delimiter: Delimiter = "",
    device: Device = "auto",
    precision: Precision = "auto",
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
    columns = text_columns(predictor, text_column, text_pair_column)
    kept = [name.strip() for name in keep.split(",") if name.strip()]

    counts = sys.stderr.isatty() and shows("info")

    def on_rows(done: int) -> None:
        if counts:
            print(f"\r{done:,} rows", end="", file=sys.stderr, flush=True)

    rows = predict_file(
        predictor, file, output, columns, keep=kept, probabilities=probabilities, dialect=dialect, on_rows=on_rows
    )
    if counts:
        print(file=sys.stderr)
    print_all(f"{output}: {rows:,} rows")


@app.command("evaluate")
def evaluate_command(
    student: Student,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Labelled texts; or name a task.")] = "",
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Score the validation splits of this task.",
            autocompletion=completion.for_setting("task"),
        ),
    ] = "",
    task_options: TaskOptions = "",
    data_dir: DataDir = "",
    text_column: TextColumn = "",
    text_pair_column: TextPairColumn = "",
    label_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the label.")] = "label",
    metrics: Metrics = "",
    kind: Kind = "",
    text_prefix: TextPrefix = "",
    max_length: MaxLength = 0,
    delimiter: Delimiter = "",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
    plugin: PluginFiles = None,
) -> None:
    """Score a student on a labelled file or on a task's validation splits, with 95 % intervals over the rows."""
    from dataclasses import asdict

    from sage_kit.config import load_config
    from sage_kit.errors import ConfigError
    from sage_kit.inference.evaluation import evaluate_file, evaluate_task
    from sage_kit.inference.predictor import load_student

    if bool(file) == bool(task):
        raise ConfigError("name either a labelled file or, with --task, a task")
    given = {
        "delimiter": delimiter, "metrics": metrics, "task": task, "task_options": task_options, "data_dir": data_dir,
    }  # fmt: skip
    config, plugins = load_config({name: value for name, value in given.items() if value}), load_plugins(plugin)
    predictor = load_student(
        student, kind=kind, text_prefix=text_prefix, max_length=max_length, device=device, precision=precision,
        plugins=plugins,
    )  # fmt: skip

    if task:
        scores = evaluate_task(predictor, config, plugins, announce)
    else:
        columns = text_columns(predictor, text_column, text_pair_column)
        scores = evaluate_file(predictor, Path(file), columns, label_column, config, plugins, announce)
    if as_json:
        # JSON knows no NaN
        told = [{name: None if value != value else value for name, value in asdict(one).items()} for one in scores]
        typer.echo(json.dumps(told, indent=2))
        return
    table = make_table("split", "rows", "metric", "score", "95 % interval")
    for one in scores:
        interval = f"{one.low:.4f} to {one.high:.4f}" if one.low == one.low else "not known"
        table.add_row(one.split, f"{one.rows:,}", one.metric, f"{one.value:.4f}", interval)
    print_all(table)


def text_columns(predictor: Predictor, text_column: str, text_pair_column: str) -> tuple[str, ...]:
    """The columns of the texts: those that are named, or those of the run."""
    usual = predictor.spec.text_columns
    second = text_pair_column or (usual[1] if len(usual) > 1 and not text_column else "")
    return tuple(filter(None, (text_column or usual[0], second)))
