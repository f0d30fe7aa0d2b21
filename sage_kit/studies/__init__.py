"""Studies: questions that the method leaves open, each answered by a notebook with controls, seeds and intervals.

>>> from sage_kit.studies import Arm, Study

`study`, `arms` and `findings` are what a notebook writes with; `design`, `tuning`, `equal_compute` and `saving` are
parts of a study. `runs` makes and finds the runs of arms, `sizes` holds the profiles, `statistics` the paired intervals
and tests, `plots` the pictures, `result` and `display` what is left behind. `analyses` holds what single studies
compute beyond that. `parameters`, `grid`, `cell_key`, `runner` and `backends` execute notebooks; `claims`, `ledger` and
`gallery` read what they found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# As the command does: OpenMP's waiting threads would take the processor from whatever else runs. Before torch is
# imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from sage_kit.studies.arms import Arm
    from sage_kit.studies.runs import ArmRun, Runs
    from sage_kit.studies.study import Study

__all__ = ["Arm", "ArmRun", "Runs", "Study"]


def __getattr__(name: str) -> Any:
    # the command line imports light modules of this package, so torch waits until a study is made
    # each by a statement of its own, which keys of notebooks follow (`sage_kit.storage.source_digest`)
    if name == "Arm":
        from sage_kit.studies import arms

        return arms.Arm
    if name == "Study":
        from sage_kit.studies import study

        return study.Study
    if name in __all__:
        from sage_kit.studies import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
