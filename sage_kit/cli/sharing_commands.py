"""The commands that show a student to others: card, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sage_kit.cli.options import PluginFiles, TrustPlugins, announce, load_plugins, make_table, print_all, warn

app = typer.Typer()

SHOWN_LINES = 40
"""How much of a card a dry run shows."""


@app.command("card")
def card_command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Directory of a finished run.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that was changed by hand.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the card instead of writing it.")] = False,
    plugin: PluginFiles = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Write the model card of a finished run, student/README.md, from what the run has left behind."""
    from sage_kit.inference.model_card import model_card, write_model_card

    plugins = _plugins_of(directory, plugin, trust_plugins)
    if show:
        typer.echo(model_card(directory, plugins), nl=False)
        return
    print_all(f"Model card: {write_model_card(directory, plugins, overwrite=overwrite)}")


@app.command("push")
def push_command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A finished run, or a checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="NAME for one of your own, or OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="Branch, made if there is none.")] = "",
    message: Annotated[str, typer.Option(metavar="TEXT", help="Message of the commit.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; nothing is sent.")] = False,
    plugin: PluginFiles = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Upload a student with its model card to the Hugging Face hub, as one commit.

    Log in with `hf auth login` first, or set HF_TOKEN.
    """
    from sage_kit.inference.hub_upload import check_name, plan_upload, push

    check_name(repository)
    upload = plan_upload(directory, _plugins_of(directory, plugin, trust_plugins))
    if upload.left_out:
        warn(f"not uploaded, since no part of the model: {', '.join(upload.left_out)}")
    if not upload.card:
        warn("there is no model card (README.md), and no run to make it from")
    if dry_run:
        upload = upload.to(repository)
        table = make_table("file", "bytes")
        for name in upload.files:
            table.add_row(name, f"{upload.size(name):,}")
        print_all(table)
        if upload.card:
            lines = upload.card.splitlines()
            typer.echo("\n".join(["", *lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else []), ""]))
        print_all(f"Nothing was sent; without --dry-run this goes to {repository}.")
        return

    address = push(
        upload, repository, private=private, revision=revision, message=message, announce=announce
    )  # fmt: skip
    print_all(f"Uploaded: {address}")


def _plugins_of(directory: str, given: list[str] | None, trust: bool) -> Any:
    """The plugins that are installed, those given, and a run's own where they are trusted: a card can do without."""
    from sage_kit.errors import TrustError
    from sage_kit.inference.hub_upload import run_of

    run = run_of(Path(directory).expanduser())
    if run is None:
        return load_plugins(given)
    try:
        return load_plugins(run.trusted_plugins(given or (), trust=trust, announce=announce))
    except TrustError as error:
        announce(f"the card tells nothing of plugins that are not loaded: {error}")
        return load_plugins(given)
