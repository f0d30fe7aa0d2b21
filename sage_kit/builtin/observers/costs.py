"""Observer `costs`: ``costs.jsonl``, what each round has cost, as one line of JSON per round."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.builtin.observers.lines import append_record, as_line, records_by_round
from sage_kit.storage.files import write_text

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options
    from sage_kit.components.records import Costs, RoundResult, RunInfo

FILE_NAME = "costs.jsonl"
MEASURES = ("seconds", "tokens", "flops")


class CostsObserver:
    """Writes what has been spent since the line before, by activity, and the sums so far.

    Round 0 is what comes before round one: teacher, vectors, labels, warm-up. A resumed run has each round once; the
    first line it adds is marked ``"resumed": true`` and counts what it took to prepare again, so that the lines always
    add up to the last line's "total".

    A line holds

    round, steps, total_steps : int
        As in :class:`sage_kit.components.records.RoundResult`; no steps in round 0.
    seconds, tokens, flops : object
        By activity, since the line before; activities that cost nothing are left out.
    total : object
        The same three as sums so far.
    wall_seconds : number or null
        Wall time of the round [s]; null in round 0.
    peak_memory : number or null
        Largest resident memory of the process so far [bytes]; null where the system does not say.
    peak_cuda_memory : number or null
        Largest memory of tensors on the run's GPU so far [bytes]; null without one.
    resumed : bool
    time : str
        UTC, ISO 8601.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        self._device = context.device
        self._total: dict[str, dict[str, float]] = {}
        self._resumed = False

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Write the rounds that are done already, or what the preparation has cost."""
        path = run.directory / FILE_NAME
        done = {0, *(result.round for result in run.history)}
        records = sorted(records_by_round(path).items())
        kept = [record for round, record in records if round in done and _is_whole(record)]
        write_text(path, "".join(as_line(record) for record in kept))
        self._total = kept[-1]["total"] if kept else {}
        self._resumed = bool(run.history)
        if not run.history:  # also after a resume: no round is done, so the sums hold nothing but preparation
            self._write_preparation(run)

    @hookimpl
    def sage_round_started(self, run: RunInfo, round: int) -> None:
        """Before round one, add the warm-up to what the preparation has cost."""
        if round == 1:
            self._write_preparation(run)

    @hookimpl
    def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Append the round."""
        record = self._record(run.costs, result.round, result.steps, result.total_steps, result.seconds)
        append_record(run.directory / FILE_NAME, record)
        self._total, self._resumed = record["total"], False

    def _write_preparation(self, run: RunInfo) -> None:
        self._total = {}
        record = self._record(run.costs, 0, 0, 0, None)
        write_text(run.directory / FILE_NAME, as_line(record))
        self._total = record["total"]

    def _record(
        self, costs: Costs, round: int, steps: int, total_steps: int, wall_seconds: float | None
    ) -> dict[str, Any]:
        total = {measure: dict(getattr(costs, measure)) for measure in MEASURES}
        return {
            "round": round,
            "steps": steps,
            "total_steps": total_steps,
            **{measure: _growth(total[measure], self._total.get(measure, {})) for measure in MEASURES},
            "total": total,
            "wall_seconds": wall_seconds,
            "peak_memory": peak_memory(),
            "peak_cuda_memory": peak_cuda_memory(self._device),
            "resumed": self._resumed,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def peak_memory() -> int | None:
    """Largest resident memory of this process so far [bytes]; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    # macOS counts in bytes, Linux and the BSDs in KiB: getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_cuda_memory(device: str) -> int | None:
    """Largest memory of tensors on a CUDA device so far [bytes]; None where CUDA is not in use.

    Parameters
    ----------
    device : str
        Torch device ("cpu", "cuda", "cuda:0").
    """
    torch = sys.modules.get("torch")  # whoever has not loaded it has nothing on the device
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated(device))


def _growth(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """By how much each activity's sum has grown, where it has."""
    growth = {activity: value - before.get(activity, 0) for activity, value in now.items()}
    return {activity: value for activity, value in growth.items() if value}


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a line of an earlier process has the sums that the next line is counted from."""
    total = record.get("total")
    return isinstance(total, dict) and all(isinstance(total.get(measure), dict) for measure in MEASURES)
