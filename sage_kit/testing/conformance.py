"""The checks outside pytest: which components, and a table for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.components.plugins import Plugins, Registered
from sage_kit.components.spec_checks import KINDS, missing_requirements
from sage_kit.errors import ConfigError, PluginError, did_you_mean
from sage_kit.testing.check_worker import observing_hooks
from sage_kit.testing.isolation import TIME_LIMIT, check_alone

if TYPE_CHECKING:
    from rich.table import Table

    from sage_kit.testing.registry import CheckResult


def chosen_components(plugins: Plugins, name: str, kind: str, files: Sequence[str]) -> list[Registered]:
    """The components of that name, or all that the files contribute when no name is given.


    A file that implements observing hooks itself is checked as an observer.

    Unknown names, and files that contribute nothing, are refused.
    """
    if kind and kind not in KINDS:
        raise ConfigError(f"Unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    hooks = observing_hooks(plugins, list(files)) if kind in ("", "observer") else []
    items = [*plugins.components(kind or None), *hooks]
    if name:
        found = [item for item in items if item.spec.name == name]
        if not found and kind:
            plugins.registered(kind, name)  # says what there is instead
        if not found:
            elsewhere = "See: sage-kit plugins. A file's components need --plugin FILE."
            hint = did_you_mean(name, {item.spec.name for item in items}, "Components", elsewhere)
            broken = "".join(
                f" Plugin {bad.origin.plugin!r} ({bad.origin}) is in quarantine: {bad.cause}."
                for bad in plugins.quarantined
            )
            raise ConfigError(f"No component is named {name!r}.{hint}{broken}")
        return found
    if not files:
        raise ConfigError("nothing to check: name a component, or a plugin file with --plugin FILE")
    origins = {str(Path(file)) for file in files}
    found = [item for item in items if item.origin.distribution in origins]
    if not found:
        of_kind = f" of kind {kind!r}" if kind else ""
        raise PluginError(f"nothing to check: {', '.join(sorted(origins))} contributes no component{of_kind}")
    return found


def check_all(
    items: Sequence[Registered], files: Sequence[str] = (), time_limit: float = TIME_LIMIT
) -> tuple[list[Table | str], bool]:
    """Run every check of the components, each component in a process of its own.


    Returns what is to be printed (a table for each component, the advice for each failure and warning, and how many
    checks ran), and whether no check failed and none was left out because a package is missing.
    """
    lines: list[Table | str] = []
    ran = failed = skipped = warned = 0
    incomplete = False
    known = {(item.spec.kind, item.spec.name) for item in Plugins(files).components()}
    for item in items:
        hooks = (item.spec.kind, item.spec.name) not in known
        results = check_alone(item, files, hooks=hooks, time_limit=time_limit)
        lines.append(_table(item, results))
        lines.extend(f"FAILED {result.name}: {result.message}" for result in results if not result.passed)
        lines.extend(f"WARNING {result.name}: {result.message}" for result in results if result.warned)
        missing = missing_requirements(item.spec.requires)
        if missing:
            incomplete = True
            title = f"{item.spec.kind.replace('_', ' ')} {item.spec.name!r}"
            remedy = item.spec.install or f"pip install {' '.join(repr(text) for text in item.spec.requires)}"
            lines.append(f"NOT CHECKED {title} needs {', '.join(missing)}: {remedy}")
        ran += sum(not result.skipped for result in results)
        failed += sum(not result.passed for result in results)
        skipped += sum(result.skipped for result in results)
        warned += sum(result.warned for result in results)
    warnings = f", {warned} warned" if warned else ""
    lines.append(f"{ran} checks ran, {failed} failed{warnings}; {skipped} skipped")
    return lines, ran > 0 and failed == 0 and not incomplete


def _table(item: Registered, results: Sequence[CheckResult]) -> Table:
    from rich.table import Table

    title = f"{item.spec.kind.replace('_', ' ')} {item.spec.name} ({item.origin})"
    table = Table(title=title, title_justify="left")
    for heading in ("check", "result", "seconds", "reason"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for result in results:
        words = {"skipped": result.skipped, "FAILED": not result.passed, "warned": result.warned, "passed": True}
        outcome = next(word for word, holds in words.items() if holds)
        reason = result.message if result.skipped else "see below" if result.message else ""
        table.add_row(result.name, outcome, f"{result.seconds:.1f}", reason)
    return table
