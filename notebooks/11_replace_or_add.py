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
# # Replace or add: how much of a round should be synthetic, and when should it end?
#
# **Question.** The paper replaces the data with synthetic examples every epoch, and stops when the student agrees with
# the teacher on 99 % of them. Does replacing do as well as adding synthetic examples to the real ones? What share is
# best? And what does the stop rule save, or lose?
#
# **Method.** *Shares*: in every round but the first, a share of the real examples gives way to as many synthetic ones;
# 0 % is plain distillation. *add* keeps all real examples and adds as many synthetic ones. These arms take the same
# student steps, so one with shorter rounds has more of them, and synthesises more often; what the teacher labels is in
# the table of costs. *Stop rule*: plain distillation, adding, and replacing the largest share have a number of rounds,
# and the paper's rule ends them when the student agrees with the teacher on 99 % of the training examples. Such a run
# is the beginning of one that goes on, so one run shows both ends. Losses and agreement are here those of a pass over
# the real data, without dropout, since a share of 100 % trains on none of them. The learning rate falls over the rounds
# that are allowed, so a run that stops early ends at a higher one. A run that does not get to 99 % ends with its
# rounds, and as the rounds that it needed counts one more.
#
# **What would change our mind.** We say that replacing suffices if the interval of its difference to adding lies above
# minus the margin, at the largest share. An interval below that says that the real examples are needed.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (an hour on two cores) or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # seeds of each arm; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
train_rows: int = None  # training rows drawn from each task, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
shares: str = None  # synthetic shares of a round, separated by commas; None takes the profile's
margin: float = None  # loss of the primary metric, or of agreement, that still counts as sufficing; None takes 0.0025
most_rounds: int = None  # rounds allowed until 99 % agreement; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from pandas import concat

from sage_kit.studies import Arm, Study, figures, statistics
from sage_kit.studies.analyses.shares import add_shares, read_shares, share_arms, stopped_at, stopping
from sage_kit.studies.claims import MARGIN
from sage_kit.studies.parameters import check_parameters

check_parameters(globals(), "11_replace_or_add")

most_lost = margin or MARGIN
study = Study(
    "11_replace_or_add",
    title="Replace or add: how much of a round should be synthetic, and when should it end?",
    question="Does replacing the data with synthetic examples do as well as adding them?",
    profile=profile,
    task=task,
    seeds=seeds,
    teacher=teacher,
    student_layers=student_layers,
    train_rows=train_rows,
    rounds=rounds,
    reducer=reducer,
    data_dir=data_dir,
    more={"shares": shares, "margin": margin, "most_rounds": most_rounds},
    plugin=plugin,
    runs_dir=runs_dir,
    results_dir=results_dir,
)

# %% [markdown]
# ## The arms

# %%
plain = Arm("plain", "a share of 0 %", schedule="none")
add = Arm("add", "as many synthetic examples beside the real ones", schedule="adaptive")
replacing = share_arms(read_shares(shares or {"smoke": "0.5,1"}.get(profile, "0.25,0.5,0.75,1")))
largest = replacing[-1]
runs = study.run([plain, *replacing, add])

# %% [markdown]
# ## What it cost

# %%
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## Where it ends, by share

# %%
table = add_shares(runs.table(), [plain, *replacing])
study.add_table("scores", statistics.summarize(runs.table(), "dev"))
for one in study.tasks:
    here = table[table["task"] == one]
    level = runs.table().query("task == @one and arm == 'add'")["dev"].mean()
    figure = figures.curves(
        here.assign(way="replace"),
        x="share",
        y="dev",
        group="way",
        title=f"{one}: score by the synthetic share of a round",
        x_label="synthetic share of a round [%]",
        y_label=here["metric"].iloc[0],
        reference={"add": float(level), "teacher": float(here["teacher_dev"].mean())},
    )
    study.add_figure(
        f"shares_{one}", figure, "On the carved part; mean over seeds, the band is Student's 95 % interval of the mean."
    )

# %%
study.add_table("over_add", study.compare(runs, baseline="add"))
study.add_table("over_plain", study.compare(runs, baseline="plain"))
study.add_table("agreement_over_add", study.compare(runs, baseline="add", metric="agreement"))
figure = figures.intervals(
    study.tables["over_add"], title="Replacing against adding", unit="primary metric", threshold=-most_lost
)
study.add_figure(
    "over_add", figure, "Difference to adding, paired; 95 % intervals; the dashed line is minus the margin."
)

# %%
figure = figures.curves(
    runs.rounds(),
    x="total_steps",
    y="dev_agreement",
    group="arm",
    band="range",
    panel="task",
    title="Agreement with the teacher on the carved part",
    x_label="student steps",
    y_label="agreement",
)
study.add_figure("agreement", figure, "Mean over seeds; the band is the range of the seeds.")

# %% [markdown]
# ## A stop rule, or a fixed budget

# %%
allowed = most_rounds or {"smoke": 3, "small": 8, "full": 10}[profile]
budget = {"losses_from": "pass", "rounds": allowed}
all_rounds = study.run(
    [Arm(f"{arm.name}, all rounds", arm.about, **arm.settings, **budget) for arm in (plain, largest, add)],
    seeds=range(min(study.seeds, 3)),
    equal_steps=False,
)
ends = stopped_at(all_rounds, 0.99)
ends["arm"] = ends["arm"].str.removesuffix(", all rounds")
study.add_table("ends", ends, show=False)
measures = ["reached", "rounds", "rounds_needed", "steps", "seconds", "score", "dev_agreement"]
study.add_table("mean_ends", ends.groupby(["task", "arm", "end"], sort=False)[measures].mean().reset_index())

# %% [markdown]
# Each arm at the rule's end against itself at the end of the rounds, with the share of runs that the rule would have
# ended; and the rounds that each needs, against plain distillation.

# %%
study.add_table("stopping", concat([stopping(ends, arm.name) for arm in (plain, largest, add)], ignore_index=True))
rule = ends[ends["end"] == "stop rule"]
study.add_table("rounds_needed", statistics.summarize(rule, "rounds_needed"))
study.add_table("rounds_over_plain", statistics.compare_arms(rule, "plain", value="rounds_needed"))

# %% [markdown]
# ## Verdict

# %%
study.find(
    "replacing_suffices",
    "Does replacing the data with synthetic examples lose less than the margin against adding them?",
    table="over_add",
    row={"task": study.overall, "arm": largest.name},
    threshold=-most_lost,
    unit="primary metric",
    claim="replacing",
    yes="With {arm}, as much is learnt as by adding, to within the margin: {value} ({low} to {high}) against "
    "{threshold}.",
    no="With {arm}, more than the margin is lost against adding: {value} ({low} to {high}) against {threshold}.",
    undecided="With {arm}, whether more than the margin is lost against adding is not decided: {value} ({low} to "
    "{high}) against {threshold}.",
)
study.find(
    "replacing_over_plain",
    "Is replacing the data ahead of plain distillation at equal steps?",
    table="over_plain",
    row={"task": study.overall, "arm": largest.name},
    unit="primary metric",
    yes="With {arm}, the student is ahead of plain distillation by {value} ({low} to {high}).",
    no="With {arm}, the student is behind plain distillation: {value} ({low} to {high}).",
    undecided="Between {arm} and plain distillation nothing is decided: {value} ({low} to {high}).",
)
study.find(
    "replacing_keeps_agreement",
    "Does replacing the data lose less agreement with the teacher than the margin, against adding?",
    table="agreement_over_add",
    row={"task": study.overall, "arm": largest.name},
    threshold=-most_lost,
    unit="agreement",
    yes="With {arm}, agreement with the teacher is not behind adding by more than the margin: {value} ({low} to "
    "{high}).",
    no="With {arm}, agreement with the teacher is behind adding by more than the margin: {value} ({low} to {high}).",
    undecided="With {arm}, whether agreement with the teacher is behind adding by more than the margin is not decided: "
    "{value} ({low} to {high}) against {threshold}.",
)
study.find(
    "replacing_needs_fewer_rounds",
    "Does replacing the data need fewer rounds until 99 % agreement than plain distillation?",
    table="rounds_over_plain",
    row={"task": study.overall, "arm": largest.name},
    direction="below",
    unit="rounds",
    yes="With {arm}, 99 % agreement takes fewer rounds than plain distillation needs: {value} ({low} to {high}).",
    no="With {arm}, 99 % agreement takes more rounds than plain distillation needs: {value} ({low} to {high}).",
    undecided="Whether {arm} needs fewer rounds until 99 % agreement is not decided: {value} ({low} to {high}).",
)
# where the rule ends no run, it loses nothing, which says nothing of it
rule_ends = study.tables["stopping"].query("task == @study.overall and ended_percent > 0")["arm"].tolist()
print("arms of which the rule would have ended runs:", ", ".join(rule_ends) or "none")
for kind, arm in (("plain", plain), ("replacing", largest), ("adding", add)):
    if arm.name in rule_ends:
        study.find(
            f"stopping_suffices_{kind}",
            f"Does the stop rule lose less than the margin against the fixed budget, with {arm.name}?",
            table="stopping",
            row={"task": study.overall, "arm": arm.name},
            threshold=-most_lost,
            unit="primary metric",
            yes="The 99 % rule, which would have ended {ended_percent:.0f} % of the runs of {arm}, loses less than the "
            "margin: {value} ({low} to {high}) against {threshold}.",
            no="The 99 % rule, which would have ended {ended_percent:.0f} % of the runs of {arm}, loses more than the "
            "margin: {value} ({low} to {high}) against {threshold}.",
            undecided="Whether the 99 % rule, which would have ended {ended_percent:.0f} % of the runs of {arm}, loses "
            "more than the margin is not decided: {value} ({low} to {high}) against {threshold}.",
        )
study.finish()
