from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from sage_kit.storage.fingerprint import fingerprint

INTEGERS = np.arange(6, dtype=np.int64)
DISTINCT: list[Any] = [
    None, True, False, 1, 0, -1, 1.0, 0.0, float("nan"), float("inf"), "1", "", "None", "True", b"1", b"",
    [], {}, [1], ["1"], [[1]], [1, 2], [2, 1], [[1], [2]], [[1, 2]], {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}, ["a", 1],
    np.float64(1.0), np.float32(1.0), np.int64(1),
    np.zeros(0, np.float32), np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32), np.zeros(0, np.int32),
    np.zeros(1, np.float32), np.zeros(2, np.float32), np.zeros((1, 1), np.float32), np.zeros((), np.float32),
    INTEGERS, INTEGERS.reshape(2, 3), INTEGERS.reshape(3, 2), INTEGERS.reshape(3, 2).T, INTEGERS[::-1],
    INTEGERS.astype(np.int32), INTEGERS.astype(np.float64), INTEGERS.astype(">i8"),
    np.array([True, False]), np.array([1, 0], np.uint8), np.array(["ab", "c"]),
    torch.zeros(0), torch.zeros(0, 3), torch.zeros(1), torch.zeros(()), torch.zeros(2),
    torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float16), torch.zeros(2, dtype=torch.bfloat16),
    torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.tensor([1, 0], dtype=torch.uint8),
    torch.arange(6), torch.arange(6).reshape(2, 3), torch.arange(6).reshape(3, 2).T,
]  # fmt: skip


def test_different_values_types_dtypes_shapes_and_orders_differ() -> None:
    found = [fingerprint(value) for value in DISTINCT]
    same = [(a, b) for (a, x), (b, y) in itertools.combinations(zip(DISTINCT, found, strict=True), 2) if x == y]
    assert same == []
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("ab",)),
        (("a", "b"), (["a", "b"],)),
        ((["a"], "b"), (["a", "b"],)),
        ((b"str:3:'a'",), ("a",)),
        (({"a": {"b": 1}},), ({"a": {}, "b": 1},)),
        ((np.zeros(4, np.uint8), np.zeros(2, np.uint8)), (np.zeros(2, np.uint8), np.zeros(4, np.uint8))),
    ],
)
def test_parts_do_not_run_into_each_other(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert fingerprint(*one) != fingerprint(*other)


def test_the_order_of_a_mapping_and_the_kind_of_a_sequence_do_not_count() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})


def test_memory_layout_does_not_count() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert fingerprint(values[:, ::2]) == fingerprint(values[:, ::2].copy())
    assert fingerprint(np.asfortranarray(values)) == fingerprint(values)
    tensor = torch.from_numpy(values)
    assert fingerprint(tensor[:, ::2]) == fingerprint(tensor[:, ::2].clone())
    assert fingerprint(tensor.clone().requires_grad_()) == fingerprint(tensor)
    # a memory map is an array like any other
    assert fingerprint(values.view(np.memmap)) == fingerprint(values)


def test_every_bit_of_a_bfloat16_tensor_counts() -> None:
    values = torch.linspace(-1, 1, 32).to(torch.bfloat16)
    changed = values.clone()
    changed.view(torch.int16)[7] ^= 1
    assert fingerprint(values) == fingerprint(values.clone())
    assert fingerprint(values) != fingerprint(changed)


def test_one_element_of_a_large_array_counts() -> None:
    values = np.zeros(200_000, np.float16)
    before = fingerprint(values)
    values[123_456] = 1
    assert fingerprint(values) != before


def test_another_process_with_another_hash_seed_computes_the_same() -> None:
    parts = "{'b': 2.5, 'a': [1, None, 'ä']}, b'x', np.arange(3.0), torch.ones(2, dtype=torch.bfloat16)"
    program = (
        f"import numpy as np, torch; from sage_kit.storage.fingerprint import fingerprint; print(fingerprint({parts}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    here = fingerprint({"a": [1, None, "ä"], "b": 2.5}, b"x", np.arange(3.0), torch.ones(2, dtype=torch.bfloat16))
    assert process.stdout.strip() == here


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, np.array([object()]), {"a": object()}, [object()]])
def test_another_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint a"):
        fingerprint(value)
