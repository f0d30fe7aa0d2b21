from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import tinyview
import torch

from sage_kit.builtin.decoders import nearest_token
from sage_kit.components import TokenBatch
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_classifier

FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
TEXTS = [row["text"] for row in tiny.toy_task_rows(12, seed=4)] + ["the zebra was good"]  # one unknown word
PAIRS = [row["text"] for row in tiny.toy_task_rows(13, seed=5)]


class Checkpoints(dict):
    """Tiny checkpoints by family, made when they are asked for."""

    def __init__(self, factory):
        self.factory = factory

    def __missing__(self, family):
        return self.setdefault(family, tiny.make_checkpoint(self.factory.mktemp(f"tiny-{family}"), family))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return Checkpoints(tmp_path_factory)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks that divide neither vocabulary nor rows."""
    monkeypatch.setattr(nearest_token, "CANDIDATES", 500)
    monkeypatch.setattr(nearest_token, "ROWS", 5)


@pytest.mark.parametrize("family", tinyview.FAMILIES)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
def test_real_states_decode_to_exactly_their_tokens(build, checkpoints, family, pairs, small_chunks):
    view = tinyview.view_of_checkpoint(checkpoints[family], texts=TEXTS, pairs=pairs)
    encoded = ids, _, mask = tinyview.encode(family, TEXTS, pairs)
    batch = tinyview.batch_of(view, *encoded)
    decoder = build("decoder", "nearest_token").fit(view)
    guesses = decoder.guess(batch, 2)
    np.testing.assert_array_equal(guesses.ids[..., 0][mask], ids[mask])
    np.testing.assert_allclose(guesses.scores[..., 0][mask], 1, atol=1e-6)
    assert guesses.margin[mask].min() > 0.01
    texts = decoder.decode(batch)
    assert texts == view.tokenizer.batch_decode([row[real].tolist() for row, real in zip(ids, mask, strict=True)],
                                                skip_special_tokens=True)  # fmt: skip
    assert texts[0].split()[:3] == TEXTS[0].split()[:3]


def reference(path, family, states, mask, types, banned):
    """Cosines in double precision, of shape (batch, tokens, vocabulary): word, position and type one by one."""
    model = load_classifier(str(path)).model.double()
    embeddings = model.base_model.embeddings
    words = embeddings.word_embeddings.weight
    norm = embeddings.LayerNorm
    first = 2 if tiny.is_roberta(family) else 0
    found = torch.full((*mask.shape, len(words)), -torch.inf, dtype=torch.float64)
    with torch.no_grad():
        for position in range(mask.shape[1]):
            base = words + embeddings.position_embeddings.weight[first + position]
            kinds = (
                [embeddings.token_type_embeddings.weight[kind] for kind in types]
                if family in ("bert", "roberta")
                else [0]
            )
            for kind in kinds:
                rows = norm(base + kind)
                cosines = torch.nn.functional.cosine_similarity(states[:, position, None].double(), rows[None], dim=2)
                found[:, position] = torch.maximum(found[:, position], cosines)
    found[..., banned] = -torch.inf
    return found.numpy()


@FAMILIES
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
def test_perturbed_states_agree_with_a_reference_in_double_precision(build, checkpoints, family, pairs, small_chunks):
    view = tinyview.view_of_checkpoint(checkpoints[family], texts=TEXTS, pairs=pairs)
    encoded = ids, _, mask = tinyview.encode(family, TEXTS, pairs)
    real = tinyview.batch_of(view, *encoded)
    noise = torch.randn(real.states.shape, generator=torch.Generator().manual_seed(0))
    batch = TokenBatch((real.states + 1.2 * noise) * mask.unsqueeze(2), mask)
    guesses = build("decoder", "nearest_token").fit(view).guess(batch, 4)
    types = [0, 1] if pairs and family == "bert" else [0]
    expected = reference(checkpoints[family], family, batch.states, mask, types, [view.tokenizer.pad_token_id])[mask]
    order = np.argsort(-expected, axis=1)[:, :5]
    scores = np.take_along_axis(expected, order, axis=1)
    np.testing.assert_allclose(guesses.scores[mask], scores[:, :4], atol=1e-6)
    clear = np.diff(-scores, axis=1).min(axis=1) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(guesses.ids[mask][clear], order[clear, :4])
    assert (guesses.ids[..., 0] != ids.numpy())[mask].mean() > 0.05


def test_of_the_token_types_only_those_of_the_text_are_tried(build, checkpoints):
    asked = set()

    def input_layers(ids, types, mask):
        asked.update(types.unique().tolist())
        return view.input_layers(ids, types, mask)

    for pairs, expected in ((None, {0}), (PAIRS, {0, 1})):
        view = tinyview.view_of_checkpoint(checkpoints["bert"], texts=TEXTS, pairs=pairs)
        batch = tinyview.batch_of(view, *tinyview.encode("bert", TEXTS[:2]))
        asked.clear()
        build("decoder", "nearest_token").fit(dataclasses.replace(view, input_layers=input_layers)).guess(batch, 1)
        assert asked == expected


def test_special_tokens_may_be_kept_to_the_ends(build, checkpoints):
    view = tinyview.view_of_checkpoint(checkpoints["bert"], texts=TEXTS)
    encoded = tinyview.encode("bert", TEXTS)
    batch = tinyview.batch_of(view, *encoded)
    ids, mask = encoded[0].numpy(), encoded[2].numpy()
    decoder = build("decoder", "nearest_token", {"special_tokens": "ends"}).fit(view)
    found = decoder.guess(batch, 1).ids[..., 0]
    special = view.tokenizer.all_special_ids
    rows, last = np.arange(len(mask)), mask.sum(1) - 1
    assert (found[:, 0] == view.tokenizer.cls_token_id).all()
    assert (found[rows, last] == view.tokenizer.sep_token_id).all()
    inner = mask.copy()
    inner[:, 0] = inner[rows, last] = False
    assert not np.isin(found[inner], special).any()
    unknown = inner & np.isin(ids, special)
    assert unknown.sum() == 1
    np.testing.assert_array_equal(found[inner & ~unknown], ids[inner & ~unknown])


def test_padding_and_unused_rows_are_not_found_unless_asked_for(build, checkpoints):
    view = tinyview.view_of_checkpoint(checkpoints["bert"], texts=TEXTS)
    tokenizer = tiny.make_tokenizer("bert")
    vocabulary = tokenizer.get_vocab()
    taken = vocabulary.pop("movie")
    vocabulary["[unused7]"] = taken

    class Renamed:
        """The tokenizer with one word renamed."""

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def get_vocab(self):
            return vocabulary

    view = dataclasses.replace(view, tokenizer=Renamed())
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[2, taken, pad, 3]])
    full = torch.ones(1, 4, dtype=torch.bool)
    batch = TokenBatch(view.input_layers(ids, torch.zeros_like(ids), full), full)
    without = build("decoder", "nearest_token").fit(view).guess(batch, 1).ids[0, :, 0]
    assert without[1] != taken
    assert without[2] != pad
    with_unused = build("decoder", "nearest_token", {"unused": True}).fit(view).guess(batch, 1).ids[0, :, 0]
    assert with_unused[1] == taken
    assert with_unused[2] != pad


def test_blocks_in_the_input_layers_are_refused(build, checkpoints):
    view = tinyview.view_of_checkpoint(checkpoints["bert"], 2, texts=TEXTS)
    with pytest.raises(
        CompatibilityError, match="with bypass=2 a state depends on the whole text: take decoder 'probe'"
    ):
        build("decoder", "nearest_token").fit(view)


def test_more_tokens_than_there_are_is_refused_and_no_rows_are_none(build, checkpoints):
    view = tinyview.view_of_checkpoint(checkpoints["bert"], texts=TEXTS)
    decoder = build("decoder", "nearest_token").fit(view)
    batch = tinyview.batch_of(view, *tinyview.encode("bert", TEXTS[:1]))
    for k in (0, 10_000):
        with pytest.raises(CompatibilityError, match=f"asked for {k} tokens per position"):
            decoder.guess(batch, k)
    assert decoder.decode(TokenBatch(batch.states[:0], batch.mask[:0])) == []
    assert decoder.guess(TokenBatch(batch.states[:, :0], batch.mask[:, :0]), 1).ids.shape == (1, 0, 1)
