"""What plugin authors import: specs of components, what components pass around, and the protocols they satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.components.family_specs import FamilySpec, HeadParts
from sage_kit.components.label_messages import Answers
from sage_kit.components.loss_messages import LossBatch, LossLayers, ModelOutputs, ModelSizes
from sage_kit.components.messages import (
    BuildContext,
    Control,
    FilterRequest,
    Guesses,
    LiftRequest,
    SampleRequest,
    Samples,
    TeacherView,
    TextBatch,
    TokenBatch,
    TokenIds,
    TokenText,
)
from sage_kit.components.protocols import (
    PROTOCOLS,
    Decoder,
    Family,
    Filter,
    Guesser,
    Inverter,
    Lift,
    Loss,
    Metric,
    Reducer,
    Sampler,
    Stateful,
    StatefulReducer,
    StopRule,
    SupervisedReducer,
    Vocabulary,
)
from sage_kit.components.specs import (
    ComponentSpec,
    DecoderSpec,
    Factory,
    FilterSpec,
    InverterSpec,
    LiftSpec,
    LossSpec,
    MetricSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    StopRuleSpec,
    lazy,
)
from sage_kit.components.task_handling import TaskHandling, handling_of
from sage_kit.components.task_kinds import (
    Alignment,
    Compared,
    EncodedTexts,
    LabelColumn,
    ReadsLabels,
    TaskKind,
    TaskKindSpec,
)
from sage_kit.components.task_specs import HubSource, SplitSource, TaskSpec

if TYPE_CHECKING:
    from sage_kit.components.messages import Floats as Floats
    from sage_kit.components.messages import Integers as Integers

__all__ = [
    "PROTOCOLS", "Alignment", "Answers", "BuildContext", "Compared", "ComponentSpec", "Control", "Decoder",
    "DecoderSpec", "EncodedTexts", "Factory", "Family", "FamilySpec", "Filter", "FilterRequest", "FilterSpec",
    "Guesser", "Guesses", "HeadParts", "HubSource", "Inverter", "InverterSpec", "LabelColumn", "Lift",
    "LiftRequest", "LiftSpec", "Loss", "LossBatch", "LossLayers", "LossSpec", "Metric", "MetricSpec",
    "ModelOutputs", "ModelSizes", "ObserverSpec", "Options", "ReadsLabels", "Reducer", "ReducerSpec",
    "SampleRequest", "Sampler", "SamplerSpec", "Samples", "SplitSource", "Stateful", "StatefulReducer", "StopRule",
    "StopRuleSpec", "SupervisedReducer", "TaskHandling", "TaskKind", "TaskKindSpec", "TaskSpec", "TeacherView",
    "TextBatch", "TokenBatch", "TokenIds", "TokenText", "Vocabulary", "handling_of", "lazy",
]  # fmt: skip
