"""Bench `scale`: a round's synthesis at ten thousand, a hundred thousand and a million examples.

Vectors are drawn to the covariance of real ones and lie in a file that is mapped into memory, as a run's do. Each size
has a process of its own, which tells its largest memory. A round is what SAGE adds to one, but for the teacher's
labels: losses are given; examples are sampled, inverted and filtered, and some batches of them lifted. The map is
fitted once and timed apart.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_bench.generated import Covariance, write_vectors
from sage_bench.measure import Contender, Measured, Session, Work, alternate
from sage_bench.pooled import real_vectors, side_by_side
from sage_bench.records import Line, Result, Spread, Target
from sage_kit.components.plugins import Plugins
from sage_kit.errors import MissingPackageError, UnknownComponentError
from sage_kit.storage.files import disk_errors
from sage_kit.system.child import Child, ChildEnded, ChildFailed

WORKER = "sage_bench.scale_worker"
LANDMARKS = 20_000
LIFTED_BATCHES = 256
GIGABYTE = 1e9

COST = "µs/vector"
COST_GOAL = 1.5
MEMORY_GOAL = 4.0

REAL_ROWS = 7500
"""Texts whose vectors' covariance is taken."""


@dataclass(frozen=True)
class Series:
    """The same round at several sizes.

    Attributes
    ----------
    title : str
    sizes : tuple of int
        Real examples; as many synthetic ones are made.
    settings : mapping
        Beyond the defaults and what all series share.
    dim : 384 or 768
    tokens : int
        Mean tokens of an example; 0 for pooled vectors alone.
    repeats : int
    budget : float
        Time after which no repeat begins [s].
    """

    title: str
    sizes: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    dim: int = 384
    tokens: int = 0
    repeats: int = 3
    budget: float = 240.0


PCA = "pca, high_loss, anchored, shift, filter cosine"
QUICK_SERIES = (
    Series(PCA, (10_000, 50_000), repeats=2, budget=20.0),
    Series(f"{PCA}, tokens", (10_000,), tokens=20, repeats=2, budget=10.0),
)
FULL_SERIES = (
    Series(PCA, (10_000, 100_000, 1_000_000)),
    Series("in full space: smote, shift, filter cosine", (10_000, 100_000), {"sampler": "smote"}, repeats=2),
    Series("in full space: mixup, shift, filter cosine", (10_000, 1_000_000), {"sampler": "mixup"}),
    Series(PCA, (10_000, 1_000_000), dim=768),
    Series(f"{PCA}, tokens", (100_000,), tokens=20),
    Series("umap, high_loss, anchored, shift, filter cosine", (10_000, 100_000), {"reducer": "umap"}, repeats=2),
)


def run(session: Session) -> Result:
    """Run every series."""
    name, covariances = real_covariances(session, [series.dim for series in series_of(session)])
    lines: list[Line] = []
    targets: list[Target] = []
    details: dict[str, Any] = {"vectors": name, "series": []}
    for series in series_of(session):
        more_lines, more_targets, about = run_series(session, series, covariances[series.dim])
        lines += more_lines
        targets += more_targets
        details["series"].append(about)
    notes = [
        f"Vectors are drawn to mean and covariance of the input layers' pooled vectors of {name}; of 768 numbers, to "
        "those of two such vectors side by side, after the embeddings and after three blocks.",
        f"As many synthetic examples as real ones; {LIFTED_BATCHES} batches of them are lifted. Own memory is the most "
        "RssAnon, Python and torch included; with mapped files is ru_maxrss, which the system can take back.",
    ]
    if session.quick:
        notes.append("--quick leaves out a million, umap, full space and 768 numbers.")
    return Result("scale", lines, targets, notes, details)


def series_of(session: Session) -> Sequence[Series]:
    """What the session measures."""
    return QUICK_SERIES if session.quick else FULL_SERIES


def real_covariances(session: Session, dims: Sequence[int]) -> tuple[str, dict[int, Covariance]]:
    """What the texts are called, and the covariance of their vectors by width."""
    rows = REAL_ROWS // 3 if session.quick else REAL_ROWS
    session.announce("vectors of real text")
    name, vectors = real_vectors(session, rows)
    found = {384: Covariance.of(vectors.train)}
    if 768 in dims:
        _, deeper = real_vectors(session, rows, bypass=3)
        found[768] = Covariance.of(side_by_side(vectors.train, deeper.train))
    return name, found


def run_series(
    session: Session, series: Series, covariance: Covariance
) -> tuple[list[Line], list[Target], dict[str, Any]]:
    """One series: its lines, its targets, and what else there is to keep."""
    title = f"{series.title}, {series.dim}-D"
    reducer = series.settings.get("reducer", "pca")
    try:
        plugins = Plugins()
        plugins.options("reducer", reducer, {})
    except (MissingPackageError, UnknownComponentError) as error:
        return [Line(title, reducer, is_ours=True, note=f"skipped: {error}")], [], {}
    lines: list[Line] = []
    processes: dict[str, RoundProcess] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=session.scratch)))
        for size in series.sizes:
            who = f"{size:,} examples"
            session.announce(f"{title}: {who}, writing vectors")
            path = folder / f"vectors-{size}.safetensors"
            with disk_errors(str(path)):
                write_vectors(path, covariance, size, series.tokens, seed=size)
            shared = {"reducer": "pca", "landmarks": LANDMARKS, "filter": "cosine"}
            settings = {**shared, "cache_dir": str(folder / f"cache-{size}"), **series.settings}
            session.announce(f"{title}: {who}, map")
            try:
                process = RoundProcess(path, settings, size)
                stack.callback(process.end)
                process.start()
            except RoundError as error:
                lines.append(Line(title, who, is_ours=True, note=str(error)))
                continue
            processes[who] = process
        contenders = [Contender(who, process.round) for who, process in processes.items()]
        measured = alternate(
            contenders, repeats=series.repeats, budget=series.budget, warm_up=False, announce=session.announce
        )
        memory = {who: process.memory() for who, process in processes.items()}
    lines = [*_lines(title, measured, processes, memory), *lines]
    about = {
        "work": title,
        "settings": dict(series.settings),
        "points": {
            who: {
                "map": processes[who].map,
                "memory": memory[who],
                "steps": {step: result.figure(step).to_json() for step in ("sample", "invert", "filter", "lift")},
            }
            for who, result in measured.items()
        },
    }
    return lines, list(_targets(title, measured, memory)), about


def _lines(
    title: str, measured: dict[str, Measured], processes: dict[str, RoundProcess], memory: dict[str, dict[str, Any]]
) -> list[Line]:
    lines = []
    smallest = next(iter(measured), "")
    for who, result in measured.items():
        cost = result.figure(COST)
        steps = ", ".join(f"{step} {result.figure(step).median:.1f}" for step in ("sample", "invert", "filter", "lift"))
        lines.append(
            Line(
                work=title,
                who=who,
                values={
                    COST: cost,
                    "own memory, GB": Spread.of([memory[who]["peak"] / GIGABYTE]),
                    "with mapped files, GB": Spread.of([memory[who]["most_resident"] / GIGABYTE]),
                    "map once, s": Spread.of([processes[who].map["seconds"]]),
                },
                ratios={} if who == smallest else {"cost / the smallest's": cost.over(measured[smallest].figure(COST))},
                is_ours=True,
                note=f"{steps} µs",
            )
        )
    return lines


def _targets(title: str, measured: dict[str, Measured], memory: dict[str, dict[str, Any]]) -> list[Target]:
    if not measured:
        return []
    first, last = next(iter(measured)), list(measured)[-1]
    targets = []
    if first != last:
        ratio = measured[last].figure(COST).over(measured[first].figure(COST))
        targets.append(
            Target(f"{title}: cost per vector, {last} / {first}", ratio, COST_GOAL, at_least=False, unit=" x")
        )
    peak = Spread.of([(memory[last]["peak"] - memory[last]["before"]) / GIGABYTE])
    what = f"{title}: own memory beyond that of the imports, {last}"
    targets.append(Target(what, peak, MEMORY_GOAL, at_least=False, unit=" GB"))
    return targets


# ---- a process per size ---------------------------------------------------------------------------------------------


class RoundError(Exception):
    """A process could not make its rounds; the text says why."""


class RoundProcess:
    """Rounds at one size in a process of its own; see `sage_bench.scale_worker`.

    Parameters
    ----------
    vectors : Path
        A file of `write_vectors`.
    settings : mapping
    count : int
        Synthetic examples of a round.

    Attributes
    ----------
    map : dict
        What fitting the map took, after `start`.
    """

    def __init__(self, vectors: Path, settings: dict[str, Any], count: int) -> None:
        self._setup = {"vectors": str(vectors), "settings": settings, "count": count, "batches": LIFTED_BATCHES}
        self._child = Child([sys.executable, "-W", "ignore", "-m", WORKER], Path(__file__).parents[1])
        self.map: dict[str, Any] = {}

    def start(self) -> None:
        """Fit the map.

        Raises
        ------
        RoundError
            When that fails; `memory` and `round` raise it likewise.
        """
        self.map = self._ask(self._setup)

    def round(self) -> Work:
        """Make one round, or several small ones; the figures are microseconds per vector."""
        answer = self._ask("round")
        created, lifted = float(answer["created"]), float(max(answer["lifted"], 1))
        steps = {
            name: 1e6 * seconds / (lifted if name == "lift" else created) for name, seconds in answer["steps"].items()
        }
        cost = 1e6 * (answer["create_seconds"] / created + answer["lift_seconds"] / lifted)
        seconds = answer["create_seconds"] + answer["lift_seconds"]
        return Work({"vectors": created}, seconds, {COST: cost, **steps})

    def memory(self) -> dict[str, Any]:
        """The most memory that it took [bytes]."""
        return self._ask("memory")

    def end(self) -> None:
        """End the process."""
        self._child.end()

    def _ask(self, message: Any) -> dict[str, Any]:
        try:
            return self._child.ask(message)
        except ChildFailed as error:
            raise RoundError(str(error)) from None
        except ChildEnded as error:
            raise RoundError(f"its process ended with {error.code}: {error.last_words}") from None
