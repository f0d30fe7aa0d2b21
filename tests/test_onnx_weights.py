"""Which matrix of an exported graph belongs to which layer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx_weights import OnnxError, named_weights


def node(kind: str, inputs: list[str], output: str) -> SimpleNamespace:
    return SimpleNamespace(op_type=kind, input=inputs, output=[output])


NODES = [
    node("MatMul", ["x", "1"], "a"),
    node("Add", ["p.second.bias", "a"], "b"),
    node("MatMul", ["b", "0"], "c"),
    node("Add", ["c", "p.first.bias"], "d"),
    node("MatMul", ["d", "b"], "e"),
]
CONSTANTS = {
    "0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "1": np.ones((3, 2), np.float32),
    "p.first.bias": np.zeros(3, np.float32),
    "p.second.bias": np.zeros(2, np.float32),
    "mask": np.ones(1, np.float32),
}


def test_a_matrix_gets_the_name_of_the_bias_that_is_added_behind_it():
    found = named_weights(NODES, CONSTANTS, "p.")
    assert set(found) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert np.array_equal(found["first.weight"], [[0, 3], [1, 4], [2, 5]])
    assert found["first.weight"].flags.c_contiguous
    assert found["second.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("nodes", "changes", "expected"),
    [
        (NODES[:3], {}, "no bias to the product with '0'"),
        ([*NODES, node("Add", ["c", "p.second.bias"], "f")], {}, "no bias to the product with '0', or several"),
        (
            [*NODES, node("MatMul", ["x", "0"], "f"), node("Add", ["f", "p.first.bias"], "g")],
            {},
            "two matrices for 'p.f",
        ),
        (NODES, {"0": np.ones((2, 3), np.float16)}, "'p.first.weight' is float16, and not float32"),
    ],
)
def test_another_graph_is_refused(nodes, changes, expected):
    with pytest.raises(OnnxError, match=expected):
        named_weights(nodes, CONSTANTS | changes, "p.")
