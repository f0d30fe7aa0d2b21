"""A run directory of any size that no training made: what the explorer reads, with texts, maps, losses and tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import RoundResult
from sage_kit.config import load_config, to_toml
from sage_kit.data.scoring import load_scored
from sage_kit.data.tokens import Tokens, tokenize_placed
from sage_kit.rundir.loss_profiles import write_loss_profile
from sage_kit.synthesis.synthetic_set import SyntheticSet

DEV = 100


def generated_run(
    folder: Path,
    texts: Sequence[str],
    tokenizer: Any,
    *,
    rounds: int = 3,
    share: float = 0.2,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Write a finished run of the task ``file`` and its data.

    Parameters
    ----------
    folder : Path
        Gets ``train.jsonl``, ``validation.jsonl`` and the run directory ``run``.
    texts : sequence of str
        More than `DEV`, which are those of dev; the others are trained on.
    tokenizer : PreTrainedTokenizerBase
    rounds : int
        The first has no synthetic examples.
    share : float
        Synthetic examples of a round, as a share of the training examples.
    seed : int
    **settings
        Others of the run.

    Returns
    -------
    Path
        The run directory.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, len(texts))
    examples = len(texts) - DEV
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", len(texts)), ("validation", 100)):
        rows = ({"text": text, "label": int(label)} for text, label in zip(texts[:count], labels, strict=False))
        _write_rows(folder / f"{name}.jsonl", rows)
    path = folder / "run"
    config = load_config(
        {
            "task": "file", "train_file": str(folder / "train.jsonl"), "dev_rows": DEV, "max_length": 32,
            "validation_file": str(folder / "validation.jsonl"), "teacher": str(folder / "no_teacher"),
            "rounds": rounds, "reducer": "pca", "cache_dir": str(folder / "cache"), **settings,
        }
    )  # fmt: skip
    path.mkdir()
    (path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    tokenizer.save_pretrained(path / "student")
    centres = rng.normal(size=(12, 2)) * 3
    coordinates = (centres[rng.integers(0, 12, examples)] + rng.normal(size=(examples, 2)) * 0.6).astype(np.float32)
    save_file({"coordinates": coordinates}, path / "map.safetensors")
    hardness = np.exp(np.sin(coordinates).sum(1) * 1.5 - 3)
    history = []
    train = load_scored(Plugins(allow=""), config, lambda text: None).train.texts  # in the order of the run
    for number in range(1, rounds + 1):
        losses = hardness * rng.lognormal(0, 0.5, examples) / number
        made = int(share * examples) if number > 1 else 0
        if made:
            _synthetic(number, made, coordinates, train, tokenizer, rng).save(
                path / "rounds" / f"{number:03d}" / "synthetic.safetensors"
            )
        # in the order of a run: the folder of a round is new when its synthetic examples are written
        write_loss_profile(path, number, losses.astype(np.float32))
        scores = {"accuracy": 0.8 + 0.02 * number, "agreement": 0.85 + 0.02 * number}
        history.append(
            RoundResult(number, 100, 100 * number, float(losses.mean()), 0.9, 0.1, made, 0, scores, {}, 1.0, 0.02)
        )
    scores = dict(history[-1].dev)
    summary = {
        "task": "file", "primary_metric": "accuracy", "rounds": [one.to_json() for one in history],
        "parameters": {"student": 10, "teacher": 20}, "examples": {"train": examples, "dev": DEV}, "dev": dict(scores),
        "validation": {"validation": dict(scores)}, "evaluation": {}, "exported_round": rounds, "seconds": 12.0,
        "teacher": {"dev": {"accuracy": 0.95}, "validation": {"validation": {"accuracy": 0.94}}, "evaluation": {}},
        "stopped": f"{rounds} rounds are done", "student_steps": 100 * rounds, "disabled_observers": {},
    }  # fmt: skip
    costs = {"seconds": {"student": 9.0, "teacher": 3.0}, "tokens": {"student": 1000}, "flops": {"student": 10**12}}
    for name, table in (("summary", summary), ("costs", costs)):
        (path / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    return path


def _synthetic(
    number: int, made: int, coordinates: Any, texts: Sequence[str], tokenizer: Any, rng: np.random.Generator
) -> SyntheticSet:
    """Synthetic examples of random anchors, two words of each exchanged for those of other texts."""
    anchors = rng.integers(0, len(coordinates), made)
    rows = [texts[anchor].split() for anchor in anchors]
    for row in rows:
        for place in rng.integers(0, len(row), 2):
            words = texts[int(rng.integers(0, len(texts)))].split()
            row[place] = words[rng.integers(0, len(words))]
    tokens: Tokens = tokenize_placed([" ".join(row) for row in rows], None, tokenizer, 32).tokens
    return SyntheticSet(
        round=number,
        anchors=anchors.astype(np.int64),
        vectors=np.zeros((made, 2), np.float32),
        coordinates=(coordinates[anchors] + rng.normal(size=(made, 2)) * 0.15).astype(np.float32),
        logits=rng.normal(size=(made, 2)).astype(np.float32),
        tokens=tokens,
    )


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
