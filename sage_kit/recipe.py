"""Do the chosen components exist, take their options, go together, and fit the data?

Asked before anything is computed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError

CHOSEN_KINDS = ("reducer", "sampler", "inverter", "lift", "filter", "stop_rule")


def needed_kinds(config: RunConfig, plugins: Plugins) -> tuple[str, ...]:
    """The kinds of component that a run with these settings uses.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a sampler, lift or filter, or an option of the lift, that is not there or a bad value.
    """
    if config.schedule == "none":
        return ("stop_rule",)
    if plugins.sampler(config.sampler).space == "full" or not _looks_at_vectors(config, plugins):
        return ("sampler", "lift", "filter", "stop_rule")
    return CHOSEN_KINDS


def _looks_at_vectors(config: RunConfig, plugins: Plugins) -> bool:
    """Whether anything of a run in the map looks at the new points: if not, none need be made."""
    if not plugins.sampler(config.sampler).anchors_alone:
        return True
    lift = plugins.lift(config.lift, config.lift_options)
    return lift.uses_vectors or plugins.filter(config.filter).uses_vectors


def first_synthetic_round(config: RunConfig, plugins: Plugins) -> int:
    """The first round with synthetic examples: the first where the sampler needs no losses, else the second."""
    return 2 if plugins.sampler(config.sampler).needs_losses else 1


def chosen_options(config: RunConfig, plugins: Plugins) -> dict[str, dict[str, Any]]:
    """By kind of component that a run uses, its options with their defaults, ready for JSON."""
    chosen = {kind: config.component_choice(kind) for kind in needed_kinds(config, plugins)}
    return {kind: plugins.options(kind, *choice).model_dump(mode="json") for kind, choice in chosen.items()}


def check_choices(config: RunConfig, plugins: Plugins) -> None:
    """Check the components by themselves and with each other.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a component or option that is not there or a bad value.
    CompatibilityError
        When two choices do not go together.
    """
    task = plugins.task(config.task)
    kinds = needed_kinds(config, plugins)
    for kind in kinds:
        name, options = config.component_choice(kind)
        plugins.options(kind, name, options)
    for name in config.observers:
        plugins.options("observer", name, config.observer_options.get(name, {}))
    for name in config.observer_options:
        plugins.spec("observer", name)
    # the spec of task `file` is a template that knows no labels yet
    regression = config.task_kind == "regression" if config.task == "file" else task.is_regression
    for kind in kinds:
        name = config.component_choice(kind)[0]
        if regression and getattr(plugins.spec(kind, name), "needs_classes", False):
            raise CompatibilityError(
                f"{kind} {name!r} looks at classes, and task {config.task!r} is a regression task: take another {kind}"
            )
    if "filter" in kinds:
        _check_surplus(config, plugins)
    needs_shares = "lift" in kinds and getattr(plugins.spec("lift", config.lift), "needs_shares", False)
    if needs_shares and not plugins.sampler(config.sampler).gives_shares:
        able = [i.spec.name for i in plugins.components("sampler") if getattr(i.spec, "gives_shares", False)]
        raise CompatibilityError(
            f"lift {config.lift!r} mixes an example with its partner, and sampler {config.sampler!r} names none: take "
            f"another lift, or a sampler that does ({', '.join(able) or 'none is installed'})"
        )
    if "reducer" not in kinds:
        return
    reducer = plugins.reducer(config.reducer, config.reducer_options)
    if reducer.max_components is not None and config.n_components > reducer.max_components:
        raise CompatibilityError(
            f"n_components is {config.n_components}, but reducer {reducer.name!r} takes at most "
            f"{reducer.max_components}"
        )
    chain = _inverter_chain(config, plugins)
    if not plugins.inverter(chain[-1]).needs_inverse:
        return
    if config.map_layer:
        raise CompatibilityError(
            f"inverter {' over '.join(map(repr, chain))} calls the reducer's inverse, which gives states of layer "
            f"{config.map_layer} (map_layer) and no input of the student: take inverter 'knn', or 'anchored' over 'knn'"
        )
    called = f"inverter {' over '.join(map(repr, chain))} calls the reducer's inverse, which reducer {reducer.name!r}"
    if not reducer.has_inverse:
        able = [item.spec.name for item in plugins.components("reducer") if getattr(item.spec, "has_inverse", False)]
        raise CompatibilityError(
            f"{called} does not have: take inverter 'knn', or 'anchored' over 'knn', or a reducer that has one "
            f"({', '.join(able) or 'none is installed'})"
        )
    if config.n_components < reducer.inverse_min_components:
        raise CompatibilityError(
            f"{called} has from {reducer.inverse_min_components} dimensions on, and n_components is "
            f"{config.n_components}: raise n_components, or take inverter 'knn', or 'anchored' over 'knn'"
        )


def _check_surplus(config: RunConfig, plugins: Plugins) -> None:
    """Refuse a filter that keeps some of many where the examples are no text: its batches would not be filled again."""
    options = plugins.options("filter", config.filter, config.filter_options)
    if plugins.surplus(config.filter, options) > 1 and not plugins.lift(config.lift, config.lift_options).makes_text:
        raise CompatibilityError(
            f"filter {config.filter!r} keeps a part of the examples that are made, for which they must be text, and "
            f"lift {config.lift!r} makes none with these options: take lift 'replace' or 'replace_random'"
        )


def inverter_needs_inverse(config: RunConfig, plugins: Plugins) -> bool:
    """Whether the inverter, or one that it is built over, calls the reducer's own inverse.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For an inverter or option that is not there or a bad value.
    CompatibilityError
        For an inverter that is built over itself.
    """
    return plugins.inverter(_inverter_chain(config, plugins)[-1]).needs_inverse


def _inverter_chain(config: RunConfig, plugins: Plugins) -> list[str]:
    """Names of the inverter, of the one it is built over, and so on, as far as one that calls the reducer's inverse."""
    name, options = config.component_choice("inverter")
    chain: list[str] = []
    while True:
        if name in chain:
            raise CompatibilityError(f"inverter {name!r} is built over itself: {' over '.join([*chain, name])}")
        chain.append(name)
        checked = plugins.options("inverter", name, options)
        spec = plugins.inverter(name)
        if spec.needs_inverse or not spec.base_option:
            return chain
        name = str(getattr(checked, spec.base_option))
        options = getattr(checked, f"{spec.base_option}_options", {})


def check_labels(config: RunConfig, plugins: Plugins, rows: int, unlabelled: int) -> None:
    """Check that nothing which the settings choose needs gold labels that the transfer set lacks.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    rows, unlabelled : int
        Rows of the transfer set, and those of them without a label.

    Raises
    ------
    CompatibilityError
        For a weight of the gold label, or a reducer that learns from labels.
    """
    if not unlabelled:
        return
    lacking = f"{unlabelled:,} of the {rows:,} rows that the student learns from have no label"
    if config.hard_label_weight:
        raise CompatibilityError(
            f"hard_label_weight is {config.hard_label_weight:g}, but {lacking}: set it to 0, or give all labels"
        )
    if "reducer" in needed_kinds(config, plugins):
        reducer = plugins.reducer(config.reducer, config.reducer_options)
        if reducer.needs_labels:
            raise CompatibilityError(
                f"reducer {reducer.name!r} learns from labels, but {lacking}: take another reducer, or give all labels"
            )


def check_sizes(config: RunConfig, plugins: Plugins, rows: int, dim: int) -> None:
    """Check the components against the data: number of training examples and width of the vectors.

    Raises
    ------
    CompatibilityError
        For more components than the vectors have dimensions or the reducer can take from so few rows, and for fewer
        rows than neighbours.
    """
    kinds = needed_kinds(config, plugins)
    sampler = plugins.sampler(config.sampler) if "sampler" in kinds else None
    # anchors alone need no neighbours
    if sampler is not None and (sampler.space == "full" or "reducer" in kinds):
        chosen = plugins.options("sampler", config.sampler, config.sampler_options)
        needed = plugins.least_rows("sampler", sampler.name, chosen)
        if needed is not None and rows < needed:
            raise CompatibilityError(
                f"sampler {sampler.name!r} needs at least {needed} training examples with these options, and there "
                f"are {rows}: ask for fewer neighbours or use more data"
            )
    if "reducer" in kinds:
        reducer = plugins.reducer(config.reducer, config.reducer_options)
        if config.n_components > dim:
            raise CompatibilityError(f"n_components is {config.n_components}, but the vectors have {dim} dimensions")
        options = plugins.options("reducer", config.reducer, config.reducer_options)
        least = max(
            config.n_components + 1, plugins.least_rows("reducer", reducer.name, options, config.n_components) or 0
        )
        fitted = min(rows, config.landmarks or rows)
        if fitted < least:
            what, remedy = ("landmarks", "more of them") if fitted < rows else ("training examples", "more data")
            raise CompatibilityError(
                f"reducer {reducer.name!r} needs at least {least} {what} with these options, and there are {fitted}: "
                f"ask for fewer neighbours or components, or use {remedy}"
            )


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
