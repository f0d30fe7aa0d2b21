"""Files as input that may be damaged or foreign: JSON, TOML, arrays, tables; read whole or with one clear error.

Every reader takes the class of error that fits the file's owner and the advice to end the message with. A JSON file is
checked against a pydantic model that names the fields which somebody reads and their types; what it holds beyond these
passes through. The mapping that comes back raises that error, and no `KeyError`, where a field is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from sage_kit.errors import SageError, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_CAUSE = 200
"""Most characters of what a library says of a file; some quote the file."""

ABSENT: Any = None
"""Default of a field that may be missing, and is no null where it is there."""

ErrorClass = Callable[[str], SageError]


class Fields(BaseModel):
    """Fields of a JSON file that are read, with their types; others may stand beside them.

    Numbers are numbers and no text or truth values. null stands for NaN where a field allows it.
    """

    model_config = ConfigDict(extra="allow", strict=True)


class Record(dict[str, Any]):
    """What a file holds under its names; a name that is missing raises the error of the file's reader.

    Attributes
    ----------
    faults : tuple of str
        What was wrong with fields that a lenient reader left out, one line each.
    """

    faults: tuple[str, ...] = ()
    _missing: ErrorClass = KeyError  # type: ignore[assignment]  # until a reader says which

    def __missing__(self, name: str) -> Any:
        raise self._missing(name)

    def __reduce__(self) -> tuple[Any, ...]:
        # processes send each other plain dictionaries: the reader's error is bound to a place in this one
        return dict, (dict(self),)


def cause_of(error: BaseException) -> str:
    """What went wrong with a file, in a few words without the file's name."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValidationError):
        return _first_fault(error)
    return one_line(error, LONGEST_CAUSE) or type(error).__name__


def read_bytes(path: Path, error: ErrorClass, advice: str) -> bytes:
    """A file's bytes.

    Raises
    ------
    SageError
        Of the class `error`, when it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as failure:  # a name with a zero byte is a ValueError
        raise error(_unreadable(path, failure, advice)) from None


def json_loads(data: bytes | str) -> Any:
    """The value of a JSON text; raises ValueError for anything else, nested too deeply included."""
    try:
        return from_json(data)
    except (RecursionError, MemoryError) as error:
        raise ValueError(cause_of(error)) from None


def read_json(path: Path, model: type[Fields], error: ErrorClass, advice: str, *, lenient: bool = False) -> Record:
    """A JSON file that holds an object.

    Parameters
    ----------
    path : Path
    model : type of Fields
        The fields that are read, and their types.
    error : class of SageError
    advice : str
        What to do about a damaged file; ends the message.
    lenient : bool
        Leave out a field of a wrong type, so that its reader alone fails, and tell it in `Record.faults`.

    Returns
    -------
    Record

    Raises
    ------
    SageError
        Of the class `error`: the file cannot be read, is no JSON, holds no object or, unless `lenient`, has a field of
        a wrong type.
    """
    try:
        data = json_loads(read_bytes(path, error, advice))
    except ValueError as failure:
        raise error(_unreadable(path, failure, advice)) from None
    return checked(data, model, str(path), error, advice, lenient=lenient)


def checked(
    data: Any, model: type[Fields], where: str, error: ErrorClass, advice: str, *, lenient: bool = False
) -> Record:
    """A mapping whose fields have the types of `model`, as `read_json` returns it."""
    if not isinstance(data, Mapping):
        raise error(f"{where} is not readable (it holds {_kind_of(data)} and no object): {advice}")
    record, faults = _record(data, where, error, advice), []
    try:
        model.model_validate(data)
    except ValidationError as failure:
        if not lenient:
            raise error(f"{where} is not readable ({_first_fault(failure)}): {advice}") from None
        for item in failure.errors(include_url=False, include_input=False):
            faults.append(f"{where}: {_fault(item)}")
            if item["loc"]:
                record.pop(str(item["loc"][0]), None)
    record.faults = tuple(faults)
    return record


def _record(data: Mapping[str, Any], where: str, error: ErrorClass, advice: str, path: str = "") -> Record:
    def nested(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return _record(value, where, error, advice, f"{path}.")
        return [nested(item, f"{path}.{place}") for place, item in enumerate(value)] if type(value) is list else value

    record = Record({name: nested(value, f"{path}{name}") for name, value in data.items()})
    record._missing = lambda name: error(f"{where} has no {path + name!r} that can be used: {advice}")
    return record


def toml_loads(text: str) -> dict[str, Any]:
    """Parse TOML; raises ValueError with the place of a syntax error."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef, import-not-found, unused-ignore]

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: Path, error: ErrorClass, advice: str) -> dict[str, Any]:
    """A TOML file.

    Raises
    ------
    SageError
        Of the class `error`, when the file cannot be read or is no TOML.
    """
    try:
        return toml_loads(read_bytes(path, error, advice).decode())
    except (ValueError, RecursionError) as failure:
        raise error(_unreadable(path, failure, advice)) from None


def read_arrays(path: Path, error: ErrorClass, advice: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of a safetensors file, in memory, and its metadata.

    Raises
    ------
    SageError
        Of the class `error`, when the file cannot be read or is damaged.
    """
    from sage_kit.storage.tensorfile import loads

    data = read_bytes(path, error, advice)
    try:
        return loads(data)
    except (ValueError, TypeError, MemoryError) as failure:
        raise error(_unreadable(path, failure, advice)) from None


def read_frame(path: Path, error: ErrorClass, advice: str, columns: list[str] | None = None) -> Any:
    """A parquet file as a pandas data frame.

    Raises
    ------
    SageError
        Of the class `error`: the file cannot be read, is damaged, has two columns of one name, or lacks one of
        `columns`.
    """
    import pyarrow
    import pyarrow.parquet

    data = read_bytes(path, error, advice)
    try:
        # from bytes: given a path, pyarrow would take folders of the form name=value for columns
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = file.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"it has two columns {twice!r}")
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise ValueError(f"it has no column {missing[0]!r}")
        return file.read(columns=columns).to_pandas()
    except (
        ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, MemoryError,
        OSError, pyarrow.ArrowException,
        NotImplementedError,  # pyarrow's, for a type or an encoding that it cannot read
    ) as failure:  # fmt: skip
        raise error(_unreadable(path, failure, advice)) from None


def _unreadable(path: Path, failure: BaseException, advice: str) -> str:
    return f"{path} is not readable ({cause_of(failure)}): {advice}"


def _first_fault(error: ValidationError) -> str:
    return _fault(error.errors(include_url=False, include_input=False)[0])


def _fault(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return one_line(ValueError(f"{place} is missing"), LONGEST_CAUSE)
    text = str(item["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return one_line(ValueError(f"{place or 'it'} is not {text}"), LONGEST_CAUSE)


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "text", int: "a number", float: "a number", bool: "a truth value"}
    return next((name for kind, name in names.items() if type(value) is kind), "nothing")
