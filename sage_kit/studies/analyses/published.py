"""Scores of students of BERT-base that others published, with their sources, and the sizes of GLUE's splits.

They are development-set scores of single models. What the sources report beside them (seeds, search over settings) does
not go with them, so they are anchors, not baselines: a difference to them has no interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """One published score."""

    model: str
    task: str  # as `sage_kit` names it
    metric: str  # A metric of `sage_kit.data.metrics.METRICS`
    score: float  # on the metric's own scale: 0.915, not 91.5
    split: str  # where it was measured, as far as the source says
    source: str  # who reports it


METRICS: Mapping[str, str] = {
    "mnli": "accuracy", "qqp": "accuracy", "qnli": "accuracy", "sst2": "accuracy", "cola": "matthews",
    "rte": "accuracy", "mrpc": "f1",
}  # fmt: skip
"""The metric in which these sources score each task."""

DEV = "official validation, whole"

MOEBERT = "Zuo et al. 2022, MoEBERT, arXiv 2204.07675, table 1"
TINYBERT = "Jiao et al. 2020, TinyBERT, arXiv 1909.10351, appendix"
MINILM = "release notes of MiniLM (Wang et al. 2020, arXiv 2002.10957)"
REPTILE = "release notes of ReptileDistil"
SAGE = "SAGE, arXiv 2508.14783"

_ROWS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    # columns: MNLI matched, QQP, QNLI, SST-2, CoLA, RTE, MRPC
    ("BERT-base (teacher)", MINILM, (84.5, 91.3, 91.7, 93.2, 58.9, 68.6, 87.3)),
    ("DistilBERT", f"{MOEBERT}; {TINYBERT}", (82.2, 88.5, 89.2, 92.7, 51.3, 59.9, 87.5)),
    ("TinyBERT6, no augmentation", MOEBERT, (83.5, 90.6, 90.5, 91.6, 42.8, 72.2, 88.4)),
    ("BERT-of-Theseus", MOEBERT, (82.3, 89.6, 89.5, 91.5, 51.1, 68.2, 89.0)),
    ("MiniLM 6x768", MOEBERT, (84.0, 91.0, 91.0, 92.0, 49.2, 71.5, 88.4)),
    ("MiniLMv2 6x768", MOEBERT, (84.2, 91.1, 90.8, 92.4, 52.5, 72.1, 88.9)),
    ("TinyBERT6, augmentation", TINYBERT, (84.5, 91.1, 91.1, 93.0, 54.0, 73.4, 90.6)),
    ("ReptileDistil", REPTILE, (83.7, 90.1, 90.5, 92.2, 54.8, 75.3, 91.6)),
)

PUBLISHED: tuple[Published, ...] = (
    *(
        Published(model, task, METRICS[task], round(score / 100, 4), DEV, source)
        for model, source, scores in _ROWS
        for task, score in zip(METRICS, scores, strict=True)
    ),
    *(
        Published("SAGE, as published", task, METRICS[task], score, "not stated", SAGE)
        for task, score in (("qnli", 0.912), ("sst2", 0.923), ("cola", 0.415), ("rte", 0.685))
    ),
)
"""Teacher first, then students of six blocks of 768 and about 66 million parameters."""


GLUE_SIZES: Mapping[str, tuple[int, int]] = {
    "cola": (8_551, 1_043), "sst2": (67_349, 872), "mrpc": (3_668, 408), "stsb": (5_749, 1_500),
    "qqp": (363_846, 40_430), "mnli": (392_702, 9_815), "qnli": (104_743, 5_463), "rte": (2_490, 277),
    "wnli": (635, 71),
}  # fmt: skip
"""Rows of each task's training split and first validation split (Wang et al. 2019, GLUE, arXiv 1804.07461), as the
hub's nyu-mll/glue holds them."""


def published(tasks: Iterable[str]) -> list[Published]:
    """The published scores on some tasks, by task in their order."""
    return [one for task in dict.fromkeys(tasks) for one in PUBLISHED if one.task == task]


def split_text(split: str, rows: int, trained: int, task: str) -> str:
    """Where a score was measured and what was trained on, in words: ``validation; trained on 3,000 of 67,349 rows``.
    `trained` leaves the dev split out. Of a task that is not GLUE's the whole is not known, and numbers alone are told.
    """
    if task not in GLUE_SIZES:
        return f"{rows:,} rows of {split}; trained on {trained:,} rows"
    train, validation = GLUE_SIZES[task]
    where = split if rows == validation else f"{rows:,} of {validation:,} rows of {split}"
    return f"{where}; trained on {trained:,} of {train:,} rows"
