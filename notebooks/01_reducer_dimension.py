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
# # The map and its dimension
#
# **Question.** Does synthesis through a two-dimensional UMAP teach the student more than no synthesis, than synthesis
# through eight dimensions, and than synthesis without any map?
#
# **Method.** The paper's Table 3, with controls. All arms take the same number of student steps and start from anchors
# drawn in the same way, by their losses; tokens of the anchor give way to those tokens of its neighbours that move it
# furthest toward the synthetic vector. *plain* synthesises nothing. The *UMAP* arms place new points between an
# anchor and its neighbours in a map of so many dimensions, with a little noise, and bring them back by what the
# inverter says changes on the way. *PCA-2* does the same in the two directions of largest variance, by one
# decomposition. *full space* goes part of the way to neighbours in full space and needs neither map nor inverter. So it
# differs from the others in four things: which examples are neighbours, the way back to vectors, the noise, and the
# length of the moves, which is measured below. Scores are those of held-out rows, on which nothing was chosen. The
# paper averages over GLUE; here the average is over the tasks of the profile, each weighing the same.
#
# **What would change our mind.** The map earns its place if the two-dimensional one is ahead of *plain* and of *full
# space*, both with intervals above zero. If it is ahead of *plain* alone, synthesis helps and the map may be left out.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer whose dimensions are compared; None takes umap
dims: str = None  # dimensions of its map, separated by commas, the first being the main one; None takes 2,8
preset: str = None  # named settings that the arms build on, such as paper; None takes the defaults
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import pandas as pd

from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses import neighborhoods
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.outcomes import add_outcomes, add_over_plain, find_ahead
from sage_kit.studies.parameters import listed_counts
from sage_kit.studies.sizes import FEW_TASKS

study = Study.from_parameters(
    globals(),
    "01_reducer_dimension",
    title="The map and its dimension",
    question="Does synthesis through a two-dimensional map beat none, more dimensions, and no map at all?",
    tasks=FEW_TASKS,
    base=None if preset else GUIDED,
    own=["reducer"],
)

# %% [markdown]
# ## The arms
#
# They differ in nothing but what is written here.

# %%
reducer = reducer or "umap"
sizes = listed_counts(dims or "2,8", "dims")
maps = {size: f"{reducer.upper()}-{size}" for size in sizes}
main = maps[sizes[0]]
arms = [Arm("plain", "plain distillation", schedule="none")]
arms += [Arm("full space", "no map: towards neighbours in full space", sampler="smote")]
arms += [Arm(name, f"a map of {size} dimensions", reducer=reducer, n_components=size) for size, name in maps.items()]
if "PCA-2" not in maps.values():
    arms += [Arm("PCA-2", "a map of the two directions of largest variance", reducer="pca", n_components=2)]
runs = study.run(study.tune(arms), keep=["synthetic"])

# %% [markdown]
# ## What it cost
#
# Equal compute means equal student steps and equal teacher tokens. Plain distillation asks the teacher about the real
# examples alone; what it saves there is not given back to it. A map is fitted once per task and found again by every
# later run, so its seconds stand in the first run of an arm, unless an earlier study had fitted it.

# %%
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## What the maps keep, and how far the new points go
#
# *neighbors_kept* is the share of an example's 15 nearest others in full space that are among its 15 nearest in the
# map. *moved* is the median distance of a synthetic vector from its anchor, in mean distances from the anchor to those
# 15.

# %%
vectors = {name: study.vectors(name)[0] for name in study.tasks}
table = neighborhoods.synthesis_table(runs, vectors)
means = table.groupby(["task", "arm"], sort=False)[["neighbors_kept", "moved", "anchors"]].mean()
study.add_table("synthesis", means.reset_index())

# %% [markdown]
# ## Where it ends
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer).

# %%
study.add_table("scores", statistics.summarize(runs.table(), study.scored))
add_over_plain(study, runs)

# %%
for arm in runs.arms:
    if arm != main:
        add_outcomes(study, f"main_over_{arm}", runs, arm, arms=[main])
over_others = pd.concat([study.tables[f"main_over_{arm}"] for arm in runs.arms if arm != main], ignore_index=True)
figure = plots.intervals(over_others, label="baseline", title=f"{main} over every other arm", unit="points")
study.add_figure("main_over_others", figure, f"Difference of {main} to each arm; 95 % intervals.")

# %% [markdown]
# ## Verdict

# %%
claims = {"umap2_over_none": "ablation", "umap2_over_umap8": "dimension"}


def find_over(name: str, baseline: str, words: str) -> None:
    """Is the main map ahead of another arm?"""
    claim = claims.get(name, "")
    find_ahead(study, name, f"main_over_{baseline}", main, what=f"synthesis through {main}", other=words, claim=claim)


short = f"{reducer}{sizes[0]}"
find_over(f"{short}_over_none", "plain", "plain distillation")
for size in sizes[1:]:
    find_over(f"{short}_over_{reducer}{size}", maps[size], f"synthesis through {maps[size]}")
find_over(f"{short}_over_full_space", "full space", "synthesis in full space without a map")
if main != "PCA-2":
    find_over(f"{short}_over_pca2", "PCA-2", "synthesis through the two principal components")
find_ahead(
    study,
    "full_space_over_none",
    "over_plain",
    "full space",
    what="synthesis in full space without a map",
    other="plain distillation",
)
study.finish()
