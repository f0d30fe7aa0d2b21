"""Observer `jsonl`: ``metrics.jsonl``, one line of JSON per round."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.builtin.observers.lines import append_record, as_line, records_by_round
from sage_kit.storage.files import write_text

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options
    from sage_kit.components.records import RoundResult, RunInfo

FILE_NAME = "metrics.jsonl"


class JSONLObserver:
    """Appends each round's result, and the time (UTC, ISO 8601) at which it came, to ``metrics.jsonl``.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Write the rounds that are done already, so that a resumed run has each once and no half-written line."""
        path = run.directory / FILE_NAME
        times = {round: record.get("time") for round, record in records_by_round(path).items()}
        lines = [as_line(_record(result, times.get(result.round))) for result in run.history]
        write_text(path, "".join(lines))

    @hookimpl
    def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Append the round."""
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        append_record(run.directory / FILE_NAME, _record(result, time))


def _record(result: RoundResult, time: str | None) -> dict[str, Any]:
    return {**result.to_json(), "time": time}
