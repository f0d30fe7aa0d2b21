"""What a finished study leaves behind: result.json, tables and figures, and the predictions of the runs it compared."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

from sage_kit.components import TaskSpec
from sage_kit.components.provenance import commit
from sage_kit.config import default_settings
from sage_kit.storage.files import disk_errors
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import source_digest
from sage_kit.studies.predictions import kept, save_predictions
from sage_kit.studies.result import PREDICTIONS, RESULT, StudyResult, label_of
from sage_kit.studies.run_store import LOOP, RunStore
from sage_kit.studies.runs import ArmRun
from sage_kit.studies.saved_runs import outputs_of, save_records
from sage_kit.studies.sizes import COMMON
from sage_kit.system.devices import precision_of
from sage_kit.system.machine import describe_machine

if TYPE_CHECKING:
    from sage_kit.studies.study import Study

PACKAGES = ("sage-kit", "torch", "transformers", "numpy", "scipy", "scikit-learn", "umap-learn", "openTSNE", "pacmap")
"""Packages whose versions a result records, where they are installed."""

CODE = (LOOP, "sage_kit.studies.study")
"""Modules whose source a result's digest is of: the loop, and what a study computes with."""


class Compared:
    """Runs whose outputs a table compares, with the splits that it compares them on."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int], tuple[ArmRun, set[str]]] = {}

    def add(self, run: ArmRun, split: str) -> None:
        """Note a run and a split."""
        self._found.setdefault(_place(run), (run, set()))[1].add(split)

    def splits(self, run: ArmRun) -> list[str]:
        """The splits that a run is compared on."""
        return sorted(self._found[_place(run)][1]) if _place(run) in self._found else []

    def scoring(self, store: RunStore) -> dict[str, dict[str, Any]]:
        """By task that is compared, how it is scored, as result.json holds it."""
        first = {run.task: run for run, _ in reversed(self._found.values())}
        return {task: _scoring(first[task], store) for task in dict.fromkeys(task for task, *_ in self._found)}


def _place(run: ArmRun) -> tuple[str, str, int]:
    return run.task, run.arm, run.seed


def _spec(run: ArmRun, store: RunStore) -> TaskSpec:
    return store.data(run.config).spec


def _scoring(run: ArmRun, store: RunStore) -> dict[str, Any]:
    spec = _spec(run, store)
    return {
        "metrics": list(spec.metrics),
        **({"kind": spec.label_kind} if spec.is_structured else {}),
        "classes": len(spec.labels),
        "label_range": list(spec.label_range),
        "splits": run.splits,
    }


def save_study(study: Study, compared: Compared, changed: Mapping[str, Any], seconds: float) -> StudyResult:
    """Decide the findings and save the study's folder, result.json last. `changed` is what tells it from a study of the
    profile as it stands, and marks the folder's name.
    """
    mark = fingerprint(changed)[:6] if changed else ""
    precision = precision_of(study.config(study.tasks[0]))
    label = label_of(study.size.name, study.tasks, mark, precision)
    folder = study.results_dir / study.name / label
    there = {run.directory.path.name for run in study.all_runs}
    tries = [run for name, run in study.tries.items() if name not in there]
    result = StudyResult(
        **{name: getattr(study, name) for name in ("title", "question", "tasks", "seeds", "parameters")},
        study=study.name,
        label=label,
        profile=study.size.name,
        settings={key: value for key, value in study.settings.items() if COMMON.get(key) != value},
        defaults=default_settings(),
        findings=study.decide(),
        tables=tuple(study.tables),
        figures=tuple((f"{name}.png", caption) for name, (_, caption) in study.figures.items()),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=seconds,
        machine=describe_machine().to_json(),
        packages=_versions(),
        data={task: study.store.data_fingerprint(study.config(task)) for task in study.tasks},
        runs=tuple({**run.record(study.plugins), "splits": compared.splits(run)} for run in study.all_runs),
        tries=tuple({**run.record(study.plugins), "splits": []} for run in tries),
        scoring=compared.scoring(study.store),
        precision=precision,
        commit=commit(),
        code=source_digest(CODE),
        folder=folder,
    )
    with disk_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)
        for stale in [*folder.glob("*.parquet"), *folder.glob("*.png"), *folder.glob(PREDICTIONS)]:
            stale.unlink()
        for name, table in study.tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
        for name, (png, _) in study.figures.items():
            (folder / f"{name}.png").write_bytes(png)
    save_predictions(
        folder, outputs_of([*study.all_runs, *tries], lambda run, array: kept(array, _spec(run, study.store)))
    )
    save_records(folder, [*study.all_runs, *tries])
    result.save(folder)
    return result


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
