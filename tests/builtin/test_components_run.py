"""Each further component in a short run of the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toyrun import toy_run

DIM = 32
"""Width of the tiny teacher's vectors."""

K = {"k": 8}

CHOICES: list[dict[str, Any]] = [
    {"reducer": "random_projection", "inverter": "native", "sampler": "low_loss", "lift": "scale_shift"},
    {"reducer": "identity", "n_components": DIM, "inverter": "native", "sampler_options": {**K, "jitter": 0}},
    {"sampler": "kl_max", "inverter": "local_affine", "lift": "replace", "filter": "density"},
    {"sampler": "boundary", "inverter": "rbf", "lift": "replace_random", "filter": "teacher_confidence"},
    {"sampler": "cluster", "lift": "pooled", "filter": "agreement_with_anchor"},
    {"sampler": "gaussian", "lift": "replace", "lift_options": {"source": "any"}},
    {"sampler": "smote", "lift": "replace", "filter": "density"},
    {"sampler": "shuffled", "lift": "scale_shift", "filter": "agreement_with_anchor"},
    {"sampler": "mixup", "lift": "mixup", "sampler_options": {}},
    {"sampler": "adversarial", "lift": "shift"},
    {"reducer": "autoencoder", "inverter": "native", "reducer_options": {"epochs": 5}},
    {"reducer": "vae", "inverter": "decoder", "reducer_options": {"epochs": 5}, "inverter_options": {"epochs": 5}},
    {"reducer": "pca", "landmarks": 60, "landmark_choice": "kmeans++", "n_components": 8, "inverter": "native"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("components")


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: "-".join(map(str, choices.values()))[:60])
def test_a_run_ends_well_and_has_synthetic_examples(folder: Path, tiny_bert: Path, choices: dict[str, Any]) -> None:
    _, summary = toy_run(folder, tiny_bert, **{"sampler_options": K, "rounds": 2, **choices})
    last = summary["rounds"][1]
    assert last["synthetic"] > 0
    assert last["synthetic"] + last["dropped"] == 270
    assert np.isfinite(last["train_loss"])


@pytest.mark.parametrize(("reducer", "n_components"), [("random_projection", 3), ("identity", DIM)])
def test_a_map_from_the_cache_gives_the_same_run(
    folder: Path, tiny_bert: Path, reducer: str, n_components: int
) -> None:
    choices = {"reducer": reducer, "n_components": n_components, "inverter": "native", "sampler_options": K}
    (_, first), (_, again) = (
        toy_run(folder, tiny_bert, rounds=2, runs_dir=str(folder / number), **choices) for number in ("one", "two")
    )
    assert first["rounds"][1]["train_loss"] == again["rounds"][1]["train_loss"]
