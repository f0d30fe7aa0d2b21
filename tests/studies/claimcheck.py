"""Whether claims and the findings that notebooks really make agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sage_kit.errors import did_you_mean
from sage_kit.studies.claims import CLAIMS, Claim
from sage_kit.studies.ledger import COUNTED_PROFILES, findings_of
from sage_kit.studies.result import StudyResult


def claim_problems(
    results: Sequence[StudyResult], notebooks: Iterable[str] | None = None, claims: Sequence[Claim] = CLAIMS
) -> list[str]:
    """Where claims and the findings that notebooks really make disagree, one line each; smoke results do here.

    Parameters
    ----------
    results : sequence of StudyResult
        At least one of every study that a claim names.
    notebooks : iterable of str, optional
        Names of the notebooks without their ending; where given, a claim must name one of them.
    claims : sequence of Claim

    Returns
    -------
    list of str
        A claim's study without a notebook or a result; a claim's finding, by task or not, that no result has, or that
        names another claim, or, in results that count, is held against another threshold; a finding that names an
        unknown claim. A claim about a task that no result has is looked up under the tasks that they have.
    """
    problems = []
    known = None if notebooks is None else set(notebooks)
    for claim in claims:
        if known is not None and claim.study not in known:
            problems.append(f"claim {claim.id!r}: no notebook {claim.study!r}.{did_you_mean(claim.study, known)}")
            continue
        own = [result for result in results if result.study == claim.study]
        made = {finding.name: finding for result in own for finding in result.findings}
        tasks = {task for result in own for task in result.tasks}
        if not own:
            problems.append(f"claim {claim.id!r}: study {claim.study!r} has no result")
            continue
        if claim.task and claim.task not in tasks:
            if not any(claim.finding.replace(claim.task, task) in made for task in tasks):
                problems.append(f"claim {claim.id!r}: {claim.study!r} makes no finding like {claim.finding!r}")
            continue
        for name in (claim.finding, *claim.also):
            if not any(findings_of(result, name) for result in own):
                hint = did_you_mean(name, made, "Its findings")
                problems.append(f"claim {claim.id!r}: {claim.study!r} makes no finding {name!r}.{hint}")
        speaking = [(result, finding) for result in own for finding in findings_of(result, claim.finding)]
        problems += dict.fromkeys(
            f"claim {claim.id!r}: finding {finding.name!r} names the claim {finding.claim!r}"
            for _, finding in speaking
            if finding.claim != claim.id
        )
        thresholds = {finding.threshold for result, finding in speaking if result.profile in COUNTED_PROFILES}
        if math.isfinite(claim.threshold):
            problems += [
                f"claim {claim.id!r}: finding {claim.finding!r} is held against {threshold:g}, and the claim against "
                f"{claim.threshold:g}"
                for threshold in sorted(thresholds)
                if not math.isclose(threshold, claim.threshold)
            ]
    ids = {claim.id for claim in claims}
    unknown = {
        (result.study, finding.name, finding.claim): None
        for result in results
        for finding in result.findings
        if finding.claim and finding.claim not in ids
    }
    problems += [
        f"finding {name!r} of {study!r}: unknown claim {claim!r}.{did_you_mean(claim, ids)}"
        for study, name, claim in unknown
    ]
    return problems
