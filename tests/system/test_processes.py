"""Several processes, started by a launcher, make one run together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import toyspans
from safetensors.torch import load_file
from toyrun import toy_config, toy_run

from sage_kit.config import to_toml
from sage_kit.rundir import RunDirectory


def settings_file(tmp_path: Path, teacher: Path, **settings: Any) -> Path:
    config = tmp_path / "config.toml"
    config.write_text(to_toml(toy_config(tmp_path, teacher, run_dir=str(tmp_path / "run"), **settings)))
    return config


def launch(*arguments: str, environment: dict[str, str] | None = None, **launcher: Any) -> subprocess.Popen[str]:
    """`sage-kit` under torchrun, as one host of those that `launcher` describes; alone, with two processes."""
    flags = [f"--{name}={value}" for name, value in (launcher or {"nproc_per_node": 2}).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *([] if launcher else ["--standalone"]), *flags,
         "-m", "sage_kit", *arguments],
        env={**os.environ, "SAGE_KIT_PLUGINS": "", **(environment or {})},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run_with_two(
    tmp_path: Path, teacher: Path, *plugins: Path, environment: dict[str, str] | None = None, **settings: Any
) -> RunDirectory:
    config = settings_file(tmp_path, teacher, **settings)
    flags = [part for plugin in plugins for part in ("--plugin", str(plugin))]
    process = launch("run", "--config", str(config), *flags, environment=environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return RunDirectory.open(tmp_path / "run")


@pytest.fixture(scope="module")
def steady(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher without dropout, whose draws depend on the process."""
    folder = tmp_path_factory.mktemp("steady") / "teacher"
    shutil.copytree(tiny_bert, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"lift": "replace"},
        {"batch_size": 7, "gradient_accumulation": 2, "hidden_weight": 0.5, "filter": "teacher_confidence",
         "filter_options": {"minimum": 0.6}},
        {"warmup_epochs": 1, "schedule": "none"},
    ],
)  # fmt: skip
def test_a_run_is_the_same_at_any_number_of_processes(tmp_path: Path, steady: Path, settings: dict[str, Any]) -> None:
    """As many steps on the same batches, and the same numbers but for the order of sums."""
    if "warmup_epochs" in settings:
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("\n".join(row["text"] for row in tiny.toy_task_rows(100, seed=3)))
        settings = {**settings, "warmup_corpus": str(corpus)}
    together = run_with_two(tmp_path, steady, rounds=2, **settings)
    alone, summary = toy_run(tmp_path, steady, run_dir=str(tmp_path / "alone"), rounds=2, **settings)
    found = together.summary()
    assert found["processes"] == 2
    assert (found["student_steps"], found["planned_steps"]) == (summary["student_steps"], summary["planned_steps"])
    for one, other in zip(found["rounds"], summary["rounds"], strict=True):
        assert (one.pop("processes"), other.pop("processes")) == (2, 1)
        for name in ("steps", "synthetic", "dropped"):
            assert one[name] == other[name]
        for name in ("train_loss", "train_agreement", "padding"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=0.02 if name == "padding" else 1e-4), name
        assert one["dev"] == pytest.approx(other["dev"], abs=0.02)
    costs = [json.loads((run.path / "costs.json").read_text()) for run in (together, alone)]
    for name in ("tokens", "flops"):
        for activity in ("student", "warm-up", "evaluate"):
            assert costs[0][name].get(activity) == costs[1][name].get(activity), activity
    weights = [load_file(run.path / "student" / "model.safetensors") for run in (together, alone)]
    for name, values in weights[0].items():
        torch.testing.assert_close(values, weights[1][name], rtol=0, atol=2e-3)


def test_two_processes_on_the_cpu(tmp_path: Path, tiny_bert: Path) -> None:
    target = run_with_two(tmp_path, tiny_bert, rounds=2).path
    summary = RunDirectory.open(target).summary()
    assert summary["processes"] == 2
    first, second = summary["rounds"]
    # they share each batch, so that there are as many steps
    _, alone = toy_run(tmp_path, tiny_bert, rounds=1)
    assert first["steps"] == alone["rounds"][0]["steps"]
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
    # each sees other examples, and the parameter is the same in both at each step
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


# ---- several hosts, and processes that end ---------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def two_hosts(*arguments: str, second: Sequence[str] = (), environment: dict[str, str] | None = None) -> list[Any]:
    """Two launches with a process each that meet on loopback; `second` are further arguments of the second."""
    place = {"nnodes": 2, "nproc_per_node": 1, "master_addr": "127.0.0.1", "master_port": free_port()}
    return [
        launch(*arguments, *more, environment=environment, **place, node_rank=rank)
        for rank, more in enumerate(((), second))
    ]


def ends(processes: list[Any], timeout: float = 300) -> list[list[str]]:
    """What this project's command says at the end of each launch, by line; the launcher says more."""
    try:
        found = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return [[line for line in text.splitlines() if line.startswith("sage-kit: ")] for text in found]


def test_two_hosts_on_a_cold_cache_and_one_process_on_what_they_leave(tmp_path: Path, tiny_bert: Path) -> None:
    """The teacher is fine-tuned, so that all kinds of entries are made; the first process alone makes them."""
    config = settings_file(tmp_path, tiny_bert, rounds=1)
    hosts = two_hosts("run", "--config", str(config))
    told = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    assert ["Run directory" in out for out, _ in told] == [True, False]  # the first speaks for both
    kinds = {path.parent.parent.name for path in (tmp_path / "cache").glob("*/*/entry.json")}
    assert kinds >= {"teacher", "vectors", "labels"}
    assert len(list((tmp_path / "cache" / "teacher").glob("[!.]*"))) == 1
    first = RunDirectory.open(tmp_path / "run").summary()
    assert first["processes"] == 2
    # a single process finds all of it, and it is whole
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*/*/entry.json")}
    _, alone = toy_run(tmp_path, tiny_bert, run_dir=str(tmp_path / "alone"), rounds=1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*/*/entry.json")} == entries
    for summary in (alone, first):
        summary["teacher"].pop("seconds")
    assert alone["teacher"] == first["teacher"]
    assert not list(tmp_path.rglob(".seen-*"))


def test_a_host_that_does_not_see_the_shared_folder_is_told_on_every_host(tmp_path: Path, tiny_bert: Path) -> None:
    config = settings_file(tmp_path, tiny_bert, rounds=1)
    own = tmp_path / "own"
    hosts = two_hosts("run", "--config", str(config), second=["--cache-dir", str(own)])
    for said in ends(hosts, timeout=120):
        assert len(said) == 1, said
        assert f"process 1 on host {socket.gethostname()!r} does not see in {own}" in said[0]
        assert "set run_dir (or runs_dir) and cache_dir" in said[0]
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").rglob("entry.json"))


KILLER = '''
"""Kills one process at a moment that the environment names."""
import os, signal, time

from sage_kit import hookimpl
from sage_kit.components import LossSpec

RANK, MOMENT = int(os.environ["KILL_RANK"]), os.environ["KILL_MOMENT"]


def moment(name):
    if MOMENT == name and int(os.environ["RANK"]) == RANK:
        os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    steps = 0

    def __init__(self, options, context):
        moment("build")

    def per_example(self, batch):
        Watched.steps += 1
        if Watched.steps == 5:
            moment("step")
        if Watched.steps == 14:
            moment("second round")
        return (batch.student.logits - batch.teacher.logits).square().mean(1)


@hookimpl
def sage_losses():
    yield LossSpec(name="watched", summary="Squared error", factory=Watched)
'''


@pytest.mark.parametrize(
    ("rank", "moment"), [(1, "build"), (0, "step"), (1, "step"), (1, "second round"), (0, "second round")]
)
def test_a_killed_process_ends_the_others_with_one_line_and_the_run_resumes(
    tmp_path: Path, tiny_bert: Path, rank: int, moment: str
) -> None:
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)
    config = settings_file(tmp_path, tiny_bert, rounds=2, losses={"watched": 1.0})
    hosts = two_hosts(
        "run", "--config", str(config), "--plugin", str(plugin),
        environment={"KILL_RANK": str(rank), "KILL_MOMENT": moment},
    )  # fmt: skip
    killed, other = hosts[rank], hosts[1 - rank]
    killed.wait(timeout=300)
    started = time.monotonic()
    said = ends(hosts, timeout=60)  # a minute
    assert time.monotonic() - started < 60
    lines = said[1 - rank]
    assert len(lines) == 1, said
    assert f"process {1 - rank} of 2 has lost the others" in lines[0]
    assert f"sage-kit resume {tmp_path / 'run'}" in lines[0]
    assert other.returncode != 0
    # on one process, with the same batches
    environment = {**os.environ, "SAGE_KIT_PLUGINS": "", "KILL_RANK": "-1", "KILL_MOMENT": "", "RANK": "0"}
    resumed = subprocess.run(
        [sys.executable, "-m", "sage_kit", "resume", str(tmp_path / "run"), "--plugin", str(plugin)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    rounds = RunDirectory.open(tmp_path / "run").summary()["rounds"]
    assert [one["processes"] for one in rounds] == ([2, 1] if moment == "second round" else [1, 1])
