"""What a run starts from: data, models, vectors, and the teacher's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components.records import Costs
from sage_kit.data.encoding import EncodedSplit, label_parts
from sage_kit.data.scoring import score_encoded
from sage_kit.data.splits import TaskData
from sage_kit.data.targets import Targets
from sage_kit.data.teacher_report import TeacherReport
from sage_kit.data.tokens import Tokens
from sage_kit.models.loss_inputs import LossInputs
from sage_kit.models.readers import Ensemble
from sage_kit.models.ready_student import ReadyStudent
from sage_kit.models.split import InputLayers, UpperLayers
from sage_kit.models.teacher import Teacher
from sage_kit.models.vectors import Pooled, TeacherOutputs, VectorStore
from sage_kit.models.vocabulary import TeacherVocabulary
from sage_kit.recipe import Recipe
from sage_kit.storage.cache import Cache
from sage_kit.synthesis.synthesizer import Synthesizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedSplit:
    """A split with all that is computed from it once.

    Attributes
    ----------
    encoded : EncodedSplit
        Sequences of tokens, labels, and how they align.
    store : VectorStore
        Token states and pooled vectors.
    outputs : TeacherOutputs
        The teacher's outputs.
    """

    encoded: EncodedSplit
    store: VectorStore
    outputs: TeacherOutputs

    @property
    def labels(self) -> NDArray[Any]:
        """Gold labels: int64, or float32 for regression, -1 or NaN where there is none; or what the kind reads."""
        return self.encoded.labels

    @property
    def tokens(self) -> Tokens:
        """Token ids."""
        return self.encoded.tokens

    @cached_property
    def targets(self) -> Targets:
        """What a model learns."""
        return Targets.of(self.encoded)

    @property
    def content(self) -> list[Any]:
        """What a fingerprint takes of labels and outputs."""
        alignment = self.encoded.alignment
        more = [] if alignment.positions is None else [alignment.positions]
        if self.encoded.spec.is_structured:
            more.append(np.asarray(alignment.targets))
        return [label_parts(np.asarray(self.labels)), *more]

    def scores(self, outputs: NDArray[np.float32], *, with_agreement: bool = True) -> dict[str, float]:
        """All scores of a model's outputs, as `score_encoded` gives them."""
        return score_encoded(self.encoded, outputs, self.outputs.logits if with_agreement else None)


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes
    ----------
    data : TaskData
    teacher : Teacher
    input_layers : InputLayers
        The teacher's input layers, on the run's device.
    teacher_upper : UpperLayers
        On the run's device.
    student : PreTrainedModel
        The student as a whole model, input layers included.
    train, dev : PreparedSplit
    mapped : Pooled
        What a reducer maps of train.
    vocabulary : TeacherVocabulary
        What lifts may ask about tokens.
    validation : dict of str to PreparedSplit
    evaluation : PreparedSplit or None
        On which the student is compared with the teacher at the end.
    teachers : Ensemble
        All of them, the first of which is `teacher`.
    ready : ReadyStudent or None
        The student where it is a checkpoint of its own, which reads text by its own input layers; `train`, `dev` and
        the others are then as it reads them.
    taught : PreparedSplit or None
        With such a student, train as the teacher reads it.
    report : TeacherReport
        How well the teacher knows the task.
    loss_inputs : LossInputs
        What the losses look at.
    content : str
        Fingerprint of data and teacher.
    cache : Cache
    device : torch.device
    precision : str
        "fp32", "bf16" or "fp16".
    """

    data: TaskData
    teacher: Teacher
    input_layers: InputLayers
    teacher_upper: UpperLayers
    student: PreTrainedModel
    train: PreparedSplit
    mapped: Pooled
    vocabulary: TeacherVocabulary
    dev: PreparedSplit
    validation: dict[str, PreparedSplit]
    report: TeacherReport
    loss_inputs: LossInputs
    content: str
    cache: Cache
    device: torch.device
    precision: str
    teachers: Ensemble
    evaluation: PreparedSplit | None = None
    ready: ReadyStudent | None = None
    taught: PreparedSplit | None = None

    @property
    def teacher_layers(self) -> list[int]:
        """Blocks (from 1) of the teacher whose outputs are kept for the losses."""
        return list(self.loss_inputs.kept)

    @property
    def anchors(self) -> PreparedSplit:
        """Train as the teacher reads it, which is what synthetic examples are made of."""
        return self.taught or self.train

    @property
    def own_input(self) -> InputLayers | None:
        """The student's own input layers; None where it takes the teacher's."""
        return None if self.ready is None else self.ready.reader.input_layers

    @property
    def student_tokenizer(self) -> PreTrainedTokenizerBase:
        """What the student reads text by."""
        return self.teacher.tokenizer if self.ready is None else self.ready.reader.tokenizer

    def synthesizer(self, recipe: Recipe, announce: Callable[[str], None], costs: Costs) -> Synthesizer:
        """What makes synthetic examples of train; `announce` shows a line, `costs` takes the time."""
        anchors = self.anchors
        return Synthesizer(
            recipe,
            anchors.store,
            anchors.outputs,
            self.cache,
            self.device,
            announce,
            costs,
            anchors.encoded,
            self.input_layers,
            self.mapped,
            self.vocabulary,
        )


@dataclass(frozen=True)
class PreparedVectors:
    """What the vectors of a task are looked at with, without anything that only training needs.

    Attributes
    ----------
    train, dev : VectorStore
        One pooled vector per example; no token states.
    input_layers : str
        Whose input layers computed them: `FINE_TUNED`, `TRAINED` or `PRE_TRAINED`.
    cache : Cache
    """

    train: VectorStore
    dev: VectorStore
    input_layers: str
    cache: Cache
