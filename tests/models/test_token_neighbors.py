from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from sage_kit.errors import CompatibilityError
from sage_kit.models import token_neighbors
from sage_kit.models.token_kinds import NO_TOKEN, NOT_TEXT, PIECE, WORD
from sage_kit.models.token_neighbors import TokenTable
from sage_kit.storage.cache import Cache

ROWS, DIM = 60, 7


@pytest.fixture(params=[1 << 24, 50], ids=["one block", "many blocks"])
def random_table(request, monkeypatch):
    monkeypatch.setattr(token_neighbors, "CANDIDATES", request.param)
    rng = np.random.default_rng(5)
    table = rng.standard_normal((ROWS, DIM)) * rng.uniform(0.1, 5, (ROWS, 1))
    kinds = rng.choice(np.array([NOT_TEXT, WORD, WORD, PIECE], np.int8), ROWS)
    kinds[:5] = NOT_TEXT, WORD, PIECE, NOT_TEXT, WORD
    return table, kinds, TokenTable(torch.from_numpy(table), kinds)


def reference(table, kinds, vector, kind, excluded):
    """Tokens of the kind by falling cosine, and the cosines, in float64."""
    cosines = table @ vector / np.linalg.norm(table, axis=1) / np.linalg.norm(vector)
    order = [index for index in np.argsort(-cosines) if kinds[index] == kind and index != excluded]
    return order, cosines[order]


def test_neighbors_equal_the_reference(random_table):
    table, kinds, found = random_table
    tokens = np.arange(ROWS).repeat(2)[::-1]
    result = found.neighbors(tokens.reshape(2, -1), 4)
    assert result.ids.tolist() == np.flatnonzero(kinds != NOT_TEXT).tolist()
    for index, neighbors, cosines in zip(*result, strict=True):
        order, expected = reference(table, kinds, table[index], kinds[index], index)
        assert neighbors.tolist() == order[:4]
        np.testing.assert_allclose(cosines, expected[:4], rtol=1e-6)


def test_projection_equals_the_reference(random_table):
    table, kinds, found = random_table
    rng = np.random.default_rng(6)
    like = rng.permutation(ROWS)
    vectors = rng.standard_normal((ROWS, DIM))
    # every third row excludes what would have been its token, every third another
    nearest = [reference(table, kinds, vectors[row], kinds[like[row]], -1)[0] for row in range(ROWS)]
    exclude = np.array([(NO_TOKEN, order[0], like[row])[row % 3] for row, order in enumerate(nearest)])
    ids = found.project(torch.from_numpy(vectors), torch.from_numpy(like), torch.from_numpy(exclude))
    assert ids.dtype == torch.int64
    for row, index in enumerate(ids.tolist()):
        order, _ = reference(table, kinds, vectors[row], kinds[like[row]], exclude[row])
        assert index == (NO_TOKEN if kinds[like[row]] == NOT_TEXT else order[0])
    free = found.project(torch.from_numpy(vectors), torch.from_numpy(like))
    assert (free != ids)[1::3].sum() == (kinds[like[1::3]] != NOT_TEXT).sum()


def test_where_a_kind_has_too_few_tokens_the_rest_is_empty():
    kinds = np.array([WORD, WORD, PIECE, NOT_TEXT], np.int8)
    found = TokenTable(torch.eye(4) + 0.5, kinds).neighbors([3, 2, 1, 0], 3)
    assert found.ids.tolist() == [0, 1, 2]
    assert found.neighbors.tolist() == [[1, NO_TOKEN, NO_TOKEN], [0, NO_TOKEN, NO_TOKEN], [NO_TOKEN] * 3]
    assert np.isneginf(found.cosines[found.neighbors == NO_TOKEN]).all()
    assert np.isfinite(found.cosines[found.neighbors != NO_TOKEN]).all()
    alone = TokenTable(torch.eye(4), kinds).project(torch.ones(1, 4), torch.tensor([2]), torch.tensor([2]))
    assert alone.tolist() == [NO_TOKEN]


def test_of_aligns_with_tokens_of_any_shape():
    kinds = np.array([NOT_TEXT, WORD, WORD, WORD], np.int8)
    table = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    found = TokenTable(table, kinds).neighbors([1, 2], 1)
    assert found.of([[1, 2, 0], [3, 2, 1]]).tolist() == [[[2], [1], [NO_TOKEN]], [[NO_TOKEN], [1], [2]]]
    assert TokenTable(table, kinds).neighbors([0], 2).of([0, 3]).tolist() == [[NO_TOKEN] * 2] * 2


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_table_of_a_model(family):
    model, tokenizer = tiny.make_model(family), tiny.make_tokenizer(family)
    ids = tokenizer("the movie was good .")["input_ids"]
    found = TokenTable.of_model(model, tokenizer).neighbors(ids, 3)
    special = set(tokenizer.all_special_ids)
    assert found.ids.tolist() == sorted(set(ids) - special)
    assert not special & set(found.neighbors.ravel().tolist())
    table = model.get_input_embeddings().weight.detach().double().numpy() + 1e-12  # the row of the padding is zero
    kinds = np.where(np.isin(np.arange(len(table)), list(special)), NOT_TEXT, WORD)
    for index, neighbors in zip(found.ids, found.neighbors, strict=True):
        assert neighbors.tolist() == reference(table, kinds, table[index], WORD, index)[0][:3]


def test_neighbors_are_cached_by_content(tmp_path):
    messages: list[str] = []
    cache = Cache(tmp_path, messages.append)
    kinds = np.array([NOT_TEXT, WORD, WORD, WORD], np.int8)
    table = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    first = TokenTable(table, kinds).neighbors([1, 2, 2], 2, cache)
    assert not messages
    again = TokenTable(table.clone(), kinds).neighbors([2, 1], 2, cache)
    assert [message.partition(" (")[0] for message in messages] == ["component: found in the cache"]
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    TokenTable(table, kinds).neighbors([1, 2], 1, cache)
    TokenTable(table.flip(1), kinds).neighbors([1, 2], 2, cache)
    assert len(messages) == 1


def test_fewer_than_one_neighbor_is_refused():
    with pytest.raises(CompatibilityError, match="ask for at least 1"):
        TokenTable(torch.eye(2), np.array([WORD, WORD], np.int8)).neighbors([0], 0)
