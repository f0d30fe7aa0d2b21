"""Where the studies are, and what parameters their notebooks take: read, and checked by name and type.

A notebook's first code cell is tagged ``parameters`` and holds annotated literals, one per name, each with a comment::

    profile: str = "smoke"  # size of the study
    seeds: int = None  # seeds of each arm; None takes the profile's

A default of None says that None is a value of the parameter. (papermill itself knows no ``|`` in an annotation, and
would warn a reader who uses it that the parameter is unknown.)

The cell is read as text and never executed, so a mistake is found before a kernel starts.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import sage_kit
from sage_kit.config import RunConfig, explain
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.places import project_root
from sage_kit.studies.sizes import SIZES

if TYPE_CHECKING:
    from sage_kit.components.plugins import Plugins

STUDY_PARAMETERS: Mapping[str, str] = {
    "profile": "size of the study: smoke, small, medium or full",
    "seeds": "seeds of each arm",
    "plugin": "one-file plugins, separated by commas",
    "preset": "named settings that the arms build on",
    "rates": "learning rates that every arm is tuned over",
    "competitor": "arm that the default meets beside plain distillation",
    "transfer_sizes": "rows of the transfer sets that are compared",
    "runs_dir": "folder in which the runs of the arms are kept and found again",
    "results_dir": "folder in which tables, figures and the verdict are saved",
    "reducers": "reducers that are compared",
    "inverters": "inverters that are compared",
    "trained": "inverters whose pairs are trained with, too",
    "samplers": "samplers that are compared",
    "filters": "filters that are compared",
    "let_through": "share of the synthetic examples that a filter with a limit lets through",
    "lifts": "lifts that are compared",
    "decoder": "decoder that reads synthetic examples",
    "factors": "factors to search, in this order",
    "search_seeds": "seeds of each level of a search",
    "least": "share by which a level must lower the divergence to be taken",
    "decoders": "decoders that are compared",
    "examples": "synthetic examples of each run that are looked at",
    "bypasses": "bypasses that are compared",
    "shares": "shares of synthetic examples that are compared",
    "margin": "difference of a score that still counts as equal",
    "dims": "dimensions of the map that are compared",
    "maps": "reducer seeds that give the noise floor",
    "clusters": "clusters of the map",
    "most_rounds": "most rounds of an arm that ends by its stop rule",
}
"""Parameters of notebooks with a meaning of their own; all but `runs_dir` are no settings of a run."""

NAMING: Mapping[str, str] = {
    "task": "task", "reducer": "reducer", "reducers": "reducer", "inverter": "inverter", "inverters": "inverter",
    "trained": "inverter", "sampler": "sampler", "samplers": "sampler", "filter": "filter", "filters": "filter",
    "lift": "lift", "lifts": "lift", "decoder": "decoder", "decoders": "decoder", "stop_rule": "stop_rule",
}  # fmt: skip
"""Parameters that name components, and the kind of these."""

SEVERAL = ("task", "reducers", "inverters", "trained", "samplers", "filters", "lifts", "decoders")
"""Of those, which take several names, separated by commas."""

RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "search_seeds": ("at least 1", lambda value: value >= 1),
    "most_rounds": ("at least 1", lambda value: value >= 1),
    "maps": ("at least 2", lambda value: value >= 2),
    "clusters": ("at least 2", lambda value: value >= 2),
    "examples": ("at least 2", lambda value: value >= 2),
    "margin": ("above 0", lambda value: value > 0),
    "rates": ("one number or more, each above 0", lambda value: value and all(rate > 0 for rate in value)),
    "least": ("between 0 and 1", lambda value: 0 < value < 1),
    "let_through": ("between 0 and 1", lambda value: 0 < value < 1),
}
"""Numbers that a parameter of a study takes: in words, and whether a value is one."""

PARAMETERS_TAG = "parameters"

SCALARS: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
KINDS = (*SCALARS, "list[str]", "list[int]", "list[float]")
"""The types that a parameter may have; each may also be ``| None``."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook.

    Attributes
    ----------
    name : str
    annotation : str
        One of `KINDS`, or that and ``| None``.
    default : str, int, float, bool, list or None
    help : str
        Its comment.
    """

    name: str
    annotation: str
    default: Any
    help: str

    @property
    def kind(self) -> str:
        """The type without ``| None``."""
        return self.annotation.removesuffix(" | None")

    @property
    def may_be_none(self) -> bool:
        """Whether None is a value of it."""
        return self.annotation.endswith(" | None")

    @property
    def is_list(self) -> bool:
        """Whether its value is a list."""
        return self.kind.startswith("list[")


# ---- notebooks -------------------------------------------------------------------------------------------------------


def notebooks_folder(directory: str = "") -> Path:
    """The folder of the notebooks: the one named, else the project's, else those that come with the package.

    Raises
    ------
    StudyError
        When it does not exist.
    """
    if directory:
        path = Path(directory).expanduser()
        if not path.is_dir():
            raise StudyError(f"there is no folder {path}: name one that holds notebooks with --notebooks")
        return path.resolve()
    packaged = Path(sage_kit.__file__).parent / "_notebooks"
    for path in (Path("notebooks"), project_root() / "notebooks", packaged):
        if path.is_dir():
            return path.resolve()
    raise StudyError("there is no folder ./notebooks here: name one that holds notebooks with --notebooks")


def list_notebooks(folder: Path) -> list[Path]:
    """The notebooks of a folder by name."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def find_notebook(folder: Path, name: str) -> Path:
    """The notebook that a user names: by number, by name with or without it, or by the beginning of either.

    Parameters
    ----------
    folder : Path
    name : str
        "5", "05", "05_reducers", "reducers" or "reduc".

    Raises
    ------
    StudyError
        When there is no such notebook, or more than one.
    """
    stems = {path.stem: path for path in list_notebooks(folder)}
    return stems[pick_study(name.strip().removesuffix(".ipynb"), stems, str(folder))]


def pick_study(name: str, known: Iterable[str], where: str) -> str:
    """The study that a user names, among those that are known.

    Parameters
    ----------
    name : str
        As for `find_notebook`.
    known : iterable of str
        Full names.
    where : str
        Where they were looked for.

    Raises
    ------
    StudyError
        When there is no such study, or more than one.
    """
    stems, wanted = sorted(known), name.strip()
    bare = {stem: re.sub(r"^\d+_", "", stem) for stem in stems}
    number = {stem: re.match(r"\d+", stem) for stem in stems}
    attempts = [
        [stem for stem in stems if stem == wanted],
        [stem for stem, match in number.items() if match and wanted.isdecimal() and int(match[0]) == int(wanted)],
        [stem for stem in stems if bare[stem] == wanted],
        [stem for stem in stems if wanted and (stem.startswith(wanted) or bare[stem].startswith(wanted))],
    ]
    found = next((stems_found for stems_found in attempts if stems_found), [])
    if len(found) == 1:
        return found[0]
    if found:
        raise StudyError(f"study {name!r} may be any of {', '.join(found)}: write more of its name")
    hint = did_you_mean(wanted, stems)
    raise StudyError(f"Unknown study {name!r} in {where}.{hint}")


def load_notebook(path: Path) -> dict[str, Any]:
    """A notebook as a mapping.

    Raises
    ------
    StudyError
        When it cannot be read, or is no notebook of format 4.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"notebook {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StudyError(f"notebook {path} is not valid JSON: {error}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) and notebook.get("nbformat") == 4 else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) and "cell_type" in cell for cell in cells):
        raise StudyError(f"{path} is no notebook of format 4: save it with a current version of Jupyter")
    return dict(notebook)


def cell_source(cell: Mapping[str, Any]) -> str:
    """The text of a notebook's cell."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def describe_notebook(path: Path) -> tuple[str, str]:
    """Title and question of a study: the first heading of its notebook and the paragraph below it.

    Raises
    ------
    StudyError
        As `load_notebook` does.
    """
    text = "\n\n".join(cell_source(c) for c in load_notebook(path)["cells"] if c["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    if heading is None:
        return path.stem, ""
    below = re.split(r"\n\s*\n", text[heading.end() :].strip())
    question = next((" ".join(block.split()) for block in below if block and not block.startswith("#")), "")
    # the word may stand before it, in bold or not
    return heading[1].strip(), re.sub(r"^\**Question[.:]?\**[.:]?\s+", "", question)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_parameters(path: Path) -> list[Parameter]:
    """The parameters of a notebook, from the cell tagged `parameters`, which is not executed.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Parameter
        In the order of the cell.

    Raises
    ------
    StudyError
        When there is no such cell, or more than one, or a line of it is no annotated literal with a comment; the
        message names the notebook and the line.
    """
    tagged = [
        cell
        for cell in load_notebook(path)["cells"]
        if cell["cell_type"] == "code" and PARAMETERS_TAG in cell.get("metadata", {}).get("tags", [])
    ]
    if len(tagged) != 1:
        raise StudyError(f"{path} has {len(tagged) or 'no'} code cell{'s' * (len(tagged) > 1)} tagged "
                         f"{PARAMETERS_TAG!r}: tag the one that holds its parameters")  # fmt: skip
    source = cell_source(tagged[0])

    def wrong(line: int, what: str) -> StudyError:
        return StudyError(f"{path}, line {line} of the cell {PARAMETERS_TAG!r}: {what}")

    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise wrong(error.lineno or 1, f"{error.msg}; expected name: type = literal  # comment") from None
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters: list[Parameter] = []
    for statement in statements:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            raise wrong(statement.lineno, f"{_first_line(statement)!r} is not name: type = literal  # comment")
        name = statement.target.id
        annotation = ast.unparse(statement.annotation)
        if annotation.removesuffix(" | None") not in KINDS:
            raise wrong(statement.lineno, f"{name} is of type {annotation}; expected {', '.join(KINDS)}, or | None")
        if name in {parameter.name for parameter in parameters}:
            raise wrong(statement.lineno, f"{name} stands here twice")
        try:
            default = ast.literal_eval(statement.value) if statement.value is not None else ...
        except (ValueError, TypeError):
            default = ...
        if default is ...:
            raise wrong(statement.lineno, f"the default of {name} is no literal")
        last = statement.end_lineno or statement.lineno
        help = next((comments[line] for line in range(statement.lineno, last + 1) if comments.get(line)), "")
        if not help:
            raise wrong(statement.lineno, f"{name} has no comment behind it that says what it means")
        if default is None and not annotation.endswith(" | None"):
            annotation += " | None"
        parameter = Parameter(name, annotation, default, help)
        try:
            default = _typed(parameter, default)
        except ValueError as error:
            raise wrong(statement.lineno, f"the default of {name} is {default!r}; {error}") from None
        parameters.append(Parameter(name, annotation, default, help))
    return parameters


# ---- checking --------------------------------------------------------------------------------------------------------


def listed(text: str) -> list[str]:
    """The names in a text, which commas separate: `pca, umap` holds two."""
    return [part.strip() for part in text.split(",") if part.strip()]


def listed_counts(text: str, name: str) -> list[int]:
    """The whole numbers from 1 in a text, which commas separate, each once.

    Parameters
    ----------
    text : str
    name : str
        Of the parameter, for the message.

    Raises
    ------
    StudyError
        For none, or what is no such number.
    """
    parts = listed(text)
    wrong = next((part for part in parts if not part.isdecimal() or int(part) < 1), None)
    if wrong is not None:
        raise StudyError(f"{name} has {wrong!r}: each must be a whole number from 1")
    if not parts:
        raise StudyError(f"{name} names no number: give whole numbers from 1, separated by commas")
    return list(dict.fromkeys(int(part) for part in parts))


def check(
    parameters: Sequence[Parameter], given: Mapping[str, Any], *, study: str = "", place: str = ""
) -> dict[str, Any]:
    """All parameters of a notebook, with the values that were given in place of the defaults.

    Parameters
    ----------
    parameters : sequence of Parameter
    given : mapping
        Values by name: of the parameter's type, or text as on the command line (``true``, ``5``, ``None``; lists as
        JSON or separated by commas).
    study : str
        Its name, for the message.
    place : str
        Where the values stand, for the message, e.g. ``"grid.toml: "``.

    Returns
    -------
    dict
        In the order of `parameters`, each of its type.

    Raises
    ------
    StudyError
        For a name that the notebook does not have, a value of another type or out of range, an unknown profile, or a
        value that the setting of a run of that name does not take.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    of_study = f" of study {study}" if study else ""
    for name in given:
        if name not in by_name:
            raise StudyError(f"{place}Unknown parameter {name!r}{of_study}.{did_you_mean(name, by_name)}")
    values = {}
    for name, parameter in by_name.items():
        values[name] = parameter.default
        if name in given:
            value = given[name]
            try:
                values[name] = _parsed(parameter, value) if isinstance(value, str) else _typed(parameter, value)
            except ValueError as error:
                raise StudyError(f"{place}parameter {name!r}{of_study} is {value!r}: {error}") from None
    profile = values.get("profile")
    if "profile" in values and profile not in SIZES:
        raise StudyError(f"{place}Unknown profile {profile!r}.{did_you_mean(str(profile), SIZES)}")
    for name, (words, is_taken) in RANGES.items():
        if values.get(name) is not None and not is_taken(values[name]):
            raise StudyError(f"{place}parameter {name!r}{of_study} is {values[name]!r}: it must be {words}")
    _check_settings(values, place)
    return values


def check_parameters(namespace: MutableMapping[str, Any], study: str = "") -> dict[str, Any]:
    """Check the parameters of a notebook from within, before it computes anything, whatever has set them.

    The annotations in the cell of parameters say the types. papermill takes text for a number where it looks like one
    (``-p dims 2``): that becomes the text again.

    Parameters
    ----------
    namespace : mutable mapping
        ``globals()`` of the notebook; the values are put back as they are meant.
    study : str
        Its name, for the message.

    Returns
    -------
    dict
        The parameters with their values.

    Raises
    ------
    StudyError
        As `check` does.
    """
    parameters, given = [], {}
    for name, annotation in namespace.get("__annotations__", {}).items():
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        kind = kind.removesuffix(" | None")
        if kind not in KINDS or name not in namespace:
            continue
        # what it was before papermill changed it is not known any more; these two alone are never None
        parameters.append(Parameter(name, kind if name in ("profile", "plugin") else f"{kind} | None", None, ""))
        value = namespace[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        given[name] = str(value) if kind == "str" and is_number else value
    checked = check(parameters, given, study=study)
    namespace.update(checked)
    return checked


def check_components(plugins: Plugins, values: Mapping[str, Any]) -> None:
    """Check that the components that parameters or settings name are there, and their packages.

    Parameters
    ----------
    plugins : Plugins
    values : mapping
        By name; those that are in `NAMING` and hold text count.

    Raises
    ------
    UnknownComponentError, MissingPackageError
    StudyError
        Where text names none.
    """
    for name, value in values.items():
        if name not in NAMING or not isinstance(value, str) or not value:
            continue
        names = listed(value) if name in SEVERAL else [value]
        if not names:
            raise StudyError(f"{name} is {value!r}, which names no {NAMING[name]}: give names, separated by commas")
        for one in names:
            plugins.registered(NAMING[name], one)


def _check_settings(values: Mapping[str, Any], place: str) -> None:
    """Hold those that are settings of a run against the constraints of each; None takes the profile's value."""
    settings = {
        name: value
        for name, value in values.items()
        if name in RunConfig.model_fields and name not in STUDY_PARAMETERS and value is not None
    }
    try:
        RunConfig.model_validate(settings)
    except ValidationError as error:
        # what several settings must be together is known only when the notebook has filled in its own
        alone = [item for item in error.errors() if item["loc"]]
        if alone:
            raise StudyError(f"{place}{explain(error, RunConfig, 'parameter')}") from None


def _expected(parameter: Parameter) -> str:
    return "expected " + parameter.annotation.replace(" | ", " or ")


def _typed(parameter: Parameter, value: Any) -> Any:
    """The value if it is of the parameter's type; an int where a float is wanted becomes one. ValueError otherwise."""
    if value is None:
        if not parameter.may_be_none:
            raise ValueError(_expected(parameter))
        return None
    if not parameter.is_list:
        return _scalar(parameter.kind, value, parameter)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_expected(parameter)}, not {type(value).__name__}")
    return [_scalar(parameter.kind[5:-1], item, parameter) for item in value]


def _scalar(kind: str, value: Any, parameter: Parameter) -> Any:
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value) is not SCALARS[kind]:
        raise ValueError(f"{_expected(parameter)}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_expected(parameter)}, and a finite number")
    return value


def _parsed(parameter: Parameter, text: str) -> Any:
    """The value that a text stands for. ValueError when it stands for none of the parameter's type."""
    if parameter.may_be_none and text == "None":
        return None
    if not parameter.is_list:
        return _parsed_scalar(parameter.kind, text, parameter)
    if text.lstrip().startswith("["):
        try:
            return _typed(parameter, json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{_expected(parameter)}, and this is no JSON ({error.msg})") from None
    return [_parsed_scalar(parameter.kind[5:-1], part.strip(), parameter) for part in text.split(",") if part.strip()]


def _parsed_scalar(kind: str, text: str, parameter: Parameter) -> Any:
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{_expected(parameter)}: true or false")
        return text.lower() == "true"
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        raise ValueError(_expected(parameter)) from None
    return _scalar(kind, number, parameter)


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]
