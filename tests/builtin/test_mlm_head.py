from __future__ import annotations

import numpy as np
import pytest
import tiny
import tinyview
import torch

from sage_kit.builtin.decoders import mlm_head
from sage_kit.components import TokenBatch
from sage_kit.errors import CompatibilityError

TEXTS = [row["text"] for row in tiny.toy_task_rows(7, seed=6)]


@pytest.fixture(scope="module", params=tinyview.FAMILIES)
def trained(request, tmp_path_factory):
    """Family, folder and model of a tiny masked language model."""
    path = tmp_path_factory.mktemp(f"mlm-{request.param}")
    return request.param, path, tinyview.make_masked_lm(path, request.param)


@pytest.mark.parametrize("bypass", ["embeddings", 2])
@pytest.mark.parametrize("limit", [1, 1 << 25], ids=["row by row", "at once"])
def test_guesses_are_the_models_own_log_probabilities(build, trained, bypass, limit, monkeypatch):
    monkeypatch.setattr(mlm_head, "LOGITS", limit)
    family, path, model = trained
    view = tinyview.view_of_checkpoint(path, bypass)
    ids, types, mask = tinyview.encode(family, TEXTS)
    batch = tinyview.batch_of(view, ids, types, mask)
    decoder = build("decoder", "mlm_head").fit(view)
    guesses = decoder.guess(batch, 3)
    with torch.no_grad():
        logits = model.double()(input_ids=ids, attention_mask=mask.long()).logits.numpy()
    model.float()
    logits[..., view.tokenizer.pad_token_id] = -np.inf
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    order = np.argsort(-expected, axis=-1)[..., :3]
    np.testing.assert_array_equal(guesses.ids[mask], order[mask])
    np.testing.assert_allclose(guesses.scores[mask], np.take_along_axis(expected, order, -1)[mask], atol=1e-4)
    rows = [row[real].tolist() for row, real in zip(order[..., 0], mask.numpy(), strict=True)]
    assert decoder.decode(batch) == [
        text.strip() for text in view.tokenizer.batch_decode(rows, skip_special_tokens=True)
    ]


def test_padding_is_never_said(build, trained):
    family, path, model = trained
    view = tinyview.view_of_checkpoint(path)
    pad = view.tokenizer.pad_token_id
    decoder = build("decoder", "mlm_head").fit(view)
    decoder._logits = lambda states, mask: torch.nn.functional.one_hot(
        torch.full(states.shape[:2], pad), model.config.vocab_size
    ).float()
    batch = tinyview.batch_of(view, *tinyview.encode(family, TEXTS))
    assert (decoder.guess(batch, 5).ids != pad).all()


def test_no_rows_and_too_many_tokens(build, trained):
    family, path, _ = trained
    view = tinyview.view_of_checkpoint(path)
    decoder = build("decoder", "mlm_head").fit(view)
    batch = tinyview.batch_of(view, *tinyview.encode(family, TEXTS))
    assert decoder.decode(TokenBatch(batch.states[:0], batch.mask[:0])) == []
    with pytest.raises(CompatibilityError, match="asked for 5000 tokens"):
        decoder.guess(batch, 5000)


def test_a_teacher_without_a_head_is_refused(build, tiny_bert):
    with pytest.raises(CompatibilityError, match="no masked-language-model head: take decoder 'nearest_token'"):
        build("decoder", "mlm_head").fit(tinyview.view_of_checkpoint(tiny_bert))
