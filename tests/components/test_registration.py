"""`sage-kit new-plugin --register` makes every edit that the repository needs, and what is missing is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sage_kit.cli import main
from sage_kit.components.registration import (
    PLACES,
    VERSION_FILE,
    edits,
    find_repository,
    new_registered_plugin,
    unregistered,
)
from sage_kit.components.scaffold import SCAFFOLD_KINDS
from sage_kit.config import toml_loads
from sage_kit.errors import ConfigError, RunDirectoryError, SageError

ROOT = Path(__file__).parents[2]
FILES = sorted({place.file for place in PLACES})


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of the repository as a registration looks at."""
    root = tmp_path / "clone"
    for file in (
        *FILES,
        VERSION_FILE,
        "toxfile.py",
        *(path.relative_to(ROOT) for path in ROOT.glob("plugins/*/pyproject.toml")),
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def added_lines(before: bytes, after: bytes) -> list[str]:
    """Lines that are only in `after`, which must hold all others in their order."""
    old, new = before.decode().splitlines(), after.decode().splitlines()
    added = []
    for line in new:
        if old and old[0] == line:
            old.pop(0)
        else:
            added.append(line)
    assert not old
    return added


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_a_registered_plugin_stands_wherever_plugins_are_named(kind: str, clone: Path) -> None:
    before = contents(clone)
    folder, changed = new_registered_plugin(kind, "new_one", clone / "plugins")
    assert (folder / "sage_kit_new_one" / f"{kind}.py").is_file()
    assert sorted(changed) == FILES
    assert unregistered(clone) == []
    after = contents(clone)
    assert added_lines(before["requirements/plugins.txt"], after["requirements/plugins.txt"]) == ["./plugins/new_one"]
    assert added_lines(before["requirements/dev.txt"], after["requirements/dev.txt"]) == ["-e ./plugins/new_one"]
    assert added_lines(before["pyproject.toml"], after["pyproject.toml"]) == ['    "sage_kit_new_one",']
    first_party = f'    ("{kind}", "new_one"): "new_one",'
    plugins = "sage_kit/components/plugins.py"
    assert added_lines(before[plugins], after[plugins]) == [first_party]
    isort = toml_loads(after["pyproject.toml"].decode())["tool"]["ruff"]["lint"]["isort"]["known-first-party"]
    assert sorted(isort) == isort
    # the word in the three lists of [testenv], the line of its folder, and nothing else
    assert after["tox.ini"].decode().replace("{new_one,", "{").replace("    new_one: new_one\n", "") == (
        before["tox.ini"].decode()
    )
    assert after["tox.ini"].count(b"{new_one,") == 3


def test_tox_knows_a_registered_plugin(clone: Path) -> None:
    pytest.importorskip("tox", reason="needs tox")
    new_registered_plugin("filter", "new_one", clone / "plugins")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tox",
            "config",
            "-e",
            "new_one,py312-new_one-torch25",
            "-k",
            "commands",
            "commands_pre",
        ],
        cwd=clone,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pytest plugins/new_one\n") == 2
    assert done.stdout.count("pip install ./plugins/new_one\n") == 2


def test_registering_again_changes_nothing_and_mends_what_is_missing(clone: Path) -> None:
    new_registered_plugin("task", "new_one", clone / "plugins")
    whole = contents(clone)
    assert new_registered_plugin("task", "new_one", clone / "plugins")[1] == []
    assert contents(clone) == whole
    for file in FILES:
        lines = whole[file].splitlines(keepends=True)
        (clone / file).write_bytes(b"".join(line for line in lines if b"new_one" not in line or b"{" in line))
    (clone / "plugins" / "new_one" / "README.md").write_text("mine", encoding="utf-8")
    assert sorted(new_registered_plugin("task", "new_one", clone / "plugins")[1]) == FILES
    assert contents(clone) == {**whole, "plugins/new_one/README.md": b"mine"}


def test_line_ends_and_a_missing_one_at_the_end_stay(clone: Path) -> None:
    file = clone / "requirements" / "plugins.txt"
    text = file.read_text(encoding="utf-8").rstrip("\n").replace("\n", "\r\n")
    file.write_bytes(text.encode())
    new_registered_plugin("lift", "zz", clone / "plugins")
    assert file.read_bytes().decode() == f"{text}\r\n./plugins/zz"


@pytest.mark.parametrize("fails_at", range(len(FILES)))
def test_nothing_is_changed_unless_all_is(fails_at: int, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, replace, calls = contents(clone), Path.replace, []

    def replace_until(path: Path, target: Path) -> Path:
        if target.name in {Path(file).name for file in FILES} and not calls[fails_at:]:
            calls.append(target)
            if len(calls) > fails_at:
                raise PermissionError(13, "Permission denied", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_until)
    with pytest.raises(RunDirectoryError, match=r"cannot be written.*no file was changed"):
        new_registered_plugin("lift", "new_one", clone / "plugins")
    assert contents(clone) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("core", "has a meaning in tox.ini already"),
        ("newest", "has a meaning in tox.ini already"),
        ("scaffold", "has a meaning in tox.ini already"),
        ("type", "has a meaning in tox.ini already"),
        ("linux", "has a meaning in tox.ini already"),
        ("py39", "has a meaning in tox.ini already"),
        ("Bad", "cannot be a plugin's"),
    ],
)
def test_names_that_do_not_go(name: str, said: str, clone: Path) -> None:
    before = contents(clone)
    with pytest.raises(ConfigError, match=said):
        new_registered_plugin("lift", name, clone / "plugins")
    assert contents(clone) == before


def test_another_plugin_of_that_name_is_left_alone(clone: Path) -> None:
    new_registered_plugin("lift", "new_one", clone / "plugins")
    before = contents(clone)
    with pytest.raises(RunDirectoryError, match="new_one exists already"):
        new_registered_plugin("filter", "new_one", clone / "plugins")
    assert contents(clone) == before


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_has_lost_its_list_is_named(file: str, clone: Path) -> None:
    text = (clone / file).read_text(encoding="utf-8")
    for name in ("pacmap", "torchdr", "tsne", "umap"):
        text = text.replace(name, "#")
    (clone / file).write_text(text, encoding="utf-8")
    before = contents(clone)
    with pytest.raises(ConfigError, match=rf"^{file} has no line"):
        new_registered_plugin("lift", "new_one", clone / "plugins")
    assert contents(clone) == before


# ---- outside the repository


@pytest.mark.parametrize("dest", ["plugins", "elsewhere", "clone/docs", "clone", "clone/plugins/umap"])
def test_outside_the_repository_one_line_says_so(
    dest: str, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone.parent)
    before = contents(clone.parent)
    with pytest.raises(SystemExit) as caught:
        main(["new-plugin", "lift", "new_one", "--register", "--dest", dest])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"{clone.parent / dest} is not the folder 'plugins' of a clone" in captured.err
    assert contents(clone.parent) == before


def test_another_project_with_the_same_files_is_no_clone(clone: Path) -> None:
    assert find_repository(clone / "plugins") == clone
    file = clone / "pyproject.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('name = "sage-kit"', 'name = "other"'), encoding="utf-8")
    assert find_repository(clone / "plugins") is None


def test_a_clone_of_another_version_is_left_alone(clone: Path) -> None:
    file = clone / VERSION_FILE
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('__version__ = "', '__version__ = "9.'), encoding="utf-8")
    before = contents(clone)
    with pytest.raises(ConfigError, match=r"is of version 9\..*: install the clone first") as caught:
        new_registered_plugin("lift", "new_one", clone / "plugins")
    assert "\n" not in str(caught.value)
    assert contents(clone) == before


def test_the_command_line_registers(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    for said in ("Registered in: requirements/plugins.txt", "no file is changed"):
        with pytest.raises(SystemExit) as caught:
            main(["new-plugin", "stop_rule", "new_one", "--register"])
        assert caught.value.code == 0
        assert said in capsys.readouterr().out
    assert unregistered(clone) == []


# ---- what is missing


def test_each_missing_edit_is_named_with_its_file_and_line(clone: Path) -> None:
    (clone / "plugins" / "new_one").mkdir()
    (clone / "plugins" / "new_one" / "pyproject.toml").write_text("", encoding="utf-8")
    faults = unregistered(clone)
    assert "requirements/dev.txt:3: add the line '-e ./plugins/new_one'" in faults
    assert "requirements/plugins.txt:2: add the line './plugins/new_one'" in faults
    for file in ("pyproject.toml", "sage_kit/components/plugins.py"):
        assert len([fault for fault in faults if fault.startswith(f"{file}:")]) == 1
    braces = [fault for fault in faults if fault.endswith("add the word 'new_one' between the braces")]
    assert len(braces) == 3
    lines = (clone / "tox.ini").read_text(encoding="utf-8").splitlines()
    for fault in braces:
        file, number, _ = fault.split(":", 2)
        assert file == "tox.ini"
        assert "{pacmap,torchdr,tsne,umap}" in lines[int(number) - 1]
    assert len(faults) == 8

    # each named line is where the edit goes
    for path, text in edits(clone, "KIND", "new_one").items():
        file = path.relative_to(clone).as_posix()
        numbers = [int(fault.split(":")[1]) for fault in faults if fault.startswith(f"{file}:")]
        new = text.splitlines()
        assert all("new_one" in new[number - 1] for number in numbers)


def test_a_line_too_many_is_named(clone: Path) -> None:
    shutil.rmtree(clone / "plugins" / "tsne")
    faults = unregistered(clone)
    assert "requirements/dev.txt:5: remove the line of 'tsne'" in faults
    assert {fault.partition(":")[0] for fault in faults} == set(FILES)
    assert len(faults) == 8


def test_errors_are_one_line_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(SageError) as caught:
        new_registered_plugin("lift", "mine", tmp_path)
    assert "\n" not in str(caught.value)
