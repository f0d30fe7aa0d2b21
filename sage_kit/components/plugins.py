"""All plugins of a process: their components by name, checked, built and called; what is broken in quarantine.

A plugin is an entry point of the group ``sage_kit`` in an installed distribution, or one Python file. Whatever is wrong
with an installed one puts it in *quarantine*: it is listed with its cause, and it is an error only if the configuration
names something that may have come from it. Of two installed plugins that contribute the same name neither is taken, and
the name is an error; a built-in keeps its name. What is wrong with a file is an error at once, since the user named it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import ValidationError

import sage_kit
from sage_kit.components.collisions import contest, shared_title
from sage_kit.components.family_specs import FamilySpec
from sage_kit.components.guard import Failure, attempt, plugin_error
from sage_kit.components.hooks import Hooks
from sage_kit.components.loader import ALLOW_VARIABLE, Origin, Quarantined, find_installed, load, load_file
from sage_kit.components.messages import BuildContext
from sage_kit.components.provenance import code_parts
from sage_kit.components.spec_checks import (
    CONTRIBUTING_HOOKS,
    KINDS,
    Spec,
    contributed,
    required_methods,
    title_of,
    unmet,
    words,
)
from sage_kit.components.specs import ComponentSpec, Options, ReducerSpec
from sage_kit.components.specs_by_kind import SpecsByKind
from sage_kit.config import explain
from sage_kit.errors import (
    ConfigError,
    MissingPackageError,
    PluginError,
    SageError,
    UnknownComponentError,
    did_you_mean,
)

FIRST_PARTY: Mapping[tuple[str, str], str] = {
    ("reducer", "umap"): "umap",
    ("reducer", "tsne"): "tsne",
    ("reducer", "pacmap"): "pacmap",
    ("reducer", "torchdr_umap"): "torchdr",
    ("reducer", "torchdr_tsne"): "torchdr",
}
"""Plugins, named as their folders below ``plugins``, that first-party components outside the core come from."""


@dataclass(frozen=True)
class Registered:
    """A component, its origin, and the implementation of a contributing hook that it comes from."""

    spec: Spec
    origin: Origin
    contributed_by: Callable[[], Any] | None = None

    @property
    def code(self) -> Callable[..., Any] | None:
        """The factory, or the loader of a task."""
        return getattr(self.spec, "factory", None) or getattr(self.spec, "loader", None)


class Plugins(SpecsByKind, Hooks):
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
    files : list of str
        The one-file plugins that were loaded, as absolute paths.
    allow : str or None
        As it was given.
    disabled, record_disabled
        As in :class:`~sage_kit.components.hooks.Hooks`.
    """

    _in_use: ClassVar[Plugins | None] = None

    def __init__(self, files: Sequence[str | os.PathLike[str]] = (), allow: str | None = None) -> None:
        from sage_kit.builtin import BUILT_INS

        super().__init__()
        self.files, self.allow = [str(Path(file).resolve()) for file in files], allow
        self._components: dict[tuple[str, str], Registered] = {}
        self._contested: dict[tuple[str, str], list[Registered]] = {}
        for module in BUILT_INS:
            self._register(module, Origin(module.__name__.rpartition(".")[2], "sage-kit", sage_kit.__version__))
        points, self.not_allowed, self.quarantined = find_installed(
            os.environ.get(ALLOW_VARIABLE) if allow is None else allow
        )
        for point, origin in points:
            try:
                self._register(load(point), origin)
            except PluginError as error:
                self.quarantined.append(Quarantined(origin, str(error)))
        for path in map(Path, files):
            module = load_file(path)
            try:
                self._register(module, Origin(path.stem, str(path), ""))
            except PluginError as error:
                message = str(error).removesuffix(f" at {error.place}")
                raise PluginError(f"plugin file {path}: {message}", error.place) from error.__cause__
        self.use()

    def use(self) -> Plugins:
        """Let models be looked up among these families from here on: a checkpoint names its family, not a setting."""
        Plugins._in_use = self
        return self

    @staticmethod
    def in_use() -> Plugins:
        """Those that were made or used last; the built-in ones alone where none were."""
        return Plugins._in_use or Plugins(allow="")

    # ---- registration

    def _register(self, plugin: Any, origin: Origin) -> None:
        """Register one plugin and take over its components.

        Raises
        ------
        PluginError
            With the cause alone, when the plugin cannot be used; it leaves nothing behind then.
        """
        key = f"{origin.distribution}:{origin.plugin}"
        self._register_hooks(plugin, key)
        found: dict[tuple[str, str], Registered] = {}
        try:
            for hook, spec_type in CONTRIBUTING_HOOKS.items():
                for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                    if implementation.plugin_name != key:
                        continue
                    for spec in contributed(implementation.function, hook, spec_type):
                        if (spec.kind, spec.name) in found:
                            raise PluginError(f"it contributes {title_of(spec)} twice")
                        item = found[spec.kind, spec.name] = Registered(spec, origin, implementation.function)
                        if not origin.version:  # a file, which the user named
                            self._require_free(item)
        except PluginError:
            self._manager.unregister(plugin)
            raise
        for item in found.values():
            self._add(item)

    def _others(self, item: Registered) -> list[Registered]:
        """Those that contribute the same name already."""
        key = item.spec.kind, item.spec.name
        found = self._contested.get(key) or ([self._components[key]] if key in self._components else [])
        if found or not isinstance(item.spec, FamilySpec):
            return found
        return list({id(one): one for kind in item.spec.model_types for one in self._families_of(kind)}.values())

    def _require_free(self, item: Registered) -> None:
        others = self._others(item)
        if others:
            by = " and ".join(str(other.origin) for other in others)
            remedy = "give yours another name" if others[0].spec.name == item.spec.name else "leave it out of yours"
            raise PluginError(
                f"{shared_title(item, others)} is contributed by {'both ' if len(others) == 1 else ''}{by} and "
                f"{item.origin}: {remedy}"
            )

    def _add(self, item: Registered) -> None:
        """Take over a component, unless its name is taken."""
        key = item.spec.kind, item.spec.name
        others = self._others(item)
        if not others:
            self._components[key] = item
            return
        if others[0].origin.distribution == "sage-kit":
            cause = f"contributed by both {others[0].origin} and {item.origin}: the built-in one keeps the name"
            if others[0].spec.name != item.spec.name:
                cause = f"{shared_title(item, others)} is {cause.replace('the name', 'it')}"
        else:
            for one in (*others, item):
                self._contested[one.spec.kind, one.spec.name] = [*others, item]
                self._components.pop((one.spec.kind, one.spec.name), None)
            cause = contest([*others, item])
        self.quarantined.append(Quarantined(item.origin, cause, title_of(item.spec)))

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
            if contested:
                raise PluginError(f"{words(kind)} {name!r} is {contest(contested)}")
            raise self._unknown(kind, name)
        missing = unmet(item.spec.requires)
        if missing:
            remedy = item.spec.install or f"pip install {' '.join(repr(text) for text in missing)}"
            needs = ", ".join(f"{text}{found}" for text, found in missing.items())
            raise MissingPackageError(f"{words(kind)} {name!r} needs {needs}: {remedy}")
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
            return MissingPackageError(f"{words(kind)} {name!r} is not installed: pip install ./plugins/{plugin}")
        message = f"Unknown {words(kind)} {name!r}.{did_you_mean(name, self.names(kind))}{broken}"
        if left_out is not None:
            message += f" Plugin {plugin!r} ({left_out}) is installed, but {ALLOW_VARIABLE} leaves it out."
        return UnknownComponentError(message)

    def spec(self, kind: str, name: str) -> ComponentSpec:
        """The spec of a component other than a task; raises as `registered` does."""
        return cast(ComponentSpec, self.registered(kind, name).spec)

    def _families_of(self, model_type: str) -> list[Registered]:
        """Those that contribute a family for a model type; several where they contest it."""
        contested = (item for items in self._contested.values() for item in items)
        known = {id(item): item for item in (*self._components.values(), *contested)}
        return [one for one in known.values() if model_type in getattr(one.spec, "model_types", ())]

    def families(self) -> list[FamilySpec]:
        """All families, in the order in which they were contributed: the built-in ones first."""
        return [item.spec for item in self._components.values() if isinstance(item.spec, FamilySpec)]

    def family_of_type(self, model_type: str) -> FamilySpec | None:
        """The family of a model type; None where no plugin contributes one.

        Raises
        ------
        PluginError
            When several installed plugins contribute one.
        MissingPackageError
            When a package that it requires is not installed.
        """
        found = self._families_of(model_type)
        if len(found) > 1:
            raise PluginError(f"model type {model_type!r} is {contest(found)}")
        return cast(FamilySpec, self.spec("family", found[0].spec.name)) if found else None

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
            raise ConfigError(f"{words(kind)} {name!r}: its options are {values!r}: expected a table of option = value")
        validate = spec.options.model_validate
        try:
            checked: Options = self._attempt(kind, name, "cannot check its options", validate, dict(values))
        except PluginError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ConfigError(
                    f"{words(kind)} {name!r}: {explain(error.__cause__, spec.options, 'option')}"
                ) from None
            raise
        # they enter keys, and the run's records
        self._attempt(kind, name, "has options that JSON cannot hold", lambda: checked.model_dump(mode="json"))
        return checked

    def build(self, kind: str, name: str, values: Mapping[str, Any] | Options, context: BuildContext) -> Any:
        """Build a component.

        Parameters
        ----------
        kind, name : str
        values : mapping or Options
            Its options, checked already or not.
        context : BuildContext
            Its `component` is replaced by this method.

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
        origin = self._components[kind, name].origin

        def component_of(kind: str, name: str, values: Mapping[str, Any] | Options, **changes: Any) -> Any:
            return self.build(kind, name, values, replace(context, **changes))

        def cached(what: str, parts: Sequence[Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
            code = code_parts(str(origin), origin.distribution, spec.requires, spec.factory, compute)
            head = [kind, name, options.model_dump(mode="json"), context.seed, *code]
            return context.cached(what, [*head, *parts], compute)

        own = replace(context, component=component_of, cached=cached)
        component = self._attempt(kind, name, "cannot be built", spec.factory, options, own)
        if isinstance(spec, ReducerSpec):
            spec = self.reducer(name, options)
        lacking: list[str] = self.call(
            kind, name, lambda: [m for m in required_methods(spec) if not callable(getattr(component, m, None))]
        )
        if lacking:
            raise PluginError(
                f"{words(kind)} {name!r} ({origin}) is a {type(component).__name__} without "
                f"{', '.join(f'{method}()' for method in lacking)}: see {type(spec).__name__} and the protocols in "
                "sage_kit.components"
            )
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
        return self._attempt(kind, name, f"failed in {step}" if step else "failed", function, *arguments)

    def _attempt(self, kind: str, name: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `call`; the message says `what` about the component, its origin and the place."""
        try:
            return attempt(function, *arguments)
        except Failure as failure:
            item = self._components.get((kind, name)) or self.registered(kind, name)
            title = f"{words(kind)} {name!r} ({item.origin}) {what}"
            raise plugin_error(title, failure.error, function, item.code, item.contributed_by) from failure.error
