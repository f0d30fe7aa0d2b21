"""Which training examples and synthetic ones a page holds: all of a small run, an even draw of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sage_kit.config import RunConfig, field_extra
from sage_kit.explorer.explored_run import ExploredRun
from sage_kit.explorer.training_texts import TrainingTexts

SEED = 0


@dataclass(eq=False)
class Group:
    """Runs that learn from the same texts, and so share their points.

    Attributes
    ----------
    runs : list of int
        Places among the runs of the page.
    texts : TrainingTexts or None
        Of the first of them that has any.
    examples : int
        Training sequences; 0 where nothing tells.
    """

    runs: list[int]
    texts: TrainingTexts | None
    examples: int


def group_runs(runs: Sequence[ExploredRun], texts: Sequence[TrainingTexts | None]) -> list[Group]:
    """Put runs that learn from the same texts together, in the order of the runs.

    Where the texts of one are not known, its settings of data and the number of examples have to tell.
    """
    groups: list[Group] = []
    for place, (run, own) in enumerate(zip(runs, texts, strict=True)):
        size = len(own.texts) if own is not None else run.examples
        if not size and run.coordinates is not None:
            size = len(run.coordinates)
        for group in groups:
            first = runs[group.runs[0]]
            if group.examples != size:
                continue
            known = own is not None and group.texts is not None
            if (own.texts == group.texts.texts) if known else _same_data(run.config, first.config):  # type: ignore[union-attr]
                group.runs.append(place)
                group.texts = group.texts or own
                break
        else:
            groups.append(Group([place], own, size))
    return groups


def _same_data(one: RunConfig, other: RunConfig) -> bool:
    names = [name for name in RunConfig.model_fields if field_extra(name)["group"] == "data"]
    return all(getattr(one, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, eq=False)
class Held:
    """The examples of a group that a page holds.

    Attributes
    ----------
    rows : array of shape (m,), int64
        Training examples. Any first part of the first `even` is an even draw, so that a browser can take as many as it
        can draw; the anchors that the synthetic examples need follow.
    even : int
    synthetic : dict of (int, int) to array of int64
        By run and round, the rows of its synthetic set.
    """

    rows: NDArray[np.int64]
    even: int
    synthetic: dict[tuple[int, int], NDArray[np.int64]]

    def places(self, rows: NDArray[np.int64], examples: int) -> NDArray[np.int64]:
        """Where training examples stand among those held."""
        place = np.full(examples, -1, np.int64)
        place[self.rows] = np.arange(len(self.rows))
        return place[rows]


def hold(group: Group, runs: Sequence[ExploredRun], points: int) -> Held:
    """Choose what a page holds of a group.

    Parameters
    ----------
    group : Group
    runs : sequence of ExploredRun
        Of the page.
    points : int
        Most training examples of the even draw, and most synthetic examples of all rounds together.
    """
    synthetic: dict[tuple[int, int], NDArray[np.int64]] = {}
    sets = {(place, number): found for place in group.runs for number, found in runs[place].synthetic.items()}
    share = points // max(1, len(sets))
    for key, found in sets.items():
        count = min(len(found.anchors), share)
        synthetic[key] = np.unique(np.linspace(0, len(found.anchors) - 1, count).round().astype(np.int64))
    order = np.random.default_rng(SEED).permutation(group.examples)
    drawn = order[:points]
    anchors = [sets[key].anchors[rows] for key, rows in synthetic.items()]
    missing = np.setdiff1d(np.concatenate(anchors), drawn) if anchors else np.zeros(0, np.int64)
    return Held(np.concatenate([drawn, missing]), len(drawn), synthetic)
