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
# # With the input layer or without: what does the bypass save, and what does it cost?
#
# **Question.** The student bypasses the teacher's input layer. Does that make distillation cheaper, and does the
# student learn as much as one that keeps an input layer of its own and trains it?
#
# **Method.** Plain distillation, so that no synthesis gets between. The student of arm *own input layer* starts from
# the teacher's embeddings and trains them on token ids, with their dropout, as a usual loop does; the others read what
# frozen input layers give them, which ends after the embeddings or after k blocks. All students are equally deep: with
# k blocks in the input layers a student has k fewer of its own, so each deploys the same number of parameters. Students
# of a deeper bypass therefore also start from other blocks of the teacher. All arms take the same student steps, and
# those that read tokens take them on the same batches, drawn by the same seeds. FLOPs are those of matrix products over
# real tokens, forward and backward; a look-up in the embeddings and the optimizer's update count as none, but take
# time. Where nothing is cached, a last pass that was cut short counts by its tokens. Seconds are those of the training
# steps, on whatever machine ran them; another program beside them spoils them.
#
# Taken literally, the paper has teacher and student read one vector for each example, the mean of its embeddings: a
# sequence of length one. Three arms do. The teacher of *embeddings, pooled* is that of all other arms: fine-tuned on
# sequences, it has seen no such vector before it labels them. The teacher of *embeddings, pooled teacher* was
# fine-tuned on pooled vectors, from the same checkpoint and head, on the same rows in the same batches, for as many
# epochs and at the same rate, its embeddings as well, as is usual. That of *embeddings, frozen pooled teacher* kept the
# embeddings of the checkpoint. A student does as its teacher does, so each teacher's own score stands beside those of
# its students.
#
# **What would change our mind.** We call the bypass cheaper if it saves FLOPs with the teacher's outputs cached on both
# sides. We say that it keeps what the student learns if the interval of its difference to *own input layer* lies above
# minus the margin; an interval below that says that it costs more than we would pay. The margin is half of the 0.5
# points that the paper's ablation credits its synthesis with (78.6 against 78.1): a bypass that loses less keeps at
# least half of what the method is said to bring. The literal reading keeps what the bypass on tokens learns if the
# interval of the difference of a pooled teacher's students to the bypass lies above minus the same margin.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of every student, the input layers' included; None takes 3, or 6 at full
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
bypasses: str = (
    None  # bypasses to compare, separated by commas; None takes embeddings, 1 and 2, if blocks are left behind
)
margin: float = None  # loss of the primary metric that still counts as keeping what is learnt; None takes 0.0025
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.studies import Arm, Study, plots
from sage_kit.studies.analyses.convergence import figure_of_agreement
from sage_kit.studies.analyses.input_layer import cost_table, depth_arms, saved, teacher_table
from sage_kit.studies.analyses.outcomes import find_within
from sage_kit.studies.analyses.pooled_distillation import run_frozen_pooled_teacher, run_pooled_teacher
from sage_kit.studies.analyses.whole_student import run_whole_student
from sage_kit.studies.claims import MARGIN
from sage_kit.studies.sizes import FEW_TASKS
from sage_kit.studies.verdicts import Margin

study = Study.from_parameters(
    globals(),
    "02_input_layer",
    title="With the input layer or without: what does the bypass save, and what does it cost?",
    question="Does bypassing the input layer make distillation cheaper and keep what the student learns?",
    tasks=FEW_TASKS,
    base={"schedule": "none", "student_layers": {"smoke": 3, "small": 3, "medium": 6, "full": 6}.get(profile)},
)
keeps = Margin(margin or MARGIN, "half of what the paper credits synthesis with", 2 * MARGIN)

# %% [markdown]
# ## The arms

# %%
own = Arm("own input layer", "embeddings trained on token ids", loop=run_whole_student, bypass="embeddings")
depth = study.settings["student_layers"]
possible = ["embeddings", *(str(blocks) for blocks in (1, 2) if blocks < depth)]
bypasses = depth_arms(",".join(possible) if bypasses is None else bypasses, depth)
one = {"bypass": "embeddings", "granularity": "pooled"}
pooled = Arm("embeddings, pooled", "one vector for each example", **one)
literal = [
    Arm("embeddings, pooled teacher", "and a teacher fine-tuned on such vectors", loop=run_pooled_teacher, **one),
    Arm("embeddings, frozen pooled teacher", "whose embeddings stay", loop=run_frozen_pooled_teacher, **one),
]
runs = study.run(study.tune([own, *bypasses, pooled, *literal]))
first = bypasses[0].name

# %% [markdown]
# ## What it cost
#
# `total_flops` has the input layers and the teacher computed once, for the cache; `total_flops_uncached` has both
# computed again in every pass, as loops without a cache do.

# %%
costs = cost_table(runs, study.plugins)
study.add_table("costs", costs, show=False)
means = costs.drop(columns="seed").groupby(["task", "arm"], sort=False).mean().reset_index()
study.add_table("mean_costs", means)

# %%
study.add_table("compute", study.compute_table(runs))

# %%
for name, column in (
    ("saved_flops", "total_flops"),
    ("saved_flops_uncached", "total_flops_uncached"),
    ("saved_seconds", "step_seconds"),
):
    table = saved(costs, own.name, column)
    for share in ("saved", "low", "high"):
        table[share] *= 100
    study.add_table(name, table)
figure = plots.intervals(
    study.tables["saved_flops"], value="saved", title="FLOPs saved, the teacher's outputs cached", unit="%"
)
study.add_figure("saved_flops", figure, "Share of the FLOPs of a student with its own input layer; 95 % intervals.")

# %% [markdown]
# ## What the students learn

# %%
study.add_figure(
    "agreement",
    figure_of_agreement(runs),
    "Each arm's students with its own teacher, which reads pooled vectors where they do. Mean over seeds; the band is "
    "the range of the seeds.",
)

# %%
study.add_table("over_own", study.compare(runs, baseline=own.name))
# with the teacher that reads sequences, which is not that of the other arms
on_tokens = [arm.name for arm in bypasses]
study.add_table("agreement_over_own", study.compare(runs, baseline=own.name, metric="agreement", arms=on_tokens))
figure = plots.intervals(
    study.tables["over_own"], title="Bypass against an input layer of its own", unit="points", threshold=-keeps.value
)
study.add_figure(
    "over_own", figure, "Difference paired by seed and example, 95 % intervals; the dashed line is minus the margin."
)

# %% [markdown]
# ## Pooled vectors, and what their teachers know
#
# The table `teachers` scores each arm's own teacher on the rows that the students are compared on: the usual one on
# sequences, the same one on pooled vectors, and those that were fine-tuned on pooled vectors on these. `agreement` is
# that of the students with this very teacher, and `constant` is what the best single answer scores.

# %%
study.add_table("teachers", teacher_table(study, runs, {arm.name: "pooled vectors" for arm in literal}))

# %%
one_vector = [pooled.name, *(arm.name for arm in literal)]
study.add_table("over_bypass", study.compare(runs, baseline=first, arms=one_vector))
figure = plots.intervals(
    study.tables["over_bypass"],
    title="One vector for each example against all tokens",
    unit="points",
    threshold=-keeps.value,
)
study.add_figure(
    "over_bypass",
    figure,
    "Difference to the bypass on tokens, paired by seed and example, 95 % intervals; the dashed line is minus the "
    "margin.",
)

# %% [markdown]
# ## Verdict

# %%
row = {"task": study.overall, "arm": first}
study.find(
    "bypass_cheaper",
    "Does the bypass save FLOPs, with the teacher's outputs cached on both sides?",
    table="saved_flops",
    row=row,
    columns=("saved", "low", "high"),
    unit="% of the FLOPs",
    claim="bypass_cheaper",
    yes="The bypass (input layers: {arm}) saves FLOPs",
    no="The bypass (input layers: {arm}) costs more FLOPs: it saves",
    undecided="No significant saving of FLOPs by the bypass (input layers: {arm})",
)
OWN_LAYER = "students with an input layer of their own"
find_within(
    study, "bypass_preserves", "over_own", first, keeps, what="the bypass", other=OWN_LAYER, claim="bypass_preserves"
)
find_within(
    study, "bypass_keeps_agreement", "agreement_over_own", first, keeps,
    what="the bypass", other=OWN_LAYER, measure="agreement with the teacher",
)  # fmt: skip
study.find(
    "bypass_faster",
    "Does the bypass save time in the training steps on this machine?",
    table="saved_seconds",
    row=row,
    columns=("saved", "low", "high"),
    unit="% of the seconds",
    yes="Training steps of the bypass take less time here; it saves",
    no="Training steps of the bypass take more time here; it saves",
    undecided="No significant saving of time in training steps here",
)
for arm in [*bypasses[1:], pooled]:
    name = "preserves_" + arm.name.replace(",", "").replace(" ", "_")
    find_within(study, name, "over_own", arm.name, keeps, what=f"input layers of {arm.name}", other=OWN_LAYER)
for name, arm in zip(("literal_reading_preserves", "literal_reading_frozen_preserves"), literal, strict=True):
    find_within(
        study, name, "over_bypass", arm.name, keeps,
        what=f"the literal reading, one vector for teacher and student alike ({arm.name}),",
        other="the bypass on tokens",
    )  # fmt: skip
study.finish()
