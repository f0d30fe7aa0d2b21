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
# # Beyond GLUE: questions, tags, retrieval, dialogues, paraphrase adversaries, other languages
#
# **Question.** Does the method help on tasks that ask for more than GLUE does, and does what it gains carry over to
# languages the student was not trained in?
#
# **Method.** *plain* distillation and *SAGE* (the preset `default`) take the same number of student steps on tasks of
# every kind. The one-file plugin `plugins/beyond_glue_tasks.py` defines some, as anybody would define their own:
# *strategyqa* asks for yes or no from the question alone, *strategyqa_facts* gives the annotated facts beside it.
# HotpotQA's two outputs are two tasks: *hotpot_support* asks whether a paragraph supports the answer, *hotpot_answers*
# for the answer, of students of SQuAD's questions. *pawsx_parted* holds pairs that share nearly all their words,
# *qqp_to_pawsx* scores students of Quora's pairs on them. Built in are those of XTREME: *xnli* is entailment, *panx*
# names of people and places, *udpos* parts of speech, *xquad* answers, *tatoeba* retrieval of translations; and of
# dialogues *sgd_acts*, all acts of a turn, and *xdailydialog*, its act. Many are scored zero-shot on splits that no
# training example is like: in other languages, on the adversaries, on questions of several hops. What a teacher of
# English words says of other languages means nothing; `teacher` names a multilingual one (`tools/lay_out_checkpoints.py
# e5`), which *tatoeba* needs.
#
# Scores are those of the validation splits, on which nothing was chosen. Each task's first split decides: that in
# English, for *qqp_to_pawsx* the adversaries, for *hotpot_answers* HotpotQA, for *tatoeba* the first language. PAWS-X
# has no training file here, so its English validation pairs are parted: groups of pairs that share a sentence are
# trained on or held out, and every language is scored on the held-out rows alone. HotpotQA's samples are parted by
# source: retrieved paragraphs to train on, half of them supporting; distractors to be scored on, a fifth of them
# supporting; no question in both. Approximate: the size `small` trains on part of the rows and scores part of them; the
# tables say on how many. A teacher that is no better than a constant answer has nothing to teach, and what its student
# does says nothing about the method: a teacher of English words in another language, for one. Where there are such
# tasks, the comparison is made a second time without them; the average over all decides.
#
# **What would change our mind.** We call it help beyond GLUE if *SAGE* is ahead of *plain* on the average over these
# tasks with an interval above zero.

# %% tags=["parameters"]
profile: str = "smoke"  # size of the study: smoke (a minute), small (two cores), medium or full (a GPU)
task: str = None  # task, or several separated by commas; None takes the profile's
seeds: int = None  # runs of each arm, each with a transfer set of its own; None takes the profile's
teacher: str = None  # the teacher's checkpoint; None takes the profile's
student_layers: int = None  # blocks of the student; None takes the profile's
transfer_rows: int = None  # texts that each student learns from, 0 for all; None takes the profile's
rounds: int = None  # rounds whose steps every arm takes; None takes the profile's
reducer: str = None  # reducer of the map; None takes the profile's
validation_rows: int = None  # rows of each validation split, 0 for all; None takes the profile's
rates: list[float] = None  # learning rates that every arm is tuned over; None takes the profile's
plugin: str = ""  # further one-file plugins to load, separated by commas
data_dir: str = None  # folder of the tasks' parquet files; None takes SAGE_KIT_DATA_DIR
runs_dir: str = None  # where runs of arms are kept and found again; None takes runs/studies of the project
results_dir: str = None  # where tables, figures and the verdict are saved; None takes runs/results of the project

# %%
from sage_kit.config import PRESETS
from sage_kit.studies import Arm, Runs, Study, plots
from sage_kit.studies.analyses.outcomes import EQUAL_FLOPS, add_outcomes, compute_apart, find_ahead, with_equal_flops
from sage_kit.studies.analyses.scores import (
    compare_splits,
    other_split_gains,
    taught,
    teacher_over_constant,
    transfer,
    validation_scores,
)
from sage_kit.studies.places import companion

TASKS = (
    "strategyqa,strategyqa_facts,hotpot_support,hotpot_answers,pawsx_parted,qqp_to_pawsx,"
    "xnli,panx,udpos,xquad,tatoeba,sgd_acts,xdailydialog"
)
ROWS = {"transfer_rows": 400, "transfer_pool": 500, "evaluation_rows": 0, "dev_rows": 140}
# facts and paragraphs are longer than GLUE's sentences, and fifteen languages are scored
base = {
    "smoke": {},
    # scores are those of the validation splits, so no rows are held out; the smallest task has 1,140
    "small": {"max_length": 96, "validation_rows": 500, **ROWS},
    "medium": {"max_length": 96, "validation_rows": 500, **ROWS},
    "full": {"max_length": 128, "evaluation_rows": 0, "dev_rows": 0},
}
# answers stand in paragraphs, and a teacher of tags or acts needs fewer rows than there are
LONG, MANY = {"max_length": 256, "batch_size": 16}, {"teacher_rows": 6000}
by_task = {"hotpot_answers": LONG, "xquad": LONG}
if profile in ("small", "medium"):
    by_task |= dict.fromkeys(["panx", "udpos", "sgd_acts"], MANY)
study = Study.from_parameters(
    globals(),
    "08_beyond_glue",
    title="Beyond GLUE: questions, tags, retrieval, dialogues, paraphrase adversaries, other languages",
    question="Does the method help on tasks that ask for more than GLUE does?",
    tasks={"small": TASKS, "medium": TASKS, "full": TASKS},
    base=base.get(profile),
    base_by_task=by_task,
    structured=True,
    companion=companion("plugins/beyond_glue_tasks.py"),
)
if study.tasks == ("movie_reviews",):
    print("movie_reviews stands in for the tasks of this study, which need a data_dir; it says nothing about them.")

# %% [markdown]
# ## The arms

# %%
arms = [
    Arm("plain", "plain distillation", schedule="none"),
    Arm("SAGE", "the choices of the preset default", **PRESETS["default"]),
]
study.plan(split="validation", arms=[*arms, Arm(EQUAL_FLOPS, schedule="none")], tuned=True)
runs = with_equal_flops(study, study.run(study.tune(arms)), "SAGE")

# %% [markdown]
# ## What it cost

# %%
study.add_table("compute", compute_apart(study, runs, [EQUAL_FLOPS]))

# %% [markdown]
# ## Scores on the validation splits
#
# Means with 95 % intervals over seeds and examples; the teacher is one model.

# %%
scores = validation_scores(runs)
study.add_table("scores", scores[scores["primary"]].drop(columns="primary"))

# %% [markdown]
# ## What the teacher knows
#
# Its score less that of the best constant answer, with the interval over examples; where labels are no classes, the
# constant answer is the most frequent one, and of embeddings none.

# %%
study.add_table("teacher", teacher_over_constant(study, runs))
known = taught(runs, study.tables["teacher"])
print("tasks on whose first split the teacher is ahead of a constant answer:", ", ".join(known.tasks) or "none")

# %% [markdown]
# ## Over plain distillation, on each task's first split
#
# Score, agreement with the teacher, and divergence from it (in the logarithm of its mean; below zero is closer), at
# equal steps and at equal FLOPs.

# %%
equal_steps = Runs([run for run in runs if run.arm != EQUAL_FLOPS])
add_outcomes(study, "over_plain", equal_steps, "plain", split="validation")
add_outcomes(study, "over_equal_flops", runs, EQUAL_FLOPS, split="validation", arms=["SAGE"])
rows = study.tables["over_plain"]
figure = plots.intervals(rows, title="SAGE over plain distillation", unit="points", label="task")
study.add_figure("over_plain", figure, "Difference to plain distillation, paired by seed and example; 95 % intervals.")

# %%
some = 0 < len(known.tasks) < len(study.tasks)
if some:
    where = f"Where the teacher is ahead of a constant answer ({', '.join(known.tasks)})"
    add_outcomes(study, "over_plain_taught", known, "plain", split="validation", arms=["SAGE"])

# %% [markdown]
# ## On every split

# %%
study.add_table("by_split", compare_splits(study, equal_steps, baseline="plain"))

# %% [markdown]
# ## From split to split
#
# `gap` is how far a score lies below that on the task's first split; `constant` is the best constant answer's.

# %%
study.add_table("transfer", transfer(equal_steps))
for one, rows in study.tables["transfer"].groupby("task", sort=False):
    figure = plots.bars(
        rows,
        title=f"{one}: scores on each validation split",
        unit="metric of the task",
        label="split",
        value="mean",
        group="arm",
        reference={"best constant answer, mean": rows["constant"].mean()},
    )
    study.add_figure(f"transfer_{one}", figure, f"{one}: means over seeds on each validation split.")

# %%
study.add_table("other_splits", other_split_gains(runs, "SAGE", "plain"))

# %% [markdown]
# ## Verdict

# %%
PLAIN = "plain distillation at equal steps"
find_ahead(study, "gain_beyond_glue", "over_plain", "SAGE", what="SAGE", other=PLAIN, claim="beyond_glue")
find_ahead(
    study, "gain_at_equal_flops", "over_equal_flops", "SAGE", what="SAGE", other="plain distillation at equal FLOPs"
)
if some:
    find_ahead(
        study,
        "gain_taught",
        "over_plain_taught",
        "SAGE",
        what=f"SAGE where the teacher is ahead of a constant answer ({', '.join(known.tasks)})",
        other=PLAIN,
        task=study.overall if len(known.tasks) > 1 else known.tasks[0],
    )
for one in study.tasks if len(study.tasks) > 1 else ():
    find_ahead(study, f"gain_{one}", "over_plain", "SAGE", what=f"SAGE on {one}", other=PLAIN, task=one, outcomes=[""])
for one in study.tables["other_splits"]["task"]:
    study.find(
        f"other_splits_gain_{one}",
        f"Is SAGE ahead of plain distillation on the mean of the splits of {one} other than the first?",
        table="other_splits",
        row={"task": one},
        unit="points",
        yes="{task}, other splits ({n_splits}): SAGE is ahead of plain distillation",
        no="{task}, other splits ({n_splits}): SAGE is behind plain distillation",
        undecided="{task}, other splits ({n_splits}): no significant difference between SAGE and plain distillation",
    )
study.finish()
