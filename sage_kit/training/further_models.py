"""Models that read text apart from the first teacher: further teachers, and a student that is a checkpoint.

Each has its own tokenizer and input layers. Outputs of whole texts need no alignment; of tags the words are matched,
and inner states by the characters that tokens stand for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec, handling_of
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.splits import Split
from sage_kit.data.token_matching import match_positions, match_tokens
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_model_config, load_tokenizer
from sage_kit.models.loss_inputs import LossInputs
from sage_kit.models.readers import Ensemble, Reader
from sage_kit.models.ready_student import ReadyStudent
from sage_kit.models.teacher import sentence_settings
from sage_kit.models.vectors import TeacherOutputs
from sage_kit.recipe import Recipe
from sage_kit.storage import tensorfile
from sage_kit.storage.cache import ARRAYS
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.training.preparation_steps import PreparationSteps
from sage_kit.training.prepared import PreparedSplit

MADE_OF_TOKENS = (
    ", of whose tokens synthetic examples are made: set schedule to 'none', or choose one with the teacher's tokenizer"
)


def check_further(recipe: Recipe, spec: TaskSpec) -> None:
    """Refuse models that are not there, and synthesis for those that know other tokens than the teacher, before any
    teacher is fine-tuned.

    Raises
    ------
    ModelError
        When a checkpoint or its tokenizer cannot be found or read.
    CompatibilityError
        For a vocabulary that is not the teacher's.
    """
    config = recipe.config
    names = [*([config.student] if config.student else []), *config.other_teachers]
    for name in names:
        load_model_config(_encoder_of(name, config, spec))
    if not names or config.schedule == "none":
        return
    known = _vocabulary(config.tokenizer or config.teacher, config, spec)
    for name in names:
        if _vocabulary(name, config, spec) != known:
            whose = "student" if name == config.student else "other_teachers"
            raise CompatibilityError(
                f"{whose} {name!r} knows other tokens than teacher {config.teacher!r}{MADE_OF_TOKENS}"
            )


def _vocabulary(name: str, config: RunConfig, spec: TaskSpec) -> dict[str, int]:
    return load_tokenizer(_encoder_of(name, config, spec)).get_vocab()


def _encoder_of(name: str, config: RunConfig, spec: TaskSpec) -> str:
    """The folder of a checkpoint's encoder, which for sentence-transformers is a part of it."""
    sentence = sentence_settings(config, handling_of(spec).spec.architecture, name)
    return name if sentence is None else sentence.encoder


class FurtherModels:
    """How further teachers and a ready student read the splits of a task.

    Parameters
    ----------
    work : PreparationSteps
    spec : TaskSpec
    teachers : Ensemble
    student : ReadyStudent or None
        None where the student takes the first teacher's input layers.

    Attributes
    ----------
    unlike : list of Reader
        Those that were found to read other tokens than the first teacher.
    """

    def __init__(
        self, work: PreparationSteps, spec: TaskSpec, teachers: Ensemble, student: ReadyStudent | None
    ) -> None:
        self.work = work
        self.spec = spec
        self.teachers = teachers
        self.student = student
        self.unlike: list[Reader] = []
        self._kind = handling_of(spec).spec
        if teachers.others and self._kind.has_vectors:
            raise CompatibilityError(
                f"other_teachers names {len(teachers.others)} more, and embeddings of different models have nothing in "
                "common that a mean could be of: teach with one teacher"
            )

    def by_all_teachers(self, split: Split, first: PreparedSplit) -> PreparedSplit:
        """A split as the first teacher reads it, with the weighted mean of all teachers' outputs."""
        teachers = self.teachers
        if not teachers.others:
            return first
        total = teachers.weights[0] * first.outputs.logits.astype(np.float64)
        weights = np.full((len(total), 1), teachers.weights[0])
        for reader, weight in zip(teachers.others, teachers.weights[1:], strict=True):
            encoded, store = self.work.read(split, self.spec, reader, reader.name)
            outputs = self.work.label(split.name, store, reader, [])
            prepared = PreparedSplit(encoded, store, outputs)
            if split.name == "dev":
                self.work.tell_of_score(f"teacher {reader.name!r}", split, prepared)
            self._note(reader, encoded, first.encoded)
            logits, reached = self._logits_at(split, first.encoded, prepared, teachers.first, reader)
            total += weight * logits
            weights += weight if reached is None else weight * reached[:, None]
        return replace(first, outputs=replace(first.outputs, logits=(total / weights).astype(np.float32)))

    def by_student(self, split: Split, taught: PreparedSplit) -> PreparedSplit:
        """A split as a ready student reads it, with the teachers' outputs at its own tokens."""
        if self.student is None:
            return taught
        reader, first = self.student.reader, self.teachers.first
        encoded, store = self.work.read(split, self.spec, reader, reader.name)
        self._note(reader, encoded, taught.encoded)
        logits, reached = self._logits_at(split, encoded, taught, reader, first)
        if reached is not None:
            positions = _at_least_one(reached, encoded)
            encoded = replace(encoded, alignment=replace(encoded.alignment, positions=positions))
        hidden = taught.outputs.hidden
        if hidden is not None and not _same_tokens(encoded, taught.encoded):
            hidden = self._hidden_at(split, encoded, taught)
        return PreparedSplit(encoded, store, TeacherOutputs(logits, hidden, taught.outputs.per_token))

    def check_tokens(self, recipe: Recipe, inputs: LossInputs) -> None:
        """Refuse what needs one kind of tokens where models read several.

        Raises
        ------
        CompatibilityError
            For synthesis, and for losses that compare tokens with each other.
        """
        relating = [name for name, one in inputs.layers.items() if one.teacher_projections or one.teacher_scores]
        for reader in self.unlike:
            is_student = self.student is not None and reader is self.student.reader
            whose = "student" if is_student else "other_teachers"
            what = f"{whose} {reader.name!r} reads other tokens than teacher {self.teachers.first.name!r}"
            if recipe.config.schedule != "none":
                raise CompatibilityError(f"{what}{MADE_OF_TOKENS}")
            if is_student and relating:
                raise CompatibilityError(
                    f"{what}, and loss {relating[0]!r} compares how tokens relate to each other: leave it out, or "
                    "choose a student with the teacher's tokenizer"
                )

    # ---- small parts

    def _note(self, reader: Reader, own: EncodedSplit, theirs: EncodedSplit) -> None:
        """Keep in mind that a model reads other tokens than the first teacher."""
        if reader not in self.unlike and not reader.reads_like(self.teachers.first, own.tokens, theirs.tokens):
            self.unlike.append(reader)

    def _placed(self, split: Split, reader: Reader, encoded: EncodedSplit) -> EncodedSplit:
        """A split as a model reads it, with the places of its tokens, which some kinds of task keep anyway."""
        if encoded.texts.places is not None:
            return encoded
        length = self.work.config.max_length
        return encode(split, self.spec, reader.tokenizer, length, reader.prefix, places=True)

    def _logits_at(
        self, split: Split, own: EncodedSplit, theirs: PreparedSplit, reader: Reader, their_reader: Reader
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Outputs of another model, at the own tokens where there is one per token, and where there are any of it.

        Returns
        -------
        logits : array of shape (n, n_outputs) or (own_tokens, n_outputs)
        reached : array of shape (own_tokens,), bool, or None
            None where outputs count wherever they did.
        """
        outputs = theirs.outputs
        if not outputs.per_token or _same_tokens(own, theirs.encoded):
            return outputs.logits, None
        if self._kind.architecture == "span":
            raise CompatibilityError(
                f"models {reader.name!r} and {their_reader.name!r} read different tokens, and answers are places among "
                "these: choose models with the same tokenizer"
            )
        matched = match_positions(self._placed(split, reader, own), self._placed(split, their_reader, theirs.encoded))
        logits = np.zeros((len(matched), outputs.logits.shape[1]), np.float32)
        reached = matched >= 0
        logits[reached] = outputs.logits[matched[reached]]
        positions = own.alignment.positions
        assert positions is not None
        missed = int((positions & ~reached).sum())
        if missed:
            self.work.announce(
                f"{split.name}: {missed:,} of {int(positions.sum()):,} words have no output of {their_reader.name!r}, "
                "whose tokenizer cuts the text earlier, and are left out of the loss: raise max_length"
            )
        return logits, reached

    def _hidden_at(self, split: Split, own: EncodedSplit, taught: PreparedSplit) -> NDArray[np.float16]:
        """The teacher's inner states at the student's tokens: of each, the mean over tokens of the same characters."""
        assert self.student is not None
        hidden, reader = taught.outputs.hidden, self.student.reader
        assert hidden is not None
        shape = (int(own.tokens.offsets[-1]), *hidden.shape[1:])

        def build(directory: Path) -> None:
            theirs = self._placed(split, self.teachers.first, taught.encoded)
            match = match_tokens(self._placed(split, reader, own), theirs)
            arrays = tensorfile.create(directory / ARRAYS, {"hidden": ("float16", shape)})
            match.mean(hidden, arrays["hidden"])

        code = artifact_digest("sage_kit.data.token_matching")
        parts = [taught.outputs.key, own.tokens.fingerprint]
        about: dict[str, Any] = {"split": split.name, "tokens": shape[0], "layers": shape[1]}
        return self.work.cache.mapped("matched", fingerprint("matched-1", code, parts), build, about)["hidden"]


def _same_tokens(own: EncodedSplit, theirs: EncodedSplit) -> bool:
    """Whether two models read as many tokens for as many characters: the same ids."""
    mine, other = own.tokens, theirs.tokens
    return np.array_equal(mine.offsets, other.offsets) and np.array_equal(mine.ids, other.ids)


def _at_least_one(reached: NDArray[np.bool_], encoded: EncodedSplit) -> NDArray[np.bool_]:
    """Where outputs are known; of a sequence without any such place, the first where they would count."""
    positions, offsets = encoded.alignment.positions, encoded.tokens.offsets
    assert positions is not None
    found = reached.copy()
    for sequence in np.flatnonzero(np.add.reduceat(found, offsets[:-1]) == 0):
        begin, end = offsets[sequence], offsets[sequence + 1]
        found[begin + int(np.argmax(positions[begin:end]))] = True
    return found
