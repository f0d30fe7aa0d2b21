from __future__ import annotations

import numpy as np
import pytest
import tiny
import tinyview
import torch

from sage_kit.config import RunConfig
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.errors import CompatibilityError, DataError
from sage_kit.models import language, tied_language
from sage_kit.models.language import MaskedLanguage, PretrainedHead, load_language
from sage_kit.models.token_kinds import NO_TOKEN, NOT_TEXT, PIECE, WORD
from sage_kit.storage.cache import Cache

FAMILIES = pytest.mark.parametrize("family", tinyview.FAMILIES)
CPU = torch.device("cpu")
TEXTS = ["the movie was good .", "a bad film", "not so funny , but warm and clever", "the story went on and on !"]


@pytest.fixture(params=[False, True], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(language, "TOKENS_AT_ONCE", 12)
        monkeypatch.setattr(language, "LOGITS_AT_ONCE", 700)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A tiny random masked language model of each family: its folder and the model."""
    found = {}
    for family in tinyview.FAMILIES:
        path = tmp_path_factory.mktemp(f"language-{family}")
        found[family] = path, tinyview.make_masked_lm(path, family)
    return found


def load(path, family, tmp_path, texts=TEXTS, messages=None, **settings):
    config = RunConfig(teacher=str(path), max_length=tiny.MAX_POSITIONS, **settings)
    tokenizer = tiny.make_tokenizer(family)
    tokens = tokenize(Split("train", list(texts), None, np.zeros(len(texts), np.int64)), tokenizer, 64)
    announce = (messages if messages is not None else []).append
    return load_language(config, tokenizer, tokens, Cache(tmp_path / "cache"), CPU, announce)


def batch(family):
    ids, types, mask = tinyview.encode(family, TEXTS)
    if family == "bert":
        types = (torch.arange(ids.shape[1]) > 2).long() * mask
    return ids, types, mask


def log_probabilities(model, ids, types, mask):
    given = {"token_type_ids": types} if tinyview.uses_types(model) else {}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask.long(), **given).logits.log_softmax(-1)


@FAMILIES
def test_proposals_are_those_of_the_checkpoint_with_the_places_masked(checkpoints, tmp_path, family, blocks):
    path, model = checkpoints[family]
    messages: list[str] = []
    found = load(path, family, tmp_path, messages=messages)
    assert (found.measured, messages) == (None, [])
    ids, types, mask = batch(family)
    places = torch.zeros_like(mask)
    places[0, 1:3] = places[2, 5] = places[3, 7] = True
    tokens, scores = found.proposals(ids, types, mask, places, 6)
    hidden = ids.masked_fill(places, tiny.make_tokenizer(family).mask_token_id)
    expected = log_probabilities(model, hidden, types, mask)[places]
    special = tiny.make_tokenizer(family).all_special_ids
    expected[:, special] = -torch.inf
    assert tokens.shape == (4, 6)
    torch.testing.assert_close(scores, expected.topk(6).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected.gather(1, tokens), scores, rtol=1e-5, atol=1e-5)


@FAMILIES
def test_perplexity_masks_each_token_alone(checkpoints, tmp_path, family, blocks):
    path, model = checkpoints[family]
    ids, types, mask = batch(family)
    special = torch.tensor(tiny.make_tokenizer(family).all_special_ids)
    found = load(path, family, tmp_path).perplexity(ids, types, mask)
    for row in range(len(ids)):
        own = []
        for place in range(int(mask[row].sum())):
            if ids[row, place] in special:
                continue
            hidden = ids[row : row + 1].clone()
            hidden[0, place] = tiny.make_tokenizer(family).mask_token_id
            scores = log_probabilities(model, hidden, types[row : row + 1], mask[row : row + 1])
            own.append(float(scores[0, place, ids[row, place]]))
        assert found[row].item() == pytest.approx(np.exp(-np.mean(own)), rel=1e-5)


def test_a_text_without_tokens_of_text_has_no_perplexity(checkpoints, tmp_path):
    found = load(checkpoints["bert"][0], "bert", tmp_path)
    ids, types, mask = tinyview.encode("bert", ["zzz qqq", "the movie"])
    values = found.perplexity(ids, types, mask)
    assert values.isnan().tolist() == [True, False]
    assert found.perplexity(ids[:0], types[:0], mask[:0]).shape == (0,)


class ByKind:
    """Gives each token its number as logit."""

    def states(self, ids, types, mask, places):
        return ids[places][:, None].float()

    def logits(self, states):
        return torch.arange(10.0).expand(len(states), -1)


@pytest.fixture
def with_kinds(monkeypatch):
    kinds = np.array([NOT_TEXT, NOT_TEXT, WORD, PIECE, WORD, PIECE, WORD, WORD, NOT_TEXT, NOT_TEXT], np.int8)
    monkeypatch.setattr(language, "token_kinds", lambda tokenizer, rows: kinds)

    class Tokenizer:
        mask_token_id = 1

    return MaskedLanguage(ByKind(), Tokenizer(), 10, CPU)


def test_words_give_way_to_words_and_pieces_to_pieces(with_kinds):
    ids = torch.tensor([[2, 3, 1, 0]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    tokens, scores = with_kinds.proposals(ids, torch.zeros_like(ids), mask, mask & (ids != 0), 5)
    assert tokens.tolist() == [
        [7, 6, 4, 2, NO_TOKEN],
        [5, 3, NO_TOKEN, NO_TOKEN, NO_TOKEN],
        [7, 6, 5, 4, 3],
    ]
    assert torch.equal(scores == -torch.inf, tokens == NO_TOKEN)
    expected = torch.arange(10.0).log_softmax(0)
    torch.testing.assert_close(scores[2], expected[tokens[2]])
    many, _ = with_kinds.proposals(ids, torch.zeros_like(ids), mask, mask & (ids == 3), 12)
    assert many.tolist() == [[5, 3, *[NO_TOKEN] * 10]]
    none, _ = with_kinds.proposals(ids, torch.zeros_like(ids), mask, mask & (ids == 9), 2)
    assert none.shape == (0, 2)


def test_fewer_than_one_proposal_is_refused(with_kinds):
    ids = torch.tensor([[2]])
    with pytest.raises(CompatibilityError, match="ask for at least 1"):
        with_kinds.proposals(ids, ids, ids > 0, ids > 0, 0)


@FAMILIES
@pytest.mark.parametrize("labels", [0, 2], ids=["encoder alone", "classifier"])
def test_a_checkpoint_without_the_head_gets_one_that_is_trained(tmp_path, monkeypatch, family, labels):
    monkeypatch.setattr(tied_language, "MASKED_TOKENS", 2000)
    path = tiny.make_checkpoint(tmp_path / "teacher", family, labels=labels)
    texts = [row["text"] for row in tiny.toy_task_rows(100, seed=3)]
    messages: list[str] = []
    found = load(path, family, tmp_path, texts, messages)
    assert messages[0] == (
        f"teacher '{path}' has no masked-language head: training one tied to its word embeddings on 100 texts"
    )
    assert found.measured is not None
    assert messages[1].startswith(
        f"masked-language head, not a pretrained one: it finds {found.measured.accuracy:.0%} of the masked tokens"
    )
    assert len(messages) == 2
    ids, types, mask = batch(family)
    places = torch.zeros_like(mask)
    places[:, 2] = True
    tokens, scores = found.proposals(ids, types, mask, places, 9)
    assert not set(tokens.ravel().tolist()) & {NO_TOKEN, *tiny.make_tokenizer(family).all_special_ids}
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())
    assert bool(found.perplexity(ids, types, mask).isfinite().all())
    messages.clear()
    again = load(path, family, tmp_path, texts, messages)
    assert len(messages) == 1
    assert torch.equal(again.proposals(ids, types, mask, places, 9)[0], tokens)


def test_the_corpus_of_the_warm_up_is_learned_from_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tied_language, "MASKED_TOKENS", 500)
    path = tiny.make_checkpoint(tmp_path / "teacher")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(row["text"] for row in tiny.toy_task_rows(50, seed=4)), encoding="utf-8")
    messages: list[str] = []
    found = load(path, "bert", tmp_path, TEXTS * 5, messages, warmup_corpus=str(corpus))
    assert "on 70 texts" in messages[0]
    assert found.measured is not None
    assert found.measured.texts in range(60, 70)
    with pytest.raises(DataError, match="does not exist"):
        load(path, "bert", tmp_path, TEXTS, warmup_corpus=str(tmp_path / "none.txt"))


def test_a_tokenizer_without_a_mask_token_is_refused_in_one_line(tmp_path):
    path = tiny.make_checkpoint(tmp_path / "teacher")
    tokenizer = tiny.make_tokenizer()
    tokenizer.mask_token = None
    tokens = tokenize(Split("train", TEXTS, None, np.zeros(4, np.int64)), tokenizer, 64)
    with pytest.raises(CompatibilityError, match="has no mask token") as caught:
        load_language(RunConfig(teacher=str(path)), tokenizer, tokens, Cache(tmp_path / "cache"), CPU, print)
    assert "\n" not in str(caught.value)


def test_the_encoder_is_frozen(checkpoints):
    _, model = checkpoints["bert"]
    head = PretrainedHead(model.requires_grad_(True))
    ids, types, mask = batch("bert")
    assert not head.states(ids, types, mask, mask).requires_grad
