from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sage_kit.errors import DataError, StudyError
from sage_kit.rundir import RunDirectory
from sage_kit.studies.analyses.neighborhoods import neighbors_kept, relative_moves, synthesis_table
from sage_kit.synthesis.synthetic_set import SyntheticSet

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((40, 6)).astype(np.float32)


def brute_force_kept(coordinates, vectors, k):
    found = []
    for points in (coordinates, vectors):
        distances = cdist(points, points)
        np.fill_diagonal(distances, np.inf)
        found.append(np.argsort(distances, axis=1)[:, :k])
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*found, strict=True)])


def test_neighbors_kept_is_the_shared_part_of_the_nearest_others():
    map_ = VECTORS[:, :2].copy()
    expected = brute_force_kept(map_, VECTORS, 7)
    assert 0.2 < expected < 0.9
    assert neighbors_kept(map_, VECTORS, k=7) == pytest.approx(expected)
    assert neighbors_kept(VECTORS, VECTORS) == 1
    assert neighbors_kept(map_, VECTORS, k=1000) == 1  # all others are neighbours
    assert neighbors_kept(map_, VECTORS, k=7, sample=10) != pytest.approx(expected)


def test_a_map_that_knows_nothing_keeps_what_chance_does():
    points = RNG.standard_normal((2000, 4)).astype(np.float32)
    nothing = RNG.standard_normal((2000, 2)).astype(np.float32)
    assert neighbors_kept(nothing, points, k=200, sample=200) == pytest.approx(200 / 1999, abs=0.02)


def test_a_map_of_other_examples_is_refused():
    with pytest.raises(DataError, match="a map of 39 examples and 40 vectors"):
        neighbors_kept(VECTORS[1:, :2], VECTORS)


def a_run(path, anchors, vectors, **changes):
    (path / "config.toml").write_text("")
    directory = RunDirectory(path)
    if anchors is not None:
        SyntheticSet(2, np.asarray(anchors), np.asarray(vectors, np.float32)).save(directory.synthetic(2))
    fields = {"task": "t", "arm": "a", "seed": 0, "directory": directory, "summary": {"rounds": [{"synthetic": 3}]}}
    place = {name: fields[name] for name in ("task", "arm", "seed")}
    return SimpleNamespace(**{**fields, "place": place, **changes})


def test_moves_in_units_of_the_anchors_neighbourhood(tmp_path):
    anchors = np.array([0, 0, 5])
    moved = VECTORS[anchors] + np.array([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]], np.float32)
    distances = np.sort(cdist(VECTORS, VECTORS), axis=1)[:, 1:5].mean(axis=1)
    run = a_run(tmp_path, anchors, moved)
    expected = [1 / distances[0], 0, 2 / distances[5]]
    np.testing.assert_allclose(relative_moves(run, VECTORS, k=4), expected, atol=1e-6)
    table = synthesis_table([run, SimpleNamespace(summary={"rounds": [{"synthetic": 0}]})], {"t": VECTORS})
    (row,) = table.to_dict("records")
    assert (row["task"], row["arm"], row["seed"], row["anchors"]) == ("t", "a", 0, 2)
    assert np.isnan(row["neighbors_kept"])  # no map
    assert row["moved"] == pytest.approx(np.median(relative_moves(run, VECTORS)))


def test_duplicates_have_no_unit(tmp_path):
    same = np.repeat(VECTORS[:1], 20, axis=0)
    run = a_run(tmp_path, [0], same[:1] + 1)
    assert np.isnan(relative_moves(run, same)).all()


def test_a_run_that_kept_nothing_is_named(tmp_path):
    with pytest.raises(StudyError, match="keep="):
        synthesis_table([a_run(tmp_path, None, None)], {"t": VECTORS})
