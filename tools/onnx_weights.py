"""The weights of a BERT in an ONNX file that torch has exported.

The exporter keeps the names of embeddings, norms and biases, and folds the transposed matrix of each linear layer into
a constant without a name: ``MatMul(states, constant)`` and then ``Add`` of the bias, whose name tells whose matrix it
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class OnnxError(ValueError):
    """What is wrong with a file."""


class Node(Protocol):
    """What is asked of an operation of the graph."""

    op_type: str
    input: Iterable[str]
    output: Iterable[str]


def read_graph(data: bytes) -> tuple[list[Node], dict[str, NDArray[Any]]]:
    """The operations of a graph in their order, and its constants by name.

    Raises
    ------
    ImportError
        When the package `onnx` cannot be imported.
    OnnxError
        When the data are no ONNX model.
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(data).graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:  # protobuf and onnx raise classes of their own
        raise OnnxError(f"the file is no ONNX model: {' '.join(str(error).split())[:200]}") from None
    return list(graph.node), constants


def named_weights(
    nodes: Iterable[Node], constants: Mapping[str, NDArray[Any]], prefix: str
) -> dict[str, NDArray[np.float32]]:
    """The parameters of the module that was exported.

    Parameters
    ----------
    nodes : iterable of Node
    constants : mapping of str to arrays
    prefix : str
        What the names of the parameters begin with in the file; it is taken off.

    Returns
    -------
    dict of str to float32 arrays
        Matrices of linear layers as torch has them, of shape (outputs, inputs).

    Raises
    ------
    OnnxError
        When a parameter is not float32, or when a matrix leads to no bias, to several, or to one that has a matrix.
    """
    nodes = list(nodes)
    found = {name: values for name, values in constants.items() if name.startswith(prefix)}
    for node in nodes:
        matrix = list(node.input)[-1] if node.op_type == "MatMul" else ""
        if matrix not in constants:
            continue
        (product,) = node.output
        users = [user for user in nodes if product in user.input]
        biases = {name for user in users if user.op_type == "Add" for name in user.input if name in constants}
        names = [name for name in biases if name.startswith(prefix) and name.endswith(".bias")]
        if len(users) != 1 or len(names) != 1:
            raise OnnxError(f"the graph adds no bias to the product with {matrix!r}, or several: it is another export")
        weight = names[0].removesuffix("bias") + "weight"
        if weight in found:
            raise OnnxError(f"the graph has two matrices for {names[0]!r}: it is another export")
        found[weight] = constants[matrix].T
    for name, values in found.items():
        if values.dtype != np.float32:
            raise OnnxError(f"{name!r} is {values.dtype}, and not float32: it is another export")
    return {name.removeprefix(prefix): np.ascontiguousarray(values) for name, values in found.items()}
