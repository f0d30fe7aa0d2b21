"""Which settings a run does not use, though someone gave them, and why."""

from __future__ import annotations

from collections.abc import Collection

from sage_kit.config import RunConfig
from sage_kit.recipe import CHOSEN_KINDS, Recipe

MAP_SETTINGS = ("n_components", "map_layer", "reducer_seed", "refit", "landmarks", "landmark_choice")
"""Settings of the map beside the choice of a reducer."""

MADE_STUDENT = (
    "student_layers", "student_init", "student_width", "student_heads", "student_ffn", "student_width_init",
)  # fmt: skip
"""Settings of a student that is made of the teacher's blocks."""


def unused_settings(recipe: Recipe, given: Collection[str]) -> str:
    """In one line, which of the given settings the run does not use, and why.

    Parameters
    ----------
    recipe : Recipe
    given : collection of str
        Names of the settings that someone gave.

    Returns
    -------
    str
        "" where all are used.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a component or option that is not there or a bad value, though it is not used.
    """
    config, plugins = recipe.config, recipe.plugins
    idle = [kind for kind in CHOSEN_KINDS if kind not in recipe]
    for kind in idle:
        if {kind, f"{kind}_options"} & set(given):
            plugins.options(kind, *config.component_choice(kind))
    names = [name for kind in idle for name in (kind, f"{kind}_options")]
    names += MAP_SETTINGS if "reducer" in idle else ()
    found = [name for name in names if name in given]
    reasons = [f"{', '.join(found)} ({_why_no_map(recipe)})"] if found else []
    if "vector_dtype" in given and config.bypass == "embeddings" and config.granularity == "token":
        reasons.append("vector_dtype (token states that no block made are not stored)")
    if "student_width_init" in given and not config.student and (reason := _why_no_width_init(config)):
        reasons.append(f"student_width_init ({reason})")
    if "compile_buckets" in given and not config.compile:
        reasons.append("compile_buckets (compile is off)")
    own = [name for name in MADE_STUDENT if name in given and config.student]
    if own:
        reasons.append(f"{', '.join(own)} (student names a checkpoint, which has its own)")
    return f"not used by this run: {'; '.join(reasons)}" if reasons else ""


def _why_no_width_init(config: RunConfig) -> str:
    """Why a run does not look at how its student becomes narrower; "" where it may."""
    if config.student_init == "scratch":
        return "student_init 'scratch' takes nothing of the teacher's blocks"
    if config.student_width or config.student_heads or config.student_ffn:
        return ""
    return "none of student_width, student_heads and student_ffn makes the student narrower"


def _why_no_map(recipe: Recipe) -> str:
    """Why a run synthesises nothing, or does it without a map."""
    config = recipe.config
    if config.schedule == "none":
        why = "schedule 'none' synthesises nothing"
    elif recipe.sampler.space == "full":
        why = f"sampler {config.sampler!r} works without a map"
    else:
        why = f"sampler {config.sampler!r} and lift {config.lift!r} look at no map"
        if config.lift == "replace":
            why += '; lift_options source = "neighbors" takes tokens of neighbours in one'
    return why
