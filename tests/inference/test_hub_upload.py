"""Uploading a student: what arrives at a stand-in for the hub, byte by byte, and what is said where nothing can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny
from hubstandin import TOKEN, Hub
from huggingface_hub import constants
from safetensors import safe_open

from sage_kit.cli.app import main
from sage_kit.errors import SageError
from sage_kit.inference.hub_upload import plan_upload
from sage_kit.inference.model_card import model_card, without_mark, write_model_card
from sage_kit.rundir import RunDirectory

# the hub's client hands its web library the bytes of a large file as `data`
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Finished = tuple[RunDirectory, dict[str, Any], Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in, which the hub's client takes for the hub."""
    standin = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", standin.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another service, of which there is no stand-in
    huggingface_hub.close_session()
    yield standin
    huggingface_hub.close_session()
    standin.close()


@pytest.fixture
def run_directory(classes: Finished) -> Iterator[Path]:
    """A finished run without a card."""
    directory, _, _ = classes
    yield directory.path
    (directory.student / "README.md").unlink(missing_ok=True)


def push(*arguments: str | Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    """What the command prints, on either stream."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["push", *map(str, arguments)])
    told = capsys.readouterr()
    assert ended.value.code == code, told.err
    return told.out, told.err


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_arrives(hub: Hub, run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The student as it lies there, and a card that loads it by the repository's name; no file of the run."""
    out, _ = push(run_directory, "mine", "--message", "Mine.", capsys=capsys)
    assert f"{hub.url}/anna/mine/commit/" in out
    repository = hub.repositories["anna/mine"]
    assert (repository["private"], repository["commits"]) == (False, ["Mine."])
    arrived = dict(repository["branches"]["main"])
    card = arrived.pop("README.md").decode()
    assert arrived == on_disk(run_directory / "student")
    assert card == without_mark(model_card(run_directory)).replace("path/to/student", "anna/mine")
    assert 'load_student("anna/mine")' in card
    assert not (run_directory / "student" / "README.md").exists()
    assert ("PUT", "/objects/" + next(iter(hub.objects))) in hub.requests  # the weights went as a large file


def test_the_command_in_a_process_of_its_own(hub: Hub, run_directory: Path) -> None:
    """With nothing but what a user sets, and the token nowhere in what it prints."""
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "sage_kit", "push", str(run_directory / "student"), "acme/mine", "--private"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert re.fullmatch(r"sage-kit: uploading 5 files, 0\.1 MB, to acme/mine\n", done.stderr)
    repository = hub.repositories["acme/mine"]
    assert repository["private"]
    assert "README.md" in repository["branches"]["main"]  # of the run that the student is of


def test_a_branch_and_a_card_of_ones_own(hub: Hub, run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("anna/mine", private=True)
    hub.repositories["anna/mine"]["branches"]["main"]["other.txt"] = b"stays"
    path = write_model_card(run_directory)
    path.write_text(path.read_text().replace("## Limits", "## Limits\n\nMine.").replace("# Student", "# My student"))
    push(run_directory, "anna/mine", "--private", "--revision", "v2", capsys=capsys)
    branches = hub.repositories["anna/mine"]["branches"]
    assert branches["main"] == {"other.txt": b"stays"}
    assert branches["v2"]["other.txt"] == b"stays"
    card = branches["v2"]["README.md"].decode()
    assert "Mine." in card
    assert 'load_student("anna/mine")' in card
    push(run_directory, "anna/mine", "--revision", "v2", capsys=capsys)  # again, into the branch that is there
    assert len(hub.objects) == 1


def test_a_dry_run_asks_no_hub(
    run_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    out, err = push(run_directory, "anna/mine", "--dry-run", capsys=capsys)
    size = (run_directory / "student" / "model.safetensors").stat().st_size
    assert re.search(rf"model\.safetensors\s+│ {size:,}", out)
    assert "pipeline_tag: text-classification" in out
    assert "Nothing was sent; without --dry-run this goes to anna/mine." in out
    assert err == ""


def test_what_is_no_part_of_a_model_stays(run_directory: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(run_directory / "student", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": str(tmp_path), "note": "stays"}))
    kept = {"vocab.txt": "a", "LICENSE": "b", "onnx/model.onnx": "c", "1_Pooling/config.json": "{}", "notes.md": "x"}
    left = {
        "optimizer.pt", "optimizer.safetensors", "scheduler.pt", "rng_state.pth", "trainer_state.json",
        "training_args.bin", "pytorch_model.bin", ".env", ".git/config.json", "checkpoint-500/model.safetensors",
        "wandb/run.json", "train.csv", "log.txt", "eval_results.json",
    }  # fmt: skip
    for name, text in {**kept, **dict.fromkeys(left, "z")}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    upload = plan_upload(folder)
    assert set(upload.left_out) == left
    assert set(upload.files) == {*on_disk(run_directory / "student"), *kept}
    sent = json.loads(bytes(upload.files["config.json"]))
    assert sent == {**config, "note": "stays"}
    assert upload.size("config.json") == len(bytes(upload.files["config.json"]))
    assert upload.files["model.safetensors"] == folder / "model.safetensors"
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        assert weights.keys()


def test_a_checkpoint_without_a_run_has_no_card(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny.make_checkpoint(tmp_path / "student", labels=2)
    (checkpoint / "log.txt").write_text("x")
    _, err = push(checkpoint, "plain", capsys=capsys)
    assert "not uploaded, since no part of the model: log.txt" in err
    assert "there is no model card (README.md), and no run to make it from" in err
    assert "README.md" not in hub.repositories["anna/plain"]["branches"]["main"]


def refused(hub: Hub, arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why; nothing was committed."""
    before = {name: len(one["commits"]) for name, one in hub.repositories.items()}
    _, err = push(*arguments, capsys=capsys, code=2)
    lines = [line for line in err.splitlines() if not line.startswith("sage-kit: uploading")]
    assert len(lines) == 1, lines
    assert TOKEN not in err
    assert {name: len(one["commits"]) for name, one in hub.repositories.items() if name in before} == before
    assert not any(one["commits"] for name, one in hub.repositories.items() if name not in before)
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["RUN", "other/mine"],
            "'other/mine' is not yours: you are logged in as 'anna' (a member of acme); name anna/",
        ),
        (["RUN", "a/b/c"], "a repository cannot be called 'a/b/c'"),
        (["RUN", "-x"], "No such option"),
        (["RUN", "a--b"], "a repository cannot be called 'a--b'"),
        (["RUN", "https://huggingface.co/anna/mine"], "is an address: name the repository alone, as owner/name"),
        (["nothing", "mine"], "nothing does not exist: name a finished run, or a checkpoint"),
        (["a.csv", "mine"], "a.csv is a file: name a finished run, or a checkpoint"),
        ([".", "mine"], ". is no checkpoint, since it has no config.json"),
        (["pickled", "mine"], "pickled has no weights as safetensors or ONNX, and pickles are not uploaded"),
        (["broken", "mine"], "model.safetensors is broken"),
        (["garbled", "mine"], "config.json cannot be read as JSON"),
        (["unfinished", "mine"], "is not finished, so it has no student: finish it with `sage-kit resume unfinished`"),
        (["RUN", "public", "--private"], "repository 'anna/public' exists and is public"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    hub: Hub, run_directory: Path, tmp_path: Path, arguments: list[str], message: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text\n")
    for name in ("pickled", "broken", "garbled"):
        shutil.copytree(run_directory / "student", name)
    Path("pickled/model.safetensors").rename("pickled/pytorch_model.bin")
    weights = Path("broken/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    Path("garbled/config.json").write_text("{")
    shutil.copytree(run_directory, "unfinished")
    Path("unfinished/summary.json").unlink()
    hub.add("anna/public")
    given: list[str | Path] = [run_directory if word == "RUN" else word for word in arguments]
    assert message in refused(hub, given, capsys)


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("whoami", 401, "the hub does not know your token: log in again with `hf auth login`"),
        ("repos/create", 403, "you may not write to repository 'anna/mine' (so it is told): name one of your own"),
        ("/branch/", 403, "you may not write to repository 'anna/mine'"),
        ("/commit/", 403, "you may not write to repository 'anna/mine'"),
        ("/commit/", 404, "the hub has no repository 'anna/mine' that you may see"),
        ("/commit/", 413, "the hub refuses it with 413 (so it is told): nothing was committed"),
        ("/commit/", 500, "the hub answers 500 (so it is told): try the same again later"),
        ("objects/batch", 422, "the hub refuses it with 422"),
        ("/objects/", 403, "you may not write to repository 'anna/mine'"),
    ],
)
def test_what_the_hub_refuses(
    hub: Hub, run_directory: Path, part: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail[part] = status
    assert message in refused(hub, [run_directory, "mine", "--revision", "v1"], capsys)


def test_a_card_that_the_hub_cannot_read(hub: Hub, run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_directory / "student" / "README.md").write_text("---\nlicense: [\n---\n\n# Mine\n")
    line = refused(hub, [run_directory, "mine"], capsys)
    assert "the hub refuses the card: Invalid metadata in README.md." in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"HF_TOKEN": None}, "you are not logged in to the hub: log in with `hf auth login`, or set HF_TOKEN"),
        ({"HF_TOKEN": "hf_of_another_hub"}, "the hub does not know your token"),
        (
            {"ENDPOINT": "http://127.0.0.1:9"},
            "the hub cannot be reached at http://127.0.0.1:9 to log in (ConnectError)",
        ),
        ({"HF_HUB_OFFLINE": True}, "the hub is not asked, since HF_HUB_OFFLINE is set: unset it, or see what would go"),
    ],
)
def test_a_hub_out_of_reach(
    hub: Hub, run_directory: Path, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in change.items():
        if name != "HF_TOKEN":
            monkeypatch.setattr(constants, name, value)
        elif value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    huggingface_hub.close_session()
    assert message in refused(hub, [run_directory, "mine"], capsys)


def test_what_answers_and_is_no_hub(
    hub: Hub, run_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "user", None)  # an answer that is no user
    assert re.search(r"could not log in \(\w+: .*\): nothing was committed", refused(hub, [run_directory, "m"], capsys))


def test_a_plan_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SageError, match="is no checkpoint, since it has no config"):
        plan_upload(tmp_path)
