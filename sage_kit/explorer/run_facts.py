"""What a page tells of a run beside its map: what it is, its scores, rounds, costs and settings. JSON-ready."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_kit.config import RunConfig, field_extra, load_config
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import DataError, one_line
from sage_kit.explorer.explored_run import ExploredRun

COMPARISONS = ("agreement", "divergence")
"""What compares the student with its teacher, and is no score of the teacher."""

PRIVATE = ("cache_dir", "runs_dir", "run_dir", "data_dir")
"""Settings that tell of a machine only, and are left out of a page that may be shared."""


FOLDERS = re.compile(r"(?<![\w:])/(?:[^\s/'\"`]+/)+")
"""The folders above a file or directory, which a page that may be shared does not tell."""


def facts_of(run: ExploredRun) -> dict[str, Any]:
    """Everything about a run that is no array.

    Parameters
    ----------
    run : ExploredRun

    Returns
    -------
    dict
        JSON-ready but for NaN.
    """
    summary, config = run.summary or {}, run.config
    return {
        "name": run.name,
        "kind": "plain distillation" if run.is_plain else "SAGE",
        "is_plain": run.is_plain,
        "task": config.task,
        "metric": run.primary_metric,
        "finished": run.summary is not None,
        "stopped": summary.get("stopped", ""),
        "exported_round": summary.get("exported_round", 0),
        "teacher": _called(config.teacher) + "".join(f", {_called(name)}" for name in config.other_teachers),
        "student": _student(config),
        "map": _map(run),
        "parameters": summary.get("parameters", {}),
        "examples": summary.get("examples", {}),
        "seconds": summary.get("seconds"),
        "student_steps": run.history[-1].total_steps,
        "rounds": [result.to_json() for result in run.history],
        "splits": splits_of(run),
        "costs": run.costs,
        "settings": _settings(config),
        "notes": [FOLDERS.sub("…/", note) for note in run.notes],
    }


def splits_of(run: ExploredRun) -> list[dict[str, Any]]:
    """The scores on each split, the one to judge by first: evaluation set, validation splits, dev.

    Of a run that is not finished those of the student's latest round; the teacher's are not known.
    """
    summary = run.summary
    if summary is None:
        last = run.history[-1]
        known = {**{name: dict(scores) for name, scores in last.validation.items()}, "dev": dict(last.dev)}
        return [{"name": name, "rows": None, "student": scores, "teacher": {}} for name, scores in known.items()]
    teacher, counts = summary["teacher"], summary["examples"]
    found = {EVALUATION: (summary.get("evaluation") or {}, teacher.get("evaluation") or {})}
    found |= {name: (scores, teacher["validation"].get(name, {})) for name, scores in summary["validation"].items()}
    found["dev"] = (summary["dev"], teacher.get("dev", {}))
    return [
        {
            "name": name,
            "rows": counts.get(name),
            "student": dict(student),
            "teacher": {metric: value for metric, value in its.items() if metric not in COMPARISONS},
        }
        for name, (student, its) in found.items()
        if student
    ]


def headline(runs: list[dict[str, Any]], place: int) -> str:
    """What one run reached, in a sentence or two, beside its teacher and the first plain run of the same task.

    Parameters
    ----------
    runs : list of dict
        What `facts_of` gave.
    place : int
        Which of them.
    """
    run = runs[place]
    if not run["splits"]:
        return "No scores yet."
    split, metric = run["splits"][0], run["metric"]
    own = split["student"].get(metric)
    of_split = {EVALUATION: "the evaluation set", "dev": "the dev split"}.get(split["name"], f"split {split['name']}")
    where = f"{split['rows']:,} rows of {of_split}" if split["rows"] else of_split
    parts = []
    if own is not None:
        said = f"On {where} the student reaches {metric} {own:.3f}"
        others = []
        if (its := split["teacher"].get(metric)) is not None:
            others.append(f"its teacher {its:.3f}")
        other = plain_beside(runs, place)
        if other is not None:
            of_other = next((one for one in other["splits"] if one["name"] == split["name"]), None)
            if of_other and of_other["student"].get(metric) is not None:
                others.append(f"plain distillation {of_other['student'][metric]:.3f}")
        parts.append(f"{said}; {', '.join(others)}." if others else f"{said}.")
    if (alike := split["student"].get("agreement")) is not None:
        parts.append(
            f"It agrees with its teacher on {alike * 100:.1f} %{' of them' if own is not None else f' of {where}'}."
        )
    return " ".join(parts) or "No scores yet."


def plain_beside(runs: list[dict[str, Any]], place: int) -> dict[str, Any] | None:
    """The first plain run of the same task and metric, if the run at `place` is not one itself."""
    run = runs[place]
    if run["is_plain"]:
        return None
    alike = (one for one in runs if one["is_plain"] and (one["task"], one["metric"]) == (run["task"], run["metric"]))
    return next(alike, None)


def read_scorecard(path: Path) -> dict[str, Any]:
    """The figures of a scorecard of inversion that `sage-kit scorecard` wrote.

    Parameters
    ----------
    path : Path
        Its folder, or the file in it.

    Raises
    ------
    DataError
        When there is none.
    """
    file = path / "scorecard.json" if path.is_dir() else path
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        fidelity = {
            predictor: {metric: _value(figure) for metric, figure in figures.items()}
            for predictor, figures in card["fidelity"].items()
        }
        return {
            "task": str(card["task"]), "reducer": str(card["reducer"]), "inverter": str(card["inverter"]),
            "held_out": int(card["examples"]["held_out"]), "fidelity": fidelity,
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is no scorecard ({one_line(error, 80)}): name a folder that `sage-kit scorecard --out` wrote"
        ) from None


def _value(figure: Mapping[str, Any]) -> float:
    value = figure["value"]
    return float("nan") if value is None else float(value)


def _called(name: str) -> str:
    """A checkpoint without the folders above it."""
    return name if name.count("/") < 2 and not name.startswith(("/", ".", "~")) else name.rstrip("/").split("/")[-1]


def _student(config: RunConfig) -> str:
    if config.student:
        return _called(config.student)
    width = f", {config.student_width} wide" if config.student_width else ""
    return f"{config.student_layers} blocks{width}"


def _map(run: ExploredRun) -> str:
    if run.coordinates is None:
        return ""
    layer = f", states of block {run.config.map_layer}" if run.config.map_layer else ""
    return f"{run.config.reducer}{layer}"


def _settings(config: RunConfig) -> list[list[str]]:
    """Name and value of each setting that differs from the default, those of a machine left out."""
    usual, found = load_config(), []
    for name in RunConfig.model_fields:
        value = getattr(config, name)
        if value == getattr(usual, name) or name in PRIVATE or field_extra(name)["group"] in ("machine", "output"):
            continue
        shown = dict(value) if isinstance(value, Mapping) else value
        text = Path(value).name if isinstance(value, str) and value.startswith("/") else str(shown)
        found.append([name, text])
    return found
