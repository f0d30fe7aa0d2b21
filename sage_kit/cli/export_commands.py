"""The command that makes a finished student fit for programs without torch: export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage_kit.cli.inference_commands import (
    DataDir,
    Delimiter,
    Kind,
    MaxLength,
    Metrics,
    Student,
    TaskOptions,
    TextColumn,
    TextPairColumn,
    TextPrefix,
    text_columns,
)  # fmt: skip
from sage_kit.cli.options import AsJson, PluginFiles, announce, load_plugins, make_table, print_all

if TYPE_CHECKING:
    from sage_kit.inference.onnx_folder import Report

app = typer.Typer()


@app.command("export")
def export_command(
    student: Student,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Real texts to compare on; default: the run's own data.")
    ] = "",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX model, for onnxruntime.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write one with matrices of eight bits as well.")] = False,
    output: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder to write; default: STUDENT/onnx.", show_default=False)
    ] = "",
    task: Annotated[str, typer.Option(metavar="NAME", help="Compare on the validation splits of this task.")] = "",
    task_options: TaskOptions = "",
    data_dir: DataDir = "",
    text_column: TextColumn = "",
    text_pair_column: TextPairColumn = "",
    label_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the label, if there is one.")] = "label",
    metrics: Metrics = "",
    rows: Annotated[int, typer.Option(metavar="N", min=0, help="Most rows to compare on; 0: all.")] = 2000,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pairs of measurements of latency, at most a minute of them.")
    ] = 50,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Whether to measure latencies.")] = True,
    kind: Kind = "",
    text_prefix: TextPrefix = "",
    max_length: MaxLength = 0,
    delimiter: Delimiter = "",
    as_json: AsJson = False,
    plugin: PluginFiles = None,
) -> None:
    """Write a student as an ONNX model that needs no torch, held against the student on real rows."""
    from sage_kit.config import load_config
    from sage_kit.errors import ConfigError
    from sage_kit.inference.export_rows import rows_of_file, rows_of_named_task, rows_of_task, teacher_of
    from sage_kit.inference.onnx_export import require_exporter
    from sage_kit.inference.onnx_folder import check_target, export_student_to, torch_student
    from sage_kit.inference.predictor import load_student
    from sage_kit.rundir import RunDirectory

    if not onnx:
        raise ConfigError("say what to export to: --onnx, and --int8 for eight bits as well")
    if file and task:
        raise ConfigError("name either a file of texts or, with --task, a task")
    path = Path(student).expanduser()
    if not output and not path.is_dir():
        raise ConfigError(f"{student} is no folder on this machine: say with --out where to write")
    folder = Path(output).expanduser() if output else path / "onnx"
    check_target(folder)
    require_exporter()
    given = {
        "delimiter": delimiter, "metrics": metrics, "task": task, "task_options": task_options, "data_dir": data_dir,
    }  # fmt: skip
    config, plugins = load_config({name: value for name, value in given.items() if value}), load_plugins(plugin)
    predictor = load_student(
        student, kind=kind, text_prefix=text_prefix, max_length=max_length, device="cpu", precision="fp32",
        plugins=plugins,
    )  # fmt: skip
    torch_student(predictor)

    is_run, teacher = (path / "config.toml").is_file(), None
    if file:
        columns = text_columns(predictor, text_column, text_pair_column)
        compared = rows_of_file(predictor, Path(file), columns, label_column, config, plugins, rows, announce)
    elif task:
        compared = rows_of_named_task(predictor, config, plugins, rows, announce)
    elif is_run:
        from sage_kit.data.scoring import load_scored

        run = RunDirectory.open(path).config()
        data = load_scored(plugins, run, announce)
        compared, teacher = rows_of_task(predictor, data, rows), teacher_of(run, data, announce)
    else:
        raise ConfigError(
            f"{student} is a checkpoint without a run, so that there are no rows to hold the exported model against: "
            "name a file of real texts, or a task with --task"
        )
    report = export_student_to(
        folder, predictor, compared, teacher=teacher, int8=int8, pairs=pairs if latency else 0, of_run=is_run,
        announce=announce,
    )  # fmt: skip
    if as_json:
        from sage_kit.storage.files import only_finite

        typer.echo(json.dumps(only_finite(report.to_json()), indent=2))
        return
    print_all(*_tables(report))


def _tables(report: Report) -> list[Any]:
    """What the user sees of a report."""
    splits, metric = report.scored, report.metric
    several = len(splits) > 1
    has_labels = any(line.primary(metric) is not None for line in report.lines.values())
    of = f", mean of {len(splits)} splits" if several else ""
    sizes = [one.batch for line in report.lines.values() for one in line.latencies]
    batches = list(dict.fromkeys(sizes))
    headings = ["model", "MB", *([f"{metric}{of}"] if has_labels else []), f"agreement with the {report.reference}"]
    for batch in batches:
        headings += [f"ms, {batch} text{'s' * (batch > 1)}", "times torch's speed"]
    table = make_table(*headings)
    for line in report.lines.values():
        score = line.primary(metric)
        cells = [line.name, f"{line.megabytes:,.1f}"]
        cells += ["" if score is None else f"{score:.4f}"] * has_labels
        cells.append("" if line.agreement is None else f"{line.agreement:.4f}")
        for one in line.latencies:
            low, middle, high = one.speedup
            cells += [f"{one.milliseconds:,.2f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        table.add_row(*cells)
    shown: list[Any] = [table]
    if several and has_labels:
        by_split = make_table("split", "rows", *(line.name for line in report.lines.values()), title=metric)
        for name, rows in splits.items():
            scores = [line.scores.get(name, {}).get(metric) for line in report.lines.values()]
            by_split.add_row(name, f"{rows:,}", *("" if one is None else f"{one:.4f}" for one in scores))
        shown.append(by_split)
    shown += [f"warning: {line}" for line in report.warnings]
    shown.append(
        f"{report.folder}: on {report.rows:,} rows the exported model differs from the student by at most "
        f"{report.difference:.1e}"
    )
    return shown
