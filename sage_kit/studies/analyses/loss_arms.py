"""Losses as arms: each alone that can teach the head, each beside `kl`, and those together that do best on dev.

A loss beside `kl` has two weights to choose from, so it is tuned by rate and weight; an arm without a weight has as
many tries by more rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from pandas import DataFrame, concat

from sage_kit.components import LossSpec
from sage_kit.config import PRESETS
from sage_kit.errors import StudyError
from sage_kit.studies import statistics
from sage_kit.studies.arms import Arm
from sage_kit.studies.predictions import DIVERGENCE
from sage_kit.studies.runs import Runs
from sage_kit.studies.study import Study

KL = "kl"
LOGITS_MSE = "logits_mse"

WAYS: Mapping[str, Mapping[str, Any]] = {"plain": {"schedule": "none"}, "synthesis": PRESETS["default"]}
"""Settings by the way in which a loss is used: on the real examples alone, or with the default synthesis."""

WEIGHTS: Mapping[str, tuple[float, float]] = {
    "logits_mse": (0.03, 0.3),
    "dist": (0.1, 1.0),
    "hard_labels": (0.05, 0.5),
    "hidden_cosine": (0.3, 3.0),
    "hidden_mse": (0.3, 3.0),
    "tinybert_attention": (0.02, 0.2),
    "minilm_relations": (0.1, 1.0),
    "pkd": (1.0, 10.0),
    "rkd": (0.2, 2.0),
    "embedding_cosine": (0.2, 2.0),
    "contrastive": (0.03, 0.3),
}
"""The weights beside `kl` that are tried, by loss. At the larger one the gradient of the loss is about as long as that
of `kl`, as measured after 80 steps of MiniLM to three blocks: geometric means over SST-2, STS-B and QQP, rounded. On
STS-B, where `kl` is the squared error of a score up to 5, it takes some four times as much."""

USUAL_WEIGHTS = (0.1, 1.0)  # of a loss of a plugin

Losses = tuple[str, ...]


def losses_text(losses: Sequence[str]) -> str:
    """Losses that are added up, as tables and figures show them."""
    return " + ".join(losses)


def arm_name(way: str, losses: Sequence[str]) -> str:
    """What an arm is called."""
    return f"{way}, {losses_text(losses)}"


def loss_arm(way: str, losses: Sequence[str], *, weights: int = 2) -> Arm:
    """The arm of some losses. The first has weight 1, the others all their larger weights or, of two `weights` that are
    to be tried, all their smaller ones.

    `kl` alone is what settings say by default, so its tries are those of other studies.
    """
    first, *others = losses
    name, about = arm_name(way, losses), f"losses {losses_text(losses)}"
    if not others:
        own: dict[str, Any] = {} if first == KL else {"losses": {first: 1.0}}
        return Arm(name, about, **WAYS[way], **own)
    choices = {}
    for place in range(2)[-weights:]:
        chosen = {loss: WEIGHTS.get(loss, USUAL_WEIGHTS)[place] for loss in others}
        told = ", ".join(f"{loss} {weight:g}" for loss, weight in chosen.items())
        choices[told] = {"losses": {first: 1.0, **chosen}}
    return Arm(name, about, choices=choices, **WAYS[way])


def why_left_out(study: Study, task: str, losses: Sequence[str]) -> str:
    """Why there is no arm of some losses on a task; "" where there is one."""
    if not study.store.data(study.config(task)).spec.is_regression:
        return ""
    of_classes = next((loss for loss in losses if _spec(study, loss).needs_classes), "")
    if of_classes:
        return f"{of_classes} looks at classes, and the labels are numbers"
    return f"{KL} of numbers is the same squared error" if LOGITS_MSE in losses else ""


def _spec(study: Study, loss: str) -> LossSpec:
    return cast(LossSpec, study.plugins.spec("loss", loss))


def losses_by_task(study: Study, alone: Sequence[str], added: Sequence[str]) -> dict[str, list[Losses]]:
    """By task, the losses of every arm: `kl`, each of `alone`, and `kl` with each of `added`.

    What makes no sense on a task has no arm there, which a line says.
    """
    headless = next((loss for loss in alone if not _spec(study, loss).of_outputs), "")
    if headless:
        raise StudyError(f"alone names {headless!r}, which does not teach the head: name it in added")
    wanted: list[Losses] = [
        (KL,),
        *((loss,) for loss in alone if loss != KL),
        *((KL, loss) for loss in added if loss != KL),
    ]
    found: dict[str, list[Losses]] = {}
    for task in study.tasks:
        found[task] = []
        for losses in dict.fromkeys(wanted):
            why = why_left_out(study, task, losses)
            if why:
                print(f"{task}: no arm {losses_text(losses)}: {why}")
            else:
                found[task].append(losses)
    if not shared(found):
        raise StudyError(
            f"added is {', '.join(added) or 'empty'}: name a loss beside {KL} that goes with every task "
            f"({', '.join(study.tasks)})"
        )
    return found


def shared(losses: Mapping[str, Sequence[Losses]]) -> list[str]:
    """Losses that stand beside `kl` on every task."""
    first, *others = losses.values()
    return [own[1] for own in first if len(own) > 1 and all(own in those for those in others)]


def on_dev(study: Study, losses: Mapping[str, Sequence[Losses]]) -> DataFrame:
    """What each arm's best try comes to on dev.

    A row per way, losses and task, and one over its tasks: "choice" and "learning_rate" that were taken, the mean
    "divergence" from the teacher over tries, and "change", that of the divergence against `kl` alone as a share;
    averaged in the logarithm.
    """
    rows = []
    for way in WAYS:
        for own in dict.fromkeys(one for those in losses.values() for one in those):
            tasks = [task for task in study.tasks if own in losses[task]]
            changes = []
            for task in tasks:
                place, divergence = _taken(study, task, arm_name(way, own))
                changes.append(float(np.log(divergence / _taken(study, task, arm_name(way, (KL,)))[1])))
                rows.append((way, losses_text(own), task, *place, divergence, float(np.expm1(changes[-1]))))
            if len(study.tasks) > 1:
                mean = float(np.expm1(np.mean(changes)))
                rows.append((way, losses_text(own), statistics.AVERAGE, "", np.nan, np.nan, mean))
    return DataFrame(rows, columns=["way", "losses", "task", "choice", "learning_rate", "divergence", "change"])


def _taken(study: Study, task: str, arm: str) -> tuple[tuple[str, float], float]:
    place = study.tuning.taken(task, arm)
    return place, study.tuning.means(task, arm)[place]


def best_beside_kl(dev: DataFrame, losses: Mapping[str, Sequence[Losses]]) -> list[str]:
    """Losses beside `kl`, best first, by the mean change of the divergence over both ways; those that every task has.

    `dev` is of `on_dev`.
    """
    of_task = dev[dev["task"] != statistics.AVERAGE]
    mean = np.log1p(of_task["change"]).groupby(of_task["losses"]).mean()
    return sorted(shared(losses), key=lambda loss: mean[losses_text((KL, loss))])


def over_kl(study: Study, runs: Runs, way: str, *, metric: str = DIVERGENCE) -> DataFrame:
    """Every arm of a way against `kl` alone, as `Study.compare` returns it, with the column "losses" behind "arm".

    The average of an arm that some tasks lack is over the others, which "losses" then names.
    """
    baseline = arm_name(way, (KL,))
    arms = [arm for arm in runs.arms if arm.startswith(f"{way}, ") and arm != baseline]
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm in arms:
        groups.setdefault(tuple(task for task in study.tasks if runs.of(task=task, arm=arm)), []).append(arm)
    parts = []
    for tasks, own in groups.items():
        some = Runs([run for run in runs if run.task in tasks and run.arm in (baseline, *own)])
        table = study.compare(some, baseline, metric=metric, arms=own)
        note = "" if len(tasks) == len(study.tasks) else f" ({', '.join(tasks)})"
        table.insert(2, "losses", [arm.removeprefix(f"{way}, ") + note for arm in table["arm"]])
        parts.append(table)
    table = concat(parts, ignore_index=True)
    order = {name: place for place, name in enumerate([*study.tasks, statistics.AVERAGE])}
    places = {name: place for place, name in enumerate(arms)}
    keys = {"task": order, "arm": places}
    return table.sort_values(["task", "arm"], key=lambda column: column.map(keys[str(column.name)]), ignore_index=True)


def over_all(table: DataFrame) -> DataFrame:
    """Of a table of `over_kl`, the row of each arm over all its tasks."""
    return table.groupby("arm", sort=False).tail(1)
