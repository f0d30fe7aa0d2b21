"""Check that a component does its part in a real run."""

from __future__ import annotations

import math

from sage_kit.recipe import CHOSEN_KINDS
from sage_kit.testing import toy
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject


@check()
def loop_run(subject: Subject) -> None:
    """Two rounds of the real loop with this component, on a toy task with a tiny random teacher, end well.

    To fix: read the message; what the loop hands to a component is described at the request's fields in
    sage_kit.components. Arrays may be read-only, and rows fewer than in your own tests.
    """
    kind = subject.spec.kind
    is_scored_by = kind == "metric" and "classes" in getattr(subject.spec, "takes", ())
    if kind not in ("observer", "loss", "task_kind") and kind not in CHOSEN_KINDS and not is_scored_by:
        raise NotApplicable(f"the toy run has no place for a {kind}")
    subject.need_packages()
    if kind == "reducer":
        _ = subject.fitted  # finds a number of components that it takes
    summary = toy.run_loop(subject.config(n_components=subject.n_components), subject.plugins)
    require(not summary["disabled_observers"], f"disabled: {summary['disabled_observers']}")
    rounds = summary["rounds"]
    if kind == "stop_rule" and len(rounds) == 1:
        return
    require(rounds[1]["synthetic"] + rounds[1]["dropped"] > 0, "round two has no synthetic examples")
    if rounds[1]["synthetic"]:
        loss = rounds[1]["synthetic_loss"]
        require(loss is not None and math.isfinite(loss), "the loss on the synthetic examples is not finite")
