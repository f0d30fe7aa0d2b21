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
# # How much data is synthesis worth?
#
# **Question.** How do plain distillation and the method compare from few texts to many?
#
# **Method.** Transfer sets of several sizes are drawn from the same pool, for plain distillation and for the preset
# `default`, under the same teacher. All arms take the same number of student steps, those of the profile, so small sets
# are repeated more often. Every arm is tuned over the same learning rates, on *dev*; scores are those of held-out rows.
# A size that a task's pool does not hold is left out there.
#
# **What would change our mind.** We call synthesis worth data if the default is ahead of plain distillation of as many
# texts at every size with an interval above zero, and say how many real texts plain distillation needs to come as close
# to the teacher.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
transfer_sizes: str = None  # texts of the transfer sets, separated by commas; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import numpy as np
from pandas import DataFrame

from sage_kit.config import PRESETS
from sage_kit.studies import Arm, Runs, Study, plots
from sage_kit.studies.analyses.outcomes import add_contrasts, find_ahead
from sage_kit.studies.parameters import check_parameters, listed_counts

check_parameters(globals(), "14_data_efficiency")

USUAL = "250,500,1000,2000,4000,8000"
sizes = listed_counts(transfer_sizes or {"smoke": "32,96"}.get(profile, USUAL), "transfer_sizes")
study = Study.from_parameters(
    globals(),
    "14_data_efficiency",
    title="How much data is synthesis worth?",
    question="How do plain distillation and the method compare from few texts to many?",
    tasks={"small": "sst2,qqp", "medium": "sst2,qqp", "full": "sst2"},  # pools of 8,000
    base={"transfer_pool": max(sizes)} if profile == "full" else {},
)

# %% [markdown]
# ## The arms


# %%
def arms_of(one: str) -> list[Arm]:
    """Both ways at each size that the task's pool holds."""
    held = [size for size in sizes if size <= study.config(one).transfer_pool]
    if held != sizes:
        print(f"{one}: the pool does not hold {', '.join(str(size) for size in sizes if size not in held)} texts")
    ways = {"plain": {"schedule": "none"}, "default": PRESETS["default"]}
    return [
        Arm(f"{way}, {size}", f"{size} texts", **{**settings, "transfer_rows": size})
        for size in held
        for way, settings in ways.items()
    ]


arms = {one: arms_of(one) for one in study.tasks}
most = max(arms.values(), key=len)
study.plan(arms=most, tuned=True)
runs = Runs([run for one in study.tasks for run in study.run(study.tune(arms[one], tasks=[one]), tasks=[one])])
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## From few texts to many

# %%
table = runs.table()
table["way"], table["texts"] = table["arm"].str.split(", ").str[0], table["train_examples"]
table["log_divergence"] = np.log(table[f"{study.scored}_divergence"])
figure = plots.curves(
    table,
    x="texts",
    y="log_divergence",
    group="way",
    panel="task",
    title="Divergence from the teacher on held-out rows, by texts of the transfer set",
    x_label="texts",
    y_label="logarithm of the mean divergence",
)
study.add_figure("divergence", figure, "Mean over runs and its 95 % interval; lower is closer to the teacher.")

# %% [markdown]
# ## Against as many texts without synthesis

# %%
everywhere = [size for size in sizes if all(f"plain, {size}" in {arm.name for arm in own} for own in arms.values())]
pairs = [(f"default, {size}", f"plain, {size}") for size in everywhere]
add_contrasts(study, "pairs", runs, pairs)
figure = plots.intervals(
    study.tables["pairs_divergence"], title="The default, against plain distillation of as many texts",
    unit="percent change", label="arm",
)  # fmt: skip
study.add_figure("pairs_divergence", figure, "Change of the divergence; below zero is closer; 95 % intervals.")

# %% [markdown]
# ## What synthesis is worth in texts
#
# By straight lines between the sizes in the logarithms of texts and divergence, how many texts plain distillation needs
# for the divergence that the default reaches with so many.

# %%
means = table.groupby(["task", "way", "texts"])["log_divergence"].mean()
rows = []
for one in study.tasks:
    plain = means[one, "plain"].sort_index()
    for texts, reached in means[one, "default"].items():
        is_within = plain.min() <= reached <= plain.max()
        order = np.argsort(plain.to_numpy())
        needed = np.exp(np.interp(reached, plain.to_numpy()[order], np.log(plain.index.to_numpy(float))[order]))
        bound = "more than" if reached < plain.min() else "fewer than"
        rows.append({"task": one, "texts": texts, "plain_needs": needed, "bound": "" if is_within else bound})
study.add_table("worth", DataFrame(rows))
for row in rows:
    amount = f"{row['bound']} {row['plain_needs']:,.0f}".strip()
    print(f"{row['task']}: the default with {row['texts']:,} texts is as close as plain distillation with {amount}")

# %% [markdown]
# ## Verdict

# %%
for size in everywhere:
    is_least = size == min(everywhere)
    find_ahead(
        study,
        "gain_with_fewest_texts" if is_least else f"gain_at_{size}",
        "pairs",
        f"default, {size}",
        what=f"the default with {size:,} texts",
        other=f"plain distillation of {size:,} texts",
        against=f"plain, {size}",
        claim="few_texts" if is_least else "",
    )
study.finish()
