"""The plan of a study without its runs: a notebook is executed up to its first run, or its first costly look at a
teacher. Nothing is made, and nothing saved.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from sage_kit.errors import StudyError
from sage_kit.studies.runner import Announce, Cell, Outcome, run_cell

PLAN_ONLY = "SAGE_KIT_PLAN_ONLY"
"""Variable that ends a study behind its plan where it is set, however its notebook is executed."""

PLANNED = "planned"


class PlanEndError(StudyError):
    """What comes next costs time, and only the plan was asked for."""


def end_of_plan() -> None:
    """End the study here if only its plan was asked for: called before all that costs time or is saved."""
    if os.environ.get(PLAN_ONLY):
        raise PlanEndError(f"the plan ends here, since {PLAN_ONLY} is set")


def plan_cell(cell: Cell, announce: Announce) -> Outcome:
    """Execute a cell's notebook up to the end of its plan, in a folder that is removed.

    `announce` gets each line that the notebook prints. The state of the outcome is "planned", or as `run_cell` has it
    where the notebook fails before.
    """

    def tell(line: str) -> None:
        _, bar, printed = line.partition(" | ")
        if bar:
            announce(printed)

    with tempfile.TemporaryDirectory(prefix="sage-kit-plan-") as folder:
        alone = replace(cell, out=Path(folder), environment={**cell.environment, PLAN_ONLY: "1"})
        outcome = replace(run_cell(alone, announce=tell), cell=cell)
    has_ended = outcome.state == "done" or outcome.error.startswith(PlanEndError.__name__)
    return replace(outcome, state=PLANNED, error="") if has_ended else outcome
