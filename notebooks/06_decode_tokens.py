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
# **Question.** Are the token states of synthetic examples closer to language than the same anchors moved as far by
# noise, and does the teacher say the same of the text that is read in them?
#
# **Method.** The decoding ladder. From the top: *real*, the anchors' own token states; *synthetic*, what the lift made
# of them; *shuffled*, the anchors moved as far, token by token, in directions that belong to other examples; *noise*,
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
# **What would change our mind.** Synthetic vectors correspond to language if the decoder is more confident of
# *synthetic* than of *noise*, with an interval above zero, and if it is nearer to *real* than to *noise*: a lift that
# hardly moves the token states can be ahead of noise by a trifle. If not, the student learns from inputs that no text
# has.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
lifts: str = None  # lifts that are compared, separated by commas, the main one first; None takes shift,replace
decoders: str = None  # decoders, with commas, the first that fits being the main one; None takes all that come along
examples: int = None  # synthetic examples of each run that are decoded; None takes the profile's
plugin: str = ""  # one-file plugins to load, separated by commas
data_dir: str = None  # folder of GLUE's parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
import pandas as pd

from sage_kit.studies import Arm, Study, figures, scraps
from sage_kit.studies.analyses import ladder
from sage_kit.studies.parameters import check_parameters, listed
from sage_kit.studies.sizes import FEW_TASKS

check_parameters(globals(), "06_decode_tokens")

study = Study(
    "06_decode_tokens",
    title="Do synthetic vectors correspond to language?",
    question="Are synthetic token states closer to language than noise of the same norm?",
    profile=profile,
    task=task,
    seeds=seeds,
    teacher=teacher,
    student_layers=student_layers,
    transfer_rows=transfer_rows,
    rounds=rounds,
    reducer=reducer,
    data_dir=data_dir,
    tasks=FEW_TASKS,
    more={"examples": examples, "lifts": lifts, "decoders": decoders},
    plugin=plugin,
    runs_dir=runs_dir,
    results_dir=results_dir,
)

# %% [markdown]
# ## The arms
#
# They differ in the lift alone: *shift* moves every token of the anchor by the same way, *replace* exchanges some of
# its tokens for real ones of its neighbours. Equal compute means equal student steps and equal teacher tokens.

# %%
arms = [Arm(name, f"lift {name}", lift=name) for name in listed(lifts or "shift,replace")]
runs = study.run(arms, keep=["synthetic"])
study.add_table("compute", study.compute_table(runs))

# %% [markdown]
# ## The ladder

# %%
wanted = listed(decoders or "nearest_token,probe,mlm_head")
most = examples or {"smoke": 8, "small": 48, "medium": 48, "full": 64}[profile]
read, left_out = [], {}
for run in runs:
    found = ladder.read_ladder(run, study.plugins, wanted, limit=most)
    read.append(found.examples.assign(task=run.task, lift=run.arm, seed=run.seed))
    left_out.update(found.left_out)
table = pd.concat(read, ignore_index=True)
study.add_table("examples", table, show=False)
study.add_table("left_out", pd.DataFrame(left_out.items(), columns=["decoder", "reason"]).astype(str))

# %%
means = ladder.rung_means(table)
study.add_table("rungs", means)
main_lift, main_decoder = arms[0].name, table["decoder"].iloc[0]
unit = ladder.unit_of(main_decoder)

# %%
shown = means[means["decoder"] == main_decoder].groupby(["lift", "rung"], sort=False)["confidence"].mean().reset_index()
if shown["confidence"].notna().any():
    figure = figures.bars(
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
figure = figures.bars(
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
figure = figures.intervals(
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
# ## To be read
#
# The anchor, what the decoder reads in the synthetic example and in noise of the same norm, and what the teacher says
# of the anchor, of the synthetic states, and of the text that was read in them.

# %%
several = ladder.examples_table(table, main_decoder, count={"smoke": 4, "small": 8, "medium": 8, "full": 10}[profile])
study.add_table("to_be_read", several, show=False)
scraps.show_table(several)

# %% [markdown]
# ## Verdict
#
# That other text is read in synthetic examples is said from one token in twenty on: less is about one token of a
# sentence of these tasks, and leaves what it says as it was.

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
study.finish()
