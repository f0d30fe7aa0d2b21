"""Tiny masked language models, and what a decoder may use of a teacher made from one, with toy text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

from sage_kit.components import TeacherView, TokenBatch, TokenText
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.families import family_of
from sage_kit.models.split import split_model
from sage_kit.models.teacher import Teacher
from sage_kit.models.view import teacher_view

FAMILIES = (
    "bert", "roberta", "distilbert", "mpnet", "electra", "ernie", "data2vec-text", "albert", "deberta-v2", "modernbert",
    "nomic_bert",
)  # fmt: skip


def make_masked_lm(directory: Path, family: str, seed: int = 3) -> Any:
    """Write a tiny random masked language model with its tokenizer, biases random too; returns the model."""
    from transformers import AutoModelForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(tiny.make_config(family)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(directory)
    tiny.make_tokenizer(family).save_pretrained(directory)
    return model


def encode(family: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[torch.Tensor, ...]:
    """Token ids, types and mask of texts, padded."""
    tokenizer = tiny.make_tokenizer(family)
    encoded = tokenizer(list(texts), list(pairs) if pairs else None, padding=True, return_tensors="pt")
    ids = encoded["input_ids"]
    return ids, encoded.get("token_type_ids", torch.zeros_like(ids)), encoded["attention_mask"].bool()


def view_of_checkpoint(
    path: Path | str,
    bypass: Any = "embeddings",
    texts: Sequence[str] = (),
    held_out: Sequence[str] = (),
    pairs: Sequence[str] | None = None,
) -> TeacherView:
    """The view of a checkpoint taken as a teacher.

    Parameters
    ----------
    path : path
    bypass : "embeddings" or int
    texts, held_out : sequence of str
        Its text.
    pairs : sequence of str or None
        Second texts of `texts`.
    """
    model = load_classifier(str(path)).model
    input_layers, _ = split_model(model, bypass)
    family = str(model.config.model_type)

    def text(rows: Sequence[str], seconds: Sequence[str] | None = None) -> TokenText:
        if not rows:
            nothing = np.zeros((0, input_layers.dim), np.float32)
            no, none = np.zeros(1, np.int64), np.zeros(0, bool)
            return TokenText(np.zeros(0, np.int32), np.zeros(0, np.uint8), no, none, none, nothing)
        ids, types, mask = encode(family, rows, seconds)
        with torch.no_grad():
            states = input_layers(ids, types, mask)
        offsets = np.concatenate([[0], mask.sum(1).cumsum(0).numpy()])
        flat = ids[mask].int().numpy()
        special, second = np.isin(flat, tiny.make_tokenizer(family).all_special_ids), types[mask].bool().numpy()
        arrays = flat, types[mask].to(torch.uint8).numpy(), offsets, special, second, states[mask].numpy()
        for array in arrays:
            array.flags.writeable = False
        return TokenText(*arrays)

    teacher = Teacher(model, tiny.make_tokenizer(family), "mark", True)
    return teacher_view(
        teacher, input_layers, name=str(path), bypass=bypass, train=text(texts, pairs), held_out=text(held_out)
    )


def batch_of(view: TeacherView, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> TokenBatch:
    """The token states of encoded text."""
    return TokenBatch(view.input_layers(ids, types, mask), mask)


def uses_types(model: Any) -> bool:
    """Whether a model tells token types apart."""
    return family_of(model.config).uses_token_types(model.config)
