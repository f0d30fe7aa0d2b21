"""The scorecard of one reducer with one inverter.

Reducer and inverter learn from the training vectors alone; everything else is asked of vectors and points that they
have not seen. `Scorecard.save` writes a directory from which every figure can be computed again:

``scorecard.json``
    The figures, the settings, versions, machine and seeds.
``arrays.safetensors``
    ``train_mean`` (dim,); ``train_coordinates`` (n, c), the map; ``held_out`` (m, dim), ``held_out_coordinates`` (m, c)
    and ``held_out_anchors`` (m,), the rows of train that are nearest to these in the map; ``inverter`` (m, dim), what
    the inverter makes of them; ``nearest`` and ``random`` (m, dim), the baselines: the training vector nearest in full
    space (rows ``nearest_rows``) and a random one (rows ``random_rows``); ``round_trip_coordinates`` (m, c), where the
    reducer puts ``inverter``, if it can; ``synthetic`` (s, dim), ``synthetic_coordinates`` (s, c) and
    ``synthetic_anchors`` (s,), made as in a run, with ``synthetic_nearest_rows`` (s,), the rows of train that are
    nearest to them; ``real_rows`` (r,), training vectors drawn for comparison, and ``real_nearest_rows`` (r,), the
    other rows of train that are nearest to those. Vectors and coordinates are float32, rows int64.

The training vectors themselves lie in the directory that ``vectors`` in the JSON names, once for all scorecards
(``train``, ``held_out`` and ``held_out_rows`` in ``vectors.safetensors``).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sage_kit
from sage_kit.components import BuildContext, ReducerSpec, SampleRequest
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.models.vectors import Pooled
from sage_kit.recipe import Choice, Recipe, resolve
from sage_kit.scorecard import measures
from sage_kit.scorecard.held_out import POINTS, TaskVectors, load_vectors
from sage_kit.scorecard.measures import Figure
from sage_kit.storage import tensorfile
from sage_kit.storage.cache import Cache
from sage_kit.storage.files import atomic_directory, disk_errors, write_json
from sage_kit.storage.frozen import read_only
from sage_kit.synthesis.answers import checked_array, checked_samples
from sage_kit.synthesis.hull import Hull
from sage_kit.synthesis.landmarks import neighbor_average
from sage_kit.synthesis.maps import fit_map
from sage_kit.system.devices import make_accelerator

PUBLISHED: Mapping[str, float] = {"cosine": 0.34, "mse": 0.34}
"""What the paper (arXiv 2508.14783) says of its own inversion."""

PUBLISHED_NOTE = "as published; split and scale not stated"

PREDICTORS = {
    "inverter": "inverter", "mean": "mean vector", "nearest": "nearest real vector", "random": "random real vector",
}  # fmt: skip
"""What is scored, the inverter first, and what tables call it."""

TRANSFORM, AVERAGE = "the reducer's transform", "the average of their neighbours' places, since it has no transform"

SEED = 0
"""Of the bootstrap, the random pairs, the sampled points and the real vectors to compare with."""

TIMED_SECONDS = 0.5
TIMED_POINTS = 20_000
TIMED_REPEATS = 3
LONG_ENOUGH = 10.0
"""An inversion that took so many seconds is not timed again."""

Doubles = NDArray[np.float64]
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


@dataclass(frozen=True, eq=False)
class Scorecard:
    """What a reducer with an inverter is worth.

    Attributes
    ----------
    task, teacher, bypass, input_layers : str
        Where the vectors come from.
    reducer, inverter : str
    n_components : int
    reducer_options, inverter_options : mapping
        As they were given.
    placed_by : str
        How held-out vectors got their coordinates, as a phrase.
    examples : mapping of str to int
        "train", "held_out", "synthetic" and "real" (the sample of train that synthetic vectors are compared with).
    fidelity : mapping of str to mapping of str to Figure
        By predictor ("inverter", "mean", "nearest", "random"), then by metric ("cosine", "centred_cosine", "mse",
        "r2"): held-out vectors against what is made of their coordinates.
    differences : mapping of str to mapping of str to Figure
        By baseline, then by metric: the inverter's figure less the baseline's, paired.
    novelty : mapping of str to float
        See :func:`sage_kit.scorecard.measures.novelty`; "real_identical" is the share of real vectors that occur again.
    intrinsic_dimension : mapping of str to float
        "synthetic" and "real", for the same number of vectors.
    outside_hull : mapping of str to float
        Share of the "held_out" and the "synthetic" points outside the convex hull of the map; NaN in many dimensions.
    norms : mapping of str to float
        Mean norm of "held_out" vectors, of what the "inverter" makes of them, and of "synthetic" ones.
    round_trip : Figure or None
        Mean distance, in standard deviations of the map, from a held-out place to the place of the vector made for it;
        None for a reducer that cannot place vectors.
    speed : mapping of str to number
        "vectors_per_second", over "points" points, the median of "repeats" of "seconds"; "threads" of the linear
        algebra, "torch_threads" and "processors"; "fit_seconds" that the inverter took to learn.
    arrays : mapping of str to array
        See the module's docstring.
    settings : mapping
        Every setting.
    environment : mapping
        Versions, machine and where the components come from.
    vectors : TaskVectors
    """

    task: str
    teacher: str
    bypass: str
    input_layers: str
    reducer: str
    inverter: str
    n_components: int
    reducer_options: Mapping[str, Any]
    inverter_options: Mapping[str, Any]
    placed_by: str
    examples: Mapping[str, int]
    fidelity: Mapping[str, Mapping[str, Figure]]
    differences: Mapping[str, Mapping[str, Figure]]
    novelty: Mapping[str, float]
    intrinsic_dimension: Mapping[str, float]
    outside_hull: Mapping[str, float]
    norms: Mapping[str, float]
    round_trip: Figure | None
    speed: Mapping[str, float]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, Any] = field(repr=False)
    vectors: TaskVectors = field(repr=False)

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"{self.task}-{self.reducer}-{self.n_components}-{self.inverter}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-ready; NaN stays."""
        plain: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            if item.name not in ("arrays", "vectors"):
                plain[item.name] = _plain(getattr(self, item.name))
        return {
            **plain,
            "published": {**PUBLISHED, "note": PUBLISHED_NOTE},
            "interval": {"level": measures.LEVEL, "draws": measures.DRAWS, "seed": SEED},
        }

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write the scorecard's directory and, if it is not there, that of the vectors.

        Parameters
        ----------
        out : path
            The folder of both.

        Returns
        -------
        Path
            ``<out>/<task>-<reducer>-<n_components>-<inverter>``, replaced if it exists.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        folder = Path(out)
        vectors = self.vectors.save(folder)
        path = folder / self.name
        with disk_errors(str(path)), atomic_directory(path) as temporary:
            tensorfile.write(temporary / "arrays.safetensors", self.arrays)
            write_json(temporary / "scorecard.json", {**self.to_json(), "vectors": f"../{vectors.name}"})
        return path


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
    context = _context(config, plugins, announce)
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
    places = _checked(reducer, places, shape)
    placed_by = TRANSFORM if fitted.spec.has_transform else AVERAGE
    return Placement(fitted.coordinates, places, fitted.reducer, fitted.spec, placed_by)


def score_pair(
    config: RunConfig,
    plugins: Plugins,
    vectors: TaskVectors | None = None,
    placement: Placement | None = None,
    *,
    announce: Callable[[str], None] | None = None,
) -> Scorecard:
    """Score the settings' reducer with their inverter.

    The inverter is asked for the vectors at the held-out examples' coordinates, as if a sampler had proposed those
    points. It may need an anchor, a real example that a sampler would have started from: that is the training example
    nearest to the point *in the map*, since nearness in full space would tell it about the very vector it is to find.

    Parameters
    ----------
    config : RunConfig
        Reducer, inverter, their options, `n_components`, `reducer_seed`, `landmarks`, `device` and `cache_dir` count;
        the options of sampler `random`, if the settings name it, shape the synthetic points.
    plugins : Plugins
    vectors : TaskVectors or None
        What `load_vectors` gave; None calls it.
    placement : Placement or None
        What `place_vectors` gave for the same vectors and reducer; None calls it.
    announce : callable or None
        Shows one line; None hands it to the observers.

    Returns
    -------
    Scorecard

    Raises
    ------
    CompatibilityError
        When reducer, inverter, number of components and size of the data do not go together.
    PluginError
        When a component fails or returns something of the wrong shape or not finite.
    BudgetError
        When inverter `native` passes its time budget.
    """
    recipe = resolve(scoring_config(config), plugins)
    vectors = load_vectors(config, plugins) if vectors is None else vectors
    placement = place_vectors(config, plugins, vectors, announce) if placement is None else placement
    config, choice = recipe.config, recipe["inverter"]
    context = _context(config, plugins, announce)
    train, held_out = vectors.train, vectors.held_out

    # ---- learn from the training examples
    timing = False

    def say(text: str) -> None:
        if not timing:  # some tell at each call how long it will take
            context.announce(text)

    inverter = choice.build(replace(context, announce=say))
    started = time.perf_counter()
    choice.call(inverter.fit, placement.coordinates, train, placement.reducer)
    fit_seconds = time.perf_counter() - started

    def invert(coordinates: Floats, anchors: NDArray[np.int64]) -> Floats:
        made = choice.call(inverter.invert, coordinates, anchors)
        return _checked(choice, made, (len(coordinates), vectors.dim))

    # ---- held-out vectors, and the baselines
    rng = np.random.default_rng(SEED)
    anchors, _ = measures.nearest(placement.held_out, placement.coordinates)
    started = time.perf_counter()
    reconstructions = invert(placement.held_out, anchors)
    first_seconds = time.perf_counter() - started
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    nearest_rows, _ = measures.nearest(held_out, train)
    random_rows = rng.integers(len(train), size=len(held_out))
    predictors = {
        "inverter": reconstructions,
        "mean": np.repeat(mean[None], len(held_out), axis=0),
        "nearest": np.asarray(train[nearest_rows]),
        "random": np.asarray(train[random_rows]),
    }
    fidelity, differences = measures.fidelity_figures(held_out, predictors, mean, SEED)

    # ---- synthetic vectors, made as a run makes them, against a sample of the real ones
    count = min(POINTS, len(train))
    sampled, sampled_anchors = _sample(recipe, context, placement, train, count)
    synthetic = invert(sampled, sampled_anchors)
    synthetic_rows, distances = measures.nearest(synthetic, train)
    real_rows = np.sort(rng.choice(len(train), count, replace=False))
    real = np.asarray(train[real_rows])
    real_nearest_rows, real_distances = measures.nearest(real, train, own=real_rows)
    novelty = measures.novelty(synthetic, distances, real_distances)
    novelty["real_identical"] = measures.novelty(real, real_distances, real_distances)["identical"]
    hull = Hull(placement.coordinates)

    arrays = {
        "train_mean": mean,
        "train_coordinates": placement.coordinates,
        "held_out": held_out,
        "held_out_coordinates": placement.held_out,
        "held_out_anchors": anchors,
        "inverter": reconstructions,
        "nearest": predictors["nearest"],
        "nearest_rows": nearest_rows,
        "random": predictors["random"],
        "random_rows": random_rows,
        "synthetic": synthetic,
        "synthetic_coordinates": sampled,
        "synthetic_anchors": sampled_anchors,
        "synthetic_nearest_rows": synthetic_rows,
        "real_rows": real_rows,
        "real_nearest_rows": real_nearest_rows,
    }

    # ---- back into the map
    round_trip = None
    if placement.spec.has_transform:
        again = recipe["reducer"].call(placement.reducer.transform, reconstructions.copy())
        again = _checked(recipe["reducer"], again, placement.held_out.shape)
        arrays["round_trip_coordinates"] = again
        trips = measures.round_trip(placement.held_out, again, placement.coordinates)
        round_trip = measures.mean_figure(trips, SEED)

    # ---- the clock
    timing = True
    speed = {**_time(invert, sampled, sampled_anchors, len(held_out), first_seconds), "fit_seconds": fit_seconds}

    return Scorecard(
        task=vectors.task,
        teacher=vectors.teacher,
        bypass=vectors.bypass,
        input_layers=vectors.input_layers,
        reducer=config.reducer,
        inverter=choice.name,
        n_components=config.n_components,
        reducer_options=config.reducer_options,
        inverter_options=config.inverter_options,
        placed_by=placement.placed_by,
        examples={"train": len(train), "held_out": len(held_out), "synthetic": len(synthetic), "real": len(real)},
        fidelity=fidelity,
        differences=differences,
        novelty=novelty,
        intrinsic_dimension={
            "synthetic": measures.intrinsic_dimension(synthetic),
            "real": measures.intrinsic_dimension(real),
        },
        outside_hull={
            "held_out": hull.outside_share(placement.held_out),
            "synthetic": hull.outside_share(sampled),
        },
        norms={
            "held_out": measures.mean_norm(held_out),
            "inverter": measures.mean_norm(reconstructions),
            "synthetic": measures.mean_norm(synthetic),
        },
        round_trip=round_trip,
        speed=speed,
        arrays=arrays,
        settings=config.model_dump(mode="json"),
        environment=_environment(config, plugins, context.device),
        vectors=vectors,
    )


def _context(config: RunConfig, plugins: Plugins, announce: Callable[[str], None] | None) -> BuildContext:
    say = announce or (lambda text: plugins.message(None, text))
    return BuildContext(
        config=config,
        seed=config.reducer_seed,
        device=str(make_accelerator(config).device),
        n_components=config.n_components,
        announce=say,
        cached=Cache(Path(config.cache_dir).expanduser(), say).arrays,
    )


def _sample(
    recipe: Recipe, context: BuildContext, placement: Placement, train: Floats, count: int
) -> tuple[Floats, NDArray[np.int64]]:
    """New points of the map and their anchors."""
    choice = recipe["sampler"]
    sampler = choice.build(context)
    nothing = np.zeros(len(train), dtype=np.float32)
    request = SampleRequest(
        count=count,
        losses=nothing,
        rng=np.random.default_rng([SEED, 1]),
        vectors=read_only(train),
        teacher_logits=nothing[:, None],
        student_logits=nothing[:, None],
        coordinates=read_only(placement.coordinates),
    )
    samples = checked_samples(recipe, choice.call(sampler.sample, request), count, len(train))
    return np.asarray(samples.coordinates, dtype=np.float32), np.asarray(samples.anchors, dtype=np.int64)


def _time(
    invert: Callable[[Floats, NDArray[np.int64]], Floats],
    coordinates: Floats,
    anchors: NDArray[np.int64],
    first_points: int,
    first_seconds: float,
) -> dict[str, float]:
    """Vectors per second, over enough points for a clock; an inversion that was slow anyway is not repeated."""
    count, seconds = first_points, [first_seconds]
    if first_seconds < LONG_ENOUGH:
        count = min(count, len(coordinates))
        while True:
            rows = np.arange(count) % len(coordinates)
            points, starts = coordinates[rows], anchors[rows]
            seconds = [_seconds(invert, points, starts)]
            if seconds[0] >= TIMED_SECONDS or count >= TIMED_POINTS:
                break
            wanted = 1.2 * count * TIMED_SECONDS / max(seconds[0], 1e-6)
            count = int(min(TIMED_POINTS, max(2 * count, wanted)))
        seconds += [_seconds(invert, points, starts) for _ in range(TIMED_REPEATS - 1) if seconds[0] < LONG_ENOUGH]
    return {
        "vectors_per_second": count / max(float(np.median(seconds)), 1e-9),
        "points": count,
        "repeats": len(seconds),
        "seconds": float(np.median(seconds)),
        **_threads(),
    }


def _seconds(
    invert: Callable[[Floats, NDArray[np.int64]], Floats], points: Floats, anchors: NDArray[np.int64]
) -> float:
    started = time.perf_counter()
    invert(points, anchors)
    return time.perf_counter() - started


def _threads() -> dict[str, int]:
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped, unused-ignore]

    pools = [int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "threads": max(pools, default=1),
        "torch_threads": torch.get_num_threads(),
        "processors": os.cpu_count() or 1,
    }


def _environment(config: RunConfig, plugins: Plugins, device: str) -> dict[str, Any]:
    chosen = {"reducer": config.reducer, "inverter": config.inverter, "sampler": config.sampler}
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "scikit-learn", "torch")}
    return {
        "sage_kit": sage_kit.__version__,
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": device,
        "components": {k: f"{name} ({plugins.registered(k, name).origin})" for k, name in chosen.items()},
    }


def _checked(choice: Choice, values: Any, shape: tuple[int, ...]) -> Floats:
    return np.ascontiguousarray(checked_array(choice, values, shape), dtype=np.float32)


def _plain(value: Any) -> Any:
    """A value in the types that JSON has."""
    if isinstance(value, Figure):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
