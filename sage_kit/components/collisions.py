"""What to say where several plugins contribute the same name, or the same type of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from sage_kit.components.family_specs import FamilySpec
from sage_kit.components.loader import ALLOW_VARIABLE
from sage_kit.components.spec_checks import title_of

if TYPE_CHECKING:
    from sage_kit.components.plugins import Registered


def shared_title(item: Registered, others: Sequence[Registered]) -> str:
    """What a component has in common with others: its name or, of a family, a model type."""
    if others[0].spec.name == item.spec.name:
        return title_of(item.spec)
    taken = {model_type for other in others for model_type in cast(FamilySpec, other.spec).model_types}
    return f"model type {next(one for one in cast(FamilySpec, item.spec).model_types if one in taken)!r}"


def contest(items: Sequence[Registered]) -> str:
    """That several plugins contribute the same name, and what to do."""
    origins = [str(item.origin) for item in items]
    by = f"both {' and '.join(origins)}" if len(items) == 2 else ", ".join(origins)
    plugins = list(dict.fromkeys(item.origin.plugin for item in items))
    if len(plugins) < len(items):
        return f"contributed by {by}: uninstall {'one' if len(items) == 2 else 'all but one'}"
    ways = " or ".join(f"{ALLOW_VARIABLE}={','.join(f'-{p}' for p in plugins if p != kept)}" for kept in plugins)
    return f"contributed by {by}: leave out {'one' if len(items) == 2 else 'all but one'} with {ways}"
