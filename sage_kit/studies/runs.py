"""Runs of arms, made once: a finished run with the same settings, code and data is found again, by any study.

A run lies in ``<runs_dir>/<task>/<key>/``, where the key is a fingerprint of whatever shapes the result: settings, the
source of the loop and of the chosen components (`sage_kit.storage.source_digest`), data, and the content of the
teacher. What only a resume needs is removed when it is finished, and so are synthetic examples and the student unless a
study looks at them: then the folder is called ``<key>+synthetic`` or the like, and lies beside that of a study that did
not.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import sage_kit
from sage_kit.components import Options
from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import commit, component_parts, plain_fields, registered_parts
from sage_kit.config import RunConfig, default_settings, field_extra, load_config
from sage_kit.data.corpus import find_corpus
from sage_kit.data.encoding import label_parts
from sage_kit.data.metrics import divergence
from sage_kit.data.scoring import load_scored
from sage_kit.data.splits import EVALUATION, TaskData
from sage_kit.errors import CompatibilityError, RunDirectoryError, RunHeldError, RunInUseError
from sage_kit.recipe import CHOSEN_KINDS, has_labels, resolve
from sage_kit.rundir import PREDICTIONS, RunDirectory
from sage_kit.storage.files import disk_errors, write_json
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import LEAVES, modules_of, source_digest
from sage_kit.studies.contents import checkpoint_content, file_content, teacher_parts
from sage_kit.system.devices import device_of, precision_of
from sage_kit.system.machine import describe_machine

if TYPE_CHECKING:
    from pandas import DataFrame

SYNTHETIC = "synthetic"
STUDENT = "student"
PARTS = (SYNTHETIC, STUDENT)  # what of a finished run may be kept beyond its records and predictions
VERSION = "runs-4"

LOOP = "sage_kit.distill"  # the module that makes runs, unless an arm brings a loop of its own
ENVIRONMENT_FILE = "environment.json"

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
        text = (self.directory.path / "costs.json").read_text(encoding="utf-8")
        return dict(json.loads(text))

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
        return float(divergence(outputs["teacher"], outputs["student"]).mean())

    @property
    def splits(self) -> list[str]:
        """Names of the validation splits in order, and "evaluation" where there is such a set."""
        return [*self.summary["validation"], *([EVALUATION] if self.summary.get("evaluation") else [])]

    def record(self, plugins: Plugins) -> dict[str, Any]:
        """What it takes to execute the run again, as `sage_kit.studies.result` describes it, without splits."""
        told = json.loads((self.directory.path / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
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
            "environment": {name: told.get(name) for name in ENVIRONMENT},
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


class RunStore:
    """Makes runs, or finds them."""

    def __init__(
        self, root: Path, plugins: Plugins, plugin_files: Sequence[str] = (), *, structured: bool = True
    ) -> None:
        self.structured = structured  # whether tasks may have labels that are neither classes nor numbers
        self.root = root
        self.plugins = plugins
        self.plugin_files = list(plugin_files)
        self._data: dict[str, tuple[TaskData, str]] = {}

    def data(self, config: RunConfig) -> TaskData:
        """A task's data under these settings, loaded once."""
        return self._load(config)[0]

    def data_fingerprint(self, config: RunConfig) -> str:
        """A fingerprint of the texts and labels of every split."""
        return self._load(config)[1]

    def run(
        self,
        arm: str,
        config: RunConfig,
        *,
        keep: Sequence[str] = (),
        announce: Callable[[str], None] = print,
        loop: Loop | None = None,
        wait: bool = True,
    ) -> ArmRun:
        """The finished run of an arm with these settings: found, gone on with, or made.

        `keep` holds what of `PARTS` must be there; `announce` is told in one line what becomes of the run; `loop` None
        takes `sage_kit.distill.run`; `wait` says whether to wait where another study is making it (else RunHeldError).
        """
        from filelock import FileLock, Timeout

        digest = self.code_digest(config, loop)
        key = self.key(config, loop, digest)
        path = self.root / config.task / "+".join([key, *sorted(set(keep))])
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path.parent / f".{path.name}.lock").acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise RunHeldError(f"{path} is in the hands of another study: wait for it") from None
        with lock:
            found = self._find(path, key)
            summary = self._make(path, config, loop, keep, digest) if found is None else found[1]
        directory = RunDirectory(path if found is None else found[0])
        made_by = "" if loop is None else f"{loop.__module__}:{loop.__qualname__}"
        run = ArmRun(arm, config.task, config.seed, directory, config, summary, found is not None, made_by)
        row = run.row()
        announce(
            f"{config.task}, {arm}, seed {config.seed}: {run.metric} {row['dev']:.4f}, agreement "
            f"{row['dev_agreement']:.4f} on dev; {row['student_steps']} steps, {row['teacher_tokens']:,} teacher tokens"
            + (" (found)" if run.found else f", {row['seconds']:.0f} s")
        )
        return run

    def has(self, config: RunConfig, loop: Loop | None = None) -> bool:
        """Whether a finished run with these settings is there, whatever it keeps."""
        key = self.key(config, loop)
        return self._find(self.root / config.task / key, key) is not None

    def key(self, config: RunConfig, loop: Loop | None = None, digest: str = "") -> str:
        """16 hexadecimal digits for settings, precision, code, versions, data, and content of the teacher.

        Only what the run uses counts: plain distillation is the same whatever it would synthesise by. Options count
        with their defaults, so that a changed default is another run.
        """
        digest = digest or self.code_digest(config, loop)
        skipped = {"output", "machine"} | ({"synthesis"} if config.schedule == "none" else set())
        names = {name for name in RunConfig.model_fields if field_extra(name)["group"] not in skipped}
        # of these the content counts
        names -= {"data_dir", "train_file", "validation_file", "evaluation_file", "transfer_file", "teacher"}
        names -= {"tokenizer", "warmup_corpus", "student", "other_teachers"}
        names |= {"schedule", "losses_from", "vector_dtype", "compile"}
        if config.evaluate_validation == "never":  # it lacks what others have
            names.add("evaluate_validation")
        # in the digest
        names -= {"losses", "loss_options"}.union(*((kind, f"{kind}_options") for kind in CHOSEN_KINDS))
        settings = config.model_dump(mode="json", include=names)
        models = [config.teacher, config.tokenizer, config.student, *config.other_teachers]
        checkpoints = [checkpoint_content(name) for name in models]
        data = [self.data_fingerprint(config), plain_fields(self.data(config).spec)]
        content = [*data, *checkpoints, _corpus_content(config)]
        return fingerprint(VERSION, sage_kit.__version__, settings, precision_of(config), digest, content)[:16]

    def code_digest(self, config: RunConfig, loop: Loop | None = None) -> str:
        """A digest of the code that makes a run: of the loop, and of the chosen components with their options. It is
        the same wherever the code lies, and moves with the versions of the packages that compute.
        """
        parts: list[Any] = [source_digest({LOOP, *(modules_of(loop) if loop is not None else ())})]
        if loop is not None:
            parts.append([loop.__module__, loop.__qualname__])
        recipe = resolve(config, self.plugins)
        used = [(kind, recipe[kind].name, recipe[kind].options) for kind in recipe]
        used += [("loss", name, loss.options) for name, loss in recipe.losses.items()]
        used += [("observer", name, config.observer_options.get(name, {})) for name in self._observers(config)]
        task = self.plugins.task(config.task, config.task_options, file_kind=config.task_kind)
        if task.is_structured and not self.structured:
            raise CompatibilityError(
                f"this study looks at classes and numbers, and task {config.task!r} {has_labels(task)}: take another "
                "task, one of the studies that compare scores alone (08 and 17), or `sage-kit run`"
            )
        metrics = config.metrics or task.metrics
        used += [("metric", name, config.metric_options.get(name, {})) for name in metrics]
        used.append(("task_kind", task.kind_name, Options()))
        parts += [component_parts(self.plugins, *one) for one in used]
        parts += [str(loss.weight) for loss in recipe.losses.values()]
        families = [teacher_parts(name) for name in (config.teacher, config.student, *config.other_teachers) if name]
        return fingerprint(*parts, registered_parts(self.plugins.registered("task", config.task)), *families)

    def _observers(self, config: RunConfig) -> list[str]:
        """The observers that write what a study may read, and not only show something."""
        return [
            name
            for name in sorted(set(config.observers))
            if not modules_of(self.plugins.spec("observer", name).factory) & set(LEAVES)
        ]

    def _find(self, path: Path, key: str) -> tuple[Path, dict[str, Any]] | None:
        """Folder and summary of a finished run of this key that keeps what the name of `path` says, or more."""
        wanted = set(path.name.split("+")[1:])
        for candidate in [path, *sorted(path.parent.glob(f"{key}*"))]:
            if not wanted <= set(candidate.name.split("+")[1:]) or not (candidate / PREDICTIONS).is_file():
                continue
            try:
                summary = RunDirectory(candidate).summary()
            except RunDirectoryError:
                continue
            if summary is not None:
                return candidate, summary
        return None

    def _make(
        self, path: Path, config: RunConfig, loop: Loop | None, keep: Sequence[str], digest: str
    ) -> dict[str, Any]:
        from sage_kit.distill import run

        summary = None if loop is not None else self._resume(path)
        if summary is None:
            _remove(path)
            config = load_config({**config.model_dump(), "run_dir": str(path)})
            _, summary = (loop or run)(config, self.plugins, self.plugin_files)
        _note(path / ENVIRONMENT_FILE, config, digest)
        shutil.rmtree(path / "checkpoints", ignore_errors=True)
        if STUDENT not in keep:
            shutil.rmtree(path / STUDENT, ignore_errors=True)
        if SYNTHETIC not in keep:
            for file in path.glob("rounds/*/synthetic.safetensors"):
                file.unlink()
        return summary

    def _resume(self, path: Path) -> dict[str, Any] | None:
        """The summary of a run that was interrupted here and gone on with; None where there is none."""
        from sage_kit.distill import resume

        if not (path / "config.toml").is_file():
            return None
        try:
            return resume(RunDirectory.open(path), self.plugins)
        except RunInUseError:
            raise
        except RunDirectoryError:
            return None  # of another version, or damaged: it can always be made again

    def _load(self, config: RunConfig) -> tuple[TaskData, str]:
        names = {name for name in RunConfig.model_fields if field_extra(name)["group"] == "data"} - {"max_length"}
        key = json.dumps(config.model_dump(mode="json", include=names), sort_keys=True)
        if key not in self._data:
            data = load_scored(self.plugins, config, lambda text: None)
            splits = data.splits.values()
            parts = [[split.name, split.texts, split.pairs, label_parts(split.labels)] for split in splits]
            self._data[key] = data, fingerprint(*parts)
        return self._data[key]


def _remove(path: Path) -> None:
    """Remove a run's folder, unless another process holds it: then RunInUseError."""
    if not path.is_dir():
        return
    directory = RunDirectory(path)
    directory.lock()
    shutil.rmtree(path, ignore_errors=True)
    directory.unlock()
    shutil.rmtree(path, ignore_errors=True)  # where a file that is open cannot be removed, the lock is left


def _corpus_content(config: RunConfig) -> str:
    """Of a warm-up corpus that is a file, its content; of another its name."""
    path = find_corpus(config) if config.warmup_corpus else None
    return config.warmup_corpus if path is None else file_content(path)


def _note(path: Path, config: RunConfig, digest: str) -> None:
    """Add to a run's record of its environment what whoever makes it again must know (`ENVIRONMENT`)."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    machine = describe_machine()
    told |= {"code": digest, "commit": commit() or None, "precision": precision_of(config)}
    told |= {"device": str(device_of(config)), "instructions": list(machine.instructions)}
    told |= {name: getattr(machine, name) for name in ("threads", "processor", "card", "torch")}
    with disk_errors(str(path)):
        write_json(path, told)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
