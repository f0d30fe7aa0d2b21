"""Built-in metrics: of classes, and of numbers."""

from __future__ import annotations

from collections.abc import Iterable

from sage_kit import hookimpl
from sage_kit.components import MetricSpec, lazy

NUMBERS = ("numbers",)


@hookimpl
def sage_metrics() -> Iterable[MetricSpec]:
    yield MetricSpec(
        name="accuracy",
        summary="Share of examples whose class is right",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:Accuracy"),
    )
    yield MetricSpec(
        name="f1",
        summary="F1 of class 1, of two",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:F1"),
        max_classes=2,
    )
    yield MetricSpec(
        name="macro_f1",
        summary="Mean F1 of the classes",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:MacroF1"),
    )
    yield MetricSpec(
        name="matthews",
        summary="Matthews' correlation of classes, of any number of them",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:Matthews"),
        range=(-1.0, 1.0),
    )
    yield MetricSpec(
        name="pearson",
        summary="Pearson's correlation",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:Pearson"),
        takes=NUMBERS,
        range=(-1.0, 1.0),
    )
    yield MetricSpec(
        name="spearman",
        summary="Spearman's rank correlation",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:Spearman"),
        takes=NUMBERS,
        range=(-1.0, 1.0),
    )
