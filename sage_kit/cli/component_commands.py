"""The commands about components: plugins, check, new-plugin, scorecard."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sage_kit.cli import completion
from sage_kit.cli.options import (
    AsJson,
    ConfigFile,
    PluginFiles,
    Preset,
    load_plugins,
    make_table,
    print_all,
    take_settings,
)
from sage_kit.components.scaffold import SCAFFOLD_KINDS
from sage_kit.config import load_config
from sage_kit.errors import ConfigError

app = typer.Typer()


@app.command("plugins")
def plugins_command(
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="Only components of this kind.", autocompletion=completion.kinds)
    ] = "",
    short: Annotated[bool, typer.Option("--short", help="Names only, a line for each kind.")] = False,
) -> None:
    """List every component with its kind, summary, origin and capabilities, and the plugins in quarantine."""
    from sage_kit.components.spec_checks import KINDS
    from sage_kit.errors import did_you_mean

    plugins = load_plugins(plugin)
    if kind and kind not in KINDS:
        raise ConfigError(f"Unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    if short and as_json:
        raise ConfigError("both --short and --json are given: leave one out")
    items = plugins.components(kind or None)
    if short:
        names: dict[str, list[str]] = {}
        for item in items:
            names.setdefault(item.spec.kind.replace("_", " "), []).append(item.spec.name)
        for title, listed in names.items():
            typer.echo(f"{title}: {', '.join(listed)}")
    elif as_json:
        listing = {
            "components": [
                {
                    "kind": item.spec.kind,
                    "name": item.spec.name,
                    "summary": item.spec.summary,
                    "distribution": item.origin.distribution,
                    "version": item.origin.version,
                    "capabilities": item.spec.capabilities(),
                    "requires": list(item.spec.requires),
                }
                for item in items
            ],
            "quarantined": [
                {
                    "plugin": bad.origin.plugin,
                    "distribution": bad.origin.distribution,
                    "version": bad.origin.version,
                    "component": bad.component,
                    "cause": bad.cause,
                }
                for bad in plugins.quarantined
            ],
        }
        typer.echo(json.dumps(listing, indent=2))
        return
    else:
        table = make_table("kind", "name", "summary", "origin", "capabilities")
        for item in items:
            table.add_row(
                item.spec.kind.replace("_", " "), item.spec.name, item.spec.summary, str(item.origin),
                _capabilities_text(item.spec.capabilities()),
            )  # fmt: skip
        print_all(table)
    for bad in plugins.quarantined:
        typer.echo(f"In quarantine: {bad}: {bad.cause}")


def _capabilities_text(capabilities: dict[str, Any]) -> str:
    parts = []
    for name, value in capabilities.items():
        text = name.replace("_", " ")
        if value is True:
            parts.append(text)
        elif value not in (False, None, "", [], ()):
            parts.append(f"{text}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
    return "; ".join(parts)


@app.command("check")
def check_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Component to check; may be left out with --plugin.",
            autocompletion=completion.components,
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="Only components of this kind.", autocompletion=completion.kinds)
    ] = "",
    plugin: PluginFiles = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="Processor time that each check may take.")
    ] = 120.0,
) -> int:
    """Run the conformance checks of a component, or of all that the plugin files contribute.

    Each component is checked in a process of its own. The exit status is 0 when no check failed and none was left out
    for a missing package.
    """
    plugins = load_plugins(plugin)
    from sage_kit.testing.conformance import check_all, chosen_components

    tables, ok = check_all(chosen_components(plugins, name, kind, plugin or []), plugin or [], time_limit)
    print_all(*tables)
    return 0 if ok else 1


@app.command("new-plugin")
def new_plugin_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"{', '.join(SCAFFOLD_KINDS[:-1])} or {SCAFFOLD_KINDS[-1]}.",
            autocompletion=completion.kinds,
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component.")],
    dest: Annotated[str, typer.Option(metavar="DIR", help="Folder that gets the new distribution.")] = "plugins",
    register: Annotated[
        bool, typer.Option("--register", help="Make it part of the clone of sage-kit's repository that DIR lies in.")
    ] = False,
) -> None:
    """Write an installable plugin distribution that passes its checks, to start your own from."""
    from sage_kit.components.registration import new_registered_plugin
    from sage_kit.components.scaffold import distribution_name, new_plugin, next_steps

    taken = next((item for item in load_plugins([]).components(kind) if item.spec.name == name), None)
    # a plugin that is installed from the repository may still have to be registered
    if taken is not None and not (register and taken.origin.distribution == distribution_name(name)):
        raise ConfigError(
            f"there is a {kind.replace('_', ' ')} {name!r} already (from {taken.origin}): choose another name"
        )
    if register:
        folder, changed = new_registered_plugin(kind, name, dest)
        typer.echo(next_steps(folder, kind, name, changed, is_registered=True))
    else:
        typer.echo(next_steps(new_plugin(kind, name, dest), kind, name))


@app.command("scorecard")
@take_settings
def scorecard_command(
    *,
    settings: dict[str, Any],
    config: ConfigFile = "",
    preset: Preset = "",
    plugin: PluginFiles = None,
    every_pair: Annotated[
        bool, typer.Option("--all", help="Score every reducer with every inverter that goes with it, and draw them.")
    ] = False,
    budget: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="With --all, time for all pairs.")] = 600.0,
    fine_tuned: Annotated[
        bool,
        typer.Option(
            "--fine-tuned/--pre-trained",
            help="Take the input layers of the teacher fine-tuned on the task, as a run does, or of the checkpoint.",
        ),
    ] = False,
    points: Annotated[int, typer.Option(min=10, help="Most held-out vectors to score on.")] = 1000,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the scorecards.")] = "scorecards",
    as_json: AsJson = False,
) -> None:
    """Score how well vectors come back from a map, on held-out vectors beside baselines.

    Takes the settings of a run; task, teacher, reducer, n_components, inverter and their options count. The vectors are
    those of the checkpoint's input layers unless --fine-tuned is given.
    """
    checked = load_config(settings, preset=preset, file=config)
    plugins = load_plugins(plugin)
    # before torch is imported: a misspelt name is answered at once
    plugins.task(checked.task, checked.task_options)
    for kind in ("reducer", "inverter"):
        name, options = checked.component_choice(kind)
        if kind in settings or not every_pair:
            plugins.options(kind, name, options)
    from sage_kit import scorecard
    from sage_kit.components import BuildContext
    from sage_kit.recipe import resolve
    from sage_kit.storage.files import only_finite

    if not every_pair:
        resolve(scorecard.scoring_config(checked), plugins)
    plugins.add_observer("progress", plugins.build("observer", "progress", {}, BuildContext(config=checked)))
    vectors = scorecard.load_vectors(checked, plugins, fine_tune=fine_tuned, points=points)
    if every_pair:
        grid = scorecard.score_grid(checked, plugins, vectors, budget=budget, out=out, plugin_files=plugin or ())
        picture = scorecard.draw_grid(grid)
        if as_json:
            typer.echo(json.dumps(only_finite(grid.to_json()), indent=2))
            return
        print_all(scorecard.grid_table(grid), *scorecard.grid_notes(grid))
        print_all(f"Saved: {grid.directory / 'grid.json'}", f"Drawn: {picture}")
        return
    card = scorecard.score_pair(checked, plugins, vectors)
    path = card.save(out)
    if as_json:
        typer.echo(json.dumps(only_finite(card.to_json()), indent=2))
        return
    print_all(*scorecard.scorecard_tables(card), f"Saved: {path}")
