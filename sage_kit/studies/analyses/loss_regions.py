"""Where the loss is high: hard sets and clusters of high loss, how they move, and whether aiming at them helps.

A hard set is the share of examples with the highest losses. A region is a cluster of the map: the coordinates are
clustered by k-means, and the clusters of the highest mean loss, down to a share of them, are the regions of high loss.
Two rounds are compared by what their regions make of the examples (each region is a class of its own, all else is one
class): the adjusted Rand index (Hubert and Arabie 1985, Comparing partitions, Journal of Classification 2) and adjusted
mutual information (Vinh, Epps and Bailey 2010, Information theoretic measures for clusterings comparison, Journal of
Machine Learning Research 11), both 0 on average for unrelated partitions and 1 for equal ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame, concat

from sage_kit.components import BuildContext
from sage_kit.errors import RunDirectoryError, StudyError
from sage_kit.models.vectors import Pooled
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.studies.analyses.run_data import by_arm, synthetic_sets
from sage_kit.studies.plots import new_figure, plane
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.studies.statistics import expected_jaccard, jaccard, morans_i
from sage_kit.studies.study import Study

Array = NDArray[Any]
Floats = NDArray[np.float32]

SEEN = 0.9  # A round counts if at least this share of the examples has a new loss: a last round may have been cut short


@dataclass(frozen=True)
class RegionOptions:
    """How hard sets and regions are told."""

    hard_share: float = 0.1  # share of the examples in a hard set
    clusters: int = 20  # clusters of the map
    region_share: float = 0.2  # share of the clusters that are regions of high loss
    neighbors: int = 10  # nearest examples that Moran's I compares each with
    permutations: int = 999  # of the losses, for its p


def hard_set(losses: Array, share: float) -> NDArray[np.int64]:
    """The examples with the highest losses, in rising order: (n,) to (k,), int64. k is the share of the examples,
    rounded, and one at least. Of equal losses the earlier example counts as the higher; NaN counts as the lowest.
    """
    count = max(1, round(share * len(losses)))
    known = np.where(np.isnan(losses), -np.inf, losses)
    return np.sort(np.argsort(-known, kind="stable")[:count])


def cluster(coordinates: Array, clusters: int, seed: int) -> NDArray[np.int64]:
    """Clusters of a map by k-means: (n, d) to (n,), numbered from 0."""
    from sklearn.cluster import KMeans

    count = min(clusters, len(coordinates))
    found = KMeans(count, n_init=3, random_state=seed).fit_predict(np.asarray(coordinates, np.float64))
    return np.asarray(found, np.int64)


def high_regions(losses: Array, clusters: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Which region of high loss each example lies in: its cluster's number, or -1 outside all regions; (n,), int64.

    These are the share of the clusters, rounded and one at least, with the highest mean loss; a loss of NaN counts for
    nothing.
    """
    number = int(clusters.max()) + 1
    known = ~np.isnan(losses)
    counts = np.bincount(clusters[known], minlength=number)
    sums = np.bincount(clusters[known], weights=losses[known], minlength=number)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    high = np.argsort(-means, kind="stable")[: max(1, round(share * number))]
    return np.where(np.isin(clusters, high), clusters, -1)


def alike(first: NDArray[np.int64], second: NDArray[np.int64]) -> dict[str, float]:
    """Adjusted Rand index ("ari") and adjusted mutual information ("ami") of two partitions, each of shape (n,)."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    scores = {"ari": adjusted_rand_score, "ami": adjusted_mutual_info_score}
    return {name: float(score(first, second)) for name, score in scores.items()}


def neighbor_rows(points: Array, k: int) -> NDArray[np.int64]:
    """The k nearest others of each point: (n, d) to (n, k)."""
    from sklearn.neighbors import NearestNeighbors

    rows = np.asarray(points, np.float64)
    # without queries, a point is not its own neighbour
    found = NearestNeighbors(n_neighbors=min(k, len(rows) - 1)).fit(rows).kneighbors(return_distance=False)
    return np.asarray(found, np.int64)


def profiles(run: ArmRun) -> dict[int, Floats]:
    """Losses by round, of the rounds that trained on nearly all examples anew (`SEEN`).

    Raises
    ------
    StudyError
        For a run without them, such as one that was found in a result.
    """
    try:
        rounds, losses = read_loss_profiles(run.directory.path)
    except RunDirectoryError as error:
        raise StudyError(
            f"the losses of arm {run.arm!r} cannot be read: run it with keep=['synthetic'], since a result holds none "
            f"({error})"
        ) from None
    kept: dict[int, Floats] = {}
    for index, number in enumerate(rounds):
        fresh = ~np.isnan(losses[index])
        if index:
            fresh &= losses[index] != losses[index - 1]
        if fresh.mean() >= SEEN:
            kept[int(number)] = losses[index]
    return kept


@dataclass(frozen=True)
class Maps:
    """Maps of a task's training examples under several seeds of the reducer."""

    # (n, n_components); the first under the seed that the runs have
    coordinates: Sequence[Floats]
    clusters: Sequence[NDArray[np.int64]]  # (n,); `cluster` of each


def make_maps(study: Study, task: str, seeds: int, options: RegionOptions) -> Maps:
    """The map of a task under several seeds of the reducer, from the cache or fitted; k-means has the same seeds. Seeds
    go on from the setting `reducer_seed`.
    """
    for name, number in (("maps", seeds), ("clusters", options.clusters)):
        if number < 2:
            raise StudyError(f"{name} is {number}: two at least are compared")
    from sage_kit.recipe import choose
    from sage_kit.storage.cache import Cache
    from sage_kit.storage.fingerprint import fingerprint
    from sage_kit.synthesis.maps import fit_map

    config = study.config(task)
    vectors, _ = study.vectors(task)
    cache = Cache(Path(config.cache_dir).expanduser(), lambda text: None)
    context = BuildContext(config=config, n_components=config.n_components, cached=cache.arrays)
    reducer = choose("reducer", config, study.plugins)
    coordinates = []
    for seed in range(config.reducer_seed, config.reducer_seed + seeds):
        fitted = fit_map(
            Pooled(vectors, fingerprint(vectors)), reducer, cache, replace(context, seed=seed), needs_reducer=False
        )
        coordinates.append(fitted.coordinates)
    return Maps(coordinates, [cluster(points, options.clusters, seed) for seed, points in enumerate(coordinates)])


def movement(runs: Runs, maps: Mapping[str, Maps], options: RegionOptions) -> DataFrame:
    """How alike the hard examples are: of two rounds, of two students, and of two maps.

    One row per pair. Columns task, arm, seed; `between` ("rounds": one round and the next, on one map; "students": this
    seed and the next one of the arm, the same round and map; "maps": the run's map and one of another seed of the
    reducer, the same losses); round, the earlier; ari and ami of the regions; jaccard of the hard sets, NaN between
    maps, and jaccard_by_chance.
    """
    rows = []
    for task, _, its in by_arm(runs):
        known = [profiles(run) for run in its]
        first, *others = maps[task].clusters
        for run, losses, following in zip(its, known, known[1:] + known[:1], strict=True):

            def add(between: str, number: int, pair: dict[str, float], place: dict[str, Any] = run.place) -> None:
                rows.append({**place, "between": between, "round": number, **pair})

            for number in losses:
                if number + 1 in losses:
                    add("rounds", number, _pair(losses[number], losses[number + 1], first, options))
                if len(its) > 1 and number in following:
                    add("students", number, _pair(losses[number], following[number], first, options))
                here = high_regions(losses[number], first, options.region_share)
                for another in others:
                    there = high_regions(losses[number], another, options.region_share)
                    add("maps", number, {**alike(here, there), "jaccard": np.nan, "jaccard_by_chance": np.nan})
    if not any(row["between"] == "rounds" for row in rows):
        raise StudyError("no run has two rounds in a row that trained on nearly all examples: raise rounds")
    return DataFrame(rows)


def spatial(runs: Runs, maps: Mapping[str, Maps], vectors: Mapping[str, Floats], options: RegionOptions) -> DataFrame:
    """Moran's I of the loss per round: are neighbours alike in it, on the map and in full dimension?

    One row per run, round and space ("map" or "full"), of the examples that have a loss: task, arm, seed, round, space,
    morans_i, expected, excess (I less its expectation) and p.
    """
    rows = []
    for task, _, its in by_arm(runs):
        spaces = {"map": maps[task].coordinates[0], "full": vectors[task]}
        places = {name: neighbor_rows(points, options.neighbors) for name, points in spaces.items()}
        for run in its:
            for number, losses in profiles(run).items():
                known = ~np.isnan(losses)
                for space, points in spaces.items():
                    # an example without a loss takes no part, as a neighbour neither
                    near = places[space] if known.all() else neighbor_rows(points[known], options.neighbors)
                    found = morans_i(losses[known], near, permutations=options.permutations)
                    rows.append(
                        {**run.place, "round": number, "space": space, "morans_i": found.value,
                         "expected": found.expected, "excess": found.value - found.expected, "p": found.p}
                    )  # fmt: skip
    return DataFrame(rows)


def aimed_at(run: ArmRun) -> NDArray[np.int64]:
    """How many of a run's synthetic examples started from each training example, or window of one: shape (n,)."""
    summary = run.summary
    counts = np.zeros(int(summary.get("sequences", summary["examples"])["train"]), np.int64)
    for one in synthetic_sets(run):
        np.add.at(counts, one.anchors, 1)
    return counts


def targeted(counts: NDArray[np.int64], train: Floats, dev: Floats, *, share: float, k: int) -> NDArray[np.bool_]:
    """The held-out examples in the regions that synthesis aimed at: (m,), bool. Of the held-out examples (m, dim), the
    share whose k nearest training examples (n, dim) were anchors most often.
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=min(k, len(train))).fit(np.asarray(train, np.float64))
    rows = nearest.kneighbors(np.asarray(dev, np.float64), return_distance=False)
    chosen = np.zeros(len(dev), bool)
    chosen[hard_set(counts[rows].sum(axis=1), share)] = True
    return chosen


def dev_losses(run: ArmRun) -> Floats:
    """The training loss of each carved-out example at the run's end: shape (m,), from the predictions."""
    import torch

    from sage_kit.training.losses import kl_divergence, squared_error

    outputs = run.predictions["dev"]
    student, teacher = torch.from_numpy(outputs["student"]), torch.from_numpy(outputs["teacher"])
    loss = squared_error(student, teacher) if student.shape[1] == 1 else kl_divergence(
        student, teacher, run.config.temperature
    )  # fmt: skip
    return np.asarray(loss.numpy(), np.float32)


def improvement(
    runs: Runs,
    arm: str,
    baseline: str,
    vectors: Mapping[str, tuple[Floats, Floats]],
    *,
    share: float = 0.25,
    k: int = 5,
) -> DataFrame:
    """Whether the loss falls more where synthesis aimed than elsewhere, on held-out examples, against a baseline.

    Regions of high loss have more to lose, so what is compared are ratios: the log of the mean loss with synthesis over
    that without, where it was aimed at, less the same elsewhere (a difference in differences). One row per task and
    seed: task, seed, targeted, targeted_baseline, elsewhere, elsewhere_baseline (mean losses), the two changes, and
    difference (below zero where the targeted regions gain more). Synthetic examples of `arm` were kept; `vectors` are
    pooled ones of train and dev, by task.
    """
    rows = []
    for task in runs.tasks:
        train, dev = vectors[task]
        for ours, theirs in zip(runs.of(task=task, arm=arm), runs.of(task=task, arm=baseline), strict=True):
            inside = targeted(aimed_at(ours), train, dev, share=share, k=k)
            means = {
                name: float(losses[rows_].mean(dtype=np.float64))
                for which, losses in (("", dev_losses(ours)), ("_baseline", dev_losses(theirs)))
                for name, rows_ in ((f"targeted{which}", inside), (f"elsewhere{which}", ~inside))
            }
            at, away = (
                float(np.log(means[place]) - np.log(means[f"{place}_baseline"])) for place in ("targeted", "elsewhere")
            )
            changes = {"change_targeted": at, "change_elsewhere": away, "difference": at - away}
            rows.append({"task": task, "seed": ours.seed, **means, **changes})
    return DataFrame(rows)


def _pair(first: Floats, second: Floats, clusters: NDArray[np.int64], options: RegionOptions) -> dict[str, float]:
    hard = [hard_set(losses, options.hard_share) for losses in (first, second)]
    regions = [high_regions(losses, clusters, options.region_share) for losses in (first, second)]
    chance = expected_jaccard(len(first), len(hard[0]))
    return {**alike(*regions), "jaccard": jaccard(*hard), "jaccard_by_chance": chance}


def long_form(tables: Sequence[DataFrame], value: str) -> DataFrame:
    """Tables under one another, with the columns that a comparison of arms reads: task, arm, seed and the value."""
    return concat([table[["task", "arm", "seed", value]] for table in tables], ignore_index=True)


def figure_of_regions(run: ArmRun, maps: Maps, options: RegionOptions) -> Figure:
    """The training examples on the first map by round, coloured by the rank of their loss, the hard set ringed."""
    losses, flat = profiles(run), plane(np.asarray(maps.coordinates[0], np.float64))
    figure = new_figure((1.0 + 3.4 * len(losses), 3.6))
    grid = figure.subplots(1, len(losses), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (number, values) in zip(grid, losses.items(), strict=True):
        ranks = np.argsort(np.argsort(np.where(np.isnan(values), -np.inf, values))) / max(1, len(values) - 1)
        order = np.argsort(ranks)  # high ones on top
        drawn = axes.scatter(*flat[order].T, c=ranks[order], s=8, cmap="viridis", linewidths=0)
        hard = hard_set(values, options.hard_share)
        axes.scatter(*flat[hard].T, s=22, facecolors="none", edgecolors="#d1495b", linewidths=0.8)
        axes.set_title(f"round {number}", fontsize=10)
        axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(drawn, ax=list(grid), shrink=0.8)
    bar.set_label("rank of the loss, 0 to 1", fontsize=9)
    return figure
