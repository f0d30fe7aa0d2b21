"""What an assessment compares: the teacher, its students, small models without a teacher, and word counts."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.splits import Split, TaskData
from sage_kit.distill import resume, run
from sage_kit.errors import ConfigError, RunDirectoryError
from sage_kit.inference.predictor import Predictor, load_student
from sage_kit.models.checkpoints import load_classifier, load_model_config, load_tokenizer
from sage_kit.models.export import export_student
from sage_kit.models.student import build_student
from sage_kit.models.teacher import Teacher, load_teacher, sentence_settings
from sage_kit.rundir import RunDirectory
from sage_kit.storage.cache import Cache
from sage_kit.storage.files import atomic_directory, write_json
from sage_kit.storage.reading import Fields, read_json
from sage_kit.studies.effort import counted
from sage_kit.system.devices import make_accelerator
from sage_kit.training.run_events import RunEvents

if TYPE_CHECKING:
    from sage_kit.inference.torch_backend import TorchBackend

Role = Literal["teacher", "student", "labels alone", "word counts"]

COSTS_FILE = "made_in.json"
"""Beside a model: how long it took, so that an assessment that is gone on with still knows."""


class MadeFields(Fields):
    """What that file holds."""

    seconds: float
    from_labels: bool


NGRAMS, LEAST_COUNT = (1, 2), 2
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Of the linear model: words and pairs of words that stand in two texts at least, and the inverse strengths of
regularisation among which dev decides."""


@dataclass(frozen=True)
class Contender:
    """One model that is assessed.

    Attributes
    ----------
    name : str
    role : str
        One of `Role`.
    blocks : int
        0 for word counts.
    ask : callable
        Predicts for some texts and their second texts, for the clock.
    predicted : callable
        What it predicts for a split, which is encoded as all models read it: a class, a number, or what the kind of
        task says, per row.
    parameters : int
    megabytes : float
        Of its files, or pickled.
    seconds : float
        It took to make [s of wall time].
    """

    name: str
    role: Role
    blocks: int
    ask: Callable[[Sequence[str], Sequence[str] | None], Any]
    predicted: Callable[[EncodedSplit], Any]
    parameters: int
    megabytes: float
    seconds: float


class Workshop:
    """Makes the contenders in a folder; what is there already is taken as it is.

    Parameters
    ----------
    config : RunConfig
        Of the runs.
    data : TaskData
        The file's rows, scored.
    plugins : Plugins
    folder : Path
    """

    def __init__(self, config: RunConfig, data: TaskData, plugins: Plugins, folder: Path) -> None:
        self.config, self.data, self.plugins, self.folder = config, data, plugins, folder
        self._accelerator = make_accelerator(config)
        self._events = RunEvents(plugins, True)

    def teacher_blocks(self) -> int:
        """How many blocks the teacher has, by its configuration alone."""
        sentence = sentence_settings(self.config, handling_of(self.data.spec).spec.architecture)
        folder = self.config.teacher if sentence is None else sentence.encoder
        return int(load_model_config(folder).num_hidden_layers)

    def encode(self, split: Split) -> EncodedSplit:
        """A split as the teacher reads it, and all models that are made of it."""
        return self._student(self._teacher_folder()).encode(split, self.data.spec)

    def teacher_contender(self) -> Contender:
        """The teacher, saved as a checkpoint."""
        return self._of_checkpoint(self._teacher_folder(), "teacher", "teacher")

    def _teacher_folder(self) -> Path:
        """Where the teacher is saved, fine-tuned where it had no trained head."""
        path = self.folder / "teacher"
        if not (path / COSTS_FILE).is_file():
            self._save(self._load(self.config, "teacher"), path)
        return path

    def student(self, blocks: int) -> Contender:
        """The teacher distilled to so many blocks, by the settings of the runs."""
        path = self.folder / "students" / str(blocks)
        config = load_config({**self.config.model_dump(), "student_layers": blocks, "run_dir": str(path)})
        directory = RunDirectory(path)
        if directory.summary() is None:
            try:
                resume(RunDirectory.open(path), self.plugins)
            except RunDirectoryError:  # not begun
                directory, _ = run(config, self.plugins, [])
        summary = directory.summary()
        assert summary is not None
        name = f"student, {counted(blocks, 'block')}"
        return self._of_checkpoint(directory.student, "student", name, float(summary["seconds"]))

    def steps_of_student(self, blocks: int) -> int:
        """How many steps the student of so many blocks took."""
        summary = RunDirectory(self.folder / "students" / str(blocks)).summary()
        return 0 if summary is None else int(summary["student_steps"])

    def small_model(self, blocks: int) -> Contender | None:
        """As many blocks of the teacher before it was fine-tuned, trained on the labels alone for as many steps as the
        student, or up to an epoch more; None where the teacher came with a trained head, or is taught by no labels.
        """
        if not self._made(self._teacher_folder())["from_labels"]:
            return None
        path = self.folder / "labels_alone" / str(blocks)
        if not (path / COSTS_FILE).is_file():
            epochs = math.ceil(self.steps_of_student(blocks) * self.config.batch_size / len(self.data.teacher))
            base = self._shortened(blocks)
            settings = {"teacher": str(base), "teacher_epochs": max(1, epochs)}
            self._save(self._load(self.config.model_copy(update=settings), str(base)), path)
        return self._of_checkpoint(path, "labels alone", f"labels alone, {counted(blocks, 'block')}")

    def word_counts(self) -> Contender | None:
        """A linear model of word counts; None for labels that are neither classes nor numbers."""
        spec, data = self.data.spec, self.data
        if spec.is_structured:
            return None
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline

        started = time.perf_counter()
        train, dev = data.teacher, data.dev
        counts = TfidfVectorizer(ngram_range=NGRAMS, min_df=LEAST_COUNT, sublinear_tf=True, token_pattern=r"\S+")
        features = counts.fit_transform(_joined(train.texts, train.pairs))
        of_dev = counts.transform(_joined(dev.texts, dev.pairs))
        models = [
            Ridge(alpha=1 / strength) if spec.is_regression else LogisticRegression(C=strength, max_iter=1000)
            for strength in STRENGTHS
        ]
        fitted = [model.fit(features, train.labels) for model in models]
        best = make_pipeline(counts, max(fitted, key=lambda model: float(model.score(of_dev, dev.labels))))
        seconds = time.perf_counter() - started
        whole = pickle.dumps(best)

        def ask(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[Any]:
            return np.asarray(best.predict(_joined(texts, pairs)))

        return Contender(
            "word counts", "word counts", 0, ask, lambda encoded: ask(encoded.texts.texts, encoded.texts.pairs),
            int(np.size(best[-1].coef_)), len(whole) / 1e6, seconds,
        )  # fmt: skip

    def _load(self, config: RunConfig, what: str) -> Teacher:
        cache = Cache(Path(config.cache_dir).expanduser(), self._events.message, self._events.damage)
        return load_teacher(
            config, self.data, cache, self._accelerator.device, self._events.message, self._events.steps(what)
        )

    def _save(self, teacher: Teacher, path: Path) -> None:
        with atomic_directory(path) as made:
            export_student(teacher.model, teacher.tokenizer, made, self.data.spec)
            # a sentence encoder is not trained, though it has no head that could be
            from_labels = teacher.finetuned and teacher.sentence is None
            write_json(made / COSTS_FILE, {"seconds": teacher.seconds, "from_labels": from_labels})

    def _made(self, path: Path) -> dict[str, Any]:
        """How a model was made, as `_save` noted it."""
        advice = "remove the folder that it lies in, or name another with --out"
        return read_json(path / COSTS_FILE, MadeFields, ConfigError, advice)

    def _student(self, path: Path) -> Predictor:
        config = self.config
        return load_student(
            str(path), kind=self.data.spec.kind_name, device=config.device, precision=config.precision,
            max_length=config.max_length, text_prefix=config.text_prefix, plugins=self.plugins,
        )  # fmt: skip

    def _shortened(self, blocks: int) -> Path:
        """The teacher's checkpoint before it was fine-tuned, with so many of its blocks and no head."""
        path = self.folder / "untrained" / str(blocks)
        if not path.is_dir():
            checkpoint = load_classifier(self.config.teacher)
            whole: Any = build_student(
                checkpoint.model, bypass="embeddings", layers=blocks, init=self.config.student_init, seed=0
            )
            with atomic_directory(path) as made:
                whole.base_model.save_pretrained(made)
                load_tokenizer(str(self._teacher_folder())).save_pretrained(made)
        return path

    def _of_checkpoint(self, path: Path, role: Role, name: str, seconds: float | None = None) -> Contender:
        asked = self._student(path)
        if seconds is None:
            seconds = float(self._made(path)["seconds"])
        backend = cast("TorchBackend", asked.backend)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return Contender(
            name, role, backend.upper.n_blocks, asked.predict,
            lambda encoded: encoded.predictions(asked.outputs(encoded)),
            sum(one.numel() for one in backend.model.parameters()), size / 1e6, seconds,
        )  # fmt: skip


def _joined(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """One text a row; words of a second text are words of their own, since the same word may mean something else."""
    lowered = [text.lower() for text in texts]
    if pairs is None:
        return lowered
    return [
        f"{text} {' '.join(f'2:{word}' for word in pair.lower().split())}"
        for text, pair in zip(lowered, pairs, strict=True)
    ]
