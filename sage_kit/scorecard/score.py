"""Scoring one reducer with one inverter.

Both learn from the training vectors alone; everything else is asked of vectors and points that they have not seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sage_kit
from sage_kit.components import BuildContext, SampleRequest
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.recipe import Recipe, resolve
from sage_kit.scorecard import measures
from sage_kit.scorecard.card import SEED, Scorecard
from sage_kit.scorecard.clock import inversion_speed
from sage_kit.scorecard.held_out import POINTS, TaskVectors, load_vectors
from sage_kit.scorecard.placement import Floats, Placement, floats, place_vectors, scoring_config, scoring_context
from sage_kit.storage.environment import environment
from sage_kit.storage.frozen import read_only
from sage_kit.synthesis.answers import checked_samples
from sage_kit.synthesis.hull import Hull


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
    context = scoring_context(config, plugins, announce)
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
        return floats(choice, made, (len(coordinates), vectors.dim))

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
        again = floats(recipe["reducer"], again, placement.held_out.shape)
        arrays["round_trip_coordinates"] = again
        trips = measures.round_trip(placement.held_out, again, placement.coordinates)
        round_trip = measures.mean_figure(trips, SEED)

    # ---- the clock
    timing = True
    speed = inversion_speed(invert, sampled, sampled_anchors, len(held_out), first_seconds)

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
        outside_hull={"held_out": hull.outside_share(placement.held_out), "synthetic": hull.outside_share(sampled)},
        norms={
            "held_out": measures.mean_norm(held_out),
            "inverter": measures.mean_norm(reconstructions),
            "synthetic": measures.mean_norm(synthetic),
        },
        round_trip=round_trip,
        speed={**speed, "fit_seconds": fit_seconds},
        arrays=arrays,
        settings=config.model_dump(mode="json"),
        environment=_environment(config, plugins, context.device),
        vectors=vectors,
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


def _environment(config: RunConfig, plugins: Plugins, device: str) -> dict[str, Any]:
    chosen = {"reducer": config.reducer, "inverter": config.inverter, "sampler": config.sampler}
    return {
        "sage_kit": sage_kit.__version__,
        **environment("numpy", "scipy", "scikit-learn", "torch"),
        "device": device,
        "components": {k: f"{name} ({plugins.registered(k, name).origin})" for k, name in chosen.items()},
    }
