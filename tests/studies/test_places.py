"""Files beside the notebooks are found from wherever the notebooks run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_kit.errors import StudyError
from sage_kit.studies.places import companion

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
