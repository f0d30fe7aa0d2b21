"""The bench `synthesis`: peers within their time, fit from the kept arrays, and what is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_bench import synthesis
from sage_bench.measure import Session
from sage_bench.scale import COST
from sage_bench.synthesis import INVERTERS, LINEAR, LOOP, NATIVE, Peer, Sides, Size
from sage_kit.components.plugins import Plugins
from sage_kit.errors import MissingPackageError

SMALL = Size(0, 20, (6,), (50, 400), 1, 0.05, {"epochs": 2})


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(quick=True, scratch=tmp_path, announce=lambda text: None)


@pytest.fixture
def vectors() -> Any:
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((5, 6))
    return (centres[rng.integers(5, size=320)] + rng.standard_normal((320, 6))).astype(np.float32)


@pytest.fixture
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map by PCA, which is quick."""
    options = Plugins.options

    def refuse(self: Plugins, kind: str, name: str, values: Any) -> Any:
        if name == "umap":
            raise MissingPackageError("umap-learn is not installed")
        return options(self, kind, name, values)

    monkeypatch.setattr(Plugins, "options", refuse)


def test_a_peer_makes_what_its_time_allows() -> None:
    peer = Peer(lambda points: np.zeros((len(points), 3)), np.zeros((20, 2), np.float32), seconds=2.0, least=48)
    peer.each, peer.call = 0.01, 0.5
    assert peer.affordable(10_000) == 150
    assert peer.affordable(100) == 100
    peer.each = 100.0
    assert peer.affordable(10_000) == 48


def test_a_peer_is_timed_by_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def invert(points: Any) -> Any:
        asked.append(len(points))
        return np.zeros((len(points), 3))

    monkeypatch.setattr(synthesis, "LEAST_SECONDS", 0.0)
    peer = Peer(invert, np.zeros((20, 2), np.float32), seconds=1.0)
    assert peer.held_out().shape == (20, 3)
    assert asked == [1, *synthesis.PROBES, 20]
    peer.each, peer.call = 0.1, 0.0
    work = peer.work(np.zeros((30, 2), np.float32))
    assert (work.amounts["vectors"], asked[-1]) == (30, 30)
    work = peer.work(np.zeros((1000, 2), np.float32))
    assert asked[-2:] == [synthesis.PROBES[0], synthesis.LEAST_POINTS]
    assert work.amounts["vectors"] == 1000


def test_what_a_call_costs_counts_once() -> None:
    each, call = synthesis.line(short=3.2, long=8.0, count=50)
    assert (each, call) == (pytest.approx(0.1), pytest.approx(3.0))
    assert synthesis.line(short=9.0, long=8.0, count=50) == (0.16, 0.0)


@pytest.mark.usefixtures("without_umap")
def test_fit_follows_from_the_kept_arrays(session: Session, vectors: Any) -> None:
    sides = Sides(session, SMALL, vectors[:300], vectors[300:])
    assert sides.reducer == "pca"
    assert NATIVE in sides.missing
    figures, kept = sides.fit()
    assert set(figures) == {*INVERTERS, LOOP, LINEAR}
    x, mean = kept["held_out"].astype(np.float64), kept["train_mean"]
    np.testing.assert_allclose(mean, vectors[:300].astype(np.float64).mean(axis=0))
    for name, by_metric in figures.items():
        r = kept[f"predicted.{name}"].astype(np.float64)
        r2 = 1 - np.square(x - r).sum() / np.square(x - mean).sum()
        assert by_metric["r2"].value == pytest.approx(r2)
        a, b = x - mean, r - mean
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert by_metric["centred_cosine"].value == pytest.approx(cosine.mean())
    assert figures["knn"]["r2"].value > 0.5
    # the loop is plain inverse distance over as many neighbours as knn: much alike
    assert figures[LOOP]["r2"].value == pytest.approx(figures["knn"]["r2"].value, abs=0.2)


@pytest.mark.usefixtures("without_umap")
def test_the_bench_compares_all_sides(session: Session, vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "QUICK", SMALL)
    monkeypatch.setattr(synthesis, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(synthesis, "vectors_of", lambda *args: ("clusters", vectors[:300], vectors[300:]))
    result = synthesis.run(session)
    assert {line.work for line in result.lines} == {
        f"clusters, 6-D, 300 vectors, pca 2-D: {count} new vectors" for count in (50, 400)
    }
    first = [line for line in result.lines if "50 new" in line.work]
    assert [line.who for line in first if line.is_ours] == [f"SAGE, {name}" for name in INVERTERS]
    assert "not installed" in next(line.note for line in first if line.who == NATIVE)
    assert all(line.values["vectors/s"].median > 0 for line in first if line.values)
    assert result.targets == []
    assert result.arrays["6.predicted.knn"].shape == (20, 6)
    assert COST not in first[0].values


def test_targets_are_for_the_slowest_with_a_better_fit() -> None:
    from sage_bench.measure import Measured, Work
    from sage_kit.scorecard.measures import Figure

    def r2(value: float) -> dict[str, Figure]:
        return {"r2": Figure(value, value - 0.1, value + 0.1)}

    figures = {"knn": r2(0.2), "local_affine": r2(0.3), "decoder": r2(0.25), "anchored": r2(-0.3), NATIVE: r2(-0.1)}
    rates = {"knn": 5000.0, "local_affine": 2000.0, "decoder": 9000.0, "anchored": 1.0}
    measured = {synthesis.ours(name): Measured(name, (Work({"vectors": rate}, 1.0),)) for name, rate in rates.items()}
    measured[NATIVE] = Measured(NATIVE, (Work({"vectors": 4.0}, 2.0),))
    (target,) = synthesis.rate_targets("work", measured, figures)
    assert "local_affine (slowest" in target.what
    assert target.measured.median == 1000
    assert target.is_met
    (fit,) = synthesis.fit_targets("map", figures)
    assert fit.measured.values == (pytest.approx(0.2), pytest.approx(0.3), pytest.approx(0.4))
    assert fit.goal == -0.1
