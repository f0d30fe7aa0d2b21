"""Adapters that make components of other libraries' objects: `sklearn_reducer`, `sklearn_metric`."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, create_model

from sage_kit.components import BuildContext, MetricSpec, Options, ReducerSpec
from sage_kit.errors import CompatibilityError, ConfigError, PluginError

if TYPE_CHECKING:
    from sage_kit.components import Floats

GIVEN = ("n_components", "random_state")
"""Constructor parameters that the run's settings decide: `n_components` and `reducer_seed`."""

# `copy` may not be turned off, since a reducer must never change its input
NO_OPTIONS = (*GIVEN, "copy")


class FreeOptions(Options):
    """Options of an estimator whose constructor has not been looked at: any name goes through to it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class SklearnReducer:
    """Any scikit-learn style transformer as a reducer.

    Parameters
    ----------
    name : str
        The component's name, for error messages.
    estimator : object
        Has ``fit_transform``, or ``fit`` and ``transform``; ``inverse_transform`` if it can.
    n_components : int
        Width its coordinates must have.

    Attributes
    ----------
    estimator : object
        The estimator, fitted after `fit_transform`.
    """

    def __init__(self, name: str, estimator: Any, n_components: int) -> None:
        self.name = name
        self.estimator = estimator
        self.n_components = n_components

    def fit_transform(self, vectors: Floats, labels: Any = None) -> Floats:
        """Fit on vectors of shape (n, dim) and return their coordinates, shape (n, n_components), float32.

        `labels`, of shape (n,), go to the estimator as its ``y`` if they are given.

        Raises
        ------
        CompatibilityError
            When the estimator refuses the vectors or its options.
        PluginError
            When it returns coordinates of another width.
        """
        import numpy as np

        given = (vectors,) if labels is None else (vectors, labels)
        try:
            if hasattr(self.estimator, "fit_transform"):
                coordinates = self.estimator.fit_transform(*given)
            else:
                coordinates = self.estimator.fit(*given).transform(vectors)
        except (TypeError, ValueError) as error:  # how scikit-learn says that parameters or data do not suit it
            raise CompatibilityError(
                f"reducer {self.name!r} cannot be fitted on {len(vectors)} vectors with {vectors.shape[1]} dimensions: "
                f"{' '.join(str(error).split())}"
            ) from error
        coordinates = np.asarray(coordinates, dtype=np.float32)
        if coordinates.shape != (len(vectors), self.n_components):
            raise PluginError(
                f"reducer {self.name!r} returned coordinates of shape {coordinates.shape} instead of "
                f"{(len(vectors), self.n_components)}"
            )
        return coordinates

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates, float32, of vectors it was not fitted on, if the estimator can."""
        import numpy as np

        return np.asarray(self.estimator.transform(vectors), dtype=np.float32)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors, float32, for coordinates, if the estimator can."""
        import numpy as np

        return np.asarray(self.estimator.inverse_transform(coordinates), dtype=np.float32)


def sklearn_reducer(
    name: str,
    estimator: Callable[..., Any] | str,
    *,
    summary: str = "",
    has_transform: bool | None = None,
    has_inverse: bool | None = None,
    max_components: int | None = None,
    min_rows: Callable[[Any, int], int] | None = None,
    repeatable: bool | None = None,
    needs_labels: bool = False,
    requires: tuple[str, ...] = (),
    install: str = "",
    **fixed: Any,
) -> ReducerSpec:
    """A spec for any transformer in the manner of scikit-learn.

    Its constructor is given `n_components` and `random_state` if it takes them (from the settings `n_components` and
    `reducer_seed`), what `fixed` holds, and the user's options.

    Parameters
    ----------
    name : str
        The component's name.
    estimator : class or str
        The transformer's class, or ``"module:Class"``, which is imported when the reducer is built and keeps a plugin
        light. Of a class the options are its constructor's parameters, checked by name; of a string any option goes
        through to the constructor.
    summary : str
        One line for listings; by default the class's name.
    has_transform, has_inverse : bool or None
        Whether it has ``transform`` and ``inverse_transform``; None asks the class, and means no for a string.
    max_components, min_rows, requires, install
        As in :class:`~sage_kit.components.ReducerSpec`.
    repeatable : bool or None
        Whether the same seed and input give the same coordinates; None means yes.
    needs_labels : bool
        Whether it learns from the gold labels, which then go to its ``fit_transform`` as ``y``.
    **fixed
        Constructor arguments that the user cannot change.

    Returns
    -------
    ReducerSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_reducers():
            yield sklearn_reducer("ica", "sklearn.decomposition:FastICA", has_transform=True, has_inverse=True)
    """
    label = estimator if isinstance(estimator, str) else f"{estimator.__module__}:{estimator.__qualname__}"

    def factory(options: Options, context: BuildContext) -> SklearnReducer:
        cls = _imported(name, estimator) if isinstance(estimator, str) else estimator
        arguments = {**options.model_dump(), **fixed}
        given = {"n_components": context.n_components, "random_state": context.seed % 2**32}
        parameters = _parameters(cls)
        arguments.update({key: value for key, value in given.items() if key in parameters and key not in fixed})
        try:
            made = cls(**arguments)
        except TypeError as error:
            raise ConfigError(f"reducer {name!r} ({label}) does not take these options: {error}") from error
        return SklearnReducer(name, made, context.n_components)

    return ReducerSpec(
        name=name,
        summary=summary or f"{label.rpartition(':')[2]} ({label.partition(':')[0].partition('.')[0]})",
        factory=factory,
        options=FreeOptions if isinstance(estimator, str) else _options_class(name, estimator, fixed),
        requires=requires,
        install=install,
        has_transform=hasattr(estimator, "transform") if has_transform is None else has_transform,
        has_inverse=hasattr(estimator, "inverse_transform") if has_inverse is None else has_inverse,
        max_components=max_components,
        min_rows=min_rows,
        repeatable=True if repeatable is None else repeatable,
        needs_labels=needs_labels,
    )


class SklearnMetric:
    """A function of labels and predictions, in the manner of scikit-learn, as a metric."""

    def __init__(self, function: Callable[..., Any], fixed: Mapping[str, Any]) -> None:
        self.function = function
        self.fixed = dict(fixed)

    def score(self, labels: Any, predictions: Any) -> float:
        """Return what the function makes of them; NaN for predictions that are not finite."""
        import numpy as np

        if not np.isfinite(predictions).all():
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scores that are undefined
            return float(self.function(labels, predictions, **self.fixed))


def sklearn_metric(
    name: str,
    function: Callable[..., Any] | str,
    *,
    summary: str = "",
    takes: tuple[str, ...] = ("classes",),
    max_classes: int | None = None,
    larger_is_better: bool = True,
    range: tuple[float, float] = (0.0, 1.0),
    requires: tuple[str, ...] = (),
    install: str = "",
    **fixed: Any,
) -> MetricSpec:
    """A spec for any function ``function(labels, predictions, **fixed)``, as those of `sklearn.metrics`.

    Parameters
    ----------
    name : str
        The metric's name.
    function : callable or str
        The function, or ``"module:function"``, which is imported when the metric is built.
    summary : str
        One line for listings; by default the function's name.
    takes, max_classes, larger_is_better, range, requires, install
        As in :class:`~sage_kit.components.MetricSpec`.
    **fixed
        Further arguments of the function.

    Returns
    -------
    MetricSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_metrics():
            yield sklearn_metric("balanced_accuracy", "sklearn.metrics:balanced_accuracy_score")
            yield sklearn_metric(
                "mean_error", "sklearn.metrics:mean_absolute_error", takes=("numbers",), larger_is_better=False,
                range=(0.0, float("inf")),
            )
    """
    label = function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"

    def factory(options: Options, context: BuildContext) -> SklearnMetric:
        found = _imported(name, function, "metric", "function") if isinstance(function, str) else function
        return SklearnMetric(found, fixed)

    return MetricSpec(
        name=name,
        summary=summary or f"{label.rpartition(':')[2]} ({label.partition(':')[0].partition('.')[0]})",
        factory=factory,
        requires=requires,
        install=install,
        takes=takes,
        max_classes=max_classes,
        larger_is_better=larger_is_better,
        range=range,
    )


def _imported(name: str, target: str, kind: str = "reducer", what: str = "class") -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] | None = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise PluginError(f"{kind} {name!r}: module {module} has no {what} {attribute!r}")
    return found


def _parameters(cls: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _options_class(name: str, cls: Callable[..., Any], fixed: Mapping[str, Any]) -> type[Options]:
    """An options class with the constructor's parameters and defaults; the estimator itself checks the values."""
    parameters = _parameters(cls)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return FreeOptions
    fields: dict[str, Any] = {}
    for parameter in parameters.values():
        if parameter.name in fixed or parameter.name in NO_OPTIONS or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        required = parameter.default is parameter.empty
        if not required and not _is_plain(parameter.default):
            continue  # it could be neither written in a configuration nor made part of a cache's key
        default = ... if required else parameter.default
        fields[parameter.name] = (Any, Field(default=default, description=f"As in {getattr(cls, '__name__', name)}."))
    return create_model(f"{name.title().replace('_', '')}Options", __base__=Options, **fields)
