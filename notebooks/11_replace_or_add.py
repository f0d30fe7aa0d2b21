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
# that are allowed, so a run that stops early ends at a higher one. A run that does not get to 99 % needs more rounds
# than it was allowed, and nobody knows how many: told is how many runs get there and the median of those, and rounds
# are compared pair by pair, where a run that gets there is ahead of one that does not.
#
# **What would change our mind.** We say that replacing suffices if, at the largest share, it is not behind adding by
# more than a margin in score and in agreement with the teacher, and needs fewer rounds than plain distillation. An
# interval below minus the margin says that the real examples are needed. The margin is half of the 0.5 points that the
# paper's ablation credits its synthesis with (78.6 against 78.1): whoever loses less keeps at least half of what the
# method is said to bring.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
shares: str = None  # synthetic shares of a round, separated by commas; None takes the profile's
margin: float = None  # loss of the primary metric, or of agreement, that still counts as sufficing; None takes 0.0025
most_rounds: int = None  # rounds allowed until 99 % agreement; None takes the profile's
preset: str = None  # named settings that the arms build on, such as paper; None takes the defaults
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from pandas import concat

from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses.convergence import figure_of_agreement
from sage_kit.studies.analyses.outcomes import add_outcomes, find_ahead, find_within
from sage_kit.studies.analyses.shares import add_shares, read_shares, share_arms, sooner, stopped_at, stopping
from sage_kit.studies.claims import MARGIN
from sage_kit.studies.sizes import FEW_TASKS
from sage_kit.studies.verdicts import Margin

study = Study.from_parameters(
    globals(),
    "11_replace_or_add",
    title="Replace or add: how much of a round should be synthetic, and when should it end?",
    question="Does replacing the data with synthetic examples do as well as adding them?",
    tasks=FEW_TASKS,
)
suffices = Margin(margin or MARGIN, "half of what the paper credits synthesis with", 2 * MARGIN)

# %% [markdown]
# ## The arms

# %%
plain = Arm("plain", "a share of 0 %", schedule="none")
beside = {"mix": "add", "synthetic_ratio": 1.0}
add = Arm("add", "as many synthetic examples beside the real ones", schedule="adaptive", **beside)
replacing = share_arms(read_shares(shares or {"smoke": "0.5,1"}.get(profile, "0.25,0.5,0.75,1")))
plain, *replacing, add = study.tune([plain, *replacing, add])
largest = replacing[-1]  # as it was tuned
runs = study.run([plain, *replacing, add])

# %% [markdown]
# ## What it cost

# %%
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## Where it ends, by share

# %%
table = add_shares(runs.table(), [plain, *replacing])
study.add_table("scores", statistics.summarize(runs.table(), study.scored))
for one in study.tasks:
    here = table[table["task"] == one]
    level = runs.table().query("task == @one and arm == 'add'")[study.scored].mean()
    figure = plots.curves(
        here.assign(way="replace"),
        x="share",
        y=study.scored,
        group="way",
        title=f"{one}: score by the synthetic share of a round",
        x_label="synthetic share of a round [%]",
        y_label=here["metric"].iloc[0],
        reference={"add": float(level), "teacher": float(here[f"teacher_{study.scored}"].mean())},
    )
    study.add_figure(
        f"shares_{one}", figure, "On held-out rows; mean over runs, the band is Student's 95 % interval of the mean."
    )

# %%
add_outcomes(study, "over_add", runs, "add")
add_outcomes(study, "over_plain", runs, "plain")
figure = plots.intervals(
    study.tables["over_add"], title="Replacing against adding", unit="points", threshold=-suffices.value
)
study.add_figure(
    "over_add", figure, "Difference to adding, paired; 95 % intervals; the dashed line is minus the margin."
)

# %%
study.add_figure("agreement", figure_of_agreement(runs), "Mean over seeds; the band is the range of the seeds.")

# %% [markdown]
# ## A stop rule, or a fixed budget

# %%
allowed = most_rounds or {"smoke": 3, "small": 8, "medium": 8, "full": 10}[profile]
budget = {"losses_from": "pass", "rounds": allowed}
all_rounds = study.run(
    [
        Arm(f"{arm.name}, all rounds", arm.about, by_task=arm.by_task, **arm.settings, **budget)
        for arm in (plain, largest, add)
    ],
    equal_steps=False,
)
ends = stopped_at(all_rounds, 0.99)
ends["arm"] = ends["arm"].str.removesuffix(", all rounds")
study.add_table("ends", ends, show=False)
measures = ["rounds", "steps", "seconds", "score", "dev_agreement"]
study.add_table("mean_ends", ends.groupby(["task", "arm", "end"], sort=False)[measures].mean().reset_index())

# %% [markdown]
# The runs that the rule would have ended, at its end against themselves at the end of the rounds; how many runs of each
# arm get to 99 % and the median of the rounds that those need; and in how many pairs of runs replacing and adding get
# there before plain distillation.

# %%
stopped = [stopping(ends, arm.name) for arm in (plain, largest, add)]
study.add_table("stopping", concat(stopped, ignore_index=True))
whole = ends[ends["end"] == "all rounds"]
study.add_table("rounds_needed", statistics.reached_table(whole, "rounds_needed"))
pairs = [sooner(ends, arm.name, "plain") for arm in (largest, add)]
study.add_table("sooner_than_plain", concat(pairs, ignore_index=True))

# %% [markdown]
# ## Verdict

# %%
find_within(
    study, "replacing_suffices", "over_add", largest.name, suffices,
    what=f"replacing ({largest.name})", other="adding", claim="replacing",
)  # fmt: skip
find_within(
    study, "replacing_keeps_agreement", "over_add_agreement", largest.name, suffices,
    what=f"replacing ({largest.name})", other="adding", measure="agreement with the teacher",
)  # fmt: skip
for one in study.tasks:
    study.find(
        f"replacing_needs_fewer_rounds_{one}",
        f"Does replacing the data need fewer rounds until 99 % agreement than plain distillation on {one}?",
        table="sooner_than_plain",
        row={"task": one, "arm": largest.name},
        columns=("share", "low", "high"),
        threshold=0.5,
        unit="pairs of runs",
        yes="On {task}, {arm} gets to 99 % agreement in fewer rounds than plain distillation",
        no="On {task}, {arm} gets to 99 % agreement in more rounds than plain distillation",
        undecided="On {task}, no significant difference between the rounds until 99 % agreement of {arm} and of plain "
        "distillation ({neither} of {pairs} pairs do not get there)",
    )
find_ahead(
    study, "replacing_over_adding", "over_add", largest.name, what=largest.name, other="adding", outcomes=["divergence"]
)
find_ahead(study, "replacing_over_plain", "over_plain", largest.name, what=largest.name, other="plain distillation")
find_ahead(study, "adding_over_plain", "over_plain", add.name, what="adding", other="plain distillation")
# where the rule ends no run, nothing is known of it
print("runs that the rule would have ended:", study.tables["stopping"][["task", "arm", "ended", "runs"]].to_string())
for row in study.tables["stopping"].to_dict("records"):
    kind = {plain.name: "plain", largest.name: "replacing", add.name: "adding"}[row["arm"]]
    study.find(
        f"stopping_suffices_{kind}_{row['task']}",
        f"Does the stop rule lose less than the margin against the fixed budget, with {row['arm']} on {row['task']}?",
        table="stopping",
        row={"task": row["task"], "arm": row["arm"]},
        margin=suffices,
        unit="points",
        yes="On {task}, the 99 % rule loses less than the margin in the runs of {arm} that it ends ({ended} of {runs})",
        no="On {task}, the 99 % rule loses more than the margin in the runs of {arm} that it ends ({ended} of {runs})",
        undecided="On {task}, a loss of the margin by the 99 % rule is neither shown nor excluded in the runs of {arm} "
        "that it ends ({ended} of {runs})",
    )
study.finish()
