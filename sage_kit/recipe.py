"""A recipe: the settings of a run and the components that they choose, resolved and checked once.

`resolve` answers before anything is computed whether the components exist, take their options and go together; the
recipe's `check_labels` and `check_sizes` answer whether they fit the data. Whoever computes takes the recipe, and looks
no component up by its name again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sage_kit.components import (
    BuildContext,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    LossSpec,
    MetricSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    TaskSpec,
    handling_of,
)
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.config import RunConfig
from sage_kit.config.loss_weights import LossWeight, loss_choices
from sage_kit.errors import CompatibilityError, ConfigError, did_you_mean

CHOSEN_KINDS = ("reducer", "sampler", "inverter", "lift", "filter", "stop_rule")


@dataclass(frozen=True, eq=False)
class Choice:
    """A component that a run uses.

    Attributes
    ----------
    kind, name : str
    spec : ComponentSpec
        With the capabilities that it has under the options.
    options : Options
        Checked.
    registered : Registered
        With its origin.
    plugins : Plugins
        That it comes from.
    """

    kind: str
    name: str
    spec: Any
    options: Options
    registered: Registered
    plugins: Plugins

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name!r}"

    @property
    def title(self) -> str:
        """Kind, name and origin, for messages about what it did."""
        return f"{self} ({self.registered.origin})"

    def build(self, context: BuildContext) -> Any:
        """Build it, as `Plugins.build` does."""
        return self.plugins.build(self.kind, self.name, self.options, context)

    def call(self, function: Callable[..., Any], *arguments: Any, step: str = "") -> Any:
        """Call a function of it; what that raises of its own is reported under the component's name."""
        return self.plugins.call(self.kind, self.name, function, *arguments, step=step)


@dataclass(frozen=True, eq=False)
class LossChoice(Choice):
    """A loss that a run uses.

    Attributes
    ----------
    weight : LossWeight
    """

    spec: LossSpec
    weight: LossWeight


@dataclass(frozen=True, eq=False)
class Recipe:
    """The settings of a run and what they choose.

    Attributes
    ----------
    config : RunConfig
    plugins : Plugins
    choices : mapping of str to Choice
        By kind, the components that the run uses.
    observers : mapping of str to Options
        The options of the observers that the settings name.
    needs_inverse : bool
        Whether the inverter, or one that it is built over, calls the reducer's own inverse.
    losses : mapping of str to LossChoice
        By name, in the order in which they are added up.
    """

    config: RunConfig
    plugins: Plugins
    choices: Mapping[str, Choice]
    observers: Mapping[str, Options]
    needs_inverse: bool
    losses: Mapping[str, LossChoice] = field(default_factory=dict)

    def __getitem__(self, kind: str) -> Choice:
        return self.choices[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self.choices

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    @property
    def uses_map(self) -> bool:
        """Whether the run has a map: a reducer and an inverter."""
        return "reducer" in self.choices

    @property
    def reducer(self) -> ReducerSpec:
        """The reducer's spec."""
        return cast(ReducerSpec, self["reducer"].spec)

    @property
    def sampler(self) -> SamplerSpec:
        """The sampler's spec."""
        return cast(SamplerSpec, self["sampler"].spec)

    @property
    def lift(self) -> LiftSpec:
        """The lift's spec."""
        return cast(LiftSpec, self["lift"].spec)

    @property
    def filter(self) -> FilterSpec:
        """The filter's spec."""
        return cast(FilterSpec, self["filter"].spec)

    @property
    def first_synthetic(self) -> int:
        """The first round with synthetic examples: the first where the sampler needs no losses, else the second."""
        return 2 if "sampler" in self and self.sampler.needs_losses else 1

    @property
    def named(self) -> dict[str, Choice]:
        """The components that the settings name: by kind, and losses under ``loss.<name>``."""
        losses = self.losses if self.config.losses else {}
        return {**self.choices, **{f"loss.{name}": choice for name, choice in losses.items()}}

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """By kind, the options with their defaults, ready for JSON; those of losses under ``loss.<name>``."""
        return {key: choice.options.model_dump(mode="json") for key, choice in self.named.items()}

    def check_labels(self, rows: int, unlabelled: int) -> None:
        """Check that nothing which the settings choose needs gold labels that the transfer set lacks.

        Parameters
        ----------
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
        weight = self.config.hard_label_weight
        if weight:
            raise CompatibilityError(f"hard_label_weight is {weight:g}, but {lacking}: set it to 0, or give all labels")
        for loss in self.losses.values():
            if loss.spec.needs_labels:
                raise CompatibilityError(f"{loss} looks at labels, but {lacking}: leave it out, or give all labels")
        if self.uses_map and self.reducer.needs_labels:
            raise CompatibilityError(
                f"{self['reducer']} learns from labels, but {lacking}: take another reducer, or give all labels"
            )

    def check_sizes(self, rows: int, dim: int) -> None:
        """Check the components against the data.

        Parameters
        ----------
        rows, dim : int
            Number of training examples and width of the vectors.

        Raises
        ------
        CompatibilityError
            For more components than the vectors have dimensions or the reducer can take from so few rows, and for
            fewer rows than neighbours.
        """
        config, plugins = self.config, self.plugins
        # anchors alone need no neighbours
        if "sampler" in self and (self.sampler.space == "full" or self.uses_map):
            needed = plugins.least_rows("sampler", config.sampler, self["sampler"].options)
            if needed is not None and rows < needed:
                raise CompatibilityError(
                    f"{self['sampler']} needs at least {needed} training examples with these options, and there are "
                    f"{rows}: ask for fewer neighbours or use more data"
                )
        if not self.uses_map:
            return
        if config.n_components > dim:
            raise CompatibilityError(f"n_components is {config.n_components}, but the vectors have {dim} dimensions")
        own = plugins.least_rows("reducer", config.reducer, self["reducer"].options, config.n_components)
        least = max(config.n_components + 1, own or 0)
        fitted = min(rows, config.landmarks or rows)
        if fitted < least:
            what, remedy = ("landmarks", "more of them") if fitted < rows else ("training examples", "more data")
            raise CompatibilityError(
                f"{self['reducer']} needs at least {least} {what} with these options, and there are {fitted}: ask for "
                f"fewer neighbours or components, or use {remedy}"
            )


def resolve(config: RunConfig, plugins: Plugins) -> Recipe:
    """Look the components up that the settings choose, and check them by themselves and with each other.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a component or option that is not there or a bad value.
    CompatibilityError
        When two choices do not go together.
    """
    task = plugins.use().task(config.task, config.task_options, file_kind=config.task_kind)
    _check_kind(config, task)
    choices = {kind: choose(kind, config, plugins) for kind in _needed_kinds(config, plugins)}
    observers = {
        name: plugins.options("observer", name, config.observer_options.get(name, {})) for name in config.observers
    }
    for name in config.observer_options:
        plugins.spec("observer", name)
    for name in config.metrics or task.metrics:
        check_metric(name, plugins, task)
    for name, given in config.metric_options.items():
        plugins.options("metric", name, given)
    for choice in choices.values():
        if not task.has_classes and getattr(choice.spec, "needs_classes", False):
            raise CompatibilityError(
                f"{choice.kind} {choice.name!r} looks at classes, and task {config.task!r} {has_labels(task)}: take "
                f"another {choice.kind}"
            )
        if task.is_structured and getattr(choice.spec, "needs_outputs", False):
            raise CompatibilityError(
                f"{choice.kind} {choice.name!r} compares classes or numbers, and task {config.task!r} "
                f"{has_labels(task)}: take another {choice.kind}"
            )
    losses = choose_losses(config, plugins, task)
    recipe = Recipe(config, plugins, choices, observers, False, losses)
    _check_surplus(recipe)
    _check_shares(recipe)
    _check_several_inputs(recipe)
    if not recipe.uses_map:
        return recipe
    most = recipe.reducer.max_components
    if most is not None and config.n_components > most:
        raise CompatibilityError(
            f"n_components is {config.n_components}, but reducer {config.reducer!r} takes at most {most}"
        )
    chain = _inverter_chain(plugins, config.inverter, recipe["inverter"].options)
    if not plugins.inverter(chain[-1]).needs_inverse:
        return recipe
    _check_inverse(recipe, chain)
    return Recipe(config, plugins, choices, observers, True, losses)


def _check_kind(config: RunConfig, task: TaskSpec) -> None:
    """Refuse settings that do not go with the kind of task."""
    kind = handling_of(task).spec
    if config.granularity == "pooled" and kind.architecture != "sequence":
        raise CompatibilityError(
            f"granularity is 'pooled', which leaves one vector a text, and a task of kind {kind.name!r} has outputs of "
            "its tokens: set granularity to 'token'"
        )
    if kind.architecture == "embedding" and config.student_width:
        raise CompatibilityError(
            f"student_width is {config.student_width}, but the vectors of a task of kind {kind.name!r} are as wide as "
            "the teacher's: set it to 0, and make the student smaller by student_layers, student_heads or student_ffn"
        )
    if config.text_prefix and kind.architecture != "embedding":
        raise CompatibilityError(
            f"text_prefix is {config.text_prefix!r}, and only a task whose outputs are embeddings takes one: empty it"
        )


def _check_several_inputs(recipe: Recipe) -> None:
    """Refuse synthetic examples that not all models of the run can read."""
    config = recipe.config
    if "lift" not in recipe or not (config.student or config.other_teachers):
        return
    several = "student names a checkpoint" if config.student else "other_teachers names more teachers"
    if not recipe.lift.makes_text:
        raise CompatibilityError(
            f"{several}, which can read text alone, and {recipe['lift']} makes states of the first teacher's tokens: "
            "take a lift that makes text, such as 'replace', or set schedule to 'none'"
        )
    if recipe.sampler.needs_gradient:
        raise CompatibilityError(
            f"{recipe['sampler']} follows the gradient by token states that teacher and student share, and {several}: "
            "take another sampler"
        )


def has_labels(task: TaskSpec) -> str:
    """What the labels of a task are that has no classes, to stand behind its name: "is a regression task"."""
    return "is a regression task" if task.is_regression else f"has {task.label_kind.replace('_', ' ')}"


def check_metric(name: str, plugins: Plugins, task: TaskSpec) -> MetricSpec:
    """The spec of a metric that a task is to be scored by.

    Raises
    ------
    UnknownComponentError, MissingPackageError
        For a metric that is not there.
    CompatibilityError
        When it is for another kind of label.
    """
    spec, kind = plugins.metric(name), task.label_kind
    if kind not in spec.takes:
        able = [item.spec.name for item in plugins.components("metric") if kind in getattr(item.spec, "takes", ())]
        raise CompatibilityError(
            f"metric {name!r} is for {' and '.join(spec.takes)}, and task {task.name!r} has {kind}: take another in "
            f"metrics ({', '.join(able) or 'none is installed'})"
        )
    return spec


def choose(kind: str, config: RunConfig, plugins: Plugins) -> Choice:
    """The component of a kind that the settings choose, whether a run uses it or not; raises as `resolve` does."""
    name, given = config.component_choice(kind)
    options = plugins.options(kind, name, given)
    refined = {"reducer": plugins.reducer, "lift": plugins.lift}.get(kind)
    spec = plugins.spec(kind, name) if refined is None else refined(name, options)
    return Choice(kind, name, spec, options, plugins.registered(kind, name), plugins)


def choose_losses(config: RunConfig, plugins: Plugins, task: TaskSpec) -> dict[str, LossChoice]:
    """The losses that the settings choose, checked by themselves; raises as `resolve` does."""
    for name in config.losses:
        plugins.registered("loss", name)  # one of weight 0 too
    found = {}
    for name, (weight, given) in loss_choices(config).items():
        options = plugins.options("loss", name, given)
        spec = cast(LossSpec, plugins.spec("loss", name))
        choice = found[name] = LossChoice(
            "loss", name, spec, options, plugins.registered("loss", name), plugins, weight
        )
        # several distributions of an example are as good as one, but places in a text are no classes of a batch
        if spec.needs_classes and (task.is_regression or task.label_kind in ("embeddings", "spans")):
            raise CompatibilityError(
                f"{choice} looks at classes, and task {config.task!r} {has_labels(task)}: leave it out"
            )
        if spec.needs_labels and task.label_kind == "embeddings":
            raise CompatibilityError(
                f"{choice} looks at labels, and a text of task {config.task!r} has none: leave it out"
            )
        if spec.needs_tokens and config.granularity == "pooled":
            raise CompatibilityError(
                f"{choice} compares the tokens of an example with each other, and granularity 'pooled' leaves one: "
                "leave it out, or set granularity to 'token'"
            )
    for name in config.loss_options:
        if name not in config.losses:
            if not config.losses:
                plugins.registered("loss", name)
                raise ConfigError(f"loss_options names {name!r}, but losses is empty: set losses to {{{name} = 1.0}}")
            raise ConfigError(f"loss_options names {name!r}, which losses does not.{did_you_mean(name, config.losses)}")
        plugins.options("loss", name, config.loss_options[name])
    if config.losses_from == "pass" and not any(loss.spec.of_outputs for loss in found.values()):
        raise CompatibilityError(
            f"losses_from is 'pass', which looks at outputs alone, and none of the losses does ({', '.join(found)}): "
            "set losses_from to 'training', or add kl to losses"
        )
    return found


def _needed_kinds(config: RunConfig, plugins: Plugins) -> tuple[str, ...]:
    """The kinds of component that a run with these settings uses."""
    if config.schedule == "none":
        return ("stop_rule",)
    sampler = plugins.sampler(config.sampler)
    # where nothing of a run looks at the new points, none need be made
    looks = (
        not sampler.anchors_alone
        or plugins.lift(config.lift, config.lift_options).uses_vectors
        or plugins.filter(config.filter).uses_vectors
    )
    return CHOSEN_KINDS if sampler.space != "full" and looks else ("sampler", "lift", "filter", "stop_rule")


def _check_surplus(recipe: Recipe) -> None:
    """Refuse a filter that keeps some of many where the examples are no text: its batches would not be filled again."""
    if "filter" not in recipe:
        return
    name = recipe.config.filter
    if recipe.plugins.surplus(name, recipe["filter"].options) > 1 and not recipe.lift.makes_text:
        raise CompatibilityError(
            f"filter {name!r} keeps a part of the examples that are made, for which they must be text, and "
            f"lift {recipe.config.lift!r} makes none with these options: take lift 'replace' or 'replace_random'"
        )


def _check_shares(recipe: Recipe) -> None:
    """Refuse a lift that mixes an example with its partner, beside a sampler that names none."""
    if "lift" not in recipe or not recipe.lift.needs_shares or recipe.sampler.gives_shares:
        return
    able = [i.spec.name for i in recipe.plugins.components("sampler") if getattr(i.spec, "gives_shares", False)]
    raise CompatibilityError(
        f"{recipe['lift']} mixes an example with its partner, and {recipe['sampler']} names none: take another lift, "
        f"or a sampler that does ({', '.join(able) or 'none is installed'})"
    )


def _check_inverse(recipe: Recipe, chain: list[str]) -> None:
    """Refuse an inverter that calls an inverse which the reducer does not have, here or in so many dimensions."""
    config, reducer, names = recipe.config, recipe.reducer, " over ".join(map(repr, chain))
    if config.map_layer:
        raise CompatibilityError(
            f"inverter {names} calls the reducer's inverse, which gives states of layer {config.map_layer} (map_layer) "
            "and no input of the student: take inverter 'knn', or 'anchored' over 'knn'"
        )
    called = f"inverter {names} calls the reducer's inverse, which reducer {reducer.name!r}"
    if not reducer.has_inverse:
        components = recipe.plugins.components("reducer")
        able = [item.spec.name for item in components if getattr(item.spec, "has_inverse", False)]
        raise CompatibilityError(
            f"{called} does not have: take inverter 'knn', or 'anchored' over 'knn', or a reducer that has one "
            f"({', '.join(able) or 'none is installed'})"
        )
    if config.n_components < reducer.inverse_min_components:
        raise CompatibilityError(
            f"{called} has from {reducer.inverse_min_components} dimensions on, and n_components is "
            f"{config.n_components}: raise n_components, or take inverter 'knn', or 'anchored' over 'knn'"
        )


def calls_inverse(config: RunConfig, plugins: Plugins) -> bool:
    """Whether the settings' inverter, or one that it is built over, calls the reducer's own inverse.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For an inverter or option that is not there or a bad value.
    CompatibilityError
        For an inverter that is built over itself.
    """
    name, given = config.component_choice("inverter")
    chain = _inverter_chain(plugins, name, plugins.options("inverter", name, given))
    return plugins.inverter(chain[-1]).needs_inverse


def _inverter_chain(plugins: Plugins, name: str, checked: Options) -> list[str]:
    """Names of the inverter, of the one it is built over, and so on, as far as one that calls the reducer's inverse."""
    chain = [name]
    while True:
        spec: InverterSpec = plugins.inverter(chain[-1])
        if spec.needs_inverse or not spec.base_option:
            return chain
        name = str(getattr(checked, spec.base_option))
        if name in chain:
            raise CompatibilityError(f"inverter {name!r} is built over itself: {' over '.join([*chain, name])}")
        chain.append(name)
        checked = plugins.options("inverter", name, getattr(checked, f"{spec.base_option}_options", {}))
