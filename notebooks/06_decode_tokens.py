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
# # Do synthetic vectors correspond to language?
#
# **Question.** Are synthetic examples closer to language than the same anchors moved as far by noise, as vectors and as
# token states? Does the teacher say the same of them as of their anchors, and of the text that is read in them? Where
# they are text, is it coherent?
#
# **Method.** Lifts are compared under one sampler and one inverter, those that follow loss and map whatever the default
# is. No student is compared with another, so no learning rate is tuned: runs are there for their synthetic examples.
#
# *The decoding ladder*, for token states. From the top: *real*, the anchors' own; *synthetic*, what the lift made of
# them; *shuffled*, the anchors moved as far, token by token, in directions that belong to other examples; *noise*,
# moved as far in random directions; *no text*, Gaussian noise of the same length, under which no text lies. Every
# decoder reads every rung. *found* is the share of the anchor's tokens that it reads there, *changed* the share that
# it reads differently than in the anchor, *confidence* the mean score of its best guess in its own unit (the cosine to
# the nearest token of the vocabulary, or a logarithm of a probability), *margin* what the best guess is ahead of the
# second, *cosine* that of the token states with the anchor's. The teacher labels the states themselves and, once more,
# the decoded text after it is tokenised again: *kept* is how often the two agree.
#
# Closer to language means: more confident. That is a stand-in, since a state near some token need not be part of a
# sentence, which is why examples are shown to be read. The anchors are training text, from which the probe has learnt,
# so its *real* rung flatters it; the other rungs are held against each other. Each seed synthesises other examples, so
# an interval over the seeds' means holds chance in the examples, too.
#
# *Vectors*, before any lift. A pooled vector is the mean of an example's token states, and but for the positions these
# depend on nothing but the token: a bag of tokens. Matching pursuit with weights above zero finds the bag, as many
# tokens as the anchor has different ones: of a real vector it gets nearly all. *fit* is 1 less the length of what the
# bag leaves of the vector, in units of the spread of the training vectors. The rungs are those of the ladder, and one
# more: *to the mean* are the anchors moved as far toward the mean of all training vectors, for inverters average, and
# the nearer to the mean, the better any bag fits. The other reading is retrieval: the nearest training vector but the
# anchor's, and whether the teacher's label of its text is that of the vector (of the anchor's token states when all are
# moved as the vector is, as lift *shift* does).
#
# *Label flips*: the share of all synthetic examples of the runs that the teacher labels otherwise than their anchors,
# another class or, in regression, a number more than a twentieth of the range away; of regression the mean absolute
# change, too.
#
# *Coherence*: the pseudo-perplexity of the synthetic texts, where a lift makes text, of their anchors, and of both
# with their tokens in random order. It is that of the checkpoint's masked-language head if it has one. Most have none:
# then a head is trained, tied to the word embeddings, on generic text and on rows that are held out from the students.
# That is no pretrained head and knows far less of language; tables and captions say which it is.
#
# **What would change our mind.** Synthetic vectors correspond to language if the decoder is more confident of
# *synthetic* than of *noise*, with an interval above zero, and if it is nearer to *real* than to *noise*: a lift that
# hardly moves the token states can be ahead of noise by a trifle. If not, the student learns from inputs that no text
# has. Vectors hold language of their own if bags fit them better than noise, and better than *to the mean*, which holds
# no more than the anchor does. A text is coherent if it is likelier than the same tokens in random order.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
lifts: str = (
    None  # lifts that are compared, separated by commas, the main one first; None takes shift,replace,replace_random
)
decoders: str = None  # decoders, with commas, the first that fits being the main one; None takes all that come along
examples: int = None  # synthetic examples of each run that are decoded; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from dataclasses import asdict

import pandas as pd

from sage_kit.reports.lifted_round import lift_round
from sage_kit.studies import Arm, Study, plots, statistics
from sage_kit.studies.analyses import label_flips, ladder, text_perplexity, token_bags
from sage_kit.studies.analyses.controls import GUIDED
from sage_kit.studies.parameters import listed
from sage_kit.studies.sizes import FEW_TASKS
from sage_kit.studies.verdicts import PERCENT_CHANGE

study = Study.from_parameters(
    globals(),
    "06_decode_tokens",
    title="Do synthetic vectors correspond to language?",
    question="Are synthetic vectors, and the token states that are made of them, closer to language than noise?",
    tasks=FEW_TASKS,
    base={**GUIDED, "lift": "shift", "lift_options": {}},
)

# %% [markdown]
# ## The arms
#
# They differ in the lift alone: *shift* moves every token of the anchor by the same way, *replace* exchanges those of
# its tokens for real ones of its neighbours in the map that bring it nearest to the synthetic vector, and
# *replace_random* exchanges any for any. Equal compute means equal student steps and equal teacher tokens.

# %%
arms = [
    Arm(name, f"lift {name}", lift=name, lift_options=GUIDED["lift_options"] if name == GUIDED["lift"] else {})
    for name in listed(lifts or "shift,replace,replace_random")
]
runs = study.run(arms, keep=["synthetic"])
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## What is read
#
# The last synthetic examples of each run are lifted once more, as in training. Vectors are the same to every lift that
# looks at them, so those of the first such lift are read.

# %%
wanted = listed(decoders or "nearest_token,probe,mlm_head")
most = examples or {"smoke": 8, "small": 48, "medium": 48, "full": 64}[profile]
uses_vectors = [
    arm.name for arm in arms if study.plugins.lift(arm.settings["lift"], arm.settings["lift_options"]).uses_vectors
]
corpus = text_perplexity.corpus_for(study)
read, left_out, vectors, flips, texts, no_texts, heads = [], {}, [], [], [], {}, {}
for run in runs:
    found = lift_round(run.directory, study.plugins, limit=most)
    own = {"task": run.task, "lift": run.arm, "seed": run.seed}
    rungs = ladder.read_ladder(found, study.plugins, wanted)
    read.append(rungs.examples.assign(**own))
    left_out.update(rungs.left_out)
    if run.arm in uses_vectors[:1]:
        vectors.append(token_bags.read_vectors(found).assign(**own))
    flips.append({**own, **asdict(label_flips.count_flips(run, found.prepared))})
    if found.synthetic.tokens is None:
        no_texts[run.task, run.arm] = True
        continue
    if run.task not in heads:
        heads[run.task] = text_perplexity.language_of(found, corpus, print)
    texts.append(text_perplexity.perplexities(found, heads[run.task]).assign(**own, head=heads[run.task].about))
table = pd.concat(read, ignore_index=True)
study.add_table("examples", table, show=False)
study.add_table("left_out", pd.DataFrame(left_out.items(), columns=["decoder", "reason"]).astype(str))

# %% [markdown]
# ## The ladder

# %%
means = table.groupby(["task", "lift", "decoder", "rung"], sort=False)[list(ladder.MEASURES)].mean().reset_index()
study.add_table("rungs", means)
main_lift, main_decoder = arms[0].name, table["decoder"].iloc[0]
unit = ladder.UNITS.get(main_decoder, "score")

# %%
shown = means[means["decoder"] == main_decoder].groupby(["lift", "rung"], sort=False)["confidence"].mean().reset_index()
if shown["confidence"].notna().any():
    figure = plots.bars(
        shown,
        label="rung",
        value="confidence",
        group="lift",
        title=f"How sure {main_decoder} is of what it reads",
        unit=unit,
    )
    study.add_figure("confidence", figure, f"Mean score of the best guess by rung and lift, decoder {main_decoder}.")

# %%
shown = means[means["decoder"] == main_decoder].groupby(["lift", "rung"], sort=False)["kept"].mean().reset_index()
figure = plots.bars(
    shown,
    label="rung",
    value="kept",
    group="lift",
    title="The teacher on the states and on what is read in them",
    unit="share of examples with the same label",
)
study.add_figure("kept", figure, f"Agreement of the teacher with itself after decoding, decoder {main_decoder}.")

# %% [markdown]
# ## Against noise, and against the real text
#
# Where a lift moves token states little, all rungs but the last are nearly the same, and a difference that is certain
# may still be small: hold it against what *real* is ahead of *noise*.

# %%
confidence = ladder.over_rung(table, "confidence", baseline="noise")
over_noise = confidence[confidence["arm"].isin(["real", "synthetic", "shuffled"])]
study.add_table("confidence_over_noise", over_noise)
figure = plots.intervals(
    confidence[
        (confidence["decoder"] == main_decoder) & (confidence["lift"] == main_lift) & (confidence["arm"] != "no text")
    ],
    title=f"Confidence beyond noise: {main_decoder}, lift {main_lift}",
    unit=unit,
)
study.add_figure("over_noise", figure, "Difference of each rung to noise of the same norm; 95 % intervals over seeds.")

# %%
middle = ladder.over_rung(table, "confidence", baseline=ladder.MIDDLE)
study.add_table("confidence_over_middle", middle[middle["arm"] == "synthetic"])
shuffled = ladder.over_rung(table, "confidence", baseline="shuffled")
study.add_table("confidence_over_shuffled", shuffled[shuffled["arm"] == "synthetic"])
kept = ladder.over_rung(table, "kept", baseline="noise")
study.add_table("kept_over_noise", kept[kept["arm"] == "synthetic"])
changed = ladder.over_rung(table, "changed", baseline="real")
study.add_table("changed_over_real", changed[changed["arm"] == "synthetic"])

# %% [markdown]
# ## Vectors, before any lift
#
# *found* is the share of the anchor's tokens that are in the bag, *own* how often the anchor is the nearest training
# example, *cosine* that of the nearest other one, without the mean of all, and *same_label* how often the teacher says
# the same of the two.

# %%
if vectors:
    vectors = pd.concat(vectors, ignore_index=True)
    study.add_table("vectors", vectors, show=False)
    of_rungs = vectors.groupby(["task", "rung"], sort=False)[list(token_bags.MEASURES)].mean().reset_index()
    study.add_table("vector_rungs", of_rungs)
    fit = token_bags.vectors_over(vectors, "fit", "noise")
    study.add_table("fit_over_noise", fit)
    over_mean = token_bags.vectors_over(vectors, "fit", token_bags.TO_MEAN)
    study.add_table("fit_over_mean", over_mean[over_mean["arm"] == "inverted"])
    label = token_bags.vectors_over(vectors, "same_label", "noise")
    study.add_table("same_label_over_noise", label[label["arm"] == "inverted"])
    figure = plots.intervals(
        fit[fit["arm"] != "no text"], title="How well a bag of tokens fits vectors, beyond noise", unit="fit"
    )
    study.add_figure(
        "fit_over_noise",
        figure,
        "Difference of each rung to the anchors moved as far in random directions; 95 % intervals over seeds. What is "
        "nearer to the mean of all vectors fits better, and the rung that is moved there shows by how much.",
    )
else:
    print("No lift looks at synthetic vectors, so none are read.")

# %%
if len(vectors):
    several = token_bags.vectors_to_read(vectors, count={"smoke": 4, "small": 6, "medium": 6, "full": 8}[profile])
    study.add_table("vectors_to_be_read", several)

# %% [markdown]
# ## Label flips
#
# Over all synthetic examples that the runs trained on, those that were not decoded as well. Of anchors none is flipped,
# so the difference from them is the share itself. For regression, `label_changes` has the mean absolute change in the
# unit of the labels.

# %%
flips = pd.DataFrame(flips)
study.add_table("flips", flips, show=False)
study.add_table("label_flips", label_flips.flips_over(flips, label_flips.ANCHORS))
if len(arms) > 1:
    study.add_table("flips_over_main", label_flips.flips_over(flips, main_lift))
changed_by = statistics.summarize(flips[flips["change"].notna()], "change", by=["task", "lift"])
if len(changed_by):
    study.add_table("label_changes", changed_by)
figure = plots.bars(
    study.tables["label_flips"],
    value="difference",
    group="task" if len(study.tasks) > 1 else None,
    title="Labels that synthesis flips",
    unit="share of synthetic examples with another teacher label than their anchors'",
)
study.add_figure(
    "label_flips",
    figure,
    "Another class, or a number more than a twentieth of the range away; 95 % intervals over seeds.",
)

# %% [markdown]
# ## Coherence
#
# Perplexities are geometric means: the lower, the likelier the text. `head` says whose they are. `of_anchor` is what a
# text is ahead of its tokens in random order, in the logarithm, as a share of what the anchors are ahead of that.

# %%
texts = pd.concat(texts, ignore_index=True) if texts else pd.DataFrame()
study.add_table("perplexity", text_perplexity.perplexity_table(texts, list(no_texts)))
text_lifts = list(dict.fromkeys(texts["lift"])) if len(texts) else []
if text_lifts:
    study.add_table("texts", texts, show=False)
    over_shuffled = text_perplexity.perplexities_over(texts, text_perplexity.SYNTHETIC_SHUFFLED)
    study.add_table("perplexity_over_shuffled", over_shuffled)
    over = over_shuffled.assign(text=over_shuffled["lift"] + ": " + over_shuffled["arm"])
    figure = plots.intervals(
        over, label="text", title="Perplexity beside synthetic tokens in random order", unit="logarithm of the ratio"
    )
    about = "; ".join(f"on {task}, {head.about}" for task, head in heads.items())
    study.add_figure(
        "perplexity",
        figure,
        "Natural logarithm of pseudo-perplexities over that of the synthetic tokens in random order; 95 % intervals "
        f"over seeds; below zero is more coherent. Head: {about}.",
    )
if len(text_lifts) > 1:
    study.add_table("perplexity_of_lifts", text_perplexity.lifts_over(texts, text_lifts[0]))

# %% [markdown]
# ## To be read
#
# The anchor, what the decoder reads in the synthetic example and in noise of the same norm, and what the teacher says
# of the anchor, of the synthetic states, and of the text that was read in them.

# %%
several = ladder.examples_table(table, main_decoder, count={"smoke": 4, "small": 8, "medium": 8, "full": 10}[profile])
study.add_table("to_be_read", several)

# %% [markdown]
# ## Verdict
#
# That other text is read in synthetic examples is said from one token in twenty on: less is about one token of a
# sentence of these tasks, and leaves what it says as it was. A lift flips labels from one in twenty on, too.

# %%
for lift in [arm.name for arm in arms]:
    study.find(
        "synthetic_over_noise" if lift == main_lift else f"{lift}_over_noise",
        f"Are synthetic token states (lift {lift}) closer to language than the anchors moved as far by noise?",
        table="confidence_over_noise",
        row={"task": study.overall, "lift": lift, "decoder": main_decoder, "arm": "synthetic"},
        unit=f"of the {unit}",
        yes="{decoder} is surer of what lift {lift} makes than of noise as strong ({of_real:.0%} of what it is surer "
        "of the real text)",
        no="{decoder} is less sure of what lift {lift} makes than of noise as strong",
        undecided="No significant difference in how sure {decoder} is of what lift {lift} makes and of noise as strong",
    )
    study.find(
        "synthetic_nearer_real" if lift == main_lift else f"{lift}_nearer_real",
        f"Are they nearer to the real text than to that noise (lift {lift})?",
        table="confidence_over_middle",
        row={"task": study.overall, "lift": lift, "decoder": main_decoder, "arm": "synthetic"},
        unit=f"of the {unit} from the middle",
        claim="language" if lift == main_lift else "",
        yes="Lift {lift}: nearer to the real text than to that noise",
        no="Lift {lift}: nearer to that noise than to the real text",
        undecided="Lift {lift}: no significant difference from the middle between the real text and that noise",
    )
study.find(
    "synthetic_over_shuffled",
    f"Are they closer to language than the anchors moved as far in directions of other examples (lift {main_lift})?",
    table="confidence_over_shuffled",
    row={"task": study.overall, "lift": main_lift, "decoder": main_decoder, "arm": "synthetic"},
    unit=f"of the {unit}",
    yes="{decoder} is surer of an example's own direction than of another's",
    no="{decoder} is less sure of an example's own direction than of another's",
    undecided="No significant difference in how sure {decoder} is of an example's own direction and of another's",
)
study.find(
    "synthetic_reads_otherwise",
    f"Are more than 5 % of the anchors' tokens read otherwise in synthetic examples (lift {main_lift})?",
    table="changed_over_real",
    row={"task": study.overall, "lift": main_lift, "decoder": main_decoder, "arm": "synthetic"},
    threshold=0.05,
    unit="of the tokens",
    yes="Other text is read in synthetic examples: share of the anchors' tokens that are read otherwise",
    no="Synthetic examples read as their anchors: share of the anchors' tokens that are read otherwise",
    undecided="No significant difference between one token in twenty and the share that is read otherwise",
)
study.find(
    "label_kept_over_noise",
    f"Does the teacher's label survive decoding better for synthetic examples than for noise (lift {main_lift})?",
    table="kept_over_noise",
    row={"task": study.overall, "lift": main_lift, "decoder": main_decoder, "arm": "synthetic"},
    unit="points",
    yes="The teacher agrees with itself after decoding more often for synthetic examples than for noise",
    no="The teacher agrees with itself after decoding less often for synthetic examples than for noise",
    undecided="No significant difference in how often the teacher agrees with itself after decoding synthetic "
    "examples and noise",
)
if len(vectors):
    study.find(
        "vectors_over_noise",
        "Are inverted vectors closer to bags of tokens than the anchors' vectors moved as far by noise?",
        table="fit_over_noise",
        row={"task": study.overall, "arm": "inverted"},
        unit="of the spread of the training vectors",
        yes="A bag of tokens fits inverted vectors better than noise as strong",
        no="A bag of tokens fits inverted vectors worse than noise as strong",
        undecided="No significant difference in how well a bag of tokens fits inverted vectors and noise as strong",
    )
    study.find(
        "vectors_over_mean",
        "Are inverted vectors closer to bags of tokens than the anchors' vectors moved as far toward the mean of all?",
        table="fit_over_mean",
        row={"task": study.overall, "arm": "inverted"},
        unit="of the spread of the training vectors",
        yes="A bag of tokens fits inverted vectors better than their anchors moved as far toward the mean",
        no="A bag of tokens fits inverted vectors worse than their anchors moved as far toward the mean",
        undecided="No significant difference in how well a bag of tokens fits inverted vectors and their anchors moved "
        "as far toward the mean",
    )
for arm in arms:
    study.find(
        "labels_flipped" if arm.name == main_lift else f"{arm.name}_labels_flipped",
        f"Does the teacher label more than 5 % of synthetic examples otherwise than their anchors (lift {arm.name})?",
        table="label_flips",
        row={"task": study.overall, "arm": arm.name},
        threshold=0.05,
        unit="points",
        yes="Lift {arm} flips labels: share of synthetic examples that the teacher labels otherwise than their anchors",
        no="Lift {arm} keeps labels: share of synthetic examples that the teacher labels otherwise than their anchors",
        undecided="Lift {arm}: no significant difference between one label in twenty and the share that is flipped",
    )
for lift in text_lifts:
    study.find(
        f"{lift}_coherent",
        f"Are the texts that lift {lift} makes more coherent than the same tokens in random order?",
        table="perplexity_over_shuffled",
        row={"task": study.overall, "lift": lift, "arm": text_perplexity.SYNTHETIC},
        direction="below",
        unit=PERCENT_CHANGE,
        yes="Texts of lift {lift} have a lower perplexity than their tokens in random order ({of_anchor:.0%} of what "
        "their anchors are ahead)",
        no="Texts of lift {lift} have no lower perplexity than their tokens in random order",
        undecided="No significant difference in perplexity between texts of lift {lift} and their tokens in random "
        "order",
    )
for lift in text_lifts[1:]:
    study.find(
        f"{lift}_less_coherent",
        f"Does lift {lift} raise the perplexity of texts more than lift {text_lifts[0]} does?",
        table="perplexity_of_lifts",
        row={"task": study.overall, "arm": lift},
        unit=PERCENT_CHANGE,
        yes=f"Lift {{arm}} raises the perplexity of texts more than lift {text_lifts[0]}",
        no=f"Lift {{arm}} raises the perplexity of texts less than lift {text_lifts[0]}",
        undecided=f"No significant difference in how lifts {{arm}} and {text_lifts[0]} raise the perplexity of texts",
    )
study.finish()
