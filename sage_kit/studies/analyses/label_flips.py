"""Label flips: what the teacher says of synthetic examples, held against what it says of their anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, concat

from sage_kit.components import TaskSpec
from sage_kit.data.metrics import alike_with, predictions
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.run_data import synthetic_sets
from sage_kit.studies.runs import ArmRun
from sage_kit.studies.statistics import compare_arms
from sage_kit.training.prepared import Prepared

Floats = NDArray[np.float32]

ANCHORS = "anchors"  # stands for examples that are their anchors: no label flips, and none changes


@dataclass(frozen=True)
class Flips:
    """How the teacher's labels of a run's synthetic examples stand to those of their anchors."""

    examples: int  # synthetic examples that the run trained on, of all its rounds
    # share of them whose label is not the anchor's: another class, or a number farther from it than
    # `sage_kit.data.metrics.AGREEMENT_TOLERANCE` of the label range
    flips: float
    change: float  # mean absolute change of the label, in its unit; NaN for classes


def count_flips(run: ArmRun, prepared: Prepared) -> Flips:
    """Compare the labels of all synthetic examples of a run, as they were trained on, with those of their anchors."""
    sets = synthetic_sets(run)
    labels = [one.logits[one.kept] for one in sets if one.logits is not None]
    if len(labels) < len(sets):
        raise StudyError(f"the teacher has not labelled the synthetic examples of the run of arm {run.arm!r}")
    anchors = np.concatenate([one.anchors[one.kept] for one in sets])
    return flips_of(np.concatenate(labels), prepared.train.outputs.logits[anchors], prepared.data.spec)


def flips_of(synthetic: Floats, anchors: Floats, spec: TaskSpec) -> Flips:
    """Compare the teacher's outputs on synthetic examples with those on their anchors, (m, n_outputs) each."""
    flips = ~alike_with(synthetic, anchors, spec)
    change = np.nan
    if spec.is_regression:
        change = float(np.abs(predictions(synthetic, spec) - predictions(anchors, spec)).mean(dtype=np.float64))
    return Flips(len(flips), float(flips.mean()), change)


def flips_over(runs: DataFrame, baseline: str) -> DataFrame:
    """The share of flips of each lift against that of another, or of `ANCHORS`, of which none flips: `compare_arms`.
    `runs` has a row per run with the columns task, lift and seed, and those of `Flips`.
    """
    table = runs.rename(columns={"lift": "arm"})
    if baseline == ANCHORS:
        none = table.drop_duplicates(["task", "seed"]).assign(arm=ANCHORS, flips=0.0)
        table = concat([none, table], ignore_index=True)
    # shares are counted in steps of one example
    return compare_arms(table, baseline, value="flips", resolution=1 / int(table["examples"].min()))
