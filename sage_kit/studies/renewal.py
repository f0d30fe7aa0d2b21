"""Results of earlier code whose runs the code that is here makes again: marked as its own, so that they are found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import commit
from sage_kit.errors import StudyError
from sage_kit.storage.files import atomic_directory, disk_errors
from sage_kit.storage.reading import read_frame
from sage_kit.studies.predictions import read_predictions, save_predictions
from sage_kit.studies.result import RUN_AGAIN, StudyResult
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.verification import Check, config_of, loop_of, plugin_file


def renew(folder: Path, checks: Sequence[Check], plugin_files: Sequence[str] = ()) -> int:
    """Give the runs of a result the keys that they have by the code that is here.

    The key of a run holds the code, so a study does not find runs that were made before a change. Where the changed
    code makes the same predictions in every bit, they are its own as well. Each run that gets another key says in its
    environment, under "renewed", which code made it, and when and at which commit it was found equal.

    Parameters
    ----------
    folder : Path
        Of the result.
    checks : sequence of Check
        What `sage_kit.studies.verification.verify_folder` found of it.
    plugin_files : sequence of str
        As there.

    Returns
    -------
    int
        How many runs got another key.

    Raises
    ------
    StudyError
        Where a run that was executed again is not equal, or there is none; the result is left as it is.
    """
    unlike = next((check for check in checks if check.state != "equal"), None)
    if unlike is not None or not checks:
        why = (
            "no run was executed" if unlike is None else f"{unlike.arm or 'the result'} on {unlike.task}: {unlike.note}"
        )
        raise StudyError(
            f"{folder.parent.name} {folder.name} is not renewed, since not all predictions are equal ({why})"
        )
    result = StudyResult.load(folder)
    stores: dict[tuple[str, ...], RunStore] = {}
    now = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": commit() or None}
    names: dict[tuple[str, str], str] = {}

    def renewed(run: Mapping[str, Any]) -> Mapping[str, Any]:
        files = tuple(plugin_file(name, plugin_files) for name in run["plugin_files"])
        if files not in stores:
            stores[files] = RunStore(folder, Plugins(files), files)
        store = stores[files]
        config, loop = config_of(run, result.defaults), loop_of(run)
        code = store.code_digest(config, loop)
        key, told = store.key(config, loop, code), run["environment"]
        if key == run["key"]:
            return run
        names[run["task"], run["run"]] = name = "+".join([key, *run["run"].split("+")[1:]])
        made_by = told.get("renewed", told)["code"]  # of one that was renewed before, what made it
        environment = {**told, "code": code, "renewed": {"code": made_by, **now}}
        return {**run, "key": key, "run": name, "environment": environment}

    runs, tries = (tuple(map(renewed, part)) for part in (result.runs, result.tries))
    if names:
        _rename(folder, replace(result, runs=runs, tries=tries), names)
    return len(names)


def _rename(folder: Path, result: StudyResult, names: dict[tuple[str, str], str]) -> None:
    """Write the result with other names of runs, in every file that names them."""

    def named(row: Any) -> str:
        return names.get((row["task"], row["run"]), str(row["run"]))

    arrays = {}
    for name, array in read_predictions(folder).items():
        whose, task, split, *run = name.split("/")
        arrays["/".join([whose, task, split, *(names.get((task, one), one) for one in run)])] = array
    with disk_errors(str(folder)), atomic_directory(folder) as made:
        shutil.copytree(folder, made, dirs_exist_ok=True)
        for path in made.glob("*.parquet"):
            table = read_frame(path, StudyError, RUN_AGAIN)
            if {"task", "run"} <= set(table.columns) and len(table):
                table.assign(run=table.apply(named, axis=1)).to_parquet(path, index=False, compression="zstd")
        save_predictions(made, arrays)
        result.save(made)
