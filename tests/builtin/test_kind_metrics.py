"""Metrics of label sets, tags, answers and embeddings against scikit-learn, scipy, loops and work by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as references

from sage_kit.components import Answers, BuildContext, MetricSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import DataError
from sage_kit.testing import label_examples

PLUGINS = Plugins(allow="")
KINDS = {
    "label_sets": ("micro_f1", "macro_f1", "mean_average_precision", "exact_set"),
    "tags": ("span_f1", "tag_accuracy"),
    "spans": ("exact_match", "answer_f1", "hotpot_f1"),
    "embeddings": ("cosine_spearman", "cosine_pearson", "retrieval_accuracy"),
}


def build(name: str) -> Any:
    return PLUGINS.build("metric", name, {}, BuildContext(config=load_config()))


def spec(name: str) -> MetricSpec:
    return PLUGINS.metric(name)


def test_every_kind_has_these_metrics() -> None:
    found = {kind: {i.spec.name for i in PLUGINS.components("metric") if kind in i.spec.takes} for kind in KINDS}
    assert found == {kind: set(names) for kind, names in KINDS.items()}
    assert spec("macro_f1").takes == ("classes", "label_sets")


# ---- label sets


def label_sets(rows: int = 200, labels: int = 6) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    gold = (rng.random((rows, labels)) < 0.3).astype(np.int8)
    return gold, np.clip(0.3 + 0.3 * gold + 0.25 * rng.standard_normal(gold.shape), 0, 1).astype(np.float32)


def test_label_sets_against_scikit_learn() -> None:
    gold, scores = label_sets()
    sets = scores >= 0.5
    assert build("micro_f1").score(gold, scores) == pytest.approx(references.f1_score(gold, sets, average="micro"))
    assert build("macro_f1").score(gold, scores) == pytest.approx(references.f1_score(gold, sets, average="macro"))
    assert build("exact_set").score(gold, scores) == pytest.approx(references.accuracy_score(gold, sets))
    assert build("mean_average_precision").score(gold, scores) == pytest.approx(
        references.average_precision_score(gold, scores, average="macro")
    )


def test_average_precision_by_hand() -> None:
    # sorted by score the first label's rows are right, wrong, right: (1 + 2/3) / 2; the second's only row is second
    gold = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.int8)
    scores = np.array([[0.9, 0.8], [0.8, 0.7], [0.1, 0.1]], dtype=np.float32)
    assert build("mean_average_precision").score(gold, scores) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn's, of a label that no row has
        wider = np.concatenate([gold, np.zeros((3, 1), np.int8)], axis=1)
        more = np.concatenate([scores, np.ones((3, 1), np.float32)], axis=1)
        assert build("mean_average_precision").score(wider, more) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
        assert build("mean_average_precision").score(np.zeros_like(gold), scores) == 0


def test_half_is_in_the_set() -> None:
    gold, scores = np.array([[1, 0]], dtype=np.int8), np.array([[0.5, 0.4999]], dtype=np.float32)
    assert build("exact_set").score(gold, scores) == build("micro_f1").score(gold, scores) == 1
    assert build("micro_f1").score(gold * 0, scores * 0) == build("macro_f1").score(gold * 0, scores * 0) == 0


@pytest.mark.parametrize("name", KINDS["label_sets"])
def test_probabilities_that_are_not_finite_give_nan(name: str) -> None:
    gold, scores = label_sets(4)
    scores[1, 2] = np.nan
    assert math.isnan(build(name).score(gold, scores))


# ---- tags


def test_tags_by_hand() -> None:
    labels = [("O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"), ("B-PER", "I-PER", "O")]
    predictions = [("O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"), ("B-PER", "I-PER", "O")]
    # the published example of seqeval's f1_score and accuracy_score
    assert build("span_f1").score(labels, predictions) == 0.5
    assert build("tag_accuracy").score(labels, predictions) == 0.8
    assert build("span_f1").score([("O",)], [("O",)]) == 0


def test_tags_count_over_all_texts_together() -> None:
    labels, predictions = label_examples.make("tags", 50, 1)
    one, other = sum(labels, ()), sum(predictions, ())
    assert build("tag_accuracy").score(labels, predictions) == pytest.approx(references.accuracy_score(one, other))


# ---- answers


def test_answers_by_hand() -> None:
    labels = [
        Answers(("the red car",), (0,)),
        Answers(),
        Answers(("yes",), (0,)),
        Answers(("blue", "dark blue"), (5, 0)),
    ]
    predictions = ["Red car.", "", "yes indeed", "dark"]
    assert build("exact_match").score(labels, predictions) == 2 / 4
    assert build("answer_f1").score(labels, predictions) == pytest.approx((1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert build("hotpot_f1").score(labels[2:], predictions[2:]) == pytest.approx((0 + 2 / 3) / 2)


# ---- embeddings


def test_correlations_of_cosines_against_scipy() -> None:
    labels, vectors = label_examples.make("embeddings", 120, 2)
    scaled = vectors * np.random.default_rng(0).uniform(0.1, 9, (120, 2, 1)).astype(np.float32)
    pairs = scaled.astype(np.float64)
    cosines = [float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)) for a, b in pairs]
    gold = labels.astype(np.float64)
    assert build("cosine_pearson").score(labels, scaled) == pytest.approx(stats.pearsonr(gold, cosines).statistic)
    assert build("cosine_spearman").score(labels, scaled) == pytest.approx(stats.spearmanr(gold, cosines).statistic)


def test_correlations_need_labels() -> None:
    vectors = np.ones((3, 2, 4), np.float32)
    with pytest.raises(DataError, match=r"'cosine_spearman' needs labels.*take 'retrieval_accuracy'"):
        build("cosine_spearman").score(None, vectors)


def test_retrieval_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    one = rng.standard_normal((1500, 6))
    vectors = np.stack([one, one + 0.8 * rng.standard_normal(one.shape)], axis=1).astype(np.float32)
    vectors *= rng.uniform(0.1, 9, (1500, 2, 1)).astype(np.float32)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=2, keepdims=True)
    there = np.mean([np.argmax([u @ v for v in unit[:, 1]]) == row for row, u in enumerate(unit[:, 0])])
    back = np.mean([np.argmax([u @ v for v in unit[:, 0]]) == row for row, u in enumerate(unit[:, 1])])
    assert there != back
    assert build("retrieval_accuracy").score(None, vectors) == pytest.approx((there + back) / 2)


def test_retrieval_by_hand() -> None:
    # each first text is nearest to its own, the second texts of the first two rows are both nearest to the first row's
    one = [[1, 0], [0.6, 0.8], [-1, 0]]
    other = [[1, 0], [0.95, 0.3], [-1, 0.1]]
    vectors = np.stack([np.array(one), np.array(other)], axis=1).astype(np.float32)
    assert build("retrieval_accuracy").score(None, vectors) == pytest.approx((3 / 3 + 2 / 3) / 2)
    assert build("retrieval_accuracy").score(None, np.ones((4, 2, 3), np.float32)) == 1 / 4


# ---- contributions


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for kind, names in KINDS.items()
        for name in names
        if name in ("micro_f1", "span_f1", "tag_accuracy")
    ],
)
def test_contributions_are_the_influence_of_each_text(name: str, kind: str) -> None:
    """Against the change of the score when a text gets a little more weight, as a numeric derivative."""
    labels, predictions = label_examples.make(kind, 40, 4)
    parts = build(name).contributions(labels, predictions)
    many = 500
    for row in (0, 7, 31):
        if kind == "label_sets":
            more = [np.concatenate([values] * many + [values[row : row + 1]]) for values in (labels, predictions)]
        else:
            more = [list(values) * many + [values[row]] for values in (labels, predictions)]
        score, weight = build(name).score(labels, predictions), 1 / (40 * many + 1)
        influence = (build(name).score(*more) - score) / weight
        assert parts[row] - score == pytest.approx(influence, rel=2e-3, abs=2e-3)
