"""A search for good settings, one factor after another, each held against what was chosen before it.

The search reads nothing but the dev split. It moves from a level to another only where enough is gained,
so that it does not follow noise from factor to factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pandas import DataFrame, concat

from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.arms import Arm, for_choice
from sage_kit.studies.parameters import listed
from sage_kit.studies.runs import Runs
from sage_kit.studies.statistics import compare_arms
from sage_kit.studies.study import Study


@dataclass(frozen=True)
class Factor:
    """One thing that may be set in several ways."""

    name: str
    # settings by the name of the level. The first is how things stand; a level's settings go over those chosen before,
    # and its options over those chosen for the same component
    levels: Mapping[str, Mapping[str, Any]]
    # values by setting, one of which must have been chosen for the factor to make sense; ``lift_options.span`` is an
    # option, None where it was left to its default
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


RANDOM = "inf"  # temperature of a lift that does not look at the synthetic vector: text, since JSON has no such number

HARDEST: Mapping[str, Any] = {"sampler": "high_loss", "sampler_options": {"fraction": 0.3}}
"""Synthesis near the examples of the highest loss."""

DEARER = 1.25
"""How many times the FLOPs of the level before a level may cost and still be compared at equal steps: teacher tokens of
single runs differ by less."""

AS_BEFORE = "as before"  # first level of a factor whose others change what an earlier one chose

_REPLACE: Mapping[str, tuple[Any, ...]] = {"lift": ("replace",)}
# in full, so that the search begins alike whatever the defaults are by now
_GREEDY: Mapping[str, Any] = {"temperature": 0.0, "share": 0.3, "consistent": False}
_FREE: Mapping[str, Any] = {**_GREEDY, "temperature": RANDOM}
# others do not look at the synthetic vector
_GUIDING = (0.0, 1.0)

FACTORS: tuple[Factor, ...] = (
    Factor(
        "lift",
        {
            "shift": {"lift": "shift"},
            "scale_shift": {"lift": "scale_shift"},
            "replace, at random": {"lift": "replace", "lift_options": {"source": "any", **_FREE}},
            "replace, toward the vector": {"lift": "replace", "lift_options": {"source": "auto", **_GREEDY}},
        },
    ),
    Factor(
        "exchange",
        {"token by token": {"lift_options": {}}, "consistent": {"lift_options": {"consistent": True}}},
        needs=_REPLACE,
    ),
    Factor(
        "spans",
        {"single tokens": {"lift_options": {}}, "spans of 3": {"lift_options": {"span": 3}}},
        needs={**_REPLACE, "lift_options.temperature": (RANDOM,), "lift_options.consistent": (None, False)},
    ),
    Factor(
        "anchors",
        {
            "any": {"sampler": "random", "sampler_options": {}},
            "hardest 30 %": HARDEST,
            "all, by loss": {"sampler": "high_loss", "sampler_options": {"fraction": 1.0}},
            "toward divergence": {"sampler": "kl_max", "sampler_options": {"fraction": 0.3}},
        },
    ),
    Factor(
        "mix",
        {
            "add 1": {"mix": "add", "synthetic_ratio": 1.0},
            "add 2": {"mix": "add", "synthetic_ratio": 2.0},
            "replace 50 %": {"mix": "replace", "synthetic_ratio": 0.5},
            "replace 100 %": {"mix": "replace", "synthetic_ratio": 1.0},
        },
    ),
    Factor(
        "source",
        {
            AS_BEFORE: {"lift_options": {}},
            "any": {"lift_options": {"source": "any"}},
            "neighbours": {"lift_options": {"source": "neighbors"}},
            "same class": {"lift_options": {"source": "same_class"}},
            "frequency": {"lift_options": {"source": "frequency"}},
            "between": {"lift_options": {"source": "between"}},
            "nearest": {"lift_options": {"source": "nearest"}},
            "masked language model": {"lift_options": {"source": "masked_lm"}},
        },
        needs={**_REPLACE, "lift_options.span": (None, 1)},
    ),
    Factor(
        "guidance",
        {
            AS_BEFORE: {"lift_options": {}},
            "drawn toward the vector": {"lift_options": {"temperature": 1.0}},
            "greedy": {"lift_options": {"temperature": 0.0}},
        },
        needs={**_REPLACE, "lift_options.span": (None, 1)},
    ),
    Factor(
        "candidates",
        {"8": {"lift_options": {}}, "32": {"lift_options": {"candidates": 32}}},
        needs={**_REPLACE, "lift_options.temperature": _GUIDING},
    ),
    Factor(
        "map",
        {"of the input": {"map_layer": 0}, "of block 4": {"map_layer": 4}},
        needs={"lift_options.temperature": (None, *_GUIDING)},
    ),
    Factor(
        "share",
        {
            "0.3": {"lift_options": {}},
            "0.15": {"lift_options": {"share": 0.15}},
            "0.5": {"lift_options": {"share": 0.5}},
            "0.1 to 0.5": {"lift_options": {"share": [0.1, 0.5]}},
        },
        needs=_REPLACE,
    ),
    Factor(
        "inverter",
        {"anchored": {"inverter": "anchored"}, "knn": {"inverter": "knn"}},
        needs={"lift_options.temperature": (None, *_GUIDING)},
    ),
    Factor("schedule", {"adaptive": {"schedule": "adaptive"}, "static": {"schedule": "static"}}),
    Factor(
        "choice",
        {
            "none": {"filter": "none", "filter_options": {}},
            "half, drawn by divergence": {"filter": "choose", "filter_options": {"draw": "weighted"}},
            "half, the most divergent": {"filter": "choose", "filter_options": {}},
        },
        needs=_REPLACE,  # what is kept of many must be text
    ),
    Factor("temperature", {"2": {"temperature": 2.0}, "1": {"temperature": 1.0}, "4": {"temperature": 4.0}}),
    Factor("hidden", {"0": {"hidden_weight": 0.0}, "1": {"hidden_weight": 1.0}}),
    Factor("relations", {"0": {"relation_weight": 0.0}, "1": {"relation_weight": 1.0}}),
    Factor("blocks", {"uniform": {"student_init": "uniform"}, "spread": {"student_init": "spread"}}),
)
"""What is searched, in this order. The first level of each is the simplest, which another must beat."""


def read_factors(text: str, factors: Sequence[Factor] = FACTORS) -> list[Factor]:
    """Factors by their names, separated by commas, in the order given."""
    known = {factor.name: factor for factor in factors}
    names = list(dict.fromkeys(listed(text)))
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise StudyError(f"there is no factor {unknown!r}.{did_you_mean(unknown, known, 'Factors')}")
    if not names:
        raise StudyError(f"factors names none: give some of {', '.join(known)}, separated by commas")
    return [known[name] for name in names]


def changed(settings: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with a level's over them; options of a component that stays are kept beside the level's own."""
    result = {**settings, **level}
    for name, value in level.items():
        if name.endswith("_options") and value:
            component = name.removesuffix("_options")
            stays = result.get(component) == settings.get(component)
            result[name] = {**(settings.get(name, {}) if stays else {}), **value}
    return result


def first_settings(factors: Sequence[Factor] = FACTORS) -> dict[str, Any]:
    """Settings of the first level of every factor: where a search begins, whatever the defaults are by now."""
    return {name: value for factor in factors for name, value in next(iter(factor.levels.values())).items()}


@dataclass(frozen=True)
class Search:
    """What a search went through and where it ended."""

    settings: Mapping[str, Any]  # what it chose
    chosen: Mapping[str, str]  # level by factor
    skipped: Mapping[str, str]  # why a factor was left out, by its name
    # A row per factor, level and task (and one over all tasks), as `compare_arms` returns it for the logarithm of the
    # divergence, against the level held before; with the columns factor, change (of the divergence itself, as a share),
    # agreement and score (differences in agreement and in the primary metric), equal ("steps" or "FLOPs", whichever
    # both took alike), and whether it was taken
    steps: DataFrame


def search(
    study: Study,
    factors: Sequence[Factor],
    seeds: Sequence[int],
    *,
    least: float,
    by_task: Mapping[str, Mapping[str, Any]] | None = None,
) -> Search:
    """Go through the factors, holding each level against the one chosen so far.

    Every level is run under the first seed, for as many student steps as the others. Those that lower the divergence
    enough there are run under the other seeds as well, with the one that they are held against; all seeds together
    decide. A level that costs more FLOPs by `DEARER` is then run for as many steps as cost no more.

    The measure is the mean divergence of the student's outputs from the teacher's on the dev split
    (`sage_kit.data.metrics.divergence`): it moves with every example, where agreement and accuracy move with those few
    on which a student changes its mind. Tasks are averaged in its logarithm, so each counts by its relative change.

    Seeds are those from `sage_kit.studies.tuning.SEARCH_SEED`, which no comparison takes. A level is taken if it lowers
    the divergence by the share `least`; of several that do, the first that is not behind the best by so much, in the
    order of how much they change. `by_task` holds settings of all levels alike.
    """
    study.choose_on(seeds)

    settings = first_settings()
    chosen: dict[str, str] = {}
    skipped: dict[str, str] = {}
    parts = []
    for factor in factors:
        lacking = _lacking(factor, settings)
        if lacking:
            skipped[factor.name] = lacking
            continue
        names = {level: f"{factor.name}: {level}" for level in factor.levels}
        held, *others = names
        arms = [Arm(names[held], by_task=by_task, **settings)]
        arms += [Arm(names[level], by_task=by_task, **changed(settings, factor.levels[level])) for level in others]
        arms = [for_choice(arm) for arm in arms]
        first = study.run(arms, seeds=seeds[:1])
        table = differences(first.table(), names[held]).assign(equal="steps")
        # the best of several under one seed owes some of it to chance: another seed has its say
        gains = (table["task"] == study.overall) & (table["change"] <= -least)
        promising = [arm for arm in arms if arm.name in set(table[gains]["arm"])]
        dearer = {arm.name: steps for arm in promising if (steps := _fewer_steps(study, first, arm.name, names[held]))}
        if promising and (len(seeds) > 1 or dearer):
            alike = [arms[0], *(arm for arm in promising if arm.name not in dearer)]
            runs = [study.run(alike, seeds=seeds).table()]
            others_runs = [arm for arm in promising if arm.name in dearer]
            runs += [study.run([arm], seeds=seeds, steps=dearer[arm.name]).table() for arm in others_runs]
            confirmed = differences(concat(runs, ignore_index=True), names[held])
            confirmed["equal"] = ["FLOPs" if name in dearer else "steps" for name in confirmed["arm"]]
            rest = table[~table["arm"].isin(confirmed["arm"])]
            table = table[["task", "arm"]].merge(concat([confirmed, rest]), how="left")  # in the order of the levels
        table.insert(0, "factor", factor.name)
        change = table[table["task"] == study.overall].set_index("arm")["change"]
        lowest = min(change[names[level]] for level in others)
        good = [level for level in others if change[names[level]] <= -least and change[names[level]] < lowest + least]
        best = good[0] if good else held
        if good:
            settings = changed(settings, factor.levels[best])
        chosen[factor.name] = best
        table["taken"] = table["arm"] == names[best]
        parts.append(table)
    if not parts:
        raise StudyError(f"nothing was searched: {'; '.join(f'{name} {why}' for name, why in skipped.items())}")
    return Search(settings, chosen, skipped, concat(parts, ignore_index=True))


def differences(runs: DataFrame, baseline: str) -> DataFrame:
    """Each arm against another in the logarithm of its divergence, paired by seed: `compare_arms`. The columns change,
    agreement and score beside are as in `Search.steps`. `runs` is as `Runs.table` returns it.
    """
    logarithm = runs.assign(log_divergence=np.log(runs["dev_divergence"]))
    table = compare_arms(logarithm, baseline, value="log_divergence")
    table["change"] = np.expm1(table["difference"])
    for name, value in (("agreement", "dev_agreement"), ("score", "dev")):
        table[name] = compare_arms(runs, baseline, value=value)["difference"]
    return table


def _fewer_steps(study: Study, runs: Runs, arm: str, held: str) -> dict[str, int]:
    """The steps of an arm, by task, that cost the FLOPs of a run of another; empty where it costs little more."""
    steps = study.equal_flops_steps(runs, arm, held)
    return steps if np.mean([study.steps(task) / count for task, count in steps.items()]) >= DEARER else {}


def _lacking(factor: Factor, have: Mapping[str, Any]) -> str:
    """What a factor needs and has not; "" where it has all."""
    for name, allowed in factor.needs.items():
        setting, _, option = name.partition(".")
        value = have[setting].get(option) if option else have[setting]
        if value not in allowed:
            return f"needs {name} to be {' or '.join(map(str, allowed))}, and it is {value}"
    return ""
