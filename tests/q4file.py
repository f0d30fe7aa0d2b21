"""Tiny files of four-bit weights, and a reference for them, written from the description in `tools/q4_weights.py`."""

from __future__ import annotations

import struct

import numpy as np

WIDTH, BLOCKS, HEADS, WIDE, VOCABULARY, POSITIONS = 64, 2, 2, 96, 10, 16
HEADER = "<4sI7ifi"


def reference(block: bytes) -> list[float]:
    """The 32 weights of one block, bit by bit."""
    bits = block[0] | block[1] << 8
    sign, exponent, fraction = (-1.0) ** (bits >> 15), bits >> 10 & 31, bits & 1023
    scale = sign * (fraction / 1024 * 2.0**-14 if exponent == 0 else (1 + fraction / 1024) * 2.0 ** (exponent - 15))
    low = [(byte % 16 - 8) * scale for byte in block[2:]]
    return low + [(byte // 16 - 8) * scale for byte in block[2:]]


def random_blocks(seed: int, count: int) -> bytes:
    random = np.random.default_rng(seed)
    blocks = []
    for _ in range(count):
        scale = np.float16(random.normal() * 10.0 ** random.integers(-7, 2))
        blocks.append(scale.tobytes() + random.integers(0, 256, 16, dtype=np.uint8).tobytes())
    return b"".join(blocks)


def tensors() -> list[tuple[str, str, tuple[int, ...]]]:
    """Name in the file, name in transformers and shape of each tensor, as the package's e5.c asks for them."""
    found = [
        ("emb.word", "embeddings.word_embeddings.weight", (VOCABULARY, WIDTH)),
        ("emb.pos", "embeddings.position_embeddings.weight", (POSITIONS, WIDTH)),
        ("emb.type", "embeddings.token_type_embeddings.weight", (2, WIDTH)),
        ("emb.ln.w", "embeddings.LayerNorm.weight", (WIDTH,)),
        ("emb.ln.b", "embeddings.LayerNorm.bias", (WIDTH,)),
    ]
    for block in range(BLOCKS):
        layer = f"encoder.layer.{block}"
        for short, module, shape in (
            ("q", "attention.self.query", (WIDTH, WIDTH)),
            ("k", "attention.self.key", (WIDTH, WIDTH)),
            ("v", "attention.self.value", (WIDTH, WIDTH)),
            ("ao", "attention.output.dense", (WIDTH, WIDTH)),
            ("aln", "attention.output.LayerNorm", (WIDTH,)),
            ("fi", "intermediate.dense", (WIDE, WIDTH)),
            ("fo", "output.dense", (WIDTH, WIDE)),
            ("oln", "output.LayerNorm", (WIDTH,)),
        ):
            found.append((f"l{block}.{short}.w", f"{layer}.{module}.weight", shape))
            found.append((f"l{block}.{short}.b", f"{layer}.{module}.bias", shape[:1]))
    return found


def make_file(leave_out: str = "", **changes: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file with random weights, and these weights under their names in transformers.

    `changes` are other values of "version", "block" and "kind" (of the first tensor), and "values" and "size" are added
    to its own.
    """
    sizes = (WIDTH, BLOCKS, HEADS, WIDE, VOCABULARY, POSITIONS, 2)
    head = struct.pack(HEADER, b"E5S1", changes.get("version", 1), *sizes, 1e-12, changes.get("block", 32))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁query", "▁a", "▁film"]
    texts = [piece.encode() for piece in pieces]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    rules = struct.pack("<IBI", 0xFF21, 1, 0x41)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, offsets[-1]) + offsets.tobytes()
    head += np.zeros(len(pieces), "<f4").tobytes() + b"".join(texts) + struct.pack("<iI", 1, len(rules)) + rules
    entries, content, written = [], [], {}
    for seed, (name, target, shape) in enumerate(tensors()):
        if name == leave_out:
            continue
        count = int(np.prod(shape))
        quantized = name == "emb.word" or (len(shape) == 2 and name[0] == "l")
        if quantized:
            data = random_blocks(seed, count // 32)
            flat = [weight for start in range(0, len(data), 18) for weight in reference(data[start : start + 18])]
            values = np.array(flat, np.float32)
        else:
            values = np.random.default_rng(seed).normal(size=count).astype("<f4")
            data = values.tobytes()
        written[target] = values.reshape(shape)
        entries.append([name.encode(), int(quantized), count, data])
    entries[0][1] = changes.get("kind", entries[0][1])
    place = len(head) + 4 + sum(2 + len(name) + struct.calcsize("<BIQQ") for name, *_ in entries)
    directory = struct.pack("<i", len(entries))
    for number, (name, kind, count, data) in enumerate(entries):
        place += -place % 8
        more, longer = (changes.get("values", 0), changes.get("size", 0)) if number == 0 else (0, 0)
        directory += struct.pack("<H", len(name)) + name
        directory += struct.pack("<BIQQ", kind, count + more, place, len(data) + longer)
        content.append((place, data))
        place += len(data)
    whole = bytearray(head + directory)
    for start, data in content:
        whole += bytes(start - len(whole)) + data
    return bytes(whole), written
