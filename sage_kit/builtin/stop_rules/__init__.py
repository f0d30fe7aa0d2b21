"""Built-in stop rules: `agreement`."""

from __future__ import annotations

from collections.abc import Iterable

from sage_kit import hookimpl
from sage_kit.components import StopRuleSpec, lazy


@hookimpl
def sage_stop_rules() -> Iterable[StopRuleSpec]:
    yield StopRuleSpec(
        name="agreement",
        summary="Stops once the student agrees with the teacher on a share `stop_agreement` of the examples `stop_on`",
        factory=lazy("sage_kit.builtin.stop_rules.agreement:AgreementRule"),
    )
