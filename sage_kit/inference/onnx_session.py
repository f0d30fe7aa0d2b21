"""A student computed by onnxruntime, from a folder that `sage-kit export` wrote."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.tokens import Tokens, padded_rows
from sage_kit.errors import MissingPackageError, ModelError, one_line
from sage_kit.inference.exported_folder import About, read_about
from sage_kit.models.checkpoints import load_model_config, load_tokenizer
from sage_kit.models.vectors import forward_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = "pip install 'sage-kit[onnx]'"

Feed = dict[str, NDArray[np.int64]]
"""Inputs of a model by name, each of shape (batch, tokens)."""


def require(package: str, purpose: str) -> Any:
    """A package of the extra ``onnx``, imported.

    Raises
    ------
    MissingPackageError
        When it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{purpose} needs {error.name}: {INSTALL}") from None


def open_session(model: Path, threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU.

    Parameters
    ----------
    model : Path
    threads : int
        0 for as many as torch uses.

    Raises
    ------
    MissingPackageError
        Without onnxruntime.
    ModelError
        When the file is missing or cannot be read.
    """
    runtime = require("onnxruntime", "computing an exported student")
    if not model.is_file():
        raise ModelError(f"{model} does not exist: export the student again")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    # threads that wait for work by spinning slow a busy machine down
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common base but this
        raise ModelError(
            f"{model} cannot be read by onnxruntime {runtime.__version__}: {one_line(error, 200)}"
        ) from error


@dataclass(frozen=True, eq=False)
class OnnxBackend:
    """A student in a session.

    Attributes
    ----------
    session : InferenceSession
    about : About
    """

    session: Any
    about: About

    @property
    def scale(self) -> float:
        """How long an output is, of embeddings; the graph's have length 1, and those of a run another one."""
        if self.about.architecture != "embedding":
            return 1.0
        return math.sqrt(self._shapes[0][-1] / 2)

    @property
    def _shapes(self) -> list[Any]:
        return [output.shape for output in self.session.get_outputs()]

    @property
    def n_outputs(self) -> int:
        """Width of the outputs."""
        return 2 if self.about.architecture == "span" else int(self._shapes[0][-1])

    def outputs(self, tokens: Tokens) -> NDArray[np.float32]:
        """The model's outputs: (sequences, n_outputs), or flat; batches hold texts of like length."""
        per_token = self.about.per_token
        found = np.zeros((int(tokens.offsets[-1]) if per_token else len(tokens), self.n_outputs), np.float32)
        for rows in forward_batches(tokens.lengths, torch.device("cpu")):
            computed = self.session.run(None, feed(tokens, rows, self.about.inputs))
            values = np.stack(computed, axis=-1) if self.about.architecture == "span" else computed[0]
            if per_token:
                places, real = padded_rows(tokens.offsets, rows)
                found[places[real]] = values[real]
            else:
                found[rows] = values
        return found * np.float32(self.scale)


def feed(tokens: Tokens, rows: NDArray[np.int64], inputs: tuple[str, ...]) -> Feed:
    """Some sequences as the inputs of an exported model, padded on the right to the longest."""
    ids, types, mask = tokens.pad(rows)
    values = {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}
    return {name: values[name].numpy() for name in inputs}


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported student.

    Attributes
    ----------
    about : About
    config : PreTrainedConfig
        Of the model that it was exported from.
    tokenizer : PreTrainedTokenizerBase
    backend : OnnxBackend
    """

    about: About
    config: Any
    tokenizer: PreTrainedTokenizerBase
    backend: OnnxBackend


def load_exported(model: Path) -> Exported:
    """An exported student, its parts checked to belong together.

    Parameters
    ----------
    model : Path
        A model in the folder.

    Raises
    ------
    ModelError
        When a file is missing or cannot be read, and when model, tokenizer and ``export.json`` do not fit each other.
    MissingPackageError
        Without onnxruntime.
    """
    folder = model.parent
    about = read_about(folder)
    session = open_session(model)
    for what, told, own in (
        ("inputs", about.inputs, session.get_inputs()),
        ("outputs", about.outputs, session.get_outputs()),
    ):
        names = tuple(one.name for one in own)
        if sorted(names) != sorted(told):
            raise ModelError(
                f"{model} has the {what} {', '.join(names)}, and export.json says {', '.join(told)}: the two do not "
                "belong together, so export the student again"
            )
    config, tokenizer = load_model_config(str(folder)), load_tokenizer(str(folder))
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise ModelError(
            f"the tokenizer in {folder} has ids up to {highest}, but the model embeds only {config.vocab_size}: the "
            "two do not belong together, so export the student again"
        )
    return Exported(about, config, tokenizer, OnnxBackend(session, about))
