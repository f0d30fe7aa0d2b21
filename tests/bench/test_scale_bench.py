"""The bench `scale`: generated vectors, memory, and rounds in a process of their own."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_bench import generated, scale, scale_worker
from sage_bench.generated import Covariance, open_store, write_vectors
from sage_bench.measure import Session, Work
from sage_bench.memory import PeakMemory, most_resident, resident
from sage_bench.scale import COST, RoundError, RoundProcess, Series

SETTINGS = {"reducer": "pca", "filter": "cosine", "landmarks": 100}


@pytest.fixture
def covariance() -> Covariance:
    mixing = np.random.default_rng(0).standard_normal((6, 6))
    return Covariance.of((np.random.default_rng(1).standard_normal((500, 6)) @ mixing + 3).astype(np.float32))


def test_drawn_vectors_have_the_mean_and_the_covariance() -> None:
    mixing = np.random.default_rng(0).standard_normal((6, 6))
    vectors = (np.random.default_rng(1).standard_normal((500, 6)) @ mixing + 3).astype(np.float32)
    drawn = Covariance.of(vectors).draw(200_000, np.random.default_rng(2))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(axis=0), vectors.mean(axis=0), atol=0.05)
    exact = np.cov(vectors.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), exact, atol=0.03 * np.abs(exact).max())


@pytest.mark.parametrize("tokens", [0, 5])
def test_a_written_store_is_whole(
    tmp_path: Path, covariance: Covariance, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "BLOCK_ROWS", 16)
    path = tmp_path / "vectors.safetensors"
    write_vectors(path, covariance, 50, tokens, seed=0)
    store = open_store(path)
    assert len(store) == 50
    assert isinstance(store.pooled, np.memmap)
    assert store.states.shape == (store.offsets[-1], 6)
    assert (store.lengths.mean() > 3) if tokens else (store.lengths == 1).all()
    means = [store.states[slice(*store.offsets[row : row + 2])].mean(axis=0) for row in range(50)]
    np.testing.assert_allclose(store.pooled, means, atol=1e-5)
    assert (np.ptp(store.pooled, axis=0) > 0).all()


def test_memory_of_its_own_is_seen_while_it_is_held() -> None:
    if not resident():
        pytest.skip("the system does not tell memory by kind")
    with PeakMemory(interval=0.001) as memory:
        held = np.ones(40_000_000)
        del held
    assert memory.peak - memory.before > 200_000_000
    assert most_resident() >= memory.peak * 0.9


def setup(tmp_path: Path, covariance: Covariance, **settings: Any) -> dict[str, Any]:
    path = tmp_path / "vectors.safetensors"
    write_vectors(path, covariance, 300, 0, seed=0)
    chosen = {**SETTINGS, "cache_dir": str(tmp_path / "cache"), **settings}
    return {"vectors": str(path), "settings": chosen, "count": 200, "batches": 2}


def test_the_worker_answers_with_costs_and_memory(
    tmp_path: Path, covariance: Covariance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_worker, "LEAST_SECONDS", 0.0)
    requests = [setup(tmp_path, covariance), "round", "round", "memory"]
    answers = StringIO()
    scale_worker.serve(StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers)
    fitted, first, second, memory = (json.loads(line) for line in answers.getvalue().splitlines())
    assert fitted["steps"]["reduce"] <= fitted["seconds"]
    for answer in (first, second):
        assert answer["created"] == 200
        assert 0 < answer["lifted"] <= 64
        assert answer["steps"]["invert"] > 0
        assert answer["steps"]["sample"] + answer["steps"]["invert"] <= answer["create_seconds"]
    assert memory["most_resident"] > 0


def test_a_failing_point_says_why(tmp_path: Path, covariance: Covariance) -> None:
    answers = StringIO()
    request = setup(tmp_path, covariance, sampler="nothing")
    scale_worker.serve(StringIO(json.dumps(request) + "\n"), answers)
    answer = json.loads(answers.getvalue())
    assert answer["event"] == "failed"
    assert "nothing" in answer["reason"]


def test_a_process_that_ends_is_an_error_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "WORKER", "sage_kit.no_worker")
    process = RoundProcess(tmp_path / "vectors.safetensors", {}, 10)
    try:
        with pytest.raises(RoundError, match=r"ended with 1: .*no_worker"):
            process.start()
    finally:
        process.end()


def test_a_round_that_fails_is_an_error_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """input(); print('{"event": "failed", "reason": "out of memory"}')"""
    (tmp_path / "worker_that_fails.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(scale, "WORKER", "worker_that_fails")
    process = RoundProcess(tmp_path / "vectors.safetensors", {}, 10)
    try:
        with pytest.raises(RoundError, match=r"^out of memory$"):
            process.start()
    finally:
        process.end()


def test_a_real_process_makes_a_round(tmp_path: Path, covariance: Covariance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LANDMARKS", 100)
    series = Series("small", (200,), repeats=1, budget=0.0)
    session = Session(quick=True, scratch=tmp_path, announce=lambda text: None)
    lines, targets, about = scale.run_series(session, series, covariance)
    (line,) = lines
    assert line.who == "200 examples"
    assert line.is_ours
    assert line.values[COST].median > 0
    assert line.ratios == {}
    assert [target.goal for target in targets] == [4.0]
    json.dumps(about)
    assert list(tmp_path.iterdir()) == []


class FakeProcess:
    """Rounds whose cost depends on their number of examples; those of 300 fail."""

    def __init__(self, vectors: Path, settings: dict[str, Any], count: int) -> None:
        self.count = count
        self.map = {"seconds": 1.0, "steps": {}}

    def start(self) -> None:
        if self.count == 300:
            raise RoundError("out of memory")

    def round(self) -> Work:
        steps = dict.fromkeys(("sample", "invert", "filter", "lift"), 1.0)
        return Work({"vectors": float(self.count)}, 1.0, {COST: self.count / 50, **steps})

    def memory(self) -> dict[str, Any]:
        return {"before": 0.5e9, "peak": self.count * 1e7, "most_resident": self.count * 2e7}

    def end(self) -> None:
        pass


def test_sizes_are_compared_with_the_smallest(
    tmp_path: Path, covariance: Covariance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "RoundProcess", FakeProcess)
    session = Session(quick=True, scratch=tmp_path, announce=lambda text: None)
    series = Series("fake", (100, 300, 500), repeats=2)
    lines, targets, about = scale.run_series(session, series, covariance)
    assert [line.who for line in lines] == ["100 examples", "500 examples", "300 examples"]
    assert lines[0].ratios == {}
    assert lines[1].ratios["cost / the smallest's"].values == (5.0, 5.0)
    assert lines[1].values["own memory, GB"].median == 5.0
    assert lines[2].note == "out of memory"
    assert [(target.measured.median, target.goal, target.is_met) for target in targets] == [
        (5.0, 1.5, False), (4.5, 4.0, False),
    ]  # fmt: skip
    assert set(about["points"]) == {"100 examples", "500 examples"}


def test_a_reducer_that_is_not_there_is_a_line(tmp_path: Path, covariance: Covariance) -> None:
    session = Session(quick=True, scratch=tmp_path, announce=lambda text: None)
    lines, targets, _ = scale.run_series(session, Series("none", (200,), {"reducer": "absent"}), covariance)
    assert "absent" in lines[0].note
    assert targets == []
