from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import tinyview
import torch
from torch import nn

from sage_kit.builtin.decoders.probe import LEAST_VARIANCE, ODDS, SHRINKAGE, ProbeDecoder, _start_from_means
from sage_kit.components import TokenBatch
from sage_kit.errors import CompatibilityError
from sage_kit.storage.cache import Cache

TRAIN = [row["text"] for row in tiny.toy_task_rows(80, seed=7)]
HELD_OUT = [*(row["text"] for row in tiny.toy_task_rows(20, seed=8)), "the comedy was silly"]


@pytest.fixture(scope="module")
def views(tiny_bert, tiny_roberta):
    """Views by bypass, and one of a RoBERTa."""
    found = {bypass: tinyview.view_of_checkpoint(tiny_bert, bypass, TRAIN, HELD_OUT) for bypass in ("embeddings", 2)}
    return {**found, "roberta": tinyview.view_of_checkpoint(tiny_roberta, "embeddings", TRAIN, HELD_OUT)}


def known(view):
    """Of the held-out tokens that are no special ones: their ids, and which occur in the training text."""
    ids = view.held_out.ids[~np.isin(view.held_out.ids, view.tokenizer.all_special_ids)]
    return ids, np.isin(ids, view.train.ids)


@pytest.mark.parametrize(("name", "least"), [("embeddings", 1.0), ("roberta", 1.0), (2, 0.97)])
def test_it_finds_nearly_all_that_it_can(build, views, name, least):
    view = views[name]
    lines = []
    decoder = build("decoder", "probe", announce=lines.append).fit(view)
    ids, occurs = known(view)
    assert 0.5 < occurs.mean() < 1
    assert decoder.held_out_known_ == pytest.approx(occurs.mean())
    assert decoder.held_out_accuracy_ >= least * occurs.mean() - 1e-9
    assert decoder.held_out_accuracy_ <= occurs.mean()
    assert lines == [
        f"decoder 'probe': finds {decoder.held_out_accuracy_:.1%} of the tokens of held-out real text, special ones "
        f"left out; {1 - occurs.mean():.1%} of them do not occur in the training text"
    ]
    # counted once more, through guess, one text at a time
    right = total = 0
    for start, end in zip(view.held_out.offsets[:-1], view.held_out.offsets[1:], strict=True):
        states = torch.from_numpy(np.array(view.held_out.states[start:end]))[None]
        guesses = decoder.guess(TokenBatch(states, torch.ones(states.shape[:2], dtype=torch.bool)), 2)
        truth = view.held_out.ids[start:end]
        counted = ~np.isin(truth, view.tokenizer.all_special_ids)
        right += (guesses.ids[0, :, 0] == truth)[counted].sum()
        total += counted.sum()
        assert np.isin(guesses.ids, view.train.ids).all()
        assert (guesses.margin >= 0).all()
    assert total == len(ids)
    assert decoder.held_out_accuracy_ == pytest.approx(right / total)


def test_scores_are_log_probabilities_over_the_ids_of_the_text(build, views):
    view = views["embeddings"]
    decoder = build("decoder", "probe").fit(view)
    count = len(np.unique(view.train.ids))
    batch = tinyview.batch_of(view, *tinyview.encode("bert", TRAIN[:3]))
    guesses = decoder.guess(batch, count)
    np.testing.assert_allclose(np.exp(guesses.scores.astype(float)).sum(-1), 1, atol=1e-4)
    assert (np.sort(guesses.ids, axis=-1) == np.unique(view.train.ids)).all()
    with pytest.raises(CompatibilityError, match=f"it knows {count}"):
        decoder.guess(batch, count + 1)


def test_decode_reads_real_text(build, views):
    view = views["embeddings"]
    decoder = build("decoder", "probe").fit(view)
    ids, types, mask = tinyview.encode("bert", TRAIN[:4])
    rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    assert decoder.decode(tinyview.batch_of(view, ids, types, mask)) == view.tokenizer.batch_decode(
        rows, skip_special_tokens=True
    )
    empty = TokenBatch(torch.zeros(0, 5, 32), torch.zeros(0, 5, dtype=torch.bool))
    assert decoder.decode(empty) == []


def test_the_seed_alone_decides_and_global_states_stay(build, views):
    view = views["embeddings"]
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    batch = tinyview.batch_of(view, *tinyview.encode("bert", TRAIN[:3]))
    options = {"hidden": (16,), "epochs": 2}
    first, again, other = (
        build("decoder", "probe", options, seed=seed).fit(view).guess(batch, 2).scores for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


def test_a_hidden_layer_learns_too(build, views):
    decoder = build("decoder", "probe", {"hidden": (64,), "epochs": 60, "learning_rate": 1e-2}).fit(views["embeddings"])
    assert decoder.held_out_accuracy_ > 0.7 * decoder.held_out_known_


def test_training_is_cached_by_teacher_text_options_and_seed(build, views, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    computed = []
    trained = ProbeDecoder._trained

    def counting(self, *arguments):
        computed.append(1)
        return trained(self, *arguments)

    monkeypatch.setattr(ProbeDecoder, "_trained", counting)
    view = views["embeddings"]

    def fit(view=view, seed=0, **options):
        return build("decoder", "probe", {"epochs": 1, **options}, seed=seed, cached=cache.arrays).fit(view)

    batch = tinyview.batch_of(view, *tinyview.encode("bert", TRAIN[:3]))
    first, again = fit(), fit()
    assert len(computed) == 1
    np.testing.assert_array_equal(first.guess(batch, 2).scores, again.guess(batch, 2).scores)
    assert first.held_out_accuracy_ == again.held_out_accuracy_
    fit(seed=1)
    fit(epochs=2)
    fit(dataclasses.replace(view, fingerprint="another"))
    fit(dataclasses.replace(view, held_out=view.train))
    half = dataclasses.replace(view.train, states=view.train.states.astype(np.float16))
    fit(dataclasses.replace(view, train=half))
    assert len(computed) == 6


def test_a_long_text_is_sampled_and_every_id_kept(build, views):
    view = views["embeddings"]
    decoder = build("decoder", "probe", {"max_tokens": 1}, seed=3)
    ids = np.asarray(view.train.ids)
    chosen = decoder._chosen(ids)
    assert len(chosen) == len(np.unique(ids))
    assert set(ids[chosen]) == set(ids)
    more = build("decoder", "probe", {"max_tokens": 500}, seed=3)._chosen(ids)
    assert len(more) == 500
    assert (np.diff(more) > 0).all()
    assert set(chosen) <= set(more)
    assert len(build("decoder", "probe")._chosen(ids)) == len(ids)
    halved = build("decoder", "probe", {"max_tokens": len(ids) // 2}).fit(view)
    assert halved.held_out_accuracy_ > 0.9 * halved.held_out_known_


@pytest.mark.parametrize("spread", [0.02, 3.0], ids=["tight classes", "wide classes"])
def test_the_start_is_linear_discriminant_analysis(spread):
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.repeat(np.arange(5), [1, 2, 10, 30, 57]))
    scales = spread * np.linspace(0.2, 2, 8)
    states = (3 * rng.standard_normal((5, 8))[classes] + scales * rng.standard_normal((100, 8))).astype(np.float32)
    states -= states.mean(0)
    layer = nn.Linear(8, 5)
    _start_from_means(layer, states, classes, 5)
    found = layer(torch.from_numpy(states)).detach().numpy().astype(float)
    wide = states.astype(np.float64)
    means = np.stack([wide[classes == c].mean(0) for c in range(5)])
    covariance = (wide - means[classes]).T @ (wide - means[classes]) / 95
    least = LEAST_VARIANCE * np.square(means[classes]).sum(1).mean()
    covariance = (1 - SHRINKAGE) * covariance + (SHRINKAGE * np.trace(covariance) + least) / 8 * np.eye(8)
    inverse = np.linalg.inv(covariance)
    distances = np.stack([np.einsum("ni,ij,nj->n", wide - mean, inverse, wide - mean) for mean in means], axis=1)
    odds = np.einsum("ni,ij,nj->n", means[classes], inverse, means[classes]).mean()
    factor = min(1, ODDS / odds)
    assert (factor < 1) == (spread < 1)
    expected = np.log(np.bincount(classes)) - factor * distances / 2
    # the same up to what all classes share
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], rtol=1e-3, atol=1e-2)


def test_a_class_of_one_state_each_has_a_start_too():
    states = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    states -= states.mean(0)
    layer = nn.Linear(8, 6)
    _start_from_means(layer, states, np.arange(6), 6)
    assert layer(torch.from_numpy(states)).argmax(1).tolist() == list(range(6))


def test_text_of_one_token_and_states_with_nan_are_refused(build, views):
    view = views["embeddings"]
    same = dataclasses.replace(view.train, ids=np.full_like(view.train.ids, 7))
    with pytest.raises(CompatibilityError, match="nothing to tell apart"):
        build("decoder", "probe").fit(dataclasses.replace(view, train=same))
    states = view.train.states.copy()
    states[3, 2] = np.nan
    with pytest.raises(CompatibilityError, match="token state 4 of"):
        build("decoder", "probe").fit(dataclasses.replace(view, train=dataclasses.replace(view.train, states=states)))


def test_without_held_out_text_the_accuracy_is_unknown(build, tiny_bert):
    decoder = build("decoder", "probe", {"epochs": 1}).fit(tinyview.view_of_checkpoint(tiny_bert, texts=TRAIN))
    assert np.isnan(decoder.held_out_accuracy_)
