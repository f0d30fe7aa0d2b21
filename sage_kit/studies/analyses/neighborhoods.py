"""What a map keeps of the neighbourhoods in full space, and how far synthetic vectors lie from where they start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from sage_kit.builtin.neighbors import NeighborIndex
from sage_kit.errors import DataError
from sage_kit.studies.analyses.displacement import anchors_of, measure
from sage_kit.studies.runs import ArmRun

Array = NDArray[Any]

K = 15  # neighbours that count, as many as the samplers choose among
SAMPLE = 1000  # most examples whose neighbours are looked for


def neighbors_kept(coordinates: Array, vectors: Array, k: int = K, sample: int = SAMPLE, seed: int = 0) -> float:
    """Share of an example's k nearest others in full space that are also among its k nearest in the map. About k / (n -
    1) for a map that knows nothing. Of more than `sample` examples so many are drawn; their neighbours come from all.
    """
    n = len(vectors)
    if n < 2 or len(coordinates) != n:
        raise DataError(f"a map of {len(coordinates)} examples and {n} vectors: give two at least, and as many of both")
    k = min(k, n - 1)
    members = np.sort(np.random.default_rng(seed).choice(n, min(sample, n), replace=False))
    found = [
        NeighborIndex(np.ascontiguousarray(points)).query_others(members, k)[1] for points in (coordinates, vectors)
    ]
    shared = (found[0][:, :, None] == found[1][:, None, :]).any(axis=2)
    return float(shared.mean())


def relative_moves(run: ArmRun, vectors: Array, k: int = K) -> NDArray[np.float64]:
    """Distance of each synthetic vector from its anchor, in mean distances of the anchor to its k nearest others. Over
    all rounds, (m,), float64; NaN where the anchor has k duplicates. `vectors` (n, dim) are of the real examples.
    """
    moved, anchors = measure(run, vectors), anchors_of(run)
    unique, position = np.unique(anchors, return_inverse=True)
    distances, _ = NeighborIndex(np.ascontiguousarray(vectors)).query_others(unique, min(k, len(vectors) - 1))
    units = distances.mean(axis=1)[position]
    shares: NDArray[np.float64] = np.divide(moved, units, out=np.full(len(moved), np.nan), where=units > 0)
    return shares


def synthesis_table(runs: Iterable[ArmRun], vectors: Mapping[str, Array]) -> DataFrame:
    """Per run that synthesised: how far its examples lie from their anchors, and what its map keeps.

    Columns task, arm, seed; moved, the median of `relative_moves`; anchors, how many different ones there are; and
    `neighbors_kept`, NaN without a map. Runs that synthesised nothing have no row.
    """
    rows, kept = [], {}
    for run in runs:
        if not any(result["synthetic"] for result in run.summary["rounds"]):
            continue
        share = float("nan")
        if run.directory.map.exists():
            coordinates = run.directory.coordinates()
            key = run.task, coordinates.tobytes()  # arms and seeds share their map
            if key not in kept:
                kept[key] = neighbors_kept(coordinates, vectors[run.task])
            share = kept[key]
        moved = float(np.nanmedian(relative_moves(run, vectors[run.task])))
        rows.append({**run.place, "moved": moved, "anchors": len(np.unique(anchors_of(run))), "neighbors_kept": share})
    return DataFrame(rows, columns=["task", "arm", "seed", "moved", "anchors", "neighbors_kept"])
