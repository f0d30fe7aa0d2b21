"""The cells of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from studies.toynotebook import write_notebook

from sage_kit.errors import StudyError
from sage_kit.studies.grid import grid_cells
from sage_kit.studies.runner import Cell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "notebooks" / "05_reducers.ipynb")
    write_notebook(tmp_path / "notebooks" / "06_other.ipynb", parameters="seeds: int = 1  # of each arm\n")
    return tmp_path / "notebooks"


def written(folder: Path, text: str, name: str = "grid.toml") -> Path:
    path = folder.parent / name
    path.write_text(text, encoding="utf-8")
    return path


def cells(folder: Path, name: str = "", **others: Any) -> list[Cell]:
    return grid_cells(folder, folder.parent / "cells", name, **others)


def chosen(found: list[Cell], *names: str) -> list[tuple[object, ...]]:
    return [(cell.study[:2], *(cell.parameters[name] for name in names)) for cell in found]


def test_the_product_of_all_lists(folder: Path) -> None:
    file = written(folder, 'study = "reducers"\nprofile = "small"\nseeds = [3, 5]\nlearning_rate = [1e-4, 2e-4]\n')
    assert chosen(cells(folder, file=file), "profile", "seeds", "learning_rate") == [
        ("05", "small", 3, 1e-4),
        ("05", "small", 3, 2e-4),
        ("05", "small", 5, 1e-4),
        ("05", "small", 5, 2e-4),
    ]


def test_extra_cells_take_the_single_values(folder: Path) -> None:
    file = written(folder, 'study = "05"\nprofile = "small"\nseeds = [3, 5]\n[[cells]]\nlearning_rate = 1e-3\n')
    assert chosen(cells(folder, file=file), "profile", "seeds", "learning_rate") == [
        ("05", "small", 3, None),
        ("05", "small", 5, None),
        ("05", "small", None, 1e-3),
    ]


def test_a_file_of_extra_cells_only(folder: Path) -> None:
    file = written(folder, 'study = "05"\nprofile = "small"\n[[cells]]\nseeds = 2\n[[cells]]\nprofile = "full"\n')
    assert chosen(cells(folder, file=file), "profile", "seeds") == [("05", "small", 2), ("05", "full", None)]


def test_a_parameter_that_is_a_list(folder: Path) -> None:
    one = written(folder, 'study = "05"\ndims = [2, 4]\n')
    assert chosen(cells(folder, file=one), "dims") == [("05", [2, 4])]
    several = written(folder, 'study = "05"\ndims = [[2, 4], [8]]\n')
    assert chosen(cells(folder, file=several), "dims") == [("05", [2, 4]), ("05", [8])]


def test_several_studies_and_duplicates(folder: Path) -> None:
    file = written(folder, 'study = ["05", "other", "reducers"]\nseeds = [1, 2, 1]\n')
    assert chosen(cells(folder, file=file), "seeds") == [("05", 1), ("05", 2), ("06", 1), ("06", 2)]
    assert chosen(cells(folder, "06", file=file), "seeds") == [("06", 1), ("06", 2)]


def test_the_command_line_wins(folder: Path) -> None:
    file = written(folder, 'study = "05"\nseeds = [3, 5]\nprofile = ["small", "full"]\n[[cells]]\nseeds = 9\n')
    overrides = {"seeds": "7"}
    assert chosen(cells(folder, file=file, overrides=overrides), "profile", "seeds") == [
        ("05", "small", 7),
        ("05", "full", 7),
        ("05", "smoke", 7),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grid.json", json.dumps({"study": "05", "seeds": [3, 5], "cells": [{"seeds": 9}]})),
        ("grid.yaml", "study: '05'\nseeds: [3, 5]\ncells:\n  - seeds: 9\n"),
        ("grid.yml", "study: ['05']\nseeds:\n  - 3\n  - 5\ncells: [{seeds: 9}]\n"),
    ],
)
def test_json_and_yaml(folder: Path, name: str, text: str) -> None:
    if name.endswith("ml"):
        pytest.importorskip("yaml", reason="needs the extra `notebooks`")
    file = written(folder, text, name)
    assert chosen(cells(folder, file=file), "seeds") == [("05", 3), ("05", 5), ("05", 9)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('study = "05"\nsedes = [3]\n', r"grid .*grid\.toml: Unknown parameter 'sedes' of study 05_reducers. Did you"),
        (
            'study = "05"\nseeds = [3, "x"]\n',
            r"grid\.toml: parameter 'seeds' of study 05_reducers is 'x': input should be",
        ),
        ('study = "05"\nseeds = []\n', r"grid\.toml: 'seeds' is an empty list"),
        ("seeds = 1\n", r"grid\.toml has no key 'study'"),
        ("study = 5\n", r"grid\.toml: key 'study' is 5: input should be a valid string or a valid list"),
        ('study = "07"\n', "Unknown study '07'"),
        ('study = "05"\ncells = 3\n', r"grid\.toml: key 'cells' is 3: input should be a valid list"),
        ('study = "05"\n[[cells]]\n[[cells]]\nseeds = "x"\n', r"grid\.toml, \[\[cells\]\] number 2: parameter 'seeds'"),
        ('study = "05\n', r"grid\.toml is not valid TOML: .*line 1"),
        ('study = ["05", "06"]\nprofile = "full"\n', "Unknown parameter 'profile' of study 06_other"),
    ],
)
def test_mistakes_name_the_file_and_the_key(folder: Path, text: str, what: str) -> None:
    with pytest.raises(StudyError, match=what) as caught:
        cells(folder, file=written(folder, text))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_grid(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"gone\.toml: No such file"):
        cells(folder, file=folder / "gone.toml")
    with pytest.raises(StudyError, match=r"must end in \.toml, \.json"):
        cells(folder, file=written(folder, "", "grid.ini"))
    with pytest.raises(StudyError, match=r"grid\.json: Input should be a valid dictionary"):
        cells(folder, file=written(folder, "[]", "grid.json"))


def test_a_grid_beyond_reason_is_refused_before_it_is_built(folder: Path) -> None:
    many = list(range(200))
    file = written(folder, f'study = "05"\nseeds = {many}\nlearning_rate = {[i + 1 for i in many]}\n')
    with pytest.raises(StudyError, match=r"grid\.toml has 40,000 cells, and at most 10,000"):
        cells(folder, file=file)


def test_without_a_file_there_is_one_cell(folder: Path) -> None:
    assert chosen(cells(folder, "05", overrides={"seeds": "4"}), "seeds") == [("05", 4)]
    with pytest.raises(StudyError, match="no study is named"):
        cells(folder)


@pytest.mark.parametrize("text", ["a: [", "[" * 20_000, "- " * 20_000, "!!python/object:os.system {}", "a: 2020-99-99"])
def test_texts_that_are_no_yaml(folder: Path, text: str) -> None:
    pytest.importorskip("yaml", reason="needs the extra `notebooks`")
    with pytest.raises(StudyError, match=r"grid\.yaml is not valid YAML: ."):
        cells(folder, file=written(folder, text, "grid.yaml"))
