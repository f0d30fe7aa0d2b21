"""Shares of a round that are synthetic, and runs that end by agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage_kit.errors import StudyError
from sage_kit.studies.parameters import listed
from sage_kit.studies.runs import Runs
from sage_kit.studies.statistics import AVERAGE, compare_arms
from sage_kit.studies.study import Arm

if TYPE_CHECKING:
    from pandas import DataFrame


def read_shares(text: str) -> list[float]:
    """Shares separated by commas, rising, each above 0 and at most 1; 0 stands for plain distillation and is left out.

    Raises
    ------
    StudyError
        For none, or what is no such number.
    """
    shares = set()
    for part in listed(text):
        try:
            share = float(part)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise StudyError(f"shares has {part!r}: each must be a number from 0 to 1")
        shares.add(share)
    shares.discard(0.0)
    if not shares:
        raise StudyError("shares names no share above 0: give numbers up to 1, separated by commas")
    return sorted(shares)


def share_arms(shares: Sequence[float]) -> list[Arm]:
    """An arm for each share, in which so many of a round's examples are synthetic and the others real."""
    return [
        Arm(
            f"replace {100 * share:g} %",
            f"{100 * share:g} % of a round is synthetic",
            schedule="adaptive",
            mix="replace",
            synthetic_ratio=share,
        )
        for share in shares
    ]


def add_shares(table: DataFrame, arms: Sequence[Arm]) -> DataFrame:
    """The rows of those arms, with the synthetic share of a round in percent as column "share".

    Parameters
    ----------
    table : DataFrame
        As `Runs.table` returns it.
    arms : sequence of Arm
        Of plain distillation, or that replace.
    """
    shares = {
        arm.name: 0.0 if arm.settings["schedule"] == "none" else 100 * float(arm.settings["synthetic_ratio"])
        for arm in arms
    }
    found = table[table["arm"].isin(list(shares))]
    return found.assign(share=found["arm"].map(shares))


def stopped_at(runs: Runs, agreement: float) -> DataFrame:
    """Where runs of a fixed number of rounds would have ended by a stop rule on the training examples.

    The rule looks at a round when it is over and changes nothing in it, so a run that it ends is the beginning of one
    that goes on, with the same number of rounds allowed.

    Parameters
    ----------
    runs : Runs
        Without a stop rule, with ``losses_from="pass"``, so that the agreement is that of all training examples.
    agreement : float
        At which the rule stops.

    Returns
    -------
    DataFrame
        Two rows per run: task, arm, seed; end ("all rounds" or "stop rule"); reached, 1 where the rule would have ended
        it; rounds, steps and seconds of the rounds until then; rounds_needed, those until the rule ends it, or one more
        than there were; score, the primary metric on dev, and dev_agreement.
    """
    from pandas import DataFrame

    rows = []
    for run in runs:
        rounds = run.summary["rounds"]
        # None stands for an agreement that was not measured
        at = [number for number, one in enumerate(rounds) if (one["train_agreement"] or 0.0) >= agreement]
        for end, last in (("all rounds", len(rounds) - 1), ("stop rule", at[0] if at else len(rounds) - 1)):
            rows.append(
                {
                    "task": run.task,
                    "arm": run.arm,
                    "seed": run.seed,
                    "end": end,
                    "reached": float(bool(at)),
                    "rounds": float(last + 1),
                    "rounds_needed": float(at[0] + 1 if at else len(rounds) + 1),
                    "steps": float(rounds[last]["total_steps"]),
                    "seconds": float(sum(one["seconds"] for one in rounds[: last + 1])),
                    "score": float(rounds[last]["dev"][run.metric]),
                    "dev_agreement": float(rounds[last]["dev"]["agreement"]),
                }
            )
    return DataFrame(rows)


def stopping(ends: DataFrame, arm: str) -> DataFrame:
    """The score of an arm at the rule's end less that at the end of all rounds, paired by seed.

    Parameters
    ----------
    ends : DataFrame
        As `stopped_at` returns it.
    arm : str

    Returns
    -------
    DataFrame
        As `compare_arms` returns it, with "ended_percent": of the runs, those that the rule would have ended.
    """
    its = ends[ends["arm"] == arm]
    table = compare_arms(its.assign(arm=its["end"]), "all rounds", value="score")
    reached = its.groupby("task")["reached"].mean().to_dict()
    reached[AVERAGE] = its["reached"].mean()
    return table.assign(arm=arm, ended_percent=100 * table["task"].map(reached))
