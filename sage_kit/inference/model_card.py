"""The model card of a finished run: written by rule from the run's directory, as the hub reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.data.scoring import AGREEMENT
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import RunDirectoryError
from sage_kit.inference.card_body import body, title
from sage_kit.inference.card_facts import RunFacts
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import disk_errors, write_text
from sage_kit.studies.predictions import DEV

CARD = "README.md"
"""What the hub calls the card of a model."""

PIPELINES: Mapping[str, str] = {
    "sequence": "text-classification",
    "token": "token-classification",
    "span": "question-answering",
    "embedding": "sentence-similarity",
}
"""The hub's name of what a model is for, by its head."""

HUB_METRICS: Mapping[str, str] = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "macro_f1": "f1",
    "micro_f1": "f1",
}
"""What the hub calls metrics, where it is something else."""

_MARK = re.compile(r"\n<!-- written by sage-kit card: ([0-9a-f]{16}) -->\n$")


def model_card(run_dir: str | os.PathLike[str], plugins: Plugins | None = None) -> str:
    """The model card of a finished run.

    Parameters
    ----------
    run_dir : path
        The run's directory.
    plugins : Plugins or None
        Where its task and metrics are looked up; None takes the installed ones. A run's own files are Python, and are
        not executed unless they are among these.

    Returns
    -------
    str
        Markdown behind a block of YAML. The same run gives the same card, as long as its teacher's folder or the hub's
        cache tells the same of the teacher.

    Raises
    ------
    RunDirectoryError
        When it is no finished run, or a file of it cannot be read.
    """
    directory = RunDirectory.open(run_dir)
    facts = RunFacts.of(directory, plugins or Plugins())
    text = f"---\n{_metadata(facts)}\n---\n\n{body(facts)}"
    return f"{text}\n<!-- written by sage-kit card: {_digest(text)} -->\n"


def write_model_card(
    run_dir: str | os.PathLike[str], plugins: Plugins | None = None, *, overwrite: bool = False
) -> Path:
    """Write the model card of a finished run into its ``student`` folder.

    Parameters
    ----------
    run_dir : path
    plugins : Plugins or None
        As for `model_card`.
    overwrite : bool
        Whether to replace a card that somebody has changed.

    Returns
    -------
    Path
        ``student/README.md``.

    Raises
    ------
    RunDirectoryError
        As `model_card` does, when there is a card that was changed by hand, and when the folder cannot be written.
    DiskFullError
        When the disk is full.
    """
    path = RunDirectory.open(run_dir).student / CARD
    text = model_card(run_dir, plugins)
    if path.exists() and not overwrite and not _is_ours(path):
        raise RunDirectoryError(
            f"{path} was written or changed by hand: keep it, or let it be replaced with `sage-kit card {run_dir} "
            "--overwrite`"
        )
    try:
        with disk_errors(str(path)):
            write_text(path, text)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror})") from None
    return path


def without_mark(text: str) -> str:
    """A card without the line by which it is known whether somebody has changed it."""
    return _MARK.sub("", text)


def _is_ours(path: Path) -> bool:
    """Whether a card is as it was written by rule."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    mark = _MARK.search(text)
    return mark is not None and _digest(text[: mark.start()]) == mark[1]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _metadata(facts: RunFacts) -> str:
    from huggingface_hub import ModelCardData

    task = facts.config.task
    base = facts.ready_student or facts.teacher
    results = _results(facts)
    told: dict[str, Any] = {
        "language": facts.language or None,
        **_license(facts),
        "base_model": base.shown if base.on_hub else None,
        "library_name": "sentence-transformers" if facts.is_sentence_encoder else "transformers",
        "pipeline_tag": PIPELINES[facts.architecture],
        "tags": ["sage-kit", "knowledge-distillation", *([] if task == "file" else [task])],
        "datasets": [facts.data_set] if facts.data_set else None,
        "metrics": list(dict.fromkeys(one.metric_type for one in results)) or None,
        "model_name": title(facts),
        "eval_results": results or None,
    }
    if not results:
        del told["model_name"], told["eval_results"]
    return ModelCardData(**told).to_yaml()


def _license(facts: RunFacts) -> dict[str, str]:
    """The licence of what the student was made of, where all of that has one and the same."""
    models = [facts.teacher, *facts.other_teachers, *filter(None, [facts.ready_student])]
    found = dict(facts.teacher.license)
    return found if all(dict(one.license) == found for one in models) else {}


def _results(facts: RunFacts) -> list[Any]:
    """The student's scores on the validation splits, as the hub's model index has them.

    The evaluation set is no split of the data set.
    """
    from huggingface_hub import EvalResult

    task, source = facts.config.task, facts.spec.source_of(facts.spec.train_split).hub if facts.spec else None
    on_hub = bool(facts.data_set) and source is not None
    return [
        EvalResult(
            task_type=PIPELINES[facts.architecture],
            dataset_type=facts.data_set if on_hub else task,
            dataset_name=task,
            dataset_config=source.configuration or None if on_hub and source else None,
            dataset_split=one.split,
            dataset_args={"rows": one.rows},
            metric_type=HUB_METRICS.get(one.metric, one.metric),
            metric_name=one.metric,
            metric_value=round(one.value, 4),
        )
        for one in facts.scores
        if one.split not in (DEV, EVALUATION) and one.metric != AGREEMENT
    ]
