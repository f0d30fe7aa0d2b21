"""The cells of a grid: studies, and for each parameter a value or several, from a TOML, JSON or YAML file.

::

    study = "05_reducers"        # or a list
    profile = "small"
    task = ["rte", "mrpc"]       # each of them: the cells are the product of all lists
    seeds = 5

    [[cells]]                    # one cell more, with the single values above unless it says otherwise
    task = "cola"
    seeds = 10

    [[cells]]                    # one cell of another study, with the single values above that it has parameters for
    study = "10_is_it_the_region"
    task = "rte"

A parameter that is itself a list, as ``dims: list[int]``, takes a list as one value and a list of lists as several.
A file whose lists are all in ``[[cells]]``, that is, none above, has those cells and no others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sage_kit.config import explain
from sage_kit.errors import MissingPackageError, StudyError, one_line, shortened
from sage_kit.storage.reading import LONGEST_CAUSE, cause_of, json_loads, toml_loads
from sage_kit.studies.parameters import Parameter, check, find_notebook, read_parameters
from sage_kit.studies.runner import Cell, make_cell

LARGEST_GRID = 10_000  # most cells of a grid; a larger one is a mistake


class Grid(BaseModel):
    """A grid's file: the studies, single cells, and beside them a value or several of each parameter."""

    model_config = ConfigDict(extra="allow", strict=True)

    study: str | list[str] = []
    cells: list[dict[str, Any]] = []


def grid_cells(
    folder: Path, out: Path, name: str = "", file: str | Path = "", overrides: Mapping[str, Any] | None = None
) -> list[Cell]:
    """What a command asks to execute, without duplicates. `name` is the study, which stands in for those of the file;
    `overrides` are parameters as the command line gives them, and hold in every cell.
    """
    overrides = overrides or {}
    grid = _read(Path(file)) if file else Grid()
    studies = [name] if name else [grid.study] if isinstance(grid.study, str) else grid.study
    own = [cell for cell in grid.cells if "study" in cell and not name]  # a study on the command line stands for all
    shared = [{key: value for key, value in cell.items() if key != "study"} for cell in grid.cells if cell not in own]
    values = {key: value for key, value in (grid.model_extra or {}).items() if key not in overrides}
    if not studies and (not own or shared or any(isinstance(value, list) for value in values.values())):
        where = f"grid {file} has no key 'study'" if file else "no study is named"
        raise StudyError(f"{where}: name one on the command line{' or there' if file else '; `study list` lists them'}")
    cells: dict[Path, Cell] = {}
    for notebook in dict.fromkeys(find_notebook(folder, study) for study in studies):
        parameters = read_parameters(notebook)
        check(parameters, overrides, study=notebook.stem)
        for place, given in _cells(values, shared, parameters, f"grid {file}"):
            cell = make_cell(notebook, {**given, **overrides}, out, place=place)
            cells.setdefault(cell.directory, cell)
    for place, notebook, given in _own_cells(folder, values, own, f"grid {file}"):
        cell = make_cell(notebook, {**given, **overrides}, out, place=place)
        cells.setdefault(cell.directory, cell)
    return list(cells.values())


def _own_cells(
    folder: Path, values: Mapping[str, Any], own: Sequence[Mapping[str, Any]], file: str
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Of cells that name a study of their own: where each stands, the notebook, and its values.

    Of the values above, those hold that are no list and that the study has parameters for: they may be another's.
    """
    for number, cell in enumerate(own, start=1):
        place = f"{file}, [[cells]] number {number} with a study: "
        if not isinstance(cell["study"], str):
            raise StudyError(f"{place}'study' is {shortened(repr(cell['study']), 60)}: name one study, in quotes")
        notebook = find_notebook(folder, cell["study"])
        known = {parameter.name: parameter for parameter in read_parameters(notebook)}
        single = {key: value for key, value in values.items() if key in known and not isinstance(value, list)}
        yield place, notebook, {**single, **{key: value for key, value in cell.items() if key != "study"}}


def _read(path: Path) -> Grid:
    """The content of a grid's file."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json", ".yaml", ".yml"):
        raise StudyError(f"grid {path}: its name must end in .toml, .json, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8")
        return Grid.model_validate(PARSERS.get(suffix, _yaml)(text))
    except OSError as error:
        raise StudyError(f"grid {path}: {error.strerror}") from None
    except ValidationError as error:
        raise StudyError(f"grid {path}: {explain(error, Grid, 'key')}") from None
    except ValueError as error:
        raise StudyError(f"grid {path} is not valid {suffix[1:].upper()}: {cause_of(error)}") from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingPackageError("a grid in YAML needs PyYAML: pip install 'sage-kit[notebooks]'") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:  # a date such as 0-0-0
        raise ValueError(one_line(error, LONGEST_CAUSE)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


PARSERS: Mapping[str, Callable[[str], Any]] = {".toml": toml_loads, ".json": json_loads}


def _cells(
    values: Mapping[str, Any], extra: Sequence[Mapping[str, Any]], parameters: Sequence[Parameter], file: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each cell stands, and its values."""
    lists = {parameter.name for parameter in parameters if parameter.is_list}
    several = {
        key: value
        for key, value in values.items()
        if isinstance(value, list) and (key not in lists or any(isinstance(item, list) for item in value))
    }
    empty = [key for key, choices in several.items() if not choices]
    if empty:
        raise StudyError(f"{file}: {empty[0]!r} is an empty list: give it a value")
    single = {key: value for key, value in values.items() if key not in several}
    count = math.prod(map(len, several.values())) * bool(several or not extra) + len(extra)
    if count > LARGEST_GRID:
        raise StudyError(f"{file} has {count:,} cells, and at most {LARGEST_GRID:,} are taken: split it")
    if several or not extra:
        for combination in itertools.product(*several.values()):
            yield f"{file}: ", {**single, **dict(zip(several, combination, strict=True))}
    for number, cell in enumerate(extra, start=1):
        yield f"{file}, [[cells]] number {number}: ", {**single, **cell}
