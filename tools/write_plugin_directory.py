"""Write `docs/plugin-directory.md`: which component passes which conformance checks, at which versions, and when.

`--run` runs the checks of every component that is installed from this repository (`sage_kit.testing`), which takes some
minutes, and keeps what they say in `docs/plugin-directory.json`; the page is written from that file.

    python tools/write_plugin_directory.py --run     # run the checks, then write the page
    python tools/write_plugin_directory.py           # write the page from what the last run found
    python tools/write_plugin_directory.py --check   # only say whether it is up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from written_page import write_or_check

from sage_kit.components.plugins import FIRST_PARTY, Plugins
from sage_kit.components.spec_checks import KINDS, plural
from sage_kit.errors import SageError
from sage_kit.reports.page_text import markdown, table_head, table_row
from sage_kit.storage.environment import environment
from sage_kit.storage.files import write_json

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOUND = DOCS / "plugin-directory.md", DOCS / "plugin-directory.json"
COMMAND = "python tools/write_plugin_directory.py"

PACKAGES = ("sage-kit", "torch", "transformers", "datasets", "scikit-learn", "numpy", "scipy", "pydantic", "pluggy")
"""What every component works with; further packages are those that a component requires."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "hybrid": {"steps": [{"reducer": "pca", "n_components": 8}, {"reducer": "pca"}]},
    **{name: {"epochs": 20} for name in ("autoencoder", "vae", "decoder")},
    "pacmap": {"n_iter_global": 20, "n_iter_middle": 20, "n_iter_local": 40},
    "torchdr_umap": {"n_neighbors": 8, "n_epochs": 60},
    "torchdr_tsne": {"perplexity": 8, "early_exaggeration_iter": 20, "n_iter": 40},
    "tsne": {"perplexity": 8, "early_exaggeration_iter": 60, "n_iter": 100, "transform_iter": 50},
    "umap": {"n_neighbors": 8, "n_epochs": 50},
}
"""Options under which components that learn for long are checked, by name, as in their own tests."""

KNOWN: Mapping[tuple[str, str], str] = {
    ("umap", "reducer_batch_invariance"): "umap-learn places the new vectors of a batch together, by random moves",
    ("torchdr_umap", "reducer_batch_invariance"): "TorchDR places the new vectors of a batch together, by random moves",
}
"""Why a component fails a check, as its own tests say, which expect it."""

HEAD = f"""<!-- Written by `{COMMAND} --run`; run it again, do not change this page. -->

# Plugin directory

Every component that this repository ships, and what the conformance checks say of it. Each number is from a real run
of the checks, one component after the other; `sage-kit check NAME` runs the same, each component in a process of its
own. A check *does not apply* where it is about something that the component does not claim, or needs what the machine
does not have, such as a network or a GPU. A plugin of yours is checked in the same way: [Writing a
plugin](writing-a-plugin.md).
"""


def first_party() -> Plugins:
    """The built-in components and those of the plugins of this repository that are installed."""
    from importlib.metadata import entry_points

    installed = {point.name for point in entry_points(group="sage_kit")} & set(FIRST_PARTY.values())
    return Plugins(allow=",".join(sorted(installed)))


def run(plugins: Plugins, jobs: int) -> dict[str, Any]:
    """What the checks of all components say, with versions and date; one line for each component that is done."""
    from sage_kit.testing.registry import CHECKS
    from sage_kit.testing.run_checks import check_names

    items = plugins.components()
    required = {match[0] for item in items for text in item.spec.requires if (match := re.match(r"[\w.-]+", text))}
    told = environment(*PACKAGES, *sorted(required))
    components = []
    names = [(item.spec.kind, item.spec.name) for item in items]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for number, entry in enumerate(pool.map(check_one, *zip(*names, strict=True)), start=1):
            components.append(entry)
            print(f"{number}/{len(items)} {entry['kind']} {entry['name']}: {summary(entry)}", flush=True)
    check_names(KINDS[0])  # which fills the list of checks
    texts = {check.name: (inspect.getdoc(check.function) or "").partition("To fix:")[0] for check in CHECKS}
    looks_at = {name: " ".join(text.partition("\n\n")[0].split()) for name, text in texts.items()}
    today = datetime.now(timezone.utc).date().isoformat()
    return {"date": today, **told, "components": components, "looks_at": looks_at}


def check_one(kind: str, name: str) -> dict[str, Any]:
    """What the checks of one component say, in a process that checks several."""
    from sage_kit.testing.run_checks import check_names, run_checks
    from sage_kit.testing.subject import Subject

    plugins = first_party()
    item = plugins.registered(kind, name)
    options = OPTIONS.get(name, {})
    check_names(kind)  # imports the checks in their order, which is that in which they run
    from sage_kit.testing.checks import discovery

    # nothing is installed meanwhile: what a fresh process discovers of a module holds for all of its components
    if not hasattr(discovery.discovered, "cache_info"):
        discovery.discovered = functools.cache(discovery.discovered)
    results = list(run_checks(Subject(item.spec, options, plugins)))
    return {
        "kind": kind,
        "name": name,
        "from": str(item.origin),
        "requires": list(item.spec.requires),
        "options": options,
        "checks": {one.name: outcome(one) for one in results},
    }


def outcome(result: Any) -> dict[str, str]:
    """A result as it is kept: its state and, except where it passed, what was said."""
    states = [("failed", not result.passed), ("does not apply", result.skipped), ("warned", result.warned)]
    state = next((name for name, holds in states if holds), "passed")
    return {"state": state, **({"message": result.message} if result.message else {})}


def summary(entry: dict[str, Any]) -> str:
    """How the checks of a component went, in words."""
    counted = [one["state"] for one in entry["checks"].values()]
    return ", ".join(f"{counted.count(state)} {state}" for state in dict.fromkeys(counted))


def page(found: dict[str, Any]) -> str:
    """The text of the page."""
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    lines = [HEAD, f"Run on {found['date']} with Python {found['python']} ({found['platform']}): {versions}.", ""]
    for kind in KINDS:
        entries = [entry for entry in found["components"] if entry["kind"] == kind]
        if entries:
            lines += section(kind, entries)
    lines += ["## What the checks look at", "", *table_head(["check", "what it looks at"])]
    lines += [table_row([f"`{name}`", markdown(text)]) for name, text in found["looks_at"].items()]
    return "\n".join(lines) + "\n"


def section(kind: str, entries: Sequence[dict[str, Any]]) -> list[str]:
    """The components of a kind, then its checks."""
    lines = [f"## {plural(kind.replace('_', ' ')).capitalize()}", ""]
    lines += table_head(["component", "from", "passed", "does not apply", "not passed"])
    for entry in entries:
        states = {name: one["state"] for name, one in entry["checks"].items()}
        count = list(states.values()).count
        others = [f"`{name}` {state}" for name, state in states.items() if state not in ("passed", "does not apply")]
        origin = entry["from"] + "".join(f", {text}" for text in entry["requires"])
        if entry["options"]:
            origin += f"; checked with {', '.join(f'`{name}={value}`' for name, value in entry['options'].items())}"
        cells = [f"`{entry['name']}`", origin, str(count("passed")), str(count("does not apply"))]
        lines.append(table_row([*cells, ", ".join(others)]))
    notes = [
        f"- `{entry['name']}`, `{name}`: {KNOWN.get((entry['name'], name)) or ' '.join(one['message'].split())}"
        for entry in entries
        for name, one in entry["checks"].items()
        if one["state"] in ("failed", "warned")
    ]
    if notes:
        lines += ["", *notes]
    names = dict.fromkeys(name for entry in entries for name in entry["checks"])
    return [*lines, "", f"Checks: {', '.join(f'`{name}`' for name in names)}.", ""]


def main() -> int:
    """Run, write or compare; the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/plugin-directory.md from runs of the conformance checks.")
    parser.add_argument("--run", action="store_true", help="run the checks of every component first")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that run checks at the same time")
    arguments = parser.parse_args()
    try:
        if arguments.run:
            write_json(FOUND, run(first_party(), arguments.jobs))
        text = page(json.loads(FOUND.read_text(encoding="utf-8")))
    except SageError as error:
        sys.exit(f"write_plugin_directory: {error}")
    except FileNotFoundError:
        sys.exit(f"write_plugin_directory: there is no {FOUND}: run {COMMAND} --run")
    return write_or_check(PAGE, text, COMMAND, only_check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
