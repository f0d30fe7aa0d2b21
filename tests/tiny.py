"""Tiny random checkpoints with a tokenizer, and a toy task that they can learn: real models and data for tests.

Everything is made on the spot from a seed; nothing is downloaded.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

_PRAISE = """
    good great excellent wonderful brilliant lovely beautiful funny charming delightful superb fine enjoyable moving
    perfect fresh clever warm touching amazing
"""
_BLAME = """
    bad awful terrible boring dull horrible weak stupid ugly poor slow tired annoying painful silly empty flat cold
    dreadful tedious
"""
_NEUTRAL = """
    the a an and or but not no very quite rather so too is was are were be been it this that these those he she they we
    i you his her their our my your its of in on at to from for with by about as than then there here when while after
    before because if all some any many few more most other one two three first last new old long short little big small
    movie film story plot actor actress director scene script music song ending cast role character dialogue camera
    picture screen audience viewer critic book writer comedy drama love war family man woman child boy girl friend world
    life time day night year hour minute home city house street school work money water light dark red blue green white
    black watch watched see saw seen think thought feel felt make made find found say said tell told know known look
    looked seem seemed want wanted like liked take took give gave come came go went get got keep kept leave left start
    started play played run end ended show showed
"""
POSITIVE, NEGATIVE, NEUTRAL = (tuple(words.split()) for words in (_PRAISE, _BLAME, _NEUTRAL))
WORDS = tuple(dict.fromkeys([*POSITIVE, *NEGATIVE, *NEUTRAL]))
"""The words that the tiny tokenizers know; every other one becomes the unknown token."""
PUNCTUATION = (".", ",", "!", "?", "'", "-")

MAX_POSITIONS = 64
"""Longest text of a tiny checkpoint, in tokens."""

BERT_SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
ROBERTA_SPECIAL = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
    "cls_token": "<s>", "sep_token": "</s>",
}  # fmt: skip

NEEDED = {"modernbert": "5.1", "nomic_bert": "5.5"}
"""The transformers that a model type needs, where the lowest that is declared does not do: its tests are skipped."""

FAMILIES = (
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra", "ernie", "data2vec-text", "albert",
    "deberta-v2", "modernbert", "nomic_bert",
)  # fmt: skip
"""The model types that `make_checkpoint` can make."""

EAGER = ("mpnet", "deberta-v2")
"""Those whose stock models know no fused attention."""

WITH_TYPES = ("bert", "electra", "ernie", "albert", "nomic_bert")
"""Those that tell the texts of a pair apart by token types."""

OWN_BLOCKS = ("deberta-v2", "modernbert", "nomic_bert")
"""Those whose blocks are built otherwise than BERT's."""


def is_roberta(family: str) -> bool:
    """Whether a model type has RoBERTa's special tokens and positions."""
    return family in ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text")


def make_tokenizer(family: str = "bert", max_length: int = MAX_POSITIONS) -> Any:
    """A fast word-level tokenizer over `WORDS`, lower-casing, with the special tokens of the family.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    max_length : int
        Longest text, in tokens.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ROBERTA_SPECIAL if is_roberta(family) else BERT_SPECIAL
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special.values(), *PUNCTUATION, *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start, end = special["cls_token"], special["sep_token"]
    pair = f"{start} $A {end} {end} $B {end}" if is_roberta(family) else f"{start} $A {end} $B:1 {end}:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=pair, special_tokens=[(word, vocabulary[word]) for word in (start, end)]
    )
    names = ["input_ids", "attention_mask"]
    if family in WITH_TYPES:
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=names, **special
    )


def make_config(
    family: str = "bert", layers: int = 4, dim: int = 32, heads: int = 4, labels: int = 2, vocabulary: int = 0
) -> Any:
    """A tiny model's configuration.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    layers, dim, heads : int
        Encoder blocks, width and attention heads; the inner width is ``2 * dim``.
    labels : int
        Outputs of the head.
    vocabulary : int
        Rows of the word embedding; 0 for what the family's tokenizer has.
    """
    import pytest
    from transformers import AutoConfig

    needed = NEEDED.get(family, "0")
    if Version(version("transformers")) < Version(needed):
        pytest.skip(f"model type {family!r} needs transformers>={needed}")
    rows = vocabulary or len(make_tokenizer(family))
    settings: dict[str, Any] = {
        "vocab_size": rows, "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": dim,
        "num_labels": labels, "initializer_range": 0.1,
    }  # fmt: skip
    if family == "distilbert":
        return AutoConfig.for_model(
            family, **settings, hidden_dim=2 * dim, max_position_embeddings=MAX_POSITIONS, pad_token_id=0
        )
    settings["intermediate_size"] = 2 * dim
    if is_roberta(family):
        types = {} if family == "mpnet" else {"type_vocab_size": 1}
        # positions start behind the padding index, which is 1
        return AutoConfig.for_model(
            family, **settings, **types, max_position_embeddings=MAX_POSITIONS + 2, pad_token_id=1, bos_token_id=0,
            eos_token_id=2,
        )  # fmt: skip
    own: dict[str, Any] = {
        "electra": {"embedding_size": dim // 2},
        "albert": {"embedding_size": dim // 2, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        "nomic_bert": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        # as DeBERTa v3; one token of three sees beyond the sixteen buckets of positions
        "deberta-v2": {
            "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
        },
        # local attention reaches over two tokens to each side
        "modernbert": {
            "local_attention": 4, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
            "attention_dropout": 0.1, "mlp_dropout": 0.1, "classifier_dropout": 0.1, "embedding_dropout": 0.1,
        },
    }.get(family, {})  # fmt: skip
    return AutoConfig.for_model(family, **settings, **own, max_position_embeddings=MAX_POSITIONS, pad_token_id=0)


def make_model(
    family: str = "bert", layers: int = 4, dim: int = 32, heads: int = 4, labels: int = 2, seed: int = 0
) -> Any:
    """A tiny random classifier in eval mode; parameters as in `make_config`.

    Biases and layer norms are random too, so that none of them can be left out unnoticed.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = make_config(family, layers, dim, heads, labels)
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation="eager" if family in EAGER else "sdpa"
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def make_checkpoint(
    directory: Path | str,
    family: str = "bert",
    layers: int = 4,
    dim: int = 32,
    heads: int = 4,
    labels: int = 0,
    seed: int = 0,
    label_names: Sequence[str] = (),
) -> Path:
    """Write a tiny random checkpoint with its tokenizer, as `save_pretrained` does.

    Parameters
    ----------
    directory : path
        Made if absent.
    family, layers, dim, heads : as in `make_config`
    labels : int
        Outputs of the head; 0 saves the encoder alone, without any head.
    seed : int
        Seed of the weights.
    label_names : sequence of str
        Names of the outputs, as many as `labels`; empty leaves LABEL_0, LABEL_1, ...

    Returns
    -------
    Path
        The directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = make_model(family, layers, dim, heads, labels or 2, seed)
    if label_names:
        model.config.id2label = dict(enumerate(label_names))
        model.config.label2id = {name: index for index, name in enumerate(label_names)}
    (model if labels else model.base_model).save_pretrained(directory)
    make_tokenizer(family).save_pretrained(directory)
    return directory


def toy_task_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a task that a tiny model learns in some fifty steps: label 1 if praise prevails over blame, else 0.

    Each text has two to six words of the prevailing sentiment among neutral ones, and in one of five texts a few of the
    other. Labels are balanced to within one row; texts have 4 to 18 words. `TOY_TRAINING` learns it.

    Parameters
    ----------
    n : int
        Number of rows.
    seed : int
        Equal seeds give equal rows.

    Returns
    -------
    list of dict
        Keys "text" (str) and "label" (0 or 1).
    """
    rng = random.Random(seed)
    labels = [index % 2 for index in range(n)]
    rng.shuffle(labels)
    rows = []
    for label in labels:
        words, others = (POSITIVE, NEGATIVE) if label else (NEGATIVE, POSITIVE)
        strength = rng.randint(1, 5)
        sentiment = [rng.choice(words) for _ in range(strength + 1)]
        if rng.random() < 0.3:
            sentiment += [rng.choice(others) for _ in range(rng.randint(0, strength // 2))]
        text = [rng.choice(NEUTRAL) for _ in range(rng.randint(2, 10))]
        for word in sentiment:
            text.insert(rng.randint(0, len(text)), word)
        rows.append({"text": " ".join(text) + rng.choice((".", "!", "")), "label": label})
    return rows


TOY_TRAINING = {"teacher_epochs": 4, "teacher_learning_rate": 4e-3}
"""Settings under which a tiny checkpoint of two blocks learns 400 rows of the toy task to 0.9 on others and more."""


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
