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
# # Which losses bring the student closest to its teacher?
#
# **Question.** Is the student closer to its teacher with a further loss beside the KL divergence of the outputs, or
# with another loss in its place, and is that so with synthesis as without?
#
# **Method.** Each loss alone that can teach the head, and *kl* with each other loss: without synthesis (*plain*), and
# with that of the preset `default` (*synthesis*). A loss of states, relations or embeddings alone leaves the head as
# it is, and *dist* alone knows no level of the probabilities, so these stand beside *kl* only. The two that do best on
# *dev*, both ways taken together, are tried together as well. Other pairs are left out: either they have *logits_mse*
# or *hard_labels* in the place of *kl*, or neither of their losses teaches the head.
#
# **Tuning.** Every arm has as many tries, under one seed: a loss beside *kl* at each learning rate with each of two
# weights, one ten times the other, and a loss without a weight at twice as many rates. The lowest divergence from the
# teacher on *dev* decides, task by task. At the larger weight the loss has about the gradient that *kl* has after a
# pass or two over the texts.
#
# Steps are equal. For a loss of states the student computes its last block for every token, which plain *kl* does not
# need, so *kl* alone is also run for as many FLOPs as the best loss beside it takes (*kl, equal FLOPs*). Comparisons
# are on held-out rows, each run with a transfer set of its own; the divergence decides, and score and agreement stand
# beside it. Where labels are numbers, *kl* is the squared error that *logits_mse* is, and *dist* needs classes: these
# have no arm there, and are averaged over the other tasks. *hard_labels* alone sees the labels of the real texts.
#
# Approximate: two weights under one seed are a coarse search, a loss has its default options, and a pair that nobody
# tried may be better. Only the best loss is held against *kl* for as many FLOPs; what the others cost stands in a
# table. Losses are compared within a way, where all arms ask the teacher about as many examples; synthesis asks it
# more.
#
# **What would change our mind.** We call a loss worth adding if *kl* with it diverges less from the teacher than *kl*
# alone, with an interval below zero, at equal steps and at equal FLOPs.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (a day on two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
alone: str = None  # losses in the place of kl, separated by commas; None takes logits_mse
added: str = None  # losses beside kl, separated by commas; None takes all that come along (at smoke two)
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import re

from pandas import concat

from sage_kit.studies import Arm, Runs, Study, plots
from sage_kit.studies.analyses.loss_arms import (
    KL,
    WAYS,
    WEIGHTS,
    arm_name,
    best_beside_kl,
    loss_arm,
    losses_by_task,
    losses_text,
    on_dev,
    over_all,
    over_kl,
    shared,
)
from sage_kit.studies.analyses.outcomes import OUTCOMES, add_contrasts, compute_apart, find_ahead, with_equal_flops
from sage_kit.studies.parameters import listed
from sage_kit.studies.predictions import AGREEMENT, DIVERGENCE
from sage_kit.studies.sizes import FEW_RATES
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS

FOUR = "sst2,stsb,qqp,mnli"  # a class of one text, a number, two classes of pairs and three
study = Study.from_parameters(
    globals(),
    "17_losses",
    title="Which losses bring the student closest to its teacher?",
    question="Is the student closer to its teacher with another loss than KL, or with a further one beside it?",
    tasks={"small": FOUR, "medium": FOUR},
    usual_rates=FEW_RATES,
    tuning_seeds=1,
    structured=True,
    # comparisons are on held-out rows; to score all of the official validation data takes a third of the time
    base={"validation_rows": 200, **({"rounds": 1} if profile == "smoke" else {})},
)

# %% [markdown]
# ## The arms

# %%
all_added = "hidden_cosine,contrastive" if profile == "smoke" else ",".join(WEIGHTS)
losses = losses_by_task(study, listed(alone or "logits_mse"), listed(added or all_added))
weights = 1 if profile == "smoke" else 2
arms = {one: [loss_arm(way, own, weights=weights) for way in WAYS for own in losses[one]] for one in study.tasks}
beside = shared(losses)
for name in dict.fromkeys(losses_text(own) for those in losses.values() for own in those):
    print(name)


def equal_flops(way: str) -> str:
    """The arm of kl alone that takes more steps."""
    return f"{arm_name(way, (KL,))}, equal FLOPs"


# which two losses stand together is known after tuning
later = [loss_arm(way, (KL, *beside[:2]), weights=weights) for way in WAYS if len(beside) > 1]
later += [Arm(equal_flops(way), **loss_arm(way, (KL,)).settings) for way in WAYS]
study.plan(arms={one: [*arms[one], *later] for one in study.tasks}, tuned=True)

# %% [markdown]
# ## Tuning, and what it tells on dev
#
# Each arm's best try: the choice of weights and the learning rate that were taken, the divergence from the teacher, and
# its change against *kl* alone as a share. One seed chooses and tells, so this ranks the losses and is evidence of
# nothing.

# %%
tuned = {one: study.tune(arms[one], tasks=[one]) for one in study.tasks}
study.add_table("on_dev", on_dev(study, losses))
ranked = best_beside_kl(study.tables["on_dev"], losses)
best = ranked[0]
print("beside kl, by dev, best first:", ", ".join(ranked))

# %% [markdown]
# ## Runs

# %%
runs = Runs([run for one in study.tasks for run in study.run(tuned[one], tasks=[one])])
pair = (KL, *ranked[:2])
if len(ranked) > 1:
    runs = Runs([*runs, *study.run(study.tune([loss_arm(way, pair, weights=weights) for way in WAYS]))])
for way in WAYS:
    runs = with_equal_flops(study, runs, arm_name(way, (KL, best)), name=equal_flops(way), longer=loss_arm(way, (KL,)))

# %% [markdown]
# ## What it cost
#
# The FLOPs of losses count as the student's.

# %%
longer = [equal_flops(way) for way in WAYS]
study.add_table("compute", compute_apart(study, runs, longer))

# %% [markdown]
# ## Over kl alone, at equal steps

# %%
WHERE = {"plain": "without synthesis", "synthesis": "with synthesis"}
NOTE = "95 % intervals; a loss that some tasks lack is averaged over those named"
equal = Runs([run for run in runs if run.arm not in longer])
for way in WAYS:
    for outcome in OUTCOMES:
        name = f"{way}_over_kl" + (f"_{outcome}" if outcome else "")
        study.add_table(name, over_kl(study, equal, way, metric=outcome))
    figure = plots.intervals(
        study.tables[f"{way}_over_kl_divergence"],
        title=f"Divergence from the teacher against kl alone, {WHERE[way]}",
        unit=PERCENT_CHANGE,
        label="losses",
    )
    study.add_figure(f"{way}_over_kl_divergence", figure, f"Below zero is closer to the teacher; {NOTE}.")

# %% [markdown]
# ## With and without synthesis

# %%
UNITS = {"score": POINTS, "agreement": POINTS, "divergence": PERCENT_CHANGE}
rows = [
    over_all(study.tables[f"{way}_over_kl" + (f"_{outcome}" if outcome else "")]).assign(
        task=lambda table: table["losses"], outcome=outcome or "score", comparison=WHERE[way]
    )
    for way in WAYS
    for outcome in OUTCOMES
]
figure = plots.gains(concat(rows), title="Against kl alone, over all tasks", units=UNITS)
study.add_figure("over_kl", figure, f"Each loss against kl alone in the same way; {NOTE}.")

# %% [markdown]
# ## The best loss: at equal FLOPs, with the second best, and against synthesis

# %%
single = {way: arm_name(way, (KL, best)) for way in WAYS}
labels = {(single[way], equal_flops(way)): f"best loss at equal FLOPs, {way}" for way in WAYS}
if len(ranked) > 1:
    labels |= {(arm_name(way, pair), single[way]): f"best two over best loss, {way}" for way in WAYS}
labels |= {
    ("synthesis, kl", "plain, kl"): "synthesis over plain, kl",
    (single["synthesis"], single["plain"]): "synthesis over plain, best loss",
    ("synthesis, kl", single["plain"]): "synthesis with kl over plain best loss",
}
add_contrasts(study, "best_loss", runs, list(labels))
table = study.tables["best_loss_divergence"]
pictured = table.assign(pair=[labels[row.arm, row.against] for row in table.itertuples()])
figure = plots.intervals(
    pictured, title=f"Divergence of the best loss beside kl, {best}", unit=PERCENT_CHANGE, label="pair"
)
caption = f"Best loss: {best}{f', and best two: {ranked[0]} and {ranked[1]}' if len(ranked) > 1 else ''}, beside kl."
study.add_figure("best_loss_divergence", figure, f"{caption} Below zero is closer to the teacher; 95 % intervals.")

# %% [markdown]
# ## Verdict


# %%
def closer(
    name: str, table: str, arm: str, what: str, other: str, *, against: str = "", task: str = "", claim: str = ""
) -> None:
    """Are the outputs of an arm closer to the teacher's than another's?"""
    study.find(
        name,
        f"Are the outputs with {what} closer to the teacher's than with {other}?",
        table=f"{table}_divergence",
        row={"task": task or study.overall, "arm": arm, **({"against": against} if against else {})},
        direction="below",
        claim=claim,
        yes=f"The student diverges less from the teacher with {what} than with {other}",
        no=f"The student diverges more from the teacher with {what} than with {other}",
        undecided=f"No significant difference between {what} and {other} in divergence from the teacher",
    )


for way, divergence, flops, claim in (
    ("synthesis", "best_loss_divergence", "best_loss_equal_flops", "further_loss"),
    ("plain", "best_loss_plain_divergence", "best_loss_plain_equal_flops", ""),
):
    arm, table, what = single[way], f"{way}_over_kl", f"kl + {best} {WHERE[way]}"
    closer(divergence, table, arm, what, "kl alone", claim=claim)
    closer(flops, "best_loss", arm, what, "kl alone for as many FLOPs", against=equal_flops(way))
    mark = divergence.removesuffix("_divergence")
    find_ahead(study, mark, table, arm, what=what, other="kl alone", outcomes=["", AGREEMENT])

# %%
for way, where in WHERE.items():
    for row in over_all(study.tables[f"{way}_over_kl_divergence"]).to_dict("records"):
        own = row["arm"].removeprefix(f"{way}, ")
        if own in (losses_text((KL, best)), losses_text(pair)):
            continue
        name = f"{way}_{'_'.join(re.findall('[a-z0-9]+', own))}"
        closer(name, f"{way}_over_kl", row["arm"], f"{row['losses']} {where}", "kl alone", task=row["task"])
    if len(ranked) > 1:
        arm, against = arm_name(way, pair), single[way]
        closer(f"together_{way}", "best_loss", arm, f"{losses_text(pair)} {where}", f"kl + {best}", against=against)

# %%
find_ahead(
    study,
    "synthesis_over_best_loss",
    "best_loss",
    "synthesis, kl",
    what="synthesis with kl alone",
    other=f"kl + {best} without synthesis",
    against=single["plain"],
    outcomes=["", DIVERGENCE],
)
study.finish()
