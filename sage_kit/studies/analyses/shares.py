"""Shares of a round that are synthetic, and runs that end by agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pandas import DataFrame, concat

from sage_kit.errors import StudyError
from sage_kit.studies.arms import Arm
from sage_kit.studies.parameters import listed
from sage_kit.studies.runs import Runs
from sage_kit.studies.statistics import Interval, compare_arms, count_interval


def read_shares(text: str) -> list[float]:
    """Shares separated by commas, rising, above 0 and at most 1; 0 stands for plain distillation and is left out."""
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
    words = {share: f"{100 * share:g} %" for share in shares}
    mix: dict[str, Any] = {"schedule": "adaptive", "mix": "replace"}
    return [
        Arm(f"replace {word}", f"{word} of a round is synthetic", synthetic_ratio=share, **mix)
        for share, word in words.items()
    ]


def add_shares(table: DataFrame, arms: Sequence[Arm]) -> DataFrame:
    """The rows of those arms, with the synthetic share of a round in percent as column "share"."""
    shares = {
        arm.name: 0.0 if arm.settings["schedule"] == "none" else 100 * float(arm.settings["synthetic_ratio"])
        for arm in arms
    }
    found = table[table["arm"].isin(list(shares))]
    return found.assign(share=found["arm"].map(shares))


def stopped_at(runs: Runs, agreement: float) -> DataFrame:
    """Where runs of a fixed number of rounds would have ended by a stop rule on the training examples.

    The rule looks at a round when it is over and changes nothing in it, so a run that it ends is the beginning of one
    that goes on, with the same number of rounds allowed. Runs have ``losses_from="pass"``, so that the agreement is
    that of all training examples. A row per run with the end "all rounds", and one with the end "stop rule" for each
    run that the rule ends: task, arm, seed; end; rounds, steps and seconds until then; rounds_needed, those until the
    rule ends the run, NaN where it does not; score, the primary metric on dev, and dev_agreement.
    """
    rows = []
    for run in runs:
        rounds = run.summary["rounds"]
        measured = [one["train_agreement"] for one in rounds]
        if None in measured:
            raise StudyError(
                f"run {run.directory.path} has no agreement on training examples in round {measured.index(None) + 1}: "
                "make it with losses_from='pass'"
            )
        ended = next((number for number, share in enumerate(measured) if share >= agreement), None)
        ends = {"all rounds": len(rounds) - 1, **({} if ended is None else {"stop rule": ended})}
        for end, last in ends.items():
            rows.append(
                {
                    **run.place,
                    "end": end,
                    "rounds": float(last + 1),
                    "rounds_needed": math.nan if ended is None else float(ended + 1),
                    "steps": float(rounds[last]["total_steps"]),
                    "seconds": float(sum(one["seconds"] for one in rounds[: last + 1])),
                    "score": float(rounds[last]["dev"][run.metric]),
                    "dev_agreement": float(rounds[last]["dev"]["agreement"]),
                }
            )
    return DataFrame(rows)


def stopping(ends: DataFrame, arm: str) -> DataFrame:
    """The score of an arm's runs at the rule's end less that at the end of all rounds, of those that the rule ends.

    Of a run that the rule does not end nothing is known of what the rule would cost, so it does not count. As
    `compare_arms` has it, a row per task with such a run, and "ended" of "runs"; empty where the rule ends none.
    """
    parts = []
    for task, its in ends[ends["arm"] == arm].groupby("task", sort=False):
        ended = set(its.loc[its["end"] == "stop rule", "seed"])
        if ended:
            both = its[its["seed"].isin(ended)]
            part = compare_arms(both.assign(arm=both["end"]), "all rounds", value="score", average=False)
            parts.append(part.assign(task=task, arm=arm, ended=len(ended), runs=its["seed"].nunique()))
    return concat(parts, ignore_index=True) if parts else DataFrame(columns=["task", "arm", "ended", "runs"])


def sooner(ends: DataFrame, arm: str, baseline: str) -> DataFrame:
    """In how many pairs of runs, one of each arm under one seed, the arm needs fewer rounds than the other.

    A run that the rule does not end needs more rounds than it was allowed, and nobody knows how many: it is behind a
    run that the rule ends. Pairs of which the rule ends neither, or both in the same round, do not count (the sign test
    of Dixon and Mood 1946, The statistical sign test, Journal of the American Statistical Association 41). A row per
    task: task, arm, baseline, pairs, k of n pairs that count, equal (both in the same round), neither, share with its
    exact binomial interval low and high, NaN without a pair that counts.
    """
    whole = ends[ends["end"] == "all rounds"]
    rows = []
    for task, its in whole.groupby("task", sort=False):
        wide = its.pivot_table(index="seed", columns="arm", values="rounds_needed", dropna=False)
        both = wide[[arm, baseline]].fillna(math.inf)
        counts = {
            "pairs": len(both),
            "k": int((both[arm] < both[baseline]).sum()),
            "n": int((both[arm] != both[baseline]).sum()),
            "equal": int(((both[arm] == both[baseline]) & np.isfinite(both[arm])).sum()),
            "neither": int(np.isinf(both).all(axis=1).sum()),
        }
        share = count_interval(counts["k"], counts["n"]) if counts["n"] else Interval(math.nan, math.nan, math.nan)
        ends_of = {"share": share.value, "low": share.low, "high": share.high}
        rows.append({"task": task, "arm": arm, "baseline": baseline, **counts, **ends_of})
    return DataFrame(rows)
