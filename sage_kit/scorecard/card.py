"""The scorecard of one reducer with one inverter, and the directory that it is kept in.

Reducer and inverter learn from the training vectors alone; everything else is asked of vectors and points that they
have not seen. `Scorecard.save` writes a directory from which every figure can be computed again:

``scorecard.json``
    The figures, the settings, versions, machine and seeds.
``arrays.safetensors``
    ``train_mean`` (dim,); ``train_coordinates`` (n, c), the map; ``held_out`` (m, dim), ``held_out_coordinates`` (m, c)
    and ``held_out_anchors`` (m,), the rows of train that are nearest to these in the map; ``inverter`` (m, dim), what
    the inverter makes of them; ``nearest`` and ``random`` (m, dim), the baselines: the training vector nearest in full
    space (rows ``nearest_rows``) and a random one (rows ``random_rows``); ``round_trip_coordinates`` (m, c), where the
    reducer puts ``inverter``, if it can; ``synthetic`` (s, dim), ``synthetic_coordinates`` (s, c) and
    ``synthetic_anchors`` (s,), made as in a run, with ``synthetic_nearest_rows`` (s,), the rows of train that are
    nearest to them; ``real_rows`` (r,), training vectors drawn for comparison, and ``real_nearest_rows`` (r,), the
    other rows of train that are nearest to those. Vectors and coordinates are float32, rows int64.

The training vectors themselves lie in the directory that ``vectors`` in the JSON names, once for all scorecards
(``train``, ``held_out`` and ``held_out_rows`` in ``vectors.safetensors``).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.scorecard import measures
from sage_kit.scorecard.held_out import TaskVectors
from sage_kit.scorecard.measures import Figure
from sage_kit.storage import tensorfile
from sage_kit.storage.files import atomic_directory, disk_errors, write_json

PUBLISHED: Mapping[str, float] = {"cosine": 0.34, "mse": 0.34}
"""What the paper (arXiv 2508.14783) says of its own inversion."""

PUBLISHED_NOTE = "as published; split and scale not stated"

PREDICTORS = {
    "inverter": "inverter", "mean": "mean vector", "nearest": "nearest real vector", "random": "random real vector",
}  # fmt: skip
"""What is scored, the inverter first, and what tables call it."""

SEED = 0  # of the bootstrap, the random pairs, the sampled points and the real vectors to compare with


@dataclass(frozen=True, eq=False)
class Scorecard:
    """What a reducer with an inverter is worth.

    Attributes
    ----------
    task, teacher, bypass, input_layers : str
        Where the vectors come from.
    reducer, inverter : str
    n_components : int
    reducer_options, inverter_options : mapping
        As they were given.
    placed_by : str
        How held-out vectors got their coordinates, as a phrase.
    examples : mapping of str to int
        "train", "held_out", "synthetic" and "real" (the sample of train that synthetic vectors are compared with).
    fidelity : mapping of str to mapping of str to Figure
        By predictor ("inverter", "mean", "nearest", "random"), then by metric ("cosine", "centred_cosine", "mse",
        "r2"): held-out vectors against what is made of their coordinates.
    differences : mapping of str to mapping of str to Figure
        By baseline, then by metric: the inverter's figure less the baseline's, paired.
    novelty : mapping of str to float
        See ``sage_kit.scorecard.measures.novelty``; "real_identical" is the share of real vectors that occur again.
    intrinsic_dimension : mapping of str to float
        "synthetic" and "real", for the same number of vectors.
    outside_hull : mapping of str to float
        Share of the "held_out" and the "synthetic" points outside the convex hull of the map; NaN in many dimensions.
    norms : mapping of str to float
        Mean norm of "held_out" vectors, of what the "inverter" makes of them, and of "synthetic" ones.
    round_trip : Figure or None
        Mean distance, in standard deviations of the map, from a held-out place to the place of the vector made for it;
        None for a reducer that cannot place vectors.
    speed : mapping of str to number
        "vectors_per_second", over "points" points, the median of "repeats" of "seconds"; "threads" of the linear
        algebra, "torch_threads" and "processors"; "fit_seconds" that the inverter took to learn.
    arrays : mapping of str to array
        See the module's docstring.
    settings : mapping
        Every setting.
    environment : mapping
        Versions, machine and where the components come from.
    vectors : TaskVectors
    """

    task: str
    teacher: str
    bypass: str
    input_layers: str
    reducer: str
    inverter: str
    n_components: int
    reducer_options: Mapping[str, Any]
    inverter_options: Mapping[str, Any]
    placed_by: str
    examples: Mapping[str, int]
    fidelity: Mapping[str, Mapping[str, Figure]]
    differences: Mapping[str, Mapping[str, Figure]]
    novelty: Mapping[str, float]
    intrinsic_dimension: Mapping[str, float]
    outside_hull: Mapping[str, float]
    norms: Mapping[str, float]
    round_trip: Figure | None
    speed: Mapping[str, float]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, Any] = field(repr=False)
    vectors: TaskVectors = field(repr=False)

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"{self.task}-{self.reducer}-{self.n_components}-{self.inverter}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-ready; NaN stays."""
        plain: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            if item.name not in ("arrays", "vectors"):
                plain[item.name] = _plain(getattr(self, item.name))
        return {
            **plain,
            "published": {**PUBLISHED, "note": PUBLISHED_NOTE},
            "interval": {"level": measures.LEVEL, "draws": measures.DRAWS, "seed": SEED},
        }

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write the scorecard's directory and, if it is not there, that of the vectors.

        Parameters
        ----------
        out : path
            The folder of both.

        Returns
        -------
        Path
            ``<out>/<task>-<reducer>-<n_components>-<inverter>``, replaced if it exists.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        folder = Path(out)
        vectors = self.vectors.save(folder)
        path = folder / self.name
        with disk_errors(str(path)), atomic_directory(path) as temporary:
            tensorfile.write(temporary / "arrays.safetensors", self.arrays)
            write_json(temporary / "scorecard.json", {**self.to_json(), "vectors": f"../{vectors.name}"})
        return path


def _plain(value: Any) -> Any:
    """A value in the types that JSON has."""
    if isinstance(value, Figure):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
