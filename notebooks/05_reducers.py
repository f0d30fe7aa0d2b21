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
# # Reducers: what they keep, and whether it matters
#
# **Question.** Can other reducers keep more of the meaning of the vectors than UMAP, and does a pair of reducer and
# inverter that keeps more teach the student more?
#
# **Method.** Every reducer meets every inverter that goes with it. A *scorecard* asks the pair for vectors that neither
# has seen: those of the dev split, from their places in the map alone. It says how much of their variance
# comes back (R2: 0 is the mean vector, 1 is everything), how close their direction is (cosine) and how far they are off
# (mean squared error). Since an inverter may need an anchor, it gets the training example nearest *in the map*. The
# pairs of some inverters are also trained with, at equal student steps, against plain distillation: anchors are drawn
# by their loss, and tokens of an anchor give way to those tokens of its neighbours in the map that move it furthest
# toward the vector that came back. Every arm is tuned over the same learning rates by as many tries. Scores are those
# of held-out rows, on which nothing was chosen. Whether fidelity predicts them is a rank correlation over pairs. Two
# things are approximate. Variance that comes back is not meaning itself, which is why runs are made as well. And pairs
# share reducers, so they are fewer independent points than they look; and a pair is scored under one seed of its
# reducer, so that what it keeps has an interval over examples and, by the rule of five seeds, stays undecided. An
# inverter that starts from the anchor's own vector keeps nearly all of it in a run, and in the scorecard has to start
# from another example's, so the correlation is given among the pairs of the same inverter, too: both numbers less the
# inverter's mean. The best other pair is chosen on one half of the held-out examples and compared on the other half, so
# that choosing it does not flatter it.
#
# **What would change our mind.** We give UMAP up for another reducer if the best other pair keeps more, with an
# interval above zero, and if keeping more goes with teaching more. If fidelity does not predict the score, what a
# reducer keeps is no reason to choose it.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducers: str = None  # reducers of the grid, separated by commas; None takes the profile's
inverters: str = None  # inverters of the grid, separated by commas; None takes the profile's
trained: str = None  # inverters whose pairs are trained with; None takes the profile's, or all that are given
n_components: int = None  # dimensions of the map; None takes 2
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import pandas as pd

from sage_kit.studies import Arm, Study, plots
from sage_kit.studies.analyses import pairs
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.outcomes import add_over_plain, find_ahead
from sage_kit.studies.claims import find_claim
from sage_kit.studies.parameters import listed
from sage_kit.studies.sizes import FEW_RATES, FEW_TASKS

study = Study.from_parameters(
    globals(),
    "05_reducers",
    title="Reducers: what they keep, and whether it matters",
    question="Can other reducers keep more of the meaning than UMAP, and does it matter to the student?",
    tasks=FEW_TASKS,
    base=GUIDED,
    usual_rates=FEW_RATES,
)

installed = study.plugins.names("reducer")
usual = {"smoke": "umap,pca"}.get(profile, "umap,pca,tsne,pacmap,autoencoder,vae,hybrid")
usual_inverters = {"smoke": "knn,anchored,native"}.get(profile, "knn,local_affine,anchored,native")
chosen = listed(reducers) if reducers else [name for name in listed(usual) if name in installed]
with_runs = listed(trained or inverters or "knn,anchored")
asked = list(dict.fromkeys([*listed(inverters or usual_inverters), *with_runs]))
print(f"reducers {', '.join(chosen)} with inverters {', '.join(asked)}; trained with: {', '.join(with_runs)}")

# %% [markdown]
# ## The scorecards
#
# Reducers and inverters learn from the training examples alone. A reducer's own inverse (*native*) may need long for
# each vector, as *vectors_per_second* tells; its pairs are scored and, unless a parameter asks for it, not trained
# with.

# %%
study.plan()
scores = pairs.score_pairs(
    study, chosen, asked, points={"smoke": 32, "small": 500, "medium": 500, "full": 1000}[profile]
)
fidelity = pairs.fidelity_table(scores, study.tasks)
overall = fidelity[fidelity["task"] == study.overall]
study.add_table("fidelity", fidelity, show=False)
study.add_table(
    "fidelity_overall",
    overall[["pair", "r2", "r2_low", "r2_high", "cosine", "centred_cosine", "mse", "vectors_per_second", "reason"]],
)

# %%
shown = overall[overall["reason"] == ""]
if len(shown):
    figure = plots.intervals(
        shown.assign(low=shown["r2_low"], high=shown["r2_high"], task=study.overall),
        label="pair",
        value="r2",
        title="What comes back of held-out vectors",
        unit="R2 (0: the mean vector, 1: everything)",
    )
    study.add_figure("fidelity", figure, "R2 of each pair; 95 % intervals over held-out examples.")

# %% [markdown]
# What stands beside these numbers: the same of predictions that look at no map. *nearest* knows the vector that it is
# to find, and takes the training vector nearest to it.

# %%
study.add_table("without_map", pairs.baselines_table(scores, study.tasks))

# %% [markdown]
# ## Against UMAP, inverter by inverter

# %%
reference = "umap" if "umap" in chosen else chosen[0]
by_inverter = {pair.inverter: pair for pair in scores.scored if pair.reducer == reference}
others = [pair for pair in scores.scored if pair.reducer != reference]
same = [(pair, by_inverter[pair.inverter]) for pair in others if pair.inverter in by_inverter]
study.add_table("same_inverter", pairs.differences(scores, same, study.tasks))

# %% [markdown]
# ## Trained with
#
# Arms differ in reducer and inverter alone. Equal compute means equal student steps and equal teacher tokens; plain
# distillation asks the teacher about the real examples alone.

# %%
arms = [Arm("plain", "plain distillation", schedule="none")]
arms += [Arm(pair.name, "a pair", **pair.settings) for pair in scores.scored if pair.inverter in with_runs]
runs = study.run(study.tune(arms))
study.add_table("compute", study.compute_table(runs))

# %%
over_plain = pd.DataFrame(columns=["task", "arm", "difference", "low", "high"])
if len(runs.arms) > 1:
    add_over_plain(study, runs)
    over_plain = study.tables["over_plain"]

# %% [markdown]
# ## Does fidelity predict the score?

# %%
both = over_plain[over_plain["task"] == study.overall].merge(
    overall[["pair", "reducer", "inverter", "r2", "cosine", "centred_cosine", "mse"]], left_on="arm", right_on="pair"
)
study.add_table("correlation", pairs.fidelity_and_score(both))

# %%
if len(both) > 1:
    number = study.tables["correlation"].iloc[0]  # of R2, over all pairs
    figure = plots.scatter(
        both["r2"],
        both["difference"],
        both["arm"],
        groups=both["reducer"],
        y_low=both["low"],
        y_high=both["high"],
        title="Fidelity and score",
        x_label="R2 of held-out vectors",
        y_label="over plain distillation (primary metric)",
        note=f"rank correlation {number['correlation']:.2f} ({number['low']:.2f} to {number['high']:.2f})",
    )
    study.add_figure(
        "fidelity_and_score",
        figure,
        "Each pair: what it keeps, and what it teaches beyond plain distillation with its 95 % interval.",
    )

# %% [markdown]
# ## The best other pair
#
# Chosen on one half of the held-out examples, compared on the other.

# %%
pools = [pair for pair in scores.scored if pair.reducer == reference], others
rows = []
if all(pools):
    ours, theirs = (pairs.best_pair(scores, pool, study.tasks, half="first") for pool in reversed(pools))
    rows = [(ours, theirs)]
study.add_table("best_other", pairs.differences(scores, rows, study.tasks, half="second"))

# %% [markdown]
# ## Verdict

# %%
claims = {
    "other_over_umap": "other_reducers",
    "umap_inversion_cosine": "inversion_cosine",
    "umap_inversion_mse": "inversion_mse",
}
if rows:
    study.find(
        f"other_over_{reference}",
        f"Does the best other pair of reducer and inverter keep more than the best pair of {reference}?",
        table="best_other",
        row={"pair": ours.name},
        unit="of R2",
        claim=claims.get(f"other_over_{reference}", ""),
        yes="{pair} keeps more of the variance of held-out vectors than {baseline}",
        no="{pair}, the best other pair, keeps less of the variance of held-out vectors than {baseline}",
        undecided="No significant difference between what {pair} and {baseline} keep of held-out vectors",
    )
for among, name, where in (
    ("all pairs", "fidelity_predicts_score", "pairs"),
    ("same inverter", "fidelity_predicts_score_within", "pairs of the same inverter"),
):
    study.find(
        name,
        f"Among {where}, do those that keep more of held-out vectors teach the student more?",
        table="correlation",
        row={"measure": "r2", "among": among},
        columns=("correlation", "low", "high"),
        unit="rank correlation",
        yes=f"Among {{pairs}} {where}, those that keep more teach more",
        no=f"Among {{pairs}} {where}, those that keep more teach less",
        undecided=f"Among {{pairs}} {where}, no significant correlation of what they keep and what they teach",
    )
own = next((pair for pair in by_inverter.values() if pair.inverter == "native"), None)
own = own or next(iter(by_inverter.values()), None)  # without its own inverse, what comes first
if own is not None and reference == "umap":
    for metric, direction, unit in (("cosine", "above", "cosine"), ("mse", "below", "mean squared error")):
        name = f"umap_inversion_{metric}"
        study.find(
            name,
            f"Does {own.name} bring held-out vectors back with at least the fidelity that the paper gives ({unit})?",
            table="fidelity",
            row={"task": study.overall, "pair": own.name},
            columns=(metric, f"{metric}_low", f"{metric}_high"),
            threshold=find_claim(claims[name]).threshold,
            direction=direction,
            unit=unit,
            claim=claims[name],
            yes="{pair} is at least as faithful as the paper says",
            no="{pair} is less faithful than the paper says",
            undecided="No significant difference between {pair} and what the paper says",
        )
if own is not None:
    study.find(
        f"{reference}_over_mean",
        f"Does {own.name} bring back more of held-out vectors than their mean would?",
        table="fidelity",
        row={"task": study.overall, "pair": own.name},
        columns=("r2", "r2_low", "r2_high"),
        unit="R2",
        yes="{pair} brings back more of held-out vectors than their mean",
        no="{pair} is farther off held-out vectors than their mean",
        undecided="No significant difference between {pair} and the mean vector",
    )
for pair in [pair for pair in (own, ours if rows else None) if pair is not None and pair.name in runs.arms]:
    find_ahead(
        study,
        f"{pair.reducer}_{pair.inverter}_over_plain",
        "over_plain",
        pair.name,
        what=f"synthesis by {pair.name}",
        other="plain distillation at equal steps",
    )
study.finish()
