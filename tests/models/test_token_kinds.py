from __future__ import annotations

import numpy as np
import pytest
import tiny

from sage_kit.models.token_kinds import NOT_TEXT, PIECE, WORD, token_kinds

TEXTS = [
    "the playing players played a play",
    "unhappily, happier and happy people",
    "naïve cafés 日本語 🙂 off",
] * 4


def wordpiece():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "##er", "the", ",", "#", "##"]
    inner = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tiny.BERT_SPECIAL)


def byte_level():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "madeupword0000"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special[:5], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.add_tokens(special[5:])
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tiny.ROBERTA_SPECIAL)


def unigram():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<0xE2>", "▁", "▁play", "▁the", "ing", ",", "ed"]
    inner = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=3))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tiny.ROBERTA_SPECIAL)


def tokens_of(tokenizer, kinds, kind):
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    return [names[index] for index in np.flatnonzero(kinds == kind) if index in names]


def test_pieces_of_wordpiece_are_marked():
    tokenizer = wordpiece()
    kinds = token_kinds(tokenizer, len(tokenizer) + 3)
    assert kinds.dtype == np.int8
    assert tokens_of(tokenizer, kinds, WORD) == ["play", "the", ",", "#"]
    assert tokens_of(tokenizer, kinds, PIECE) == ["##ing", "##er"]
    assert set(kinds[-3:]) == {NOT_TEXT}


def test_words_of_byte_level_tokens_are_marked_and_parts_of_characters_are_no_text():
    tokenizer = byte_level()
    kinds = token_kinds(tokenizer, len(tokenizer))
    words, pieces = tokens_of(tokenizer, kinds, WORD), tokens_of(tokenizer, kinds, PIECE)
    assert {"Ġa", "Ġplay"} <= set(words)
    assert all(word.startswith("Ġ") for word in words)
    assert {"p", ","} <= set(pieces)
    assert not any(piece.startswith("Ġ") for piece in pieces)
    unread = set(tokens_of(tokenizer, kinds, NOT_TEXT))
    # a space, a line's end, and single bytes of 日, a smiley and an accented letter
    assert {"<s>", "<pad>", "<mask>", "madeupword0000", "Ġ", "Ċ", "æ", "ð", "Ã"} <= unread
    for token in (*words, *pieces):
        text = tokenizer.decode([tokenizer.convert_tokens_to_ids(token)])
        assert text.strip()
        assert "\ufffd" not in text


def test_words_of_sentencepiece_are_marked():
    tokenizer = unigram()
    kinds = token_kinds(tokenizer, len(tokenizer))
    assert tokens_of(tokenizer, kinds, WORD) == ["▁play", "▁the"]
    assert tokens_of(tokenizer, kinds, PIECE) == ["ing", ",", "ed"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_without_marks_every_token_of_text_is_a_word(family):
    tokenizer = tiny.make_tokenizer(family)
    kinds = token_kinds(tokenizer, len(tokenizer))
    assert set(tokens_of(tokenizer, kinds, WORD)) == {*tiny.WORDS, *tiny.PUNCTUATION}
    assert set(kinds[tokenizer.all_special_ids]) == {NOT_TEXT}
    assert PIECE not in kinds


def test_special_tokens_beyond_the_named_ones_are_no_text():
    from tokenizers import AddedToken

    tokenizer = wordpiece()
    tokenizer.add_tokens([AddedToken("[ENTITY]", special=True), AddedToken("drug", special=False)])
    kinds = token_kinds(tokenizer, len(tokenizer))
    assert kinds[tokenizer.convert_tokens_to_ids("[ENTITY]")] == NOT_TEXT
    assert kinds[tokenizer.convert_tokens_to_ids("drug")] == WORD


def test_a_tokenizer_without_rules_is_told_by_its_vocabulary():
    class Slow:
        all_special_ids = (0,)

        def __init__(self, words):
            self.words = words

        def get_vocab(self):
            return {word: index for index, word in enumerate(self.words)}

    assert token_kinds(Slow(["[PAD]", "play", "##ing", "the"]), 4).tolist() == [NOT_TEXT, WORD, PIECE, WORD]
    assert token_kinds(Slow(["<pad>", "play</w>", "ing", "the</w>"]), 4).tolist() == [NOT_TEXT, WORD, PIECE, WORD]
    # one odd word is no mark
    many = ["[PAD]", "##", *(f"word{index}" for index in range(100)), "##tag"]
    assert token_kinds(Slow(many), len(many)).tolist() == [NOT_TEXT, *[WORD] * 102]
