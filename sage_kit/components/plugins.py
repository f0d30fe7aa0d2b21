"""Plugins: discovery, quarantine, look-up by name, and typed calls of the observing hooks.

A plugin is an entry point of the group ``sage_kit`` in an installed distribution, or one Python file. Whatever is wrong
with an installed one puts it in *quarantine*: it is listed with its cause, and it is an error only if the configuration
names something that may have come from it. Of two installed plugins that contribute the same name neither is taken, and
the name is an error; a built-in keeps its name. What is wrong with a file is an error at once, since the user named it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

import pluggy
from pydantic import ValidationError

import sage_kit
from sage_kit.components import (
    PROTOCOLS,
    BuildContext,
    ComponentSpec,
    DecoderSpec,
    FilterSpec,
    HubSource,
    InverterSpec,
    LiftSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    StopRuleSpec,
    TaskSpec,
    hookspecs,
)
from sage_kit.components.guard import (
    Failure,
    attempt,
    cause_of,
    place_of,
    plugin_error,
    remember_home,
    show_traceback,
    where,
)
from sage_kit.components.provenance import code_parts
from sage_kit.components.records import RunInfo
from sage_kit.config import explain
from sage_kit.errors import (
    ConfigError,
    MissingPackageError,
    PluginError,
    SageError,
    UnknownComponentError,
    did_you_mean,
)
from sage_kit.storage.frozen import frozen_copy

if TYPE_CHECKING:
    from sage_kit.components.records import RoundResult

ENTRY_POINT_GROUP = "sage_kit"
ALLOW_VARIABLE = "SAGE_KIT_PLUGINS"
NAME = re.compile(r"[a-z][a-z0-9_]*")
ENTRY_POINT = re.compile(r"[\w.]+(:[\w.]+)?\s*(\[.*\])?")

Spec = ComponentSpec | TaskSpec

CONTRIBUTING_HOOKS: Mapping[str, type[ComponentSpec] | type[TaskSpec]] = {
    "sage_reducers": ReducerSpec,
    "sage_samplers": SamplerSpec,
    "sage_inverters": InverterSpec,
    "sage_lifts": LiftSpec,
    "sage_filters": FilterSpec,
    "sage_decoders": DecoderSpec,
    "sage_tasks": TaskSpec,
    "sage_observers": ObserverSpec,
    "sage_stop_rules": StopRuleSpec,
}

HOOKS: tuple[str, ...] = tuple(name for name in vars(hookspecs) if name.startswith("sage_"))
"""Names of all hooks, in the order of :mod:`sage_kit.components.hookspecs`."""

DECORATE = "decorate its functions with sage_kit.hookimpl"

KINDS: tuple[str, ...] = tuple(spec.kind for spec in CONTRIBUTING_HOOKS.values())

FIRST_PARTY: Mapping[tuple[str, str], str] = {
    ("reducer", "umap"): "umap",
    ("reducer", "tsne"): "tsne",
    ("reducer", "pacmap"): "pacmap",
    ("reducer", "torchdr_umap"): "torchdr",
    ("reducer", "torchdr_tsne"): "torchdr",
}
"""Plugins, named as their folders below ``plugins``, that first-party components outside the core come from."""


@dataclass(frozen=True)
class Origin:
    """Where a component comes from: a distribution and its version, or a file."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Registered:
    """A component and its origin."""

    spec: Spec
    origin: Origin


@dataclass(frozen=True)
class Quarantined:
    """A plugin that cannot be used, or one component of it, and why.

    Attributes
    ----------
    origin : Origin
    cause : str
    component : str
        Kind and name, e.g. ``"reducer 'pca'"``; "" for the whole plugin.
    """

    origin: Origin
    cause: str
    component: str = ""

    def __str__(self) -> str:
        plugin = f"plugin {self.origin.plugin!r} ({self.origin})"
        return f"{self.component} of {plugin}" if self.component else plugin


class _FileLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file itself each time: Python's own cache takes a quick edit of equal length for the old file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class Plugins:
    """All plugins of a process, and the components they contribute.

    Parameters
    ----------
    files : sequence of path
        One-file plugins to load.
    allow : str or None
        Comma-separated names of the entry points that may load; names with a minus, ``"-umap,-tsne"``, for all but
        these; "" for no external plugin; None takes the environment variable ``SAGE_KIT_PLUGINS`` or, when that is not
        set, loads all. One-file plugins always load.

    Raises
    ------
    PluginError
        For a name in `allow` that no installed plugin has, names with and without a minus, or a one-file plugin that
        cannot be used.

    Attributes
    ----------
    quarantined : list of Quarantined
        Installed plugins, and single components of them, that cannot be used.
    not_allowed : list of Origin
        Installed plugins that `allow` leaves out.
    disabled : dict of str to str
        Observers that raised since the last `remove_observers`, and what.
    record_disabled : callable or None
        Is told of each one of these, by name and cause, until the next `remove_observers`.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]] = (), allow: str | None = None) -> None:
        self._manager = pluggy.PluginManager(sage_kit.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._origins: dict[str, Origin] = {}
        self._components: dict[tuple[str, str], Registered] = {}
        self._contested: dict[tuple[str, str], list[Registered]] = {}
        self._contributed_by: dict[tuple[str, str], Callable[[], Any]] = {}
        self.quarantined: list[Quarantined] = []
        self.not_allowed: list[Origin] = []
        self.disabled: dict[str, str] = {}
        self.record_disabled: Callable[[str, str], None] | None = None
        self._register_built_ins()
        self._register_entry_points(os.environ.get(ALLOW_VARIABLE) if allow is None else allow)
        for file in files:
            self._register_file(Path(file))

    # ---- discovery

    def _register_built_ins(self) -> None:
        from sage_kit.builtin import BUILT_INS

        for module in BUILT_INS:
            origin = Origin(module.__name__.rpartition(".")[2], "sage-kit", sage_kit.__version__)
            self._register(module, origin)

    def _register_entry_points(self, allow: str | None) -> None:
        points, unreadable = _entry_points()
        self.quarantined += unreadable
        installed = {point.name for point in points} | {bad.origin.plugin for bad in unreadable}
        may_load = _allowed(allow, installed)
        seen: set[tuple[str, str]] = set()
        for point in points:
            # One plugin may be found twice, e.g. as a wheel and through the metadata of its source folder.
            if (point.name, point.value) in seen:
                continue
            seen.add((point.name, point.value))
            origin = _origin(point)
            if not may_load(point.name):
                self.not_allowed.append(origin)
                continue
            try:
                self._register(_loaded(point), origin)
            except PluginError as error:
                self.quarantined.append(Quarantined(origin, str(error)))

    def _register_file(self, path: Path) -> None:
        if not path.is_file():
            raise PluginError(f"plugin file {path} does not exist")
        name = f"sage_kit_plugin_{path.stem}"
        if path.suffix != ".py":
            raise PluginError(f"plugin file {path} is not a Python file (its name must end in .py)")
        loader = _FileLoader(name, str(path))
        module_spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert module_spec is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module
        remember_home(file=str(path))
        try:
            attempt(loader.exec_module, module)
        except (Failure, SageError) as raised:
            del sys.modules[name]
            error = _raised(raised)
            raise plugin_error(f"plugin file {path} cannot be loaded", error) from error
        try:
            self._register(module, Origin(path.stem, str(path), ""))
        except PluginError as error:
            message = str(error).removesuffix(f" at {error.place}")
            raise PluginError(f"plugin file {path}: {message}", error.place) from error.__cause__

    def _register(self, plugin: Any, origin: Origin) -> None:
        """Register one plugin and take over its components.

        Raises
        ------
        PluginError
            With the cause alone, when the plugin cannot be used; it leaves nothing behind then.
        """
        key = f"{origin.distribution}:{origin.plugin}"
        try:
            self._register_hooks(plugin, key)
        except Failure as failure:  # even looking at it may raise
            raise plugin_error("its hooks cannot be read", failure.error) from failure.error
        self._origins[key] = origin
        found: dict[tuple[str, str], tuple[Registered, Callable[[], Any]]] = {}
        try:
            if not self._manager.get_hookcallers(plugin):
                raise PluginError(f"it implements no hook: {DECORATE}")
            for hook, spec_type in CONTRIBUTING_HOOKS.items():
                for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                    if implementation.plugin_name == key:
                        for spec in _collect(implementation.function, hook, spec_type):
                            title = _title(spec)
                            if (spec.kind, spec.name) in found:
                                raise PluginError(f"it contributes {title} twice")
                            item = Registered(spec, origin)
                            if not origin.version:  # a file, which the user named
                                self._require_free(item)
                            found[spec.kind, spec.name] = item, implementation.function
        except PluginError:
            self._manager.unregister(plugin)
            raise
        for item, function in found.values():
            self._add(item, function)

    def _others(self, item: Registered) -> list[Registered]:
        """Those that contribute the same name already."""
        key = item.spec.kind, item.spec.name
        return self._contested.get(key) or ([self._components[key]] if key in self._components else [])

    def _require_free(self, item: Registered) -> None:
        others = self._others(item)
        if others:
            by = " and ".join(str(other.origin) for other in others)
            raise PluginError(
                f"{_title(item.spec)} is contributed by {'both ' if len(others) == 1 else ''}{by} and {item.origin}: "
                "give yours another name"
            )

    def _add(self, item: Registered, function: Callable[[], Any]) -> None:
        """Take over a component, unless its name is taken."""
        key = item.spec.kind, item.spec.name
        others = self._others(item)
        if not others:
            self._components[key] = item
            self._contributed_by[key] = function
            return
        if others[0].origin.distribution == "sage-kit":
            cause = f"contributed by both {others[0].origin} and {item.origin}: the built-in one keeps the name"
        else:
            self._contested[key] = [*others, item]
            self._components.pop(key, None)
            cause = _contest([*others, item])
        self.quarantined.append(Quarantined(item.origin, cause, _title(item.spec)))

    def _register_hooks(self, plugin: Any, key: str, title: str = "") -> None:
        """Register an object's hook implementations under `key`, or raise PluginError and leave nothing behind.

        `title` names the object at the head of a message; without one it is "it".
        """
        head = f"{title}: " if title else ""
        title = title or "it"
        if plugin is None:  # to pluggy, that is a name that is blocked
            raise PluginError(f"{title} is None, not an object with hooks")
        try:
            attempt(self._manager.register, plugin, key)
        except Failure as failure:
            if isinstance(failure.error, ValueError):
                raise PluginError(f"{title} is registered already") from None
            with contextlib.suppress(Exception):  # some of its hooks may be there already
                self._manager.unregister(name=key)
            if isinstance(failure.error, pluggy.PluginValidationError):
                raise PluginError(f"{head}{_one_line(failure.error)}") from None
            raise
        callers = self._manager.get_hookcallers(plugin) or []
        implementations = [i for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin]
        remember_home(functions=[i.function for i in implementations])
        if any(i.wrapper or i.hookwrapper for i in implementations):
            self._manager.unregister(plugin)
            raise PluginError(f"{title} has a hook wrapper, which sage_kit does not call: write a plain implementation")
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            unknown = [c.name for c in callers if not c.has_spec()]
            self._manager.unregister(plugin)
            wrong = unknown[0] if unknown else _one_line(error)
            hint = did_you_mean(wrong, HOOKS, "Hooks").removesuffix(".")
            raise PluginError(f"{title} implements an unknown hook {wrong!r}.{hint}") from None

    # ---- look-up

    def components(self, kind: str | None = None) -> list[Registered]:
        """All components, or those of one kind, in order of kind and name."""
        order = {name: index for index, name in enumerate(KINDS)}
        chosen = (item for item in self._components.values() if kind is None or item.spec.kind == kind)
        return sorted(chosen, key=lambda item: (order[item.spec.kind], item.spec.name))

    def names(self, kind: str) -> list[str]:
        """Names of the components of a kind."""
        return [item.spec.name for item in self.components(kind)]

    def registered(self, kind: str, name: str) -> Registered:
        """The component `name` of `kind`, its packages installed.

        Raises
        ------
        UnknownComponentError
            With the closest name, the list, and the plugins in quarantine that may have brought it.
        PluginError
            When several installed plugins contribute it.
        MissingPackageError
            When a package that it requires is not installed.
        """
        item = self._components.get((kind, name))
        if item is None:
            contested = self._contested.get((kind, name))
            raise (
                PluginError(f"{_words(kind)} {name!r} is {_contest(contested)}")
                if contested
                else self._unknown(kind, name)
            )
        missing = _missing(item.spec.requires)
        if missing:
            remedy = item.spec.install or f"pip install {' '.join(repr(text) for text in missing)}"
            needs = ", ".join(f"{text}{found}" for text, found in missing.items())
            raise MissingPackageError(f"{_words(kind)} {name!r} needs {needs}: {remedy}")
        return item

    def _unknown(self, kind: str, name: str) -> SageError:
        """The error for a component that is not registered: its plugin is not installed, or out of use, or mistyped."""
        plugin = FIRST_PARTY.get((kind, name), name)
        left_out = next((origin for origin in self.not_allowed if origin.plugin == plugin), None)
        whole = [bad for bad in self.quarantined if not bad.component]
        broken = "".join(
            f" Plugin {bad.origin.plugin!r} ({bad.origin}) is in quarantine: {bad.cause}." for bad in whole
        )
        is_broken = plugin in {bad.origin.plugin for bad in whole}
        if (kind, name) in FIRST_PARTY and left_out is None and not is_broken:
            return MissingPackageError(f"{_words(kind)} {name!r} is not installed: pip install ./plugins/{plugin}")
        message = f"Unknown {_words(kind)} {name!r}.{did_you_mean(name, self.names(kind))}{broken}"
        if left_out is not None:
            message += f" Plugin {plugin!r} ({left_out}) is installed, but {ALLOW_VARIABLE} leaves it out."
        return UnknownComponentError(message)

    def spec(self, kind: str, name: str) -> ComponentSpec:
        """The spec of a component other than a task; raises as `registered` does."""
        return cast(ComponentSpec, self.registered(kind, name).spec)

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
        self, spec: ReducerSpec | LiftSpec, options: Mapping[str, Any] | Options | None, *arguments: Any
    ) -> ReducerSpec | LiftSpec:
        """A spec with the capabilities that its `refine` gives it under some options."""
        kind, name, refine = spec.kind, spec.name, cast(Callable[..., Any], spec.refine)
        checked = self.options(kind, name, options or {})
        found = self.call(kind, name, refine, checked, *arguments, step="refine")
        refined: ReducerSpec | LiftSpec = self.call(kind, name, lambda: replace(spec, **found), step="refine")
        problem = _problem(refined)
        if problem:
            raise PluginError(f"{kind} {name!r} ({self._components[kind, name].origin}) by refine: {problem}")
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
        if not isinstance(found, numbers.Integral):
            raise PluginError(f"{_title(spec)} failed in min_rows: it gave {found!r}, not an integer")
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
        if not isinstance(found, numbers.Integral) or found < 1:
            raise PluginError(f"{_title(spec)} failed in surplus: it gave {found!r}, not an integer of at least 1")
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

    def task(self, name: str) -> TaskSpec:
        """The spec of a task; raises as `registered` does."""
        return cast(TaskSpec, self.registered("task", name).spec)

    def options(self, kind: str, name: str, values: Mapping[str, Any] | Options) -> Options:
        """Check a component's options.

        Raises
        ------
        ConfigError
            For an unknown option or a bad value.
        PluginError
            When a check of the options class fails by itself.
        """
        spec = self.spec(kind, name)
        if type(values) is spec.options:
            return values
        if not isinstance(values, Mapping | Options):
            raise ConfigError(
                f"{_words(kind)} {name!r}: its options are {values!r}: expected a table of option = value"
            )
        try:
            checked: Options = attempt(spec.options.model_validate, dict(values))
        except Failure as failure:
            error = failure.error
            if isinstance(error, ValidationError):
                raise ConfigError(f"{_words(kind)} {name!r}: {explain(error, spec.options, 'option')}") from None
            raise self._error(kind, name, "cannot check its options", error, spec.options) from error
        try:
            attempt(lambda: checked.model_dump(mode="json"))  # they enter keys, and the run's records
        except Failure as failure:
            raise self._error(kind, name, "has options that JSON cannot hold", failure.error) from failure.error
        return checked

    def build(
        self,
        kind: str,
        name: str,
        values: Mapping[str, Any] | Options,
        context: BuildContext,
        built: list[tuple[Registered, Any]] | None = None,
    ) -> Any:
        """Build a component.

        Parameters
        ----------
        kind, name : str
        values : mapping or Options
            Its options, checked already or not.
        context : BuildContext
            Its `component` is replaced by this method.
        built : list or None
            Gets the component, and before it those that it builds itself, each with its registration.

        Raises
        ------
        PluginError
            When the factory raises something of its own, or returns an object that lacks a method of the kind or of a
            capability that the spec declares.
        SageError
            As `registered` and `options` do, and what the factory raises of it.
        """
        spec = self.spec(kind, name)
        options = self.options(kind, name, values)
        registered = self._components[kind, name]
        origin = registered.origin

        def component_of(kind: str, name: str, values: Mapping[str, Any] | Options, **changes: Any) -> Any:
            return self.build(kind, name, values, replace(context, **changes), built)

        def cached(what: str, parts: Sequence[Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
            code = code_parts(str(origin), origin.distribution, spec.requires, spec.factory, compute)
            head = [kind, name, options.model_dump(mode="json"), context.seed, *code]
            return context.cached(what, [*head, *parts], compute)

        own = replace(context, component=component_of, cached=cached)
        try:
            component = attempt(spec.factory, options, own)
        except Failure as failure:
            raise self._error(kind, name, "cannot be built", failure.error) from failure.error
        if isinstance(spec, ReducerSpec):
            spec = self.reducer(name, options)
        lacking: list[str] = self.call(
            kind, name, lambda: [m for m in _methods(spec) if not callable(getattr(component, m, None))]
        )
        if lacking:
            raise PluginError(
                f"{_words(kind)} {name!r} ({origin}) is a {type(component).__name__} without "
                f"{', '.join(f'{method}()' for method in lacking)}: see {type(spec).__name__} and the protocols in "
                "sage_kit.components"
            )
        if built is not None:
            built.append((registered, component))
        return component

    def call(self, kind: str, name: str, function: Callable[..., Any], *arguments: Any, step: str = "") -> Any:
        """Call a component's function; whatever it raises of its own is reported under the component's name.

        That goes for `SystemExit` and `KeyboardInterrupt`, too, while the person's own Ctrl-C passes through.

        Parameters
        ----------
        kind, name : str
            The component.
        function : callable
        *arguments
        step : str
            Named in the message, where the component has several that a user can tell apart.

        Raises
        ------
        PluginError
            When the function raises something else than a SageError.
        """
        try:
            return attempt(function, *arguments)
        except Failure as failure:
            raise self._error(
                kind, name, f"failed in {step}" if step else "failed", failure.error, function
            ) from failure.error

    def _error(self, kind: str, name: str, what: str, error: BaseException, *called: Any) -> PluginError:
        """What a component raised, under its name, with its origin and the place."""
        item = self._components.get((kind, name)) or self.registered(kind, name)
        function = getattr(item.spec, "factory", None) or getattr(item.spec, "loader", None)
        title = f"{_words(kind)} {name!r} ({item.origin})"
        return plugin_error(f"{title} {what}", error, *called, function, self._contributed_by.get((kind, name)))

    # ---- observers

    def add_observer(self, name: str, observer: Any) -> None:
        """Let an observer's object hear the observing hooks.

        Raises
        ------
        PluginError
            When it implements no hook or one that does not exist, or has been added already.
        """
        key = f"observer:{name}"
        known = self._components.get(("observer", name))
        title = f"observer {name!r}"
        try:
            self._register_hooks(observer, key, title)
        except Failure as failure:  # even looking at it may raise
            raise plugin_error(f"{title}: its hooks cannot be read", failure.error, type(observer)) from failure.error
        if not self._manager.get_hookcallers(observer):
            self._manager.unregister(observer)
            raise PluginError(f"{title} implements no hook: {DECORATE}")
        remember_home(module=type(observer).__module__)
        self._origins[key] = known.origin if known else Origin(name, type(observer).__module__, "")

    def remove_observers(self) -> None:
        """Drop the observers that `add_observer` added and forget which ones failed."""
        for name, plugin in self._manager.list_name_plugin():
            if name.startswith("observer:") and plugin is not None:
                self._manager.unregister(plugin)
        self.disabled.clear()
        self.record_disabled = None

    def _observe(self, hook: str, **arguments: Any) -> None:
        """Call every implementation of an observing hook; one that raises is reported once and disabled.

        Whatever an observer raises, the run goes on. What it is handed is its own or cannot be changed.
        """
        # pluggy lists them in order of registration and `trylast` first, to call them backwards; here they go forwards.
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda i: i.trylast - i.tryfirst):
            name = implementation.plugin_name
            if name in self.disabled:
                continue
            try:
                attempt(implementation.function, *(_handed(arguments[a]) for a in implementation.argnames))
            except (Failure, SageError) as raised:
                error = _raised(raised)
                show_traceback(error)
                self.disabled[name] = f"{hook} raised {where(error, implementation.function)}"
                if self.record_disabled is not None:
                    self.record_disabled(name, self.disabled[name])
                self.message(arguments.get("run"), f"{name} is disabled: {self.disabled[name]}")

    def run_started(self, run: RunInfo) -> None:
        """Call `sage_run_started`."""
        self._observe("sage_run_started", run=run)

    def round_started(self, run: RunInfo, round: int) -> None:
        """Call `sage_round_started`."""
        self._observe("sage_round_started", run=run, round=round)

    def losses_profiled(self, run: RunInfo, round: int, losses: Any) -> None:
        """Call `sage_losses_profiled`."""
        # a copy that never changes: on a CPU the loop goes on writing to the same memory
        if self._manager.hook.sage_losses_profiled.get_hookimpls():
            self._observe("sage_losses_profiled", run=run, round=round, losses=frozen_copy(losses))

    def synthetic_created(self, run: RunInfo, round: int, synthetic: Any) -> None:
        """Call `sage_synthetic_created`."""
        # a copy that never changes: the student is about to train on the set itself
        if self._manager.hook.sage_synthetic_created.get_hookimpls():
            self._observe("sage_synthetic_created", run=run, round=round, synthetic=synthetic.frozen())

    def step_finished(self, run: RunInfo | None, activity: str, done: int, total: int, loss: Any = None) -> None:
        """Call `sage_step_finished`."""
        self._observe("sage_step_finished", run=run, activity=activity, done=done, total=total, loss=loss)

    def message(self, run: RunInfo | None, text: str) -> None:
        """Call `sage_message`."""
        self._observe("sage_message", run=run, text=text)

    def round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Call `sage_round_finished`."""
        self._observe("sage_round_finished", run=run, result=result)

    def checkpoint_saved(self, run: RunInfo, round: int, path: Path) -> None:
        """Call `sage_checkpoint_saved`."""
        self._observe("sage_checkpoint_saved", run=run, round=round, path=path)

    def run_finished(self, run: RunInfo, summary: dict[str, Any]) -> None:
        """Call `sage_run_finished`."""
        self._observe("sage_run_finished", run=run, summary=summary)

    def run_failed(self, run: RunInfo, error: BaseException) -> None:
        """Call `sage_run_failed`."""
        self._observe("sage_run_failed", run=run, error=error)


def missing_requirements(requires: Iterable[str]) -> list[str]:
    """Those of the requirement strings that the environment does not meet."""
    return [f"{text}{found}" for text, found in _missing(requires).items()]


def _missing(requires: Iterable[str]) -> dict[str, str]:
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


def _entry_points() -> tuple[list[importlib.metadata.EntryPoint], list[Quarantined]]:
    """The entry points of plugins, by name, and the distributions whose entry points cannot be read."""
    unreadable = []
    try:
        points = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    except Exception:  # one distribution with malformed metadata hides those of all
        points = []
        for distribution in importlib.metadata.distributions():
            try:
                points += [point for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP]
            except Exception as error:
                name, version = _name_and_version(distribution)
                cause = f"its entry points cannot be read: {cause_of(error)}"
                unreadable.append(Quarantined(Origin(name, name, version), cause))
    return sorted(points, key=lambda p: (p.name, p.value)), unreadable


def _name_and_version(distribution: Any) -> tuple[str, str]:
    """Of a distribution; "unknown" where its metadata does not say."""
    found = []
    for name in ("Name", "Version"):
        value = None
        with contextlib.suppress(Exception):  # metadata may be missing or malformed
            value = distribution.metadata.get(name)
        found.append(str(value) if value else "unknown")
    return found[0], found[1]


def _origin(point: importlib.metadata.EntryPoint) -> Origin:
    return Origin(point.name, *(_name_and_version(point.dist) if point.dist else ("unknown", "unknown")))


def _loaded(point: importlib.metadata.EntryPoint) -> Any:
    """What an entry point names; raises PluginError when that cannot be imported."""
    if not ENTRY_POINT.fullmatch(point.value):
        raise PluginError(f"its entry point {point.value!r} is neither MODULE nor MODULE:OBJECT")
    module = re.split(r"[:\s\[]", point.value, maxsplit=1)[0]
    name = _name_and_version(point.dist)[0] if point.dist else ""
    try:
        return attempt(point.load)
    except (Failure, SageError) as raised:
        remember_home(module=module, distribution=name)
        error = _raised(raised)
        raise PluginError(cause_of(error), place_of(error)) from error
    finally:
        remember_home(module=module, distribution=name)


def _allowed(allow: str | None, installed: Iterable[str]) -> Callable[[str], bool]:
    """Whether a plugin of that name may load, by what `allow` says."""
    if allow is None:
        return lambda name: True
    names = [part.strip() for part in allow.split(",") if part.strip()]
    denied = {name.removeprefix("-").strip() for name in names if name.startswith("-")}
    taken = {name for name in names if not name.startswith("-")}
    if denied and taken:
        raise PluginError(
            f"{ALLOW_VARIABLE} is {allow!r}, which names both plugins to load and plugins to leave out (with a minus): "
            "names alone leave all others out already, so keep one kind"
        )
    for name in sorted(denied | taken):
        if name not in installed:
            raise PluginError(
                f"{ALLOW_VARIABLE} names the plugin {name!r}, which is not installed."
                f"{did_you_mean(name, installed, 'Installed')}"
            )
    return lambda name: name not in denied if denied else name in taken


def _contest(items: Sequence[Registered]) -> str:
    """That several plugins contribute the same name, and what to do."""
    origins = [str(item.origin) for item in items]
    by = f"both {' and '.join(origins)}" if len(items) == 2 else ", ".join(origins)
    plugins = list(dict.fromkeys(item.origin.plugin for item in items))
    if len(plugins) < len(items):
        return f"contributed by {by}: uninstall {'one' if len(items) == 2 else 'all but one'}"
    ways = " or ".join(f"{ALLOW_VARIABLE}={','.join(f'-{p}' for p in plugins if p != kept)}" for kept in plugins)
    return f"contributed by {by}: leave out {'one' if len(items) == 2 else 'all but one'} with {ways}"


def _collect(function: Callable[[], Any], hook: str, spec_type: type[ComponentSpec] | type[TaskSpec]) -> list[Any]:
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
            problem = _problem(spec)
            if problem:
                raise PluginError(f"{_title(spec)}: {problem}")
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
    "Literal['map', 'full']": ("'map' or 'full'", lambda value: value in ("map", "full")),
}
"""What the fields of a spec must be, by their annotation."""


def _problem(spec: Any) -> str:
    """What is wrong with the fields of a spec, or ""; nothing is taken for granted about their types."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        return "a name is lower case letters, digits and underscores, a letter first"
    if isinstance(spec.requires, str):
        return f"requires is the text {spec.requires!r}, not a tuple of requirements"
    if spec.kind != TaskSpec.kind:
        if not callable(spec.factory):
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
    if spec.kind == TaskSpec.kind and len(spec.text_columns) not in (1, 2):
        return f"text_columns names {len(spec.text_columns)} columns, not one or two"
    for requirement in spec.requires:
        try:
            Requirement(requirement)
        except InvalidRequirement as error:
            return f"{requirement!r} is no requirement: {_one_line(error)}"
    if not isinstance(spec.capabilities(), dict):
        return "its capabilities() are no dictionary"
    return ""


def _handed(value: Any) -> Any:
    """What an observer gets of an argument: the same where nothing of the run can be changed by it, else a copy."""
    if isinstance(value, RunInfo):
        return value.as_of_now()
    if isinstance(value, dict):
        return copy.deepcopy(value)
    return value


def _raised(raised: BaseException) -> BaseException:
    """What plugin code itself raised."""
    return raised.error if isinstance(raised, Failure) else raised


def _methods(spec: ComponentSpec) -> list[str]:
    """The methods that a component of this spec must have."""
    protocol = PROTOCOLS.get(spec.kind)
    names = [name for name in vars(protocol) if not name.startswith("_")] if protocol else []
    if isinstance(spec, ReducerSpec):
        names += ["transform"] * spec.has_transform + ["inverse_transform"] * spec.has_inverse
        names += ["get_state", "set_state"] * spec.has_state
    if isinstance(spec, DecoderSpec):
        names += ["guess"] * spec.has_guesses
    return names


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _title(spec: Any) -> str:
    return f"{_words(spec.kind)} {spec.name!r}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
