"""Bench `synthesis`: new vectors per second, and how well held-out vectors come back.

All sides make vectors for the same new points of the same map. Ours choose the points too: sampler `high_loss`, then an
inverter. Peers are given them: umap-learn's ``inverse_transform``, which is how the paper does it, and a Python loop
over scikit-learn's neighbours; PCA's inverse works in a linear map of its own. A peer that would exceed its time makes
fewer vectors, and its time for all follows from theirs. Held-out vectors are placed by the reducer and asked for at
their places, so that fast and wrong does not win; the arrays are kept, and R² and cosine can be computed from them
again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_bench.generated import Covariance
from sage_bench.measure import Contender, Measured, Session, Work, alternate
from sage_bench.pooled import real_vectors, side_by_side
from sage_bench.records import Line, Result, Spread, Target
from sage_kit.components import BuildContext, SampleRequest
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import MissingPackageError, UnknownComponentError
from sage_kit.scorecard.measures import Figure, fidelity_figures
from sage_kit.storage.cache import Cache

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

INVERTERS = ("knn", "local_affine", "decoder", "anchored")
NATIVE, LOOP, LINEAR = "umap-learn inverse_transform", "scikit-learn neighbours, a loop", "PCA's inverse"
PEER_NEIGHBORS = 50
"""As many as inverter `knn` averages by default."""

RATIO = "this / inverse_transform"
RATE_GOAL = 1000.0
LEAST_SECONDS = 0.2
"""Small counts are made several times, since single ones are too short to time."""

PROBES = (2, 16)
"""Sizes of the calls that show what a peer takes a call and a vector."""

LEAST_POINTS = 200
"""Fewer tell little of what a vector takes, beside what a call does; a quick session makes do with a third."""

SEED = 0


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    rows : int
        Most texts, those held out included.
    held_out : int
        Vectors that are asked for.
    dims : tuple of int
    counts : tuple of int
        New vectors.
    repeats : int
    peer_seconds : float
        Most time of a peer's turn [s].
    decoder_options : mapping
    """

    rows: int
    held_out: int
    dims: tuple[int, ...]
    counts: tuple[int, ...]
    repeats: int
    peer_seconds: float
    decoder_options: Mapping[str, Any] = field(default_factory=dict)


QUICK = Size(800, 32, (384,), (10_000,), 2, 2.0, {"epochs": 20})
FULL = Size(8005, 200, (384, 768), (100, 1_000, 10_000, 100_000), 3, 12.0)


def run(session: Session) -> Result:
    """Measure speed and fit at each width and count."""
    size = QUICK if session.quick else FULL
    lines: list[Line] = []
    targets: list[Target] = []
    arrays: dict[str, NDArray[Any]] = {}
    details: dict[str, Any] = {"maps": []}
    for dim in size.dims:
        session.announce(f"{dim}-D: vectors")
        name, train, held_out = vectors_of(session, size, dim)
        session.announce(f"{dim}-D: map of {len(train):,} vectors, inverters")
        sides = Sides(session, size, train, held_out)
        title = f"{name}, {dim}-D, {len(train):,} vectors, {sides.reducer} 2-D"
        session.announce(f"{dim}-D: held-out vectors")
        figures, kept = sides.fit()
        arrays.update({f"{dim}.{key}": values for key, values in kept.items()})
        more_lines, more_targets = measure(session, size, title, sides, figures)
        lines += more_lines
        targets += [*fit_targets(title, figures), *more_targets]
        details["maps"].append({"work": title, "peers": sides.peers_about, "ours_fitted_seconds": sides.fitted_seconds})
    notes = [
        f"R² and centred cosine are of {size.held_out} held-out vectors, with the 95 % interval over these; 0 is what "
        "the mean of all vectors would have. anchored keeps its anchor's detail, which a held-out vector lacks.",
        "The arrays beside the JSON hold, by width, held_out, train_mean and predicted.* (what each side says of "
        "held_out): R² is 1 - sum |held_out - predicted|^2 / sum |held_out - train_mean|^2.",
        "Ours include the choice of anchors and points. Fitting the map and the inverters is once per data set.",
    ]
    if 768 in size.dims:
        notes.append(
            "The 768-D vectors are drawn to the mean and covariance of the text's pooled vectors after the embeddings "
            "and after three blocks, side by side: they have no clusters, and a map in 2-D tells little of them."
        )
    return Result("synthesis", lines, targets, notes, details, arrays)


def vectors_of(session: Session, size: Size, dim: int) -> tuple[str, Floats, Floats]:
    """What the vectors are called, those to learn from and those held out."""
    name, real = real_vectors(session, size.rows)
    if dim == real.dim:
        held_out = real.held_out[: size.held_out]
        return name, np.array(real.train), held_out
    _, deeper = real_vectors(session, size.rows, bypass=3)
    covariance = Covariance.of(side_by_side(real.train, deeper.train))
    drawn = covariance.draw(len(real.train) + size.held_out, np.random.default_rng(SEED))
    return f"drawn to {name}", drawn[: len(real.train)], drawn[len(real.train) :]


# ---- the sides ------------------------------------------------------------------------------------------------------


class Sides:
    """All that make vectors, on one map.

    Parameters
    ----------
    session : Session
    size : Size
    train : array of shape (n, dim), float32
    held_out : array of shape (m, dim), float32

    Attributes
    ----------
    reducer : str
        "umap", or "pca" where umap-learn is not there.
    fitted_seconds : dict of str to float
        Of the map and of each inverter [s].
    peers_about : dict of str to dict
        What a peer takes a call and a vector [s], as its probes show.
    missing : dict of str to str
        Why a peer is not there.
    """

    def __init__(self, session: Session, size: Size, train: Floats, held_out: Floats) -> None:
        self.train, self.held_out = train, held_out
        self.fitted_seconds: dict[str, float] = {}
        self.peers_about: dict[str, dict[str, float]] = {}
        self.missing: dict[str, str] = {}
        plugins = Plugins()
        self.reducer = "umap"
        try:
            plugins.options("reducer", "umap", {})
            plugins.build("reducer", "umap", {}, BuildContext(config=load_config({})))
        except (MissingPackageError, UnknownComponentError) as error:
            self.reducer, self.missing[NATIVE] = "pca", str(error)
        config = load_config({"reducer": self.reducer, "cache_dir": str(session.scratch / "cache")})
        cache = Cache(Path(config.cache_dir))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        context = BuildContext(config=config, device=device, n_components=2, cached=cache.arrays)
        reducer = self._timed("map", lambda: plugins.build("reducer", self.reducer, {}, context))
        self.coordinates: Floats = self._timed("map", lambda: reducer.fit_transform(train.copy()))
        self.places: Floats = np.asarray(reducer.transform(held_out.copy()), dtype=np.float32)
        self.sampler = plugins.build("sampler", "high_loss", {}, context)
        self.losses = np.random.default_rng(SEED).lognormal(size=len(train)).astype(np.float32)
        self._rng = np.random.default_rng(SEED)
        options = {"decoder": dict(size.decoder_options)}
        self.inverters = {name: plugins.build("inverter", name, options.get(name, {}), context) for name in INVERTERS}
        for name, inverter in self.inverters.items():
            self._timed(name, partial(inverter.fit, self.coordinates, train, reducer))
        self.peers = dict(self._peers(reducer, size))

    def _timed(self, what: str, do: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = do()
        self.fitted_seconds[what] = self.fitted_seconds.get(what, 0.0) + time.perf_counter() - started
        return result

    def _peers(self, reducer: Any, size: Size) -> Iterator[tuple[str, Peer]]:
        from sklearn.decomposition import PCA
        from sklearn.neighbors import NearestNeighbors

        neighbors = NearestNeighbors(n_neighbors=min(PEER_NEIGHBORS, len(self.train))).fit(self.coordinates)

        def loop(points: Floats) -> Floats:
            result = np.empty((len(points), self.train.shape[1]), dtype=np.float32)
            for row in range(len(points)):
                distances, found = neighbors.kneighbors(points[row : row + 1])
                result[row] = np.average(self.train[found[0]], axis=0, weights=1 / np.maximum(distances[0], 1e-12))
            return result

        linear = PCA(n_components=2, random_state=SEED).fit(self.train)
        linear_places = np.asarray(linear.transform(self.held_out), dtype=np.float32)
        least = LEAST_POINTS if size.peer_seconds > QUICK.peer_seconds else LEAST_POINTS // 3
        if not self.missing:
            yield NATIVE, Peer(reducer.inverse_transform, self.places, size.peer_seconds, least)
        yield LOOP, Peer(loop, self.places, size.peer_seconds, least)
        yield (
            LINEAR,
            Peer(lambda points: np.asarray(linear.inverse_transform(points)), linear_places, size.peer_seconds, least),
        )

    def points(self, count: int) -> tuple[Floats, Integers]:
        """So many new points of the map and their anchors."""
        request = SampleRequest(
            count=count,
            losses=self.losses,
            rng=self._rng,
            vectors=self.train,
            teacher_logits=np.zeros((len(self.train), 2), dtype=np.float32),
            student_logits=np.zeros((len(self.train), 2), dtype=np.float32),
            coordinates=self.coordinates,
        )
        samples = self.sampler.sample(request)
        return samples.coordinates, samples.anchors

    def ours(self, name: str, count: int) -> Work:
        """Sample and invert, again and again until enough time has passed."""
        made = 0
        started = time.perf_counter()
        while True:
            points, anchors = self.points(count)
            made += len(self.inverters[name].invert(points, anchors))
            seconds = time.perf_counter() - started
            if seconds >= LEAST_SECONDS:
                return Work({"vectors": float(made)}, seconds)

    def fit(self) -> tuple[dict[str, dict[str, Figure]], dict[str, NDArray[Any]]]:
        """How well each side finds held-out vectors from their places, and the arrays that this follows from.

        The anchor of a place is the real example nearest to it in the map, never one chosen by the vector itself.
        """
        from sklearn.neighbors import NearestNeighbors

        nearest = NearestNeighbors(n_neighbors=1).fit(self.coordinates)
        anchors = nearest.kneighbors(self.places)[1][:, 0].astype(np.int64)
        predicted = {name: inverter.invert(self.places, anchors) for name, inverter in self.inverters.items()}
        predicted.update({name: peer.held_out() for name, peer in self.peers.items()})
        predicted = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in predicted.items()}
        mean = self.train.mean(axis=0, dtype=np.float64)
        first = NATIVE if NATIVE in predicted else LOOP
        order = [first, *(name for name in predicted if name != first)]
        figures, _ = fidelity_figures(self.held_out, {name: predicted[name] for name in order}, mean, SEED)
        kept: dict[str, NDArray[Any]] = {
            "held_out": np.ascontiguousarray(self.held_out),
            "train_mean": mean,
            "held_out_coordinates": self.places,
            "held_out_anchors": anchors,
            "train_coordinates": np.ascontiguousarray(self.coordinates),
            **{f"predicted.{name}": values for name, values in predicted.items()},
        }
        return figures, kept


class Peer:
    """A peer that makes as many of the vectors that it is asked for as its time allows.

    Parameters
    ----------
    invert : callable
        Points of shape (m, 2) to vectors of shape (m, dim).
    places : array of shape (m, 2), float32
        Of the held-out vectors in its map.
    seconds : float
        Most time of a turn, as far as the probes can tell [s].
    least : int
        Vectors that it makes in any case.
    """

    def __init__(
        self, invert: Callable[[Floats], Any], places: Floats, seconds: float, least: int = LEAST_POINTS
    ) -> None:
        self._least = least
        self._invert = invert
        self._places = places
        self._seconds = seconds
        self.each = self.call = float("nan")

    def held_out(self) -> Floats:
        """The held-out vectors, and meanwhile the probes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._invert(self._places[:1])  # compiles
            took = []
            for count in PROBES:
                started = time.perf_counter()
                self._invert(self._places[:count])
                took.append(time.perf_counter() - started)
            self.each, self.call = line(took[0], took[1], PROBES[1])
            return np.asarray(self._invert(self._places), dtype=np.float32)

    def affordable(self, count: int) -> int:
        """How many of so many vectors it makes in its time, at least `least`."""
        return min(count, max(self._least, int((self._seconds - self.call) / self.each)))

    def work(self, points: Floats) -> Work:
        """Make the vectors of points, again and again until enough time has passed.

        Where its time allows only some, what a call costs by itself is taken out of their time, by a call for two
        points, and counted once: the seconds are those that all would take.
        """
        count = len(points)
        chosen = points[: self.affordable(count)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = time.perf_counter()
            if len(chosen) < count:
                self._invert(points[: PROBES[0]])
                short = time.perf_counter() - started
                self._invert(chosen)
                long = time.perf_counter() - started - short
                each, call = line(short, long, len(chosen))
                return Work({"vectors": float(count)}, call + each * count)
            made = 0
            while True:
                made += len(self._invert(chosen))
                seconds = time.perf_counter() - started
                if seconds >= LEAST_SECONDS:
                    return Work({"vectors": float(made)}, seconds)


def line(short: float, long: float, count: int) -> tuple[float, float]:
    """Seconds of a vector, and of a call by itself, from those of calls for ``PROBES[0]`` and for `count` vectors.

    Where the machine disturbed the short call so much that a vector would cost nothing, all time is the vectors'.
    """
    each = (long - short) / (count - PROBES[0])
    if each <= 0:
        return long / count, 0.0
    return each, max(short - PROBES[0] * each, 0.0)


# ---- the comparison -------------------------------------------------------------------------------------------------


def measure(
    session: Session, size: Size, title: str, sides: Sides, figures: Mapping[str, Mapping[str, Figure]]
) -> tuple[list[Line], list[Target]]:
    """All sides at every count in turns: lines and targets."""
    lines: list[Line] = []
    targets: list[Target] = []
    sides.peers_about = {
        name: {"seconds_per_call": peer.call, "seconds_per_vector": peer.each} for name, peer in sides.peers.items()
    }
    for count in size.counts:
        work = f"{title}: {count:,} new vectors"
        session.announce(work)
        points, _ = sides.points(count)
        contenders = [Contender(ours(name), partial(sides.ours, name, count)) for name in INVERTERS]
        contenders += [Contender(name, partial(peer.work, points)) for name, peer in sides.peers.items()]
        measured = alternate(
            contenders, repeats=size.repeats, budget=60.0 * size.repeats, warm_up=False, announce=session.announce
        )
        lines += _lines(work, count, sides, measured, figures)
        targets += rate_targets(work, measured, figures)
    return lines, targets


def ours(inverter: str) -> str:
    """What our side with an inverter is called."""
    return f"SAGE, {inverter}"


def spread(figure: Figure) -> Spread:
    """A figure with its interval in place of lowest and highest repeat."""
    return Spread.of(sorted((figure.low, figure.value, figure.high)))


def _lines(
    work: str,
    count: int,
    sides: Sides,
    measured: Mapping[str, Measured],
    figures: Mapping[str, Mapping[str, Figure]],
) -> Iterator[Line]:
    by_name = {**{ours(name): figures[name] for name in INVERTERS}, **figures}
    native = measured[NATIVE].rate("vectors") if NATIVE in measured else None
    for who, result in measured.items():
        rate = result.rate("vectors")
        note = ""
        if who in sides.peers:
            peer = sides.peers[who]
            made = peer.affordable(count)
            note = f"time for all from that for {made:,} of them" if made < count else ""
            if who == NATIVE:
                note = f"{note}; {peer.call:.2g} s a call and {peer.each:.2g} s a vector".lstrip("; ")
        yield Line(
            work=work,
            who=who,
            values={
                "vectors/s": rate,
                "held-out R²": spread(by_name[who]["r2"]),
                "centred cosine": spread(by_name[who]["centred_cosine"]),
            },
            ratios={} if native is None or who == NATIVE else {RATIO: rate.over(native)},
            is_ours=who not in sides.peers,
            note=note,
        )
    for who, reason in sides.missing.items():
        yield Line(work, who, note=reason)


def rate_targets(
    work: str, measured: Mapping[str, Measured], figures: Mapping[str, Mapping[str, Figure]]
) -> list[Target]:
    """The slowest of ours whose held-out R² is better, beside inverse_transform."""
    if NATIVE not in measured:
        return []
    native = measured[NATIVE].rate("vectors")
    better = [name for name in INVERTERS if figures[name]["r2"].value > figures[NATIVE]["r2"].value]
    ratios = {name: measured[ours(name)].rate("vectors").over(native) for name in better}
    if not ratios:
        return []
    slowest = min(ratios, key=lambda name: ratios[name].median)
    what = f"{work}: {ours(slowest)} (slowest of {', '.join(better)}) / inverse_transform"
    return [Target(what, ratios[slowest], RATE_GOAL, unit=" x")]


def fit_targets(title: str, figures: Mapping[str, Mapping[str, Figure]]) -> list[Target]:
    """Held-out R² of the best of ours beside that of inverse_transform."""
    if NATIVE not in figures:
        return []
    best = max(INVERTERS, key=lambda name: figures[name]["r2"].value)
    what = f"{title}: held-out R² of {ours(best)} above inverse_transform's {figures[NATIVE]['r2'].value:.3f}"
    return [Target(what, spread(figures[best]["r2"]), figures[NATIVE]["r2"].value)]
