"""What a folder with an exported student says of itself: ``export.json`` beside the model, its tokenizer and labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sage_kit.errors import ModelError, shortened
from sage_kit.storage.reading import Fields, checked, read_json

ABOUT, MODEL, INT8 = "export.json", "model.onnx", "model_int8.onnx"
"""The files that `sage-kit export` writes, beside config.json and the tokenizer's."""

ADVICE = "export the student again"
VERSION = 1
"""Of the layout of ``export.json``."""


@dataclass(frozen=True)
class About:
    """What must be known of an exported student beside its configuration and its tokenizer.

    Attributes
    ----------
    kind : str
        Kind of task.
    architecture : str
        "sequence", "token", "span" or "embedding": what the outputs are.
    inputs, outputs : tuple of str
        Names in the graph.
    max_length : int
        Longest text [tokens].
    prefix : str
        What stands in front of each text.
    pooling : str
        How token states become an embedding, of length 1; "" for other kinds. It is part of the graph.
    text_columns : tuple of str
        Columns of the texts in the data of the run; empty where there was no run.
    unanswered : bool
        Whether a question may have no answer.
    """

    kind: str
    architecture: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_length: int
    prefix: str = ""
    pooling: str = ""
    text_columns: tuple[str, ...] = ()
    unanswered: bool = False

    @property
    def per_token(self) -> bool:
        """Whether the model has an output for each token."""
        return self.architecture in ("token", "span")

    def to_json(self) -> dict[str, Any]:
        """What `read_about` reads."""
        return {"version": VERSION, **asdict(self)}


class _AboutFields(Fields):
    kind: str
    architecture: Literal["sequence", "token", "span", "embedding"]
    inputs: list[str]
    outputs: list[str]
    max_length: Annotated[int, Field(ge=1, le=10**6)]
    prefix: str
    pooling: str
    text_columns: list[str]
    unanswered: bool


def exported_model(name: str) -> Path | None:
    """The model of an exported student; None for anything else.

    Parameters
    ----------
    name : str
        The folder, for its model in float32, or a model in it.

    Raises
    ------
    ModelError
        For an ONNX file that `sage-kit export` did not write.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / ABOUT).is_file():
        return path / MODEL
    if path.suffix == ".onnx" and path.is_file():
        if not (path.parent / ABOUT).is_file():
            raise ModelError(
                f"{name} has no {ABOUT} beside it, so that it is not known what it computes: name a model that "
                "`sage-kit export` wrote, in its folder"
            )
        return path
    return None


def read_about(folder: Path) -> About:
    """What a folder says of its exported student.

    Raises
    ------
    ModelError
        When ``export.json`` cannot be read or is of another version.
    """
    path = folder / ABOUT
    told = read_json(path, Fields, ModelError, ADVICE)
    if told.get("version") != VERSION:
        said = shortened(repr(told.get("version")), 40)
        raise ModelError(f"{path} cannot be read (version {said}, and read is {VERSION}): {ADVICE}")
    known = checked(told, _AboutFields, str(path), ModelError, ADVICE)
    values: dict[str, Any] = {field.name: known[field.name] for field in fields(About)}
    frozen: dict[str, Any] = {one: tuple(item) if isinstance(item, list) else item for one, item in values.items()}
    return About(**frozen)
