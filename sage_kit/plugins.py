"""Plugins: discovery, quarantine, look-up by name, and typed calls of the observing hooks. Light.

A plugin is an entry point of the group ``sage_kit`` in an installed distribution, or one Python file. One that cannot
be imported or whose contributing hooks raise is *quarantined*: it is listed with its cause, and it is an error only if
the configuration names something that may have come from it. A mistyped hook, a malformed name or requirement, and a
name that two plugins contribute are errors at once: they would make a configuration mean something else than it says.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
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
from sage_kit import hookspecs
from sage_kit.components import (
    PROTOCOLS,
    BuildContext,
    ComponentSpec,
    DecoderSpec,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    StopRuleSpec,
    TaskSpec,
)
from sage_kit.config import explain
from sage_kit.errors import (
    ConfigError,
    MissingPackageError,
    PluginError,
    SageError,
    UnknownComponentError,
    did_you_mean,
)
from sage_kit.provenance import code_parts

if TYPE_CHECKING:
    from sage_kit.records import RoundResult, RunInfo

ENTRY_POINT_GROUP = "sage_kit"
ALLOW_VARIABLE = "SAGE_KIT_PLUGINS"
NAME = re.compile(r"[a-z][a-z0-9_]*")

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
"""Names of all hooks, in the order of :mod:`sage_kit.hookspecs`."""

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
    """A plugin that could not be used, and why."""

    origin: Origin
    cause: str


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
        Comma-separated names of the entry points that may load; "" for no external plugin; None takes the environment
        variable ``SAGE_KIT_PLUGINS`` or, when that is not set, loads all. One-file plugins always load.

    Raises
    ------
    PluginError
        For a name that two plugins contribute, a malformed name or requirement, a mistyped hook, a name in `allow` that
        no installed plugin has, or a one-file plugin that cannot be loaded.

    Attributes
    ----------
    quarantined : list of Quarantined
        Installed plugins that could not be used.
    not_allowed : list of Origin
        Installed plugins that `allow` leaves out.
    disabled : dict of str to str
        Observers that raised since the last `remove_observers`, and what.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]] = (), allow: str | None = None) -> None:
        self._manager = pluggy.PluginManager(sage_kit.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._origins: dict[str, Origin] = {}
        self._components: dict[tuple[str, str], Registered] = {}
        self.quarantined: list[Quarantined] = []
        self.not_allowed: list[Origin] = []
        self.disabled: dict[str, str] = {}
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
        points = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda p: (p.name, p.value))
        allowed = None if allow is None else {name.strip() for name in allow.split(",") if name.strip()}
        installed = {point.name for point in points}
        for name in sorted(allowed or ()):
            if name not in installed:
                raise PluginError(
                    f"{ALLOW_VARIABLE} names the plugin {name!r}, which is not installed."
                    f"{did_you_mean(name, installed, 'Installed')}"
                )
        seen: set[tuple[str, str]] = set()
        for point in points:
            # One plugin may be found twice, e.g. as a wheel and through the metadata of its source folder.
            if (point.name, point.value) in seen:
                continue
            seen.add((point.name, point.value))
            dist = point.dist
            origin = Origin(point.name, dist.name if dist else "unknown", dist.version if dist else "")
            if allowed is not None and point.name not in allowed:
                self.not_allowed.append(origin)
                continue
            try:
                plugin = point.load()
            except (Exception, SystemExit) as error:  # a third party's import may raise anything
                self.quarantined.append(Quarantined(origin, _cause(error)))
                continue
            self._register(plugin, origin)

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
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:  # a plugin file may raise anything
            del sys.modules[name]
            raise PluginError(f"plugin file {path} cannot be loaded: {_cause(error)}") from error
        already = len(self.quarantined)
        self._register(module, Origin(path.stem, str(path), ""))
        if len(self.quarantined) > already:
            raise PluginError(f"plugin file {path}: {self.quarantined[-1].cause}")

    def _register(self, plugin: Any, origin: Origin) -> None:
        """Register one plugin; take over its components, or quarantine it."""
        key = f"{origin.distribution}:{origin.plugin}"
        is_installed = bool(origin.version)  # rather than a file
        remedy = f". Without it: uninstall {origin.distribution}, or leave it out of {ALLOW_VARIABLE}"
        self._register_hooks(plugin, key, f"plugin {origin.plugin!r} ({origin})", remedy if is_installed else "")
        self._origins[key] = origin
        specs: list[Spec] = []
        cause = "" if self._manager.get_hookcallers(plugin) else f"it implements no hook: {DECORATE}"
        for hook, spec_type in CONTRIBUTING_HOOKS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin_name == key and not cause:
                    cause = _collect(implementation.function, hook, spec_type, specs)
        if cause:
            self._manager.unregister(plugin)
            self.quarantined.append(Quarantined(origin, cause))
            return
        for spec in specs:
            self._add(Registered(spec, origin))

    def _register_hooks(self, plugin: Any, key: str, title: str, remedy: str = "") -> None:
        """Register an object's hook implementations under `key`, or raise PluginError and leave nothing behind."""
        try:
            self._manager.register(plugin, name=key)
        except pluggy.PluginValidationError as error:
            self._manager.unregister(name=key)
            raise PluginError(f"{title}: {_one_line(error)}{remedy}") from None
        except ValueError:
            raise PluginError(f"{title} is registered already") from None
        callers = self._manager.get_hookcallers(plugin) or []
        implementations = [i for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin]
        if any(i.wrapper or i.hookwrapper for i in implementations):
            self._manager.unregister(plugin)
            raise PluginError(
                f"{title} has a hook wrapper, which sage_kit does not call: write a plain implementation{remedy}"
            )
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            unknown = [c.name for c in callers if not c.has_spec()]
            self._manager.unregister(plugin)
            wrong = unknown[0] if unknown else _one_line(error)
            hint = did_you_mean(wrong, HOOKS, "Hooks").removesuffix(".")
            raise PluginError(f"{title} implements an unknown hook {wrong!r}.{hint}{remedy}") from None

    def _add(self, item: Registered) -> None:
        spec = item.spec
        title = f"{_words(spec.kind)} {spec.name!r}"
        problem = _problem(spec)
        if problem:
            raise PluginError(f"{title} of {item.origin}: {problem}")
        other = self._components.get((spec.kind, spec.name))
        if other is not None:
            is_file = not item.origin.version  # the one that came last is of your making
            is_built_in = other.origin.distribution == "sage-kit"
            remedy = "give yours another name" if is_file or is_built_in else (
                f"uninstall one, or name the plugins to load in {ALLOW_VARIABLE}"
            )  # fmt: skip
            raise PluginError(f"{title} is contributed by both {other.origin} and {item.origin}: {remedy}")
        self._components[spec.kind, spec.name] = item

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
        MissingPackageError
            When a package that it requires is not installed.
        """
        item = self._components.get((kind, name))
        if item is None:
            raise self._unknown(kind, name)
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
        broken = "".join(
            f" Plugin {bad.origin.plugin!r} ({bad.origin}) is in quarantine: {bad.cause}." for bad in self.quarantined
        )
        is_broken = plugin in {bad.origin.plugin for bad in self.quarantined}
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
        SageError
            As `registered` does, also for a reducer that the options name.
        """
        spec = cast(ReducerSpec, self.spec("reducer", name))
        if spec.refine is None:
            return spec
        return replace(spec, **spec.refine(self.options("reducer", name, options or {}), self.reducer))

    def sampler(self, name: str) -> SamplerSpec:
        """The spec of a sampler; raises as `registered` does."""
        return cast(SamplerSpec, self.spec("sampler", name))

    def inverter(self, name: str) -> InverterSpec:
        """The spec of an inverter; raises as `registered` does."""
        return cast(InverterSpec, self.spec("inverter", name))

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
        """
        spec = self.spec(kind, name)
        if type(values) is spec.options:
            return values
        if not isinstance(values, Mapping | Options):
            raise ConfigError(
                f"{_words(kind)} {name!r}: its options are {values!r}: expected a table of option = value"
            )
        try:
            return spec.options.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{_words(kind)} {name!r}: {explain(error, spec.options, 'option')}") from None

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

        try:
            component = spec.factory(options, replace(context, component=component_of, cached=cached))
        except SageError:
            raise
        except Exception as error:  # a factory may raise anything
            raise PluginError(f"{_words(kind)} {name!r} ({origin}) cannot be built: {_cause(error)}") from error
        if isinstance(spec, ReducerSpec):
            spec = self.reducer(name, options)
        lacking = [method for method in _methods(spec) if not callable(getattr(component, method, None))]
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
            return function(*arguments)
        except SageError:
            raise
        except Exception as error:  # a component may raise anything
            title = f"{_words(kind)} {name!r} ({self.registered(kind, name).origin})"
            raise PluginError(f"{title} failed{f' in {step}' if step else ''}: {_cause(error)}") from error

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
        self._register_hooks(observer, key, f"observer {name!r}")
        if not self._manager.get_hookcallers(observer):
            self._manager.unregister(observer)
            raise PluginError(f"observer {name!r} implements no hook: {DECORATE}")
        self._origins[key] = known.origin if known else Origin(name, type(observer).__module__, "")

    def remove_observers(self) -> None:
        """Drop the observers that `add_observer` added and forget which ones failed."""
        for name, plugin in self._manager.list_name_plugin():
            if name.startswith("observer:") and plugin is not None:
                self._manager.unregister(plugin)
        self.disabled.clear()

    def _observe(self, hook: str, **arguments: Any) -> None:
        """Call every implementation of an observing hook; one that raises is reported once and disabled."""
        # pluggy lists them in order of registration and `trylast` first, to call them backwards; here they go forwards.
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda i: i.trylast - i.tryfirst):
            name = implementation.plugin_name
            if name in self.disabled:
                continue
            try:
                implementation.function(*(arguments[a] for a in implementation.argnames))
            except Exception as error:  # an observer must not end the run
                self.disabled[name] = f"{hook} raised {_cause(error)}"
                self.message(arguments.get("run"), f"{name} is disabled: {self.disabled[name]}")

    def run_started(self, run: RunInfo) -> None:
        """Call `sage_run_started`."""
        self._observe("sage_run_started", run=run)

    def round_started(self, run: RunInfo, round: int) -> None:
        """Call `sage_round_started`."""
        self._observe("sage_round_started", run=run, round=round)

    def losses_profiled(self, run: RunInfo, round: int, losses: Any) -> None:
        """Call `sage_losses_profiled`."""
        self._observe("sage_losses_profiled", run=run, round=round, losses=losses)

    def synthetic_created(self, run: RunInfo, round: int, synthetic: Any) -> None:
        """Call `sage_synthetic_created`."""
        self._observe("sage_synthetic_created", run=run, round=round, synthetic=synthetic)

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


def _collect(
    function: Callable[[], Any], hook: str, spec_type: type[ComponentSpec] | type[TaskSpec], specs: list[Spec]
) -> str:
    """Add what a contributing hook yields to `specs`; return why the plugin must be quarantined, or ""."""
    try:
        yielded = function() or ()
        if isinstance(yielded, ComponentSpec | TaskSpec):
            return f"{hook} returned one {type(yielded).__name__}: yield it, or return a list"
        found = list(yielded)
    except Exception as error:  # a contributing hook may raise anything
        return f"{hook} raised {_cause(error)}"
    for spec in found:
        if not isinstance(spec, spec_type):
            return f"{hook} yielded {spec!r}, which is no {spec_type.__name__}"
        specs.append(spec)
    return ""


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
    for requirement in spec.requires:
        try:
            Requirement(requirement)
        except InvalidRequirement as error:
            return f"{requirement!r} is no requirement: {_one_line(error)}"
    return ""


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


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
