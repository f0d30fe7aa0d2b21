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
# # Static or adaptive: is the curriculum worth it?
#
# **Question.** Does synthesising anew each round, from the student's latest losses, teach it more than synthesising
# once, and does either teach it more than plain distillation?
#
# **Method.** All arms take the same number of student steps, and each is tuned over the same learning rates by as
# many tries. *plain* repeats the real examples. The next three are the method with its map: anchors are drawn by
# their loss, and tokens of an anchor give way to those of its neighbours in the map that move it furthest toward the
# synthetic vector. *static* synthesises once, after round one. *adaptive* synthesises before every later round.
# *adaptive, map refitted* fits the reducer anew each time under another seed, as the paper does. *default* is the
# preset as study 12 left it, which need not look at losses, and *default, once* makes its examples once. Scores are
# those of held-out rows, on which nothing was chosen. The paper stops at 99 % agreement with the teacher, after fewer
# than ten epochs: further runs of *adaptive* without the limit on steps count the rounds until then. A run that does
# not get there needs nobody knows how many, so what is told is how many runs get there, by task, and the median of
# those. *plain, equal FLOPs* takes as many steps as the FLOPs of *adaptive* pay for, the teacher's on synthetic
# examples included.
#
# **What would change our mind.** We call the curriculum worth its cost if *adaptive* is ahead of *static* with an
# interval above zero. An interval below zero, or one that holds zero although more seeds made it narrow, says that
# synthesising once is enough.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
most_rounds: int = None  # rounds allowed until 99 % agreement; None takes the profile's
preset: str = None  # named settings that the arms build on, such as paper; None takes the defaults
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.config import PRESETS, default_settings
from sage_kit.studies import Arm, Study, statistics
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.convergence import figure_of_agreement, speed, speed_table
from sage_kit.studies.analyses.outcomes import (
    EQUAL_FLOPS,
    add_outcomes,
    add_over_plain,
    compute_apart,
    find_ahead,
    with_equal_flops,
)
from sage_kit.studies.sizes import FEW_TASKS

study = Study.from_parameters(
    globals(),
    "04_static_or_adaptive",
    title="Static or adaptive: is the curriculum worth it?",
    question="Does synthesising anew each round teach the student more than synthesising once?",
    tasks=FEW_TASKS,
    base=None if preset else GUIDED,
)

# %% [markdown]
# ## The arms
#
# They differ in nothing but what is written here.

# %%
arms = [
    Arm("plain", "plain distillation", schedule="none"),
    Arm("static", "synthesis once", schedule="static"),
    Arm("adaptive", "synthesis before every round", schedule="adaptive"),
    Arm("adaptive, map refitted", "the same, with a new map each time", schedule="adaptive", refit="every_round"),
]
if preset is None:
    as_usual = {name: value for name, value in default_settings().items() if name in GUIDED}
    usual = {**as_usual, **PRESETS["default"]}
    arms += [
        Arm("default", "the preset default, anew each round", **usual),
        Arm("default, once", "the preset default, once", **{**usual, "schedule": "static"}),
    ]
study.plan(arms=[*arms, Arm(EQUAL_FLOPS, schedule="none")], tuned=True)
runs = with_equal_flops(study, study.run(study.tune(arms)), "adaptive")

# %% [markdown]
# ## What it cost
#
# Equal compute means equal student steps and equal teacher tokens. Plain distillation asks the teacher about the real
# examples alone, and a static set is labelled once, so their teacher tokens are fewer: what they save there is not
# given back to them.

# %%
study.add_table("compute", compute_apart(study, runs, [EQUAL_FLOPS]))

# %% [markdown]
# ## How the student gets there

# %%
study.add_figure("agreement", figure_of_agreement(runs), "Mean over seeds; the band is the range of the seeds.")

# %% [markdown]
# ## How fast
#
# *steps_to_95* and *steps_to_99* are the student steps after which a run first agrees with the teacher on so many
# percent of *dev*, medians of those that *reach* it; *area* is agreement averaged over the steps of the run, so that of
# two curves with the same end the one that rises sooner has more.

# %%
fast = speed(runs.rounds())
study.add_table("speed", speed_table(fast))
at_equal_steps = fast[fast["arm"] != EQUAL_FLOPS]
study.add_table("area_over_plain", statistics.compare_arms(at_equal_steps, "plain", value="area"))

# %% [markdown]
# ## Where it ends
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer).

# %%
add_over_plain(study, runs)

# %%
add_outcomes(study, "over_static", runs, "static", arms=["adaptive", "adaptive, map refitted"])
add_outcomes(study, "over_equal_flops", runs, EQUAL_FLOPS, arms=["adaptive"])
if preset is None:
    add_outcomes(study, "over_default_once", runs, "default, once", arms=["default"])

# %% [markdown]
# ## Rounds until 99 % agreement
#
# As in the paper, the run ends when the student agrees with the teacher on 99 % of its training examples. *k* of *n*
# runs get there before round ten, or within the rounds that they are allowed where those are fewer. *median* is that of
# the *k*.

# %%
allowed = most_rounds or {"smoke": 3, "small": 10, "medium": 10, "full": 10}[profile]
within = min(allowed, 9)
until = study.run(
    [Arm("until 99 %", schedule="adaptive", rounds=allowed, stop_agreement=0.99, stop_on="train")], equal_steps=False
)
table = until.table()
in_time = table["stopped"].str.contains("agreement") & (table["rounds"] <= within)
table["needed"] = table["rounds"].where(in_time)  # of the others nobody knows it
reached = statistics.reached_table(table, "needed")
reached["took"] = reached["median"].map("median {:g}".format).where(reached["k"] > 0, "none does")
study.add_table("until", reached)

# %% [markdown]
# ## Verdict
#
# The paper says that fewer than ten epochs are *typical*, so more than half of the runs must get there.

# %%
ANEW, ONCE = "synthesis anew each round", "synthesis once"
find_ahead(study, "adaptive_over_static", "over_static", "adaptive", what=ANEW, other=ONCE, claim="adaptive")
study.find(
    "adaptive_learns_sooner",
    "Does synthesis anew each round agree with the teacher sooner than plain distillation at equal steps?",
    table="area_over_plain",
    row={"task": study.overall, "arm": "adaptive"},
    unit="points",
    yes="Synthesis anew each round agrees sooner, by the area under the curve",
    no="Synthesis anew each round agrees later, by the area under the curve",
)
find_ahead(study, "adaptive_over_plain", "over_plain", "adaptive", what=ANEW, other="plain distillation at equal steps")
find_ahead(
    study,
    "adaptive_over_equal_flops",
    "over_equal_flops",
    "adaptive",
    what=ANEW,
    other="plain distillation at equal FLOPs",
)
if preset is None:
    find_ahead(
        study,
        "default_anew_over_once",
        "over_default_once",
        "default",
        what="the preset default anew each round",
        other="its examples made once",
    )
for one in study.tasks:
    study.find(
        f"rounds_to_agreement_{one}",
        f"Do most runs on {one} agree with the teacher on 99 % of the training examples within {within} rounds?",
        table="until",
        row={"task": one, "arm": "until 99 %"},
        columns=("share", "low", "high"),
        threshold=0.5,
        unit="runs",
        claim="ten_epochs",
        yes=f"On {{task}}, most runs reach 99 % agreement within {within} rounds ({{took}})",
        no=f"On {{task}}, most runs do not reach 99 % agreement within {within} rounds",
        undecided=f"On {{task}}, runs that reach 99 % agreement within {within} rounds ({{took}})",
    )
study.finish()
