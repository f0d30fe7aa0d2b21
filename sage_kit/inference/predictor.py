"""A finished student, asked for what it predicts: its checkpoint alone is needed, and no run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.sources import Table
from sage_kit.data.splits import Split, split_of
from sage_kit.data.tokens import Tokens
from sage_kit.errors import CompatibilityError, ModelError, SageError
from sage_kit.inference.exported_folder import exported_model
from sage_kit.inference.onnx_session import load_exported
from sage_kit.inference.torch_backend import TorchBackend
from sage_kit.models.architectures import SUFFIXES
from sage_kit.models.checkpoints import load_classifier, load_model_config, load_tokenizer
from sage_kit.models.locations import resolve
from sage_kit.models.sentence_folders import MODULES
from sage_kit.models.teacher import fit_tokenizer, sentence_settings
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.directory import STUDENT
from sage_kit.system.devices import make_accelerator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS: Mapping[str, str] = {"token": "tags", "span": "spans"}
"""The kind of task of a checkpoint by its architecture, where one follows from it."""

PROBLEMS: Mapping[str, str] = {
    "regression": "regression",
    "single_label_classification": "classification",
    "multi_label_classification": "label_sets",
}
"""That of a sequence classifier by its ``problem_type``."""

TEXT, PAIR = "text", "text_pair"
"""What texts are called where nothing else is said."""

Columns = dict[str, list[Any]]


class Backend(Protocol):
    """What computes a student."""

    def outputs(self, tokens: Tokens) -> NDArray[np.float32]:
        """The model's outputs of shape (sequences, n_outputs), or, where it has one for each token, (total_tokens,
        n_outputs), flat.
        """


@dataclass(frozen=True, eq=False)
class Predictor:
    """A student that is asked.

    Attributes
    ----------
    name : str
        What the user calls it.
    tokenizer : PreTrainedTokenizerBase
    prefix : str
        What stands in front of each text.
    spec : TaskSpec
        Kind of task, names of labels, and the columns of the texts.
    max_length : int
        Longer texts are cut, or answered window by window [tokens].
    backend : Backend
        What computes the model: a `TorchBackend` or an `OnnxBackend`.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    prefix: str
    spec: TaskSpec
    max_length: int
    backend: Backend

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, probabilities: bool = False
    ) -> Columns:
        """What the student predicts, a value per text in each column.

        Parameters
        ----------
        texts : sequence of str
            For a question about a context, the questions; words of tags stand apart by white space.
        pairs : sequence of str or None
            The second texts, for a model of pairs.
        probabilities : bool
            Whether to tell the probability of each class or label, as ``probability_<name>``.

        Returns
        -------
        dict of str to list
            Of classes "label" and "probability"; of numbers "prediction"; of label sets "labels"; of tags "tags", one a
            word; of answers "answer", "" for none; of embeddings "embedding", and of pairs "cosine" alone.

        Raises
        ------
        DataError
            For texts that are empty or no text, by row.
        """
        columns = {TEXT: list(texts), **({} if pairs is None else {PAIR: list(pairs)})}
        return self.predict_table(Table("texts", columns), (*columns,), probabilities=probabilities)

    def predict_table(self, table: Table, columns: Sequence[str], *, probabilities: bool = False) -> Columns:
        """The same of columns of a table, which names the file and the rows in errors."""
        if not len(table):
            return {}
        if self.spec.label_kind == "spans" and len(columns) < 2:
            raise CompatibilityError("an answer needs a question and a context: name the column of the context")
        # no column is that of a label, whatever it is called
        spec = replace(self.spec, text_columns=tuple(columns), label_column="")
        encoded = self.encode(split_of(table.where, table, spec, len(columns) > 1), spec)
        return self._told(encoded, self.outputs(encoded), probabilities)

    def encode(self, split: Split, spec: TaskSpec) -> EncodedSplit:
        """A split of a task as the student reads it."""
        return encode(split, spec, self.tokenizer, self.max_length, self.prefix)

    def outputs(self, encoded: EncodedSplit) -> NDArray[np.float32]:
        """The model's outputs: (sequences, n_outputs), or flat; batches hold texts of like length."""
        return self.backend.outputs(encoded.tokens)

    def _told(self, encoded: EncodedSplit, outputs: NDArray[np.float32], probabilities: bool) -> Columns:
        from scipy.special import expit, softmax

        kind, names = self.spec.label_kind, list(self.spec.labels)
        if kind == "classes":
            shares = softmax(outputs.astype(np.float64), axis=1)
            best = outputs.argmax(axis=1)
            told: Columns = {
                "label": [names[index] for index in best],
                "probability": shares[np.arange(len(best)), best].tolist(),
            }
            return {**told, **(_by_name(names, shares) if probabilities else {})}
        if kind == "numbers":
            return {"prediction": outputs[:, 0].tolist()}
        if kind == "label_sets":
            told = {"labels": [[names[place] for place in np.flatnonzero(row >= 0)] for row in outputs]}
            return {**told, **(_by_name(names, expit(outputs.astype(np.float64))) if probabilities else {})}
        predicted = encoded.predictions(outputs)
        if kind == "tags":
            return {"tags": [list(tags) for tags in predicted]}
        if kind == "spans":
            return {"answer": list(predicted)}
        if encoded.texts.pairs is None:
            return {"embedding": outputs.tolist()}
        one, other = (outputs[side::2].astype(np.float64) for side in (0, 1))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return {"cosine": ((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).tolist()}


def _by_name(names: Sequence[str], shares: NDArray[np.float64]) -> Columns:
    return {f"probability_{name}": shares[:, place].tolist() for place, name in enumerate(names)}


def load_student(
    name: str,
    *,
    kind: str = "",
    text_prefix: str = "",
    max_length: int = 0,
    device: str = "auto",
    precision: str = "auto",
    plugins: Plugins | None = None,
) -> Predictor:
    """A student to be asked.

    Parameters
    ----------
    name : str
        The directory of a finished run, a checkpoint such as its ``student``, a hub name, ``package:MODULE/PATH``, a
        folder that `sage-kit export` wrote, or one of the models in it (``FOLDER/model_int8.onnx``).
    kind : str
        Kind of task; "" goes by the run's settings or the checkpoint: its head, its ``problem_type``, and for a folder
        of sentence-transformers embeddings.
    text_prefix : str
        In front of each text of embeddings; "" takes the folder's default prompt.
    max_length : int
        Longest sequence [tokens]; 0 takes what the tokenizer was saved with.
    device, precision : str
        As the settings of a run.
    plugins : Plugins or None
        None takes the installed ones.

    Returns
    -------
    Predictor

    Raises
    ------
    SageError
        Of the kind that fits: no finished run, no readable checkpoint or none with a trained head, an unknown kind.
    """
    plugins = (plugins or Plugins()).use()
    exported = exported_model(name)
    if exported is not None:
        return _load_exported(name, exported, kind, text_prefix, max_length, device, precision, plugins)
    path, run, answers = Path(name).expanduser(), None, False
    if (path / "config.toml").is_file():
        directory = RunDirectory.open(path)
        run, summary = directory.config(), directory.summary()
        if summary is None:
            raise ModelError(
                f"run {path} is not finished, so it has no student: finish it with `sage-kit resume {path}`"
            )
        directory.require_whole(STUDENT)
        name, answers = str(directory.student), bool(summary.get("unanswered"))
    spec = _spec(name, kind, run, plugins)
    settings = {"teacher": name, "device": device, "precision": precision, "text_prefix": text_prefix}
    config = load_config({**settings, **({"pooling": run.pooling} if run else {})})
    architecture = spec.handling.spec.architecture if spec.handling else "sequence"
    sentence = sentence_settings(config, architecture)
    folder = name if sentence is None else sentence.encoder
    checkpoint = load_classifier(folder, architecture, sentence)
    if checkpoint.missing:
        raise ModelError(
            f"model {name!r} has no trained head for a task of kind {spec.kind_name!r}: name a student or a fine-tuned "
            "checkpoint, or another kind"
        )
    tokenizer = load_tokenizer(folder)
    longest = min(int(tokenizer.model_max_length), checkpoint.family.max_tokens(checkpoint.model.config))
    config = config.model_copy(update={"max_length": max_length or longest})
    fit_tokenizer(tokenizer, checkpoint, config, folder)
    spec = replace(_named(spec, checkpoint.model.config), unanswered=answers)
    backend = TorchBackend.of(checkpoint.model, make_accelerator(config))
    return Predictor(name, tokenizer, "" if sentence is None else sentence.prompt, spec, config.max_length, backend)


def _load_exported(
    name: str, model: Path, kind: str, text_prefix: str, max_length: int, device: str, precision: str, plugins: Plugins
) -> Predictor:
    """A student that was exported to ONNX."""
    for setting, value, usual in (("device", device, "cpu"), ("precision", precision, "fp32")):
        if value not in ("auto", usual):
            raise CompatibilityError(
                f"{name} is an exported student, which is computed as it was written, on the CPU: leave out {setting}, "
                f"or give the checkpoint that it was exported from for {value}"
            )
    exported = load_exported(model)
    about = exported.about
    if kind and kind != about.kind:
        raise CompatibilityError(f"{name} was exported for a task of kind {about.kind!r}: leave out the kind")
    if max_length > about.max_length:
        raise CompatibilityError(
            f"max_length is {max_length}, but {name} takes at most {about.max_length} tokens: set max_length to at "
            f"most {about.max_length}"
        )
    tokenizer, prefix = exported.tokenizer, about.prefix
    if text_prefix and about.kind == "embeddings":
        prefix = text_prefix
    spec = replace(plugins.task("file", {}, file_kind=about.kind), text_columns=about.text_columns or (TEXT,))
    spec = replace(_named(spec, exported.config), unanswered=about.unanswered)
    return Predictor(name, tokenizer, prefix, spec, max_length or about.max_length, exported.backend)


def _named(spec: TaskSpec, config: Any) -> TaskSpec:
    """The task with the names of the labels that a model's configuration tells, where its kind has any."""
    if spec.handling is None or not spec.handling.spec.needs_names:
        return spec
    id2label: dict[Any, Any] = config.id2label or {}
    return replace(spec, labels=tuple(str(id2label[index]) for index in sorted(id2label)))


def _spec(name: str, kind: str, run: RunConfig | None, plugins: Plugins) -> TaskSpec:
    """The task that a student is for: its kind, and the columns of its texts where a run tells them."""
    if run is not None:
        try:
            task = plugins.task(run.task, run.task_options, file_kind=run.task_kind)
        except SageError as error:
            if not kind:
                raise CompatibilityError(f"{error}; or name the kind of task (--kind)") from None
        else:
            columns = task.text_columns
            if run.task == "file":
                columns = tuple(filter(None, (run.text_column, run.text_pair_column)))
            return replace(
                plugins.task("file", {}, file_kind=kind or task.kind_name), name=run.task, text_columns=columns
            )
    kind = kind or _kind_of(name)
    return replace(plugins.task("file", {}, file_kind=kind), text_columns=(TEXT,))


def _kind_of(name: str) -> str:
    """The kind of task that a checkpoint is for, by what it says of itself."""
    if (Path(resolve(name, needs="")) / MODULES).is_file():
        return "embeddings"
    config = load_model_config(name)
    classes = getattr(config, "architectures", None) or ()
    for architecture, suffix in SUFFIXES.items():
        if any(one.endswith(suffix) for one in classes):
            if architecture in KINDS:
                return KINDS[architecture]
            found = PROBLEMS.get(str(config.problem_type))
            return found or ("regression" if config.num_labels == 1 else "classification")
    raise ModelError(
        f"model {name!r} is no classifier and no sentence encoder, as far as its config.json says "
        f"({json.dumps(list(classes))}): name a student, or the kind of task"
    )
