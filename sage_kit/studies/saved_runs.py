"""Runs as a result keeps them, so that whoever has the result need not make them again.

A result lists its runs in result.json, their outputs lie in predictions.safetensors (`sage_kit.studies.predictions`),
and ``run_records.parquet`` beside them holds the rest of what a study reads: of each task and run the texts of
summary.json and costs.json. Results of a study on one task each, made on several machines or days, so become one over
all tasks without a run: every run of it is found.

What is not kept cannot be found: maps, loss profiles, synthetic examples, and students.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sage_kit.errors import SageError, StudyError
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.directory import SUMMARY
from sage_kit.storage.files import atomic_directory, disk_errors, write_text
from sage_kit.storage.reading import json_loads, read_frame
from sage_kit.studies.predictions import DEV, read_predictions
from sage_kit.studies.result import RUN_AGAIN, StudyResult, find_folders
from sage_kit.studies.runs import COSTS, ENVIRONMENT_FILE, ArmRun, is_by_row, scored_splits

Array = NDArray[Any]

RECORDS = "run_records.parquet"

OWN, SHARED = ("student",), ("teacher", "labels", "constant")
"""Of a split's outputs, those that each run has for itself, and those that runs of a task mostly have in common."""


def outputs_of(runs: Iterable[ArmRun], shorten: Callable[[ArmRun, Array], Array]) -> dict[str, Array]:
    """All that runs put out, by the names of `sage_kit.studies.predictions`. What has been saved of a task and split is
    not saved again of another run with the same; `shorten` says how outputs are kept.
    """
    arrays: dict[str, Array] = {}
    for run in runs:
        for split, outputs in run.predictions.items():
            for name in (*OWN, *SHARED):
                if name not in outputs:
                    continue
                array = outputs[name] if name == "labels" else shorten(run, outputs[name])
                common = f"{name}/{run.task}/{split}"
                if name in OWN or not _same(arrays.setdefault(common, array), array):
                    arrays[f"{common}/{run.directory.path.name}"] = array
    return arrays


def _same(first: Array, second: Array) -> bool:
    is_alike: bool = first.dtype == second.dtype and first.shape == second.shape
    return is_alike and first.tobytes() == second.tobytes()


def save_records(folder: Path, runs: Iterable[ArmRun]) -> None:
    """Write run_records.parquet."""
    from pandas import DataFrame

    rows = []
    for run in runs:
        texts = {name: (run.directory.path / name).read_text(encoding="utf-8") for name in (SUMMARY, COSTS)}
        rows.append({"task": run.task, "run": run.directory.path.name, **texts})
    with disk_errors(str(folder / RECORDS)):
        DataFrame(rows, columns=["task", "run", SUMMARY, COSTS]).to_parquet(
            folder / RECORDS, index=False, compression="zstd"
        )


class SavedRuns:
    """The runs that results hold.

    Parameters
    ----------
    folders : sequence of Path
        Folders of results. What is not there, not whole or not readable holds no runs.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = folders
        self._places: dict[tuple[str, str], tuple[_SavedResult, Mapping[str, Any]]] | None = None

    def has(self, task: str, key: str) -> bool:
        """Whether a result holds the run of this key."""
        return (task, key) in self._found()

    def restore(self, task: str, key: str, path: Path) -> str:
        """Write the run of this key as the folder of a finished run, and return the study and label of its result; ""
        where no result holds it whole.
        """
        if not self.has(task, key):
            return ""
        saved, run = self._found()[task, key]
        try:
            files = saved.records[task, run["run"]]
            outputs = saved.outputs(run)
            summary = json_loads(files[SUMMARY])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SageError):
            return ""
        if not {DEV, *scored_splits(summary)} <= outputs.keys():
            return ""
        told = {**run["environment"], "plugin_files": run["plugin_files"]}
        with disk_errors(str(path)), atomic_directory(path) as made:
            for name, text in {**files, ENVIRONMENT_FILE: json.dumps(told, indent=2)}.items():
                write_text(made / name, text)
            RunDirectory(made).write_predictions(outputs)
        return f"{saved.result.study} {saved.result.label}"

    def _found(self) -> dict[tuple[str, str], tuple[_SavedResult, Mapping[str, Any]]]:
        if self._places is None:
            self._places = {}
            folders = [folder for root in self._folders if root.is_dir() for folder in find_folders(root)]
            for folder in folders:
                if not (folder / RECORDS).is_file():
                    continue
                try:
                    saved = _SavedResult(StudyResult.load(folder), folder)
                except StudyError:
                    continue
                for run in (*saved.result.runs, *saved.result.tries):
                    self._places.setdefault((run["task"], run["key"]), (saved, run))
        return self._places


class _SavedResult:
    """One result's folder, whose files are read once they are asked for."""

    def __init__(self, result: StudyResult, folder: Path) -> None:
        self.result = result
        self._folder = folder

    @cached_property
    def records(self) -> dict[tuple[str, str], dict[str, str]]:
        """By task and run the texts of its files."""
        table = read_frame(self._folder / RECORDS, StudyError, RUN_AGAIN, columns=["task", "run", SUMMARY, COSTS])
        return {
            (row["task"], row["run"]): {name: row[name] for name in (SUMMARY, COSTS)}
            for row in table.to_dict("records")
        }

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return read_predictions(self._folder)

    def outputs(self, run: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
        """What a run put out, by split, as its own folder holds it."""
        found: dict[str, dict[str, Array]] = {}
        names = [name.split("/") for name in self._arrays]
        splits = [
            split for whose, task, split, *of in names if (whose, task, of) == ("student", run["task"], [run["run"]])
        ]
        for split in splits:
            arrays = {}
            for name in (*OWN, *SHARED):
                common = f"{name}/{run['task']}/{split}"
                array = self._arrays.get(f"{common}/{run['run']}", self._arrays.get(common))
                if array is not None:
                    arrays[name] = array
            found[split] = _as_written(arrays)
        return found


def _as_written(arrays: dict[str, Array]) -> dict[str, Array]:
    """Outputs under the names that a run's own folder has for them."""
    if not is_by_row(arrays):
        return arrays
    return {f"{name}_rows": array for name, array in arrays.items() if name != "labels"}
