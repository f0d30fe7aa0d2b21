"""Arrays and strings as one compressed block that a browser unpacks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.storage.files import only_finite

MAGIC = b"SKX1"
ALIGNMENT = 8
LONGEST_TEXT = 600
"""Characters of a text that are kept; what is longer ends in dots."""

_SHOWN = {
    **{code: 0x2400 + code for code in range(0x20)},
    **dict.fromkeys([0x0A, 0x0D, 0x09], 0x20),
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys([0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}
"""Characters that would hide, reorder or break what stands around them, and what is shown in their place."""


def harmless(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text without characters that control a terminal, a page or the direction of other text; cut if it is long."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.translate(_SHOWN)


def harmless_values(value: Any) -> Any:
    """The same of each text within lists and mappings."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, Mapping):
        return {harmless(str(key)): harmless_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [harmless_values(item) for item in value]
    return value


class Blocks:
    """Arrays, strings and a table of JSON, to be packed.

    The packed form is deflated (zlib): `MAGIC`, the length of the header as uint32, the header as JSON, and from a
    multiple of `ALIGNMENT` on the arrays. Little-endian throughout. Of items of several bytes the first bytes of all
    come first, then the second ones, since those are more alike.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._index: dict[str, dict[str, Any]] = {}

    def array(self, values: NDArray[Any]) -> str:
        """Take an array of unsigned integers; returns the name under which it is found."""
        values = np.ascontiguousarray(values)
        width = values.dtype.itemsize
        raw = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        if width > 1:
            raw = np.frombuffer(raw, np.uint8).reshape(-1, width).T.tobytes()
        return self._take(raw, {"type": f"u{8 * width}", "length": int(values.size)})

    def strings(self, values: Sequence[str]) -> str:
        """Take strings, made harmless; returns the name under which they are found."""
        encoded = [harmless(value).encode() for value in values]
        lengths = self.array(np.array([len(item) for item in encoded], np.uint32))
        return self._take(b"".join(encoded), {"type": "strings", "length": len(encoded), "lengths": lengths})

    def coded(self, values: Sequence[str]) -> dict[str, str]:
        """Take strings of which many are equal: the different ones, and which each is."""
        names, codes = np.unique(np.asarray(values, dtype=object), return_inverse=True)
        return {"names": self.strings(names.tolist()), "codes": self.array(codes.astype(np.uint32))}

    def _take(self, raw: bytes, about: dict[str, Any]) -> str:
        name = str(len(self._index))
        self._index[name] = {**about, "start": self._size, "bytes": len(raw)}
        padded = raw + b"\0" * (-len(raw) % ALIGNMENT)
        self._parts.append(padded)
        self._size += len(padded)
        return name

    def pack(self, header: Mapping[str, Any]) -> bytes:
        """All of it, deflated.

        Parameters
        ----------
        header : mapping
            JSON-ready; NaN becomes null, and texts in it are made harmless.
        """
        table = {**harmless_values(only_finite(header)), "blocks": self._index}
        told = json.dumps(table, separators=(",", ":"), allow_nan=False).encode()
        told += b" " * (-(len(MAGIC) + 4 + len(told)) % ALIGNMENT)
        whole = b"".join([MAGIC, len(told).to_bytes(4, "little"), told, *self._parts])
        return zlib.compress(whole, 6)
