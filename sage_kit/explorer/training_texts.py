"""The texts that a run learns from, their tokens, and what teacher and student make of them, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec, TokenIds, handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.splits import Split
from sage_kit.errors import CompatibilityError, SageError, one_line
from sage_kit.explorer.explored_run import ExploredRun
from sage_kit.inference.predictor import load_student
from sage_kit.models.checkpoints import load_tokenizer
from sage_kit.models.readers import Ensemble, Reader
from sage_kit.models.ready_student import load_ready_student
from sage_kit.recipe import resolve
from sage_kit.storage.read_only_cache import ReadOnlyCache
from sage_kit.system.devices import make_accelerator
from sage_kit.training.further_models import FurtherModels
from sage_kit.training.preparation_steps import PreparationSteps
from sage_kit.training.prepared import PreparedSplit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_COMPUTED = 5_000
"""Most texts that the student is asked about, where a run keeps no outputs of it."""

PAIR_MARK = " ⏎ "
"""Between the texts of a pair."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model makes of the training sequences, in words.

    Attributes
    ----------
    words : list of str
        A label, a number, tags, an answer; of each sequence.
    shares : array of shape (n,), float32, or None
        The probability of a class; None for other kinds.
    """

    words: list[str]
    shares: NDArray[np.float32] | None = None


@dataclass(eq=False)
class TrainingTexts:
    """The training sequences of a run: one a text, or windows of a long one, or the texts of a pair in turn.

    Attributes
    ----------
    spec : TaskSpec
    texts : list of str
    gold : list of str
        Their labels in words; "" where there is none.
    tokens : TokenIds or None
        As the teacher reads them; None where its tokenizer is not to be had.
    tokenizer : PreTrainedTokenizerBase or None
    teacher, student : Outputs or None
    agreement : array of shape (n,), float32, or None
        How far both agree, from 0 to 1.
    notes : list of str
        What is not there, and why.
    """

    spec: TaskSpec
    texts: list[str]
    gold: list[str]
    tokens: TokenIds | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    teacher: Outputs | None = None
    student: Outputs | None = None
    agreement: NDArray[np.float32] | None = None
    notes: list[str] = field(default_factory=list)


def read_texts_of(run: ExploredRun, plugins: Plugins, *, compute: bool = False) -> TrainingTexts | None:
    """Read the data of a run again, and what is known of it.

    Parameters
    ----------
    run : ExploredRun
        Gets a note for whatever cannot be found.
    plugins : Plugins
        With whatever the run was made with.
    compute : bool
        Make the teacher and its outputs again where the cache no longer has them, which may take long.

    Returns
    -------
    TrainingTexts or None
        None where the data cannot be read, or are no longer those of the run.
    """
    try:
        found = _read(run, plugins, compute)
    except (SageError, OSError) as error:
        run.notes.append(f"No texts: {one_line(error, 240)}")
        return None
    known = run.examples or (0 if run.coordinates is None else len(run.coordinates))
    if known and len(found.texts) != known:
        run.notes.append(
            f"No texts: the data give {len(found.texts):,} training sequences now, the run had {known:,}; they have "
            "changed since."
        )
        return None
    run.notes += found.notes
    return found


def _read(run: ExploredRun, plugins: Plugins, compute: bool) -> TrainingTexts:
    config = run.config
    recipe = resolve(config, plugins)
    try:
        accelerator = make_accelerator(config)
    except SageError:  # it was made on another machine
        accelerator = make_accelerator(config.model_copy(update={"device": "cpu", "precision": "auto"}))
    work = PreparationSteps(recipe.config, recipe.plugins, accelerator, Costs())
    if not compute:
        work.cache = ReadOnlyCache(work.cache.directory)
    data = work.load_data()
    train, spec, notes = data.train, data.spec, []
    encoded, tokenizer, teacher = None, None, None
    try:
        first = Reader.of_teacher(work.load_teacher(data), config.teacher, config.bypass, accelerator.device)
        encoded, store = work.read(train, spec, first)
        tokenizer = first.tokenizer
        outputs = work.label(train.name, store, first, [])
        taught = PreparedSplit(encoded, store, outputs)
        if config.other_teachers:
            others = [
                Reader.of_teacher(work.load_teacher(data, name), name, "embeddings", accelerator.device)
                for name in config.other_teachers
            ]
            teachers = Ensemble.of(first, others, config.teacher_weights)
            ready = None
            if config.student:
                ready = load_ready_student(config, spec, first, accelerator.device, work.announce)
            taught = FurtherModels(work, spec, teachers, ready).by_all_teachers(train, taught)
        teacher = taught.outputs.logits
    except (SageError, OSError) as error:
        notes.append(f"No outputs of the teacher: {one_line(error, 200)}. --compute makes them again.")
        if encoded is None:
            tokenizer = _tokenizer_of_student(run)
            if tokenizer is not None:
                encoded = encode(train, spec, tokenizer, config.max_length, config.text_prefix)
    if encoded is None:
        notes.append("No tokens: neither the teacher nor an exported student is there to tell what they are.")
        return TrainingTexts(spec, _joined(train), _gold(spec, train), notes=notes)
    found = TrainingTexts(spec, _texts(train, encoded, tokenizer), [], encoded.tokens, tokenizer, notes=notes)
    row_of = encoded.texts.row_of
    gold = _gold(spec, train)
    found.gold = [gold[row] for row in row_of]
    student = _student_outputs(run, encoded, train, plugins, notes)
    if teacher is not None:
        found.teacher = in_words(encoded, np.asarray(teacher))
    if student is not None:
        found.student = in_words(encoded, student)
    if teacher is not None and student is not None:
        found.agreement = encoded.agreement(student, np.asarray(teacher)).astype(np.float32)[row_of]
    return found


def _tokenizer_of_student(run: ExploredRun) -> PreTrainedTokenizerBase | None:
    """The teacher's tokenizer as the exported student has it; a student of its own has another."""
    if run.config.student or not run.directory.student.is_dir():
        return None
    try:
        return load_tokenizer(str(run.directory.student))
    except SageError:
        return None


def _student_outputs(
    run: ExploredRun, encoded: EncodedSplit, train: Split, plugins: Plugins, notes: list[str]
) -> NDArray[np.float32] | None:
    """The student's outputs on the training sequences: those it had in training, or of the exported student."""
    if run.logits is not None and len(run.logits) == len(encoded.texts.row_of):
        return run.logits
    if run.summary is None:
        notes.append("No outputs of the student: the run is not finished, and its checkpoint keeps none.")
        return None
    if len(train) > MOST_COMPUTED:
        notes.append(
            f"No outputs of the student on the training texts: the run keeps none, and these are more than "
            f"{MOST_COMPUTED:,}."
        )
        return None
    try:
        student = load_student(str(run.directory.path), plugins=plugins)
        if run.config.student:
            raise CompatibilityError("the student reads text by its own tokens")
        return student.outputs(encoded)
    except (SageError, OSError) as error:
        notes.append(f"No outputs of the student on the training texts: {one_line(error, 200)}")
        return None


# ---- words ----------------------------------------------------------------------------------------------------------


def in_words(encoded: EncodedSplit, outputs: NDArray[np.float32]) -> Outputs:
    """A model's outputs in words, for each sequence.

    Parameters
    ----------
    encoded : EncodedSplit
    outputs : array of shape (sequences, n_outputs), or flat

    Returns
    -------
    Outputs
    """
    row_of = encoded.texts.row_of
    if (found := of_whole_texts(encoded.spec, outputs)) is not None:
        return found
    if encoded.spec.label_kind not in ("tags", "spans"):
        return Outputs([""] * len(row_of))  # the vectors of a sentence encoder say nothing by themselves
    told = [_told(encoded.spec, one) for one in encoded.predictions(outputs)]
    return Outputs([told[row] for row in row_of])


def of_whole_texts(spec: TaskSpec, outputs: NDArray[np.float32]) -> Outputs | None:
    """Outputs of shape (n, n_outputs) in words; None for a kind of task whose outputs are of tokens, or vectors."""
    from scipy.special import softmax

    kind = spec.label_kind
    if kind == "classes":
        shares = softmax(outputs.astype(np.float64), axis=1).max(axis=1)
        return Outputs([spec.labels[place] for place in outputs.argmax(axis=1)], shares.astype(np.float32))
    if kind == "numbers":
        return Outputs([f"{value:.3g}" for value in outputs[:, 0]])
    if kind == "label_sets":
        return Outputs([_set(spec, row) for row in outputs >= 0])
    return None


def _told(spec: TaskSpec, one: Any) -> str:
    if spec.label_kind == "spans":
        return str(one) or "no answer"
    return " ".join(map(str, one))


def _set(spec: TaskSpec, flags: Any) -> str:
    names = [name for name, is_there in zip(spec.labels, flags, strict=True) if is_there]
    return ", ".join(names) or "none"


def _gold(spec: TaskSpec, train: Split) -> list[str]:
    """The labels of the rows in words; "" where there is none."""
    kind, labels = spec.label_kind, train.labels
    if kind == "classes":
        return [spec.labels[label] if label >= 0 else "" for label in labels]
    if kind in ("numbers", "embeddings"):
        return [_number(label) for label in labels]
    if kind == "label_sets":
        return ["" if np.any(np.asarray(row) < 0) else _set(spec, np.asarray(row) > 0) for row in labels]
    return ["" if label is None else _written(label) for label in labels]


def _number(label: Any) -> str:
    value = np.asarray(label, dtype=object).ravel()
    found = float(value[0]) if len(value) == 1 and value[0] is not None else float("nan")
    return "" if np.isnan(found) else f"{found:.3g}"


def _written(label: Any) -> str:
    """Tags, or the first answer of those that count."""
    if isinstance(label, str):
        return label
    if hasattr(label, "texts"):
        return str(next(iter(label.texts), "no answer"))
    if isinstance(label, Sequence):
        return " ".join(map(str, label))
    return str(label)


def _joined(split: Split) -> list[str]:
    if split.pairs is None:
        return list(split.texts)
    return [PAIR_MARK.join(filter(None, both)) for both in zip(split.texts, split.pairs, strict=True)]


def _texts(split: Split, encoded: EncodedSplit, tokenizer: Any) -> list[str]:
    """The text of each sequence: as the data have it where it is a row, else as the teacher reads it."""
    row_of = encoded.texts.row_of
    kind = handling_of(encoded.spec).spec
    if kind.splits_pairs and split.pairs is not None:
        return [text for both in zip(split.texts, split.pairs, strict=True) for text in both]
    if np.array_equal(row_of, np.arange(len(split))):
        return _joined(split)
    tokens = encoded.tokens
    ids = [tokens.ids[start:end].tolist() for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
