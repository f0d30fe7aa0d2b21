from __future__ import annotations

import random
import re

import numpy as np
import pytest
import tiny
import torch

from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.errors import DataError
from sage_kit.models import tied_language
from sage_kit.models.tied_language import WINDOW, TiedHead, tied_head
from sage_kit.models.token_kinds import token_kinds
from sage_kit.storage.cache import Cache

NOUNS = ("movie", "film", "story", "plot", "actor", "scene")


def sentences(n: int, seed: int = 0) -> list[str]:
    """Texts in which a token follows from those around it: an adjective of one sentiment before and behind a noun."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        words = rng.choice((tiny.POSITIVE, tiny.NEGATIVE))
        found.append(" ".join(f"the {rng.choice(words)} {rng.choice(NOUNS)} was {rng.choice(words)} ." for _ in "12"))
    return found


def encoded(texts):
    tokenizer = tiny.make_tokenizer()
    return tokenize(Split("text", list(texts), None, np.zeros(len(texts), np.int64)), tokenizer, tiny.MAX_POSITIONS)


def train(tmp_path, texts, started=lambda: None, messages=None):
    tokenizer = tiny.make_tokenizer()
    table = tiny.make_model(dim=32).get_input_embeddings().weight.detach()
    cache = Cache(tmp_path, (messages if messages is not None else []).append)
    kinds = token_kinds(tokenizer, len(table))
    return tied_head(table, kinds, tokenizer.mask_token_id, encoded(texts), cache, started)


def test_contexts_equal_the_formula():
    torch.manual_seed(1)
    table = torch.randn(30, 4)
    head = TiedHead(table).double()
    head._table = table.double()
    head.center.copy_(torch.randn(4))
    head.spread.copy_(torch.rand(4) + 0.5)
    ids, mask = torch.randint(5, 30, (3, 9)), torch.arange(9) < torch.tensor([[9], [6], [4]])
    places = torch.zeros(3, 9, dtype=torch.bool)
    for row, column in ((0, 0), (0, 4), (1, 5), (2, 2)):
        places[row, column] = True
    ids[places] = 3
    found = head.context(ids, mask, places)
    assert found.shape == (4, (2 * WINDOW + 1) * 4)
    states = ((table.double() - head.center) / head.spread).numpy()
    for number, (row, column) in enumerate(places.nonzero().tolist()):
        length = int(mask[row].sum())
        near = []
        for offset in (-3, -2, -1, 1, 2, 3):
            inside = 0 <= column + offset < length
            near.append(states[ids[row, column + offset]] if inside else np.zeros(4))
        rest = [states[ids[row, other]] for other in range(length) if not places[row, other]]
        expected = np.concatenate([*near, np.sum(rest, 0) / np.sqrt(len(rest))])
        np.testing.assert_allclose(found[number].numpy(), expected, rtol=1e-12)


def test_logits_are_products_with_the_embeddings():
    torch.manual_seed(1)
    table = torch.randn(11, 4)
    head = TiedHead(table).requires_grad_(False)
    head.bias.copy_(torch.randn(11))
    context = torch.randn(5, (2 * WINDOW + 1) * 4)
    expected = (context @ head.dense.weight.T + head.dense.bias) @ table.T + head.bias
    torch.testing.assert_close(head(context), expected)
    some = torch.tensor([9, 2, 2])
    torch.testing.assert_close(head(context, some), expected[:, some])


def test_what_stands_at_a_place_or_in_padding_does_not_count():
    head = TiedHead(torch.randn(30, 4))
    ids, mask = torch.randint(5, 30, (2, 7)), torch.arange(7) < torch.tensor([[7], [5]])
    places = torch.zeros(2, 7, dtype=torch.bool)
    places[:, 2] = True
    other = ids.clone()
    other[1, 5:] = 7
    torch.testing.assert_close(head.context(other, mask, places), head.context(ids, mask, places))
    torch.testing.assert_close(
        head.context(ids[1:, :5], mask[1:, :5], places[1:, :5]), head.context(ids, mask, places)[1:]
    )


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(tied_language, "MASKED_TOKENS", 6000)
    monkeypatch.setattr(tied_language, "LEARNING_RATE", 3e-3)


@pytest.mark.parametrize("sampled", [2048, 20], ids=["all tokens", "a sample of them"])
def test_a_head_learns_what_fits_a_place(tmp_path, few, monkeypatch, sampled):
    monkeypatch.setattr(tied_language, "SAMPLED", sampled)
    _, measured = train(tmp_path, sentences(400))
    assert measured.texts == 380
    # a fifth of the tokens are each "the", "was" and the point; adjectives and nouns are drawn
    assert measured.unigram_accuracy < 0.35
    assert measured.accuracy > 0.5
    assert measured.perplexity < 0.4 * measured.unigram_perplexity
    # each token of the 20 other texts, once
    assert measured.tokens == 20 * 12


def test_the_measures_are_those_of_the_saved_head(tmp_path, few):
    texts = sentences(400)
    head, measured = train(tmp_path, texts)
    tokens, tokenizer = encoded(texts), tiny.make_tokenizer()
    rows = np.sort(np.random.default_rng(0).permutation(400)[:20])
    ids, _, mask = tokens.pad(rows)
    losses = []
    for place in range(1, ids.shape[1] - 1):
        one = torch.zeros_like(mask)
        one[:, place] = mask[:, place]
        one &= ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        scores = head(head.context(ids.masked_fill(one, tokenizer.mask_token_id), mask, one))
        losses.append(torch.nn.functional.cross_entropy(scores, ids[one], reduction="none"))
    # each masked alone is somewhat easier than 15 % at once
    assert len(torch.cat(losses)) == measured.tokens
    assert 0.6 * measured.perplexity < float(torch.cat(losses).mean().exp()) < measured.perplexity


def test_a_sample_stands_for_all_tokens_that_occur(monkeypatch):
    monkeypatch.setattr(tied_language, "SAMPLED", 40)
    generator = torch.Generator().manual_seed(0)
    seen, targets = torch.arange(100, 500, 2), torch.tensor([102, 300, 300, 498])
    weights = torch.rand(500, generator=generator)
    sums = []
    for _ in range(2000):
        tokens, correction = tied_language._sample(seen, targets, generator)
        assert torch.equal(tokens, tokens.unique())
        assert torch.isin(targets, tokens).all()
        assert (correction[torch.isin(tokens, targets)] == 0).all()
        sums.append(float((weights[tokens] * correction.exp()).sum()))
    assert np.mean(sums) == pytest.approx(float(weights[seen].sum()), rel=0.01)


def test_a_head_is_trained_once_and_the_same_again(tmp_path, few):
    started, messages = [], []
    texts = sentences(60)
    first, measured = train(tmp_path / "a", texts, lambda: started.append(1), messages)
    again, measured_again = train(tmp_path / "a", texts, lambda: started.append(1), messages)
    assert len(started) == 1
    assert len(messages) == 1
    assert messages[0].startswith("language: found in the cache")
    other, measured_other = train(tmp_path / "b", texts)
    assert measured == measured_again == measured_other
    assert set(first.state_dict()) == {"center", "spread", "dense.weight", "dense.bias", "bias"}
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, other.state_dict()[name])
    train(tmp_path / "a", sentences(60, seed=1), lambda: started.append(1))
    assert len(started) == 2


def test_the_global_random_state_is_left_alone(tmp_path, few):
    state = torch.random.get_rng_state()
    train(tmp_path, sentences(30))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("texts", [["the movie was good ."], ["", ""], ["zzz"] * 3])
def test_too_little_text_is_one_line(tmp_path, few, texts):
    with pytest.raises(DataError, match=re.escape(f"{len(texts)} texts of")) as caught:
        train(tmp_path, texts)
    assert "give more text, such as a file named by warmup_corpus" in str(caught.value)
    assert "\n" not in str(caught.value)
