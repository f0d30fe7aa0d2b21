"""The command that looks at the installation: doctor."""

from __future__ import annotations

import json

import typer

from sage_kit.cli.options import AsJson, make_table, print_all

app = typer.Typer()


@app.command("doctor")
def doctor_command(as_json: AsJson = False) -> int:
    """Look at the installation: torch, device, precision, network, plugins, packages, disk; and say what to do.

    Exit codes: 0 nothing is broken, 1 something is.
    """
    from sage_kit.cli.doctor_checks import examine, summary

    found = list(examine())
    told = summary(found)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return 0 if told["is_fine"] else 1
    table = make_table("area", "what", "state", "found", "what to do")
    for item in found:
        table.add_row(item.area, item.name, item.state, item.found, item.remedy)
    counts = {state: sum(item.state == state for item in found) for state in ("ok", "note", "broken")}
    print_all(table, ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 0 if told["is_fine"] else 1
