"""Stop rule `agreement`: the paper's, an end at so much agreement with the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options
    from sage_kit.components.records import RoundResult


class AgreementRule:
    """Stops when the agreement reaches ``stop_agreement`` on the examples that ``stop_on`` names.

    Parameters
    ----------
    options : Options
    context : BuildContext
        Its configuration holds the two settings.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        self.threshold = context.config.stop_agreement
        self.examples = context.config.stop_on

    def reason_to_stop(self, history: Sequence[RoundResult]) -> str | None:
        """Return the reason, or None to go on; an agreement that was not measured is no reason."""
        if not history:
            return None
        latest = history[-1]
        agreement = latest.train_agreement if self.examples == "train" else latest.dev["agreement"]
        if not agreement >= self.threshold:
            return None
        return f"agreement with the teacher on {self.examples} is {agreement:.4g}, at least {self.threshold:g}"
