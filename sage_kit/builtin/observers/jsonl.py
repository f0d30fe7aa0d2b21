"""Observer `jsonl`: ``metrics.jsonl``, one line of JSON per round."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.files import write_text

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options
    from sage_kit.records import RoundResult, RunInfo

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
        times = _times(path)
        lines = [_line(result, times.get(result.round)) for result in run.history]
        write_text(path, "".join(lines))

    @hookimpl
    def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Append the round; the file is closed again, so nothing waits in a buffer."""
        with (run.directory / FILE_NAME).open("a", encoding="utf-8") as file:
            file.write(_line(result, datetime.now(timezone.utc).isoformat(timespec="seconds")))


def _line(result: RoundResult, time: str | None) -> str:
    return json.dumps({**result.to_json(), "time": time}) + "\n"


def _times(path: Path) -> dict[int, str]:
    """When each round of an earlier process finished, as far as its lines are whole."""
    times: dict[int, str] = {}
    if not path.is_file():
        return times
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record: Any = json.loads(line)
        except ValueError:
            continue  # the last line of a killed process may end anywhere
        if isinstance(record, dict) and isinstance(record.get("round"), int) and isinstance(record.get("time"), str):
            times[record["round"]] = record["time"]
    return times
