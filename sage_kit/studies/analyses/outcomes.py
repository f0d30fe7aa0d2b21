"""An arm against another by every outcome: score, agreement with the teacher, and divergence from it.

A student can be nearer to its teacher without scoring more, and the other way round, so the three stand beside each
other wherever synthesis is held against plain distillation. Steps are equal; since synthesis costs the teacher's FLOPs
as well, plain distillation for as many FLOPs stands beside that.
"""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame, concat

from sage_kit.studies import plots
from sage_kit.studies.analyses.contrasts import contrasts
from sage_kit.studies.arms import Arm
from sage_kit.studies.predictions import AGREEMENT, DIVERGENCE
from sage_kit.studies.runs import Runs
from sage_kit.studies.study import Study
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS, Margin, number_text

PLAIN = "plain"
EQUAL_FLOPS = "plain, equal FLOPs"

OUTCOMES = ("", AGREEMENT, DIVERGENCE)
"""Measures of `Study.compare`: the primary metric, and the two that compare with the teacher."""

_QUESTIONS = {
    "": ("Is {what} ahead of {other}?", "{What} is ahead of {other}", "{What} is behind {other}", "in score"),
    AGREEMENT: (
        "Does {what} agree with the teacher on more examples than {other}?",
        "{What} agrees with the teacher on more examples than {other}",
        "{What} agrees with the teacher on fewer examples than {other}",
        "in agreement with the teacher",
    ),
    DIVERGENCE: (
        "Are the outputs of {what} closer to the teacher's than those of {other}?",
        "{What} diverges less from the teacher than {other}",
        "{What} diverges more from the teacher than {other}",
        "in divergence from the teacher",
    ),
}


def add_outcomes(
    study: Study, name: str, runs: Runs, baseline: str, *, split: str | None = None, arms: Sequence[str] | None = None
) -> None:
    """Add the comparison of arms with a baseline to a study: the table `name`, and one for each other outcome. The
    others are called ``<name>_agreement`` and ``<name>_divergence``; all else is as in `Study.compare`.
    """
    for outcome in OUTCOMES:
        study.add_table(_named(name, outcome), study.compare(runs, baseline, split=split, metric=outcome, arms=arms))


def add_over_plain(study: Study, runs: Runs) -> None:
    """Add the comparison of all arms with plain distillation: `add_outcomes` as ``over_plain``, and a figure of it."""
    add_outcomes(study, "over_plain", runs, PLAIN)
    figure = plots.intervals(study.tables["over_plain"], title="Over plain distillation", unit=POINTS)
    caption = "Difference to plain distillation, paired by seed and example; 95 % intervals."
    study.add_figure("over_plain", figure, caption)


def add_contrasts(study: Study, name: str, runs: Runs, pairs: Sequence[tuple[str, str]]) -> None:
    """Add chosen pairs of arms (`sage_kit.studies.analyses.contrasts`) to a study, by the tables of `add_outcomes`."""
    for outcome in OUTCOMES:
        study.add_table(_named(name, outcome), contrasts(study, runs, pairs, metric=outcome))


def find_ahead(
    study: Study,
    name: str,
    table: str,
    arm: str,
    *,
    what: str,
    other: str,
    task: str = "",
    against: str = "",
    claim: str = "",
    outcomes: Sequence[str] = OUTCOMES,
) -> None:
    """Ask of every outcome whether an arm is ahead, from the tables of `add_outcomes`.

    The findings are called `name`, ``<name>_agreement`` and ``<name>_divergence``; `what` and `other` are the arm and
    the baseline in words, `against` picks one of the baselines of a table of contrasts, and `claim` is what the first
    speaks to.
    """
    for outcome in outcomes:
        question, yes, no, where = _QUESTIONS[outcome]
        words = {"what": what, "What": _capital(what), "other": other}
        study.find(
            _named(name, outcome),
            question.format(**words),
            table=_named(table, outcome),
            row={"task": task or study.overall, "arm": arm, **({"against": against} if against else {})},
            direction="below" if outcome == DIVERGENCE else "above",
            claim="" if outcome else claim,
            yes=yes.format(**words),
            no=no.format(**words),
            undecided=f"No significant difference between {what} and {other} {where}",
        )


def find_within(
    study: Study,
    name: str,
    table: str,
    arm: str,
    margin: Margin,
    *,
    what: str,
    other: str,
    measure: str = "score",
    claim: str = "",
) -> None:
    """Ask whether an arm keeps a measure to within a margin, from a table of `Study.compare`. `what` and `other` are
    the arm and the baseline in words, `measure` what the table compares.
    """
    study.find(
        name,
        f"Does {what} lose less {measure} than the margin, against {other}?",
        table=table,
        row={"task": study.overall, "arm": arm},
        margin=margin,
        claim=claim,
        yes=f"{_capital(what)} keeps the {measure} of {other}, to within the margin",
        no=f"{_capital(what)} loses more {measure} than the margin against {other}",
        undecided=f"A loss of {measure} of the margin by {what} against {other} is neither shown nor excluded",
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _named(name: str, outcome: str) -> str:
    return f"{name}_{outcome}" if outcome else name


def with_equal_flops(
    study: Study, runs: Runs, like: str, *, name: str = EQUAL_FLOPS, longer: Arm | None = None
) -> Runs:
    """The runs, and plain distillation, or the arm `longer`, as arm `name` for as many steps as cost the FLOPs of an
    arm, by task.

    FLOPs are the student's and the teacher's on synthetic examples (`Study.equal_flops_steps`). In a study that tuned
    its arms the longer one is tuned at that length too, by as many tries.
    """
    longer = longer or Arm(PLAIN, schedule="none")
    steps = study.equal_flops_steps(runs, longer.name, like)
    arms = [Arm(name, f"FLOPs of {like}", **longer.settings)]
    more = study.run(study.tune(arms, steps=steps) if study.tuning else arms, steps=steps)
    return Runs([*runs, *more])


def compute_apart(study: Study, runs: Runs, apart: Sequence[str]) -> DataFrame:
    """`Study.compute_table`, in which the arms that take other steps by design stand apart, as not equal."""
    parts = [Runs([run for run in runs if (run.arm in apart) is stands]) for stands in (False, True)]
    equal, others = map(study.compute_table, parts)
    return concat([equal, others.assign(equal=False)], ignore_index=True)


def flatness(study: Study, compute: DataFrame, more_steps: DataFrame) -> str:
    """In words how much more steps bring to plain distillation. `compute` is of `compute_apart`, `more_steps` of
    `Study.compare`: `EQUAL_FLOPS` against `PLAIN` in divergence.
    """
    steps = compute.set_index(["task", "arm"])["student_steps"]
    parts = []
    for row in more_steps.to_dict("records"):
        if row["task"] not in study.tasks:
            continue
        longer = 100 * (steps[row["task"], EQUAL_FLOPS] / steps[row["task"], PLAIN] - 1)
        change, low, high = (
            number_text(row[name], PERCENT_CHANGE, signed=True) for name in ("difference", "low", "high")
        )
        parts.append(f"{row['task']} {change} % ({low} to {high}) by {longer:.0f} % more steps")
    return f"divergence of plain distillation: {'; '.join(parts)}"
