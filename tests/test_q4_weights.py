"""The reader of four-bit weights, against a reference written from the description of the format."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from q4_weights import Q4Error, decode_q4, read_q4_weights
from q4file import make_file, random_blocks, reference


def test_blocks_are_decoded_as_described():
    data = random_blocks(0, 200) + struct.pack("<e", -(2.0**-24)) + bytes(range(0, 256, 16))
    expected = [weight for start in range(0, len(data), 18) for weight in reference(data[start : start + 18])]
    found = decode_q4(data)
    assert found.dtype == np.float32
    assert found.astype(np.float64).tolist() == expected  # float32 holds each product exactly


def test_one_block_by_hand():
    data = struct.pack("<e", 0.5) + bytes([0x80, 0x0F, *[0x88] * 14])
    weights = decode_q4(data)
    assert weights[:3].tolist() == [-4.0, 3.5, 0.0]  # low: 0, 15, 8
    assert weights[16:19].tolist() == [0.0, -4.0, 0.0]  # high: 8, 0, 8


def test_a_file_holds_the_parameters_of_a_bert():
    data, written = make_file()
    dimensions, parameters = read_q4_weights(data)
    assert (dimensions.width, dimensions.blocks, dimensions.heads, dimensions.feed_forward) == (64, 2, 2, 96)
    assert (dimensions.vocabulary, dimensions.positions, dimensions.token_types) == (10, 16, 2)
    assert dimensions.epsilon == 1e-12
    assert set(parameters) == set(written)
    for name, values in written.items():
        assert parameters[name].dtype == np.float32
        assert np.array_equal(parameters[name], values), name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 2}, "version 2"),
        ({"block": 64}, "blocks of 64 weights"),
        ({"kind": 7}, "'emb.word' is of the unknown kind 7"),
        ({"values": 16}, "'emb.word' has 656 values in 360 bytes, which does not go together"),
        ({"size": 18}, "'emb.word' has 640 values in 378 bytes, which does not go together"),
        ({"values": 32, "size": 18}, "'emb.word' has 672 values, and not 10 x 64"),
        ({"leave_out": "l1.fo.b"}, "lacks the tensor 'l1.fo.b'"),
    ],
)
def test_a_file_with_a_fault_is_refused(changes, expected):
    with pytest.raises(Q4Error, match=expected):
        read_q4_weights(make_file(**changes)[0])


@pytest.mark.parametrize(
    ("length", "place"),
    [
        (2, "begins with"),
        (6, "its header"),
        (40, "its header"),
        (150, "its header"),
        (900, "the tensor 'emb.word'"),
        (-1, "the tensor 'l1.oln.b'"),
    ],
)
def test_a_file_that_is_cut_off_is_refused(length, place):
    with pytest.raises(Q4Error, match=re.escape(place)):
        read_q4_weights(make_file()[0][:length])


def test_another_file_is_refused():
    with pytest.raises(Q4Error, match=r"begins with b'GGUF', and not b'E5S1'"):
        read_q4_weights(b"GGUF" + make_file()[0][4:])
