"""Upper layers behind torch.compile, whose own compiler is left out: what is compiled, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from stockmodel import make_batch, scalar, without_dropout
from toyrun import toy_run

from sage_kit.models.compiled import Compiled, padded_batch, padded_length
from sage_kit.models.split import split_model
from sage_kit.training import learner, round_synthesis


class Counting:
    """A compiler that leaves the graph as it is and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


def test_sizes() -> None:
    assert [padded_length(n) for n in (1, 16, 17, 100, 512, 513, 1025)] == [16, 16, 32, 128, 512, 1024, 1536]
    assert [padded_batch(n) for n in (1, 2, 3, 31, 32, 33)] == [1, 2, 4, 32, 32, 64]


# torch's tracer looks at what is no leaf
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("buckets", [False, True])
@pytest.mark.parametrize("asked", [{}, {"hidden": True}, {"projections": (1, 2)}])
def test_outputs_and_gradients_are_those_of_the_upper_layers(buckets: bool, asked: dict[str, Any]) -> None:
    _, upper = split_model(without_dropout(tiny.make_model("bert", layers=2)).double(), "embeddings")
    compiled = Compiled(upper, buckets, backend="eager")
    compiled.train()
    assert upper.training
    for lengths in ([5, 1, 3], [17, 17], [40, 2, 9, 31, 7]):
        states, mask = make_batch(lengths)
        given = None if min(lengths) == max(lengths) else mask
        found = []
        for part in (upper, compiled):
            upper.zero_grad()
            output = part(states, given, **asked, lengths=np.array(lengths))
            several = [one[mask] for one in (*output.hidden, *(one.sum(-2) for one in output.projections))]
            scalar(output.logits, several).backward()
            gradients = [one.grad.clone() for one in upper.parameters() if one.grad is not None]
            found.append([output.logits, *several, *gradients])
            assert all(one.shape[:2] == states.shape[:2] for one in (*output.hidden, *output.projections))
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    assert [name.removeprefix("uncompiled.") for name, _ in compiled.named_parameters()] == [
        name for name, _ in upper.named_parameters()
    ]


def test_there_are_no_more_compilations_than_sizes() -> None:
    _, upper = split_model(tiny.make_model("bert", layers=1), "embeddings")
    counting = Counting()
    compiled = Compiled(upper.eval(), True, backend=counting)
    rng, sizes = np.random.default_rng(0), set()
    with torch.no_grad():
        for _ in range(60):
            lengths = rng.integers(1, 65, rng.integers(1, 9)).tolist()
            states, mask = make_batch(lengths, torch.float32)
            output = compiled(states, mask)
            sizes.add((padded_batch(len(lengths)), padded_length(max(lengths))))
            torch.testing.assert_close(output.logits, upper(states, mask).logits, rtol=1e-4, atol=1e-5)
    assert 8 < len(sizes) <= 16
    assert counting.graphs == len(sizes)


def test_without_buckets_one_compilation_serves_all_sizes() -> None:
    _, upper = split_model(tiny.make_model("bert", layers=1), "embeddings")
    counting = Counting()
    compiled = Compiled(upper.eval(), False, backend=counting)
    with torch.no_grad():
        for lengths in ([5, 3], [9, 2, 7], [40, 11, 3, 5], [17, 30]):
            compiled(*make_batch(lengths, torch.float32))
    assert counting.graphs == 1


def test_a_head_on_every_token_gives_as_many_outputs_as_there_are_tokens() -> None:
    from transformers import AutoModelForTokenClassification

    config = tiny.make_config("bert", layers=1)
    _, upper = split_model(AutoModelForTokenClassification.from_config(config).eval(), "embeddings")
    states, mask = make_batch([5, 1, 3], torch.float32)
    with torch.no_grad():
        found = Compiled(upper, True, backend="eager")(states, mask).logits
        expected = upper(states, mask).logits
    assert found.shape == expected.shape == (3, 5, upper.n_outputs)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"warmup_epochs": 1, "lift": "shift", "hidden_weight": 0.5}])
def test_a_run_whose_models_are_compiled(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def build(upper: Any, buckets: bool) -> Compiled:
        made.append(buckets)
        return Compiled(upper, buckets, backend="eager")

    for module in (learner, round_synthesis):
        monkeypatch.setattr(module, "Compiled", build)
    if "warmup_epochs" in settings:
        corpus = tiny.write_jsonl(tmp_path / "corpus.jsonl", tiny.toy_task_rows(40, seed=5))
        settings = {**settings, "warmup_corpus": str(corpus)}
    directory, summary = toy_run(tmp_path, tiny_bert, rounds=2, compile=True, compile_buckets=True, **settings)
    assert made == [True, True]
    assert summary["rounds"][-1]["synthetic"] > 0
    assert summary["rounds"][-1]["dev"]["agreement"] > 0.7
    weights = load_file(directory.student / "model.safetensors")
    assert not any("uncompiled" in name for name in weights)
