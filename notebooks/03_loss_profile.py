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
# # The loss profile: does a curriculum have something to follow?
#
# **Question.** Do the regions of high loss move from round to round? Is the loss a matter of place at all? And where
# synthesis aimed, does the loss fall on examples that were never trained on?
#
# **Method.** Every run keeps the loss of each training example in each round, taken while it was trained on, with
# dropout; a round that was cut short, so that fewer than nine of ten examples have a new loss, is left out. The *hard
# set* is the tenth of the examples with the highest losses. *Regions* are clusters of the map (k-means), of which the
# fifth with the highest mean loss counts as high. Two rounds are compared by the adjusted Rand index of their high
# regions, and by the Jaccard index of their hard sets. Three things tell how much of a change means nothing: the same
# losses on a map of another seed of the reducer, the same round of a student of another seed, and chance. A single
# neighbouring seed stands for the other students. Two rounds differ by the noise of dropout and batches as well, which
# two maps of the same losses do not have and two students have: read both. Moran's I says whether neighbours have like
# losses. On the dev split, whose examples were never trained on, those nearest to the anchors are the targeted ones;
# the change of their mean loss from plain distillation to synthesis, as a ratio, is held against that of all others.
# Losses there are those at the end of a run, without dropout.
#
# **What would change our mind.** We say that the regions move if two rounds in a row are less alike than two maps of
# the same losses, with an interval above zero. An interval below zero says that a curriculum follows less than the
# map's own noise.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
maps: int = None  # seeds of the reducer whose maps are compared, two at least; None takes 3, or 5 at full
clusters: int = None  # clusters of the map, a fifth of which are regions of high loss; None takes 20
preset: str = None  # named settings that the arms build on, such as paper; None takes the defaults
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.analyses.loss_regions import (
    RegionOptions,
    figure_of_regions,
    improvement,
    long_form,
    make_maps,
    movement,
    spatial,
)
from sage_kit.studies.sizes import FEW_TASKS

study = Study.from_parameters(
    globals(),
    "03_loss_profile",
    title="The loss profile: does a curriculum have something to follow?",
    question="Do the regions of high loss move from round to round, more than noise moves them?",
    tasks=FEW_TASKS,
    base=None if preset else GUIDED,
)

# %% [markdown]
# ## The arms
#
# Plain distillation goes over the real examples alone and so has more, shorter rounds in the same steps.

# %%
arms = [
    Arm("plain", "plain distillation", schedule="none"),
    Arm("adaptive", "synthesis before every round", schedule="adaptive"),
]
runs = study.run(study.tune(arms), keep=["synthetic"])
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## The maps
#
# One for the runs, and others that differ in the seed of the reducer and of k-means alone.

# %%
options = RegionOptions(clusters=clusters or 20)
count = maps or {"smoke": 2, "small": 3, "medium": 3, "full": 5}[profile]
task_maps = {one: make_maps(study, one, count, options) for one in study.tasks}
vectors = {one: study.vectors(one) for one in study.tasks}
for one in study.tasks:
    figure = figure_of_regions(runs.of(task=one, arm="adaptive")[0], task_maps[one], options)
    study.add_figure(
        f"regions_{one}",
        figure,
        f"{one}, first seed: training examples on the map, coloured by the rank of their loss in each round.",
    )

# %% [markdown]
# ## Do they move?

# %%
moves = movement(runs, task_maps, options)
study.add_table("pairs", moves, show=False)
alike = moves.groupby(["task", "arm", "between", "seed"], sort=False)[["ari", "ami", "jaccard", "jaccard_by_chance"]]
alike = alike.mean().reset_index()
regions = statistics.summarize(alike, "ari", by=["task", "arm", "between"])
study.add_table("alike_ari", regions)
study.add_table("alike_ami", statistics.summarize(alike, "ami", by=["task", "arm", "between"]))
hard = alike[alike["between"] != "maps"]
study.add_table("alike_jaccard", statistics.summarize(hard, "jaccard", by=["task", "arm", "between"]))
chance = {"by chance": float(hard["jaccard_by_chance"].mean())}

# %%
regions["pair"] = regions["task"] + ", " + regions["arm"]
figure = plots.bars(
    regions, title="High regions: how alike", unit="adjusted Rand index", label="pair", value="mean", group="between"
)
study.add_figure("alike_ari", figure, "Of two rounds in a row, two students, two maps; mean over seeds, 95 % interval.")

# %%
sets = study.tables["alike_jaccard"].assign(pair=lambda table: table["task"] + ", " + table["arm"])
figure = plots.bars(
    sets,
    title="Hard sets: how alike",
    unit="Jaccard index",
    label="pair",
    value="mean",
    group="between",
    reference=chance,
)
study.add_figure("alike_jaccard", figure, "Of two rounds in a row and of two students; mean over seeds, 95 % interval.")

# %%
adaptive = alike[alike["arm"] == "adaptive"].assign(arm=lambda table: table["between"])
study.add_table("rounds_against", statistics.compare_arms(adaptive, "rounds", value="ari"))
sets = adaptive[adaptive["between"] != "maps"]
by_chance = sets[sets["between"] == "rounds"].assign(arm="chance", jaccard=lambda table: table["jaccard_by_chance"])
study.add_table(
    "sets_against", statistics.compare_arms(long_form([sets, by_chance], "jaccard"), "rounds", value="jaccard")
)

# %% [markdown]
# ## Is the loss a matter of place?
#
# Moran's I, less what it would be by chance: on the map, and in full dimension.

# %%
places = spatial(runs, task_maps, {one: pair[0] for one, pair in vectors.items()}, options)
study.add_table("morans_i", places, show=False)
places["group"] = places["arm"] + ", " + places["space"]
figure = plots.curves(
    places,
    x="round",
    y="excess",
    group="group",
    panel="task",
    title="Moran's I of the loss above chance",
    x_label="round",
    y_label="Moran's I - expectation",
    reference={"by chance": 0.0},
)
study.add_figure("morans_i", figure, "Mean over seeds; the band is Student's 95 % interval of the mean.")

# %%
last = places[places["arm"] == "adaptive"].groupby(["task", "space", "seed"], sort=False).last().reset_index()
observed = last.assign(arm=last["space"], value=last["morans_i"])
expected = last[last["space"] == "map"].assign(arm="chance", value=lambda table: table["expected"])
study.add_table(
    "place_against_chance", statistics.compare_arms(long_form([observed, expected], "value"), "chance", value="value")
)

# %% [markdown]
# ## Where synthesis aimed, does the loss fall?
#
# The log of the mean loss with synthesis over that without, on the dev split: where synthesis aimed, and elsewhere.

# %%
gains = improvement(runs, "adaptive", "plain", vectors)
study.add_table("gains", gains)
aimed = gains.assign(arm="targeted", value=gains["change_targeted"])
elsewhere = gains.assign(arm="elsewhere", value=gains["change_elsewhere"])
study.add_table(
    "aimed_against_elsewhere",
    statistics.compare_arms(long_form([aimed, elsewhere], "value"), "elsewhere", value="value"),
)
no_change = gains.assign(arm="no change", value=0.0)
study.add_table(
    "aimed_against_plain",
    statistics.compare_arms(long_form([aimed, elsewhere, no_change], "value"), "no change", value="value"),
)

# %% [markdown]
# ## Verdict

# %%
study.find(
    "hard_sets_move",
    "Are two rounds in a row less alike in their regions of high loss than two maps of the same losses?",
    table="rounds_against",
    row={"task": study.overall, "arm": "maps"},
    unit="of the adjusted Rand index",
    claim="regions_move",
    yes="The regions of high loss move from round to round more than another map of the same losses would move them; "
    "two maps are more alike",
    no="The regions of high loss move less from round to round than another map of the same losses would move them; "
    "two maps are less alike",
    undecided="No significant difference between how alike regions of high loss are in two rounds in a row and on two "
    "maps of the same losses",
)
if study.seeds > 1:
    study.find(
        "regions_move_more_than_students",
        "Are two rounds in a row less alike in their regions of high loss than two students in the same round?",
        table="rounds_against",
        row={"task": study.overall, "arm": "students"},
        unit="of the adjusted Rand index",
        yes="Regions of high loss differ more from round to round than from student to student",
        no="Regions of high loss differ less from round to round than from student to student",
        undecided="No significant difference between how alike regions of high loss are in two rounds in a row and in "
        "two students",
    )
    study.find(
        "sets_follow_the_student",
        "Are the hard sets of two rounds in a row more alike than those of two students?",
        table="sets_against",
        row={"task": study.overall, "arm": "students"},
        direction="below",
        unit="of the Jaccard index",
        yes="Hard sets of two students are less alike than those of one student a round apart",
        no="Hard sets of two students are more alike than those of one student a round apart",
        undecided="No significant difference between how alike hard sets of two students and of two rounds are",
    )
study.find(
    "sets_above_chance",
    "Are the hard sets of two rounds in a row more alike than random ones?",
    table="sets_against",
    row={"task": study.overall, "arm": "chance"},
    direction="below",
    unit="of the Jaccard index",
    yes="Random sets are less alike than hard sets of two rounds in a row",
    no="Random sets are more alike than hard sets of two rounds in a row",
    undecided="No significant difference between how alike random sets and hard sets of two rounds in a row are",
)
for space, name, where in (
    ("map", "loss_is_spatial", "on the map"),
    ("full", "loss_is_spatial_in_full", "in full dimension"),
):
    study.find(
        name,
        f"Do neighbours {where} have like losses in the last round?",
        table="place_against_chance",
        row={"task": study.overall, "arm": space},
        unit="of Moran's I",
        yes=f"Neighbours {where} have like losses: Moran's I is above chance by",
        no=f"Neighbours {where} have unlike losses: Moran's I is below chance by",
        undecided=f"No significant difference from chance in how alike losses of neighbours {where} are",
    )
study.find(
    "targeted_region_improves",
    "On held-out examples, does synthesis do more for the loss where it aimed than elsewhere?",
    table="aimed_against_elsewhere",
    row={"task": study.overall, "arm": "targeted"},
    direction="below",
    unit="percent change",
    yes="On held-out examples synthesis lowers the loss more, or raises it less, where it aimed than elsewhere",
    no="On held-out examples synthesis lowers the loss less, or raises it more, where it aimed than elsewhere",
    undecided="On held-out examples, no significant difference between what synthesis does for the loss where it aimed "
    "and elsewhere",
)
study.find(
    "targeted_loss_falls",
    "Is the loss on held-out examples lower with synthesis than without, where it aimed?",
    table="aimed_against_plain",
    row={"task": study.overall, "arm": "targeted"},
    direction="below",
    unit="percent change",
    yes="Where synthesis aimed, the loss on held-out examples is lower than without it",
    no="Where synthesis aimed, the loss on held-out examples is higher than without it",
    undecided="Where synthesis aimed, no significant change of the loss on held-out examples",
)
study.finish()
