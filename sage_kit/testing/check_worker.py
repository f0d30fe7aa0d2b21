"""The process in which one component is checked: it reads one line of JSON, and writes one for each check.

Started by :mod:`sage_kit.testing.isolation`. What the component prints goes elsewhere, and how it ends is told by
whoever started this.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sage_kit.components import ObserverSpec
from sage_kit.components.hooks import OBSERVING_HOOKS
from sage_kit.components.loader import ENTRY_POINT_GROUP, Origin
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.components.spec_checks import NAME
from sage_kit.errors import SageError
from sage_kit.system.child import on_standard_streams
from sage_kit.testing.exercises import as_array, recorded, require_nothing
from sage_kit.testing.registry import Check, CheckResult, NotApplicable
from sage_kit.testing.run_checks import checks_for, run_checks
from sage_kit.testing.subject import PluginsWith, Subject
from sage_kit.testing.surroundings import watched

HEARTBEAT = 1.0  # seconds between two signs of life
ALIKE = 1e-3  # largest difference between the results of two processes [standard deviations of the result]


def observing_hooks(plugins: Plugins, files: list[str]) -> list[Registered]:
    """Files that implement observing hooks themselves, each as an observer under the file's name."""
    found = []
    for file in files:
        module = sys.modules.get(f"sage_kit_plugin_{Path(file).stem}")
        hooks = [name for name in OBSERVING_HOOKS if hasattr(module, name)]
        if module is None or not hooks:
            continue
        name = Path(file).stem.lower()
        name = name if NAME.fullmatch(name) else "hooks"
        taken = {item.spec.name for item in plugins.components("observer")}
        spec = ObserverSpec(
            name=f"{name}_hooks" if name in taken else name,
            summary=f"The observing hooks of {Path(file).name}: {', '.join(hooks)}",
            factory=lambda options, context, module=module: module,  # type: ignore[misc]
        )
        found.append(Registered(spec, Origin(name, file, "")))
    return found


def serve(requests: TextIO, answers: TextIO) -> None:
    """Check what the one line of the requests names, and end the process."""
    lock = threading.Lock()

    def tell(**event: Any) -> None:
        with lock:
            answers.write(json.dumps(event) + "\n")
            answers.flush()

    message = json.loads(requests.readline())
    warnings.showwarning = lambda *arguments, **keywords: None  # they are not what a component prints
    logging.lastResort = logging.NullHandler()
    threading.Thread(target=_beat, args=(tell,), daemon=True, name="heartbeat").start()
    try:
        subject = _subject(message)
        if message["compare_with"]:
            tell(event="check", name=same_in_another_process.__name__)
            other = Path(message["compare_with"])
            check = Check(same_in_another_process.__name__, (), lambda subject: same_in_another_process(subject, other))
            # the advice stands in the function's docstring
            check.function.__doc__ = same_in_another_process.__doc__
            tell(event="result", **dataclasses.asdict(check.result(subject)))
        else:
            for result in run_checks(subject, lambda name: tell(event="check", name=name)):
                tell(event="result", **dataclasses.asdict(result))
            if message["results"]:
                _save(subject, Path(message["results"]))
        tell(event="end")
    except SageError as error:
        tell(event="failed", reason=str(error))
    except KeyboardInterrupt:  # this process has no terminal, so it was raised
        tell(event="failed", reason="it raises KeyboardInterrupt, which ends a run as if a person had stopped it")
    answers.close()
    os._exit(0)  # threads that the component left running would hold it up


def _beat(tell: Any) -> None:
    while True:
        time.sleep(HEARTBEAT)
        tell(event="alive", seconds=time.process_time())


def _subject(message: Mapping[str, Any]) -> Subject:
    """The component that the message names, with what importing its plugin changes noted."""
    files, kind, name = message["files"], message["kind"], message["name"]
    effects: dict[str, list[str]] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=message["plugin"] or "-"):
        with watched(effects, f"importing {point.module}"):
            point.load()
    with watched(effects, f"importing {', '.join(Path(file).name for file in files)}"):
        plugins = Plugins(files)
    if message["hooks"]:
        spec = next(item.spec for item in observing_hooks(plugins, files) if item.spec.name == name)
        subject = Subject(spec, None, PluginsWith(spec))
    else:
        found = next(item for item in plugins.components(kind) if item.spec.name == name)
        subject = Subject(found.spec, None, plugins)
    subject.effects.update(effects)
    return subject


def same_in_another_process(subject: Subject, results: Path) -> None:
    """Another process with the same seed and input gives the same: another time, process number and order of sets.

    To fix: draw everything random from the generator that the request brings, or from ``context.seed``; sort a set or
    what a folder lists before you go through it; do not count on ``hash()`` of a text or on ``id()``.
    """
    checks_for(subject.spec.kind)  # knows how the kind is used
    recording = recorded(subject)
    if not results.exists():
        raise NotApplicable("the first process has no results")
    before, after = json.loads(results.read_text(encoding="utf-8")), _results(subject)
    names = [name for name in before if not _alike(before[name], after.get(name))]
    size = recording.exercise.words(recording.exercise.few)
    require_nothing(names, f"two processes give different {{}} under the same seed, with {size}")


def _results(subject: Subject) -> dict[str, Any]:
    outputs = recorded(subject).few.copies
    return {name: np.asarray(as_array(values)).tolist() for name, values in outputs.items() if values is not None}


def _alike(one: Any, two: Any) -> bool:
    first, second = np.asarray(one), np.asarray(two)
    if first.shape != second.shape or first.dtype.kind != "f":
        return bool(first.shape == second.shape and (first == second).all())
    scale = float(first.std()) or 1.0
    return bool(np.abs(first - second).max(initial=0.0) <= ALIKE * scale)


def _save(subject: Subject, path: Path) -> None:
    try:
        results = _results(subject)
    except (Exception, SystemExit):  # told by the checks
        return
    if subject.spec.kind != "reducer" or subject.reducer_spec.repeatable:
        path.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    on_standard_streams(serve)

__all__ = ["CheckResult", "observing_hooks", "serve"]
