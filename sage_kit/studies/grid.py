"""The cells of a grid: studies, and for each parameter a value or several, from a TOML, JSON or YAML file.

::

    study = "05_reducers"        # or a list
    profile = "small"
    task = ["rte", "mrpc"]       # each of them: the cells are the product of all lists
    seeds = 5

    [[cells]]                    # one cell more, with the single values above unless it says otherwise
    task = "cola"
    seeds = 10

A parameter that is itself a list, as ``dims: list[int]``, takes a list as one value and a list of lists as several.
A file whose lists are all in ``[[cells]]``, that is, none above, has those cells and no others.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_kit.config import toml_loads
from sage_kit.errors import MissingPackageError, StudyError
from sage_kit.studies.parameters import Parameter, check, find_notebook, read_parameters

LARGEST_GRID = 10_000
"""Most cells of a grid; a larger one is a mistake."""

STUDY = "study"
CELLS = "cells"


@dataclass(frozen=True)
class Request:
    """A notebook and its parameters, complete and checked."""

    notebook: Path
    parameters: Mapping[str, Any]


def grid_requests(
    folder: Path, name: str = "", file: str | Path = "", overrides: Mapping[str, Any] | None = None
) -> list[Request]:
    """What a command asks to execute, without duplicates.

    Parameters
    ----------
    folder : Path
        Where the notebooks are.
    name : str
        The study, which stands in for those of the file; "" takes those of the file.
    file : path
        The grid; "" for one cell.
    overrides : mapping
        Parameters as the command line gives them; they hold in every cell.

    Returns
    -------
    list of Request

    Raises
    ------
    StudyError
        For a file that is missing, malformed or too large, a study or a parameter that does not exist, or a bad value;
        the message names the file and the key.
    MissingPackageError
        For a YAML file where PyYAML is not installed.
    """
    overrides = dict(overrides or {})
    given = read_grid(Path(file)) if file else {}
    studies = [name] if name else _studies(given, file)
    extra = _extra_cells(given, file)
    values = {key: value for key, value in given.items() if key not in (STUDY, CELLS) and key not in overrides}
    requests: list[Request] = []
    for study in dict.fromkeys(find_notebook(folder, study) for study in studies):
        parameters = read_parameters(study)
        fixed = check(parameters, overrides, study=study.stem)
        chosen = {key: fixed[key] for key in overrides}
        for place, cell in _cells(values, extra, parameters, file):
            checked = check(parameters, {**cell, **chosen}, study=study.stem, place=place)
            requests.append(Request(study, checked))
        if len(requests) > LARGEST_GRID:
            raise _too_large(file, len(requests))
    unique = {(str(item.notebook), json.dumps(item.parameters, sort_keys=True)): item for item in requests}
    return list(unique.values())


def read_grid(path: Path) -> dict[str, Any]:
    """The content of a grid's file.

    Raises
    ------
    StudyError
        When it is missing, of another type, malformed, or no table.
    MissingPackageError
        For a YAML file where PyYAML is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json", ".yaml", ".yml"):
        raise StudyError(f"grid {path}: its name must end in .toml, .json, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise StudyError(f"grid {path}: {reason}") from None
    try:
        content = _PARSERS.get(suffix, _yaml)(text)
    except ValueError as error:
        raise StudyError(f"grid {path} is not valid {suffix[1:].upper()}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise StudyError(f"grid {path} is no table of names and values")
    return content


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingPackageError("a grid in YAML needs PyYAML: pip install 'sage-kit[notebooks]'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_PARSERS: Mapping[str, Callable[[str], Any]] = {".toml": toml_loads, ".json": json.loads}


def _studies(given: Mapping[str, Any], file: str | Path) -> list[str]:
    value = given.get(STUDY)
    if value is None:
        where = f"grid {file} has no key {STUDY!r}" if file else "no study is named"
        raise StudyError(f"{where}: name one on the command line{' or there' if file else '; `study list` lists them'}")
    studies = [value] if isinstance(value, str) else value
    if not isinstance(studies, list) or not studies or not all(isinstance(item, str) for item in studies):
        raise StudyError(f"grid {file}: {STUDY!r} is {value!r}: expected a name or a list of names")
    return studies


def _extra_cells(given: Mapping[str, Any], file: str | Path) -> list[dict[str, Any]]:
    extra = given.get(CELLS, [])
    if not isinstance(extra, list) or not all(isinstance(item, dict) for item in extra):
        raise StudyError(f"grid {file}: {CELLS!r} is {extra!r}: expected a list of tables, [[{CELLS}]]")
    return extra


def _cells(
    values: Mapping[str, Any],
    extra: Sequence[Mapping[str, Any]],
    parameters: Sequence[Parameter],
    file: str | Path,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each cell stands, and its values."""
    place = f"grid {file}: " if file else ""
    lists = {parameter.name for parameter in parameters if parameter.is_list}
    several = {key: value for key, value in values.items() if _is_several(value, key in lists)}
    single = {key: value for key, value in values.items() if key not in several}
    for key, choices in several.items():
        if not choices:
            raise StudyError(f"{place}{key!r} is an empty list: give it a value")
    count = math.prod(len(choices) for choices in several.values()) + len(extra)
    if count > LARGEST_GRID:
        raise _too_large(file, count)
    if several or not extra:
        for combination in itertools.product(*several.values()):
            yield place, {**single, **dict(zip(several, combination, strict=True))}
    for number, cell in enumerate(extra, start=1):
        yield f"grid {file}, [[{CELLS}]] number {number}: ", {**single, **cell}


def _is_several(value: Any, is_list: bool) -> bool:
    if not isinstance(value, list):
        return False
    return any(isinstance(item, list) for item in value) if is_list else True


def _too_large(file: str | Path, count: int) -> StudyError:
    return StudyError(f"grid {file} has {count:,} cells, and at most {LARGEST_GRID:,} are taken: split it")
