"""Checks of the specs that contributing hooks yield, and of the packages that a spec requires."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from sage_kit.components.family_specs import FamilySpec, HeadParts
from sage_kit.components.guard import Failure, attempt, cause_of, place_of
from sage_kit.components.protocols import PROTOCOLS
from sage_kit.components.specs import (
    LABEL_KINDS,
    ComponentSpec,
    DecoderSpec,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    LossSpec,
    MetricSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    StopRuleSpec,
)
from sage_kit.components.task_kinds import Architecture, TaskKindSpec
from sage_kit.components.task_specs import HubSource, SplitSource, TaskSpec
from sage_kit.errors import PluginError, one_line

NAME = re.compile(r"[a-z][a-z0-9_]*")

Spec = ComponentSpec | TaskSpec


def plural(kind: str) -> str:
    """Several of a kind, as text or in the name of a hook: "losses", "families"."""
    if kind.endswith("y"):
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


CONTRIBUTING_HOOKS: Mapping[str, type[ComponentSpec] | type[TaskSpec]] = {
    f"sage_{plural(spec.kind)}": spec
    for spec in (
        ReducerSpec,
        SamplerSpec,
        InverterSpec,
        LiftSpec,
        FilterSpec,
        LossSpec,
        DecoderSpec,
        TaskSpec,
        MetricSpec,
        ObserverSpec,
        StopRuleSpec,
        FamilySpec,
        TaskKindSpec,
    )
}
"""The hooks that yield components, and the class of what each yields."""

KINDS: tuple[str, ...] = tuple(spec.kind for spec in CONTRIBUTING_HOOKS.values())


def contributed(function: Callable[[], Any], hook: str, spec_type: type[ComponentSpec] | type[TaskSpec]) -> list[Any]:
    """The specs that a contributing hook yields, looked through; raises PluginError with what is wrong."""

    def collect() -> list[Any]:
        yielded = function()
        if yielded is None:
            raise PluginError(f"`{hook}` returned nothing: yield the spec or return a list")
        if inspect.iscoroutine(yielded):
            yielded.close()
            raise PluginError(f"{hook} is async: write a plain function")
        if isinstance(yielded, ComponentSpec | TaskSpec):
            raise PluginError(f"{hook} returned one {type(yielded).__name__}: yield it, or return a list")
        found = []
        for spec in yielded:
            if not isinstance(spec, spec_type):
                raise PluginError(f"{hook} yielded {spec!r}, which is no {spec_type.__name__}")
            if spec.kind != spec_type.kind:
                raise PluginError(f"{hook} yielded a spec of kind {spec.kind!r}, not {spec_type.kind!r}")
            problem = problem_of(spec)
            if problem:
                raise PluginError(f"{title_of(spec)}: {problem}")
            found.append(spec)
        return found

    try:
        found: list[Any] = attempt(collect)
    except Failure as failure:
        error = failure.error
        raise PluginError(f"{hook} raised {cause_of(error)}", place_of(error, function)) from error
    return found


_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("text", lambda value: isinstance(value, str)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int | None": ("an integer or None", lambda value: value is None or type(value) is int),
    "tuple[str, ...]": (
        "a tuple of text",
        lambda value: isinstance(value, tuple | list) and all(isinstance(item, str) for item in value),
    ),
    "tuple[float, float]": (
        "two numbers",
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
        ),
    ),
    "HubSource | None": ("a HubSource or None", lambda value: value is None or isinstance(value, HubSource)),
    "Literal['sdpa', 'eager']": ("'sdpa' or 'eager'", lambda value: value in ("sdpa", "eager")),
    "HeadParts": ("a HeadParts", lambda value: isinstance(value, HeadParts)),
    "Architecture": ("'sequence', 'token', 'span' or 'embedding'", lambda value: value in get_args(Architecture)),
    "Literal['map', 'full']": ("'map' or 'full'", lambda value: value in ("map", "full")),
}
"""What the fields of a spec must be, by their annotation."""


def problem_of(spec: Any) -> str:
    """What is wrong with the fields of a spec, or ""; nothing is taken for granted about their types."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        return "a name is lower case letters, digits and underscores, a letter first"
    if isinstance(spec.requires, str):
        return f"requires is the text {spec.requires!r}, not a tuple of requirements"
    if spec.kind != TaskSpec.kind and not callable(spec.factory):
        return f"its factory {spec.factory!r} cannot be called"
    if not (isinstance(spec.options, type) and issubclass(spec.options, Options)):
        return f"its options {spec.options!r} are no subclass of sage_kit.components.Options"
    for field in dataclasses.fields(spec):
        value, kind = getattr(spec, field.name), str(field.type)
        expected, is_right = _TYPES.get(kind, ("", lambda value: True))
        if kind.startswith("Callable") and kind.endswith("None"):
            expected, is_right = "a function or None", lambda value: value is None or callable(value)
        if not is_right(value):
            return f"{field.name} is {value!r}, not {expected}"
    if spec.kind == TaskSpec.kind and not _are_sources(spec.sources):
        return f"sources is {spec.sources!r}, not a mapping of splits to SplitSource"
    if spec.kind == TaskSpec.kind and len(spec.text_columns) not in (1, 2):
        return f"text_columns names {len(spec.text_columns)} columns, not one or two"
    if spec.kind == MetricSpec.kind and (not spec.takes or set(spec.takes) - set(LABEL_KINDS)):
        return f"takes is {spec.takes!r}, not one or more of {', '.join(LABEL_KINDS)}"
    if spec.kind == TaskKindSpec.kind and spec.labels not in LABEL_KINDS:
        return f"labels is {spec.labels!r}, not one of {', '.join(LABEL_KINDS)}"
    if spec.kind == FamilySpec.kind and not spec.model_types:
        return "model_types names no model type"
    for requirement in spec.requires:
        try:
            Requirement(requirement)
        except InvalidRequirement as error:
            return f"{requirement!r} is no requirement: {one_line(error)}"
    if not isinstance(spec.capabilities(), dict):
        return "its capabilities() are no dictionary"
    return ""


def _are_sources(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(source, SplitSource) for source in value.values())


def required_methods(spec: ComponentSpec) -> list[str]:
    """The methods that a component of this spec must have."""
    protocol = PROTOCOLS.get(spec.kind)
    names = [name for name in vars(protocol) if not name.startswith("_")] if protocol else []
    if isinstance(spec, ReducerSpec):
        names += ["transform"] * spec.has_transform + ["inverse_transform"] * spec.has_inverse
        names += ["get_state", "set_state"] * spec.has_state
    if isinstance(spec, DecoderSpec):
        names += ["guess"] * spec.has_guesses
    return names


def missing_requirements(requires: Iterable[str]) -> list[str]:
    """Those of the requirement strings that the environment does not meet."""
    return [f"{text}{found}" for text, found in unmet(requires).items()]


def unmet(requires: Iterable[str]) -> dict[str, str]:
    """Unmet requirement strings, each with a note on the version that is installed instead, or ""."""
    from packaging.requirements import Requirement

    missing: dict[str, str] = {}
    for text in requires:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing[text] = ""
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing[text] = f" (version {version} is installed)"
    return missing


def words(kind: str) -> str:
    """A kind as text: "stop rule"."""
    return kind.replace("_", " ")


def title_of(spec: Any) -> str:
    """Kind and name of a component: "stop rule 'agreement'"."""
    return f"{words(spec.kind)} {spec.name!r}"
