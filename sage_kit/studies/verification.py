"""Whether the code that is here still makes a result: its runs are executed again and their predictions compared.

On the machine that made a run, or one of the same kind, the predictions must be equal in every bit that is saved. Of
the same kind are machines with the same processor, instruction sets, GPU and device, on which torch has the same
version and the run the same precision; the number of threads is set to that of the run. Elsewhere sums are rounded
otherwise, and training carries that on: `TOLERANCE` and `ALIKE` say how far two machines that run the same code may be
apart.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

import sage_kit
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.errors import SageError, StudyError
from sage_kit.storage.files import TEMPORARY_PREFIX
from sage_kit.storage.reading import json_loads
from sage_kit.studies.predictions import halved, read_predictions
from sage_kit.studies.result import RESULT, StudyResult
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import ENVIRONMENT, Loop, is_by_row
from sage_kit.system.machine import describe_machine

TOLERANCE = 0.02
"""Mean absolute difference of probabilities, or of a number in units of its spread, that another machine may make.

Measured on SST-2 (MiniLM): after 45 steps in fp32, AVX2 against AVX-512, 1e-7 on average and 1e-6 at most; after 30 in
bf16, one thread against two, 4e-4 and 3e-3. The rest is room for longer runs.
"""

ALIKE = 0.97  # share of predicted classes that must be the same on another machine

KIND = ("precision", "device", "threads", "processor", "instructions", "card", "torch")
"""What of two environments must be alike for equal bits."""

DATA_CHANGED = "its data has changed"

State = Literal["equal", "within", "differs", "impossible"]

MEANINGS: Mapping[State, str] = {"equal": "equal bits", "within": "within tolerance", "differs": "differs",
                                 "impossible": "cannot be executed"}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """What became of one run that was executed again."""

    study: str
    label: str
    task: str
    arm: str
    seed: int
    state: State
    note: str = ""  # why it is impossible, or how far the predictions are apart
    # "same" or "changed": whether the digest of the code is that of the result; "" where that is not known
    code: str = ""
    # largest absolute difference of probabilities over all splits; NaN unless predictions were compared
    difference: float = float("nan")
    seconds: float = 0.0  # wall time [s]

    @property
    def is_good(self) -> bool:
        """Whether the result stands."""
        return self.state in ("equal", "within")


def verify_folder(
    folder: Path,
    *,
    seed: int | None = None,
    every_seed: bool = False,
    plugin_files: Sequence[str] = (),
    announce: Callable[[str], None] = lambda text: None,
) -> list[Check]:
    """Execute runs of a result again, one of each task and arm, and compare their predictions with those saved.

    At least one. A result that holds no predictions, or is of an earlier version, is one that is impossible. Of each
    arm the run of that seed, None for the smallest, or with `every_seed` all. One-file plugins are found by the names
    that the result tells; those beside the notebooks need not be named.
    """
    try:
        result = StudyResult.load(folder)
        saved = read_predictions(folder)
    except StudyError as error:
        why = str(error)
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            if not json_loads((folder / RESULT).read_bytes()).get("runs"):  # of an earlier version
                why = (
                    "its predictions and the digest of its code are not saved, so it cannot be verified: make it again"
                )
        return [Check(folder.parent.name, folder.name, "", "", -1, "impossible", why)]
    chosen = _chosen(result.runs, seed, every_seed)
    if not chosen:
        why = "it tells no runs" if not result.runs else f"it has no runs of seed {seed}"
        return [Check(result.study, result.label, "", "", -1, "impossible", f"{why}, so it cannot be verified")]
    checks = []
    for number, run in enumerate(chosen, start=1):
        announce(
            f"{result.study} {result.label}, {number} of {len(chosen)}: {run['task']}, {run['arm']}, seed {run['seed']}"
        )
        checks.append(_verify(result, run, saved, plugin_files))
    return checks


def _chosen(runs: Sequence[Mapping[str, Any]], seed: int | None, every_seed: bool) -> list[Mapping[str, Any]]:
    ordered = sorted(runs, key=lambda run: int(run["seed"]))
    if every_seed:
        return ordered
    of_seed = [run for run in ordered if seed in (None, int(run["seed"]))]
    first = {(run["task"], run["arm"]): run for run in reversed(of_seed)}
    return [run for run in of_seed if first[run["task"], run["arm"]] is run]


def _verify(
    result: StudyResult, run: Mapping[str, Any], saved: Mapping[str, NDArray[Any]], plugin_files: Sequence[str]
) -> Check:
    started = time.perf_counter()

    def check(state: State, note: str = "", code: str = "", difference: float = float("nan")) -> Check:
        seconds = time.perf_counter() - started
        place = (result.study, result.label, str(run["task"]), str(run["arm"]), int(run["seed"]))
        return Check(*place, state, note, code, difference, seconds)

    names = {name: name.split("/") for name in saved if name.startswith("student/")}
    before = {split: saved[name] for name, (_, task, split, one) in names.items()
              if (task, one) == (run["task"], run["run"])}  # fmt: skip
    if not before:
        return check("impossible", "its predictions are not saved: make the result again")
    told = run["environment"]
    if not told.get("code"):
        return check("impossible", "the digest of its code is not saved: make the result again")
    code = ""
    try:
        files = [plugin_file(name, plugin_files) for name in run["plugin_files"]]
        config = config_of(run, result.defaults)
        loop = loop_of(run)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder, _threads(told.get("threads")):
            store = RunStore(Path(folder), Plugins(files), files)
            code = "same" if store.code_digest(config, loop) == told["code"] else "changed"
            again = store.run(str(run["arm"]), config, loop=loop, announce=lambda text: None)
            here = again.record(store.plugins)["environment"]
            after = {split: outputs for split, outputs in again.predictions.items() if split in before}
    except SageError as error:
        return check("impossible", str(error), code)
    except Exception as error:  # code that has changed may raise anything
        text = " ".join(str(error).split())
        return check("impossible", f"{type(error).__name__}: {text}".removesuffix(": "), code)
    is_alike = all(told.get(name) == here.get(name) for name in KIND)
    apart: list[tuple[float, float, float]] = []
    for split, logits in before.items():
        if split not in after or after[split]["student"].shape != logits.shape:
            return check("impossible", f"{DATA_CHANGED}: split {split!r} has other rows than the result's", code)
        labels = saved.get(f"labels/{run['task']}/{split}")
        is_same = labels is None or np.array_equal(labels, after[split]["labels"], equal_nan=labels.dtype.kind == "f")
        if labels is not None and len(labels) == len(logits) and not is_same:
            return check("impossible", f"{DATA_CHANGED}: split {split!r} has other labels than the result's", code)
        now = after[split]["student"]
        apart += _row_differences(logits, now) if is_by_row(after[split]) else _differences(logits, halved(now))
    if not apart:
        return check("equal", "", code, 0.0)
    alike, means, most = zip(*apart, strict=True)
    same, mean, largest = min(alike), max(means), max(most)
    state: State = "within" if not is_alike and mean <= TOLERANCE and same >= ALIKE else "differs"
    where = "the same kind of machine" if is_alike else f"another kind of machine ({_differing(told, here)})"
    how = f"{same:.1%} predicted alike, mean difference {mean:.2g}, largest {largest:.2g}"
    return check(state, f"{how}; on {where}", code, largest)


def config_of(run: Mapping[str, Any], defaults: Mapping[str, Any]) -> RunConfig:
    """A run's settings, in the precision that it was made in; what it left out is as it was by default then."""
    usual = {name: value for name, value in defaults.items() if name in RunConfig.model_fields}
    settings = {**usual, **run["settings"], "task": run["task"], "seed": run["seed"]}
    if run["environment"].get("precision"):
        settings["precision"] = run["environment"]["precision"]
    return load_config(settings)


def loop_of(run: Mapping[str, Any]) -> Loop | None:
    """What made a run in the place of `sage_kit.distill.run`, if anything did."""
    name = str(run["loop"])
    if not name:
        return None
    module, _, function = name.partition(":")
    if module.partition(".")[0] != sage_kit.PROJECT and module not in sys.modules:
        # a result is read, and what it names is not imported: a loop of one's own comes with a plugin or a notebook
        raise StudyError(
            f"what made the run, {name}, is no part of sage_kit, and is not executed: make the result again"
        )
    try:
        found: Loop = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError):
        raise StudyError(f"what made the run, {name}, is not there any more: make the result again") from None
    return found


def plugin_file(name: str, given: Sequence[str]) -> str:
    """The path of a one-file plugin by its name."""
    named = next((file for file in given if Path(file).name == name), None)
    if named is not None:
        return named
    if Path(name).name != name:
        raise StudyError(f"its one-file plugin {name} is a path, and a result tells names alone: name it with --plugin")
    # those that come with sage_kit: what lies in the current folder is executed where it is named alone
    package = Path(sage_kit.__file__).resolve().parent
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        if (folder / "plugins" / name).is_file():
            return str(folder / "plugins" / name)
    raise StudyError(f"its one-file plugin {name} is not here: name it with --plugin")


@contextlib.contextmanager
def _threads(number: Any) -> Iterator[None]:
    """As many threads as the run had, as far as there are cores."""
    before = torch.get_num_threads()
    cores = describe_machine().cores
    torch.set_num_threads(min(int(number or before), max(cores, before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _differing(told: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In what two environments differ, in words."""
    names = [name for name in ENVIRONMENT if name in KIND and told.get(name) != here.get(name)]
    return "; ".join(f"{name} {_text(told.get(name))} there and {_text(here.get(name))} here" for name in names)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "none")


def _row_differences(before: NDArray[Any], now: NDArray[Any]) -> list[tuple[float, float, float]]:
    """The same of tables of what each row scores: the share of rows with equal scores, and differences of these."""
    if before.tobytes() == now.tobytes():
        return []
    apart = np.abs(np.nan_to_num(before, nan=-1.0).astype(np.float64) - np.nan_to_num(now, nan=-1.0))
    return [(float((apart[:, 2:] == 0).all(axis=1).mean()), float(apart[:, 1].mean()), float(apart[:, 1].max()))]


def _differences(before: NDArray[Any], now: NDArray[Any]) -> list[tuple[float, float, float]]:
    """Of logits (n, n_outputs) the share that is predicted alike, and mean and largest difference; none of equal bits.
    Differences are of probabilities, or of a number in units of its spread.
    """
    if before.dtype == now.dtype and before.tobytes() == now.tobytes():
        return []
    first, second = (np.asarray(logits, np.float64) for logits in (before, now))
    if first.shape[1] == 1:
        alike, apart = 1.0, np.abs(first - second)[:, 0] / (float(first.std()) or 1.0)
    else:
        apart = np.abs(softmax(first, axis=1) - softmax(second, axis=1)).max(axis=1)
        alike = float((first.argmax(1) == second.argmax(1)).mean())
    finite = np.nan_to_num(apart, nan=np.inf)
    return [(alike, float(finite.mean()), float(finite.max()))]
