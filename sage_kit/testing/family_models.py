"""Tiny random models of a family, for its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage_kit.components import FamilySpec
from sage_kit.testing import toy

LAYERS, DIM, LONGEST = 4, 32, 32

SIZES = {
    "hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 2 * DIM,
    "hidden_dim": 2 * DIM, "embedding_size": DIM, "pooler_hidden_size": DIM, "type_vocab_size": 2,
    "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip
"""Values of settings that a configuration may have."""


def tiny_config(family: FamilySpec, model_type: str, vocabulary: int) -> Any:
    """A small configuration of a model type, whose special tokens are the toy tokenizer's.

    Raises
    ------
    ValueError
        When transformers knows no such model type.
    """
    from transformers import AutoConfig

    default = AutoConfig.for_model(model_type)
    settings: dict[str, Any] = {name: value for name, value in SIZES.items() if hasattr(default, name)}
    settings |= {
        name: 2
        for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        if getattr(default, name, None) is not None
    }
    # positions that are counted from the padding index on begin at 1 here
    longest = LONGEST + family.positions_from_padding
    config = AutoConfig.for_model(model_type, **settings, vocab_size=vocabulary, max_position_embeddings=longest)
    if family.example is not None:
        family.example(config)
    return config


def tiny_model(family: FamilySpec, model_type: str, *, head: str = "SequenceClassification", labels: int = 3) -> Any:
    """A random model in eval mode; biases and norms are random, too, so that none can be left out unnoticed."""
    import torch
    import transformers

    config = tiny_config(family, model_type, vocabulary())
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"AutoModelFor{head}").from_config(
            config, attn_implementation=family.attention, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def vocabulary() -> int:
    """Tokens of the toy tokenizer."""
    return len(_tokenizer())


def checkpoint_of(model: Any, folder: Path) -> Path:
    """Write a model with the toy tokenizer."""
    from sage_kit.models.checkpoints import quiet

    with quiet():
        model.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from sage_kit.models.checkpoints import load_tokenizer

    return load_tokenizer(toy.config().teacher)
