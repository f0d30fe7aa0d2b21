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
# # Which settings should be the default?
#
# **Question.** Which lift, share of tokens, anchors, inverter, mix, schedule and loss bring the student closest to its
# teacher, and is the method with them ahead of plain distillation with the same loss?
#
# **Method.** One factor after another, in a fixed order, starting from the simplest level of each: shifted tokens near
# any example. The levels of a factor are held against the one chosen so far, at equal student steps, by the mean
# divergence of the student's outputs from the teacher's: KL for classes, half the squared difference for numbers. It
# moves with every example, where agreement moves with those few on which a student changes its mind. A level is taken
# if it lowers the divergence, averaged over tasks, by at least `least`; of several that do, the first that is not
# behind the best by so much, levels standing in the order of how much they change. `least` is 3 % unless given: a
# quarter of the 12 % that the best step of an earlier search on SST-2 and STS-B brought; steps that bring less change
# sign from task to task. Every level is run under one seed, and those that lower the divergence enough there are run
# under the others as well; all seeds together decide. A level that costs a quarter more FLOPs than the one before is
# confirmed at equal FLOPs: for as many steps as cost no more. Whatever the search reads is of *dev*, the part carved
# from train for choices. Then the chosen settings meet plain distillation with the same loss, and the defaults as they
# are if those are others, on held-out rows, under seeds and transfer sets that the search has not seen. There each arm
# is tuned over the same learning rates by as many tries.
#
# Approximate: the search takes each factor once and in one order, so it may miss settings that are good only
# together. All its levels learn at the rate that was best for plain distillation, so a level that wants another rate
# looks worse than it is. Steps are equal, teacher tokens are not: see the costs; study 09 holds the defaults against
# plain distillation at equal FLOPs.
#
# **What would change our mind.** The chosen settings deserve to be the default if they are ahead of plain distillation
# with an interval above zero, and should take the place of the defaults as they are if they are ahead of those. Whether
# map, guidance and losses earn their place in them is the question of study 16.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (some hours on two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm after the search, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
factors: str = None  # factors to search, separated by commas, in this order; None takes all (at smoke lift and share)
search_seeds: int = None  # seeds of each level in the search that the first one does not rule out; None takes 2
least: float = None  # a level is taken if it lowers the divergence by at least this share; None takes 0.03
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from collections.abc import Mapping
from typing import Any

from pandas import DataFrame

from sage_kit.config import field_extra
from sage_kit.recipe import resolve
from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses.outcomes import add_outcomes, add_over_plain, find_ahead
from sage_kit.studies.analyses.search import FACTORS, first_settings, read_factors, search
from sage_kit.studies.sizes import FEW_RATES
from sage_kit.studies.tuning import SEARCH_SEED

FOUR = "sst2,stsb,qqp,mnli"  # a class of one text, a number and classes of pairs
study = Study.from_parameters(
    globals(),
    "12_default_settings",
    title="Which settings should be the default?",
    question="Which settings bring the student closest to its teacher, and are they ahead of plain distillation?",
    tasks={"small": FOUR, "medium": FOUR},
    usual_rates=FEW_RATES,
)

# %% [markdown]
# ## The search
#
# A row per factor and level, held against the level that was chosen before it. *change* is that of the divergence as a
# share; *difference* is the same in its logarithm, with Student's interval over seeds, wide for so few.


# %%
def losses_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some settings that plain distillation has too."""
    return {name: value for name, value in settings.items() if field_extra(name)["group"] == "losses"}


everything = ",".join(factor.name for factor in FACTORS)
asked = read_factors(factors or {"smoke": "lift,share"}.get(profile, everything))
(start,) = study.tune([Arm("plain, first loss", schedule="none", **losses_of(first_settings()))])
own_seeds = range(SEARCH_SEED, SEARCH_SEED + (search_seeds or 2))  # no comparison takes them
found = search(study, asked, own_seeds, least=least or 0.03, by_task=start.by_task)
study.add_table("search", found.steps)
for name, why in found.skipped.items():
    print(f"{name} was left out: it {why}")
figure = plots.bars(
    # Student's interval of so few seeds says little, and stands in the table
    found.steps.assign(percent=100 * found.steps["change"]).drop(columns=["low", "high"]),
    title="Divergence from the teacher, each level against the one before",
    unit="change of the divergence [%]",
    value="percent",
    group="task" if len(study.tasks) > 1 else None,
)
study.add_figure(
    "search", figure, "Change of the divergence on dev, mean over seeds; below zero is closer to the teacher."
)

# %%
study.add_table("chosen", DataFrame([{"factor": name, "level": level} for name, level in found.chosen.items()]))
print("chosen:", ", ".join(f"{name}={value}" for name, value in found.settings.items()))


def complete(**changes: Any) -> dict[str, Any]:
    """Settings of a run, with the options that its components have by default."""
    config = study.config(study.tasks[0], **changes)
    options = {f"{kind}_options": values for kind, values in resolve(config, study.plugins).options.items()}
    return {**config.model_dump(), **options}


usual, ours = complete(), complete(**found.settings)
other = [name for name in found.settings if ours[name] != usual[name]]
print("unlike the defaults as they are now:", ", ".join(other) or "nothing")

# %% [markdown]
# ## Against plain distillation, on held-out rows

# %%
arms = [
    Arm("plain", "plain distillation with the same loss", schedule="none", **losses_of(found.settings)),
    Arm("chosen", "what the search chose", **found.settings),
]
if other:
    arms.append(Arm("defaults", "the defaults as they are"))
runs = study.run(study.tune(arms))
study.add_table("compute", study.compute_table(runs))
study.add_table("scores", statistics.summarize(runs.table(), study.scored))

# %%
add_over_plain(study, runs)
if other:
    add_outcomes(study, "over_defaults", runs, "defaults", arms=["chosen"])

# %% [markdown]
# ## Verdict

# %%
find_ahead(
    study,
    "chosen_over_plain",
    "over_plain",
    "chosen",
    what="what the search chose",
    other="plain distillation with the same loss",
)
if other:
    find_ahead(
        study,
        "chosen_over_defaults",
        "over_defaults",
        "chosen",
        what="what the search chose",
        other="the defaults as they are",
    )
study.finish()
