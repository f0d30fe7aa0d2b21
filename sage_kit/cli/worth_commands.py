"""The command that says whether distilling pays: worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sage_kit.cli.options import (
    AsJson,
    ConfigFile,
    PluginFiles,
    Preset,
    announce,
    load_plugins,
    make_table,
    print_all,
    take_settings,
)
from sage_kit.config import load_config
from sage_kit.errors import ConfigError

app = typer.Typer()


@app.command("worth")
@take_settings
def worth_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled rows: .csv, .tsv, .jsonl, .json or .parquet.")],
    *,
    settings: dict[str, Any],
    config: ConfigFile = "",
    preset: Preset = "",
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Models, numbers and figure.", show_default="runs/worth/<file>")
    ] = "",
    sizes: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Blocks of the students, with commas.", show_default="a sixth, a third and half"
        ),
    ] = "",
    margin: Annotated[float, typer.Option(metavar="POINTS", help="The largest loss that does not matter.")] = 2.0,
    timed: Annotated[int, typer.Option(metavar="N", help="Texts each model is timed on; 0: none.")] = 50,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
) -> None:
    """Say whether distilling is worth it on a labelled file: a teacher, students of several sizes, a small model
    trained on the labels alone, and word counts, scored on the same rows.

    Called again it goes on where it was interrupted.
    """
    given = load_config(settings, preset=preset, file=config)
    chosen = {name: getattr(given, name) for name in given.model_fields_set}
    blocks = _sizes(sizes)
    plugins = load_plugins(plugin)
    folder = Path(out).expanduser() if out else Path("runs/worth") / file.name.partition(".")[0]

    from sage_kit.worth.assessment import assess
    from sage_kit.worth.worth_report import HEADINGS, rows_of, write_report

    found = assess(file, folder, chosen, plugins, sizes=blocks, margin=margin / 100, pairs=timed, announce=announce)
    page = write_report(found)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    table = make_table(*HEADINGS)
    for row in rows_of(found):
        table.add_row(*row)
    print_all(table, "", found.text, "", f"{page}")


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--sizes {text!r} is no list of numbers of blocks: give some as 1,3,6") from None
