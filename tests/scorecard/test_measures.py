"""The figures, each against scikit-learn or a plain computation in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from sage_kit.scorecard import measures


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((25, 6)) + 2).astype(np.float32)
    r = (x + 0.5 * rng.standard_normal(x.shape)).astype(np.float32)
    return x, r, (x.mean(axis=0) + 0.1).astype(np.float32)


def reference(x: np.ndarray, r: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    x, r, mean = x.astype(float), r.astype(float), mean.astype(float)
    error = mean_squared_error(x, r)
    return {
        "cosine": np.diag(cosine_similarity(x, r)).mean(),
        "centred_cosine": np.diag(cosine_similarity(x - mean, r - mean)).mean(),
        "mse": error,
        "r2": 1 - error / mean_squared_error(x, np.repeat(mean[None], len(x), axis=0)),
    }


def test_fidelity_equals_scikit_learn(data) -> None:
    assert measures.fidelity(*data) == pytest.approx(reference(*data), rel=1e-12)


def test_fidelity_of_the_mean_and_of_the_truth(data) -> None:
    x, _, mean = data
    at_mean = measures.fidelity(x, np.repeat(mean[None], len(x), axis=0), mean)
    assert (at_mean["centred_cosine"], at_mean["r2"]) == (0, 0)
    perfect = measures.fidelity(x, x, mean)
    assert perfect == pytest.approx({"cosine": 1, "centred_cosine": 1, "mse": 0, "r2": 1})


def test_a_zero_vector_has_cosine_zero() -> None:
    assert measures.cosines(np.array([[0.0, 0], [1, 0]]), np.array([[1.0, 0], [2, 0]])).tolist() == [0, 1]


def test_r2_without_spread_is_nan() -> None:
    x = np.ones((4, 3))
    assert np.isnan(measures.fidelity(x, 2 * x, np.ones(3))["r2"])


def test_intervals_equal_a_plain_bootstrap(data, monkeypatch) -> None:
    monkeypatch.setattr(measures, "DRAWS", 200)
    x, r, mean = data
    other = r[::-1].copy()
    figures, differences = measures.fidelity_figures(x, {"mine": r, "other": other}, mean, seed=3)
    counts = np.random.default_rng(3).multinomial(len(x), np.full(len(x), 1 / len(x)), size=200)
    samples = [np.repeat(np.arange(len(x)), row) for row in counts]
    mine = [reference(x[rows], r[rows], mean) for rows in samples]
    others = [reference(x[rows], other[rows], mean) for rows in samples]
    for metric in measures.METRICS:
        figure = figures["mine"][metric]
        assert figure.value == pytest.approx(reference(x, r, mean)[metric], rel=1e-12)
        assert [figure.low, figure.high] == pytest.approx(np.quantile([m[metric] for m in mine], [0.025, 0.975]))
        difference = differences["other"][metric]
        apart = [m[metric] - o[metric] for m, o in zip(mine, others, strict=True)]
        assert [difference.low, difference.high] == pytest.approx(np.quantile(apart, [0.025, 0.975]))
    assert list(differences) == ["other"]


def test_a_predictor_is_never_ahead_of_itself(data) -> None:
    x, r, mean = data
    _, differences = measures.fidelity_figures(x, {"a": r, "b": r.copy()}, mean, seed=0)
    assert all((f.value, f.low, f.high) == (0, 0, 0) for f in differences["b"].values())


def test_the_interval_of_a_mean_covers_as_promised() -> None:
    rng = np.random.default_rng(1)
    figures = [measures.mean_figure(rng.standard_normal(60), seed) for seed in range(60)]
    assert 50 <= sum(figure.low <= 0 <= figure.high for figure in figures) <= 59


@pytest.mark.parametrize("block", [50, 2**24])
def test_nearest_equals_scikit_learn(monkeypatch, block: int) -> None:
    monkeypatch.setattr(measures, "BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    points, queries = rng.standard_normal((60, 5)) + 100, rng.standard_normal((9, 5)) + 100
    distances, indices = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points).kneighbors(queries)
    found, lengths = measures.nearest(queries.astype(np.float32), points.astype(np.float32))
    assert found.tolist() == indices[:, 0].tolist()
    assert lengths == pytest.approx(distances[:, 0], rel=1e-4)


@pytest.mark.parametrize("block", [50, 2**24])
def test_nearest_leaves_out_the_row_itself_but_not_its_double(monkeypatch, block: int) -> None:
    monkeypatch.setattr(measures, "BLOCK_VALUES", block)
    points = np.random.default_rng(0).standard_normal((40, 5))
    points[30] = points[7]
    own = np.array([7, 30, 3])
    found, lengths = measures.nearest(points[own], points, own=own)
    assert found[:2].tolist() == [30, 7]
    assert lengths[:2].tolist() == [0, 0]
    away = cdist(points[3:4], points)[0]
    away[3] = np.inf
    assert (found[2], lengths[2]) == (away.argmin(), pytest.approx(away.min()))


def test_novelty() -> None:
    vectors = np.array([[3.0, 4], [0, 10], [10, 0], [5, 0], [0, 5]])
    result = measures.novelty(vectors, np.array([0, 1.0, 2, 3, 4]), np.array([1.0, 3]))
    assert result["median"] == 2
    assert (result["low"], result["high"]) == pytest.approx((0.4, 3.6))
    assert result["real_mean"] == 2
    assert (result["low_ratio"], result["median_ratio"], result["high_ratio"]) == pytest.approx((0.2, 1, 1.8))
    assert result["identical"] == 0.2
    # one that differs from a real vector by the rounding of single precision is that vector
    assert measures.novelty(vectors, np.array([1e-6, 1, 1, 1, 1]), np.ones(1))["identical"] == 0.2


def plain_two_nn(points: np.ndarray) -> float:
    """As the authors describe it, by a least-squares fit through the origin."""
    distances = np.sort(cdist(points, points), axis=1)
    ratios = np.sort(distances[:, 2] / distances[:, 1])
    shares = np.arange(1, len(ratios) + 1) / len(ratios)
    kept = slice(0, int(0.9 * len(ratios)))
    logs = np.log(ratios[kept])[:, None]
    return float(np.linalg.lstsq(logs, -np.log(1 - shares[kept]), rcond=None)[0][0])


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_a_known_manifold(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    flat = rng.uniform(size=(1500, dimension))
    # bent along a circle, and turned into thirty dimensions
    bent = np.concatenate([np.cos(2 * flat[:, :1]), np.sin(2 * flat[:, :1]), flat[:, 1:]], axis=1)
    points = bent @ np.linalg.qr(rng.standard_normal((30, 30)))[0][: bent.shape[1]] + 0.5
    estimate = measures.intrinsic_dimension(points)
    assert estimate == pytest.approx(plain_two_nn(points), rel=1e-6)
    assert estimate == pytest.approx(dimension, rel=0.12)
    assert measures.intrinsic_dimension(points.astype(np.float32)) == pytest.approx(estimate, rel=0.02)


def test_intrinsic_dimension_counts_doubles_once(monkeypatch) -> None:
    points = np.random.default_rng(0).standard_normal((200, 3))
    once = measures.intrinsic_dimension(points)
    assert measures.intrinsic_dimension(np.concatenate([points, points[:150]])) == pytest.approx(once)
    monkeypatch.setattr(measures, "BLOCK_VALUES", 1000)
    assert measures.intrinsic_dimension(points) == pytest.approx(once)


@pytest.mark.parametrize("points", [np.zeros((9, 3)), np.array([[0.0], [1.0]]), np.zeros((0, 2))])
def test_intrinsic_dimension_of_too_few_places_is_nan(points: np.ndarray) -> None:
    assert np.isnan(measures.intrinsic_dimension(points))


def test_round_trip_is_in_standard_deviations_of_the_map() -> None:
    places = np.array([[3.0, 0], [-3, 0], [0, 4], [0, -4]])
    deviation = np.sqrt(np.square(places).sum(axis=1).mean())
    moved = measures.round_trip(places[:2], places[:2] + np.array([0, 2.0]), places)
    assert moved == pytest.approx([2 / deviation, 2 / deviation])
    to_the_centre = measures.round_trip(places, np.zeros_like(places), places)
    assert np.square(to_the_centre).mean() == pytest.approx(1)
    assert np.isnan(measures.round_trip(places, places, np.zeros((3, 2)))).all()
