"""Fingerprints of content: equal values give equal text, whatever run or machine computes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlib import blake2b as Hash

DIGEST_BYTES = 16


def fingerprint(*parts: Any) -> str:
    """A fingerprint of the parts' contents.

    Parameters
    ----------
    *parts
        Text, bytes, numbers, None, numpy arrays, torch tensors, and mappings and sequences of these. Type, shape and
        dtype count, and the order of sequences; the order of a mapping's keys does not, nor whether a sequence is a
        list or a tuple.

    Returns
    -------
    str
        32 hexadecimal digits of BLAKE2b.

    Raises
    ------
    TypeError
        For a part of another type.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update(digest: Hash, part: Any) -> None:
    # Each part is told by its type and its length first, so that no two different parts give the same bytes.
    if hasattr(part, "detach"):  # a torch tensor
        tensor = part.detach().cpu().contiguous()
        digest.update(f"tensor:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        # bytes and not numbers: numpy has no bfloat16
        digest.update(tensor.reshape(-1).view(_uint8()).numpy().data)
    elif hasattr(part, "dtype") and hasattr(part, "tobytes"):  # before the numbers: numpy's float64 is a float too
        import numpy as np

        array = np.asarray(part, order="C")  # and not ascontiguousarray, which gives numbers a dimension
        if array.dtype.hasobject:
            raise TypeError("cannot fingerprint an array of Python objects")
        digest.update(f"array:{array.dtype.str}:{array.shape}:".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    elif part is None or isinstance(part, (bool, int, float, str)):
        text = repr(part).encode()
        digest.update(f"{type(part).__name__}:{len(text)}:".encode() + text)
    elif isinstance(part, bytes):
        digest.update(f"bytes:{len(part)}:".encode() + part)
    elif isinstance(part, Mapping):
        digest.update(f"mapping:{len(part)}:".encode())
        for key in sorted(part):
            _update(digest, key)
            _update(digest, part[key])
    elif isinstance(part, Sequence):
        digest.update(f"sequence:{len(part)}:".encode())
        for item in part:
            _update(digest, item)
    else:
        raise TypeError(f"cannot fingerprint a {type(part).__name__}")


def _uint8() -> Any:
    import torch

    return torch.uint8


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits for one purpose: the same parts give the same seed, others an unrelated one."""
    return int(fingerprint("seed", *parts)[:16], 16) >> 1
