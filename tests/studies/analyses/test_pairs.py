from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sage_kit.errors import StudyError, UnknownComponentError
from sage_kit.scorecard.measures import fidelity
from sage_kit.studies.analyses.pairs import (
    Pair,
    Scores,
    baselines_table,
    best_pair,
    differences,
    fidelity_and_score,
    fidelity_table,
    metric_cells,
    score_pairs,
)
from sage_kit.studies.study import Study

METRICS = ("r2", "cosine", "centred_cosine", "mse")


def card(seed, noise, rows=60):
    """What a scorecard holds, of reconstructions with so much noise."""
    rng = np.random.default_rng(seed)
    held_out = rng.standard_normal((rows, 5)).astype(np.float32)
    made = (held_out + noise * rng.standard_normal(held_out.shape)).astype(np.float32)
    arrays = {"held_out": held_out, "inverter": made, "train_mean": np.full(5, 0.1, np.float32)}
    return SimpleNamespace(arrays=arrays, speed={"vectors_per_second": 10.0 * (1 + seed)})


GOOD, FAIR, POOR = Pair("pca", "knn", 2), Pair("umap", "knn", 2), Pair("umap", "anchored", 2)
NONE = Pair("tsne", "native", 2, "it has no inverse")


@pytest.fixture
def scores():
    # the same held-out vectors for all pairs of a task
    cards = {
        (task, pair.name): card(seed, noise)
        for task, seed in (("a", 0), ("b", 1))
        for pair, noise in ((GOOD, 0.3), (FAIR, 0.6), (POOR, 1.5))
    }
    return Scores((GOOD, FAIR, POOR, NONE), cards)


@pytest.mark.parametrize("metric", METRICS)
def test_the_metrics_are_those_of_a_scorecard(scores, metric):
    arrays = scores.cards["a", GOOD.name].arrays
    expected = fidelity(arrays["held_out"], arrays["inverter"], arrays["train_mean"])[metric]
    found = metric_cells(scores.errors["a", GOOD.name], metric, "a")
    assert found.shape == (60,)
    assert found.mean() == pytest.approx(expected)


def test_the_spread_of_a_ratio_is_that_of_a_bootstrap():
    error = np.random.default_rng(0).exponential(size=500)
    errors = {"error": error, "spread": 2 + error * np.random.default_rng(1).random(500)}
    rows = np.random.default_rng(2).integers(0, 500, (2000, 500))
    resampled = 1 - errors["error"][rows].mean(axis=1) / errors["spread"][rows].mean(axis=1)
    assert stats.sem(metric_cells(errors, "r2", "a")) == pytest.approx(resampled.std(), rel=0.06)


def test_halves_are_disjoint_and_make_the_whole(scores):
    errors = scores.errors["a", FAIR.name]
    first, second = (metric_cells(errors, "mse", "a", half) for half in ("first", "second"))
    assert first.mean() != second.mean()
    assert sorted([*first, *second]) == pytest.approx(sorted(metric_cells(errors, "mse", "a")))


def test_the_table_has_an_average_over_tasks_and_the_reason(scores):
    table = fidelity_table(scores, ["a", "b"])
    assert table["task"].tolist() == ["a"] * 4 + ["b"] * 4 + ["average"] * 4
    assert table["pair"].tolist()[:4] == [GOOD.name, FAIR.name, POOR.name, NONE.name]
    rows = table.set_index(["task", "pair"])
    for metric in METRICS:
        both = [rows.loc[(task, GOOD.name), metric] for task in ("a", "b")]
        assert rows.loc[("average", GOOD.name), metric] == pytest.approx(np.mean(both))
        low, high = (rows.loc[("average", GOOD.name), f"{metric}_{end}"] for end in ("low", "high"))
        assert low < np.mean(both) < high
    assert rows.loc[("average", GOOD.name), "vectors_per_second"] == 15
    assert set(table["n_seeds"]) == {1}  # so that no finding rests on more
    assert rows.loc[("a", NONE.name), "reason"] == "it has no inverse"
    assert np.isnan(rows.loc[("a", NONE.name), "r2"])
    assert fidelity_table(scores, ["a"])["task"].unique().tolist() == ["a"]


def test_differences_are_paired(scores):
    table = differences(scores, [(GOOD, FAIR), (GOOD, GOOD)], ["a", "b"])
    row = table.iloc[0]
    assert row["difference"] == pytest.approx(row["mean"] - row["baseline_mean"])
    assert row["low"] < row["difference"] < row["high"]
    own = fidelity_table(scores, ["a", "b"]).set_index(["task", "pair"]).loc[("average", FAIR.name)]
    # both meet the same examples, so the difference is surer than the worse of the two
    assert row["high"] - row["low"] < own["r2_high"] - own["r2_low"]
    # a pair against itself: bounded by what the examples cannot show
    same = table.iloc[1]
    assert same["difference"] == 0
    assert same["high"] == -same["low"] > 0
    assert table["n_seeds"].tolist() == [1, 1]
    assert differences(scores, [], ["a"]).columns.tolist()[:2] == ["pair", "baseline"]


def test_the_best_pair(scores):
    assert best_pair(scores, scores.scored, ["a", "b"]) == GOOD
    assert best_pair(scores, [POOR, FAIR], ["a", "b"], half="first") == FAIR
    with pytest.raises(StudyError, match="no pair with figures"):
        best_pair(scores, [], ["a"])
    with pytest.raises(StudyError, match="there is no metric 'r3'"):
        best_pair(scores, [GOOD], ["a"], metric="r3")


def test_fidelity_and_score_within_an_inverter():
    rng = np.random.default_rng(0)
    # among all pairs the inverter decides; within one, more fidelity is worse
    r2 = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.73, 0.86, 0.99])
    inverter = np.repeat(["knn", "anchored"], 4)
    score = np.where(inverter == "knn", 0.0, 1.0) - 0.1 * r2
    table = pd.DataFrame({"inverter": inverter, "r2": r2, "difference": score})
    for name in ("cosine", "centred_cosine", "mse"):
        table[name] = rng.standard_normal(8)
    found = fidelity_and_score(table).set_index(["among", "measure"])
    assert found.loc[("all pairs", "r2"), "correlation"] == pytest.approx(stats.spearmanr(r2, score).statistic)
    assert found.loc[("all pairs", "r2"), "correlation"] > 0.4
    assert found.loc[("same inverter", "r2"), "correlation"] == pytest.approx(-1)
    assert (found["pairs"] == 8).all()
    one = fidelity_and_score(table.iloc[:1])
    assert one["correlation"].isna().all()


# ---- on a study


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_bert):
    from toyrun import ALL_ROWS, toy_settings

    folder = tmp_path_factory.mktemp("pairs")
    (folder / "mine.py").write_text(PLUGIN)
    settings = toy_settings(folder, tiny_bert)
    for name in ("task", "runs_dir", "observers", "sampler_options"):
        del settings[name]
    return Study(
        "05_reducers", title="t", question="q", profile="smoke", task="file", seeds=1, plugin=str(folder / "mine.py"),
        runs_dir=str(folder / "runs"), results_dir=str(folder / "results"), **{**settings, **ALL_ROWS},
    )  # fmt: skip


PLUGIN = '''
from sage_kit import hookimpl
from sage_kit.components import ReducerSpec


class First:
    """The first dimensions."""

    def __init__(self, options, context):
        self.n_components = context.n_components

    def fit_transform(self, vectors):
        return vectors[:, : self.n_components].copy()


@hookimpl
def sage_reducers():
    yield ReducerSpec(name="first", summary="The first dimensions", factory=First)
'''


def test_pairs_of_a_study(study, capsys):
    scores = score_pairs(study, ["pca", "first"], ["knn", "native"], points=20)
    by_name = {pair.name: pair for pair in scores.pairs}
    assert list(by_name) == ["pca + knn", "pca + native", "first + knn", "first + native"]
    assert [pair.name for pair in scores.scored] == ["pca + knn", "pca + native", "first + knn"]
    assert "which reducer 'first' does not have" in by_name["first + native"].reason
    assert scores.cards["file", "pca + knn"].examples["held_out"] == 20
    assert by_name["pca + knn"].settings == {"reducer": "pca", "inverter": "knn", "n_components": 2}
    assert "first + native: inverter 'native' calls" in capsys.readouterr().out
    table = baselines_table(scores, ["file"]).set_index("predictor")
    assert table.loc["mean", "r2"] == pytest.approx(0)
    assert table.loc["random", "r2"] < 0 < table.loc["nearest", "r2"]
    arrays = scores.cards["file", "first + knn"].arrays
    assert table.loc["nearest", "mse"] == pytest.approx(np.square(arrays["held_out"] - arrays["nearest"]).mean())
    assert baselines_table(Scores((), {}), ["file"]).empty


def test_an_unknown_name_is_a_mistake(study):
    with pytest.raises(UnknownComponentError, match="Did you mean 'first'"):
        score_pairs(study, ["frist"], ["knn"])
