"""A reducer's map of the training vectors, and the places of held-out ones in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import BuildContext, ReducerSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.models.vectors import Pooled
from sage_kit.recipe import Choice, resolve
from sage_kit.scorecard.held_out import TaskVectors
from sage_kit.storage.cache import Cache
from sage_kit.synthesis.answers import checked_array
from sage_kit.synthesis.landmarks import neighbor_average
from sage_kit.synthesis.maps import fit_map
from sage_kit.system.devices import make_accelerator

TRANSFORM, AVERAGE = "the reducer's transform", "the average of their neighbours' places, since it has no transform"

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Placement:
    """A map of the training vectors, and where the held-out ones lie in it.

    Attributes
    ----------
    coordinates : array of shape (n, n_components), float32
        Of the training vectors.
    held_out : array of shape (m, n_components), float32
        Of the held-out vectors.
    reducer : object
        Fitted.
    spec : ReducerSpec
        With the capabilities that it has under its options.
    placed_by : str
        `TRANSFORM` or `AVERAGE`.
    """

    coordinates: Floats
    held_out: Floats
    reducer: Any
    spec: ReducerSpec
    placed_by: str


def scoring_config(config: RunConfig) -> RunConfig:
    """The settings with those that choose the synthetic points fixed: any anchor, its neighbours, every point kept."""
    options = config.sampler_options if config.sampler == "random" else {}
    fixed = {
        "schedule": "adaptive", "sampler": "random", "sampler_options": options, "lift": "shift", "lift_options": {},
        "filter": "none", "filter_options": {},
    }  # fmt: skip
    return config.model_copy(update=fixed)


def place_vectors(
    config: RunConfig, plugins: Plugins, vectors: TaskVectors, announce: Callable[[str], None] | None = None
) -> Placement:
    """Fit the settings' reducer on the training vectors, or find its map in the cache, and place the held-out ones.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    vectors : TaskVectors
    announce : callable or None
        Shows one line; None hands it to the observers.

    Returns
    -------
    Placement

    Raises
    ------
    CompatibilityError
        When reducer, inverter, number of components and size of the data do not go together.
    PluginError
        When the reducer fails or returns something of the wrong shape or not finite.
    """
    config = scoring_config(config)
    recipe = resolve(config, plugins)
    recipe.check_sizes(len(vectors.train), vectors.dim)
    context = scoring_context(config, plugins, announce)
    spec, reducer = recipe.reducer, recipe["reducer"]
    cache = Cache(Path(config.cache_dir).expanduser(), context.announce)
    # a pair may need the inverse, and the round trip the transform: fitted once, it serves all inverters
    needs_reducer = spec.has_transform or spec.has_inverse
    fitted = fit_map(Pooled(vectors.train, vectors.train_key), reducer, cache, context, needs_reducer=needs_reducer)
    if fitted.spec.has_transform:
        places = reducer.call(fitted.reducer.transform, vectors.held_out.copy())
    else:
        places = neighbor_average(np.asarray(vectors.train), fitted.coordinates)(vectors.held_out)
    shape = (len(vectors.held_out), config.n_components)
    places = floats(reducer, places, shape)
    placed_by = TRANSFORM if fitted.spec.has_transform else AVERAGE
    return Placement(fitted.coordinates, places, fitted.reducer, fitted.spec, placed_by)


def scoring_context(config: RunConfig, plugins: Plugins, announce: Callable[[str], None] | None) -> BuildContext:
    """What the components of a scorecard are built with; without `announce`, observers get the messages."""
    say = announce or (lambda text: plugins.message(None, text))
    return BuildContext(
        config=config,
        seed=config.reducer_seed,
        device=str(make_accelerator(config).device),
        n_components=config.n_components,
        announce=say,
        cached=Cache(Path(config.cache_dir).expanduser(), say).arrays,
    )


def floats(choice: Choice, values: Any, shape: tuple[int, ...]) -> Floats:
    """What a component returned, as contiguous float32; raises PluginError as `checked_array` does."""
    return np.ascontiguousarray(checked_array(choice, values, shape), dtype=np.float32)
