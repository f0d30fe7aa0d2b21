"""The real rows that an exported student is compared on: of its run, of a task, or of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.scoring import load_scored
from sage_kit.data.splits import Split, TaskData
from sage_kit.errors import CompatibilityError
from sage_kit.inference.evaluation import labelled_file, task_for
from sage_kit.inference.predictor import Predictor
from sage_kit.inference.torch_backend import TorchBackend
from sage_kit.models.teacher import load_teacher
from sage_kit.storage.read_only_cache import NotCachedError, ReadOnlyCache
from sage_kit.system.devices import make_accelerator

Announce = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Compared:
    """Rows on which models are compared.

    Attributes
    ----------
    splits : dict of str to Split
        Those that models are scored on, where they have labels: held out from training.
    further : dict of str to Split
        Others, on which outputs alone are compared.
    spec : TaskSpec
        By which they are read and scored.
    order : list of int or None
        For each class of the task, the number of the student's output; None for as they are.
    """

    splits: dict[str, Split]
    further: dict[str, Split]
    spec: TaskSpec
    order: list[int] | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(map(len, (*self.splits.values(), *self.further.values())))

    def in_order(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A student's outputs in the order of the task's classes."""
        return outputs if self.order is None else np.ascontiguousarray(outputs[:, self.order])


def rows_of_task(predictor: Predictor, data: TaskData, limit: int) -> Compared:
    """Rows of a task: of its validation splits and evaluation set and, where these are too few, of what the student
    decided on and learnt from.

    Parameters
    ----------
    predictor : Predictor
    data : TaskData
    limit : int
        Rows in all, spread over the splits; 0 for all.

    Raises
    ------
    CompatibilityError
        For a task of another kind, or with other classes than the student knows.
    """
    spec, order = task_for(predictor, data.spec)
    held_out = dict(data.validation)
    if data.evaluation is not None:
        held_out[data.evaluation.name] = data.evaluation
    splits = spread(held_out, limit)
    left = limit - sum(map(len, splits.values()))
    further: dict[str, Split] = {}
    for split in (data.dev, data.train, data.teacher):
        if left > 0 and split.name not in further:
            further |= spread({split.name: split}, left)
            left -= len(further[split.name])
    return Compared(splits, further, spec, order)


def rows_of_named_task(
    predictor: Predictor, config: RunConfig, plugins: Plugins, limit: int, announce: Announce
) -> Compared:
    """The same of a task that settings name and configure; raises as reading it does, too."""
    return rows_of_task(predictor, load_scored(plugins, config, announce), limit)


def rows_of_file(
    predictor: Predictor, file: Path, columns: Sequence[str], label_column: str, config: RunConfig, plugins: Plugins,
    limit: int, announce: Announce,
) -> Compared:  # fmt: skip
    """Rows of a file, which need no labels; raises as `sage_kit.inference.evaluation.evaluate_file` does."""
    if predictor.spec.label_kind == "spans" and len(columns) < 2:
        raise CompatibilityError("an answer needs a question and a context: name the column of the context")
    split, spec = labelled_file(predictor, file, columns, label_column, config, plugins, announce)
    return Compared(spread({split.name: split}, limit), {}, spec)


def spread(splits: dict[str, Split], limit: int) -> dict[str, Split]:
    """So many rows of some splits, as evenly as their sizes allow, each at equal distances; 0 for all."""
    found, left, waiting = {}, limit, sorted(splits.items(), key=lambda item: len(item[1]))
    while waiting:
        name, split = waiting.pop(0)
        share = min(len(split), -(-left // (len(waiting) + 1))) if limit else len(split)
        left -= share
        if share:
            found[name] = split.take(np.linspace(0, len(split) - 1, share).round().astype(np.int64))
    return {name: found[name] for name in splits if name in found}


# ---- the teacher ----------------------------------------------------------------------------------------------------


def teacher_of(run: RunConfig, data: TaskData, announce: Announce) -> Predictor | None:
    """The teacher of a run, from its checkpoint or the cache; None, and a line that says why, where it has several or
    where it would have to be fine-tuned again.
    """
    if run.other_teachers:
        announce("the run has several teachers: none is in the table, and agreement is with the student")
        return None
    config = run.model_copy(update={"device": "cpu", "precision": "fp32"})
    accelerator = make_accelerator(config)
    cache = ReadOnlyCache(Path(run.cache_dir).expanduser())
    try:
        found = load_teacher(config, data, cache, accelerator.device, lambda line: None, lambda done, total, loss: None)
    except NotCachedError:
        announce(
            f"the teacher {run.teacher!r} that was fine-tuned for the run is no longer in the cache: it is not in the "
            "table, and agreement is with the student"
        )
        return None
    backend = TorchBackend.of(found.model, accelerator)
    return Predictor(run.teacher, found.tokenizer, found.prefix, data.spec, run.max_length, backend)
