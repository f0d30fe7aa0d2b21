"""The specs of components by kind, each of its own type, with the capabilities that they have under some options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, cast

from sage_kit.components.messages import BuildContext
from sage_kit.components.spec_checks import problem_of, title_of
from sage_kit.components.specs import (
    ComponentSpec,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    MetricSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
)
from sage_kit.components.task_handling import TaskHandling
from sage_kit.components.task_kinds import TaskKindSpec
from sage_kit.components.task_specs import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.errors import PluginError

FILE_TASK = "file"
"""The task whose data the settings name."""


class SpecsByKind:
    """The look-ups of `Plugins` that know what each kind's spec is."""

    @abstractmethod
    def spec(self, kind: str, name: str) -> ComponentSpec:
        """The spec of a component other than a task."""

    @abstractmethod
    def registered(self, kind: str, name: str) -> Any:
        """The component of a name, with its origin."""

    @abstractmethod
    def options(self, kind: str, name: str, values: Mapping[str, Any] | Options) -> Options:
        """Check a component's options."""

    @abstractmethod
    def build(self, kind: str, name: str, values: Mapping[str, Any] | Options, context: BuildContext) -> Any:
        """Build a component."""

    @abstractmethod
    def call(self, kind: str, name: str, function: Callable[..., Any], *arguments: Any, step: str = "") -> Any:
        """Call a component's function."""

    def reducer(self, name: str, options: Mapping[str, Any] | Options | None = None) -> ReducerSpec:
        """The spec of a reducer, with the capabilities that it has under some options.

        Raises
        ------
        ConfigError
            For an unknown option or a bad value.
        PluginError
            When the spec's `refine` fails or gives something else than capabilities.
        SageError
            As `registered` does, also for a reducer that the options name.
        """
        spec = cast(ReducerSpec, self.spec("reducer", name))
        return spec if spec.refine is None else cast(ReducerSpec, self._refined(spec, options, self.reducer))

    def _refined(
        self, spec: ReducerSpec | LiftSpec | TaskSpec, options: Mapping[str, Any] | Options | None, *arguments: Any
    ) -> Any:
        """A spec with the fields that its `refine` gives it under some options."""
        kind, name, refine = spec.kind, spec.name, cast(Callable[..., Any], spec.refine)
        checked = self.options(kind, name, options or {})
        found = self.call(kind, name, refine, checked, *arguments, step="refine")
        refined: Any = self.call(kind, name, lambda: replace(spec, **found), step="refine")
        problem = problem_of(refined)
        if problem:
            raise PluginError(f"{kind} {name!r} ({self.registered(kind, name).origin}) by refine: {problem}")
        return refined

    def least_rows(self, kind: str, name: str, *arguments: Any) -> int | None:
        """The fewest rows that a reducer or sampler works with, as its spec's `min_rows` says; None where it says none.

        Parameters
        ----------
        kind, name : str
        *arguments
            What `min_rows` of that kind is called with, the options first.

        Raises
        ------
        PluginError
            When it fails or gives no integer.
        """
        spec = self.reducer(name, arguments[0]) if kind == "reducer" else self.spec(kind, name)
        min_rows = getattr(spec, "min_rows", None)
        if min_rows is None:
            return None
        found = self.call(kind, name, min_rows, *arguments, step="min_rows")
        if not isinstance(found, Integral):
            raise PluginError(f"{title_of(spec)} failed in min_rows: it gave {found!r}, not an integer")
        return int(found)

    def surplus(self, name: str, options: Options) -> int:
        """How many times as many examples a filter wants made as are asked for.

        Raises
        ------
        PluginError
            When its `surplus` fails or gives no integer of at least 1.
        """
        spec = self.filter(name)
        if spec.surplus is None:
            return 1
        found = self.call("filter", name, spec.surplus, options, step="surplus")
        if not isinstance(found, Integral) or found < 1:
            raise PluginError(f"{title_of(spec)} failed in surplus: it gave {found!r}, not an integer of at least 1")
        return int(found)

    def sampler(self, name: str) -> SamplerSpec:
        """The spec of a sampler; raises as `registered` does."""
        return cast(SamplerSpec, self.spec("sampler", name))

    def inverter(self, name: str) -> InverterSpec:
        """The spec of an inverter; raises as `registered` does."""
        return cast(InverterSpec, self.spec("inverter", name))

    def lift(self, name: str, options: Mapping[str, Any] | Options | None = None) -> LiftSpec:
        """The spec of a lift, with the capabilities that it has under some options; raises as `reducer` does."""
        spec = cast(LiftSpec, self.spec("lift", name))
        if spec.refine is None:
            return spec
        return cast(LiftSpec, self._refined(spec, options))

    def filter(self, name: str) -> FilterSpec:
        """The spec of a filter; raises as `registered` does."""
        return cast(FilterSpec, self.spec("filter", name))

    def metric(self, name: str) -> MetricSpec:
        """The spec of a metric; raises as `registered` does."""
        return cast(MetricSpec, self.spec("metric", name))

    def task(self, name: str, options: Mapping[str, Any] | Options | None = None, *, file_kind: str = "") -> TaskSpec:
        """The spec of a task, its kind in use, with the fields that it has under some options; raises as `reducer`
        does.

        `file_kind` is the kind of task `file`, which settings name.
        """
        spec = cast(TaskSpec, self.registered("task", name).spec)
        checked = self.options("task", name, options or {})
        if spec.refine is not None:
            spec = cast(TaskSpec, self._refined(spec, checked))
        if file_kind and name == FILE_TASK:
            spec = replace(spec, task_kind=file_kind)
        handling = self.handling(spec.kind_name)
        return replace(spec, handling=handling, metrics=spec.metrics or handling.spec.metrics)

    def handling(self, kind: str) -> TaskHandling:
        """A kind of task in use; raises as `build` does."""
        return TaskHandling(
            self.task_kind(kind),
            partial(self.build, "task_kind", kind, {}, BuildContext(config=RunConfig())),
            partial(self.call, "task_kind", kind),
        )

    def task_kind(self, name: str) -> TaskKindSpec:
        """The spec of a kind of task; raises as `registered` does."""
        return cast(TaskKindSpec, self.spec("task_kind", name))
