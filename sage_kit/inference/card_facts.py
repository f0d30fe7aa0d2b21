"""What a model card tells of a finished run, read from its directory; of models on this machine their names alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import PATHS, PLACES, RunConfig, default_settings
from sage_kit.errors import RunDirectoryError, SageError, one_line
from sage_kit.inference.card_scores import RunScore, run_scores
from sage_kit.models.locations import PACKAGE_PREFIX, resolve_checkpoint
from sage_kit.models.sentence_folders import MODULES
from sage_kit.rundir import RunDirectory
from sage_kit.storage.reading import Fields, json_loads, read_json

ENGLISH = frozenset({
    "banking77", "btc", "clinc_oos", "cola", "hotpotqa", "mnli", "movie_reviews", "mrpc", "musique", "qnli", "qqp",
    "rte", "sgd_acts", "sgd_turns", "squad_sample", "sst2", "stsb", "stsb_embeddings", "wnli", "wnut17",
})  # fmt: skip
"""Built-in tasks in English alone, which have no option that says a language."""

BLOCKS = ("num_hidden_layers", "n_layers")
"""What configurations call the number of their blocks."""

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class NamedModel:
    """A model that a setting names.

    Attributes
    ----------
    shown : str
        Its name for others: of a folder on this machine, the folder's own name.
    is_local : bool
        Whether it is such a folder.
    on_hub : bool
        Whether it is known to be a model of the hub: its name is none of a folder, and the hub's cache holds it.
    blocks : int
        Its encoder blocks; 0 where they are not known.
    license : mapping of str to str
        What its own card says: "license" and, where there are any, "license_name" and "license_link".
    """

    shown: str
    is_local: bool
    on_hub: bool
    blocks: int
    license: Mapping[str, str]


@dataclass(frozen=True)
class RunFacts:
    """A finished run.

    Attributes
    ----------
    name : str
        Of the run directory.
    config : RunConfig
    summary, costs, environment : mapping
        What summary.json, costs.json and environment.json hold.
    student : mapping
        The student's config.json.
    is_sentence_encoder : bool
        Whether the student is a folder of sentence-transformers.
    spec : TaskSpec or None
        The task; None where its plugin is not installed.
    teacher : NamedModel
    ready_student : NamedModel or None
        The checkpoint that became the student, where the settings name one.
    scores : list of RunScore
    metrics : mapping of str to str
        What each metric of the task measures, by its name; without those of plugins that are not there any more.
    """

    name: str
    config: RunConfig
    summary: Mapping[str, Any]
    costs: Mapping[str, Mapping[str, float]]
    environment: Mapping[str, Any]
    student: Mapping[str, Any]
    is_sentence_encoder: bool
    spec: TaskSpec | None
    teacher: NamedModel
    ready_student: NamedModel | None
    scores: list[RunScore]
    metrics: Mapping[str, str]

    @classmethod
    def of(cls, directory: RunDirectory, plugins: Plugins) -> RunFacts:
        """Read them.

        Raises
        ------
        RunDirectoryError
            When the run is not finished, or a file of it cannot be read.
        """
        config, summary = directory.config(), directory.summary()
        if summary is None:
            raise RunDirectoryError(
                f"run {directory.path} is not finished, so it has no student: finish it with "
                f"`sage-kit resume {directory.path}`"
            )
        try:
            spec = plugins.use().task(config.task, config.task_options, file_kind=config.task_kind)
        except SageError:
            spec = None
        path = directory.student / "config.json"
        if not path.exists():
            raise RunDirectoryError(f"{path} does not exist: name the directory of a whole run")
        student = read_json(path, Fields, RunDirectoryError, "name a run whose files are whole")
        try:
            scores = run_scores(config, summary, directory.predictions(), plugins)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RunDirectoryError(
                f"{directory.path}: its summary.json is not that of a run ({type(error).__name__}: "
                f"{one_line(error, 100)}): remove it and `sage-kit resume {directory.path}`"
            ) from None
        return cls(
            directory.path.absolute().name,
            config,
            summary,
            directory.costs(),
            directory.environment(),
            student,
            (directory.student / MODULES).is_file(),
            spec,
            named_model(config.teacher),
            named_model(config.student) if config.student else None,
            scores,
            _summaries(summary["metrics"], plugins),
        )

    @property
    def label_kind(self) -> str:
        """What the labels are, of `LABEL_KINDS`."""
        labels = self.summary["labels"]
        if self.spec is not None:
            return self.spec.label_kind
        return str(labels.get("kind") or ("numbers" if "range" in labels else "classes"))

    @property
    def architecture(self) -> str:
        """Kind of the student's head: "sequence", "token", "span" or "embedding"."""
        if self.is_sentence_encoder:
            return "embedding"
        (named,) = (self.student.get("architectures") or [""])[:1]
        ends = {"ForTokenClassification": "token", "ForQuestionAnswering": "span"}
        return next((kind for end, kind in ends.items() if str(named).endswith(end)), "sequence")

    @property
    def has_pairs(self) -> bool:
        """Whether a text is one of two."""
        if self.config.task == "file":
            return bool(self.config.text_pair_column)
        return self.spec is not None and len(self.spec.text_columns) > 1

    @property
    def labels(self) -> list[str]:
        """Names of the labels; empty where they have none."""
        labels = self.summary["labels"]
        return [str(name) for name in labels.get("classes") or labels.get("names") or ()]

    @property
    def language(self) -> str:
        """Code of the language that the student was trained in; "" where it is not known."""
        if self.spec is not None and "language" in self.spec.options.model_fields:
            usual = self.spec.options.model_fields["language"].default
            return str(self.config.task_options.get("language", usual))
        return "en" if self.config.task in ENGLISH else ""

    @property
    def data_set(self) -> str:
        """Name of the data set on the hub that the task reads, or has a copy of; "" for none."""
        if self.spec is None or self.config.task == "file":
            return ""
        source = self.spec.source_of(self.spec.train_split).hub
        return source.repository if source is not None else ""

    @property
    def blocks(self) -> int:
        """Encoder blocks of the student; 0 where its configuration does not say."""
        return _blocks(self.student)

    @property
    def other_teachers(self) -> list[NamedModel]:
        """Those beside the first."""
        return [named_model(name) for name in self.config.other_teachers]

    def changed_settings(self) -> dict[str, Any]:
        """The settings that differ from the defaults, without folders of this machine."""
        usual, own = default_settings(), self.config.model_dump(mode="json")
        return {
            name: without_folders(own[name], is_path=name in PATHS)
            for name, value in usual.items()
            if name not in PLACES and own[name] != value
        }


def named_model(name: str) -> NamedModel:
    """A model that a setting names, as others may see it."""
    folder = resolve_checkpoint(name)
    known = _known_of(folder) if folder is not None else {}
    told: dict[str, Any] = {"blocks": _blocks(known), "license": _license(folder)}
    if name.startswith(PACKAGE_PREFIX):
        return NamedModel(name, False, False, **told)
    if Path(name).expanduser().is_dir() or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        return NamedModel(_last_part(name), True, False, **told)
    return NamedModel(name, False, folder is not None, **told)


def without_folders(value: Any, *, is_path: bool = False) -> Any:
    """A setting's value, its texts that are paths cut down to the last part."""
    if isinstance(value, Mapping):
        return {name: without_folders(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if not isinstance(value, str) or value.startswith(PACKAGE_PREFIX):
        return value
    looks = value.startswith((".", "~")) or Path(value).is_absolute() or PureWindowsPath(value).is_absolute()
    there = "/" in value and Path(value).exists()
    return _last_part(value) if value and (is_path or looks or there) else value


def _summaries(names: Iterable[str], plugins: Plugins) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(SageError):
            found[name] = plugins.metric(name).summary
    return found


def _last_part(path: str) -> str:
    """The name of a file or folder without what leads to it."""
    return PureWindowsPath(path).name or Path(path).expanduser().absolute().name or "checkpoint"


def _known_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config.json says; nothing where it cannot be read, which is no error of a finished run."""
    try:
        return dict(json_loads((folder / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _blocks(config: Mapping[str, Any]) -> int:
    return next((int(config[name]) for name in BLOCKS if isinstance(config.get(name), int)), 0)


def _license(folder: Path | None) -> dict[str, str]:
    """The licence that a model's own card tells; nothing where it has no card, or one without."""
    from huggingface_hub import metadata_load

    if folder is None or not (folder / "README.md").is_file():
        return {}
    try:
        found = metadata_load(folder / "README.md") or {}
    except Exception:  # whatever stands in a card of somebody else's, its reader has errors of its own
        return {}
    told = {name: found.get(name) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in told.items() if isinstance(value, str)} if told["license"] else {}
