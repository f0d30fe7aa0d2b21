"""The warm-up teaches the student the teacher's hidden states on generic text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from toyrun import toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.distill import resume
from sage_kit.errors import DataError
from sage_kit.models.split import split_model
from sage_kit.recipe import resolve
from sage_kit.rundir import Checkpoint, RunDirectory
from sage_kit.system.devices import make_accelerator
from sage_kit.training.losses import hidden_state_loss
from sage_kit.training.preparation import prepare
from sage_kit.training.warmup import warm_up


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(row["text"] for row in tiny.toy_task_rows(200, seed=9)))
    return path


@pytest.mark.parametrize("granularity", ["token", "pooled"])
def test_student_comes_closer_to_the_teacher_on_other_text(
    tmp_path: Path, tiny_bert: Path, corpus: Path, granularity: str
) -> None:
    config = toy_config(
        tmp_path, tiny_bert, warmup_corpus=str(corpus), warmup_epochs=3, student_init="scratch",
        warmup_learning_rate=2e-3, granularity=granularity, schedule="none",
    )  # fmt: skip
    accelerator = make_accelerator(config)
    prepared = prepare(resolve(config, Plugins(allow="")), accelerator, Costs())
    _, upper = split_model(prepared.student, config.bypass)

    def distance() -> float:
        store = prepared.dev.store
        import numpy as np

        batch = store.batch(np.arange(len(store)), torch.device("cpu"))
        upper.eval()
        with torch.no_grad():
            student = upper(batch.states, batch.mask, hidden=True).hidden[-1]
            teacher = prepared.teacher_upper(batch.states, batch.mask, hidden=True).hidden[-1]
        return float(hidden_state_loss(student[:, :, None], teacher[:, :, None], batch.mask, "cosine").mean())

    before = distance()
    seen = []
    steps = warm_up(config, prepared, upper, accelerator, Costs(), lambda done, total, loss: seen.append((done, total)))
    assert distance() < 0.8 * before
    assert seen[-1] == (steps, steps)


def test_runs_with_a_warm_up_count_it_apart(tmp_path: Path, tiny_bert: Path, corpus: Path) -> None:
    directory, summary = toy_run(tmp_path, tiny_bert, warmup_corpus=str(corpus), warmup_epochs=1, rounds=1)
    costs = json.loads((directory.path / "costs.json").read_text())
    assert costs["tokens"]["warm-up"] > 0
    assert summary["student_steps"] == summary["rounds"][0]["steps"]
    _, without = toy_run(tmp_path, tiny_bert, rounds=1)
    assert summary["rounds"][0]["train_loss"] != without["rounds"][0]["train_loss"]


def test_empty_corpus(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt"):
        toy_run(tmp_path, tiny_bert, warmup_corpus=str(tmp_path / "empty.txt"), warmup_epochs=1)


def test_a_run_killed_amid_its_warm_up_goes_on_to_the_same_end(
    tmp_path: Path, tiny_bert: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sage_kit.training.warmup

    monkeypatch.setattr(sage_kit.training.warmup, "SAVED_EVERY", 5)
    settings = {"warmup_corpus": str(corpus), "warmup_epochs": 2, "rounds": 1}
    whole, _ = toy_run(tmp_path, tiny_bert, **settings)
    saved = []

    def kill(self: RunDirectory, checkpoint: Checkpoint, keep: int, *, for_good: bool = False) -> Path:
        path = save_checkpoint(self, checkpoint, keep, for_good=for_good)
        saved.append((checkpoint.warmup_steps, checkpoint.in_warmup))
        if len(saved) == 2:
            raise KeyboardInterrupt
        return path

    save_checkpoint = RunDirectory.save_checkpoint
    monkeypatch.setattr(RunDirectory, "save_checkpoint", kill)
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, tiny_bert, run_dir=str(killed), **settings)
    assert saved == [(5, True), (10, True)]
    resume(RunDirectory.open(killed), Plugins(allow=""))
    assert saved[2:] == [(14, False), (14, False)]  # after the warm-up and after the round
    ours, theirs = (load_file(path / "student" / "model.safetensors") for path in (killed, whole.path))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    tokens = [json.loads((path / "costs.json").read_text())["tokens"]["warm-up"] for path in (killed, whole.path)]
    assert tokens[0] == tokens[1]


def test_each_process_warms_up_under_dropout_of_its_own(
    tmp_path: Path, tiny_bert: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, tiny_bert, warmup_corpus=str(corpus), warmup_epochs=1)
    accelerator = make_accelerator(config)
    prepared = prepare(resolve(config, Plugins(allow="")), accelerator, Costs())
    seeds: list[int] = []
    monkeypatch.setattr("sage_kit.training.warmup.torch.manual_seed", seeds.append)

    class OfRank:
        """The accelerator, with another rank."""

        def __init__(self, rank: int) -> None:
            self.process_index = rank

        def __getattr__(self, name: str) -> Any:
            return getattr(accelerator, name)

    for rank in (0, 1):
        warm_up(
            config, prepared, split_model(prepared.student, config.bypass)[1], OfRank(rank), Costs(), lambda *_: None
        )
    assert len(seeds) == len(set(seeds)) == 2
