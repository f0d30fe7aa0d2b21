"""Built-in metrics: of classes, numbers, label sets, tags, answers and embeddings."""

from __future__ import annotations

from collections.abc import Iterable

from sage_kit import hookimpl
from sage_kit.components import MetricSpec, lazy

NUMBERS = ("numbers",)
LABEL_SETS = ("label_sets",)
TAGS = ("tags",)
SPANS = ("spans",)
EMBEDDINGS = ("embeddings",)


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
        summary="Mean F1 of the classes, or of the labels of which a text may have several",
        factory=lazy("sage_kit.builtin.metrics.table_metrics:MacroF1"),
        takes=("classes", "label_sets"),
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
    yield MetricSpec(
        name="micro_f1",
        summary="F1 of all labels of all texts together",
        factory=lazy("sage_kit.builtin.metrics.label_set_metrics:MicroF1"),
        takes=LABEL_SETS,
    )
    yield MetricSpec(
        name="mean_average_precision",
        summary="Mean over the labels of the average precision",
        factory=lazy("sage_kit.builtin.metrics.label_set_metrics:MeanAveragePrecision"),
        takes=LABEL_SETS,
    )
    yield MetricSpec(
        name="exact_set",
        summary="Share of texts whose set of labels is right",
        factory=lazy("sage_kit.builtin.metrics.label_set_metrics:ExactSet"),
        takes=LABEL_SETS,
    )
    yield MetricSpec(
        name="span_f1",
        summary="F1 of the entities that tags such as B-PER mark, as conlleval counts them",
        factory=lazy("sage_kit.builtin.metrics.tag_metrics:SpanF1"),
        takes=TAGS,
    )
    yield MetricSpec(
        name="tag_accuracy",
        summary="Share of words whose tag is right",
        factory=lazy("sage_kit.builtin.metrics.tag_metrics:TagAccuracy"),
        takes=TAGS,
    )
    yield MetricSpec(
        name="exact_match",
        summary="Share of questions answered exactly, by SQuAD's rules",
        factory=lazy("sage_kit.builtin.metrics.answer_metrics:ExactMatch"),
        takes=SPANS,
    )
    yield MetricSpec(
        name="answer_f1",
        summary="Mean F1 of an answer's words, by SQuAD's rules",
        factory=lazy("sage_kit.builtin.metrics.answer_metrics:AnswerF1"),
        takes=SPANS,
    )
    yield MetricSpec(
        name="hotpot_f1",
        summary="Mean F1 of an answer's words, yes and no counted whole, by HotpotQA's rules",
        factory=lazy("sage_kit.builtin.metrics.answer_metrics:HotpotF1"),
        takes=SPANS,
    )
    yield MetricSpec(
        name="cosine_spearman",
        summary="Spearman's correlation of the label with the cosine of two embeddings",
        factory=lazy("sage_kit.builtin.metrics.embedding_metrics:CosineSpearman"),
        takes=EMBEDDINGS,
        range=(-1.0, 1.0),
    )
    yield MetricSpec(
        name="cosine_pearson",
        summary="Pearson's correlation of the label with the cosine of two embeddings",
        factory=lazy("sage_kit.builtin.metrics.embedding_metrics:CosinePearson"),
        takes=EMBEDDINGS,
        range=(-1.0, 1.0),
    )
    yield MetricSpec(
        name="retrieval_accuracy",
        summary="Share of texts whose nearest by cosine is their pair, in both directions",
        factory=lazy("sage_kit.builtin.metrics.embedding_metrics:RetrievalAccuracy"),
        takes=EMBEDDINGS,
        needs_labels=False,
    )
