"""Texts, a tokenizer and a teacher that are made on the spot, so that nothing needs to be fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sage_kit.models.checkpoints import load_tokenizer, quiet

SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"
}  # fmt: skip

WORDS = 30_517
"""Different words; with the special tokens as many as BERT's vocabulary has."""

TELLING = 0.02
"""Share of the words that are found in texts of the second class alone."""


def write_tokenizer(folder: Path, words: int = WORDS) -> None:
    """A tokenizer of BERT's kind to which each of so many generated words is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *map(_word, range(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    first, last = SPECIAL["cls_token"], SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(word, vocabulary[word]) for word in (first, last)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, model_input_names=names, **SPECIAL
    ).save_pretrained(folder)


def write_texts(path: Path, count: int, tokens: tuple[int, int], *, words: int = WORDS, seed: int = 0) -> None:
    """Texts of two classes, as a file that the setting `train_file` takes.

    Parameters
    ----------
    path : Path
    count : int
    tokens : tuple of int
        Fewest and most tokens of a text, its two special ones included.
    words : int
        Of the tokenizer.
    seed : int
    """
    rng = np.random.default_rng(seed)
    telling = max(1, round(TELLING * words))
    lines = []
    for number in range(count):
        label = number % 2
        drawn = rng.integers(telling, words, int(rng.integers(tokens[0], tokens[1] + 1)) - len(("[CLS]", "[SEP]")))
        if label:
            drawn[rng.integers(0, len(drawn), 1 + len(drawn) // 16)] = rng.integers(telling)
        lines.append(json.dumps({"text": " ".join(map(_word, drawn)), "label": label}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def write_model(folder: Path, shape: Mapping[str, Any], *, outputs: int = 2, seed: int = 0) -> None:
    """A BERT classifier with random weights, or with no outputs an encoder alone, of BERT-base's shape but for what
    `shape` says; `folder` holds its tokenizer already.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    size = len(load_tokenizer(str(folder)))
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model("bert", vocab_size=size, num_labels=outputs or 2, **shape)
        model = AutoModelForSequenceClassification.from_config(config)
        (model if outputs else model.base_model).save_pretrained(folder)


def _word(number: int) -> str:
    """A word of four letters, another one for each number."""
    letters = []
    for _ in range(4):
        number, rest = divmod(number, 26)
        letters.append(chr(ord("a") + rest))
    return "".join(letters)
