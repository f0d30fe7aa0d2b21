"""Tokens of two tokenizers matched by their characters, beside a search through all pairs of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from sage_kit.components.plugins import Plugins
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.splits import Split
from sage_kit.data.token_matching import match_positions, match_tokens

TEXTS = ["good old movie", "the quite dreadful ending", "a", "very  very good, but slow", "film"]
SECOND = ["a charming little story", "not bad", "it was so dull", "", "we liked the music"]


def pieces(length: int, family: str = "bert") -> Any:
    """A tokenizer that cuts words into pieces of so many letters, with the special tokens of a family."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = tiny.ROBERTA_SPECIAL if tiny.is_roberta(family) else tiny.BERT_SPECIAL
    words = {text[i : i + length] for word in tiny.WORDS for text in [word] for i in range(0, len(text), length)}
    names = list(dict.fromkeys([*special.values(), *tiny.PUNCTUATION, *sorted(words)]))
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    cut = pre_tokenizers.Split(Regex(f"\\w{{1,{length}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), cut])
    start, end = special["cls_token"], special["sep_token"]
    pair = f"{start} $A {end} {end} $B {end}" if tiny.is_roberta(family) else f"{start} $A {end} $B:1 {end}:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=pair, special_tokens=[(word, vocabulary[word]) for word in (start, end)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


def encoded(tokenizer: Any, *, pairs: bool = False, length: int = 64, kind: str = "", prefix: str = "") -> EncodedSplit:
    plugins = Plugins(allow="").use()
    labels: Any = np.zeros(len(TEXTS), np.int64)
    if kind == "tags":
        labels = np.empty(len(TEXTS), object)
        labels[:] = [("O",) * len(text.split()) for text in TEXTS]
    from dataclasses import replace

    spec = plugins.task("file", {}, file_kind=kind or "classification")
    spec = replace(spec, labels=("O", "B-GOOD") if kind == "tags" else ("0", "1"))
    split = Split("train", TEXTS, SECOND if pairs else None, labels)
    return encode(split, spec, tokenizer, length, prefix, places=True)


def by_search(own: EncodedSplit, theirs: EncodedSplit) -> list[set[int]]:
    """For each token, those of the other tokenizer that share a character with it, one pair at a time."""
    found = []
    for sequence in range(len(own.tokens)):
        mine, other = (range(*one.tokens.offsets[sequence : sequence + 2]) for one in (own, theirs))
        for token in mine:
            found.append(
                {place for place in other if _share(own, token, theirs, place)}
                if not own.tokens.special[token]
                else {
                    place
                    for place in other
                    if theirs.tokens.special[place] and _role(own, mine, token) == _role(theirs, other, place)
                }
            )
    return found


def _share(own: EncodedSplit, token: int, theirs: EncodedSplit, place: int) -> bool:
    assert own.texts.places is not None
    assert theirs.texts.places is not None
    if theirs.tokens.special[place] or own.tokens.second[token] != theirs.tokens.second[place]:
        return False
    (start, end), (their_start, their_end) = own.texts.places[token], theirs.texts.places[place]
    return bool(start < their_end and their_start < end)


def _role(encoded: EncodedSplit, sequence: range, token: int) -> str:
    """Where a special token stands: in front, between or behind."""
    text = [place for place in sequence if not encoded.tokens.special[place]]
    if token == sequence[0]:
        return "front"
    return "between" if token < text[-1] else "behind"


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("own", "theirs"), [(2, 3), (3, 2), (4, 1), (30, 2), (2, 30)])
@pytest.mark.parametrize("families", [("bert", "roberta"), ("roberta", "bert"), ("bert", "bert")])
def test_matches_are_those_of_a_search(own: int, theirs: int, families: tuple[str, str], pairs: bool) -> None:
    mine = encoded(pieces(own, families[0]), pairs=pairs)
    other = encoded(pieces(theirs, families[1]), pairs=pairs)
    match = match_tokens(mine, other)
    expected = by_search(mine, other)
    assert not match.alone.any()
    for first, last, wanted in zip(match.first, match.last, expected, strict=True):
        assert set(range(first, last)) == wanted


def test_the_same_tokenizer_gives_the_same_tokens() -> None:
    match = match_tokens(encoded(pieces(3)), encoded(pieces(3)))
    assert (match.first == np.arange(len(match.first))).all()
    assert (match.last == match.first + 1).all()


def test_means_are_of_all_counterparts() -> None:
    mine, other = encoded(pieces(3)), encoded(pieces(2))
    match = match_tokens(mine, other)
    states = np.random.default_rng(0).normal(size=(len(other.tokens.ids), 2, 5)).astype(np.float16)
    out = np.zeros((len(mine.tokens.ids), 2, 5), np.float32)
    match.mean(states, out)
    wanted = [states[sorted(places)].astype(np.float64).mean(axis=0) for places in by_search(mine, other)]
    np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_text_that_the_other_tokenizer_cuts_takes_the_nearest_token() -> None:
    mine, other = encoded(pieces(30)), encoded(pieces(2), length=7)
    match = match_tokens(mine, other)
    assert match.alone.any()
    for token in np.flatnonzero(match.alone):
        sequence = int(np.searchsorted(mine.tokens.offsets, token, side="right")) - 1
        begin, end = other.tokens.offsets[sequence : sequence + 2]
        assert begin <= match.first[token] < end
        assert match.last[token] == match.first[token] + 1
        # the last piece of text that is left, or the special token behind it
        assert match.first[token] >= end - 2


def test_a_prefix_counts_in_front() -> None:
    mine, other = encoded(pieces(3), prefix="good: "), encoded(pieces(2))
    match = match_tokens(mine, other)
    first = mine.tokens.offsets[:-1]
    assert (match.first[first] == other.tokens.offsets[:-1]).all()
    of_text = [list(range(a, b)) for a, b in zip(match.first, match.last, strict=True)]
    plain = match_tokens(encoded(pieces(3)), other)
    expected = [list(range(a, b)) for a, b in zip(plain.first, plain.last, strict=True)]
    for sequence, begin in enumerate(first):
        own = of_text[begin : mine.tokens.offsets[sequence + 1]]
        start, end = encoded(pieces(3)).tokens.offsets[sequence : sequence + 2]
        assert own[-(end - start - 1) :] == expected[start + 1 : end]


@pytest.mark.parametrize(("own", "theirs"), [(2, 3), (3, 2), (30, 1)])
def test_words_are_matched_at_their_first_tokens(own: int, theirs: int) -> None:
    mine, other = encoded(pieces(own), kind="tags"), encoded(pieces(theirs, "roberta"), kind="tags")
    found = match_positions(mine, other)
    assert ((found >= 0) == mine.alignment.positions).all()
    # both have the words in the same order
    assert (found[found >= 0] == np.flatnonzero(other.alignment.positions)).all()


def test_words_that_are_cut_have_no_match() -> None:
    mine, other = encoded(pieces(30), kind="tags"), encoded(pieces(2), kind="tags", length=6)
    found = match_positions(mine, other)
    missed = mine.alignment.positions & (found < 0)
    assert missed.sum() == mine.alignment.positions.sum() - other.alignment.positions.sum()
    assert missed.any()
