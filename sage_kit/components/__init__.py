"""What plugin authors import: specs of components, what components pass around, and the protocols they satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.components.family_specs import FamilySpec, HeadParts
from sage_kit.components.messages import (
    BuildContext,
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
    HubSource,
    InverterSpec,
    LiftSpec,
    ObserverSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    StopRuleSpec,
    TaskSpec,
    lazy,
)

if TYPE_CHECKING:
    from sage_kit.components.messages import Floats as Floats
    from sage_kit.components.messages import Integers as Integers

__all__ = [
    "PROTOCOLS", "BuildContext", "ComponentSpec", "Decoder", "DecoderSpec", "Factory", "Family", "FamilySpec",
    "Filter", "FilterRequest", "FilterSpec", "Guesser", "Guesses", "HeadParts", "HubSource", "Inverter",
    "InverterSpec", "Lift", "LiftRequest", "LiftSpec", "ObserverSpec", "Options", "Reducer", "ReducerSpec",
    "SampleRequest", "Sampler", "SamplerSpec", "Samples", "Stateful", "StatefulReducer", "StopRule", "StopRuleSpec",
    "SupervisedReducer", "TaskSpec", "TeacherView", "TextBatch", "TokenBatch", "TokenIds", "TokenText",
    "Vocabulary", "lazy",
]  # fmt: skip
