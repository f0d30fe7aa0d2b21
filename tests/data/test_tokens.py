from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import NEUTRAL, make_tokenizer

from sage_kit.data import Split, tokenize
from sage_kit.data import tokens as tokens_module
from sage_kit.data.tokens import TokenWriter, concatenated, tokenize_placed, unknown_shares
from sage_kit.errors import CompatibilityError

TEXTS = ["The movie was good.", "bad", "a very long and boring story about the city and the people of the city"]
PAIRS = ["It was a great film.", "", "Not funny!"]


@pytest.fixture(params=["bert", "roberta", "distilbert", "mpnet"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return make_tokenizer(request.param)


def make_split(texts: list[str], pairs: list[str] | None = None) -> Split:
    return Split("train", texts, pairs, np.zeros(len(texts), np.int64))


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("max_length", [9, 64])
def test_flat_tokens_are_what_the_tokenizer_gives_for_each_example(
    tokenizer: Any, pairs: list[str] | None, max_length: int
) -> None:
    tokens = tokenize(make_split(TEXTS, pairs), tokenizer, max_length)
    assert (tokens.ids.dtype, tokens.types.dtype, tokens.offsets.dtype) == (np.int32, np.uint8, np.int64)
    assert len(tokens) == 3
    for row, text in enumerate(TEXTS):
        # as a batch of one: a call with two plain texts takes an empty second one for none
        other = [pairs[row]] if pairs else None
        one = tokenizer([text], other, truncation="longest_first", max_length=max_length)
        ids = one["input_ids"][0]
        inside = slice(tokens.offsets[row], tokens.offsets[row + 1])
        assert tokens.ids[inside].tolist() == ids
        assert tokens.types[inside].tolist() == one.get("token_type_ids", [[0] * len(ids)])[0]
        assert tokens.lengths[row] == len(ids) <= max_length
    assert (tokens.types.max() == 1) == (pairs is not None and "token_type_ids" in tokenizer.model_input_names)


def test_a_pair_loses_tokens_of_the_longer_text_first() -> None:
    tokenizer = make_tokenizer("bert")
    tokens = tokenize(make_split(["good film"], [TEXTS[2]]), tokenizer, 8)
    first = tokenizer("good film", add_special_tokens=False)["input_ids"]
    assert tokens.ids[1:3].tolist() == first
    assert tokens.lengths.tolist() == [8]


def test_padding_goes_right_and_agrees_with_the_tokenizer(tokenizer: Any) -> None:
    tokens = tokenize(make_split(TEXTS, PAIRS), tokenizer, 64)
    ids, types, mask = tokens.pad(np.array([2, 0]))
    expected = tokenizer([TEXTS[2], TEXTS[0]], [PAIRS[2], PAIRS[0]], padding=True, return_tensors="pt")
    assert (ids.dtype, types.dtype, mask.dtype) == (torch.int64, torch.int64, torch.bool)
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())
    assert torch.equal(types, expected.get("token_type_ids", torch.zeros_like(ids)))


def test_the_last_example_is_padded_like_any_other() -> None:
    tokenizer = make_tokenizer("bert")
    ids, _, mask = tokenize(make_split([TEXTS[2], "bad"]), tokenizer, 64).pad(np.array([0, 1]))
    assert mask.sum(dim=1).tolist() == [ids.shape[1], 3]
    assert ids[1].tolist() == tokenizer("bad")["input_ids"] + [tokenizer.pad_token_id] * (ids.shape[1] - 3)


def test_padding_of_one_and_of_no_example() -> None:
    tokens = tokenize(make_split(TEXTS), make_tokenizer("bert"), 64)
    ids, _, mask = tokens.pad(np.array([1]))
    assert ids.shape == (1, 3)
    assert mask.all()
    assert all(tensor.shape == (0, 0) for tensor in tokens.pad(np.empty(0, np.int64)))


def test_the_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    split, tokenizer = make_split(TEXTS * 5, PAIRS * 5), make_tokenizer("bert")
    whole = tokenize(split, tokenizer, 10)
    monkeypatch.setattr(tokens_module, "CHUNK_ROWS", 4)
    assert tokenize(split, tokenizer, 10).fingerprint == whole.fingerprint


def test_tokens_of_several_splits_in_one() -> None:
    tokenizer = make_tokenizer()
    parts = [tokenize(make_split(TEXTS), tokenizer, 64), tokenize(make_split([]), tokenizer, 64)]
    parts.append(tokenize(make_split(TEXTS, PAIRS), tokenizer, 64))
    found = concatenated(parts)
    assert len(found) == 6
    assert found.offsets.dtype == np.int64
    for row, (part, own) in enumerate([(parts[0], row) for row in range(3)] + [(parts[2], row) for row in range(3)]):
        one, expected = found.take(np.array([row])), part.take(np.array([own]))
        assert one.fingerprint == expected.fingerprint
        np.testing.assert_array_equal(one.special, expected.special)
        np.testing.assert_array_equal(one.second, expected.second)


def test_a_split_without_rows_has_no_tokens() -> None:
    tokens = tokenize(make_split([]), make_tokenizer("bert"), 16)
    assert (len(tokens), tokens.ids.shape, tokens.types.shape, tokens.offsets.tolist()) == (0, (0,), (0,), [0])


def test_the_tokenizer_is_left_as_it_was(tokenizer: Any) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    tokenize(make_split(TEXTS), tokenizer, 8)
    assert tokenizer.backend_tokenizer.to_str() == before
    tokenizer.backend_tokenizer.enable_truncation(max_length=20)
    tokenizer.backend_tokenizer.enable_padding(length=30, pad_id=0)
    before = tokenizer.backend_tokenizer.to_str()
    tokenize(make_split(TEXTS), tokenizer, 8)
    assert tokenizer.backend_tokenizer.to_str() == before


def test_the_fingerprint_follows_the_contents() -> None:
    tokenizer = make_tokenizer("bert")
    whole = tokenize(make_split(TEXTS), tokenizer, 64)
    assert whole.fingerprint == tokenize(make_split(list(TEXTS)), tokenizer, 64).fingerprint
    others = [
        tokenize(make_split(TEXTS[::-1]), tokenizer, 64),
        tokenize(make_split(TEXTS), tokenizer, 8),
        replace(whole, types=whole.types + np.uint8(1)),
        replace(whole, offsets=np.sort(np.r_[whole.offsets, 3])),
    ]
    assert len({tokens.fingerprint for tokens in (whole, *others)}) == 5


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("length", [64, 8])
def test_special_tokens_and_second_texts_are_those_of_the_tokenizer(family: str, length: int) -> None:
    tokenizer = make_tokenizer(family)
    for pairs in (None, PAIRS, ["", *PAIRS[1:]]):
        texts = TEXTS if pairs is None else [TEXTS[0], "", *TEXTS[2:]]
        tokens = tokenize(make_split(texts, pairs), tokenizer, length)
        for row in range(len(texts)):
            # in lists, for an empty second text would count as none
            both = [texts[row]], None if pairs is None else [pairs[row]]
            expected = tokenizer(*both, truncation="longest_first", max_length=length)
            own = slice(tokens.offsets[row], tokens.offsets[row + 1])
            parts = expected.sequence_ids(0)
            assert tokens.special[own].tolist() == [part is None for part in parts]
            assert tokens.second[own].tolist() == [part == 1 for part in parts]


def test_batches_and_parts_of_the_tokens() -> None:
    tokens = tokenize(make_split(TEXTS, PAIRS), make_tokenizer("bert"), 64)
    rows = np.array([2, 0])
    batch = tokens.batch(rows, torch.device("cpu"))
    ids, types, mask = tokens.pad(rows)
    assert torch.equal(batch.ids, ids)
    assert torch.equal(batch.types, types)
    assert torch.equal(batch.mask, mask)
    assert not (batch.special & ~mask).any()
    assert not (batch.words & batch.special).any()
    taken = tokens.take(rows)
    writer = TokenWriter(None)
    for part in (tokens.batch(rows[1:], torch.device("cpu")), batch):
        writer.append_batch(part)
    again = writer.finish(7)
    for name in ("ids", "types", "special", "second"):
        whole = [getattr(tokens, name)[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]
        np.testing.assert_array_equal(getattr(taken, name), np.concatenate(whole))
        np.testing.assert_array_equal(getattr(again, name), np.concatenate([whole[1], whole[0], whole[1]]))
        assert getattr(again, name).dtype == getattr(tokens, name).dtype
    assert again.pad_id == 7
    assert np.diff(again.offsets).tolist() == [len(values) for values in (whole[1], whole[0], whole[1])]
    assert len(tokens.take(np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize(("family", "pairs", "least"), [("bert", None, 3), ("bert", PAIRS, 5), ("roberta", PAIRS, 6)])
def test_a_length_without_room_for_text_is_an_error(family: str, pairs: list[str] | None, least: int) -> None:
    split, tokenizer = make_split(TEXTS, pairs), make_tokenizer(family)
    with pytest.raises(CompatibilityError, match=rf"max_length is {least - 1}, .* set at least {least}$"):
        tokenize(split, tokenizer, least - 1)
    assert tokenize(split, tokenizer, least).lengths.max() == least


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_shares_of_unknown_tokens_and_of_texts_without_a_known_one(family):
    tokenizer = make_tokenizer(family)
    texts = ["a good film", "qq ww", "qq good", "qq"]
    split = Split("train", texts, None, np.zeros(4, np.int64))
    assert unknown_shares(tokenize(split, tokenizer, 16), tokenizer) == (4 / 8, 2 / 4)
    split = Split("train", texts[:1], None, np.zeros(1, np.int64))
    assert unknown_shares(tokenize(split, tokenizer, 16), tokenizer) == (0, 0)
    # text of which nothing is left counts as unknown
    split = Split("train", ["   "], None, np.zeros(1, np.int64))
    assert unknown_shares(tokenize(split, tokenizer, 16), tokenizer) == (1, 1)


def words(count: int, start: int = 0) -> list[str]:
    return [NEUTRAL[(start + number) % len(NEUTRAL)] for number in range(count)]


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("max_length", [6, 7, 9, 16, 40])
def test_a_first_text_that_leaves_no_room_is_cut_to_half(family: str, max_length: int) -> None:
    """Every word of the second text is read, whatever the length of the first; which were cut is told."""
    tokenizer = make_tokenizer(family)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [2, 50, 3, max(1, max_length // 2 - special)]
    firsts, seconds = [" ".join(words(count)) for count in lengths], [" ".join(words(30, count)) for count in lengths]
    found = tokenize_placed(firsts, seconds, tokenizer, max_length, places=True, overlap=max_length // 3)
    most = max(1, max_length // 2 - special)
    assert found.shortened.tolist() == [row for row, count in enumerate(lengths) if count > most]
    assert found.places is not None
    assert found.tokens.lengths.max() <= max_length
    for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        seen = []
        for window in np.flatnonzero(found.row_of == row):
            own = slice(*found.tokens.offsets[window : window + 2])
            parts = {True: [], False: []}
            for is_second, is_special, (start, end) in zip(
                found.tokens.second[own], found.tokens.special[own], found.places[own], strict=True
            ):
                if not is_special:
                    parts[bool(is_second)].append((second if is_second else first)[start:end])
            assert parts[False] == first.split()[:most]
            if seen:
                shared = min(max_length // 3, max_length - special - most - 1)
                assert parts[True][:shared] == seen[len(seen) - shared :]
            seen += [word for word in parts[True] if word not in seen]
        assert seen == second.split()


@pytest.mark.parametrize(("text", "kept"), [("x\u20ac\u20ac", 1), ("\u20ac\u20ac", 0), ("xy\u20ac", 2), ("xy", 2)])
def test_a_character_of_several_tokens_is_not_parted(text: str, kept: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = ["[PAD]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    found = tokenize_placed([text], ["abcdef"], tokenizer, 10, places=True, overlap=3)
    assert found.shortened.tolist() == ([0] if kept < len(text) else [])
    first = ~found.tokens.special & ~found.tokens.second
    assert first.sum() == kept * len(found.row_of)
