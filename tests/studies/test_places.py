"""Files beside the notebooks, runs and results are found from any folder of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_kit.errors import StudyError
from sage_kit.studies.places import CELLS, RESULTS, RUNS, companion, in_project, project_root, result_folders, shown

NAME = "plugins/extra.py"


def test_found_here_and_in_the_folder_of_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "notebooks" / NAME
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.chdir(tmp_path)
    assert companion(NAME) == f"notebooks/{NAME}"
    monkeypatch.chdir(tmp_path / "notebooks")
    assert companion(NAME) == NAME


def test_found_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sage_kit.studies.places.sage_kit.__file__", str(tmp_path / "src" / "sage_kit" / "__init__.py"))
    file = tmp_path / "src" / "notebooks" / NAME
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert companion(NAME) == f"src/notebooks/{NAME}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert companion(NAME) == str(file)


def test_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"there is no file 'plugins/nothing.py' here"):
        companion("plugins/nothing.py")


# ---- the project's folders


def test_the_root_is_that_of_the_repository_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "plugins" / "mine" / "src"
    deep.mkdir(parents=True)
    (tmp_path / ".git").write_text("gitdir: elsewhere")  # a file, in a worktree
    (tmp_path / "plugins" / "mine" / "pyproject.toml").write_text("")
    (deep / "runs" / "studies").mkdir(parents=True)
    for folder in (tmp_path, deep.parent, deep):
        monkeypatch.chdir(folder)
        assert project_root() == tmp_path
        assert in_project(None, RUNS) == tmp_path / "runs" / "studies"


def test_without_a_repository_the_outermost_project_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "project" / "plugins" / "mine"
    inner.mkdir(parents=True)
    for folder in (inner, tmp_path / "project"):
        (folder / "pyproject.toml").write_text("")
    monkeypatch.chdir(inner)
    assert project_root() == tmp_path / "project"


def test_a_folder_of_no_project_counts_from_its_first_study_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "notes"
    below.mkdir()
    monkeypatch.chdir(below)
    assert project_root() == below
    (tmp_path / "runs" / "results").mkdir(parents=True)
    assert project_root() == tmp_path


def test_a_repository_at_home_claims_no_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert project_root() == work
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path


def test_a_named_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    assert in_project("results", RESULTS) == Path("results")
    assert result_folders("mine") == [Path("mine")]


def test_results_are_those_of_the_repository_and_the_local_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    assert result_folders() == []
    (tmp_path / "results").mkdir()
    (tmp_path / "runs" / "results").mkdir(parents=True)
    assert result_folders() == [tmp_path / "results", tmp_path / "runs" / "results"]


def test_git_ignores_what_studies_write_by_default() -> None:
    lines = (Path(__file__).parents[2] / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/runs/" in lines
    assert all(name.startswith("runs/") for name in (RUNS, RESULTS, CELLS))


def test_paths_below_the_current_folder_are_shown_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(tmp_path / "here" / "a" / "b") == "a/b"
    assert shown(tmp_path / "there") == (tmp_path / "there").as_posix()
