"""The steps that a card takes, on the CPU at tiny sizes, and the script around them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sage_bench import card, distill
from sage_bench.ceilings import Copy
from sage_bench.generated_texts import write_texts, write_tokenizer
from sage_kit.cli import main
from sage_kit.models.checkpoints import load_tokenizer

SCRIPT = Path(card.__file__).parents[1] / "on_a_card.sh"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what steps find, with ceilings that are measured in no time."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setattr(distill, "GEMM_SECONDS", 0.01)
    monkeypatch.setattr(distill, "Copy", lambda device: Copy(device, megabytes=1, times=1))
    return tmp_path / "out"


def found(out: Path, step: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((out / f"{step}.json").read_text(encoding="utf-8"))
    assert (data["step"], data["device"], data["torch"]) == (step, "cpu", torch.__version__)
    return data


def test_texts_are_as_long_as_asked_and_all_their_words_are_known(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", 200)
    write_texts(tmp_path / "texts.jsonl", 40, (5, 12), words=200)
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    assert len(tokenizer) == 205
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    ids = tokenizer([row["text"] for row in rows])["input_ids"]
    assert {len(one) for one in ids} == set(range(5, 13))
    assert all(one[0] == tokenizer.cls_token_id and one[-1] == tokenizer.sep_token_id for one in ids)
    assert not any(tokenizer.unk_token_id in one for one in ids)
    assert [row["label"] for row in rows] == [0, 1] * 20
    assert len({row["text"] for row in rows}) == 40
    assert 5 + card.WORDS == 30_522


def test_the_card_is_recorded(out: Path) -> None:
    assert card.take("probe", out, card.DRY)
    data = found(out, "probe")
    assert data["passed"] is True
    assert data["machine"]["torch"] == torch.__version__
    assert "cuda" in data


def test_a_round_beside_a_trainer_and_the_ceiling(out: Path) -> None:
    goals = {card.SHARE: 1e9, card.TRAINER: 1e-9}
    plan = card.Plan(**{**vars(card.DRY), "goals": goals})
    assert card.take("distill", out, plan)
    data = found(out, "distill")
    ours = {line["who"]: line for line in data["lines"] if line["is_ours"]}
    assert set(ours) == {distill.REAL, distill.SYNTHETIC}
    share, ratio = data["targets"]
    assert (share["goal"], share["is_met"]) == (1e9, False)
    assert (ratio["goal"], ratio["is_met"]) == (1e-9, True)
    assert share["measured"] == ours[distill.REAL]["ceiling_share"]
    trainer = next(line for line in data["lines"] if line["who"] == distill.TRAINER)
    assert ratio["measured"] == trainer["ratios"][distill.REAL_RATIO]
    # as many texts of equal length as one asks for, less the one that dev gets
    assert (data["details"]["examples"], data["details"]["tokens"]) == (63, 63 * 16)
    assert data["details"]["steps"] == 4


def test_synthesis_from_text_to_student(out: Path) -> None:
    assert card.take("synthesis", out, card.DRY)
    data = found(out, "synthesis")
    for kind in ("texts", "vectors"):
        assert data[kind]["rounds"][-1]["synthetic"] > 0
        assert data[kind]["device"] == "cpu"
        assert data[kind]["costs"]["seconds"]["student"] > 0
    assert data["texts"]["rounds"][0]["synthetic"] > 0
    assert data["vectors"]["rounds"][0]["synthetic"] == 0


def here(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code


def test_a_run_that_goes_on_on_the_same_device_ends_alike(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "on_cpu", here)
    assert card.take("resume", out, card.DRY)
    data = found(out, "resume")
    for order in ("card, then CPU", "CPU, then card"):
        assert data[order]["apart"] == 0
        assert data[order]["way"] > 0


def test_a_student_that_ends_elsewhere_is_a_failure(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "on_cpu", here)
    monkeypatch.setattr(card, "FURTHEST", -1.0)
    assert not card.take("resume", out, card.DRY)
    assert found(out, "resume")["problem"].startswith("card, then CPU: 0.000 of the round's way apart")


def test_a_command_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(card.SageError, match=r"sage-kit resume on the CPU: exit code 2: .*nowhere"):
        card.on_cpu(["resume", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("plan", [card.DRY, card.CARD], ids=["dry", "card"])
def test_tests_that_are_all_skipped_show_nothing_of_a_card(
    out: Path, plan: card.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = '<testsuites><testsuite tests="2" skipped="2" failures="0" errors="0">{}</testsuite></testsuites>'
    pytest_writes(monkeypatch, report.format(""))
    assert card.take("tests", out, plan) is (plan is card.DRY)
    data = json.loads((out / "tests.json").read_text(encoding="utf-8"))
    assert data["problem"] == ("" if plan is card.DRY else "no test ran")
    report = report.replace('failures="0"', 'failures="1"')
    pytest_writes(monkeypatch, report.format('<testcase classname="a" name="b"><failure/></testcase>'))
    assert not card.take("tests", out, plan)
    data = json.loads((out / "tests.json").read_text(encoding="utf-8"))
    assert (data["problem"], data["failed"]) == ("1 tests failed", ["a.b"])


def pytest_writes(monkeypatch: pytest.MonkeyPatch, report: str) -> None:
    def call(command: list[str], **more: Any) -> Any:
        path = next(part.partition("=")[2] for part in command if part.startswith("--junitxml="))
        Path(path).write_text(report, encoding="utf-8")
        assert command[1:5] == ["-m", "pytest", "-m", "card"]
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(card.subprocess, "run", call)


def test_whatever_a_step_raises_is_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: card.Plan, scratch: Path) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(card, "STEPS", {"probe": broken})
    assert not card.take("probe", out, card.DRY)
    assert found(out, "probe")["problem"] == "RuntimeError: CUDA error: an illegal memory access was encountered"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here")
def test_without_a_card_one_line_says_so(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, code in ((["probe"], 2), (["distil", "--dry-run"], 1)):
        with pytest.raises(SystemExit) as ended:
            card.app([*arguments, "--out", str(out)])
        assert ended.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()
    out.touch()
    with pytest.raises(SystemExit) as ended:
        card.app(["probe", "--dry-run", "--out", str(out / "here")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith("name another with --out\n")


# ---- the script, with another program in the place of Python ---------------------------------------------------------

needs_script = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash and timeout"
)


def script(tmp_path: Path, body: str, *arguments: str) -> tuple[int, list[list[str]], str]:
    """Its exit code, the lines of steps.tsv without the times, and its error output."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env={**os.environ, "PYTHON": str(stand_in)}, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    table = tmp_path / "found" / "steps.tsv"
    rows = [line.split("\t")[:2] for line in table.read_text(encoding="utf-8").splitlines()] if table.exists() else []
    return done.returncode, rows, done.stderr


@needs_script
def test_the_script_takes_every_step_and_records_each(tmp_path: Path) -> None:
    code, rows, _ = script(tmp_path, f'echo "$@" >> {tmp_path}/calls', "--dry-run", "found")
    assert code == 0
    assert rows == [[step, "0"] for step in card.STEPS]
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls == [f"-m sage_bench.card {step} --out {tmp_path}/found --dry-run" for step in card.STEPS]


@needs_script
def test_a_step_that_fails_fails_the_script_and_not_the_others(tmp_path: Path) -> None:
    code, rows, _ = script(tmp_path, '[ "$3" != distill ]', "found")
    assert code == 1
    assert rows == [[step, "1" if step == "distill" else "0"] for step in card.STEPS]


@needs_script
def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    shorter = tmp_path / "bin" / "timeout"
    shorter.parent.mkdir()
    shorter.write_text(f'#!/bin/sh\nshift 2\nexec {shutil.which("timeout")} 0.5 "$@"\n', encoding="utf-8")
    shorter.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{shorter.parent}{os.pathsep}{os.environ['PATH']}")
        code, rows, errors = script(tmp_path, '[ "$3" != resume ] || sleep 60', "found")
    assert code == 1
    assert rows[-1] == ["resume", "124"]
    assert "resume: not done within 75 s" in errors


@needs_script
def test_without_a_card_the_script_leaves_nothing(tmp_path: Path) -> None:
    code, rows, _ = script(tmp_path, "exit 2", "found")
    assert (code, rows) == (2, [])
    assert not (tmp_path / "found").exists()


@needs_script
def test_an_interpreter_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "found")],
        env={**os.environ, "PYTHON": str(tmp_path / "nowhere")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "found").exists()


@needs_script
@pytest.mark.parametrize("arguments", [["a", "b"], ["--quick"]])
def test_the_script_takes_no_other_arguments(tmp_path: Path, arguments: list[str]) -> None:
    code, rows, errors = script(tmp_path, "exit 0", *arguments)
    assert (code, rows) == (1, [])
    assert errors.startswith("usage: ")


def test_all_steps_together_end_within_eight_minutes() -> None:
    limits = [line.split() for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.startswith("take ")]
    assert [step for _, step, _ in limits] == list(card.STEPS)
    assert sum(int(seconds) for *_, seconds in limits) < 480
    assert os.access(SCRIPT, os.X_OK)
