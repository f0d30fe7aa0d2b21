"""A round's synthetic examples: arrays with a row each, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.tokens import Tokens
from sage_kit.errors import RunDirectoryError
from sage_kit.storage.files import atomic_directory, disk_errors
from sage_kit.storage.frozen import frozen_copy
from sage_kit.storage.reading import cause_of, read_arrays

PER_EXAMPLE = ("anchors", "vectors", "coordinates", "neighbors", "shares", "logits", "student_logits", "divergences")
"""Arrays of a synthetic set that have a row per example, beside `kept`."""

FLAT = ("ids", "types", "offsets", "special", "second")
"""Arrays of its tokens."""

ADVICE = "restore the file, or start a new run"
"""What to do about a damaged file: its examples cannot be drawn again as they were."""

TOKENS = "tokens."
"""In front of their names on disk."""


@dataclass
class SyntheticSet:
    """A round's synthetic examples, before or after the teacher labels them.

    Attributes
    ----------
    round : int
        The round they were made for.
    anchors : array of shape (m,), int64
        Real examples that they start from.
    vectors : array of shape (m, dim), float32
        Synthetic pooled vectors; where no map was needed, those of the anchors.
    coordinates : array of shape (m, n_components), float32, or None
        Their place in the map.
    neighbors : array of shape (m, k), int64, or None
        The real examples that each was drawn between.
    shares : array of shape (m,), float32, or None
        How far each lies on the way from its anchor to its partner.
    outside_hull : float
        Share of the points, dropped ones included, outside the convex hull of the map; NaN without a map.
    dropped : int
        How many the filter dropped before labelling.
    kept : array of shape (m,), bool
        False for those that a filter dropped after labelling.
    logits : array of shape (m, n_outputs), float32, or None
        The teacher's labels; of shape (m, 0) with an output per token.
    student_logits : array of shape (m, n_outputs), float32, or None
        The student's outputs before it trains on them, where the filter looks at these; (m, 0) with one per token.
    divergences : array of shape (m,), float64, or None
        How far these are from the teacher's, where labels are neither classes nor numbers.
    tokens : Tokens or None
        The examples as text, once they are labelled; None where the lift makes none.
    hidden : list of Tensor
        Per batch of the plan, the teacher's hidden states in half precision; empty unless the loss needs them.
    token_logits : list of Tensor
        Per batch of the plan, the teacher's outputs of shape (batch, tokens, n_outputs); empty but with one per token.
    """

    round: int
    anchors: NDArray[np.int64]
    vectors: NDArray[np.float32]
    coordinates: NDArray[np.float32] | None = None
    neighbors: NDArray[np.int64] | None = None
    shares: NDArray[np.float32] | None = None
    outside_hull: float = float("nan")
    dropped: int = 0
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    logits: NDArray[np.float32] | None = None
    student_logits: NDArray[np.float32] | None = None
    divergences: NDArray[np.float64] | None = None
    tokens: Tokens | None = None
    hidden: list[torch.Tensor] = field(default_factory=list)
    token_logits: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.kept) != len(self.anchors):
            self.kept = np.ones(len(self.anchors), bool)

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def refused(self) -> int:
        """How many a filter dropped, before labelling and after."""
        return self.dropped + len(self.anchors) - len(self)

    def frozen(self) -> SyntheticSet:
        """A copy whose arrays never change, without what the teacher gives per token: what observers get."""
        arrays = {name: getattr(self, name) for name in (*PER_EXAMPLE, "kept")}
        copies: dict[str, Any] = {name: None if array is None else frozen_copy(array) for name, array in arrays.items()}
        if self.tokens is not None:
            own: dict[str, Any] = {name: frozen_copy(getattr(self.tokens, name)) for name in FLAT}
            copies["tokens"] = replace(self.tokens, **own)
        return replace(self, **copies, hidden=[], token_logits=[])

    def take(self, rows: NDArray[np.int64]) -> SyntheticSet:
        """Some of the examples, in that order, without what there is per token; the others count as dropped."""
        arrays = {name: getattr(self, name) for name in PER_EXAMPLE}
        taken: dict[str, Any] = {name: None if array is None else array[rows] for name, array in arrays.items()}
        return replace(
            self,
            **taken,
            kept=self.kept[rows],
            tokens=None if self.tokens is None else self.tokens.take(rows),
            dropped=self.dropped + len(self.anchors) - len(rows),
            hidden=[],
            token_logits=[],
        )

    def save(self, path: Path) -> None:
        """Write the arrays as safetensors.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        from sage_kit.storage.tensorfile import pieces

        arrays: dict[str, NDArray[Any]] = {"kept": self.kept}
        for name in PER_EXAMPLE:
            if getattr(self, name) is not None:
                arrays[name] = np.ascontiguousarray(getattr(self, name))
        metadata = {name: str(getattr(self, name)) for name in ("round", "dropped", "outside_hull")}
        if self.tokens is not None:
            arrays |= {f"{TOKENS}{name}": getattr(self.tokens, name) for name in FLAT}
            metadata[f"{TOKENS}pad_id"] = str(self.tokens.pad_id)
        with (
            disk_errors(str(path)),
            atomic_directory(path.parent) as temporary,
            (temporary / path.name).open("wb") as stream,
        ):
            stream.writelines(pieces(arrays, metadata))

    @classmethod
    def load(cls, path: Path) -> SyntheticSet:
        """Read what `save` wrote.

        Raises
        ------
        RunDirectoryError
            When the file is damaged or holds something else.
        """
        arrays, metadata = read_arrays(path, RunDirectoryError, ADVICE)
        try:
            # copies: those of the file cannot be written to
            return cls._of({name: array.copy() for name, array in arrays.items()}, metadata)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise RunDirectoryError(f"{path} holds no synthetic examples ({cause_of(error)}): {ADVICE}") from None

    @classmethod
    def _of(cls, arrays: dict[str, NDArray[Any]], metadata: Mapping[str, str]) -> SyntheticSet:
        flat: dict[str, Any] = {name: arrays.pop(f"{TOKENS}{name}") for name in FLAT if f"{TOKENS}{name}" in arrays}
        return cls(
            round=int(metadata["round"]),
            dropped=int(metadata["dropped"]),
            outside_hull=float(metadata.get("outside_hull", "nan")),
            tokens=Tokens(**flat, pad_id=int(metadata[f"{TOKENS}pad_id"])) if flat else None,
            **cast(dict[str, Any], arrays),
        )
