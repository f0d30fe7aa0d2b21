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
# # What must the method beat?
#
# **Question.** Is the default closer to its teacher than everything simpler that could stand for it?
#
# **Method.** Each control is a run, tuned over the same learning rates by as many tries as the default, at equal
# student steps, on held-out rows: plain distillation, also for as many FLOPs and with two and four times the real
# texts; random tokens of random examples; a static set of texts with near tokens exchanged, in TinyBERT's manner; mixup
# of token states; the losses on hidden states and on relations without synthesis; and the default with one part left
# out at a time: the map, the guidance by the synthetic vector, the losses. Divergence from the teacher is what a
# control is held against first, since it moves with every example; score and agreement stand beside it.
#
# Approximate: arms that synthesise ask the teacher about as many examples, but the static set, the plain arms and the
# losses on states ask it less: see the costs. The control that comes closest is picked by the numbers that it is then
# compared on, which favours it.
#
# **What would change our mind.** We call the method's parts worth their cost if the default is closer to the teacher
# than every control with an interval below zero. Where an arm without map or losses is as close, the simpler one
# suffices.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import re

from sage_kit.config import PRESETS
from sage_kit.studies import Arm, Study, plots
from sage_kit.studies.analyses.contrasts import closest
from sage_kit.studies.analyses.controls import CONTROLS, control, more_rows, parts_left_out
from sage_kit.studies.analyses.outcomes import (
    EQUAL_FLOPS,
    OUTCOMES,
    add_contrasts,
    compute_apart,
    find_ahead,
    with_equal_flops,
)
from sage_kit.studies.predictions import DIVERGENCE
from sage_kit.studies.sizes import FEW_RATES, FEW_TASKS

study = Study.from_parameters(
    globals(),
    "16_controls",
    title="What must the method beat?",
    question="Is the default closer to its teacher than everything simpler that could stand for it?",
    tasks=FEW_TASKS,
    usual_rates=FEW_RATES,
)

# %% [markdown]
# ## The arms

# %%
arms = [
    Arm("plain", "plain distillation", schedule="none"),
    Arm("default", "the preset default", **PRESETS["default"]),
    # at smoke some stand for all
    *map(control, ["random tokens", "mixup"] if profile == "smoke" else CONTROLS),
]
if study.config(study.tasks[0]).transfer_rows and profile != "smoke":
    arms += [more_rows(study, 2), more_rows(study, 4)]
arms += parts_left_out(study)[: 1 if profile == "smoke" else None]
for arm in arms:
    print(f"{arm.name}: {arm.about}")
study.plan(arms=[*arms, Arm(EQUAL_FLOPS, schedule="none")], tuned=True)
runs = with_equal_flops(study, study.run(study.tune(arms)), "default")

# %% [markdown]
# ## What it cost

# %%
study.add_table("compute", compute_apart(study, runs, [EQUAL_FLOPS]))

# %% [markdown]
# ## The default, less each control

# %%
rivals = [name for name in runs.arms if name != "default"]
add_contrasts(study, "over_controls", runs, [("default", name) for name in rivals])
figure = plots.intervals(
    study.tables["over_controls_divergence"],
    title="Divergence of the default, against each control",
    unit="percent change",
    label="against",
)
study.add_figure("over_controls_divergence", figure, "Below zero the default is closer; 95 % intervals.")
figure = plots.intervals(
    study.tables["over_controls"], title="Score of the default, less each control's", unit="points", label="against"
)
study.add_figure("over_controls", figure, "Differences, paired by seed and example; 95 % intervals.")

# %% [markdown]
# ## Verdict

# %%
best = closest(study.tables["over_controls_divergence"], study.overall, lower_is_better=True)
print(f"the control that comes closest to the default: {best}")


def closer(name: str, against: str, claim: str = "") -> None:
    """Is the default closer to the teacher than a control?"""
    study.find(
        name,
        f"Are the outputs of the default closer to the teacher's than those of {against}?",
        table="over_controls_divergence",
        row={"task": study.overall, "arm": "default", "against": against},
        direction="below",
        claim=claim,
        yes=f"The default diverges less from the teacher than {against}",
        no=f"The default diverges more from the teacher than {against}",
        undecided=f"No significant difference between the default and {against} in divergence from the teacher",
    )


closer("closest_control_divergence", best, claim="default_over_controls")
for rival in rivals:
    if rival != best:
        closer(f"over_{'_'.join(re.findall('[a-z0-9]+', rival.lower()))}", rival)
find_ahead(
    study, "closest_control", "over_controls", "default", what="the default", other=best, against=best,
    outcomes=[outcome for outcome in OUTCOMES if outcome != DIVERGENCE],
)  # fmt: skip
study.finish()
