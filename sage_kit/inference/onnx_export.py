"""A student as an ONNX graph: written by torch's exporter, quantised by onnxruntime, checked against the student."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from packaging.version import Version
from torch import Tensor, nn

from sage_kit.data.tokens import Tokens
from sage_kit.errors import CompatibilityError, MissingPackageError, ModelError, one_line
from sage_kit.inference.exported_folder import About
from sage_kit.inference.onnx_session import Feed, OnnxBackend, require
from sage_kit.inference.torch_backend import TorchBackend
from sage_kit.models.architectures import architecture_of
from sage_kit.models.families import family_of
from sage_kit.models.heads import head_of
from sage_kit.storage.files import disk_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.inference.predictor import Predictor

LOWEST_TORCH = "2.9"
"""The first version whose exporter takes dynamic sizes as they are given here and leaves the older one behind."""

LARGEST_FILE = 1_900_000_000
"""Weights above so many bytes go into a file of their own: one of ONNX holds 2 GB at most."""

TOLERANCE = 1e-4
"""Largest difference between an output of the exported model and the student's."""

OUTPUTS = {
    "sequence": ("logits",),
    "token": ("logits",),
    "span": ("start_logits", "end_logits"),
    "embedding": ("sentence_embedding",),
}
"""What the outputs are called, by architecture."""

EXAMPLE = (2, 7)
"""Texts and tokens of the batch that is traced; both sizes are free in the graph."""


class Graph(nn.Module):
    """A student as what is exported: from a batch of token ids and its mask to logits or an embedding.

    It is computed as in a run: where the head looks at the first token alone, so does the last block, which is a
    quarter of the work of a student of three blocks. Blocks that a family computes by code of its own are those of
    plain transformers here, since that code may ask for the number of tokens.

    Parameters
    ----------
    student : TorchBackend
        On the CPU in float32. Its modules are shared.
    """

    def __init__(self, student: TorchBackend) -> None:
        super().__init__()
        self.plain = PlainModel(student.model)
        self.architecture = self.plain.architecture
        self.parts = nn.ModuleList([student.input_layers, student.upper]) if student.upper.gives_scores else None
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """What `PlainModel` gives for the same inputs."""
        if self.parts is None:
            found: Tensor | tuple[Tensor, Tensor] = self.plain(input_ids, attention_mask, token_type_ids)
            return found
        input_layers, upper = self.parts
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        mask = attention_mask.bool()
        outputs: Tensor = upper(input_layers(input_ids, types, mask), mask).logits
        if self.architecture == "embedding":
            return outputs / math.sqrt(outputs.shape[-1] / 2)
        return (outputs[..., 0], outputs[..., 1]) if self.architecture == "span" else outputs


class PlainModel(nn.Module):
    """A student as transformers computes it, which the exported model is held against.

    Parameters
    ----------
    model : PreTrainedModel
        A classifier of sequences, tokens or spans, or a sentence encoder. Its modules are shared.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.architecture = architecture_of(model)
        whole: Any = model
        self.model: Any = whole.encoder if self.architecture == "embedding" else whole
        self.head: Any = head_of(model, family_of(model.config)) if self.architecture == "embedding" else None
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of shape (batch, n_outputs), (batch, tokens, n_outputs) or, of a span, twice (batch, tokens); or
        embeddings of length 1, of shape (batch, dim). All inputs are of shape (batch, tokens), int64.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        found = self.model(**given)
        if self.head is not None:
            vectors: Tensor = self.head(found.last_hidden_state, attention_mask.bool())
            return vectors / math.sqrt(self.head.n_outputs / 2)
        if self.architecture == "span":
            return found.start_logits, found.end_logits
        logits: Tensor = found.logits
        return logits

    def run(self, inputs: Feed) -> list[NDArray[np.float32]]:
        """What a session of onnxruntime gives for the same inputs."""
        with torch.inference_mode():
            found = self(**{name: torch.from_numpy(values) for name, values in inputs.items()})
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]


def input_names(tokenizer: Any) -> tuple[str, ...]:
    """The inputs of an exported model: what its tokenizer makes."""
    types = ("token_type_ids",) if "token_type_ids" in tokenizer.model_input_names else ()
    return ("input_ids", "attention_mask", *types)


def require_exporter() -> None:
    """Raise MissingPackageError where torch is too old, or what its exporter needs is not installed."""
    if Version(torch.__version__).release < Version(LOWEST_TORCH).release:
        raise MissingPackageError(
            f"exporting needs torch>={LOWEST_TORCH}, and {torch.__version__} is installed: install a newer one"
        )
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "exporting")


def write_graph(graph: Graph, inputs: tuple[str, ...], path: Path) -> None:
    """Export a student with a free batch size and a free length.

    Parameters
    ----------
    graph : Graph
    inputs : tuple of str
        Those that the graph takes.
    path : Path
        Ends in ``.onnx``. Weights of more than 1.9 GB are written beside it, as ``<name>.data``.

    Raises
    ------
    CompatibilityError
        When the exporter cannot follow the model.
    """
    require_exporter()
    # a tensor of its own for each: the exporter takes one that is given twice for one input
    example = tuple(
        torch.zeros(EXAMPLE, dtype=torch.int64) if name == "token_type_ids" else torch.ones(EXAMPLE, dtype=torch.int64)
        for name in inputs
    )
    free = torch.export.Dim.DYNAMIC
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                dynamic_shapes=tuple({0: free, 1: free} for _ in example),
                output_names=list(OUTPUTS[graph.architecture]),
                verbose=False,
            )
            _name_sizes(program.model, inputs)
    except Exception as error:  # whatever a model's code does to the tracer
        kind = graph.plain.model.config.model_type
        raise CompatibilityError(
            f"torch's exporter cannot follow a model of type {kind!r}: {one_line(error, 300)}"
        ) from error
    weights = sum(one.numel() * one.element_size() for one in graph.parameters())
    with disk_errors(str(path)):
        program.save(str(path), external_data=weights > LARGEST_FILE)


def _name_sizes(model: Any, inputs: tuple[str, ...]) -> None:
    """Call the free sizes of inputs and outputs what they are; the exporter numbers them."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        if value.name in inputs:
            names |= {str(size): name for size, name in zip(value.shape, ("batch", "tokens"), strict=True)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            for place, size in enumerate(value.shape):
                if not isinstance(size, int):
                    value.shape[place] = names.get(str(size), str(size))


def write_int8(source: Path, target: Path, bits: int) -> None:
    """Quantise the matrices of a model to eight bits; activations are quantised while it is computed.

    Parameters
    ----------
    source, target : Path
    bits : int
        That weights make use of: 8, or 7, since processors without VNNI add up products in 16 bits, which 8 may exceed.

    Raises
    ------
    CompatibilityError
        When the model is too large for it, or onnxruntime cannot.
    """
    quantization = require("onnxruntime.quantization", "int8")
    if source.with_name(f"{source.name}.data").exists():
        raise CompatibilityError(f"int8 is for models of less than {LARGEST_FILE / 1e9:.1f} GB: leave it out")
    try:
        with _quiet(), disk_errors(str(target)):
            quantization.quantize_dynamic(
                str(source),
                str(target),
                weight_type=quantization.QuantType.QInt8,
                # of a row of a matrix: with one scale for the whole matrix, outputs differ nearly three times as much
                per_channel=True,
                reduce_range=bits == 7,
            )
    except OSError:
        raise
    except Exception as error:
        raise CompatibilityError(f"onnxruntime cannot quantise the model: {one_line(error, 300)}") from error


# ---- parity ---------------------------------------------------------------------------------------------------------


def check_sizes(plain: PlainModel, exported: OnnxBackend, tokens: Tokens) -> float:
    """The largest difference from plain transformers on batches of one text and of two, of one token, of two, of an odd
    number and of as many as the model takes; real tokens of text, one example after another, fill them.

    Raises
    ------
    ModelError
        When it exceeds `TOLERANCE`, or onnxruntime fails.
    """
    about = exported.about
    largest = 0.0
    for length in sorted({1, 2, min(11, about.max_length), about.max_length}):
        ids = np.resize(tokens.ids, (2, length)).astype(np.int64)
        for batch in (1, 2):
            mask = np.ones((batch, length), np.int64)
            mask[1:, (length + 1) // 2 :] = 0  # the second text is half as long
            pad = np.where(mask > 0, ids[:batch], tokens.pad_id)
            given = {"input_ids": pad, "attention_mask": mask, "token_type_ids": np.zeros_like(pad)}
            inputs = {name: given[name] for name in about.inputs}
            where = f"{batch} text{'s' * (batch > 1)} of {length} token{'s' * (length > 1)}"
            try:
                found = exported.session.run(None, inputs)
            except Exception as error:
                raise ModelError(f"the exported model fails on {where}: {one_line(error, 300)}") from error
            real = mask > 0 if about.per_token else slice(None)
            for own, other in zip(plain.run(inputs), found, strict=True):
                largest = max(largest, difference(own[real], other[real]))
            require_parity(largest, where)
    return largest


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference of two models' outputs; infinite where one is no number."""
    if not one.size:
        return 0.0
    found = float(np.abs(one.astype(np.float64) - other).max())
    return found if math.isfinite(found) else math.inf


def require_parity(found: float, where: str) -> None:
    """Raise ModelError for a difference above `TOLERANCE`."""
    if found > TOLERANCE:
        raise ModelError(
            f"the exported model differs from the student by up to {found:.2g} on {where}, and allowed is "
            f"{TOLERANCE:.0e}: nothing is written; torch {torch.__version__} cannot export this student rightly"
        )


def about_student(predictor: Predictor, graph: Graph, *, told_columns: bool) -> About:
    """What is to be known of an exported student.

    Parameters
    ----------
    predictor : Predictor
        The student, computed by torch.
    graph : Graph
    told_columns : bool
        Whether the columns of the texts are those of a run.
    """
    spec, head = predictor.spec, graph.plain.head
    return About(
        kind=spec.kind_name,
        architecture=graph.architecture,
        inputs=input_names(predictor.tokenizer),
        outputs=OUTPUTS[graph.architecture],
        max_length=predictor.max_length,
        prefix=predictor.prefix,
        pooling="" if head is None else head.pooling,
        text_columns=tuple(spec.text_columns) if told_columns else (),
        unanswered=bool(spec.unanswered),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter and onnxruntime tell their developers from the terminal; errors still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
