"""`sage-kit search` as a user has it: killed, resumed, in two processes at once, and misused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_kit.cli.app import main
from sage_kit.config import RunConfig, load_config
from sage_kit.rundir import RunDirectory
from sage_kit.searching.search_plan import RECORD, SearchPlan
from sage_kit.searching.search_trials import JOURNAL, PASSED_OVER, require_optuna
from sage_kit.studies.runs import ArmRun

SPACE = ("-s", "learning_rate=log:2e-4:1e-2", "-s", "synthetic_ratio=0.5:2.0", "-s", "sampler=high_loss,random")

KILLER = '''
"""Kills the process at a moment that the environment names: when so many checkpoints have been written."""
import os, signal
from sage_kit import hookimpl

saved = 0

@hookimpl
def sage_checkpoint_saved(round):
    global saved
    saved += 1
    if saved == int(os.environ.get("KILL_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
'''


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sage_kit", "search", *arguments]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "SAGE_KIT_PLUGINS": "", **changes}


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Exit status, standard output and standard error of a command line."""
    with pytest.raises(SystemExit) as raised:
        main(["search", *arguments])
    captured = capsys.readouterr()
    return raised.value.code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command line that is refused."""
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("sage-kit: ")
    assert err.count("\n") == 1
    return err


def trials_of(folder: Path) -> dict[int, Any]:
    """What the journal has of each trial: its state, values, reports and what else is written down."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    require_optuna()
    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))))
    return {
        one.number: (one.state.name, one.value, one.params, one.intermediate_values, one.user_attrs)
        for one in study.get_trials()
    }


def ended(found: dict[int, Any]) -> dict[int, Any]:
    return {number: one for number, one in found.items() if one[0] in ("COMPLETE", "PRUNED", "FAIL")}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mean_divergence(folder: Path, learning_rate: float, seeds: tuple[int, ...]) -> float:
    """The mean over the runs of a search with this rate and these seeds, of that in their predictions on dev."""
    found = []
    for path in folder.glob("runs/file/[!.]*"):
        directory = RunDirectory.open(path)
        if directory.config().learning_rate == pytest.approx(learning_rate) and directory.config().seed in seeds:
            found.append(ArmRun("", "file", 0, directory, directory.config(), {}, False).divergence("dev"))
    assert len(found) == len(seeds)
    return sum(found) / len(found)


def test_a_search_killed_twice_loses_no_trial(config_file: Callable[..., str], tmp_path: Path) -> None:
    plugin, folder = tmp_path / "killer.py", tmp_path / "found"
    plugin.write_text(KILLER)
    begin = command(str(folder), "--config", config_file(), "--plugin", str(plugin), *SPACE, "--trials", "5",
                    "--finalists", "2", "--final-seeds", "2", "--check-seeds", "2", "--no-prune")  # fmt: skip
    # a run writes a checkpoint before its rounds and one after each: the first process dies in its second trial
    first = subprocess.run(begin, env=environment(KILL_AT="5"), capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    after_first = trials_of(folder)
    assert [one[0] for one in after_first.values()] == ["COMPLETE", "RUNNING"]
    # the second one goes on with that and dies in the trial after it
    second = subprocess.run(
        command(str(folder), "--trust-plugins"), env=environment(KILL_AT="4"), capture_output=True, text=True
    )
    assert second.returncode == -signal.SIGKILL, second.stderr
    assert "trial 1 goes on where its process left it" in second.stdout
    after_second = trials_of(folder)
    assert [one[0] for one in after_second.values()] == ["COMPLETE", "COMPLETE", "RUNNING"]
    third = subprocess.run(begin, env=environment(KILL_AT="0"), capture_output=True, text=True)
    assert third.returncode == 0, third.stderr
    found = trials_of(folder)
    assert [one[0] for one in found.values()] == ["COMPLETE"] * 5
    for earlier in (after_first, after_second):
        for number, one in ended(earlier).items():
            assert found[number] == one
        assert all(found[number][2] == one[2] for number, one in earlier.items())  # with the values that it had
    # the run that was killed went on from its checkpoint: no second one was made for the trial
    runs = [run for one in found.values() for run in one[4]["runs"]]
    assert len(set(runs)) == len(runs) == 5
    made = {str(path.parent.relative_to(folder)) for path in folder.glob("runs/file/*/summary.json")}
    assert set(runs) <= made
    assert "every complete run took 20 student steps" in third.stdout

    # as the table says, and what it says is what the runs have left
    rows = rows_of(folder)
    assert [int(row["trial"]) for row in rows] == list(range(5))
    ranked = sorted(rows, key=lambda row: float(row["divergence"]))
    finalists = [row for row in rows if row["default"] == "True"]
    finalists += [row for row in ranked if row["default"] == "False"][:2]
    # the best under two seeds that no trial had, whatever it was in the search
    means = {row["trial"]: mean_divergence(folder, float(row["learning_rate"]), seeds=(1, 2)) for row in finalists}
    best = min(finalists, key=lambda row: means[row["trial"]])
    report = (folder / "report.md").read_text()
    assert f"- **Best**: trial {best['trial']}," in report
    for row in finalists:
        name = f"trial {row['trial']}{' (default)' if row['default'] == 'True' else ''}"
        assert f"{name} {means[row['trial']]:.4g}" in report
    assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")
    for row in rows:
        directory = RunDirectory.open(folder / row["runs"])
        summary = directory.summary()
        assert summary is not None
        assert summary["validation"] == {}  # never scored
        assert directory.config().learning_rate == pytest.approx(float(row["learning_rate"]))
        assert summary["dev"]["agreement"] == pytest.approx(float(row["agreement"]))
    if best["default"] == "False":
        # then both under two more
        seeds = [RunDirectory.open(path).config().seed for path in folder.glob("runs/file/*") if path.is_dir()]
        assert sorted(seeds) == [0] * 5 + [1] * 3 + [2] * 3 + [3, 3, 4, 4]

    # once more changes nothing
    journal = (folder / JOURNAL).read_bytes()
    again = subprocess.run(begin, env=environment(KILL_AT="0"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert trials_of(folder) == found
    assert len((folder / JOURNAL).read_bytes()) < len(journal) + 1000

    # the best is a complete configuration, which a run takes
    settings = load_config(file=folder / "best.toml")
    assert settings.learning_rate == pytest.approx(float(best["learning_rate"]))
    assert (settings.run_dir, settings.max_steps, settings.evaluate_validation) == ("", 20, "every_round")
    run = subprocess.run(
        [*command()[:3], "run", "--config", str(folder / "best.toml"), "--run-dir", str(tmp_path / "run")],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    theirs = RunDirectory.open(tmp_path / "run").summary()
    assert theirs is not None
    assert theirs["dev"]["agreement"] == pytest.approx(float(best["agreement"]))


def test_two_processes_on_one_journal(config_file: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "found"
    begin = command(
        str(folder), "--config", config_file(), *SPACE, "--trials", "7", "--finalists", "0", "--check-seeds", "0"
    )
    both = [
        subprocess.Popen(begin, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    found = trials_of(folder)
    assert len(found) == len(ended(found)) == 7
    assert len({json.dumps(one[2], sort_keys=True) for one in found.values()}) == 7
    lines = [
        [line for line in out.splitlines() if line.startswith("trial ") and " of 7)" in line] for out, _ in outputs
    ]
    assert all(lines), "each of them has made some"
    assert sorted(int(line.split()[1]) for each in lines for line in each) == list(range(7))
    # both have said the same in the end
    ends = [out.partition("# Search on file")[2] for out, _ in outputs]
    assert ends[0] == ends[1] != ""


def test_jobs_end_with_the_process_that_began_them(config_file: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "found"
    begin = command(str(folder), "--config", config_file(), *SPACE, "--trials", "200", "--jobs", "2")
    process = subprocess.Popen(begin, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not ((folder / JOURNAL).exists() and len(ended(trials_of(folder))) >= 2):
        time.sleep(0.5)
    process.kill()
    process.wait()
    time.sleep(5)  # the workers look every second
    count = len(trials_of(folder))
    assert count >= 2
    time.sleep(3)
    assert len(trials_of(folder)) == count
    done = subprocess.run(
        command(str(folder), "--trials", str(count), "--jobs", "2", "--finalists", "0", "--check-seeds", "0"),
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = trials_of(folder)
    assert len(found) == len(ended(found)) == count


@pytest.fixture
def begun(config_file: Callable[..., str], tmp_path: Path) -> Path:
    """A search whose record is written and whose trials are to come."""
    folder = tmp_path / "begun"
    folder.mkdir()
    from sage_kit.config import with_absolute_paths
    from sage_kit.searching.search_space import read_space

    base = with_absolute_paths(load_config(file=config_file()))
    SearchPlan(base, read_space(SPACE[1::2])).write(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "temperature=1:2"], "searches with values of learning_rate log:0.0002:0.01"),
        (["--temperature", "2"], "searches with temperature 1, and this command says 2"),
        (["--measure", "agreement"], "searches with measure divergence, and this command says agreement"),
        (["--seeds", "2"], "searches with seeds 1"),
        (["--no-prune"], "searches with prune true, and this command says false"),
    ],
)
def test_other_settings_are_refused(
    begun: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (begun / RECORD).read_bytes()
    base = SearchPlan.read(begun).base
    if "-s" in arguments:
        arguments = ["--config", str(begun.parent / "toy.toml"), *arguments]
    assert base.max_steps == 20
    assert said in refused(capsys, str(begun), *arguments)
    assert [path.name for path in begun.iterdir()] == [RECORD]
    assert (begun / RECORD).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to search: name settings with -s"),
        (["--learning-rate", "1e-4"], "nothing to search"),
        (["-s", "learning_rat=1:2"], "unknown setting 'learning_rat'. Did you mean 'learning_rate'?"),
        (["-s", "learning_rate=2:1"], "the first number must be the smaller one"),
        (["-s", "sampler=random,nothing"], "search space, sampler = nothing: Unknown sampler"),
        (["-s", "learning_rate=1:2", "--learning-rate", "x"], "setting 'learning_rate' is 'x'"),
        (["-s", "learning_rate=1:2", "--measure", "divergense"], "Did you mean 'divergence'?"),
        (["-s", "learning_rate=1:2", "--check-seeds", "1"], "an interval needs 2"),
        (["-s", "learning_rate=1:2", "--run-dir", "x"], "run_dir names the directory of one run"),
        (["-s", "rounds=1:2"], "max_steps is set, and rounds say nothing beside it"),
        (["-s", "learning_rate=1:2", "--trials", "0"], "trials"),
        (["-s", "learning_rate=1:2", "--train-file", "none.jsonl"], "none.jsonl"),
        (["-s", "optimizer=adamw,adamww"], "adamww"),
        (["-s", "lr_schedule=linear,consine"], "search space, lr_schedule = consine"),
        (["--space", "none.toml"], "search space none.toml: No such file"),
        (["-s", "learning_rate=1:2", "--plugin", "none.py"], "none.py"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str],
    said: str,
    config_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "found"
    # where the steps are said, the data are not looked at before the first run
    limits = {"max_steps": 0} if "--train-file" in arguments else {}
    written = config_file(**limits)
    given = arguments if arguments in ([], ["--learning-rate", "1e-4"]) else ["--config", written, *arguments]
    assert said in refused(capsys, str(folder), *given)
    assert not folder.exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_the_first_run_finds_out_is_one_line_and_leaves_nothing(
    jobs: str, config_file: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "found"
    given = ["--config", config_file(teacher="no/such"), *SPACE, "--jobs", jobs]
    code, out, err = outcome(capfd, str(folder), *given)
    assert (code, err.count("\n")) == (2, 1)
    assert out.startswith("trial 0 begins")
    assert "trial 0 (the default): " in err
    assert "no/such" in err
    assert not folder.exists()


def test_a_folder_of_something_else_is_left_alone(
    config_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    said = refused(capsys, str(folder), "--config", config_file(), *SPACE)
    assert "holds something other than a search" in said
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    said = refused(capsys, str(folder / "notes.txt"), "--config", config_file(), *SPACE)
    assert "holds something other than a search" in said
    said = refused(capsys, str(folder / "notes.txt" / "deep"), "--config", config_file(), *SPACE)
    assert "cannot be written" in said


def test_without_optuna_one_line_says_what_to_install(
    config_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = refused(capsys, str(tmp_path / "found"), "--config", config_file(), *SPACE)
    assert "pip install 'sage-kit[search]'" in said
    assert not (tmp_path / "found").exists()


def test_few_trials_have_no_picture_and_a_default_that_is_best_no_check(
    config_file: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "found"
    code, out, _ = outcome(
        capsys, str(folder), "--config", config_file(), "-s", "learning_rate=1e-9,2e-9,3e-9", "--trials", "9"
    )
    assert code == 0
    # the default lies outside of what is searched, and there are three other values
    assert "every combination of these values that goes together has been tried" in out
    report = (folder / "report.md").read_text()
    assert "4 trials, 4 complete" in report
    assert "- **Best**: trial 0" in report
    assert "no trial was better than the default" in report
    assert "needs two settings that every trial has" in report
    assert not (folder / "importance.png").exists()
    assert isinstance(load_config(file=folder / "best.toml"), RunConfig)


def test_a_trial_that_fails_alone_is_told_and_counts(
    config_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    plugin_file: Callable[..., Path],
) -> None:
    plugin = plugin_file(
        """
        from sage_kit.components import FilterSpec

        def broken(options, context):
            raise ValueError("no such filter")

        @hookimpl
        def sage_filters():
            yield FilterSpec(name="broken", summary="Fails", factory=broken)
        """
    )
    folder = tmp_path / "found"
    code, out, _ = outcome(
        capsys, str(folder), "--config", config_file(), "--plugin", str(plugin), "-s", "filter=none,broken",
        "-s", "n_components=2,100", "--trials", "9", "--measure", "metric", "--finalists", "0", "--check-seeds", "0",
    )  # fmt: skip
    assert code == 0, out
    counted = [one for one in trials_of(folder).values() if PASSED_OVER not in one[4]]
    assert counted[0][0] == "COMPLETE"
    failed = [one for one in counted if one[0] == "FAIL"]
    assert {one[2]["filter"] for one in failed} == {"broken"}
    assert "failed: filter 'broken'" in out
    # more dimensions than the vectors have, which a run finds out
    assert "failed: n_components is 100, but the vectors have 32 dimensions" in out
    report = (folder / "report.md").read_text()
    ended = f"{len(counted) - 1 - len(failed)} ended early or without a result"
    assert f"{len(counted)} trials, 1 complete, {ended}, {len(failed)} failed;" in report
