"""Reducers with inverters: which go together, what each pair keeps of held-out vectors, and which keeps more.

What is kept is asked as in a scorecard. A pair is scored under one seed, so intervals are Student's over the held-out
examples alone (`sage_kit.studies.statistics.two_way`); all pairs meet the same examples, so differences between pairs
are paired. Tasks weigh the same in an average.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from sage_kit.errors import BudgetError, CompatibilityError, MissingPackageError, StudyError
from sage_kit.recipe import resolve
from sage_kit.scorecard import Placement, Scorecard, TaskVectors, load_vectors, place_vectors, score_pair
from sage_kit.scorecard.measures import METRICS, terms
from sage_kit.studies.plan_only import end_of_plan
from sage_kit.studies.statistics import AVERAGE, Interval, average, correlation, two_way
from sage_kit.studies.study import Study

Array = NDArray[Any]
Floats = NDArray[np.float64]

KEEPS_ALL = "identity"  # the reducer that takes no number of components but the vectors' own
HALVES = ("first", "second")

SHOWN = ("r2", "cosine", "centred_cosine", "mse")  # metrics in the order of the tables


@dataclass(frozen=True)
class Pair:
    """A reducer with an inverter."""

    reducer: str
    inverter: str
    n_components: int
    reason: str = ""  # why the two cannot be used; "" when they can

    @property
    def name(self) -> str:
        """As tables and figures show it."""
        return f"{self.reducer} + {self.inverter}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run with this pair."""
        return {"reducer": self.reducer, "inverter": self.inverter, "n_components": self.n_components}


@dataclass(frozen=True)
class Scores:
    """What pairs keep."""

    pairs: tuple[Pair, ...]  # all that were asked for; those without figures say why
    cards: Mapping[tuple[str, str], Scorecard] = field(repr=False)  # by task and name of the pair

    @property
    def scored(self) -> list[Pair]:
        """The pairs with figures."""
        return [pair for pair in self.pairs if not pair.reason]

    @property
    def errors(self) -> dict[tuple[str, str], dict[str, Floats]]:
        """By task and name of the pair, per held-out example what `sage_kit.scorecard.measures.terms` returns."""
        names = ("held_out", "inverter", "train_mean")
        return {key: terms(*(card.arrays[name] for name in names)) for key, card in self.cards.items()}


def pairs_of(
    study: Study, reducers: Sequence[str], inverters: Sequence[str], vectors: Mapping[str, TaskVectors]
) -> tuple[Pair, ...]:
    """Every reducer with every inverter; those that do not go together, or lack a package, say so in `reason`."""
    found = []
    for reducer in dict.fromkeys(reducers):
        study.plugins.registered("reducer", reducer)
        for inverter in dict.fromkeys(inverters):
            study.plugins.registered("inverter", inverter)
            dim = next(iter(vectors.values())).dim
            size = dim if reducer == KEEPS_ALL else study.config(study.tasks[0]).n_components
            pair = Pair(reducer, inverter, size)
            reason = ""
            for task, those in vectors.items():
                config = study.config(task, **pair.settings)
                try:
                    resolve(config, study.plugins).check_sizes(len(those.train), those.dim)
                except (CompatibilityError, MissingPackageError) as error:
                    reason = str(error)
                    break
            found.append(replace(pair, reason=reason))
    return tuple(found)


def score_pairs(study: Study, reducers: Sequence[str], inverters: Sequence[str], points: int = 1000) -> Scores:
    """The scorecards of every reducer with every inverter, on `points` held-out vectors of each task at most.

    A pair that does not go together, lacks a package or, as a reducer's own inverse may, runs out of its time budget on
    any task, has no figures.
    """
    end_of_plan()
    say = functools.partial(print, flush=True)
    vectors = {
        task: load_vectors(study.config(task), study.plugins, fine_tune=True, points=points) for task in study.tasks
    }
    pairs, cards, placements = [], {}, dict[tuple[str, str, int], Placement]()
    for pair in pairs_of(study, reducers, inverters, vectors):
        own: dict[tuple[str, str], Scorecard] = {}
        reason = pair.reason
        for task, those in vectors.items() if not reason else ():
            config = study.config(task, **pair.settings)
            place = task, pair.reducer, pair.n_components
            if place not in placements:
                placements[place] = place_vectors(config, study.plugins, those, say)
            try:
                own[task, pair.name] = score_pair(config, study.plugins, those, placements[place], announce=say)
            except BudgetError as error:
                reason = str(error)
                break
        pairs.append(replace(pair, reason=reason))
        cards.update({} if reason else own)
        text = reason or ", ".join(f"R2 {card.fidelity['inverter']['r2']} on {task}" for (task, _), card in own.items())
        print(f"{pair.name}: {text}", flush=True)
    return Scores(tuple(pairs), cards)


def metric_cells(errors: Mapping[str, Array], metric: str, task: str, half: str = "") -> Floats:
    """What each held-out example contributes to a metric of one pair on one task, (m,) or half; the mean is the metric.

    R2 is one less a ratio of means; an example's contribution is R2 plus its influence, the linear term of the delta
    method: R2 - (error - (1 - R2) spread) / mean spread. `errors` is what `sage_kit.scorecard.measures.terms` returns;
    `half` is "first" or "second" of a draw by the task's name, "" for all.
    """
    if metric not in METRICS:
        raise StudyError(f"there is no metric {metric!r}: take one of {', '.join(METRICS)}")
    count = len(errors["error"])
    rows = np.arange(count)
    if half:
        order = np.random.default_rng([zlib.crc32(task.encode()), 0]).permutation(count)
        middle = (count + 1) // 2
        rows = np.sort(order[:middle] if half == HALVES[0] else order[middle:])
    if metric != "r2":
        return np.asarray(errors["error" if metric == "mse" else metric][rows], dtype=np.float64)
    error, spread = (np.asarray(errors[name][rows], dtype=np.float64) for name in ("error", "spread"))
    r2 = 1 - error.mean() / spread.mean()
    return np.asarray(r2 - (error - (1 - r2) * spread) / spread.mean())


def _overall(
    errors: Mapping[tuple[str, str], Mapping[str, Array]], metric: str, tasks: Sequence[str], half: str, *pairs: str
) -> Interval:
    """The interval of one pair's metric, or of a first pair's less a second's, on the average over tasks."""
    parts = []
    for task in tasks:
        ours, *base = (metric_cells(errors[task, pair], metric, task, half) for pair in pairs)
        parts.append(two_way((ours - base[0] if base else ours)[None]))
    return parts[0] if len(parts) == 1 else average(parts)


def fidelity_table(scores: Scores, tasks: Sequence[str]) -> DataFrame:
    """What each pair keeps, per task and on their average, by falling R2; pairs without figures come last.

    Columns task, pair, reducer, inverter, n_components, n_seeds (1: a pair is scored under one seed); for each of
    `SHOWN` the value and, with "_low" and "_high", its interval; vectors_per_second; reason.
    """
    errors, rows = scores.errors, []
    groups = {task: [task] for task in tasks} | ({AVERAGE: list(tasks)} if len(tasks) > 1 else {})
    for name, members in groups.items():
        for pair in scores.pairs:
            row: dict[str, Any] = {"task": name, "pair": pair.name, **pair.settings, "n_seeds": 1}
            for metric in SHOWN:
                numbers = Interval(np.nan, np.nan, np.nan)
                if not pair.reason:
                    numbers = _overall(errors, metric, members, "", pair.name)
                row |= {metric: numbers.value, f"{metric}_low": numbers.low, f"{metric}_high": numbers.high}
            speeds = [scores.cards[task, pair.name].speed["vectors_per_second"] for task in members if not pair.reason]
            row |= {"vectors_per_second": float(np.mean(speeds)) if speeds else np.nan, "reason": pair.reason}
            rows.append(row)
    order = {name: index for index, name in enumerate(groups)}
    rows.sort(key=lambda row: (order[row["task"]], np.isnan(row["r2"]), -row["r2"]))
    return DataFrame(rows)


def baselines_table(scores: Scores, tasks: Sequence[str]) -> DataFrame:
    """The metrics `SHOWN` of predictions that look at no map, on the average over tasks; empty without figures.

    "mean" is the training vectors' mean, "nearest" the training vector nearest in full space to the one to be found,
    "random" any.
    """
    names = ("mean", "nearest", "random")
    first = {task: card for (task, _), card in reversed(list(scores.cards.items()))}  # these are the same for all pairs
    rows = [
        {"predictor": name, **{m: float(np.mean([first[t].fidelity[name][m].value for t in tasks])) for m in SHOWN}}
        for name in (names if first else ())
    ]
    return DataFrame(rows, columns=["predictor", *SHOWN])


def best_pair(scores: Scores, pairs: Sequence[Pair], tasks: Sequence[str], metric: str = "r2", half: str = "") -> Pair:
    """The pair that keeps most on the average over tasks, by a metric of which more is better."""
    errors = scores.errors
    if not pairs:
        raise StudyError("there is no pair with figures to choose from")
    return max(pairs, key=lambda pair: _overall(errors, metric, tasks, half, pair.name).value)


def differences(
    scores: Scores, rows: Sequence[tuple[Pair, Pair]], tasks: Sequence[str], metric: str = "r2", half: str = ""
) -> DataFrame:
    """What pairs keep beyond those that they are held against, on the average over tasks: a row each. Columns pair,
    baseline, metric, n_seeds, mean, baseline_mean, difference, low, high, df. `half` is as in `metric_cells`.
    """
    errors, found = scores.errors, []
    for pair, other in rows:
        ours, theirs = (_overall(errors, metric, tasks, half, one.name).value for one in (pair, other))
        numbers = _overall(errors, metric, tasks, half, pair.name, other.name)
        found.append(
            (pair.name, other.name, metric, 1, ours, theirs, numbers.value, numbers.low, numbers.high, numbers.df)
        )
    names = ["pair", "baseline", "metric", "n_seeds", "mean", "baseline_mean", "difference", "low", "high", "df"]
    return DataFrame(found, columns=names)


def fidelity_and_score(table: DataFrame) -> DataFrame:
    """Rank correlation of what pairs keep with what they teach (`sage_kit.studies.statistics.correlation`).

    Columns measure, among ("all pairs", or "same inverter": both numbers less the inverter's mean), pairs, correlation,
    low and high; NaN for fewer than two pairs. `table` has one row per pair: "inverter", those of `SHOWN`, and
    "difference", the score over the baseline's.
    """
    rows = []
    for among in ("all pairs", "same inverter"):
        for measure in SHOWN:
            both = table[["difference", measure]].astype(float)
            if among == "same inverter":
                both = both - both.groupby(table["inverter"]).transform("mean")
            number = Interval(np.nan, np.nan, np.nan)
            if len(both) > 1:
                number = correlation(both[measure].to_numpy(), both["difference"].to_numpy())
            rows.append((measure, among, len(both), number.value, number.low, number.high))
    return DataFrame(rows, columns=["measure", "among", "pairs", "correlation", "low", "high"])
