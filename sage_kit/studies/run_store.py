"""Runs of arms, made once: a finished run with the same settings, code and data is found again, by any study.

A run lies in ``<runs_dir>/<task>/<key>/``, where the key is a fingerprint of whatever shapes the result: settings, the
source of the loop and of the chosen components (`sage_kit.storage.source_digest`), data, and the content of the
teacher. What only a resume needs is removed when it is finished, and so are synthetic examples and the student unless a
study looks at them: then the folder is called ``<key>+synthetic`` or the like, and lies beside that of a study that did
not. A run that no study here has made may be found in a result (`sage_kit.studies.saved_runs`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sage_kit
from sage_kit.components import Options
from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import commit, component_parts, plain_fields, registered_parts
from sage_kit.config import RunConfig, field_extra, load_config
from sage_kit.data.corpus import find_corpus
from sage_kit.data.encoding import label_parts
from sage_kit.data.scoring import load_scored
from sage_kit.data.splits import TaskData
from sage_kit.errors import CompatibilityError, RunDirectoryError, RunHeldError, RunInUseError
from sage_kit.recipe import CHOSEN_KINDS, has_labels, resolve
from sage_kit.rundir import PREDICTIONS, RunDirectory
from sage_kit.storage.files import disk_errors, write_json
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.reading import json_loads
from sage_kit.storage.source_digest import LEAVES, modules_of, source_digest
from sage_kit.studies.contents import checkpoint_content, file_content, teacher_parts
from sage_kit.studies.run_count import RunCount
from sage_kit.studies.runs import ENVIRONMENT_FILE, ArmRun, Loop
from sage_kit.studies.saved_runs import SavedRuns
from sage_kit.system.devices import device_of, precision_of
from sage_kit.system.machine import describe_machine

SYNTHETIC = "synthetic"
STUDENT = "student"
PARTS = (SYNTHETIC, STUDENT)  # what of a finished run may be kept beyond its records and predictions
VERSION = "runs-4"

LOOP = "sage_kit.distill"  # the module that makes runs, unless an arm brings a loop of its own

RECORDED = frozenset({"costs", "jsonl", "limits", "loss_profile", "progress", "tracker"})
"""Observers that write nothing which a study reads beyond what a result keeps of a run, unless it keeps parts of it."""


class RunStore:
    """Makes runs, or finds them."""

    def __init__(
        self,
        root: Path,
        plugins: Plugins,
        plugin_files: Sequence[str] = (),
        *,
        structured: bool = True,
        results: Sequence[Path] = (),
    ) -> None:
        self.structured = structured  # whether tasks may have labels that are neither classes nor numbers
        self.saved = SavedRuns(results)  # of results in these folders
        self.root = root
        self.plugins = plugins
        self.plugin_files = list(plugin_files)
        self.count = RunCount()
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
        """The finished run of an arm with these settings: found here or in a result, gone on with, or made.

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
            found, where = self._find(path, key), ""
            if found is None and path.name == key and RECORDED.issuperset(config.observers):
                where = self.saved.restore(config.task, key, path)
                found = self._find(path, key) if where else None
            summary = self._make(path, config, loop, keep, digest) if found is None else found[1]
        directory = RunDirectory(path if found is None else found[0])
        made_by = "" if loop is None else f"{loop.__module__}:{loop.__qualname__}"
        run = ArmRun(arm, config.task, config.seed, directory, config, summary, found is not None, made_by)
        row = run.row()
        announce(
            f"{config.task}, {arm}, seed {config.seed}: {run.metric} {row['dev']:.4f}, agreement "
            f"{row['dev_agreement']:.4f} on dev; {row['student_steps']} steps, {row['teacher_tokens']:,} teacher tokens"
            + (f" (found{where and f' in {where}'})" if run.found else f", {row['seconds']:.0f} s")
        )
        return run

    def has(self, config: RunConfig, loop: Loop | None = None) -> bool:
        """Whether a finished run with these settings is there, whatever it keeps."""
        key = self.key(config, loop)
        is_here = self._find(self.root / config.task / key, key) is not None
        return is_here or (RECORDED.issuperset(config.observers) and self.saved.has(config.task, key))

    def key(self, config: RunConfig, loop: Loop | None = None, digest: str = "") -> str:
        """16 hexadecimal digits for settings, precision, code, versions, data, and content of the teacher.

        Only what the run uses counts: plain distillation is the same whatever it would synthesise by. Options count
        with their defaults, so that a changed default is another run.
        """
        digest = digest or self.code_digest(config, loop)
        skipped = {"output", "machine"} | ({"synthesis"} if config.schedule == "none" else set())
        names = {name for name in RunConfig.model_fields if field_extra(name)["group"] not in skipped}
        # of these the content counts
        names -= {
            "data_dir",
            "data_revision",
            "train_file",
            "validation_file",
            "evaluation_file",
            "transfer_file",
            "teacher",
        }
        names -= {"tokenizer", "warmup_corpus", "student", "other_teachers"}
        names |= {"schedule", "losses_from", "vector_dtype", "compile"}
        if config.compile_buckets:
            names.add("compile_buckets")
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
                if RunDirectory(candidate).damage():
                    continue
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
        RunDirectory(path).seal()
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
        told = json_loads(path.read_bytes())
    except (OSError, ValueError):
        told = {}
    machine = describe_machine()
    told |= {"code": digest, "commit": commit() or None, "precision": precision_of(config)}
    told |= {"device": str(device_of(config)), "instructions": list(machine.instructions)}
    told |= {name: getattr(machine, name) for name in ("threads", "processor", "card", "torch")}
    with disk_errors(str(path)):
        write_json(path, told)
