"""Ledgers of made-up results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.fakeresults import make_finding, runs_of, save_result

from sage_kit.studies.claims import CLAIMS, Claim, find_claim
from sage_kit.studies.ledger import Entry, ledger_of, read_results


def ledger(root: Path, claims: Sequence[Claim] = CLAIMS) -> list[Entry]:
    return ledger_of(read_results(root)[0], claims)


def entry(root: Path, id: str) -> Entry:
    return next(item for item in ledger(root) if item.claim.id == id)


def adaptive(low: float, high: float, **changes: Any) -> Any:
    return make_finding("adaptive_over_static", low, high, claim="adaptive", **changes)


def in_papers_setting(root: Path, study: str, *findings: Any, **changes: Any) -> Any:
    """A result of profile full whose arm SAGE was run as the preset paper says."""
    tasks, settings = changes.pop("tasks", ("cola", "sst2")), changes.pop("run_settings", {})
    findings = tuple(dataclasses.replace(one, row={"task": "average", "arm": "SAGE"}) for one in findings)
    runs = runs_of(["SAGE"], tasks, mark=changes.pop("mark", ""), **settings)
    return save_result(root, study, *findings, **{"profile": "full", "tasks": tasks, "runs": runs, **changes})


def qnli(low: float, high: float) -> Any:
    return make_finding("score_qnli", low, high, threshold=find_claim("score_qnli").threshold, claim="score_qnli")


def reached(task: str, k: int, n: int = 9) -> Any:
    """So many of so many runs on a task got to 99 % agreement in time."""
    from sage_kit.studies.statistics import count_interval

    share = count_interval(k, n)
    return make_finding(
        f"rounds_to_agreement_{task}", share.low, share.high, value=share.value, threshold=0.5, counts=(k, n), seeds=n,
        claim="ten_epochs", row={"task": task, "arm": "SAGE"}, columns=("share", "low", "high"),
    )  # fmt: skip
