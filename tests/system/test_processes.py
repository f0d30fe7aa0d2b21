"""Several processes, started by a launcher, make one run together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toyspans
from toyrun import toy_config, toy_run

from sage_kit.config import to_toml
from sage_kit.rundir import RunDirectory


def run_with_two(
    tmp_path: Path, teacher: Path, *plugins: Path, environment: dict[str, str] | None = None, **settings: Any
) -> RunDirectory:
    target = tmp_path / "run"
    config = tmp_path / "config.toml"
    config.write_text(to_toml(toy_config(tmp_path, teacher, run_dir=str(target), **settings)))
    flags = [part for plugin in plugins for part in ("--plugin", str(plugin))]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "sage_kit",
         "run", "--config", str(config), *flags],
        env={**os.environ, "SAGE_KIT_PLUGINS": "", **(environment or {})}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDirectory.open(target)


def test_two_processes_on_the_cpu(tmp_path: Path, tiny_bert: Path) -> None:
    target = run_with_two(tmp_path, tiny_bert, rounds=2).path
    summary = RunDirectory.open(target).summary()
    assert summary["processes"] == 2
    first, second = summary["rounds"]
    # each process takes half of the batches
    _, alone = toy_run(tmp_path, tiny_bert, rounds=1)
    assert first["steps"] == -(-alone["rounds"][0]["steps"] // 2)
    assert second["synthetic"] == 270
    assert second["train_loss"] < first["train_loss"]
    assert summary["validation"]["validation"]["agreement"] > 0.7
    assert RunDirectory.open(target).latest_checkpoint().profile["losses"].isfinite().all()


def test_two_processes_train_a_narrower_student(tmp_path: Path, tiny_bert: Path) -> None:
    summary = run_with_two(tmp_path, tiny_bert, rounds=2, student_width=16, relation_weight=0.5).summary()
    first, second = summary["rounds"]
    assert second["synthetic"] == 270
    assert second["train_loss"] < first["train_loss"]


def test_two_processes_learn_answers(tmp_path: Path, tiny_bert: Path) -> None:
    directory = run_with_two(tmp_path, tiny_bert, **toyspans.settings(tmp_path), rounds=2, filter="choose")
    summary = directory.summary()
    first, second = summary["rounds"]
    assert second["synthetic"] == summary["sequences"]["train"] > summary["examples"]["train"]
    assert second["train_loss"] < first["train_loss"]
    assert summary["validation"]["validation"]["agreement"] > 0.6
    profile = directory.latest_checkpoint().profile
    assert profile["losses"].shape == (summary["sequences"]["train"],)
    assert profile["losses"].isfinite().all()


@pytest.mark.parametrize("settings", [{"relation_layer": 1}, {"relation_layer": 3, "hidden_weight": 0.5}])
def test_two_processes_learn_relations(tmp_path: Path, tiny_bert: Path, settings: dict[str, Any]) -> None:
    """Of the first block nothing of the teacher's is kept, so that the processes share the labelling."""
    summary = run_with_two(tmp_path, tiny_bert, rounds=2, relation_weight=1.0, **settings).summary()
    first, second = summary["rounds"]
    assert second["synthetic"] == 270
    assert second["train_loss"] < first["train_loss"]


OWNER = """
import os

import torch

from sage_kit import hookimpl
from sage_kit.components import LossSpec


class Mapped(torch.nn.Module):
    def __init__(self, options, context):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(context.sizes.student_dim))

    def per_example(self, batch):
        with open(os.environ["SEEN"] + os.environ["RANK"], "a") as file:
            print(self.weight.detach().double().sum().item(), file=file)
        return (batch.student.embeddings @ self.weight - batch.teacher.embeddings).square().mean(1)


@hookimpl
def sage_losses():
    yield LossSpec(name="mapped", summary="Mapped embeddings", factory=Mapped, needs_embeddings=True)
"""


def test_two_processes_share_the_gradients_of_a_loss_s_own_parameters(tmp_path: Path, tiny_bert: Path) -> None:
    """No loss looks at logits, so nothing but the core gives the head a gradient, which both processes wait for."""
    plugin = tmp_path / "owner.py"
    plugin.write_text(OWNER)
    seen = tmp_path / "seen"
    directory = run_with_two(
        tmp_path, tiny_bert, plugin, rounds=2, losses={"mapped": 1.0}, environment={"SEEN": str(seen)}
    )
    first, second = directory.summary()["rounds"]
    assert second["synthetic"] == 270
    assert second["train_loss"] < first["train_loss"]
    # each sees other batches, and the parameter is the same in both at each step
    one, two = (Path(f"{seen}{rank}").read_text().splitlines() for rank in range(2))
    assert one == two
    assert len(set(one)) == directory.summary()["student_steps"]


FILTERS = '''
"""A sampler that says which process draws, and filters that empty whole batches of one process or of both."""
import os

import numpy as np

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Samples, SamplerSpec


class Sampler:
    def __init__(self, options, context):
        pass

    def sample(self, request):
        with open(os.environ["DRAWN_BY"], "a") as file:
            file.write(os.environ["RANK"])
        some = np.random.default_rng().permutation(len(request.losses))[: request.count]  # another draw in each process
        return Samples(anchors=some, coordinates=request.coordinates[some])


class Filter:
    def __init__(self, options, context):
        pass

    def keep(self, request):
        with open(os.environ["DRAWN_BY"], "a") as file:
            file.write(os.environ["RANK"])
        kept = int(os.environ["KEPT"])
        return np.arange(len(request.anchors)) < kept


@hookimpl
def sage_samplers():
    yield SamplerSpec(name="drawn", summary="Draws anchors without a seed", factory=Sampler)


@hookimpl
def sage_filters():
    yield FilterSpec(name="before", summary="Keeps the first few", factory=Filter)
    yield FilterSpec(name="labelled", summary="Keeps the first few, by labels", factory=Filter, needs_labels=True)
'''


@pytest.mark.parametrize(("filter", "kept"), [("before", 1), ("labelled", 0), ("labelled", 1)])
def test_a_filter_that_empties_batches_skips_them_in_every_process(
    tmp_path: Path, tiny_bert: Path, filter: str, kept: int
) -> None:
    """Of 270 examples in nine or more batches few are left, so that some processes' batches hold none of them."""
    plugin = tmp_path / "filters.py"
    plugin.write_text(FILTERS)
    drawn_by = tmp_path / "drawn_by"
    directory = run_with_two(
        tmp_path, tiny_bert, plugin, rounds=2, sampler="drawn", sampler_options={}, filter=filter,
        environment={"DRAWN_BY": str(drawn_by), "KEPT": str(kept)},
    )  # fmt: skip
    first, second = directory.summary()["rounds"]
    assert (second["synthetic"], second["dropped"]) == (kept, 270 - kept)
    assert second["steps"] >= first["steps"]
    # one process draws and filters; the other receives what it made
    assert drawn_by.read_text() == "00"
