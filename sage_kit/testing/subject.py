"""The component under check: builds it as a run would, in the surroundings of a toy run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from sage_kit.components import BuildContext, ComponentSpec, LiftSpec, Options, ReducerSpec, TaskKindSpec, TaskSpec
from sage_kit.components.loader import Origin
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.components.spec_checks import Spec, missing_requirements
from sage_kit.config import RunConfig
from sage_kit.errors import SageError, one_line
from sage_kit.recipe import CHOSEN_KINDS
from sage_kit.testing import toy
from sage_kit.testing.exercises import PLAYS, Recording
from sage_kit.testing.registry import CheckFailure, NotApplicable, require
from sage_kit.testing.surroundings import disturbed, look_for_pools, watched

KEEP_STATE = ("sampler", "filter", "stop_rule")
"""Kinds of which one object serves all rounds, and whose state a checkpoint keeps."""

LEAST_FIT = 0.02
"""R2 against the mean vector that an inverse must pass: a constant may come out a little above 0 by chance."""


class PluginsWith(Plugins):
    """All plugins of the process and one component that takes the place of another of its kind and name, if any."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        known = self._components.get((spec.kind, spec.name))
        if known is None or not _same(known.spec, spec):
            self._components[spec.kind, spec.name] = Registered(
                spec, Origin(spec.name, "the component under check", "")
            )
        else:
            self._components[spec.kind, spec.name] = dataclasses.replace(known, spec=spec)


def _same(first: Spec, second: Spec) -> bool:
    """Whether two specs stand for one component: a lazy factory is a new function at each call of the hook."""
    if isinstance(first, ComponentSpec) and isinstance(second, ComponentSpec):
        return first.options is second.options and first.factory.__qualname__ == second.factory.__qualname__
    return first == second


class Subject:
    """A component and what the checks need to use it."""

    def __init__(
        self, spec: Spec, options: Mapping[str, Any] | Options | None = None, plugins: Plugins | None = None
    ) -> None:
        self.spec = spec
        self.plugins = plugins or PluginsWith(spec)
        self.title = f"{spec.kind.replace('_', ' ')} {spec.name!r}"
        self.n_components = 2  # dimensions of the map under which it is checked
        self.effects: dict[str, list[str]] = {}  # what it was seen to change of its surroundings, by aspect
        self._configs: list[tuple[RunConfig, dict[str, Any]]] = []
        self._packages_loaded = False
        self.given = options.model_dump(exclude_unset=True) if isinstance(options, Options) else dict(options or {})

    @property
    def component_spec(self) -> ComponentSpec:
        """The spec of a component other than a task."""
        if isinstance(self.spec, TaskSpec):
            raise NotApplicable("a task is not built")
        return self.spec

    @property
    def origin(self) -> Origin:
        """Where the component comes from."""
        return self.plugins.registered(self.spec.kind, self.spec.name).origin

    def need_packages(self) -> None:
        """Skip the check where a package that the component requires is missing."""
        missing = missing_requirements(self.spec.requires)
        if missing:
            raise NotApplicable(f"needs {', '.join(missing)}, which is not installed here")

    @functools.cached_property
    def options(self) -> Any:
        """The checked options."""
        self.need_packages()
        return self.plugins.options(self.spec.kind, self.spec.name, self.given)

    def config(self, **settings: Any) -> RunConfig:
        """Settings of a toy run in which this component is chosen."""
        kind, name = self.spec.kind, self.spec.name
        if kind == "observer":
            settings = {"observers": [name], "observer_options": {name: self.given}, **settings}
        elif kind == "loss":  # of two blocks, since one has none before its last
            chosen = {"losses": {name: 1.0}, "loss_options": {name: self.given}}
            settings = {**chosen, "student_layers": 2, "student_init": "scratch", **settings}
        elif kind == "metric" and "classes" in getattr(self.spec, "takes", ()):
            settings = {"metrics": [name], "metric_options": {name: self.given}, **settings}
        elif kind == "task_kind":
            settings = {"task_kind": name, **toy.files_of(cast(TaskKindSpec, self.spec).labels), **settings}
        elif kind in CHOSEN_KINDS:
            settings = {kind: name, f"{kind}_options": self.given, **settings}
        if isinstance(self.spec, LiftSpec) and self.spec.needs_shares:
            able = (i.spec.name for i in self.plugins.components("sampler") if getattr(i.spec, "gives_shares", False))
            settings = {"sampler": next(able), **settings}
        return toy.config(**settings)

    def build(self, *, seed: int = 0, n_components: int = 2) -> Any:
        """The component, made by its factory as a run would, but without a look at its methods."""
        context = self.context(seed=seed, n_components=n_components)
        return self.component_spec.factory(self.options, context)

    def build_unwatched(self) -> Any:
        """The component, made as for its first use."""
        return self.build(n_components=self.n_components)

    def build_watched(self) -> Any:
        """The component; what its factory changes of its surroundings is noted."""
        self._load_packages()
        context = self.context(n_components=self.n_components)
        before = context.config.model_dump(mode="json")
        with watched(self.effects, "its factory"):
            component = self.component_spec.factory(self.options, context)
        self._configs.append((context.config, before))
        return component

    def _load_packages(self) -> None:
        """Import what it says that it requires: what those change at import is not its doing."""
        if not self._packages_loaded:
            for name in required_modules(self.spec.requires):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            look_for_pools()
            self._packages_loaded = True

    @functools.cached_property
    def recording(self) -> Recording | BaseException | None:
        """What it does when it is used, None for a kind that is not used with rows, or what it raised instead."""
        self.need_packages()
        try:
            if self.spec.kind in PLAYS:
                PLAYS[self.spec.kind](self)
                return None
            if self.spec.kind == "reducer":
                _ = self.fitted  # finds a number of components that it takes
            return Recording(self)
        except (Exception, SystemExit) as error:  # a component may raise anything
            return error

    @functools.cached_property
    def is_stateful(self) -> bool:
        """Whether it has a state that a checkpoint keeps from one round to the next."""
        if self.spec.kind not in KEEP_STATE:
            return False
        component = self.build_unwatched()
        return all(callable(getattr(component, method, None)) for method in ("get_state", "set_state"))

    @property
    def changed_settings(self) -> list[str]:
        """Settings that were not the same after the component's use as before."""
        found = set()
        for config, before in self._configs:
            after = config.model_dump(mode="json")
            found |= {name for name in before if before[name] != after.get(name)}
        return sorted(found)

    @property
    def reducer_spec(self) -> ReducerSpec:
        """The spec of a reducer, with the capabilities that it has under the options."""
        spec = cast(ReducerSpec, self.component_spec)
        return spec if spec.refine is None else self.plugins.reducer(spec.name, self.options)

    def fit(self, reducer: Any, vectors: Any) -> Any:
        """What a reducer's fit_transform returns for some vectors."""
        if getattr(self.component_spec, "needs_labels", False):
            return reducer.fit_transform(vectors, toy.labels(len(vectors)))
        return reducer.fit_transform(vectors)

    @functools.cached_property
    def fitted(self) -> tuple[Any, Any]:
        """A reducer fitted on the toy vectors, and their coordinates: made once for all checks. It has two dimensions
        or, where it refuses those, one, or as many as the vectors: a reducer may take no others.
        """
        limit = self.reducer_spec.max_components
        numbers = [number for number in (2, 1, toy.DIM) if limit is None or number <= limit] or [2]
        refusals: list[SageError] = []
        for number in numbers:
            reducer = self.build(n_components=number)
            try:
                self._load_packages()
                first: dict[str, list[str]] = {}
                with watched(first, f"fit_transform() with {toy.ROWS} rows"), disturbed(11):
                    coordinates = self.fit(reducer, toy.train())
            except SageError as error:
                refusals.append(error)
                continue
            self.n_components = number
            for aspect, sentences in first.items():
                # a library such as numba sets threads up when it is first used; who sets them does so again
                told = [sentence for sentence in sentences if " threads " not in sentence]
                self.effects.setdefault(aspect, []).extend(told)
            return reducer, coordinates
        raise refusals[0]

    def context(self, *, seed: int = 0, n_components: int = 2) -> BuildContext:
        """What the factory is given."""
        config = self.config(n_components=n_components)
        sizes = toy.LOSS_SIZES if self.spec.kind == "loss" else None
        context = BuildContext(config=config, seed=seed, device="cpu", n_components=n_components, sizes=sizes)

        def component(kind: str, name: str, options: Any, **changes: Any) -> Any:
            return self.plugins.build(kind, name, options, dataclasses.replace(context, **changes))

        return dataclasses.replace(context, component=component)


def required_modules(requires: tuple[str, ...]) -> set[str]:
    """Import names of the packages that requirement strings name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if not requires:
        return set()
    wanted = {canonicalize_name(Requirement(text).name) for text in requires}
    wanted -= {"sage-kit", "pydantic", "pluggy"}
    provided = importlib.metadata.packages_distributions().items()
    return {module for module, names in provided if wanted & {canonicalize_name(name) for name in names}}


@contextmanager
def unchanged(**arrays: Any) -> Iterator[None]:
    """Fail if an array or tensor is changed in place within the block."""
    before = {name: _copy(values) for name, values in arrays.items() if values is not None}
    yield
    changed = [name for name, values in before.items() if not np.array_equal(values, _copy(arrays[name]))]
    require(not changed, f"it changes its input in place: {', '.join(changed)}")


def _copy(values: Any) -> Any:
    return np.array(values.numpy() if hasattr(values, "numpy") else values)


def works_or_explains(what: str, call: Callable[[], object]) -> None:
    """Fail if `call` raises anything but a SageError, or a SageError of more than one line."""
    try:
        call()
    except NotApplicable:
        raise
    except CheckFailure as failure:
        raise CheckFailure(f"with {what}: {failure}") from failure.__cause__
    except SageError as error:
        require("\n" not in str(error).strip(), f"with {what} its error has several lines: {error}")
        require(str(error).strip(), f"with {what} its error says nothing")
    except Exception as error:  # a component may raise anything
        raise CheckFailure(f"with {what} it raises {type(error).__name__}: {one_line(error)}") from error


def require_array(name: str, values: Any, shape: tuple[int, ...], dtypes: str = "") -> np.ndarray[Any, Any]:
    """The array, if it has the shape, one of the dtypes (names separated by spaces; "" for any float) and is finite."""
    require(isinstance(values, np.ndarray), f"{name} is a {type(values).__name__} instead of a numpy array")
    array = cast("np.ndarray[Any, Any]", values)
    require(array.shape == shape, f"{name} has shape {array.shape} instead of {shape}")
    if dtypes:
        require(str(array.dtype) in dtypes.split(), f"{name} is {array.dtype} instead of {' or '.join(dtypes.split())}")
    else:
        require(array.dtype.kind == "f", f"{name} is {array.dtype} instead of a float type")
    require(np.isfinite(array).all(), f"{name} holds NaN or infinity")
    return array


def r_squared(truth: Any, found: Any, mean: Any) -> float:
    """Share of the variance about `mean` that `found` explains: ``1 - |truth - found|^2 / |truth - mean|^2``."""
    error = np.square(np.asarray(truth, float) - np.asarray(found, float)).sum()
    return float(1 - error / np.square(np.asarray(truth, float) - np.asarray(mean, float)).sum())
