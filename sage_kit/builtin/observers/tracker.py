"""Observer `tracker`: settings and metrics to experiment trackers, through Accelerate's tracker classes.

The classes of `accelerate.tracking` are used by themselves. A second `Accelerator` made for their sake would reset what
all Accelerators of a process share (its plug-in for gradient accumulation, for one) under the run that is going on.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from sage_kit import hookimpl
from sage_kit.errors import ConfigError, MissingPackageError, SageError, did_you_mean, one_line
from sage_kit.storage.files import write_json

if TYPE_CHECKING:
    from sage_kit.builtin.observers import TrackerOptions
    from sage_kit.components import BuildContext
    from sage_kit.components.records import RoundResult, RunInfo

IDS_FILE = "trackers.json"
"""Which run of each tracker this run is, so that a resumed run goes on in the same ones."""


class TrackerObserver:
    """Sends a run to one tracker or more.

    At the start the settings go there, with the sizes of data and models; after each round every number of its
    :class:`sage_kit.components.records.RoundResult`, at step `total_steps`; at the end the summary, as
    ``summary/...``. A table's parts are named ``dev/accuracy``; NaN and infinity are left out.

    A resumed run goes on in the same run of TensorBoard, MLflow, W&B and Trackio; in another tracker it begins a new
    one at the right step. What a killed process had sent beyond its last checkpoint is hidden in TensorBoard, stays in
    the place of what comes again in W&B, and stands beside it in MLflow and Trackio.

    A tracker that fails closes all of them and disables the observer, with its name in the message.

    Parameters
    ----------
    options : TrackerOptions
    context : BuildContext

    Raises
    ------
    ConfigError
        For a tracker that Accelerate does not know, or options for one that is not chosen.
    MissingPackageError
        When a tracker's package is not installed.
    """

    def __init__(self, options: TrackerOptions, context: BuildContext) -> None:
        check_trackers(options.to, options.init)
        self._options = options
        self._trackers: dict[str, Any] = {}
        self._round = 0
        self._steps = 0

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Start the trackers, or go on with their runs after a resume, and send the settings."""
        self._steps = run.history[-1].total_steps if run.history else 0
        path = run.directory / IDS_FILE
        ids = _read_ids(path)
        values = flat_settings(run)

        def start(name: str) -> None:
            self._trackers[name] = tracker = self._start(name, run, ids.get(name))
            # TensorBoard takes each call for a run of its own; Trackio forgets the settings of a run that goes on
            if name != "tensorboard" or name not in ids:
                tracker.store_init_configuration(values)
            ids[name] = _run_id(name, tracker)

        self._each(self._options.to, start)
        write_json(path, ids)

    @hookimpl
    def sage_round_started(self, round: int) -> None:
        """Remember which activity is the round's training."""
        self._round = round

    @hookimpl
    def sage_step_finished(self, activity: str, done: int, loss: Any) -> None:
        """Send the loss of every so many training steps, if that is wanted."""
        every = self._options.every_steps
        if every and loss is not None and activity == f"round {self._round}" and (self._steps + done) % every == 0:
            self._log({"step_loss": float(loss)}, self._steps + done)

    @hookimpl
    def sage_round_finished(self, result: RoundResult) -> None:
        """Send the round's numbers."""
        self._steps = result.total_steps
        self._log(flat_numbers(result.to_json()), result.total_steps)

    @hookimpl
    def sage_run_finished(self, summary: dict[str, Any]) -> None:
        """Send the numbers of the summary and close the trackers."""
        told = {name: value for name, value in summary.items() if name not in ("rounds", "examples", "parameters")}
        self._log(flat_numbers({"summary": told}), self._steps)
        self._close()

    @hookimpl
    def sage_run_failed(self) -> None:
        """Close the trackers, so that what they have is kept."""
        self._close()

    # ---- small parts

    def _start(self, name: str, run: RunInfo, known: str | None) -> Any:
        given = dict(self._options.init.get(name, {}))
        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        run_name = self._options.run_name or run.directory.absolute().name
        places = [self._options.project]
        if tracker_class.requires_logging_directory:
            # TensorBoard finds the runs below any folder, and names them by their path
            if name == "tensorboard":
                places = [run_name] if "logging_dir" in given else ["tensorboard"]
            places.append(str(given.pop("logging_dir", run.directory)))
        settings = {**_own_settings(name, run, run_name, known, self._steps), **given}
        # some greet on the standard output, which is for results
        with contextlib.redirect_stdout(sys.stderr):
            tracker = tracker_class(*places, **settings)
            # older versions of Accelerate start a tracker as they make it
            getattr(tracker, "start", lambda: None)()
        return tracker

    def _log(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._each(self._trackers, lambda name: self._trackers[name].log(finite, step=step))

    def _close(self) -> None:
        trackers, self._trackers = self._trackers, {}

        def finish(name: str) -> None:
            with contextlib.redirect_stdout(sys.stderr):
                trackers.pop(name).finish()

        try:
            self._each(tuple(trackers), finish)
        finally:
            for name in tuple(trackers):  # those behind one that failed
                with contextlib.suppress(Exception):
                    finish(name)

    def _each(self, names: Iterable[str], action: Callable[[str], None]) -> None:
        """Do something with each tracker; where one fails, close all of them and say which it was."""
        for name in tuple(names):
            try:
                action(name)
            except Exception as error:  # a tracker's package may raise anything
                if self._trackers:
                    with contextlib.suppress(Exception):  # the first failure is the one to tell
                        self._close()
                raise SageError(f"tracker {name!r}: {type(error).__name__}: {one_line(error)}") from error


def check_trackers(names: Iterable[str], init: Mapping[str, Any]) -> None:
    """Check that the trackers are known to Accelerate and installed.

    Parameters
    ----------
    names : iterable of str
        The chosen trackers.
    init : mapping
        Options by tracker; a name that is not chosen is an error.

    Raises
    ------
    ConfigError
        For a tracker that Accelerate does not know, or options for one that is not chosen.
    MissingPackageError
        When packages are not installed; the message has the command that installs them.
    """
    title = "observer 'tracker'"
    # a class that the user has registered with Accelerate is as good as one of its own
    known = set(LOGGER_TYPE_TO_CLASS)
    own = {str(tracker) for tracker in LoggerType} & known
    available = {str(tracker) for tracker in get_available_trackers()} | known - own
    for name in names:
        if name not in known:
            raise ConfigError(f"{title}: Accelerate knows no tracker {name!r}.{did_you_mean(name, known)}")
    for name in init:
        if name not in set(names):
            raise ConfigError(
                f"{title}: option 'init' names {name!r}, which is not in 'to'.{did_you_mean(name, names)}"
            )
    missing = [name for name in names if name not in available]
    if missing:
        # each of them is a package of the tracker's name
        packages = ", ".join(repr(name) for name in missing)
        raise MissingPackageError(f"{title} needs {packages}: pip install {' '.join(missing)}")


def flat_settings(run: RunInfo) -> dict[str, bool | int | float | str]:
    """The settings under flat names, with the sizes of data and models.

    Returns
    -------
    dict
        Tables as ``reducer_options/whiten``, lists as JSON; settings that are empty are left out.
    """
    told = {**run.config.model_dump(mode="json"), "examples": run.examples, "parameters": run.parameters}
    return {name: _scalar(value) for name, value in _flat(told) if value not in ("", None, [])}


def flat_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in nested tables, by names like ``validation/validation_matched/accuracy``."""
    return {n: value for n, value in _flat(values) if isinstance(value, int | float) and not isinstance(value, bool)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _scalar(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _own_settings(name: str, run: RunInfo, run_name: str, known: str | None, steps: int) -> dict[str, Any]:
    """What a tracker is started with unless the user says otherwise.

    Parameters
    ----------
    name : str
        The tracker.
    run : RunInfo
    run_name : str
    known : str or None
        The run of the tracker to go on with; None begins one.
    steps : int
        Student steps so far.
    """
    if name == "tensorboard":
        # hides what a killed process has written beyond its last checkpoint
        return {"purge_step": steps + 1} if known else {}
    if name == "mlflow":
        return {"run_id": known} if known else {"run_name": run_name}
    if name == "wandb":
        place = {"name": run_name, "dir": str(run.directory)}
        return {**place, "id": known, "resume": "allow"} if known else place
    if name == "trackio":
        return {"name": known, "resume": "allow"} if known else {"name": run_name}
    return {}


def _run_id(name: str, tracker: Any) -> str:
    """What names the run of a tracker, for a resume."""
    if name == "mlflow":
        return str(tracker.tracker.info.run_id)
    if name == "wandb":
        return str(tracker.tracker.id)
    if name == "trackio":
        return str(tracker.tracker.name)
    return name


def _read_ids(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return ids
