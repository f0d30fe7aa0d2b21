"""Write `docs/plugin-directory.md`: which component passes which conformance checks, at which versions, and when.

`--run` runs the checks of every component that is installed from this repository (`sage_kit.testing`), which takes some
minutes, and keeps what they say in `docs/plugin-directory.json`; the page is written from that file.

    python tools/write_plugin_directory.py --run     # run the checks, then write the page
    python tools/write_plugin_directory.py           # write the page from what the last run found
    python tools/write_plugin_directory.py --check   # only say whether it is up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sage_kit.components.plugins import FIRST_PARTY, Plugins, Registered
from sage_kit.components.spec_checks import KINDS, plural
from sage_kit.errors import SageError
from sage_kit.reports.page_text import markdown, table_head, table_row
from sage_kit.storage.environment import environment
from sage_kit.storage.files import write_json, write_text

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOUND = DOCS / "plugin-directory.md", DOCS / "plugin-directory.json"
COMMAND = "python tools/write_plugin_directory.py"

PACKAGES = ("sage-kit", "torch", "transformers", "datasets", "scikit-learn", "numpy", "scipy", "pydantic", "pluggy")
"""What every component works with; further packages are those that a component requires."""

HEAD = f"""<!-- Written by `{COMMAND} --run`; run it again, do not change this page. -->

# Plugin directory

Every component that this repository ships, and what the conformance checks say of it. Each number is from a real run of
the checks, one component after the other; `sage-kit check NAME` runs the same, each component in a process of its own. A check *does not apply* where it is about something that the component
does not claim, or needs what the machine does not have, such as a network or a GPU. A plugin of yours is checked in the
same way: [Writing a plugin](writing-a-plugin.md).
"""


def first_party() -> Plugins:
    """The built-in components and those of the plugins of this repository that are installed."""
    from importlib.metadata import entry_points

    installed = {point.name for point in entry_points(group="sage_kit")} & set(FIRST_PARTY.values())
    return Plugins(allow=",".join(sorted(installed)))


def run(plugins: Plugins) -> dict[str, Any]:
    """What the checks of all components say, with versions and date; one line for each component while it runs."""
    from sage_kit.testing.registry import CHECKS
    from sage_kit.testing.run_checks import run_checks
    from sage_kit.testing.subject import Subject

    items = plugins.components()
    required = {
        match[0] for item in items for text in item.spec.requires if (match := re.match(r"[\w.-]+", text)) is not None
    }
    told = environment(*PACKAGES, *sorted(required))
    components = []
    for number, item in enumerate(items, start=1):
        results = list(run_checks(Subject(item.spec, None, plugins)))
        entry = {
            "kind": item.spec.kind,
            "name": item.spec.name,
            "from": str(item.origin),
            "requires": list(item.spec.requires),
            "checks": {one.name: outcome(one) for one in results},
        }
        components.append(entry)
        print(f"{number}/{len(items)} {title(item)}: {summary(entry)}", flush=True)
    texts = {check.name: (inspect.getdoc(check.function) or "").partition("To fix:")[0] for check in CHECKS}
    looks_at = {name: " ".join(text.partition("\n\n")[0].split()) for name, text in texts.items()}
    today = datetime.now(timezone.utc).date().isoformat()
    return {"date": today, **told, "components": components, "looks_at": looks_at}


def outcome(result: Any) -> dict[str, str]:
    """A result as it is kept: its state and, except where it passed, what was said."""
    states = [("failed", not result.passed), ("does not apply", result.skipped), ("warned", result.warned)]
    state = next((name for name, holds in states if holds), "passed")
    return {"state": state, **({"message": result.message} if result.message else {})}


def title(item: Registered) -> str:
    """A component in words."""
    return f"{item.spec.kind.replace('_', ' ')} {item.spec.name}"


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
        cells = [f"`{entry['name']}`", origin, str(count("passed")), str(count("does not apply"))]
        lines.append(table_row([*cells, ", ".join(others)]))
    notes = [
        f"- `{entry['name']}`, `{name}`: {' '.join(one['message'].split())}"
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
    arguments = parser.parse_args()
    try:
        if arguments.run:
            write_json(FOUND, run(first_party()))
        text = page(json.loads(FOUND.read_text(encoding="utf-8")))
    except SageError as error:
        sys.exit(f"write_plugin_directory: {error}")
    except FileNotFoundError:
        sys.exit(f"write_plugin_directory: there is no {FOUND}: run {COMMAND} --run")
    if arguments.check:
        is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print("up to date" if is_current else f"{PAGE} is not up to date: run {COMMAND}")
        return 0 if is_current else 1
    write_text(PAGE, text)
    print(f"Written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
