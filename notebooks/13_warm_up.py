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
# # Does the warm-up help?
#
# **Question.** Is a student that first learns the teacher's hidden states on generic text better after distillation?
#
# **Method.** The paper warms its student up on Wikipedia. Plain distillation and the default are each run with and
# without a warm-up on the text at hand, `corpus/train.parquet` below the folder of the data unless `warmup_corpus`
# names another. The steps of the warm-up come on top, so plain distillation also takes as many more steps as cost the
# FLOPs of its warm-up (*plain, FLOPs of the warm-up*). Every arm is tuned over the same learning rates, on *dev*;
# scores are those of held-out rows.
#
# Approximate: the text is of some thousand rows where the paper has all of Wikipedia. At `smoke` the teacher's own
# texts stand in for it.
#
# **What would change our mind.** We call the warm-up worth its price if *plain, warmed up* is ahead of plain
# distillation for the same FLOPs with an interval above zero.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
warmup_corpus: str = None  # text of the warm-up; None takes corpus/train.parquet of data_dir
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.config import PRESETS
from sage_kit.studies import Arm, Study, plots
from sage_kit.studies.analyses.controls import CORPUS_ROWS, warmup_text
from sage_kit.studies.analyses.outcomes import add_contrasts, compute_apart, find_ahead, with_equal_flops
from sage_kit.studies.sizes import FEW_TASKS

study = Study.from_parameters(
    globals(),
    "13_warm_up",
    title="Does the warm-up help?",
    question="Is a student better for having learned the teacher's hidden states on generic text?",
    tasks=FEW_TASKS,
    own=["warmup_corpus"],
)

# %% [markdown]
# ## The arms

# %%
warm = {"warmup_corpus": warmup_text(study, warmup_corpus), "warmup_epochs": 1, "warmup_rows": CORPUS_ROWS}
arms = [
    Arm("plain", "plain distillation", schedule="none"),
    Arm("plain, warmed up", "the same behind a warm-up", schedule="none", **warm),
    Arm("default", "the preset default", **PRESETS["default"]),
    Arm("default, warmed up", "the same behind a warm-up", **{**PRESETS["default"], **warm}),
]
LONGER = "plain, FLOPs of the warm-up"
study.plan(arms=[*arms, Arm(LONGER, schedule="none")], tuned=True)
runs = with_equal_flops(study, study.run(study.tune(arms)), "plain, warmed up", name=LONGER)

# %% [markdown]
# ## What it cost

# %%
study.add_table("compute", compute_apart(study, runs, [LONGER]))

# %% [markdown]
# ## With and without
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer).

# %%
pairs = [("plain, warmed up", "plain"), ("plain, warmed up", LONGER), ("default, warmed up", "default")]
add_contrasts(study, "pairs", runs, pairs)
pictured = study.tables["pairs"].assign(pair=lambda table: table["arm"] + " \N{MINUS SIGN} " + table["against"])
figure = plots.intervals(pictured, title="Warmed up, less without", unit="points", label="pair")
study.add_figure("pairs", figure, "Differences, paired by seed and example; 95 % intervals.")

# %% [markdown]
# ## Verdict

# %%
for name, arm, against, what, other in (
    ("warm_over_equal_flops", *pairs[1], "plain distillation behind a warm-up", "plain distillation at equal FLOPs"),
    ("warm_over_cold", *pairs[0], "plain distillation behind a warm-up", "plain distillation"),
    ("default_warm_over_cold", *pairs[2], "the default behind a warm-up", "the default without one"),
):
    claim = "warm_up" if name == "warm_over_equal_flops" else ""
    find_ahead(study, name, "pairs", arm, what=what, other=other, against=against, claim=claim)
study.finish()
