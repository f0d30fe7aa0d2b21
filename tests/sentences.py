"""Tiny sentence encoders in the layout of sentence-transformers, pairs of texts, and settings of a run with both."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import toyrun
from numpy.typing import NDArray


def make_folder(
    path: Path,
    family: str = "bert",
    pooling: str = "mean",
    *,
    modules: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    folder: str = "",
    prompts: dict[str, str] | None = None,
    default: str | None = None,
    **pooling_fields: Any,
) -> Path:
    """A folder of sentence-transformers with a tiny encoder, at its root or in a folder of it."""
    tiny.make_checkpoint(path / folder, family)
    places = {"Transformer": folder, "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": places.get(kind, kind), "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    write(path / "modules.json", listed)
    modes = {f"pooling_mode_{mode}": mode == f"{pooling}_token{'s' * (pooling == 'mean')}" for mode in
             ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}  # fmt: skip
    write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **modes, **pooling_fields})
    if prompts is not None:
        write(path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": default})
    return path


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def pairs(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of two texts and a number that says nothing of them."""
    one, two = tiny.toy_task_rows(n, seed), tiny.toy_task_rows(n, seed + 99)
    rng = random.Random(seed)
    return [
        {"one": a["text"], "two": b["text"], "score": round(5 * rng.random(), 2)} for a, b in zip(one, two, strict=True)
    ]


def settings(folder: Path, teacher: Path, **overrides: Any) -> dict[str, Any]:
    """Settings of a run on pairs with labels."""
    train, validation = folder / "pairs.jsonl", folder / "other_pairs.jsonl"
    if not train.exists():
        tiny.write_jsonl(train, pairs(120, seed=1))
        tiny.write_jsonl(validation, pairs(40, seed=2))
    own = {
        "train_file": str(train), "validation_file": str(validation), "task_kind": "embeddings", "text_column": "one",
        "text_pair_column": "two", "label_column": "score", "rounds": 2,
    }  # fmt: skip
    found = toyrun.toy_settings(folder, teacher, **{**own, **overrides})
    return {name: value for name, value in found.items() if name not in tiny.TOY_TRAINING}


def by_hand(folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """The embeddings that a folder makes by plain transformers and what its files say."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    said = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    prompt = said["prompts"].get(said["default_prompt_name"], "")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    given = tokenizer([prompt + text for text in texts], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state.double().numpy()
    real = given["attention_mask"].numpy()[..., None]
    pooled = states[:, 0] if pooling["pooling_mode_cls_token"] else (states * real).sum(1) / real.sum(1)
    found: NDArray[np.float32] = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(np.float32)
    return found
