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
# # A tour: what SAGE does, step by step
#
# **Question.** What happens in a run, from the texts to the student, and do the losses of the examples that synthesis
# starts from fall more than those of other hard examples?
#
# **Method.** One run is looked at from the inside, each step with a table or a picture: the texts, the input layers
# that teacher and student share, what they predict, where the student is weak after round one, the anchors and the new
# points near them, their way back to vectors and to token states, what the teacher says of them, and the rounds after.
# Pictures are of seed 0; they show and prove nothing.
#
# The question is asked of runs with several seeds. Extreme losses fall toward the mean whatever is done, so that the
# anchors' fall says nothing by itself. Two things are done about it. Of the hard examples (the 30 % of highest loss
# after round one), *half* become anchors, one synthetic example each, and chance alone says which: the other half is
# what the anchors would have been. And each fall is held against that of the very same example in a run without
# synthesis that takes as many student steps from the same state. Losses are measured after each round with dropout
# off. This is training data; whether it helps on other data is what the scores on held-out rows say, and the other
# notebooks ask.
#
# **What would change our mind.** Synthesis reaches what it aims at if the anchors' losses fall more than those of the
# other hard examples, with an interval above zero. If not, whatever it does is not done where it was aimed.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas, of which the first is shown; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from sage_kit.data.metrics import alike_with
from sage_kit.reports.figures import synthesis_map
from sage_kit.reports.lifted_round import lift_round
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.scorecard.measures import cosines
from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses import neighborhoods, tour
from sage_kit.studies.analyses.outcomes import add_outcomes, find_ahead

study = Study.from_parameters(
    globals(),
    "00_tour",
    title="A tour: what SAGE does, step by step",
    question="What happens in a run, and do the losses that synthesis aims at fall more than others?",
    tasks={"small": "sst2", "medium": "sst2", "full": "sst2"},
    # the paper's steps, which can be drawn one by one
    base={"sampler": "high_loss", "sampler_options": {"fraction": 0.3}, "lift": "shift"},
)

# %% [markdown]
# ## The runs
#
# *SAGE* synthesises before every later round, *plain* repeats the real examples, for as many student steps.

# %%
runs = study.run([Arm("plain", schedule="none"), Arm("SAGE", schedule="adaptive")], keep=["synthetic"])
study.add_table("compute", study.compute_table(runs))
run = runs.of(task=study.tasks[0], arm="SAGE")[0]
shown = lift_round(run.directory, study.plugins, round=2, limit=400)  # what the second round was trained on
prepared, synthetic = shown.prepared, shown.synthetic
spec, dev = prepared.data.spec, prepared.data.dev

# %% [markdown]
# ## 1. Texts with labels
#
# The teacher has been fine-tuned on them. Its opinion, with its probability, stands beside the label.

# %%
study.add_table("texts", tour.texts_table(prepared, range(min(6, len(prepared.data.train)))))

# %% [markdown]
# ## 2. The input layers are passed once
#
# The input layers turn a text into one vector per token. These token states are stored, and both models start from
# them; the student has no input layers of its own to train. The last row tells how far the teacher's upper layers, from
# the stored states, is off what the whole teacher says of the text. The pooled vector, the mean of the token states,
# stands for the example in the map.

# %%
study.add_table("bypass", tour.bypass_table(prepared, 0))

# %% [markdown]
# ## 3. Teacher and student
#
# The student starts as some of the teacher's blocks and learns to say what the teacher says. These texts belong to the
# dev split, which neither has learnt from; the student is that of the end of the run.

# %%
texts = dev.texts if dev.pairs is None else [f"{a} | {b}" for a, b in zip(dev.texts, dev.pairs, strict=True)]
known = run.predictions["dev"]
apart = np.flatnonzero(~alike_with(known["student"], known["teacher"], spec))[:3]  # where they differ, if they do
rows = list(dict.fromkeys([*apart.tolist(), *range(len(dev))]))[:6]
study.add_table("predictions", tour.predictions_table(run, texts, spec, rows))

# %% [markdown]
# ## 4. Where the student is weak: the loss profile on the map
#
# The training pass of round one gives the losses. The reducer lays the pooled vectors out in a plane; the darker
# an example, the more student and teacher differ on it.

# %%
_, losses = read_loss_profiles(run.directory.path)
coordinates = load_file(run.directory.map)["coordinates"]
figure = tour.draw_loss_map(coordinates, losses[0], f"{run.config.reducer} map of {run.task}: losses after round one")
study.add_figure("loss_map", figure, "Training examples in the map, coloured by the student's loss after round one.")

# %% [markdown]
# ## 5. Anchors and new points
#
# The sampler draws anchors among the hardest examples, by weight, and puts new points between an anchor and one of its
# neighbours in the map, with a little noise. First all of them, then one anchor from near by.

# %%
anchors, times = np.unique(synthetic.anchors, return_counts=True)
print(f"{len(synthetic.anchors):,} new points from {len(anchors):,} anchors of {len(coordinates):,} examples")
figure = synthesis_map(coordinates, synthetic, "anchors and new points of round two")
study.add_figure("synthesis", figure, "Real examples, anchors and the points that were sampled near them.")

# %%
chosen = int(anchors[np.argmax(times)])
figure = tour.draw_neighborhood(coordinates, losses[0], synthetic, chosen, "one anchor and its neighbours")
study.add_figure("neighborhood", figure, "One anchor, the neighbours it was drawn with, and the points made from it.")

# %% [markdown]
# ## 6. Back to vectors
#
# The inverter turns new coordinates into vectors. How far do they lie from their anchors? A neighbour's mean distance
# is the unit.

# %%
vectors = study.vectors(study.tasks[0])[0]
moved = neighborhoods.relative_moves(run, vectors)
along = cosines(vectors[synthetic.anchors], synthetic.vectors)
figure = tour.draw_moves(moved, along)
study.add_figure("drift", figure, "Distance and direction of synthetic vectors from their anchors.")

# %% [markdown]
# ## 7. The lift
#
# A vector is no sentence yet. The lift makes token states of it: with *shift*, every token of the anchor moves by what
# the pooled vector has moved, so that their mean is the synthetic vector. (*replace*, the default of a run, exchanges
# some of the anchor's tokens for neighbours' tokens instead.)

# %%
lengths = shown.real.mask.sum(1).cpu().numpy()
short = int(np.argsort(np.abs(lengths - 12), kind="stable")[0])  # one that fits into a picture
figure = tour.draw_states(shown, short)
study.add_figure("lift", figure, "Token states of one anchor, of the synthetic example, and what was added.")
gap = shown.lifted.states[short, : lengths[short]].float().mean(0).cpu().numpy() - synthetic.vectors[shown.rows[short]]
print(f"largest difference of the lifted tokens' mean and the synthetic vector: {np.abs(gap).max():.1e}")

# %% [markdown]
# ## 8. The teacher's labels
#
# The teacher reads the synthetic token states and labels them. Away from the diagonal its opinion has changed on the
# way from the anchor.

# %%
before, after = prepared.train.outputs.logits[synthetic.anchors], synthetic.logits
figure = tour.draw_labels(before, after, spec)
study.add_figure("labels", figure, "What the teacher says of the anchors and of their synthetic examples.")

# %% [markdown]
# ## 9. The rounds after
#
# The student trains on real and synthetic examples, new losses come of it, and the next round starts from those.

# %%
teacher_score = {"teacher": float(run.summary["teacher"]["dev"][run.metric])} if len(study.tasks) == 1 else None
figure = plots.curves(
    runs.rounds(),
    x="total_steps",
    y="dev_score",
    group="arm",
    band="range",
    panel="task",
    title="Score on dev",
    x_label="student steps",
    y_label=run.metric,
    reference=teacher_score,
)
study.add_figure("curves", figure, "Mean over seeds after each round; the band is the range of the seeds.")
add_outcomes(study, "over_plain", runs, "plain")

# %% [markdown]
# ## 10. Does synthesis reach what it aims at?
#
# Two more arms, as the method says: one synthetic example for each of a random half of the hard ones, and as many
# steps without synthesis.

# %%
settings = tour.half_of_the_hard()
falls = []
for name in study.tasks:
    steps = tour.steps_of_two_rounds(study, name, settings)
    pair = [
        Arm("half of the hard", "one synthetic example for each of them", max_steps=steps, **settings),
        Arm("as long, plain", "no synthesis", schedule="none", losses_from=settings["losses_from"], max_steps=steps),
    ]
    both = study.run(pair, tasks=[name], equal_steps=False, keep=["synthetic"])
    seeded = zip(both.of(arm=pair[0].name), both.of(arm=pair[1].name), strict=True)
    falls += [tour.loss_falls(with_it, without) for with_it, without in seeded]
falls = pd.concat(falls, ignore_index=True)
study.add_table("falls", falls, show=False)
measures = ["examples", "before", "after", "after_plain", "fall", "fall_plain", "beyond_plain"]
study.add_table("falls_mean", falls.groupby(["task", "group"], sort=False)[measures].mean().reset_index())

# %%
lines = falls.melt(["task", "seed", "group"], ["fall", "fall_plain"], "run", "fall of the loss")
lines["run"] = lines["run"].map({"fall": "with synthesis", "fall_plain": "plain"})
lines = statistics.summarize(lines, "fall of the loss", by=["group", "run"])
figure = plots.bars(
    lines,
    label="group",
    value="mean",
    group="run",
    title="How far losses fall after round one",
    unit="fall of the loss",
)
study.add_figure("falls", figure, "Mean fall of the loss over seeds, with and without synthesis; 95 % intervals.")

# %% [markdown]
# The second bar of each group is what happens without synthesis: it holds the fall of extreme losses toward the mean.
# What counts is how much farther the first bar of the anchors is ahead of its second than that of the other hard ones.

# %%
as_arms = falls.rename(columns={"group": "arm"})
study.add_table("beyond_plain", statistics.compare_arms(as_arms, "other hard", value="beyond_plain"))
study.add_table("without_plain", statistics.compare_arms(as_arms, "other hard", value="fall"))
averages = falls.groupby(["seed", "group"], sort=False)[["fall_plain"]].mean().reset_index()
study.add_table("falls_anyway", statistics.summarize(averages, "fall_plain", by=["group"]))

# %% [markdown]
# ## Verdict

# %%
study.find(
    "anchors_fall_more",
    "Do the losses of anchors fall more than those of other hard examples, beyond what they do without synthesis?",
    table="beyond_plain",
    row={"task": study.overall, "arm": "anchors"},
    unit="of the loss",
    yes="The anchors' losses fall more than those of the other hard examples",
    no="The anchors' losses fall less than those of the other hard examples",
    undecided="No significant difference between the fall of the anchors' losses and that of the other hard examples",
)
study.find(
    "anchors_fall_more_alone",
    "Do they by the run with synthesis alone?",
    table="without_plain",
    row={"task": study.overall, "arm": "anchors"},
    unit="of the loss",
    yes="By the run with synthesis alone the anchors' losses fall more, too",
    no="By the run with synthesis alone the anchors' losses fall less",
    undecided="By the run with synthesis alone, no significant difference between anchors and other hard examples",
)
study.find(
    "anchors_fall_anyway",
    "Do the losses of the same anchors fall without synthesis?",
    table="falls_anyway",
    row={"group": "anchors"},
    columns=("mean", "low", "high"),
    unit="of the loss",
    yes="Without synthesis the losses of the same examples fall",
    no="Without synthesis the losses of the same examples rise",
    undecided="Without synthesis, no significant change of the losses of the same examples",
)
find_ahead(study, "sage_over_plain", "over_plain", "SAGE", what="SAGE", other="plain distillation at equal steps")
study.finish()

# %% [markdown]
# ## Where to go next
#
# - `01_reducer_dimension`: is the map worth it, and how many dimensions should it have?
# - `02_input_layer`: what does it save, and cost, to bypass the input layers?
# - `03_loss_profile`: do the regions of high loss move from round to round?
# - `04_static_or_adaptive`: is it worth synthesising anew each round?
# - `05_reducers`: what do other reducers and inverters keep? Bring your own with `plugin`.
# - `06_decode_tokens`: can synthetic examples be read?
# - `07_coherence_filter`: does it help to drop those that lie far from real ones?
# - `08_beyond_glue`, `09_glue`: other tasks, and the main table.
# - `10_is_it_the_region`, `11_replace_or_add`: controls for where synthesis happens, and for what it replaces.
# - `12_default_settings`: which settings should be the default.
