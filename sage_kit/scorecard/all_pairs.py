"""Every reducer with every inverter that goes with it, within a time budget.

Pairs are scored in a process of their own (:mod:`sage_kit.scorecard.pair_worker`); when one exceeds its share of the
budget, the process is ended and the next pair gets a new one.
"""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, ConfigError, SageError
from sage_kit.recipe import resolve
from sage_kit.scorecard.held_out import TaskVectors, load_vectors
from sage_kit.scorecard.measures import METRICS
from sage_kit.scorecard.placement import scoring_config
from sage_kit.storage.files import disk_errors, write_json, write_text
from sage_kit.system.child import Child, ChildEnded, ChildSilent

BUDGET = 600.0  # seconds
SHARE = 0.25
"""Share of the time left that one map or one pair may take; the last pairs may take an even part, which is more."""

SLOW = 3.0  # times as long as the median pair, and an inverter's other pairs wait until the rest is done
GRACE = 60.0  # most seconds, of the budget too, that a process may take to start
KEEPS_ALL = "identity"  # the reducer that takes no number of components but the vectors' own

SCORED, FAILED, OUT_OF_TIME, UNAVAILABLE = "scored", "failed", "out of time", "unavailable"


@dataclass(frozen=True)
class Row:
    """One pair of the grid.

    Attributes
    ----------
    reducer, inverter : str
    n_components : int
    status : str
        "scored", "failed", "out of time", or "unavailable" for a reducer or an inverter whose packages are missing.
    reason : str
        Why there are no figures; "" for "scored".
    map_seconds : float
        Until the map was there: fitted, or found in the cache.
    seconds : float
        That the rest took.
    card : mapping
        What the pair's scorecard.json holds; empty without figures.
    directory : str
        Name of the scorecard's directory.
    """

    reducer: str
    inverter: str
    n_components: int
    status: str
    reason: str = ""
    map_seconds: float = 0.0
    seconds: float = 0.0
    card: Mapping[str, Any] = field(default_factory=dict)
    directory: str = ""

    def value(self, metric: str, part: str = "value") -> float:
        """The "value", "low" or "high" of a metric of the inverter; NaN without figures."""
        found = self.card["fidelity"]["inverter"][metric][part] if self.card else None
        return float("nan") if found is None else float(found)

    @property
    def speed(self) -> float:
        """Vectors per second; NaN without figures."""
        return float(self.card["speed"]["vectors_per_second"]) if self.card else float("nan")


@dataclass(frozen=True)
class Grid:
    """The scorecards of all pairs.

    Attributes
    ----------
    task, input_layers : str
    rows : tuple of Row
        Those with figures first, by falling R².
    left_out : mapping of str to str
        Pairs that do not go together, and why.
    seconds, budget : float
        Time that it took, and that it had.
    directory : Path
    """

    task: str
    input_layers: str
    rows: tuple[Row, ...]
    left_out: Mapping[str, str]
    seconds: float
    budget: float
    directory: Path

    @property
    def scored(self) -> list[Row]:
        """The rows with figures."""
        return [row for row in self.rows if row.card]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "task": self.task,
            "input_layers": self.input_layers,
            "seconds": self.seconds,
            "budget": self.budget,
            "rows": [asdict(row) for row in self.rows],
            "left_out": dict(self.left_out),
        }

    def to_csv(self) -> str:
        """One line per pair, with the inverter's metrics, their intervals and the speed."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = [(metric, part) for metric in METRICS for part in ("value", "low", "high")]
        names = [metric if part == "value" else f"{metric}_{part}" for metric, part in parts]
        writer.writerow(["reducer", "n_components", "inverter", "status", *names, "vectors_per_second", "reason"])
        for row in self.rows:
            figures = [row.value(metric, part) if row.card else "" for metric, part in parts]
            speed = row.speed if row.card else ""
            writer.writerow([row.reducer, row.n_components, row.inverter, row.status, *figures, speed, row.reason])
        return stream.getvalue()

    def save(self) -> None:
        """Write ``grid.json`` and ``grid.csv`` into its directory."""
        with disk_errors(str(self.directory)):
            write_json(self.directory / "grid.json", self.to_json())
            write_text(self.directory / "grid.csv", self.to_csv())


@dataclass(frozen=True)
class _Pair:
    config: RunConfig

    @property
    def title(self) -> str:
        return f"{self.config.reducer} ({self.config.n_components}) with {self.config.inverter}"


def score_grid(
    config: RunConfig,
    plugins: Plugins,
    vectors: TaskVectors | None = None,
    *,
    budget: float = BUDGET,
    longest: float | None = None,
    out: str | os.PathLike[str] = "scorecards",
    plugin_files: Sequence[str] = (),
) -> Grid:
    """Score every reducer with every inverter that goes with it, the cheap ones first.

    Parameters
    ----------
    config : RunConfig
        `n_components` counts for all reducers but ``identity``, which keeps the vectors' width; options count for the
        reducer and the inverter that the settings name, all others have their defaults.
    plugins : Plugins
    vectors : TaskVectors or None
        What `load_vectors` gave; None calls it.
    budget : float
        Seconds for all pairs together; what is computed for `vectors` does not count.
    longest : float or None
        Most seconds for one map and for one pair; None for a quarter of the time that is left, or an even part of it
        when few pairs are left.
    out : path
        Folder for the scorecards, ``grid.json`` and ``grid.csv``.
    plugin_files : sequence of str
        One-file plugins that `plugins` was made with.

    Returns
    -------
    Grid
        A pair that fails or runs out of time is a row that says so.

    Raises
    ------
    SageError
        As `load_vectors` does; a pair raises nothing.
    """
    vectors = load_vectors(config, plugins) if vectors is None else vectors
    folder = Path(out)
    pairs, rows, left_out = _pairs(scoring_config(config), plugins, vectors)
    started = time.monotonic()
    deadline = started + budget
    saved = vectors.save(folder)
    setup = {"vectors": str(saved), "plugin_files": [str(Path(f).resolve()) for f in plugin_files], "out": str(folder)}
    slow_maps: dict[str, str] = {}
    worker: _Worker | None = None
    total = len(pairs)
    try:
        while pairs:
            pair = pairs.pop(0)
            if pair.config.reducer in slow_maps:
                rows.append(_row(pair, OUT_OF_TIME, slow_maps[pair.config.reducer]))
                continue
            if time.monotonic() >= deadline:
                rows.append(_row(pair, OUT_OF_TIME, f"the budget of {budget:g} s was spent"))
                continue
            plugins.message(None, f"{pair.title} ({total - len(pairs)} of {total})")
            try:
                if worker is None:
                    worker = _Worker(setup)
                    worker.wait(("ready",), min(GRACE, deadline - time.monotonic()))
                row = _score(worker, pair, plugins, _Share(deadline, len(pairs) + 1, longest))
            except _MapTooSlow as slow:
                slow_maps[pair.config.reducer] = str(slow)
                row = _row(pair, OUT_OF_TIME, str(slow))
            except _TooSlow as slow:
                row = _row(pair, OUT_OF_TIME, str(slow))
            except ChildEnded as ended:
                row = _row(pair, FAILED, str(ended))
            if worker is not None and not worker.fit_for_more:
                worker.end()
                worker = None
            rows.append(row)
            pairs = _slow_last(pairs, rows, budget / total)
    finally:
        if worker is not None:
            worker.end()
    ordered = tuple(sorted(rows, key=_rank))
    grid = Grid(vectors.task, vectors.input_layers, ordered, left_out, time.monotonic() - started, budget, folder)
    grid.save()
    return grid


def _pairs(config: RunConfig, plugins: Plugins, vectors: TaskVectors) -> tuple[list[_Pair], list[Row], dict[str, str]]:
    """The pairs to score in order, rows for what is not installed, and those that do not go together."""
    pairs: list[_Pair] = []
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    for reducer in plugins.names("reducer"):
        for inverter in plugins.names("inverter"):
            changes: dict[str, Any] = {"reducer": reducer, "inverter": inverter}
            if reducer != config.reducer:
                changes["reducer_options"] = {}
            if inverter != config.inverter:
                changes["inverter_options"] = {}
            if reducer == KEEPS_ALL:
                changes["n_components"] = vectors.dim
            pair = _Pair(config.model_copy(update=changes))
            try:
                resolve(pair.config, plugins).check_sizes(len(vectors.train), vectors.dim)
                pairs.append(pair)
            except CompatibilityError as error:
                left_out[pair.title] = str(error)
            except ConfigError as error:
                rows.append(_row(pair, FAILED, str(error)))
            except SageError as error:
                rows.append(_row(pair, UNAVAILABLE, str(error)))
    return sorted(pairs, key=lambda pair: _cost(pair, plugins)), rows, left_out


def _cost(pair: _Pair, plugins: Plugins) -> tuple[Any, ...]:
    """Where a pair stands in the order: a reducer's own inverse may be slow, and so may libraries and networks."""
    reducer = plugins.reducer(pair.config.reducer, pair.config.reducer_options)
    inverse = plugins.inverter(pair.config.inverter).needs_inverse
    heavy = bool(reducer.requires) + reducer.uses_gpu + (not reducer.has_state)
    # an inverse that a map of several libraries has waits until everything else is done
    return (inverse and heavy > 0, pair.config.n_components, heavy, reducer.name, inverse, pair.config.inverter)


@dataclass(frozen=True)
class _Share:
    """How long a map or a pair may take."""

    deadline: float
    pairs_left: int
    longest: float | None

    def seconds(self) -> float:
        remaining = max(0.0, self.deadline - time.monotonic())
        if self.longest is not None:
            return min(self.longest, remaining)
        return max(SHARE * remaining, remaining / self.pairs_left)


def _score(worker: _Worker, pair: _Pair, plugins: Plugins, share: _Share) -> Row:
    """The row of a pair, from a process that is ready."""
    allowed = share.seconds()
    began = time.monotonic()
    worker.send(_with_budget(pair.config, plugins, allowed).model_dump(mode="json"))
    try:
        answer = worker.wait(("placed", "failed"), allowed)
    except _TooSlow:
        raise _MapTooSlow(f"its map took longer than its share of the budget, {allowed:.0f} s") from None
    placed = time.monotonic()
    if answer["event"] == "placed":
        allowed = share.seconds()
        try:
            answer = worker.wait(("scored", "failed"), allowed)
        except _TooSlow:
            row = _row(pair, OUT_OF_TIME, f"it took longer than its share of the budget, {allowed:.0f} s")
            return replace(row, map_seconds=placed - began, seconds=time.monotonic() - placed)
    if answer["event"] == "failed":
        row = _row(pair, OUT_OF_TIME if answer["late"] else FAILED, answer["reason"])
    else:
        row = replace(_row(pair, SCORED, ""), card=answer["card"], directory=answer["directory"])
    return replace(row, map_seconds=placed - began, seconds=time.monotonic() - placed)


def _slow_last(pairs: list[_Pair], rows: list[Row], even_part: float) -> list[_Pair]:
    """The pairs to do, those last whose inverter has just proved slow beside the others."""
    times = [row.seconds for row in rows if row.seconds]
    if not times or rows[-1].seconds <= max(even_part, SLOW * statistics.median(times)):
        return pairs
    slow = rows[-1].inverter
    return sorted(pairs, key=lambda pair: pair.config.inverter == slow)


def _with_budget(config: RunConfig, plugins: Plugins, seconds: float) -> RunConfig:
    """The settings with the time budget of the inverter, if it has one and the user has set none, lowered to this."""
    fields = plugins.inverter(config.inverter).options.model_fields
    if "budget_seconds" not in fields or "budget_seconds" in config.inverter_options:
        return config
    lowered = min(fields["budget_seconds"].default, max(seconds, 1e-3))
    return config.model_copy(update={"inverter_options": {**config.inverter_options, "budget_seconds": lowered}})


def _row(pair: _Pair, status: str, reason: str) -> Row:
    config = pair.config
    return Row(config.reducer, config.inverter, config.n_components, status, reason)


def _rank(row: Row) -> tuple[Any, ...]:
    """Rows with figures first, by falling R²."""
    r2 = row.value("r2")
    return (not row.card, math.inf if math.isnan(r2) else -r2, row.reducer, row.inverter)


class _TooSlow(Exception):
    """An answer did not come in time."""


class _MapTooSlow(Exception):
    """A map was not there in time."""


class _Worker(Child):
    """A process that scores pairs; a slow reducer or a crash ends it and nothing else."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        super().__init__([sys.executable, "-m", "sage_kit.scorecard.pair_worker"])
        self.fit_for_more = True
        self.send(setup)

    def wait(self, events: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """The next answer of one of these kinds.

        Raises
        ------
        _TooSlow
            When it does not come in time.
        ChildEnded
            When the process has ended.
        """
        deadline = time.monotonic() + seconds
        try:
            while True:
                answer = self.receive(deadline - time.monotonic())
                if answer["event"] in events:
                    return answer
        except ChildSilent:
            self.fit_for_more = False
            raise _TooSlow(f"its process was not ready after {seconds:.0f} s") from None
        except ChildEnded:
            self.fit_for_more = False
            raise
