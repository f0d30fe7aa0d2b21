"""Settings that were given and that a run would leave aside in silence. Light."""

from __future__ import annotations

from collections.abc import Collection

from sage_kit.compatibility import CHOSEN_KINDS, needed_kinds
from sage_kit.config import RunConfig
from sage_kit.plugins import Plugins

MAP_SETTINGS = ("n_components", "map_layer", "reducer_seed", "refit", "landmarks", "landmark_choice")
"""Settings of the map beside the choice of a reducer."""


def unused_settings(config: RunConfig, plugins: Plugins, given: Collection[str]) -> str:
    """In one line, which of the given settings choose or shape a component that the run does not use, and why.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    given : collection of str
        Names of the settings that someone gave.

    Returns
    -------
    str
        "" where all are used.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a component or option that is not there or a bad value, used or not.
    """
    needed = needed_kinds(config, plugins)
    idle = [kind for kind in CHOSEN_KINDS if kind not in needed]
    for kind in idle:
        if {kind, f"{kind}_options"} & set(given):
            plugins.options(kind, *config.component_choice(kind))
    names = [name for kind in idle for name in (kind, f"{kind}_options")]
    names += MAP_SETTINGS if "reducer" in idle else ()
    found = [name for name in names if name in given]
    if not found:
        return ""
    if config.schedule == "none":
        why = "schedule 'none' synthesises nothing"
    elif plugins.sampler(config.sampler).space == "full":
        why = f"sampler {config.sampler!r} works without a map"
    else:
        why = f"sampler {config.sampler!r} and lift {config.lift!r} look at no map"
        if config.lift == "replace":
            why += '; lift_options source = "neighbors" takes tokens of neighbours in one'
    return f"not used by this run: {', '.join(found)} ({why})"
