"""Finished runs of a study's arms, and what a study reads of them: scores, costs, and outputs on every split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, default_settings
from sage_kit.data.metrics import divergence
from sage_kit.data.splits import EVALUATION
from sage_kit.recipe import resolve
from sage_kit.rundir import RunDirectory
from sage_kit.studies.predictions import halved

if TYPE_CHECKING:
    from pandas import DataFrame

COSTS, ENVIRONMENT_FILE = "costs.json", "environment.json"

ENVIRONMENT = ("code", "commit", "precision", "device", "threads", "processor", "instructions", "card", "torch")
"""What a record of a run takes from its environment.json."""

Loop = Callable[[RunConfig, Plugins, list[str]], tuple[RunDirectory, dict[str, Any]]]
"""What makes a run in the place of `sage_kit.distill.run`: a module's function, whose source tells its runs apart."""


@dataclass(frozen=True)
class ArmRun:
    """A finished run of an arm.

    Attributes
    ----------
    arm : str
    task : str
    seed : int
    directory : RunDirectory
    config : RunConfig
    summary : mapping
        What summary.json holds.
    found : bool
        Whether an earlier study had made it.
    loop : str
        "module:function" of what made it; "" for `sage_kit.distill.run`.
    """

    arm: str
    task: str
    seed: int
    directory: RunDirectory
    config: RunConfig
    summary: Mapping[str, Any]
    found: bool
    loop: str = ""

    @property
    def place(self) -> dict[str, Any]:
        """Task, arm and seed."""
        return {"task": self.task, "arm": self.arm, "seed": self.seed}

    @property
    def metric(self) -> str:
        """Name of the task's primary metric."""
        return str(self.summary["primary_metric"])

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """What costs.json holds."""
        return self.directory.costs()

    @cached_property
    def predictions(self) -> dict[str, dict[str, NDArray[Any]]]:
        """By split: "student" and "teacher", logits of shape (n, n_outputs), and "labels" of shape (n,). Of labels that
        are neither classes nor numbers, `sage_kit.training.row_scores` as these, and row numbers as labels.
        """
        found = self.directory.predictions()
        return {split: _by_row(arrays) if "student_rows" in arrays else arrays for split, arrays in found.items()}

    def divergence(self, split: str = "dev") -> float:
        """Mean divergence of student from teacher on a split (`sage_kit.data.metrics.divergence`)."""
        outputs = self.predictions[split]
        if is_by_row(outputs):
            return float(outputs["student"][:, 1].mean())
        # of outputs as a result keeps them, so that a run found there has the same
        return float(divergence(halved(outputs["teacher"]), halved(outputs["student"])).mean())

    @property
    def splits(self) -> list[str]:
        """Names of the validation splits in order, and "evaluation" where there is such a set."""
        return scored_splits(self.summary)

    def record(self, plugins: Plugins) -> dict[str, Any]:
        """What it takes to execute the run again, as `sage_kit.studies.result` describes it, without splits."""
        told = self.directory.environment()
        options = {f"{kind}_options": values for kind, values in resolve(self.config, plugins).options.items()}
        usual = default_settings()
        settings = {
            name: value
            for name, value in {**self.config.model_dump(mode="json"), **options}.items()
            if name in usual and value != usual[name]
        }
        return {
            **self.place,
            "run": self.directory.path.name,
            "key": self.directory.path.name.partition("+")[0],
            "settings": settings,
            "loop": self.loop,
            "plugin_files": [Path(file).name for file in told["plugin_files"]],
            "environment": {name: told.get(name) for name in ENVIRONMENT}
            | ({"renewed": told["renewed"]} if "renewed" in told else {}),
        }

    def row(self) -> dict[str, Any]:
        """The run as a row of the table `runs`."""
        summary, flops = self.summary, self.costs["flops"]
        splits: dict[str, dict[str, float]] = summary["validation"]
        split = next(iter(splits), "")
        scores = splits.get(split, {})
        teacher = summary["teacher"]
        evaluation = summary.get("evaluation", {})
        return {
            **self.place,
            "metric": self.metric,
            "dev": _number(summary["dev"].get(self.metric)),
            "dev_agreement": _number(summary["dev"].get("agreement")),
            "dev_divergence": self.divergence("dev"),
            "validation": _number(scores.get(self.metric)),
            "validation_agreement": _number(scores.get("agreement")),
            "validation_split": split,
            "evaluation": _number(evaluation.get(self.metric)),
            "evaluation_agreement": _number(evaluation.get("agreement")),
            "evaluation_divergence": _number(evaluation.get("divergence")),
            "teacher_dev": _number(teacher["dev"].get(self.metric)),
            "teacher_validation": _number(teacher["validation"].get(split, {}).get(self.metric)),
            "teacher_evaluation": _number(teacher.get("evaluation", {}).get(self.metric)),
            "student_steps": summary["student_steps"],
            "teacher_tokens": summary["teacher_tokens"],
            "student_flops": flops.get("student", 0),
            "teacher_flops": flops.get("teacher", 0),
            "rounds": len(summary["rounds"]),
            "stopped": summary["stopped"],
            "seconds": summary["seconds"],
            "parameters": summary["parameters"]["student"],
            "trained_parameters": summary["parameters"]["student_trained"],
            "train_examples": summary["examples"]["train"],
            "dev_examples": summary["examples"]["dev"],
            "validation_examples": summary["examples"].get(split, 0),
            "evaluation_examples": summary["examples"].get(EVALUATION, 0) if evaluation else 0,
            "teacher_examples": summary["examples"].get("teacher", summary["examples"]["train"]),
            "run": self.directory.path.name,
        }


def scored_splits(summary: Mapping[str, Any]) -> list[str]:
    """Of a run's summary, names of the validation splits in order, and "evaluation" where there is such a set."""
    return [*summary["validation"], *([EVALUATION] if summary.get("evaluation") else [])]


def is_by_row(outputs: Mapping[str, NDArray[Any]]) -> bool:
    """Whether what each row scores stands in the place of a split's outputs."""
    return "constant" in outputs


def _by_row(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What each row scores in the place of outputs of tokens."""
    found = {name.removesuffix("_rows"): array for name, array in arrays.items() if name.endswith("_rows")}
    return {**found, "labels": np.arange(len(found["student"]))}


class Runs:
    """Finished runs, by task, arm and seed, in the order in which they were asked for."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        self._runs = list(runs)

    def __iter__(self) -> Iterator[ArmRun]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def arms(self) -> list[str]:
        """Names of the arms."""
        return list(dict.fromkeys(run.arm for run in self))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(dict.fromkeys(run.task for run in self))

    def of(self, *, task: str = "", arm: str = "") -> list[ArmRun]:
        """The runs of a task, of an arm, or of both, by seed."""
        chosen = [run for run in self if task in ("", run.task) and arm in ("", run.arm)]
        return sorted(chosen, key=lambda run: run.seed)

    def table(self) -> DataFrame:
        """One row per run: scores, steps, tokens, FLOPs, seconds."""
        from pandas import DataFrame

        return DataFrame([run.row() for run in self])

    def rounds(self) -> DataFrame:
        """One row per round: task, arm, seed, what `RoundResult` holds, and the primary metric as "dev_score"."""
        from pandas import DataFrame

        rows = []
        for run in self:
            for result in run.summary["rounds"]:
                numbers = {name: value for name, value in result.items() if name not in ("dev", "validation")}
                scores = {
                    "dev_score": _number(result["dev"].get(run.metric)),
                    "dev_agreement": _number(result["dev"].get("agreement")),
                }
                rows.append({**run.place, **numbers, **scores})
        return DataFrame(rows)

    def labels(self, task: str, split: str = "dev") -> NDArray[Any]:
        """Gold labels of a split, of shape (n,); -1 or NaN where there is none."""
        return np.asarray(self.of(task=task)[0].predictions[split]["labels"])

    def splits(self, task: str) -> list[str]:
        """Names of the validation splits in order, and "evaluation" where there is such a set."""
        return self.of(task=task)[0].splits

    def logits(self, task: str, arm: str, split: str = "dev") -> NDArray[np.float32]:
        """The students' outputs on a split, of shape (seeds, n, n_outputs)."""
        return np.array([run.predictions[split]["student"] for run in self.of(task=task, arm=arm)])

    def teacher_logits(self, task: str, split: str = "dev") -> NDArray[np.float32]:
        """The teacher's outputs on a split, of shape (n, n_outputs)."""
        return np.asarray(self.of(task=task)[0].predictions[split]["teacher"])


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
