"""Reading the parameters of a notebook and checking values against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from studies.toynotebook import PARAMETERS, write_notebook

from sage_kit.errors import StudyError
from sage_kit.studies.parameters import (
    Parameter,
    check,
    check_parameters,
    describe_notebook,
    find_notebook,
    list_notebooks,
    listed_counts,
    notebooks_folder,
    read_parameters,
)


@pytest.fixture
def parameters(tmp_path: Path) -> list[Parameter]:
    return read_parameters(write_notebook(tmp_path / "05_reducers.ipynb"))


def test_reads_name_type_default_and_comment(parameters: list[Parameter]) -> None:
    assert [(p.name, p.annotation, p.default) for p in parameters] == [
        ("profile", "str", "smoke"),
        ("seeds", "int | None", None),
        ("learning_rate", "float | None", None),
        ("dims", "list[int]", [2, 8]),
        ("verbose", "bool", False),
        ("results_dir", "str", "results"),
    ]
    assert parameters[1].help == "seeds of each arm"


def test_the_cell_is_never_executed(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=f"x: int = open({str(tmp_path / 'y')!r}, 'w')  # no\n")
    with pytest.raises(StudyError, match=r"a\.ipynb, line 1 .*default of x is no literal"):
        read_parameters(notebook)
    assert not (tmp_path / "y").exists()


def test_blank_lines_comments_and_lists_over_several_lines(tmp_path: Path) -> None:
    source = "# sizes\n\nshares: list[float] = [\n    0.5,\n    1,\n]  # shares\noffset: float = -1  # below\n"
    found = read_parameters(write_notebook(tmp_path / "a.ipynb", parameters=source))
    assert [(p.name, p.default, p.help) for p in found] == [
        ("shares", [0.5, 1.0], "shares"),
        ("offset", -1.0, "below"),
    ]
    assert type(check(found, {})["offset"]) is float


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("seeds = 3  # of each arm", "expected name: type = literal"),
        ("import os", "expected name: type = literal"),
        ("seeds: int  # of each arm", "the default of seeds is no literal"),
        ("seeds: int = 1 + x  # of each arm", "the default of seeds is no literal"),
        ("seeds: tuple[int] = (1,)  # of each arm", r"seeds is of type tuple\[int\] and not str, int"),
        ("a.b: int = 3  # of each arm", "expected name: type = literal"),
        ("%matplotlib inline", "expected name: type = literal"),
    ],
)
def test_a_cell_of_another_form_names_notebook_and_line(tmp_path: Path, line: str, what: str) -> None:
    source = f"profile: str = 'smoke'  # size\n\n{line}\n"
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=source)
    with pytest.raises(StudyError, match=rf"a\.ipynb, line 3 of the cell 'parameters': .*{what}"):
        read_parameters(notebook)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("seeds: int = 'three'  # of each arm", "parameter 'seeds' is 'three': input should be a valid integer"),
        ("seeds: int = True  # of each arm", "parameter 'seeds' is True: input should be a valid integer"),
        ("rates: list[float] = [0.0]  # to tune", "parameter 'rates', item 1, is 0.0: input should be greater than 0"),
    ],
)
def test_a_default_of_another_type_names_notebook_and_parameter(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(StudyError, match=rf"a\.ipynb: {what}"):
        read_parameters(write_notebook(tmp_path / "a.ipynb", parameters=line))


def test_notebooks_without_the_cell_or_unreadable(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"a\.ipynb has no code cell tagged 'parameters'"):
        read_parameters(write_notebook(tmp_path / "a.ipynb", "x = 1", parameters=None))
    (tmp_path / "b.ipynb").write_text("{")
    with pytest.raises(StudyError, match=r"b\.ipynb is not valid JSON"):
        read_parameters(tmp_path / "b.ipynb")
    (tmp_path / "c.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    with pytest.raises(StudyError, match=r"c\.ipynb is no notebook of format 4"):
        read_parameters(tmp_path / "c.ipynb")
    with pytest.raises(StudyError, match=r"d\.ipynb: No such file"):
        read_parameters(tmp_path / "d.ipynb")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("seeds", "5", 5),
        ("seeds", "None", None),
        ("seeds", 5, 5),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", 1, 1.0),
        ("dims", "2, 16", [2, 16]),
        ("dims", "[2, 16]", [2, 16]),
        ("seeds", "5.0", 5),
        ("verbose", "yes", True),
        ("dims", "3", [3]),
        ("dims", "", []),
        ("dims", [4], [4]),
        ("verbose", "true", True),
        ("verbose", "False", False),
        ("results_dir", "None", "None"),
        ("results_dir", "a,b", "a,b"),
        ("profile", "full", "full"),
    ],
)
def test_values_by_type(parameters: list[Parameter], name: str, given: Any, value: Any) -> None:
    checked = check(parameters, {name: given})
    assert checked[name] == value
    assert type(checked[name]) is type(value)
    assert list(checked) == [p.name for p in parameters]
    assert {key: checked[key] for key in checked if key != name} == {
        p.name: p.default for p in parameters if p.name != name
    }


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"sedes": "5"}, r"Unknown parameter 'sedes' of study 05. Did you mean 'seeds'\? Available: dims, "),
        ({"seeds": "many"}, "parameter 'seeds' of study 05 is 'many': input should be a valid integer$"),
        ({"seeds": "5.5"}, "is '5.5': input should be a valid integer"),
        ({"seeds": 5.0}, "is 5.0: input should be a valid integer"),
        ({"seeds": True}, "is True: input should be a valid integer"),
        ({"dims": "2,x"}, r"parameter 'dims' of study 05 is '2,x': input should be a valid list"),
        ({"dims": [2, 3.5]}, r"parameter 'dims' of study 05, item 2, is 3.5: input should be a valid integer"),
        ({"dims": 2}, r"is 2: input should be a valid list"),
        ({"dims": None}, r"is None: input should be a valid list$"),
        ({"verbose": "maybe"}, "is 'maybe': input should be a valid boolean"),
        ({"verbose": "None"}, "input should be a valid boolean"),
        ({"learning_rate": "nan"}, "a finite number"),
        ({"profile": "smal"}, r"Unknown profile 'smal'. Did you mean 'small'\?"),
        ({"learning_rate": "-1"}, "parameter 'learning_rate' is -1.0: input should be greater than 0"),
    ],
)
def test_wrong_values_are_one_line(parameters: list[Parameter], given: dict[str, Any], what: str) -> None:
    with pytest.raises(StudyError, match=what) as caught:
        check(parameters, given, study="05")
    assert "\n" not in str(caught.value)


def test_settings_are_held_against_their_own_constraints_only(tmp_path: Path) -> None:
    source = (
        "profile: str = 'smoke'  # size\ntrain_rows: int | None = None  # rows\nmix: str | None = None  # mix\n"
        "synthetic_ratio: float | None = None  # share\nwarmup_epochs: int | None = None  # passes\n"
    )
    parameters = read_parameters(write_notebook(tmp_path / "a.ipynb", parameters=source))
    with pytest.raises(StudyError, match="parameter 'train_rows' is -1: input should be greater than or equal to 0"):
        check(parameters, {"train_rows": "-1"})
    with pytest.raises(StudyError, match=r"g\.toml: parameter 'mix' is 'ad': input should be 'add' or 'replace'"):
        check(parameters, {"mix": "ad"}, place="g.toml: ")
    # the notebook may bring the corpus that a warm-up needs
    assert check(parameters, {"warmup_epochs": "1"})["warmup_epochs"] == 1


# ---- checking from within a notebook ---------------------------------------------------------------------------------


def namespace(**values: Any) -> dict[str, Any]:
    """What a notebook holds behind its cell of parameters."""
    types = {"profile": str, "seeds": int, "rounds": int, "margin": float, "dims": str, "names": list[str],
             "plugin": str, "deep": bool, "np": object}  # fmt: skip
    plain = {"profile": "smoke", "plugin": "", "other": object(), "np": None}
    return {"__annotations__": types, **dict.fromkeys(types), **plain, **values}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"dims": 2}, "2"),  # papermill makes numbers of text that looks like one
        ({"dims": 0.5}, "0.5"),
        ({"dims": "2,8"}, "2,8"),
        ({"seeds": 5}, 5),
        ({"seeds": "5"}, 5),
        ({"margin": 1}, 1.0),
        ({"names": ["a"]}, ["a"]),
        ({"deep": True}, True),
        ({"seeds": None}, None),
    ],
)
def test_values_that_a_notebook_may_be_given(given: dict[str, Any], value: Any) -> None:
    there = namespace(**given)
    check_parameters(there, "05")
    (name,) = given
    assert there[name] == value
    assert type(there[name]) is type(value)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"seeds": "five"}, "parameter 'seeds' of study 05 is 'five': input should be a valid integer$"),
        ({"rounds": 2.5}, "parameter 'rounds' of study 05 is 2.5: input should be a valid integer"),
        ({"rounds": "[2]"}, r"is '\[2\]': input should be a valid integer"),
        ({"rounds": [2]}, r"is \[2\]: input should be a valid integer"),
        ({"seeds": True}, "is True: input should be a valid integer"),
        ({"dims": False}, "is False: input should be a valid string"),
        ({"dims": ["2"]}, r"is \['2'\]: input should be a valid string"),
        ({"deep": 1}, "is 1: input should be a valid boolean"),
        ({"profile": None}, "is None: input should be a valid string$"),
        ({"profile": "smal"}, r"Unknown profile 'smal'. Did you mean 'small'\?"),
        ({"rounds": -1}, "parameter 'rounds' is -1: input should be greater than"),
        ({"margin": 0.0}, "parameter 'margin' of study 05 is 0.0: input should be greater than 0"),
        ({"margin": float("nan")}, "a finite number"),
    ],
)
def test_values_that_it_may_not_be_given_are_one_line(given: dict[str, Any], what: str) -> None:
    with pytest.raises(StudyError, match=what) as caught:
        check_parameters(namespace(**given), "05")
    assert "\n" not in str(caught.value)


def test_whole_numbers_in_a_text() -> None:
    assert listed_counts("2, 8,2", "dims") == [2, 8]
    for text in ("2,x", "0", "2.5", "-1"):
        with pytest.raises(StudyError, match="dims has "):
            listed_counts(text, "dims")
    with pytest.raises(StudyError, match="dims names no number"):
        listed_counts(",", "dims")


# ---- finding notebooks -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("01_reducer_dimension", "05_reducers", "10_region", "extra"):
        write_notebook(tmp_path / f"{name}.ipynb")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("05_reducers", "05_reducers"),
        ("05_reducers.ipynb", "05_reducers"),
        ("05", "05_reducers"),
        ("5", "05_reducers"),
        ("1", "01_reducer_dimension"),
        ("10", "10_region"),
        ("reducers", "05_reducers"),
        ("reducer_", "01_reducer_dimension"),
        ("reg", "10_region"),
        ("10_r", "10_region"),
        ("ex", "extra"),
    ],
)
def test_a_study_by_number_name_or_beginning(folder: Path, name: str, stem: str) -> None:
    assert find_notebook(folder, name) == folder / f"{stem}.ipynb"


def test_a_study_that_may_be_several_or_none(folder: Path) -> None:
    with pytest.raises(StudyError, match="'reducer' may be any of 01_reducer_dimension, 05_reducers"):
        find_notebook(folder, "reducer")
    with pytest.raises(StudyError, match=r"Unknown study '05_redusers' in .*Did you mean '05_reducers'\?"):
        find_notebook(folder, "05_redusers")
    with pytest.raises(StudyError, match="Unknown study ''"):
        find_notebook(folder, "")


def test_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [path.stem for path in list_notebooks(folder)] == [
        "01_reducer_dimension",
        "05_reducers",
        "10_region",
        "extra",
    ]
    assert notebooks_folder(str(folder)) == folder
    with pytest.raises(StudyError, match=r"there is no folder .*nowhere"):
        notebooks_folder(str(folder / "nowhere"))
    monkeypatch.chdir(folder)
    (folder / "notebooks").mkdir()
    assert notebooks_folder() == folder / "notebooks"


def test_title_and_question(tmp_path: Path) -> None:
    text = "# Reducers\n\n**Question.** Can other reducers\nkeep more?\n\n## Method\n\nWe try."
    assert describe_notebook(write_notebook(tmp_path / "a.ipynb", text=text)) == (
        "Reducers",
        "Can other reducers keep more?",
    )
    assert describe_notebook(write_notebook(tmp_path / "b.ipynb", text="Just text.")) == ("b", "")


def test_the_parameters_of_the_toy_are_of_the_form() -> None:
    assert all("  # " in line for line in PARAMETERS.splitlines())
