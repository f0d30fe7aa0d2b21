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
# # The coherence filter: does dropping incoherent synthetic examples help?
#
# **Question.** Inversion is approximate, so some synthetic vectors lie far from anything real. Does a student learn
# more from those near real vectors than from those far off, and does any filter beat none?
#
# **Method.** Coherence is the cosine of a synthetic vector to the nearest real training vector. *Halves*: twice as
# many examples are made as are trained on, and a one-file plugin, `plugins/half_filter.py`, keeps the half of the
# highest cosine, that of the lowest, or any half; by rank, so the halves are equally large. An inverter that starts
# from the anchor keeps near it, so the most coherent vectors are those least displaced; a further inverter, which
# does not, has its halves too. *Filters*: a filter with a limit has it where it lets `let_through` of the examples
# through that the first seed of *none* synthesised for the task; its default might let all through. Each makes so
# many examples that about as many are left as without it, at most four per real one; the counts are printed. A filter
# that needs classes is compared on the tasks that have them, and one that drops nothing or everything has no arm. All
# arms take the same student steps, and each is tuned over the same learning rates by as many tries. Tokens of an
# anchor give way to those tokens of its neighbours in the map that move it furthest toward the synthetic vector. A
# curriculum feeds back: each arm synthesises from its own losses, so from the second synthesis on the arms also
# choose their anchors apart.
#
# **What would change our mind.** Dropping incoherent examples is worth it if the coherent half is ahead of the
# incoherent one with an interval above zero. An interval below zero says that the far ones teach more.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
inverters: str = None  # inverters whose halves are compared, with commas, main one first; None takes anchored,knn
filters: str = None  # filters beside the halves, separated by commas; None takes all four that come along
let_through: float = None  # share of the examples that a filter with a limit lets through; None takes 0.75
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from pandas import DataFrame, concat

from sage_kit.studies import Arm, Runs, Study, plots
from sage_kit.studies.analyses.coherence import (
    cosines,
    figure_of_cosines,
    filter_arms,
    filter_settings,
    half_arms,
    half_name,
    trained_on,
)
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.convergence import figure_of_agreement
from sage_kit.studies.analyses.outcomes import OUTCOMES, find_ahead
from sage_kit.studies.parameters import listed
from sage_kit.studies.places import companion
from sage_kit.studies.sizes import FEW_RATES, FEW_TASKS

study = Study.from_parameters(
    globals(),
    "07_coherence_filter",
    title="The coherence filter: does dropping incoherent synthetic examples help?",
    question="Does a student learn more from synthetic examples near real ones than from those far off?",
    tasks=FEW_TASKS,
    base=GUIDED,
    usual_rates=FEW_RATES,
    companion=companion("plugins/half_filter.py"),
)
names = listed(filters or "cosine,density,teacher_confidence,agreement_with_anchor")
ways, share_kept = listed(inverters or "anchored,knn"), let_through or 0.75

# %% [markdown]
# ## How coherent are they?
#
# Without a filter. For scale: real held-out examples, and each training example to the nearest other one. For the first
# inverter, the nearest real vector but the anchor is shown as well.

# %%
none = Arm("none", "no filter", schedule="adaptive", inverter=ways[0])
others = [Arm(f"none, {way}", "no filter", schedule="adaptive", inverter=way) for way in ways[1:]]
plain = Arm("plain", "plain distillation", schedule="none")
ratio = study.config(study.tasks[0]).synthetic_ratio
halves = half_arms(ways, ratio)
# how strict each filter is, is found out below
study.plan(arms=[none, *others, *halves, *(Arm(name, filter=name) for name in names), plain], tuned=True)
unfiltered = study.run([none, *others], seeds=[0], keep=["synthetic"])
tables = {}
for one in study.tasks:
    vectors = study.vectors(one)
    parts = [cosines(run, *vectors, name=run.config.inverter) for run in unfiltered.of(task=one)]
    # the real ones once; where an inverter does not start from the anchor, leaving it aside changes next to nothing
    later = [part[part["kind"] == ways[place]] for place, part in enumerate(parts) if place]
    tables[one] = concat([parts[0], *later], ignore_index=True)
    figure = figure_of_cosines(tables[one], f"{one}: cosine to the nearest real vector")
    study.add_figure(f"cosines_{one}", figure, f"{one}, first seed, all rounds; cumulative.")
rows = [
    {"task": one, "kind": kind, **{f"{share:.0%}": group["cosine"].quantile(share) for share in (0.05, 0.5, 0.95)}}
    for one, table in tables.items()
    for kind, group in table.groupby("kind", sort=False)
]
study.add_table("cosines", DataFrame(rows))

# %% [markdown]
# ## What the filters let through

# %%
settings = {
    one: filter_settings(study, unfiltered.of(task=one, arm="none")[0], names, share_kept) for one in study.tasks
}
study.add_table(
    "let_through",
    DataFrame(
        [
            {
                "task": one,
                "filter": setting.name,
                "limit": ", ".join(f"{option} {limit:.4g}" for option, limit in setting.options.items()),
                "share": setting.share,
            }
            for one in study.tasks
            for setting in settings[one]
        ],
        columns=["task", "filter", "limit", "share"],
    ),
)

# %% [markdown]
# ## The arms

# %%
runs = []
for one in study.tasks:
    filtered = filter_arms([setting for setting in settings[one] if setting.is_usable], ratio)
    runs += study.run(study.tune([none, *others, *halves, *filtered, plain], tasks=[one]), tasks=[one])
runs = Runs(runs)
compared = {name: [one for one in study.tasks if runs.of(task=one, arm=name)] for name in names}
partly = [name for name in names if 0 < len(compared[name]) < len(study.tasks)]
on_all = Runs([run for run in runs if run.arm not in partly])

# %% [markdown]
# ## What each trained on, and what it cost

# %%
study.add_table("trained_on", trained_on(runs))

# %%
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## Where it ends

# %%
pairs = [[half_name(kind, way, ways) for kind in ("coherent", "incoherent")] for way in ways]
for outcome, name in (("", "over_incoherent"), *((one, f"over_incoherent_{one}") for one in OUTCOMES[1:])):
    parts = [study.compare(on_all, incoherent, metric=outcome, arms=[coherent]) for coherent, incoherent in pairs]
    study.add_table(name, concat(parts, ignore_index=True))
study.add_table("over_random", study.compare(on_all, baseline="random half", arms=["coherent half", "incoherent half"]))
further = [[f"none, {way}", *pair] for way, pair in zip(ways[1:], pairs[1:], strict=True)]
apart = {name for group in further for name in group}
groups = [["none", *(name for name in on_all.arms if name not in {"none", *apart})], *further]
parts = [study.compare(on_all, baseline=baseline, arms=rest) for baseline, *rest in groups]
for one in study.tasks:
    own = [name for name in partly if one in compared[name]]
    if own:
        parts.append(study.compare(Runs(runs.of(task=one)), baseline="none", arms=own))
study.add_table("over_none", concat(parts, ignore_index=True))
figure = plots.intervals(study.tables["over_none"], title="Over no filter", unit="points")
study.add_figure(
    "over_none", figure, "Difference to synthesis without a filter, by the same inverter, paired; 95 % intervals."
)

# %%
study.add_figure("agreement", figure_of_agreement(runs), "Mean over seeds; the band is the range of the seeds.")

# %% [markdown]
# ## Verdict

# %%
find_ahead(
    study,
    "coherent_over_incoherent",
    "over_incoherent",
    "coherent half",
    what="the coherent half",
    other="the incoherent half",
    claim="coherence",
)
for coherent, incoherent in pairs[1:]:
    find_ahead(
        study,
        "coherent_over_incoherent_" + coherent.rpartition(" ")[2],
        "over_incoherent",
        coherent,
        what=f"the {coherent},",
        other=f"the {incoherent}",
        outcomes=[""],
    )
find_ahead(
    study,
    "coherent_over_random",
    "over_random",
    "coherent half",
    what="the coherent half",
    other="any half",
    outcomes=[""],
)
for name in names:
    # one that was left out of some tasks has no average
    for one in [study.overall] if len(compared[name]) == len(study.tasks) else compared[name]:
        find_ahead(
            study,
            f"{name}_over_none" + (f"_{one}" if name in partly else ""),
            "over_none",
            name,
            what=f"filter {name}" + (f" on {one}" if name in partly else ""),
            other="no filter",
            task=one,
            outcomes=[""],
        )
study.finish()
