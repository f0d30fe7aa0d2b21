"""What lifts may ask about a teacher's tokens, against its embedding table in float64, and in a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toyrun import toy_config, toy_run

from sage_kit.components import Vocabulary
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.models.token_kinds import NOT_TEXT, token_kinds
from sage_kit.recipe import resolve
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Prepared:
    config = toy_config(tmp_path_factory.mktemp("vocabulary"), tiny_bert)
    return prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())


def table_of(prepared: Prepared) -> tuple[Any, Any]:
    table = prepared.teacher.model.get_input_embeddings().weight.detach().double().numpy()
    return table, token_kinds(prepared.teacher.tokenizer, len(table))


def test_the_nearest_tokens_are_those_of_the_table(prepared: Prepared) -> None:
    table, kinds = table_of(prepared)
    directions = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    ids = np.unique(prepared.train.tokens.ids)
    ids = ids[kinds[ids] != NOT_TEXT]
    found = prepared.vocabulary.nearest(torch.from_numpy(ids.astype(np.int64)).view(-1, 1), 3)
    assert found.shape == (len(ids), 1, 3)
    for row, token in enumerate(ids):
        cosines = np.where(kinds == kinds[token], directions @ directions[token], -2)
        cosines[token] = -2
        assert found[row, 0].tolist() == np.argsort(-cosines)[:3].tolist()


def test_the_token_between_two_is_nearest_to_the_point(prepared: Prepared) -> None:
    table, kinds = table_of(prepared)
    words = np.flatnonzero(kinds != NOT_TEXT)
    rng = np.random.default_rng(0)
    first, second = (torch.from_numpy(rng.choice(words, (20, 4))) for _ in range(2))
    shares = torch.from_numpy(rng.uniform(size=(20, 4)))
    before = prepared.vocabulary.flops
    found = prepared.vocabulary.between(first, second, shares.float())
    assert prepared.vocabulary.flops - before == 2 * 80 * table.size
    for start, end, share, token in zip(
        *(values.flatten().tolist() for values in (first, second, shares, found)), strict=True
    ):
        point = (1 - share) * table[start] + share * table[end]
        cosines = table @ point / np.maximum(np.linalg.norm(table, axis=1), 1e-12) / np.linalg.norm(point)
        cosines[kinds != kinds[start]] = -np.inf
        cosines[start] = -np.inf
        assert cosines[token] == pytest.approx(cosines.max(), abs=1e-6)


def test_it_is_what_the_components_say(prepared: Prepared) -> None:
    assert all(callable(getattr(prepared.vocabulary, name)) for name in vars(Vocabulary) if not name.startswith("_"))


@pytest.mark.parametrize("source", ["nearest", "between", "masked_lm"])
def test_a_run_with_tokens_of_the_vocabulary(tmp_path: Path, tiny_bert: Path, source: str) -> None:
    choices: dict[str, Any] = {"sampler": "random", "sampler_options": {}, "lift": "replace"}
    options = {"source": source, "temperature": math.inf, "share": 0.5}
    directory, summary = toy_run(tmp_path, tiny_bert, rounds=2, lift_options=options, **choices)
    arrays = load_file(directory.synthetic(2))
    assert len(arrays["tokens.offsets"]) == summary["examples"]["train"] + 1
    flops = json.loads((directory.path / "costs.json").read_text())["flops"]
    assert (flops["lift"] > 0) == (source != "nearest")
