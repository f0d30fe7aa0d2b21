"""One pair: what it may look at, and whether its figures follow from the arrays that it saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist
from scorecardspies import write_plugin
from sklearn.decomposition import PCA
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsRegressor
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import BudgetError, CompatibilityError, PluginError
from sage_kit.recipe import resolve
from sage_kit.scorecard import Scorecard, TaskVectors, clock, load_vectors, measures, place_vectors, score_pair
from sage_kit.testing import toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scorecard")


@pytest.fixture(scope="module")
def plugins(folder: Path) -> Plugins:
    return Plugins([write_plugin(folder)], allow="")


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short timing is enough here."""
    monkeypatch.setattr(clock, "TIMED_SECONDS", 0.0)


@pytest.fixture(scope="module")
def settings(folder: Path, tiny_bert: Path) -> Any:
    def make(**overrides: Any) -> RunConfig:
        return toy_config(folder, tiny_bert, **{"inverter": "knn", "dev_fraction": 0.2, **overrides})

    return make


@pytest.fixture(scope="module")
def vectors(settings: Any, plugins: Plugins) -> TaskVectors:
    return load_vectors(settings(), plugins)


def seen(what: str) -> list[tuple[Any, ...]]:
    found = [item[1:] for item in sys.modules["sage_kit_plugin_spy"].SEEN if item[0] == what]
    return found


@pytest.fixture
def spied(plugins: Plugins) -> None:
    sys.modules["sage_kit_plugin_spy"].SEEN.clear()


# ---- vectors --------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_train_and_of_the_carved_part(settings, plugins, vectors) -> None:
    assert vectors.train.shape == (240, 32)
    assert vectors.held_out.shape == (60, 32)
    assert vectors.input_layers == "of the checkpoint as it is, not fine-tuned on the task"
    few = load_vectors(settings(), plugins, points=20)
    assert few.held_out_rows.tolist() == sorted(set(few.held_out_rows.tolist()))
    np.testing.assert_array_equal(few.held_out, vectors.held_out[few.held_out_rows])
    assert few.key != vectors.key


def test_vectors_equal_those_of_a_run(settings, plugins, vectors) -> None:
    from sage_kit.components.records import Costs
    from sage_kit.system.devices import make_accelerator
    from sage_kit.training.preparation import prepare

    config = settings(teacher_epochs=1)
    prepared = prepare(resolve(config, plugins), make_accelerator(config), Costs())
    tuned = load_vectors(config, plugins, fine_tune=True)
    assert tuned.input_layers == "of the teacher fine-tuned on the task"
    # a run pools token states, and here nothing but the pooled vectors is kept
    np.testing.assert_allclose(tuned.train, prepared.train.store.pooled, rtol=1e-6)
    np.testing.assert_allclose(tuned.held_out, prepared.dev.store.pooled, rtol=1e-6)
    assert not np.array_equal(tuned.train, vectors.train)


def test_a_trained_head_is_told_and_needs_no_fine_tuning(plugins) -> None:
    config = toy.config()
    plain, tuned = (load_vectors(config, plugins, fine_tune=choice) for choice in (False, True))
    assert plain.input_layers == tuned.input_layers == "of the checkpoint, whose head is trained"
    np.testing.assert_array_equal(plain.train, tuned.train)


def test_vectors_are_saved_once_and_read_back(vectors, tmp_path: Path) -> None:
    path = vectors.save(tmp_path)
    before = (path / "vectors.json").stat().st_mtime_ns
    assert vectors.save(tmp_path) == path
    assert (path / "vectors.json").stat().st_mtime_ns == before
    again = TaskVectors.load(path)
    assert again.about() == vectors.about()
    for name in ("train", "held_out", "held_out_rows"):
        np.testing.assert_array_equal(getattr(again, name), getattr(vectors, name))


# ---- what a pair may look at ----------------------------------------------------------------------------------------


def test_nothing_is_fitted_on_held_out_vectors(settings, plugins, vectors, spied) -> None:
    score_pair(settings(reducer="placing", inverter="spy"), plugins, vectors)
    for what in ("reducer", "inverter"):
        ((fitted,),) = seen(what)
        np.testing.assert_array_equal(fitted, vectors.train)
    # the held-out vectors are placed once; the second call is the round trip
    placed, _ = seen("transform")
    np.testing.assert_array_equal(placed[0], vectors.held_out)


def test_anchors_of_held_out_points_are_the_nearest_in_the_map(settings, plugins, vectors, spied) -> None:
    score_pair(settings(reducer="placing", inverter="spy"), plugins, vectors)
    coordinates, anchors = seen("invert")[0]
    np.testing.assert_array_equal(coordinates, vectors.held_out[:, :2])
    expected = cdist(vectors.held_out[:, :2].astype(float), vectors.train[:, :2].astype(float)).argmin(axis=1)
    assert anchors.tolist() == expected.tolist()


def test_without_transform_held_out_vectors_lie_among_their_neighbours(settings, plugins, vectors, spied) -> None:
    card = score_pair(settings(reducer="rigid"), plugins, vectors)
    assert "average" in card.placed_by
    assert card.round_trip is None
    assert "round_trip_coordinates" not in card.arrays
    neighbours = KNeighborsRegressor(10, weights="distance").fit(vectors.train, vectors.train[:, :2])
    np.testing.assert_allclose(card.arrays["held_out_coordinates"], neighbours.predict(vectors.held_out), rtol=1e-4)
    assert not np.allclose(card.arrays["held_out_coordinates"], vectors.held_out[:, :2])


def test_how_a_run_samples_does_not_matter(settings, plugins, vectors) -> None:
    plain = score_pair(settings(), plugins, vectors)
    other = settings(schedule="none", sampler="gaussian", sampler_options={}, filter="cosine")
    assert score_pair(other, plugins, vectors).fidelity == plain.fidelity
    own = score_pair(settings(sampler="random", sampler_options={"k": 3, "jitter": 0.0}), plugins, vectors)
    assert not np.array_equal(own.arrays["synthetic_coordinates"], plain.arrays["synthetic_coordinates"])


# ---- the figures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["knn", "anchored"])
def saved(request: Any, settings: Any, plugins: Plugins, vectors: TaskVectors, folder: Path) -> Path:
    card = score_pair(settings(inverter=request.param), plugins, vectors)
    return card.save(folder / "out")


def test_every_figure_follows_from_the_saved_arrays(saved: Path) -> None:
    figures = json.loads((saved / "scorecard.json").read_text())
    arrays = load_file(saved / "arrays.safetensors")
    store = load_file(saved / figures["vectors"] / "vectors.safetensors")
    doubles = {name: values.astype(np.float64) for name, values in {**store, **arrays}.items()}
    train, x, mean = doubles["train"], doubles["held_out"], doubles["train"].mean(axis=0)
    np.testing.assert_array_equal(arrays["held_out"], store["held_out"])
    np.testing.assert_allclose(doubles["train_mean"], mean, rtol=1e-5)

    # baselines
    away = cdist(x, train)
    assert arrays["nearest_rows"].tolist() == away.argmin(axis=1).tolist()
    for name in ("nearest", "random"):
        np.testing.assert_array_equal(arrays[name], store["train"][arrays[f"{name}_rows"]])
    predictors = {**{name: doubles[name] for name in ("inverter", "nearest", "random")}, "mean": np.tile(mean, (60, 1))}
    total = np.square(x - mean).sum()
    scores = {}
    for name, r in predictors.items():
        centred = np.diag(cosine_similarity(x - mean, r - mean)).mean() if name != "mean" else 0.0
        scores[name] = {
            "cosine": np.diag(cosine_similarity(x, r)).mean(),
            "centred_cosine": centred,
            "mse": mean_squared_error(x, r),
            "r2": 1 - np.square(x - r).sum() / total,
        }
        for metric, value in scores[name].items():
            figure = figures["fidelity"][name][metric]
            assert figure["value"] == pytest.approx(value, rel=1e-5, abs=1e-6)
            assert figure["low"] <= figure["value"] <= figure["high"]
            if name != "inverter":
                ahead = scores["inverter"][metric] - value
                assert figures["differences"][name][metric]["value"] == pytest.approx(ahead, rel=1e-4, abs=1e-5)
    assert figures["published"]["cosine"] == figures["published"]["mse"] == 0.34

    # synthetic vectors
    synthetic, real_rows = doubles["synthetic"], arrays["real_rows"]
    distances = cdist(synthetic, train)
    assert arrays["synthetic_nearest_rows"].tolist() == distances.argmin(axis=1).tolist()
    others = cdist(train[real_rows], train)
    others[np.arange(len(real_rows)), real_rows] = np.inf
    novelty = figures["novelty"]
    assert novelty["real_mean"] == pytest.approx(others.min(axis=1).mean(), rel=1e-6)
    assert novelty["median"] == pytest.approx(np.median(distances.min(axis=1)), rel=1e-6)
    assert novelty["median_ratio"] == pytest.approx(novelty["median"] / novelty["real_mean"])
    assert novelty["identical"] == (distances.min(axis=1) <= 1e-5 * np.linalg.norm(synthetic, axis=1)).mean()
    assert figures["intrinsic_dimension"]["synthetic"] == pytest.approx(measures.intrinsic_dimension(synthetic))
    assert figures["intrinsic_dimension"]["real"] == pytest.approx(measures.intrinsic_dimension(train[real_rows]))
    assert figures["norms"]["inverter"] == pytest.approx(np.linalg.norm(doubles["inverter"], axis=1).mean())

    # the map
    places = doubles["train_coordinates"]
    hull = Delaunay(places)
    for name, points in (("held_out", "held_out_coordinates"), ("synthetic", "synthetic_coordinates")):
        outside = (hull.find_simplex(doubles[points]) < 0).mean()
        assert figures["outside_hull"][name] == pytest.approx(outside, abs=0.01)
    trips = np.linalg.norm(doubles["round_trip_coordinates"] - doubles["held_out_coordinates"], axis=1)
    deviation = np.sqrt(np.square(places - places.mean(axis=0)).sum(axis=1).mean())
    assert figures["round_trip"]["value"] == pytest.approx(trips.mean() / deviation, rel=1e-5)


def test_a_scorecard_records_where_it_comes_from(saved: Path) -> None:
    figures = json.loads((saved / "scorecard.json").read_text())
    assert saved.name == f"file-pca-2-{figures['inverter']}"
    assert figures["settings"]["reducer"] == "pca"
    assert figures["environment"]["components"]["reducer"].startswith("pca (sage-kit")
    assert figures["examples"] == {"train": 240, "held_out": 60, "synthetic": 240, "real": 240}
    assert figures["speed"]["vectors_per_second"] > 0
    assert not [path.name for path in saved.parent.iterdir() if path.name.startswith(".")]


def test_pca_with_its_own_inverse_equals_scikit_learn(settings, plugins, vectors) -> None:
    card = score_pair(settings(inverter="native", n_components=3), plugins, vectors)
    pca = PCA(3, svd_solver="full").fit(vectors.train.astype(float))
    expected = pca.inverse_transform(pca.transform(vectors.held_out.astype(float)))
    np.testing.assert_allclose(card.arrays["inverter"], expected, atol=1e-4)
    assert card.round_trip is not None
    assert card.round_trip.value < 1e-4


def test_the_same_settings_give_the_same_card(settings, plugins, vectors) -> None:
    first, second = (score_pair(settings(), plugins, vectors) for _ in range(2))
    assert first.fidelity == second.fidelity
    assert first.novelty == second.novelty
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, second.arrays[name])


def test_a_placement_is_used_again(settings, plugins, vectors, spied) -> None:
    config = settings(reducer="placing", inverter="spy", reducer_seed=5)
    placement = place_vectors(config, plugins, vectors)
    sys.modules["sage_kit_plugin_spy"].SEEN.clear()
    card = score_pair(config, plugins, vectors, placement)
    assert not seen("reducer")
    assert isinstance(card, Scorecard)


def test_an_inverter_that_says_the_mean_is_worth_the_mean(settings, plugins, vectors) -> None:
    card = score_pair(settings(inverter="spy"), plugins, vectors)
    assert card.fidelity["inverter"]["r2"].value == pytest.approx(0, abs=1e-5)
    assert np.isnan(card.intrinsic_dimension["synthetic"])
    assert json.loads((card.save(settings().runs_dir) / "scorecard.json").read_text())["intrinsic_dimension"][
        "synthetic"
    ] is None  # fmt: skip


# ---- what can go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inverter", "message"),
    [("fails", "no way back"), ("narrow", r"shape \(60, 1\) instead of \(60, 32\)"), ("notanumber", "NaN or infinity")],
)
def test_a_bad_inverter_is_named(settings, plugins, vectors, inverter: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"inverter '{inverter}' .*{message}"):
        score_pair(settings(inverter=inverter), plugins, vectors)


def test_a_pair_that_does_not_go_together_is_refused_before_anything_is_loaded(settings, plugins) -> None:
    config = settings(reducer="rigid", inverter="native").model_copy(update={"teacher": "does-not-exist"})
    with pytest.raises(CompatibilityError, match="inverter 'native' calls the reducer's inverse"):
        score_pair(config, plugins)


def test_more_components_than_dimensions_are_refused(settings, plugins, vectors) -> None:
    with pytest.raises(CompatibilityError, match="32 dimensions"):
        score_pair(settings(n_components=33), plugins, vectors)


def test_the_time_budget_of_the_own_inverse_holds(settings, plugins, vectors) -> None:
    options = {"budget_seconds": 1e-9, "chunk": 1}
    with pytest.raises(BudgetError):
        score_pair(settings(inverter="native", inverter_options=options), plugins, vectors)
