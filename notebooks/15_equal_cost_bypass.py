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
# # How deep should the bypass go?
#
# **Question.** Is a student better that leaves more of the teacher's first blocks in place and has fewer of its own,
# for the same depth in all?
#
# **Method.** The bypass ends behind the embeddings (`bypass = "embeddings"`), or behind the teacher's first or second
# block; the student has as many blocks fewer, so that text passes through equally many blocks at use. All arms take the
# same number of student steps; those that leave blocks frozen cost less training, which the costs tell. Plain
# distillation and the preset `default` are run at each depth. Every arm is tuned over the same learning rates, on
# *dev*; scores are those of held-out rows.
#
# **What would change our mind.** We call a deeper bypass better if its students are ahead of those behind the
# embeddings with an interval above zero.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = (
    None  # blocks of the student behind the embeddings, of which bypassed ones are taken off; None takes the profile's
)
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
bypasses: str = None  # blocks that are bypassed, 0 for the embeddings alone, separated by commas; None takes 0,1,2
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.config import PRESETS
from sage_kit.errors import StudyError
from sage_kit.studies import Arm, Study, plots
from sage_kit.studies.analyses.outcomes import add_contrasts, find_ahead
from sage_kit.studies.parameters import listed
from sage_kit.studies.sizes import FEW_TASKS

study = Study.from_parameters(
    globals(),
    "15_equal_cost_bypass",
    title="How deep should the bypass go?",
    question="Is a student better that leaves more of the teacher's first blocks in place, for the same depth in all?",
    tasks=FEW_TASKS,
    base={"student_layers": 3} if profile == "smoke" else {},
)
depths = listed(bypasses or {"smoke": "0,1"}.get(profile, "0,1,2"))
wrong = next((depth for depth in depths if not depth.isdecimal()), None)
if wrong is not None or depths[:1] != ["0"] or len(set(depths)) < 2:
    raise StudyError(f"bypasses is {bypasses!r}: give whole numbers separated by commas, 0 first and each once")
total = study.config(study.tasks[0]).student_layers
if int(depths[-1]) >= total:
    raise StudyError(f"bypasses is {bypasses!r}: of {total} blocks at least one must be the student's own")

# %% [markdown]
# ## The arms


# %%
def at_depth(way: str, settings: dict, depth: int) -> Arm:
    """An arm that bypasses so many blocks."""
    place = {"bypass": depth or "embeddings", "student_layers": total - depth}
    return Arm(f"{way}, bypass {depth}", f"{total - depth} blocks of its own", **{**settings, **place})


ways = {"plain": {"schedule": "none"}, "default": dict(PRESETS["default"])}
arms = [at_depth(way, settings, int(depth)) for way, settings in ways.items() for depth in depths]
runs = study.run(study.tune(arms))
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## Against the bypass of the embeddings alone
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer).

# %%
pairs = [(f"{way}, bypass {depth}", f"{way}, bypass 0") for way in ways for depth in depths[1:]]
add_contrasts(study, "pairs", runs, pairs)
figure = plots.intervals(study.tables["pairs"], title="Less the bypass of the embeddings alone", unit="points")
study.add_figure("pairs", figure, "Differences, paired by seed and example; 95 % intervals.")

# %% [markdown]
# ## Verdict

# %%
words = {"plain": "plain distillation", "default": "the default"}
for way in ways:
    for depth in depths[1:]:
        what = f"{words[way]} behind {depth} frozen block{'' if depth == '1' else 's'}"
        other = f"{words[way]} behind the embeddings"
        arm, against = f"{way}, bypass {depth}", f"{way}, bypass 0"
        is_main = (way, depth) == ("default", "1")
        name = "deeper_bypass" if is_main else f"{way}_cut_{depth}_over_0"
        claim = "deeper_bypass" if is_main else ""
        find_ahead(study, name, "pairs", arm, what=what, other=other, against=against, claim=claim)
study.finish()
