"""How a run was begun: what its directory tells of it, what a resume holds against it, and what is executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sage_kit.config import RunConfig, load_config
from sage_kit.errors import RunDirectoryError, TrustError
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.run_record import check_settings, file_sha256, recorded_settings, trusted_plugins


def config(folder: Path, **settings: object) -> RunConfig:
    return load_config({"task": "mrpc", "run_dir": str(folder / "run"), **settings})


# ---- a run begins at once, or not at all


def test_a_directory_without_settings_is_no_run_yet_and_can_be_taken(tmp_path: Path) -> None:
    """As a process leaves it that is killed before config.toml is written."""
    path = RunDirectory.create(config(tmp_path)).path
    (path / "config.toml").unlink()
    (path / ".tmp-config.toml-01234567").write_text("half")
    with pytest.raises(RunDirectoryError, match=r"is not a run \(it has no config\.toml\)"):
        RunDirectory.open(path)
    again = RunDirectory.create(config(tmp_path, seed=3))
    again.unlock()
    assert again.path == path
    assert again.config().seed == 3
    assert not list(path.glob(".tmp-*"))


def test_environment_is_there_before_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    from sage_kit.storage import files

    original = files.write_bytes
    monkeypatch.setattr(files, "write_bytes", lambda path, data: (written.append(path.name), original(path, data)))
    RunDirectory.create(config(tmp_path)).unlock()
    assert written == [".owner.json", "environment.json", "config.toml"]  # the lock first


def test_a_directory_in_the_hands_of_another_process_is_left_alone(tmp_path: Path) -> None:
    """One that has locked it, and has not written anything yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    program = (
        "import sys; from pathlib import Path; from sage_kit.rundir import RunDirectory\n"
        "held = RunDirectory(Path(sys.argv[1])); held.lock(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match="is in use by another process"):
            RunDirectory.create(config(tmp_path))
        assert sorted(path.name for path in folder.iterdir()) == [".lock", ".owner.json"]
        process.kill()


# ---- settings


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"rounds": 3}, {"rounds": 4}, r"rounds is 4 and was 3: set them back"),
        ({"temperature": 2.0, "seed": 1}, {}, r"temperature is 1\.0 and was 2\.0; seed is 0 and was 1: set"),
        ({"sampler_options": {"k": 3}}, {"sampler_options": {"k": 4}}, r"sampler_options is \{'k': 4\} and was"),
    ],
)
def test_settings_that_differ_are_named(then: dict[str, object], now: dict[str, object], told: str) -> None:
    recorded = recorded_settings(load_config(then))
    check_settings(recorded, load_config(then), "config.toml")
    with pytest.raises(RunDirectoryError, match=told):
        check_settings(recorded, load_config(now), "config.toml")


def test_machine_and_places_may_change(tmp_path: Path) -> None:
    recorded = recorded_settings(load_config({"train_file": "/a/x.csv"}))
    other = {"train_file": "/b/x.csv", "device": "cpu", "precision": "fp32", "cache_dir": "/c", "observers": []}
    check_settings(recorded, load_config(other), "config.toml")


def test_an_edited_file_of_settings_is_told_by_the_setting(tmp_path: Path) -> None:
    run = RunDirectory.create(config(tmp_path, rounds=7))
    path = run.path / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("rounds = 7", "rounds = 6"))
    with pytest.raises(RunDirectoryError, match="rounds is 6 and was 7"):
        run.config()
    half = text[: text.index("rounds = 7")]  # ends between two settings, and so is TOML
    path.write_text(half)
    with pytest.raises(RunDirectoryError, match=r"rounds is .* and was 7"):
        run.config()
    path.write_text(text)
    assert run.config().rounds == 7
    run.unlock()


def test_settings_of_a_later_version_do_not_count(tmp_path: Path) -> None:
    check_settings({"no_such_setting": 3}, load_config(), "config.toml")


# ---- nothing is executed without consent


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit('executed')\n")
    return path


def test_a_recorded_plugin_is_shown_with_its_checksum_and_not_loaded(plugin: Path) -> None:
    with pytest.raises(TrustError) as caught:
        trusted_plugins("run x", [str(plugin)], [], trust=False)
    assert str(plugin) in str(caught.value)
    assert file_sha256(plugin) in str(caught.value)
    assert "--plugin FILE" in str(caught.value)
    assert "--trust-plugins" in str(caught.value)


def test_a_plugin_that_is_named_or_trusted_is_loaded(plugin: Path, tmp_path: Path) -> None:
    assert trusted_plugins("run x", [str(plugin)], [], trust=True) == [str(plugin)]
    moved = tmp_path / "elsewhere" / "mine.py"
    assert trusted_plugins("run x", [str(plugin)], [str(moved)], trust=False) == [str(moved)]
    with pytest.raises(TrustError, match=r"other\.py \(not there\)"):
        trusted_plugins("run x", [str(plugin), "/nowhere/other.py"], [str(plugin)], trust=False)
    assert trusted_plugins("run x", [], [], trust=False) == []


def test_a_plugin_that_has_changed_since_is_told(plugin: Path) -> None:
    before, told = {str(plugin): file_sha256(plugin)}, []
    trusted_plugins("run x", [str(plugin)], [], trust=True, checksums=before, announce=told.append)
    assert told == []
    plugin.write_text("raise SystemExit('something else')\n")
    trusted_plugins("run x", [str(plugin)], [], trust=True, checksums=before, announce=told.append)
    assert len(told) == 1
    assert "has changed since the run began" in told[0]


# ---- privacy


def test_records_tell_no_password_and_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "ada"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    address = "https://ada:s3cret@tracker.example/path?token=t0ken&x=1"
    monkeypatch.setattr("sys.argv", ["sage-kit", "run", f"--train-file={home}/x.csv", address, "plain"])
    settings = {
        "train_file": str(home / "x.csv"), "teacher": str(home / "model"), "sampler_options": {"k": 3},
        "observer_options": {"tracker": {"uri": address}}, "task_options": {"path": str(home)},
    }  # fmt: skip
    asked = config(tmp_path, **settings)
    run = RunDirectory.create(
        asked, components={"reducer": f"x ({home}/mine.py)"}, options={"sampler": {"file": f"{home}/y"}},
        plugin_files=[str(home / "mine.py")], device="cpu",
    )  # fmt: skip
    run.unlock()
    for name in ("config.toml", "environment.json"):
        text = (run.path / name).read_text()
        for secret in ("s3cret", "t0ken", "ada:"):
            assert secret not in text, (name, secret)
        assert f"{home}/x.csv" not in text
        assert "~/x.csv" in text
    told = json.loads((run.path / "environment.json").read_text())
    assert told["command"][2] == "--train-file=~/x.csv"
    assert told["plugin_files"] == ["~/mine.py"]
    assert run.plugin_files() == [str(home / "mine.py")]
    # and it is the same run all the same
    found = RunDirectory.open(run.path).config()
    assert (found.train_file, found.teacher) == (asked.train_file, asked.teacher)
    assert found.task_options == asked.task_options
    assert found.observer_options["tracker"]["uri"] == "https://tracker.example/path?token=***&x=1"
