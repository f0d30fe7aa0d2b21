# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is it the region, or only more data?
#
# **Question.** Does it matter where synthetic examples are made, or only that there are more of them?
#
# **Method.** *high loss* is the method: anchors drawn by their loss, new points near them in the map, tokens shifted.
# Each other arm takes one thing away. *random region* and *low loss* place the same kind of points near other anchors.
# *hard examples again* draws the same anchors and does not move them. The arms in full space move the same anchors
# without a map: by noise (*gaussian*), towards neighbours (*smote*), towards others and mixed token by token (*mixup*),
# up the gradient of the divergence (*adversarial*), and by other examples' displacements (*shuffled*). Their options
# are set, once per task and on training data alone, so that the mean displacement is that of *high loss*; whatever lies
# more than a tenth beside it is marked: regions differ by nearly as much by themselves, and arms that are not matched
# by a factor of three. *plain* takes the same student steps on real examples, *plain, more steps* as many as the FLOPs
# of *high loss* pay for, and *plain, equal FLOPs* as many as those of *default* pay for. At last the regions again with
# tokens replaced instead of shifted, by those tokens of neighbours in the map that move the anchor furthest toward the
# synthetic vector. *deep map* maps states of a deeper layer of the teacher instead of those at the input, *unguided*
# draws among the neighbours' tokens at random, *tokens of full-space neighbours* takes neighbours in full space, and
# *random tokens* replaces without looking at any region or map. Replacing cannot be told how far to go, so *noise, as
# far as replaced* is its control: hard examples shifted by noise of that length. *default* is the preset as study 12
# left it, held against the same controls; it was chosen on *dev* under other seeds, and its comparison here is on
# held-out rows. Every arm is tuned over the same learning rates by as many tries.
#
# Scores are those of held-out rows, on which nothing was chosen. Approximate: displacements are matched in the mean and
# for the losses of one run (seed 0), *mixup* has a lift of its own because its vectors shifted are all but *shuffled*,
# the map's and the gradient's own cost is in no count of FLOPs, and the best control in full space is picked by the
# scores that it is then compared on, which favours it.
#
# **What would change our mind.** We call it the region if *high loss* is ahead of *random region* with an interval
# above zero. An interval below zero, or a narrow one around it, says that more data near any example does as well.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
samplers: str = None  # samplers in full space, separated by commas; None takes the profile's
preset: str = None  # named settings that the arms build on, such as paper; None takes the defaults
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from typing import Any

from pandas import DataFrame

from sage_kit.studies import Arm, Runs, Study, plots
from sage_kit.studies.analyses import displacement
from sage_kit.studies.analyses.contrasts import closest, contrasts
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.outcomes import (
    EQUAL_FLOPS,
    OUTCOMES,
    add_contrasts,
    add_outcomes,
    add_over_plain,
    compute_apart,
    find_ahead,
    with_equal_flops,
)
from sage_kit.studies.analyses.run_data import prepared_for
from sage_kit.studies.analyses.search import RANDOM
from sage_kit.studies.parameters import listed
from sage_kit.studies.predictions import DIVERGENCE
from sage_kit.studies.sizes import FEW_RATES, FEW_TASKS

study = Study.from_parameters(
    globals(),
    "10_is_it_the_region",
    title="Is it the region, or only more data?",
    question="Does it matter where synthetic examples are made, or only that there are more of them?",
    tasks=FEW_TASKS,
    usual_rates=FEW_RATES,
)
FULL_SPACE = "gaussian,smote,mixup,adversarial,shuffled"
controls = listed(samplers or {"smoke": "mixup,adversarial"}.get(profile, FULL_SPACE))
displacement.check_samplers(controls)

# %% [markdown]
# ## The arms
#
# These need nothing that has to be found out first.


# %%
def synthesis(name: str, about: str, sampler: str, lift: str = "shift", **options: float) -> Arm:
    """An arm that synthesises: which anchors and points, how they become tokens, and the sampler's options."""
    lift_options = GUIDED["lift_options"] if lift == "replace" else {}
    return Arm(name, about, sampler=sampler, sampler_options=options, lift=lift, lift_options=lift_options)


def changed(arm: Arm, name: str, about: str, **settings: Any) -> Arm:
    """An arm with something else in it."""
    return Arm(name, about, **{**arm.settings, **settings})


NEIGHBOURS = "tokens of full-space neighbours"
# which examples are hard: as the preset has it, where it looks at losses
usual = study.config(study.tasks[0])
hard = dict(usual.sampler_options) if usual.sampler == "high_loss" else {}
first = [
    Arm("plain", "plain distillation", schedule="none"),
    synthesis("high loss", "the method", "high_loss", **hard),
    synthesis("random region", "near any example", "random"),
    synthesis("low loss", "near the easiest examples", "low_loss"),
    # no part of the way to a neighbour: the anchors' own vectors
    synthesis("hard examples again", "no displacement", "smote", interpolation=0.0),
    synthesis("high loss, replaced", "tokens of neighbours in the map", "high_loss", "replace", **hard),
    synthesis("random region, replaced", "the same near any example", "random", "replace"),
    synthesis("low loss, replaced", "the same near the easiest examples", "low_loss", "replace"),
]
near_hard, near_any = first[-3:-1]
DEEP = {"map_layer": {"smoke": 1}.get(profile, 4)}
first += [
    changed(near_hard, "high loss, deep map", "the same in a map of deeper states", **DEEP),
    changed(near_any, "random region, deep map", "the same near any example", **DEEP),
    changed(
        near_hard,
        "high loss, unguided",
        "any tokens of neighbours in the map, at random",
        lift_options={**GUIDED["lift_options"], "temperature": RANDOM},
    ),
    synthesis(NEIGHBOURS, "no map", "smote", "replace"),
    synthesis("random tokens", "no region and no map", "random", "replace_random"),
    Arm("default", "the preset as it stands, with the loss of all arms"),
]
FAR, MORE_STEPS = "noise, as far as replaced", "plain, more steps"
# how far the controls go is found out below
later = [synthesis(name, "in full space", name, "mixup" if name == "mixup" else "shift") for name in controls]
later += [synthesis(FAR, "gaussian", "gaussian"), *(Arm(name, schedule="none") for name in (MORE_STEPS, EQUAL_FLOPS))]
study.plan(arms=[*first, *later], tuned=True)
looked_at = study.run(first, seeds=[0], keep=["synthetic"])

# %% [markdown]
# ## Displacements
#
# The target is the mean distance of a synthetic vector from its anchor's under *high loss*, seed 0, over its rounds.

# %%
prepared = {one: prepared_for(study.config(one), study.plugins) for one in study.tasks}
matched, target = {}, {}
for one in study.tasks:
    vectors = prepared[one].train.store.pooled
    (method,) = looked_at.of(task=one, arm="high loss")
    target[one] = displacement.measure(method, vectors).mean()
    anchors = displacement.anchors_of(method)
    aims = dict.fromkeys(controls, target[one])
    if "mixup" in controls:  # mixing token by token moves their mean less than it moves the vector
        settings = {"sampler": "mixup", "sampler_options": {}, "lift": "mixup", "lift_options": {}}
        config = study.config(one, **settings)
        aims["mixup"] /= displacement.lift_ratio(config, prepared[one], study.plugins, anchors)
    matched[one] = {name: displacement.match(name, vectors, anchors, aim) for name, aim in aims.items()}
    # replacing tokens moves their mean as far as it will; one arm shifts by noise just as far
    (replaced,) = looked_at.of(task=one, arm="high loss, replaced")
    target[one, FAR] = displacement.lifted(replaced, prepared[one], study.plugins).mean()
    matched[one][FAR] = displacement.match("gaussian", vectors, anchors, target[one, FAR])


def other_arms(one: str) -> list[Arm]:
    """The arms whose settings depend on the task."""
    arms = []
    for name in controls:
        lift = "mixup" if name == "mixup" else "shift"
        arms.append(synthesis(name, "in full space", name, lift, **matched[one][name].options))
    arms.append(synthesis(FAR, "gaussian, with that length", "gaussian", **matched[one][FAR].options))
    return arms


looked_at = Runs(
    [
        *looked_at,
        *(run for one in study.tasks for run in study.run(other_arms(one), tasks=[one], seeds=[0], keep=["synthetic"])),
    ]
)

# %% [markdown]
# `vectors` is how far synthetic vectors lie from their anchors', which is what options can set. `tokens` is how far the
# mean token of the lifted examples lies from the anchor's, which is what the student sees: a lift that replaces or
# mixes tokens goes its own way. `matched` goes by the latter: whether it is within a tenth of *high loss*, or, for
# *noise, as far as replaced*, of *high loss, replaced*.

# %%
rows = []
for run in looked_at:
    if run.config.schedule == "none":
        continue
    distances = displacement.measure(run, prepared[run.task].train.store.pooled)
    tokens = displacement.lifted(run, prepared[run.task], study.plugins).mean()
    control = matched[run.task].get(run.arm)
    rows.append(
        {
            "task": run.task,
            "arm": run.arm,
            "options": ", ".join(f"{name}={value:g}" for name, value in (control.options if control else {}).items()),
            "vectors": distances.mean(),
            "largest": distances.max(),
            "tokens": tokens,
            "of_high_loss": tokens / target[run.task],
            "matched": displacement.near(tokens, target.get((run.task, run.arm), target[run.task])),
        }
    )
study.add_table("displacement", DataFrame(rows))
again = study.tables["displacement"].query("arm == 'hard examples again'")["largest"].max()
print(f"hard examples again: no synthetic vector is farther than {again:.3g} from its anchor's")

# %%
unmatched = study.tables["displacement"].query("not matched and arm != 'hard examples again'")
print("displacement not matched:", "; ".join(f"{row.arm} on {row.task}" for row in unmatched.itertuples()) or "none")
figure = plots.bars(
    study.tables["displacement"],
    title="Displacement, seed 0",
    unit="displacement of the mean token, share of high loss",
    value="of_high_loss",
    group="task" if len(study.tasks) > 1 else None,
)
study.add_figure("displacement", figure, "How far the mean token moves, relative to high loss; seed 0.")

# %% [markdown]
# ## All seeds

# %%
runs = []
for one in study.tasks:
    runs += study.run(study.tune([*first, *other_arms(one)], tasks=[one]), tasks=[one])
runs = Runs(runs)
runs = with_equal_flops(study, runs, "high loss", name=MORE_STEPS)
runs = with_equal_flops(study, runs, "default")

# %% [markdown]
# ## What it cost
#
# All arms but *plain, more steps* and *plain, equal FLOPs* take equal student steps. Those that synthesise ask the
# teacher about as many examples; their tokens differ as far as their anchors, or what comes in for their tokens, differ
# in length.

# %%
study.add_table("compute", compute_apart(study, runs, [MORE_STEPS, EQUAL_FLOPS]))

# %% [markdown]
# ## Over plain distillation
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer).

# %%
add_over_plain(study, runs)
add_outcomes(study, "over_equal_flops", runs, EQUAL_FLOPS, arms=["default"])

# %% [markdown]
# ## One thing taken away at a time

# %%
pairs = [
    ("high loss", "random region"),
    ("high loss", "low loss"),
    ("high loss", "hard examples again"),
    ("high loss", MORE_STEPS),
    ("high loss, replaced", "high loss"),
    ("high loss, replaced", "random region, replaced"),
    ("high loss, replaced", "low loss, replaced"),
    ("high loss, replaced", NEIGHBOURS),
    ("high loss, replaced", "random tokens"),
    ("high loss, replaced", FAR),
    ("high loss, replaced", "high loss, unguided"),
    ("high loss, deep map", "high loss, replaced"),
    ("high loss, deep map", "random region, deep map"),
]
add_contrasts(study, "pairs", runs, pairs)
pictured = study.tables["pairs"].assign(pair=lambda table: table["arm"] + " \N{MINUS SIGN} " + table["against"])
figure = plots.intervals(pictured, title="Pairs of arms", unit="points", label="pair")
study.add_figure("pairs", figure, "The first arm less the second, paired by seed and example; 95 % intervals.")

# %% [markdown]
# ## Against the controls in full space

# %%
over = contrasts(study, runs, [("high loss", name) for name in controls])
beside = {arm for arm, matches in study.tables["displacement"].groupby("arm")["matched"].all().items() if not matches}
over["displacement"] = ["not matched" if name in beside else "matched" for name in over["against"]]
study.add_table("over_full_space", over)
best = closest(study.tables["over_full_space"], study.overall)
figure = plots.intervals(
    study.tables["over_full_space"], title="High loss over full space", unit="points", label="against"
)
study.add_figure("over_full_space", figure, "High loss less each control, paired by seed and example; 95 % intervals.")

# %%
against_default = [*controls, FAR, NEIGHBOURS, "random tokens"]
study.add_table("default_over_controls", contrasts(study, runs, [("default", name) for name in against_default]))
best_for_default = closest(study.tables["default_over_controls"], study.overall)
figure = plots.intervals(
    study.tables["default_over_controls"], title="Default over controls", unit="points", label="against"
)
study.add_figure(
    "default_over_controls", figure, "Default less each control, paired by seed and example; 95 % intervals."
)

# %% [markdown]
# ## Verdict


# %%
def find(name: str, arm: str, against: str, what: str, other: str, claim: str = "", *, outcomes: tuple = ("",)) -> None:
    """Ask whether an arm is ahead of another, from the table of pairs."""
    find_ahead(study, name, "pairs", arm, what=what, other=other, claim=claim, against=against, outcomes=outcomes)


NEAR_HARD, METHOD, REPLACING = "synthesis near hard examples", "the method", "replacing tokens near hard examples"
find(
    "high_over_random",
    "high loss",
    "random region",
    NEAR_HARD,
    "the same near any example",
    "region",
    outcomes=OUTCOMES,
)
for name, arm, what in (
    ("sage_over_plain", "high loss", METHOD),
    ("default_over_plain", "default", "the preset default"),
):
    find_ahead(study, name, "over_plain", arm, what=what, other="plain distillation at equal steps")
find_ahead(
    study,
    "default_over_equal_flops",
    "over_equal_flops",
    "default",
    what="the preset default",
    other="plain distillation at equal FLOPs",
)
is_best = (over["task"] == study.overall) & (over["against"] == best)
beside_best = over.loc[is_best, "displacement"].iloc[0]
find_ahead(
    study,
    "sage_over_best_full_space",
    "over_full_space",
    "high loss",
    what=METHOD,
    other=f"the best control in full space, {best} (displacement {beside_best})",
    against=best,
    outcomes=[""],
)
find_ahead(
    study,
    "default_over_every_control",
    "default_over_controls",
    "default",
    what="the preset default",
    other=f"the best control without a map, {best_for_default}",
    against=best_for_default,
    outcomes=[""],
)
find("high_over_low", "high loss", "low loss", NEAR_HARD, "the same near easy ones")
find("replace_over_shift", "high loss, replaced", "high loss", "replacing an anchor's tokens", "shifting them alike")
find(
    "sage_over_hard_examples_again",
    "high loss",
    "hard examples again",
    METHOD,
    "showing the same hard examples again, unmoved",
)
find("sage_over_more_steps", "high loss", MORE_STEPS, METHOD, "plain distillation at equal FLOPs", outcomes=OUTCOMES)
find(
    "high_over_random_replaced", "high loss, replaced", "random region, replaced", REPLACING, "replacing them near any"
)
find(
    "map_over_neighbours_without_one",
    "high loss, replaced",
    NEIGHBOURS,
    "taking tokens of neighbours in the map",
    "taking them of neighbours in full space",
)
find(
    "replace_over_random_tokens",
    "high loss, replaced",
    "random tokens",
    "replacing tokens by region",
    "replacing random tokens by random ones",
)
for name, arm, against, what, other in (
    ("guidance", "high loss, replaced", "high loss, unguided", "choosing tokens by the synthetic vector", "any tokens"),
    ("deep_map", "high loss, deep map", "high loss, replaced", "a map of deeper states", "one of the input's"),
    (
        "high_over_random_deep",
        "high loss, deep map",
        "random region, deep map",
        "replacing tokens near hard examples in a map of deeper states",
        "replacing them near any",
    ),
):
    find(name, arm, against, what, other, outcomes=("", DIVERGENCE))
find("replace_over_noise_as_far", "high loss, replaced", FAR, REPLACING, "shifting them by noise just as far")
study.finish()
