"""What the shell offers for the word that is being typed: names of components, presets, studies and choices."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

from sage_kit.config import PRESETS, RunConfig

COMPLETE_VARIABLE = "_SAGE_KIT_COMPLETE"
"""Set by the shell while it asks; the words of the command line are in the environment too."""

KINDS_OF_SETTINGS = {
    **{kind: kind for kind in ("reducer", "sampler", "inverter", "lift", "filter", "stop_rule", "task")},
    "losses": "loss", "metrics": "metric", "observers": "observer", "task_kind": "task_kind",
}  # fmt: skip
"""Settings that name components, and of which kind; some take several, with commas."""

Completer = Callable[[str], list[str]]


def for_setting(name: str) -> Completer | None:
    """What completes the value of a setting; None for one that takes anything."""
    if name in KINDS_OF_SETTINGS:
        return _of_list(lambda: component_names(KINDS_OF_SETTINGS[name]))
    annotation: Any = RunConfig.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return _of_list(lambda: map(str, get_args(annotation)))
    return None


def component_names(kind: str) -> list[str]:
    """Names of the components of a kind that are installed; of all for ""."""
    from sage_kit.components.plugins import Plugins

    return list(dict.fromkeys(item.spec.name for item in Plugins().components(kind or None)))


def components(incomplete: str) -> list[str]:
    """Names of components of any kind."""
    return _beginning(component_names(""), incomplete)


def decoders(incomplete: str) -> list[str]:
    """Names of decoders."""
    return _beginning(component_names("decoder"), incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of components."""
    from sage_kit.components.spec_checks import KINDS

    return _beginning(KINDS, incomplete)


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    return _beginning(PRESETS, incomplete)


def studies(incomplete: str) -> list[str]:
    """Names of the studies' notebooks."""
    from sage_kit.errors import SageError
    from sage_kit.studies.parameters import list_notebooks, notebooks_folder

    try:
        return _beginning((path.stem for path in list_notebooks(notebooks_folder())), incomplete)
    except SageError:
        return []


def profiles(incomplete: str) -> list[str]:
    """Sizes of studies."""
    from sage_kit.studies.sizes import SIZES

    return _beginning(SIZES, incomplete)


def words_so_far() -> list[str]:
    """The words behind the program's name, where a shell asks for completions; empty otherwise."""
    if COMPLETE_VARIABLE not in os.environ:
        return []
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    try:
        return shlex.split(line)[1:]
    except ValueError:  # a quote that is still open
        return line.split()[1:]


def _of_list(names: Callable[[], Iterable[str]]) -> Completer:
    """Completes the last name of a list with commas."""

    def complete(incomplete: str) -> list[str]:
        head, comma, last = incomplete.rpartition(",")
        return [f"{head}{comma}{name}" for name in _beginning(names(), last)]

    return complete


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
