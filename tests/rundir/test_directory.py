from __future__ import annotations

import datetime
import json
import math
import os
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sage_kit.components.records import Costs, RoundResult
from sage_kit.config import RunConfig, load_config
from sage_kit.errors import DiskFullError, RunDirectoryError, RunInUseError
from sage_kit.rundir import Checkpoint, RunDirectory, settings_hash


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    return RunConfig(**{"runs_dir": str(tmp_path / "runs"), "task": "mrpc", **changes})


def result(round: int) -> RoundResult:
    return RoundResult(
        round=round, steps=10, total_steps=10 * round, train_loss=1 / round, train_agreement=0.5,
        synthetic_loss=float("nan") if round == 1 else 0.25, synthetic=round, dropped=0,
        dev={"accuracy": 0.5, "agreement": 0.75}, validation={"validation": {"accuracy": 0.625, "agreement": 0.5}},
        seconds=1.5, padding=0.03,
    )  # fmt: skip


def checkpoint(round: int, size: int = 4) -> Checkpoint:
    generator = torch.Generator().manual_seed(round)
    costs = Costs()
    costs.add("student", seconds=round, tokens=100 * round)
    return Checkpoint(
        round=round,
        content="c" * 32,
        total_steps=10 * round,
        teacher_tokens=1000 + round,
        history=[result(number) for number in range(1, round + 1)],
        costs=costs,
        student={"w": torch.randn(size, 3, generator=generator), "half": torch.ones(2, dtype=torch.bfloat16)},
        optimizer={"w|step": torch.tensor(float(round)), "w|exp_avg": torch.randn(size, generator=generator)},
        profile={"losses": torch.tensor([1.0, float("nan")]), "logits": torch.zeros(2, 2)},
        components={"sampler.sum": np.arange(3, dtype=np.int16), "stop_rule.calls": np.array(2.5)},
        scaler={"scale": 2.0},
        warmup_steps=7 * round,
        in_warmup=round == 1,
    )


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    for name in ("round", "content", "total_steps", "teacher_tokens", "costs", "scaler", "warmup_steps", "in_warmup"):
        assert getattr(found, name) == getattr(expected, name)
    assert [r.to_json() for r in found.history] == [r.to_json() for r in expected.history]
    for name in ("student", "optimizer", "profile"):
        tensors, wanted = getattr(found, name), getattr(expected, name)
        assert set(tensors) == set(wanted)
        for key, tensor in wanted.items():
            torch.testing.assert_close(tensors[key], tensor, rtol=0, atol=0, equal_nan=True)
    assert set(found.components) == set(expected.components)
    for key, array in expected.components.items():
        np.testing.assert_array_equal(found.components[key], array, strict=True)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory.create(config(tmp_path))
    directory.unlock()  # as if its process had ended
    return directory


def names(directory: Path) -> list[str]:
    """What lies in a directory, beside what says that a process holds it."""
    return sorted(path.name for path in directory.iterdir() if path.name not in (".lock", ".owner.json"))


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], capture_output=True, text=True, check=False
    )


# ---- a new directory


def test_a_new_directory_is_named_by_task_time_and_settings(tmp_path: Path) -> None:
    choice = config(tmp_path)
    run = RunDirectory.create(choice)
    assert run.path.parent == tmp_path / "runs" / "mrpc"
    stamp, digits = run.path.name.split("-")
    moment = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    assert abs(datetime.datetime.now(datetime.timezone.utc) - moment) < datetime.timedelta(hours=1)
    assert digits == settings_hash(choice)
    assert re.fullmatch("[0-9a-f]{8}", digits)
    assert names(run.path) == ["config.toml", "environment.json"]


def test_two_runs_of_the_same_second_have_directories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20250101T000000Z")
    paths = [RunDirectory.create(config(tmp_path)).path for _ in range(3)]
    base = f"20250101T000000Z-{settings_hash(config(tmp_path))}"
    assert [path.name for path in paths] == [base, f"{base}-2", f"{base}-3"]


def test_the_settings_come_back_as_they_were(tmp_path: Path) -> None:
    choice = config(
        tmp_path, sampler_options={"k": 3, "name": 'a "quoted" näme'}, student_layers=2, student_init=[0, 3], seed=7,
        observers=["jsonl"], observer_options={"jsonl": {}}, bypass=2, learning_rate=3.3e-5,
    )  # fmt: skip
    run = RunDirectory.create(choice)
    assert run.config() == choice
    assert RunDirectory.open(str(run.path)).config() == choice
    assert load_config(file=run.path / "config.toml") == choice


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_the_user_names(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "deep" / "mine"
    if exists:
        path.mkdir(parents=True)
    run = RunDirectory.create(config(tmp_path, run_dir=str(path)))
    assert run.path == path
    assert names(path) == ["config.toml", "environment.json"]
    assert not (tmp_path / "runs").exists()


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert RunDirectory.create(RunConfig(run_dir="~/mine")).path == tmp_path / "mine"
    assert RunDirectory.create(RunConfig(runs_dir="~/all", task="rte")).path.parent == tmp_path / "all" / "rte"


def refused(choice: RunConfig) -> str:
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(choice)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_directory_that_holds_a_run(tmp_path: Path) -> None:
    choice = config(tmp_path, run_dir=str(tmp_path / "mine"))
    RunDirectory.create(choice)
    path = tmp_path / "mine"
    expected = f"run directory {path} holds a run already: choose another, or go on with `sage-kit resume {path}`"
    assert refused(choice) == expected


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    message = refused(config(tmp_path, run_dir=str(tmp_path / "mine")))
    assert message == f"run directory {tmp_path / 'mine'} is not empty: choose another"
    assert names(tmp_path / "mine") == ["thesis.tex"]


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize("setting", ["run_dir", "runs_dir"])
def test_a_directory_that_cannot_be_made(tmp_path: Path, setting: str, below: str) -> None:
    (tmp_path / "file").touch()
    message = refused(config(tmp_path, **{setting: str(tmp_path / "file" / below)}))
    assert message.startswith(f"run directory {tmp_path / 'file'}")
    assert message.endswith("): choose another with run_dir or runs_dir")
    assert "cannot be written (" in message


@pytest.mark.parametrize("setting", ["run_dir", "runs_dir"])
def test_a_directory_that_may_not_be_written(tmp_path: Path, setting: str) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    try:
        (locked / "probe").mkdir()
    except PermissionError:
        message = refused(config(tmp_path, **{setting: str(locked)}))
        assert "cannot be written (Permission denied): choose another" in message
    else:
        pytest.skip("this user may write into read-only directories (root)")


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match="disk full while writing the run directory"):
        RunDirectory.create(config(tmp_path))


# ---- an existing one


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "absent", "does not exist"), (tmp_path, "is not a run (it has no config.toml)")):
        with pytest.raises(RunDirectoryError) as caught:
            RunDirectory.open(path)
        assert str(caught.value) == f"{path} {what}: name a directory that `sage-kit run` made"


@pytest.mark.parametrize("text", ["rounds = ", "no_such_setting = 1", "rounds = 0"])
def test_settings_that_cannot_be_used_are_one_line(run: RunDirectory, text: str) -> None:
    (run.path / "config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RunDirectoryError) as caught:
        run.config()
    assert str(caught.value).startswith(f"run directory {run.path} has unusable settings: ")
    assert "\n" not in str(caught.value)


def test_the_hash_is_of_what_shapes_the_result(tmp_path: Path) -> None:
    plain = settings_hash(RunConfig())
    for same in (
        {"device": "cpu", "precision": "fp32", "vector_dtype": "float16", "compile": True},
        {"runs_dir": "x", "run_dir": "y", "cache_dir": "z", "observers": [], "keep_checkpoints": 0},
    ):
        assert settings_hash(RunConfig(**same)) == plain
    for other in (
        {"seed": 1}, {"task": "rte"}, {"teacher": "x"}, {"temperature": 3.0}, {"sampler_options": {"k": 3}},
        {"warmup_epochs": 1, "warmup_corpus": "x"}, {"rounds": 6},
    ):  # fmt: skip
        assert settings_hash(RunConfig(**other)) != plain


def test_options_may_hold_a_date() -> None:
    dated = [RunConfig(reducer_options={"since": datetime.date(2025, 1, day)}) for day in (1, 2)]
    assert settings_hash(dated[0]) != settings_hash(dated[1])


# ---- one process at a time

HOLD = """
    import sys
    from sage_kit.rundir import RunDirectory
    run = RunDirectory.open(sys.argv[1])
    run.lock()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_holds(run: RunDirectory) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError) as caught:
            run.lock()
        assert type(caught.value) is RunInUseError
        holder = f"{process.pid} on {platform.node()}"
        assert str(caught.value) == (
            f"run directory {run.path} is in use by another process ({holder}): wait until that ends"
        )
        (run.path / "checkpoints").mkdir()
        run.remove_if_unused()  # what its owner works on is not taken away
        assert (run.path / "config.toml").is_file()
        assert (run.path / "checkpoints").is_dir()
        process.kill()
        process.wait()
        run.lock()  # a killed process holds nothing
        run.unlock()


def test_a_run_that_this_process_holds_is_held_against_others(run: RunDirectory) -> None:
    run.lock()
    program = """
        import sys
        from sage_kit.errors import RunDirectoryError
        from sage_kit.rundir import RunDirectory
        try:
            RunDirectory.open(sys.argv[1]).lock()
        except RunDirectoryError as error:
            print(error)
    """
    holder = f"{os.getpid()} on {platform.node()}"
    message = f"run directory {run.path} is in use by another process ({holder}): wait until that ends\n"
    assert python(program, str(run.path)).stdout == message
    run.unlock()
    assert python(program, str(run.path)).stdout == ""
    run.unlock()  # twice does no harm


# ---- a run that came to nothing


def test_an_unused_directory_is_removed(run: RunDirectory) -> None:
    run.lock()
    run.write_costs(Costs())
    (run.path / "metrics.jsonl").touch()
    (run.path / "checkpoints").mkdir()
    run.remove_if_unused()
    assert not run.path.exists()
    assert run.path.parent.exists()


def test_a_directory_with_a_checkpoint_is_kept(run: RunDirectory) -> None:
    run.save_checkpoint(checkpoint(0), keep=2)
    run.remove_if_unused()
    assert names(run.path) == ["checkpoints", "config.toml", "environment.json"]


def test_what_others_put_there_is_kept(run: RunDirectory) -> None:
    (run.path / "notes").mkdir()
    run.remove_if_unused()
    assert names(run.path) == ["notes"]


def test_what_observers_wrote_of_a_run_that_did_nothing_goes(run: RunDirectory) -> None:
    for name in ("metrics.jsonl", "costs.jsonl", "trackers.json", "tensorboard/events", "wandb/run/log"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("x", encoding="utf-8")
    run.remove_if_unused()
    assert not run.path.exists()


# ---- records


def test_environment_tells_versions_machine_and_components(tmp_path: Path) -> None:
    run = RunDirectory.create(
        config(tmp_path), components={"reducer": "umap (sage-kit-umap 0.1)"}, options={"reducer": {"n_neighbors": 15}},
        plugin_files=["/x/mine.py"], device="cpu",
    )  # fmt: skip
    data = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    assert data["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert data["components"] == {"reducer": "umap (sage-kit-umap 0.1)"}
    assert data["options"] == {"reducer": {"n_neighbors": 15}}
    assert data["device"] == "cpu"
    assert data["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert run.plugin_files() == ["/x/mine.py"]


@pytest.mark.parametrize("text", [None, "{}"])
def test_without_an_environment_there_are_no_plugin_files(run: RunDirectory, text: str | None) -> None:
    (run.path / "environment.json").unlink()
    if text is not None:
        (run.path / "environment.json").write_text(text, encoding="utf-8")
    assert run.plugin_files() == []


@pytest.mark.parametrize("text", ["", "[]", '{"plugin_files": null}', '{"plugin_files": [3]}', "[" * 100_000])
def test_a_damaged_environment_is_not_taken_for_one_without_plugins(run: RunDirectory, text: str) -> None:
    (run.path / "environment.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"environment\.json is not readable \(.{5,100}\): restore the file"):
        run.plugin_files()


def test_summary(run: RunDirectory) -> None:
    assert run.summary() is None
    run.write_summary({"dev": {"pearson": float("nan"), "agreement": 0.5}, "rounds": [result(1).to_json()]})
    summary = run.summary()
    assert summary is not None
    assert summary["dev"] == {"pearson": None, "agreement": 0.5}
    assert math.isnan(run.history()[0].synthetic_loss)


@pytest.mark.parametrize("text", ["", "{", "3"])
def test_a_summary_that_cannot_be_read_is_one_line(run: RunDirectory, text: str) -> None:
    (run.path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        RunDirectoryError, match=r"summary.json is not readable \(.*\): restore the file, or start a new run"
    ):
        run.summary()


def test_costs(run: RunDirectory) -> None:
    costs = checkpoint(3).costs
    run.write_costs(costs)
    assert Costs.from_json(json.loads((run.path / "costs.json").read_text(encoding="utf-8"))) == costs


@pytest.mark.parametrize("write", [lambda run: run.write_costs(Costs()), lambda run: run.write_summary({"rounds": []})])
def test_records_on_a_full_disk(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, write: Callable[[RunDirectory], None]
) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"\.json: free some space and go on with `sage-kit resume "):
        write(run)
    assert names(run.path) == ["config.toml", "environment.json"]


# ---- checkpoints


def test_a_checkpoint_comes_back_as_it_was(run: RunDirectory) -> None:
    assert run.latest_checkpoint() is None
    path = run.save_checkpoint(checkpoint(3), keep=2)
    assert path == run.path / "checkpoints" / "round-003"
    assert names(path) == [
        "checkpoint.json", "components.safetensors", "optimizer.safetensors", "profile.safetensors", "state.json",
        "student.safetensors",
    ]  # fmt: skip
    assert_same(run.latest_checkpoint(), checkpoint(3))
    assert_same(RunDirectory.open(run.path).latest_checkpoint(), checkpoint(3))


def test_a_checkpoint_without_tensors_comes_back(run: RunDirectory) -> None:
    empty = Checkpoint(0, "c", 0, 0, [], Costs())
    run.save_checkpoint(empty, keep=2)
    assert_same(run.latest_checkpoint(), empty)


@pytest.mark.parametrize(("keep", "left"), [(1, [4]), (2, [3, 4]), (9, [0, 1, 2, 3, 4]), (0, [0, 1, 2, 3, 4])])
def test_the_newest_checkpoints_are_kept(run: RunDirectory, keep: int, left: list[int]) -> None:
    for round in range(5):
        run.save_checkpoint(checkpoint(round), keep=keep)
    assert names(run.path / "checkpoints") == [f"round-{round:03d}" for round in left]
    assert_same(run.latest_checkpoint(), checkpoint(4))


def test_checkpoints_go_by_number_beyond_three_digits(run: RunDirectory) -> None:
    few = checkpoint(1)
    for round in (998, 999, 1000, 1001):
        few.round = round
        run.save_checkpoint(few, keep=2)
    assert names(run.path / "checkpoints") == ["round-1000", "round-1001"]
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.round == 1001


def test_what_is_no_checkpoint_is_left_alone(run: RunDirectory) -> None:
    (run.path / "checkpoints" / "round-001-copy").mkdir(parents=True)
    for round in range(3):
        run.save_checkpoint(checkpoint(round), keep=1)
    assert names(run.path / "checkpoints") == ["round-001-copy", "round-002"]


def flip_one_bit(path: Path) -> None:
    data = bytearray((path / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(data)


def truncate(path: Path) -> None:
    (path / "student.safetensors").write_bytes((path / "student.safetensors").read_bytes()[:20])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip_one_bit, "optimizer.safetensors does not have its checksum"),
        (truncate, "student.safetensors has 20 bytes instead of "),
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
        (lambda path: (path / "checkpoint.json").unlink(), "checkpoint.json is missing or not readable"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    run: RunDirectory, damage: Callable[[Path], None], named: str
) -> None:
    for round in (1, 2):
        run.save_checkpoint(checkpoint(round), keep=2)
    path = run.path / "checkpoints" / "round-002"
    damage(path)
    messages: list[str] = []
    assert_same(run.latest_checkpoint(messages.append), checkpoint(1))
    (message,) = messages
    assert message.startswith(f"checkpoint {path} is damaged ({named}")
    assert message.endswith("); going back to the one before")
    assert [item.round for item in run.history()] == [1]
    # the round is done again and takes the damaged one's place
    run.save_checkpoint(checkpoint(2), keep=2)
    assert_same(run.latest_checkpoint(messages.append), checkpoint(2))
    assert len(messages) == 1


def test_when_all_checkpoints_are_damaged_there_is_none(run: RunDirectory) -> None:
    for round in (1, 2):
        flip_one_bit(run.save_checkpoint(checkpoint(round), keep=2))
    messages: list[str] = []
    assert run.latest_checkpoint(messages.append) is None
    assert [re.search(r"round-\d+", message)[0] for message in messages] == ["round-002", "round-001"]  # type: ignore[index]
    assert run.history() == []


def test_what_a_killed_process_left_half_written_is_removed(run: RunDirectory) -> None:
    run.save_checkpoint(checkpoint(1), keep=2)
    left = [
        run.path / ".tmp-summary.json-01234567",
        run.path / "checkpoints" / ".tmp-round-002-01234567" / "student.safetensors",
        run.path / "rounds" / ".tmp-002-01234567" / "synthetic.safetensors",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    assert_same(run.latest_checkpoint(), checkpoint(1))
    assert names(run.path) == ["checkpoints", "config.toml", "environment.json", "rounds"]
    assert names(run.path / "checkpoints") == ["round-001"]
    assert names(run.path / "rounds") == []


def test_a_disk_that_fills_leaves_the_earlier_checkpoints(run: RunDirectory) -> None:
    """A process writes two checkpoints and then may write no file as large as the third."""
    pytest.importorskip("resource", reason="needs a system that limits the size of files")
    program = """
        import resource, sys
        import torch
        from sage_kit.errors import DiskFullError
        from sage_kit.components.records import Costs
        from sage_kit.rundir import Checkpoint, RunDirectory

        run = RunDirectory.open(sys.argv[1])

        def save(round):
            student = {"w": torch.full((100_000,), float(round))}
            return run.save_checkpoint(Checkpoint(round, "c", round, 0, [], Costs(), student), keep=2)

        save(0)
        save(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(2)
        except DiskFullError as error:
            print(error)
        assert run.latest_checkpoint().round == 1
    """
    process = python(program, str(run.path))
    assert process.stderr == ""
    assert process.stdout == (
        f"disk full while writing checkpoint {run.path / 'checkpoints' / 'round-002'}: earlier checkpoints are intact; "
        f"free some space and go on with `sage-kit resume {run.path}`\n"
    )
    assert names(run.path / "checkpoints") == ["round-000", "round-001"]
    messages: list[str] = []
    latest = run.latest_checkpoint(messages.append)
    assert latest is not None
    assert latest.round == 1
    torch.testing.assert_close(latest.student["w"], torch.full((100_000,), 1.0), rtol=0, atol=0)
    assert messages == []


def test_a_disk_that_fills_at_the_first_checkpoint_does_not_speak_of_earlier_ones(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskFullError, match=r"round-000: free some space and start again$"):
        run.save_checkpoint(checkpoint(0), keep=2)
    assert names(run.path / "checkpoints") == []


# ---- history and paths


def test_history_is_that_of_the_newest_whole_checkpoint_or_of_the_summary(run: RunDirectory) -> None:
    assert run.history() == []
    run.save_checkpoint(checkpoint(2), keep=2)
    assert [item.round for item in run.history()] == [1, 2]
    run.write_summary({"rounds": [result(number).to_json() for number in (1, 2, 3)]})
    assert [item.to_json() for item in run.history()] == [result(number).to_json() for number in (1, 2, 3)]


def test_rounds_whose_synthetic_examples_are_on_disk(run: RunDirectory) -> None:
    assert run.rounds_with_synthetic() == []
    for round in (1000, 2, 999):
        run.synthetic(round).parent.mkdir(parents=True)
        run.synthetic(round).touch()
    (run.path / "rounds" / "003").mkdir()
    half = run.path / "rounds" / ".tmp-1001-01234567" / "synthetic.safetensors"
    half.parent.mkdir()
    half.touch()
    assert run.rounds_with_synthetic() == [2, 999, 1000]
