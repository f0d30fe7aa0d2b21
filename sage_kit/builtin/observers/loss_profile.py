"""Observer `loss_profile`: the per-instance losses of every round, as one compressed Parquet file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.rundir.loss_profiles import write_loss_profile

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options
    from sage_kit.components.records import RunInfo


class LossProfileObserver:
    """Writes each round's losses where :func:`sage_kit.rundir.loss_profiles.read_loss_profiles` finds them.

    A round that a resumed run goes through again replaces its file.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    @hookimpl
    def sage_losses_profiled(self, run: RunInfo, round: int, losses: Any) -> None:
        """Write the round's losses."""
        write_loss_profile(run.directory, round, losses)
