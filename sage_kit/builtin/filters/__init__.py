"""Built-in filters: `none`, `choose`, `cosine`, `density`, `teacher_confidence` and `agreement_with_anchor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Options, lazy


class CosineOptions(Options):
    """Options of `cosine`."""

    minimum: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="Least cosine between a synthetic vector and the real vector that points most nearly its way "
        "[cosine].",
    )


class DensityOptions(Options):
    """Options of `density`."""

    k: int = Field(
        default=5, ge=1, description="The real vector, counted from the nearest, whose distance is compared."
    )
    quantile: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Quantile of the real vectors' own such distances that is the limit [share of real vectors].",
    )
    sample: int = Field(
        default=2000, ge=1, description="Real vectors, at most, that the quantile is taken from [examples]."
    )


class TeacherConfidenceOptions(Options):
    """Options of `teacher_confidence`."""

    minimum: float = Field(
        default=0.7, ge=0, le=1, description="Least probability of the teacher's most probable class [probability]."
    )


class ChooseOptions(Options):
    """Options of `choose`."""

    factor: int = Field(
        default=2, ge=1, le=100, description="Examples that are made for each one that is kept [examples]."
    )
    by: Literal["divergence", "chance"] = Field(
        default="divergence",
        description="Examples are kept by how much student and teacher differ on them, or by chance.",
    )
    draw: Literal["largest", "weighted"] = Field(
        default="largest", description="The largest divergences are kept, or a draw in proportion to them."
    )
    balance: Literal["none", "teacher", "equal"] = Field(
        default="none",
        description="Classes, as the teacher labels the examples that are kept: as they fall (none), in the shares "
        "that it gives them among the real examples (teacher), or alike (equal). Needs classes.",
    )


@hookimpl
def sage_filters() -> Iterable[FilterSpec]:
    yield FilterSpec(
        name="none",
        summary="Keeps every synthetic example",
        factory=lazy("sage_kit.builtin.filters.keep_all:KeepAll"),
        uses_vectors=False,
    )
    yield FilterSpec(
        name="choose",
        summary="Of `factor` times as many examples, keeps those on which student and teacher differ most",
        factory=lazy("sage_kit.builtin.filters.choose:ChooseFilter"),
        options=ChooseOptions,
        needs_labels=True,
        uses_vectors=False,
        needs_student=True,
        surplus=lambda options: int(options.factor),
    )
    yield FilterSpec(
        name="cosine",
        summary="Keeps synthetic examples whose vector has a real one at a cosine of at least `minimum`",
        factory=lazy("sage_kit.builtin.filters.cosine:CosineFilter"),
        options=CosineOptions,
    )
    yield FilterSpec(
        name="density",
        summary="Keeps synthetic examples whose vector has its k-th nearest real one as near as real ones have theirs",
        factory=lazy("sage_kit.builtin.filters.density:DensityFilter"),
        options=DensityOptions,
    )
    yield FilterSpec(
        name="teacher_confidence",
        summary="Keeps synthetic examples of which the teacher is at least `minimum` sure",
        factory=lazy("sage_kit.builtin.filters.labels:TeacherConfidenceFilter"),
        options=TeacherConfidenceOptions,
        needs_labels=True,
        needs_classes=True,
        uses_vectors=False,
    )
    yield FilterSpec(
        name="agreement_with_anchor",
        summary="Keeps synthetic examples that the teacher puts into the class it puts their anchor into",
        factory=lazy("sage_kit.builtin.filters.labels:AgreementWithAnchorFilter"),
        needs_labels=True,
        needs_classes=True,
        uses_vectors=False,
    )
