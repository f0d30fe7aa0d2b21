"""The checks outside pytest: which components, and a table for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.errors import ConfigError, PluginError, did_you_mean
from sage_kit.plugins import KINDS, Plugins, Registered
from sage_kit.testing.runner import check_component

if TYPE_CHECKING:
    from rich.table import Table


def chosen_components(plugins: Plugins, name: str, kind: str, files: Sequence[str]) -> list[Registered]:
    """The components of that name, or all that the files contribute when no name is given.

    Raises
    ------
    ConfigError
        For an unknown kind, and when neither a name nor a file is given.
    UnknownComponentError
        When no component has the name.
    PluginError
        When the files contribute no component.
    """
    if kind and kind not in KINDS:
        raise ConfigError(f"Unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    items = plugins.components(kind or None)
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
        raise PluginError(
            f"nothing to check: {', '.join(sorted(origins))} contributes no component{of_kind}; observing hooks are "
            "checked where an ObserverSpec contributes their object"
        )
    return found


def check_all(items: Sequence[Registered], plugins: Plugins) -> tuple[list[Table | str], bool]:
    """Run every check of the components.

    Returns
    -------
    lines : list of Table or str
        To be printed: a table for each component, the advice for each failure, and how many checks ran.
    ok : bool
        Some checks ran and none failed.
    """
    from rich.table import Table

    lines: list[Table | str] = []
    ran = failed = skipped = 0
    for item in items:
        title = f"{item.spec.kind.replace('_', ' ')} {item.spec.name} ({item.origin})"
        table = Table(title=title, title_justify="left")
        for heading in ("check", "result", "seconds", "reason"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        results = check_component(item.spec, plugins=plugins)
        for result in results:
            outcome = "skipped" if result.skipped else "passed" if result.passed else "FAILED"
            reason = result.message if result.skipped else "" if result.passed else "see below"
            table.add_row(result.name, outcome, f"{result.seconds:.1f}", reason)
        lines.append(table)
        lines.extend(f"FAILED {result.name}: {result.message}" for result in results if not result.passed)
        ran += sum(not result.skipped for result in results)
        failed += sum(not result.passed for result in results)
        skipped += sum(result.skipped for result in results)
    lines.append(f"{ran} checks ran, {failed} failed; {skipped} skipped")
    return lines, ran > 0 and failed == 0
