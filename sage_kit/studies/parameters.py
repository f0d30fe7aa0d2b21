"""Where the studies are, and what parameters their notebooks take: read, and checked by name and type.

A notebook's first code cell is tagged ``parameters`` and holds annotated literals, one per name, each with a comment::

    profile: str = "smoke"  # size of the study
    seeds: int = None  # seeds of each arm; None takes the profile's

A default of None says that None is a value of the parameter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

import sage_kit
from sage_kit.config import RunConfig, explain
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.storage.reading import json_loads
from sage_kit.studies.places import project_root
from sage_kit.studies.sizes import SIZES

if TYPE_CHECKING:
    from sage_kit.components.plugins import Plugins

NAMING: Mapping[str, str] = {
    "task": "task", "reducer": "reducer", "reducers": "reducer", "inverter": "inverter", "inverters": "inverter",
    "trained": "inverter", "sampler": "sampler", "samplers": "sampler", "filter": "filter", "filters": "filter",
    "lift": "lift", "lifts": "lift", "decoder": "decoder", "decoders": "decoder", "stop_rule": "stop_rule",
    "alone": "loss", "added": "loss",
}  # fmt: skip
"""Parameters that name components, and the kind of these."""

SEVERAL = ("task", "reducers", "inverters", "trained", "samplers", "filters", "lifts", "decoders", "alone", "added")
"""Of those, which take several names, separated by commas."""

PARAMETERS_TAG = "parameters"

KINDS: Mapping[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list[str]": list[str], "list[int]": list[int],
    "list[float]": list[float],
}  # fmt: skip
"""The types that a parameter may have; each may also be ``| None``."""

LIMITS: Mapping[str, Any] = {
    **dict.fromkeys(("search_seeds", "most_rounds"), Annotated[int, Field(ge=1)]),
    **dict.fromkeys(("maps", "clusters", "examples"), Annotated[int, Field(ge=2)]),
    **dict.fromkeys(("least", "let_through"), Annotated[float, Field(gt=0, lt=1)]),
    "margin": Annotated[float, Field(gt=0)],
    "rates": Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)],
}
"""The numbers that parameters of these names take."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook."""

    name: str
    annotation: str  # one of `KINDS`, or that and ``| None``
    default: Any
    help: str  # its comment

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


def notebooks_folder(directory: str = "") -> Path:
    """The folder of the notebooks: the one named, else the project's, else those that come with the package."""
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
    """The notebook that a user names, as `pick_study` has it."""
    stems = {path.stem: path for path in list_notebooks(folder)}
    return stems[pick_study(name.strip().removesuffix(".ipynb"), stems, str(folder))]


def pick_study(name: str, known: Iterable[str], where: str) -> str:
    """The study that a user names: by number, by name with or without it, or by the beginning of either. "5", "05",
    "05_reducers", "reducers" and "reduc" name 05_reducers; none or several are a StudyError.
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
    raise StudyError(f"Unknown study {name!r} in {where}.{did_you_mean(wanted, stems)}")


def load_notebook(path: Path) -> dict[str, Any]:
    """A notebook as a mapping."""
    try:
        notebook = json_loads(path.read_bytes())
    except OSError as error:
        raise StudyError(f"notebook {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StudyError(f"notebook {path} is not valid JSON: {error}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) and notebook.get("nbformat") == 4 else None
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise StudyError(f"{path} is no notebook of format 4: save it with a current version of Jupyter")
    return dict(notebook)


def _is_cell(cell: Any) -> bool:
    """Whether what a notebook holds as a cell can be read as one."""
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return False
    source, metadata = cell.get("source", ""), cell.get("metadata", {})
    lines = source if isinstance(source, list) else [source]
    tags = metadata.get("tags", []) if isinstance(metadata, dict) else None
    return all(isinstance(line, str) for line in lines) and isinstance(tags, list)


def cell_source(cell: Mapping[str, Any]) -> str:
    """The text of a notebook's cell."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def describe_notebook(path: Path) -> tuple[str, str]:
    """Title and question of a study: the first heading of its notebook and the paragraph below it."""
    text = "\n\n".join(cell_source(c) for c in load_notebook(path)["cells"] if c["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    if heading is None:
        return path.stem, ""
    below = re.split(r"\n\s*\n", text[heading.end() :].strip())
    question = next((" ".join(block.split()) for block in below if block and not block.startswith("#")), "")
    # the word may stand before it, in bold or not
    return heading[1].strip(), re.sub(r"^\**Question[.:]?\**[.:]?\s+", "", question)


def read_parameters(path: Path) -> list[Parameter]:
    """The parameters of a notebook, from the cell tagged `parameters`, which is not executed.

    Python's own parser reads them: papermill's expressions leave out what they do not match, such as ``int | None`` or
    a default that holds "=", without a word. In the order of the cell.
    """
    cells = [cell for cell in load_notebook(path)["cells"] if cell["cell_type"] == "code"]
    tagged = [cell for cell in cells if PARAMETERS_TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{path} has {len(tagged) or 'no'} code cell{'s' * (len(tagged) > 1)} tagged "
                         f"{PARAMETERS_TAG!r}: tag the one that holds its parameters")  # fmt: skip
    source = cell_source(tagged[0])
    parameters, line, what = [], 1, ""
    try:
        for statement in ast.parse(source).body:
            line, what = statement.lineno, "this is something else"
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                raise ValueError
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            what = f"{name} is of type {annotation} and not {', '.join(KINDS)}, or | None"
            if annotation.removesuffix(" | None") not in KINDS:
                raise ValueError
            what = f"the default of {name} is no literal"
            default = ast.literal_eval(statement.value or ast.Name("nothing"))
            if default is None:
                annotation = annotation.removesuffix(" | None") + " | None"
            comments = re.findall(r"# *(.*)", "\n".join(source.splitlines()[line - 1 : statement.end_lineno]))
            parameters.append(Parameter(name, annotation, default, comments[-1] if comments else ""))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        line, what = (error.lineno or 1, error.msg) if isinstance(error, SyntaxError) else (line, what)
        text = f"{path}, line {line} of the cell {PARAMETERS_TAG!r}: expected name: type = literal  # comment; {what}"
        raise StudyError(text) from None
    check(parameters, {}, place=f"{path}: ")
    return parameters


def listed(text: str) -> list[str]:
    """The names in a text, which commas separate: `pca, umap` holds two."""
    return [part.strip() for part in text.split(",") if part.strip()]


def listed_counts(text: str, name: str) -> list[int]:
    """The whole numbers from 1 in the text of a parameter, which commas separate, each once; StudyError for others."""
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

    In the order of `parameters`, each of its type. Values are of the parameter's type, or text as on the command line
    (``true``, ``5``, ``None``; items of a list separated by commas). `study` and `place` stand in the message of the
    StudyError.
    """
    read, fields = dict(given), {}
    for parameter in parameters:
        kind = LIMITS.get(parameter.name, KINDS[parameter.kind])
        fields[parameter.name] = (kind | None if parameter.may_be_none else kind, parameter.default)
        if parameter.name in given:
            read[parameter.name] = _from_text(parameter, given[parameter.name])
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    model: type[BaseModel] = create_model("Parameters", __config__=config, **fields)  # type: ignore[call-overload]
    of_study = dict.fromkeys(given, f" of study {study}" if study else "")
    try:
        values = dict(model.model_validate(read))
    except ValidationError as error:
        raise StudyError(f"{place}{explain(error, model, 'parameter', of_study)}") from None
    profile = values.get("profile", "smoke")
    if profile not in SIZES:
        raise StudyError(f"{place}Unknown profile {profile!r}.{did_you_mean(str(profile), SIZES)}")
    # None takes the profile's value, and runs_dir is the study's
    settings = {name for name in RunConfig.model_fields if values.get(name) is not None} - {"runs_dir"}
    try:
        RunConfig.model_validate({name: values[name] for name in settings})
    except ValidationError as error:
        # what several settings must be together is known only when the notebook has filled in its own
        if any(item["loc"] for item in error.errors()):
            raise StudyError(f"{place}{explain(error, RunConfig, 'parameter')}") from None
    return values


def _from_text(parameter: Parameter, value: Any) -> Any:
    """The value that a text of the command line stands for; what is no text, or stands for none, as it is."""
    if parameter.may_be_none and value == "None":
        return None
    if parameter.kind == "str" or not isinstance(value, str):
        return value
    try:
        return TypeAdapter(KINDS[parameter.kind]).validate_python(
            listed(value.strip("[] ")) if parameter.is_list else value
        )
    except ValidationError:
        return value


def check_parameters(namespace: MutableMapping[str, Any], study: str = "") -> dict[str, Any]:
    """Check the parameters of a notebook from within, before it computes anything, whatever has set them.

    The annotations in the cell of parameters say the types. papermill takes text for a number where it looks like one
    (``-p dims 2``): that becomes the text again.

    Values are put back into the namespace as they are meant.
    """
    parameters, given = [], {}
    for name, annotation in namespace.get("__annotations__", {}).items():
        kind = str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
        kind = kind.removesuffix(" | None")
        if kind not in KINDS or name not in namespace:
            continue
        # what it was before papermill changed it is not known any more; these two alone are never None
        default = {"profile": "smoke", "plugin": ""}.get(name)
        parameters.append(Parameter(name, kind if default is not None else f"{kind} | None", default, ""))
        value = namespace[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        given[name] = str(value) if kind == "str" and is_number else value
    checked = check(parameters, given, study=study)
    namespace.update(checked)
    return checked


def check_components(plugins: Plugins, values: Mapping[str, Any]) -> None:
    """Check that the components that parameters or settings name are there, and their packages. Names that are in
    `NAMING` and hold text count.
    """
    for name, value in values.items():
        if name not in NAMING or not isinstance(value, str) or not value:
            continue
        names = listed(value) if name in SEVERAL else [value]
        if not names:
            raise StudyError(f"{name} is {value!r}, which names no {NAMING[name]}: give names, separated by commas")
        for one in names:
            plugins.registered(NAMING[name], one)
