"""`sage-kit doctor`: what it finds, what it says to do, and its exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pluginsources import Install

from sage_kit.cli import doctor_checks, main
from sage_kit.cli.doctor_checks import Health


@pytest.fixture(autouse=True)
def no_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports are timed in one test alone: each takes a process and seconds."""
    monkeypatch.setattr(doctor_checks, "IMPORTED", {"json": "json"})
    monkeypatch.setattr(doctor_checks, "_modules_of_plugins", dict)


def look(capsys: pytest.CaptureFixture[str]) -> tuple[Any, dict[tuple[str, str], dict[str, str]]]:
    """Exit code, and what was found by area and name."""
    with pytest.raises(SystemExit) as exit_info:
        main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    found = {(item["area"], item["name"]): item for item in told["found"]}
    assert told["is_fine"] is (exit_info.value.code == 0)
    for item in told["found"]:
        assert item["remedy"] or item["state"] == "ok", item  # each comes with what to do about it
    return exit_info.value.code, found


def test_a_sound_installation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SAGE_KIT_DATA_DIR", raising=False)
    code, found = look(capsys)
    assert code == 0
    assert found["network", "offline"]["state"] == "note"
    assert "HF_HUB_OFFLINE=1" in found["network", "offline"]["found"]
    assert "read from the hub" in found["network", "SAGE_KIT_DATA_DIR"]["found"]
    assert found["device", "device"]["state"] == "ok"
    assert {area for area, _ in found} == {
        "python", "torch", "device", "precision", "network", "plugins", "packages", "disk", "imports",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        main(["doctor"])
    assert "what to do" in capsys.readouterr().out


def test_a_broken_plugin_is_named_with_a_remedy_that_works(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("import nothing_of_that_name\n")
    monkeypatch.delenv("SAGE_KIT_PLUGINS", raising=False)
    code, found = look(capsys)
    assert code == 1
    (broken,) = (item for item in found.values() if item["state"] == "broken")
    assert "nothing_of_that_name" in broken["found"]
    name = broken["name"]
    assert f"SAGE_KIT_PLUGINS=-{name}" in broken["remedy"]
    monkeypatch.setenv("SAGE_KIT_PLUGINS", f"-{name}")
    code, found = look(capsys)
    assert code == 0
    assert found["plugins", "SAGE_KIT_PLUGINS"]["found"] == f"leaves out {name}"


def test_folders_that_are_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAGE_KIT_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("SAGE_KIT_DATA_DIR", str(tmp_path / "nowhere"))
    code, found = look(capsys)
    assert code == 1
    assert found["disk", "cache of sage-kit"]["found"].endswith("file is no folder")
    assert found["network", "SAGE_KIT_DATA_DIR"]["state"] == "broken"
    monkeypatch.setenv("SAGE_KIT_CACHE_DIR", str(tmp_path / "new" / "cache"))
    monkeypatch.setenv("SAGE_KIT_DATA_DIR", str(tmp_path))
    code, found = look(capsys)
    assert code == 0
    assert found["network", "SAGE_KIT_DATA_DIR"]["state"] == "note"  # it holds nothing
    assert not (tmp_path / "new").exists()  # a look makes nothing


def test_a_full_disk_is_a_note(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    code, found = look(capsys)
    assert code == 0
    assert found["disk", "runs"]["state"] == "note"
    assert "--runs-dir" in found["disk", "runs"]["remedy"]


def test_a_look_that_fails_is_broken_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Health]:
        raise RuntimeError("the driver is gone\nand more")

    monkeypatch.setattr(doctor_checks, "device", fail)
    code, found = look(capsys)
    assert code == 1
    assert found["device", "look"]["found"] == "RuntimeError: the driver is gone and more"
    assert ("disk", "runs") in found


def test_a_plugin_for_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"old": ["sage-kit<0.1"], "silent": ["numpy"], "fine": ["numpy", "sage_kit>=0.1"]}
    monkeypatch.setattr(doctor_checks.importlib.metadata, "requires", lambda name: wanted[name])
    assert [doctor_checks._api_of(name) for name in wanted] == [["sage-kit<0.1"], [], ["sage_kit>=0.1"]]


def test_imports_are_timed_and_broken_ones_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "IMPORTED", {"json": "json", "no_such_module": "no-such"})
    good, bad = doctor_checks.import_times()
    assert good.state == "ok"
    assert good.found.endswith(" s")
    assert bad.state == "broken"
    assert "No module named 'no_such_module'" in bad.found
    assert "no-such" in bad.remedy


def test_the_modules_of_plugins_are_imported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", None)  # nothing is started
    for module, distribution in doctor_checks._modules_of_plugins().items():
        assert not module.startswith("sage_kit.")
        assert distribution.startswith("sage-kit-")
