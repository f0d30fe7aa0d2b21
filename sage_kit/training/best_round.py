"""The best round of a run so far, and its weights beside the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.components import TaskSpec
from sage_kit.components.records import RoundResult
from sage_kit.config import RunConfig
from sage_kit.data.metrics import METRICS, Measure, measure
from sage_kit.storage.files import disk_errors, write_bytes
from sage_kit.system.processes import from_main
from sage_kit.training.run_events import RunEvents

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    Tensors = dict[str, torch.Tensor]


def measure_of(config: RunConfig, spec: TaskSpec) -> Measure:
    """What rounds are compared by: the agreement, or the task's primary metric."""
    if config.keep_best == "agreement":
        return Measure("agreement", METRICS["accuracy"])
    return measure(spec, spec.metrics[0])


class BestRound:
    """Keeps the weights of the round that did best on dev.

    The file of a new best round is written before the round's checkpoint, and that of the one before it is removed
    after: whenever a run is killed, its newest checkpoint finds the file of the best round up to there.

    Parameters
    ----------
    folder : Path
        Takes one file.
    measure : Measure
        What the rounds are compared by: a metric, or the agreement. Of equal rounds the first is best, and one whose
        score is NaN never is.
    """

    def __init__(self, folder: Path, measure: Measure) -> None:
        self._folder = folder
        self._measure = measure

    @classmethod
    def of(cls, config: RunConfig, spec: TaskSpec, folder: Path) -> BestRound | None:
        """As the settings ask for it; None where the last round is exported."""
        return None if config.keep_best == "none" else cls(folder, measure_of(config, spec))

    def number(self, history: Sequence[RoundResult]) -> int:
        """The best round; the last where none has a score, 0 without rounds."""
        best: RoundResult | None = None
        for result in history:
            score = result.dev.get(self._measure.name, float("nan"))
            is_known = score == score  # not NaN
            if is_known and (best is None or self._measure.is_better(score, best.dev[self._measure.name])):
                best = result
        return best.round if best is not None else len(history)

    def keep(self, history: Sequence[RoundResult], weights: Tensors) -> None:
        """Write the weights of the last round, if it is the best.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        from safetensors.torch import save

        from sage_kit.storage.tensorfile import CHECKSUM, checksum

        number = self.number(history)
        if number and number == len(history):
            path = self._path(number)
            with disk_errors(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, save(weights, {CHECKSUM: checksum(weights)}))

    def forget_others(self, history: Sequence[RoundResult]) -> None:
        """Remove the files of rounds that are not the best any more."""
        for path in self._folder.glob("round-*.safetensors"):
            if path != self._path(self.number(history)):
                path.unlink(missing_ok=True)

    def weights(self, number: int) -> Tensors | None:
        """The weights of a round; None where its file is not there or damaged."""
        from safetensors import SafetensorError, safe_open

        from sage_kit.storage.tensorfile import CHECKSUM, checksum

        try:
            with safe_open(self._path(number), framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                said = (file.metadata() or {}).get(CHECKSUM)
        except (OSError, SafetensorError):
            return None
        return weights if said is None or said == checksum(weights) else None

    def take_back(
        self,
        history: Sequence[RoundResult],
        student: torch.nn.Module,
        accelerator: Accelerator,
        events: RunEvents,
    ) -> int:
        """Give the student the weights of the best round, in every process, and say so; returns the round it is of.

        That is the last where it is the best, or where the weights of the best are not readable.
        """
        last, number = len(history), self.number(history)
        if number == last:
            return last
        found = from_main(self.weights(number) if accelerator.is_main_process else None, accelerator)
        if found is None:
            events.damage(f"the weights of round {number}, the best, are not readable: the last round is exported")
            return last
        student.load_state_dict(found)
        events.message(f"round {number} is exported, which did best on dev by {self._measure.name}")
        return number

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:03d}.safetensors"
