"""How near synthetic vectors come to real ones, and where a filter's limit must lie to let a share of them through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame, concat

from sage_kit.components import BuildContext, FilterRequest
from sage_kit.errors import StudyError
from sage_kit.storage.frozen import read_only
from sage_kit.studies.analyses.run_data import prepared_for, synthetic_sets
from sage_kit.studies.arms import Arm
from sage_kit.studies.plots import PALETTE, frame, new_figure
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.studies.study import Study
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.training.prepared import Prepared

Floats = NDArray[np.float32]

BLOCK = 2048  # vectors that are compared with the real ones at once
ASIDE = ", anchor aside"
REAL = ("held out", "train")

MOST_RATIO = 4.0  # synthetic examples per real one, at most, that are made so that a filter leaves enough

LIMITS: Mapping[str, tuple[str, float, float]] = {
    "cosine": ("minimum", -1.0, 1.0),
    "density": ("quantile", 1.0, 0.0),
    "teacher_confidence": ("minimum", 0.0, 1.0),
}
"""By filter, the option that sets how strict it is, and the option's loosest and strictest values."""

HALVINGS = 20  # of the range of a limit, when the one that lets a share through is looked for


LOOKED_AT = 10_000  # synthetic examples, about so many at most and of all rounds, that a limit is looked for on


@dataclass(frozen=True)
class FilterSetting:
    """A filter, and how much of a synthetic set it lets through."""

    name: str
    options: Mapping[str, Any]
    share: float  # let through

    @property
    def is_usable(self) -> bool:
        """Whether it lets anything through, and drops anything."""
        return 0 < self.share < 1


def nearest_cosine(vectors: Floats, real: Floats, *, skip: NDArray[np.int64] | None = None) -> Floats:
    """The largest cosine of each vector (m, dim) with any real one (n, dim): (m,), float32. `skip`, (m,) int64, names a
    row of `real` that does not count for each vector: itself, or its anchor.
    """
    directions = _unit(real).T
    best = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        cosines = _unit(vectors[rows]) @ directions
        if skip is not None:
            cosines[np.arange(len(cosines)), skip[rows]] = -np.inf
        best[rows] = cosines.max(axis=1)
    return best


def cosines(run: ArmRun, train: Floats, dev: Floats, name: str = "synthetic") -> DataFrame:
    """Cosines to the nearest real vector, of what a run synthesised and, for scale, of real examples' pooled vectors.

    Columns kind (`name`; "`name`, anchor aside": to the nearest but the anchor; "held out"; "train": to the nearest
    other one) and cosine.
    """
    sets = synthetic_sets(run)
    vectors, anchors = (np.concatenate([getattr(one, name) for one in sets]) for name in ("vectors", "anchors"))
    kinds = {
        name: nearest_cosine(vectors, train),
        f"{name}{ASIDE}": nearest_cosine(vectors, train, skip=anchors),
        "held out": nearest_cosine(dev, train),
        "train": nearest_cosine(train, train, skip=np.arange(len(train))),
    }
    return concat([DataFrame({"kind": kind, "cosine": found}) for kind, found in kinds.items()], ignore_index=True)


def filter_settings(study: Study, run: ArmRun, filters: Sequence[str], share: float) -> list[FilterSetting]:
    """Filters with the strictest limits that let a share of a run's synthetic examples through.

    The run has no filter and keeps its synthetic examples, of which about `LOOKED_AT` count. A filter that is not in
    `LIMITS` has its default options; one that needs classes is left out where there are none.
    """
    if not 0 < share < 1:
        raise StudyError(
            f"a filter cannot let a share of {share:g} through and drop the rest: give one between 0 and 1"
        )
    prepared = prepared_for(run.config, study.plugins)
    sets = synthetic_sets(run)
    step = math.ceil(sum(len(one.anchors) for one in sets) / LOOKED_AT)
    requests = [_request(one, prepared, slice(None, None, step)) for one in sets]
    context = BuildContext(config=run.config, seed=run.config.reducer_seed)

    def setting(name: str, **options: float) -> FilterSetting:
        judge = study.plugins.build("filter", name, options, context)
        kept = np.concatenate([study.plugins.call("filter", name, judge.keep, request) for request in requests])
        return FilterSetting(name, options, float(kept.mean()))

    found = []
    for name in filters:
        if study.plugins.filter(name).needs_classes and prepared.data.spec.is_regression:
            continue
        if name not in LIMITS:
            found.append(setting(name))
            continue
        option, loose, strict = LIMITS[name]
        best = setting(name, **{option: loose})
        for _ in range(HALVINGS):
            middle = setting(name, **{option: (loose + strict) / 2})
            if middle.share >= share:
                best, loose = middle, middle.options[option]
            else:
                strict = middle.options[option]
        found.append(best)
    return found


def half_arms(inverters: Sequence[str], ratio: float) -> list[Arm]:
    """Arms that train on half of twice as many synthetic examples: the most coherent, the least, or any.

    Each inverter has the first two arms, the first one also the third. They need the filter `half` of
    `notebooks/plugins/half_filter.py`. `ratio` is that of synthetic examples that are trained on to real ones.
    """
    kinds = {
        "coherent": ("top", "the half of the highest cosine"),
        "incoherent": ("bottom", "the half of the lowest cosine"),
        "random": ("random", "any half"),
    }
    arms = []
    for inverter in inverters:
        alike: dict[str, Any] = {"schedule": "adaptive", "inverter": inverter, "filter": "half"}
        for name, (which, about) in kinds.items():
            if name != "random" or inverter == inverters[0]:
                own: dict[str, Any] = {"filter_options": {"which": which}, "synthetic_ratio": 2 * ratio}
                arms.append(Arm(half_name(name, inverter, inverters), f"of twice as many, {about}", **alike, **own))
    return arms


def half_name(name: str, inverter: str, inverters: Sequence[str]) -> str:
    """What the arm is called: "coherent half", and of a further inverter, "coherent half, knn"."""
    return f"{name} half" if inverter == inverters[0] else f"{name} half, {inverter}"


def filter_arms(settings: Sequence[FilterSetting], ratio: float) -> list[Arm]:
    """An arm for each filter, which makes so many synthetic examples that about as many are left as without it.

    `ratio` is that of synthetic examples to real ones without a filter. None makes more than `MOST_RATIO` per real
    example, so fewer may be left of a strict filter.
    """
    return [
        Arm(
            one.name,
            f"lets {100 * one.share:.0f} % through",
            schedule="adaptive",
            filter=one.name,
            filter_options=dict(one.options),
            synthetic_ratio=min(max(MOST_RATIO, ratio), round(ratio / one.share, 2)),
        )
        for one in settings
    ]


def trained_on(runs: Runs) -> DataFrame:
    """How many synthetic examples each arm trained on in a round, and what its filter dropped; means over seeds.
    Columns task, arm, rounds that synthesised, and in each of them synthetic (trained on) and dropped; share_kept.
    """
    table = runs.rounds()
    table = table[(table["synthetic"] > 0) | (table["dropped"] > 0)]
    by_run = table.groupby(["task", "arm", "seed"], sort=False)
    each = by_run[["synthetic", "dropped"]].mean().assign(rounds=by_run.size())
    found = each.groupby(["task", "arm"], sort=False)[["rounds", "synthetic", "dropped"]].mean().reset_index()
    found["share_kept"] = found["synthetic"] / (found["synthetic"] + found["dropped"])
    return found


def figure_of_cosines(table: DataFrame, title: str) -> Figure:
    """Cumulative shares of `cosines`, one line per kind."""
    figure = new_figure((7.2, 4.0))
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for kind, group in table.groupby("kind", sort=False):
        values = np.sort(group["cosine"].to_numpy())
        shares = np.arange(1, len(values) + 1) / len(values)
        name = str(kind).removesuffix(ASIDE)
        colour = colours.setdefault(name, PALETTE[len(colours) % len(PALETTE)])
        line = "--" if kind in REAL else ":" if name != kind else "-"
        axes.step(values, 100 * shares, where="post", color=colour, linestyle=line, label=kind)
    axes.set(title=title, xlabel="cosine to the nearest real vector", ylabel="vectors up to there [%]", ylim=(0, 100))
    frame(axes)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def _request(synthetic: SyntheticSet, prepared: Prepared, rows: slice) -> FilterRequest:
    return FilterRequest(
        vectors=read_only(synthetic.vectors[rows]),
        anchors=read_only(synthetic.anchors[rows]),
        coordinates=None if synthetic.coordinates is None else synthetic.coordinates[rows],
        real_vectors=read_only(prepared.train.store.pooled),
        real_logits=read_only(prepared.train.outputs.logits),
        logits=None if synthetic.logits is None else synthetic.logits[rows],
    )


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)
