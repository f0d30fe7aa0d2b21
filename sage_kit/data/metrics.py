"""Scores: the tasks' metrics (by scikit-learn and scipy), agreement with the teacher, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.errors import ConfigError, did_you_mean

IN_SET = 0.5
"""Probability from which on a label counts as predicted, where a text may have several."""

AGREEMENT_TOLERANCE = 0.05
"""Regression counts two outputs as alike when they differ by at most this share of the label range."""

CALIBRATION_BINS = 15

ONE_CLASS = 0.95
"""Share of synthetic examples in one class above which they teach little of the others."""

ONE_VALUE = 0.25
"""Spread of the teacher's outputs on synthetic examples, over that on real ones, below which they are alike."""

Array = NDArray[Any]


def predicted_sets(probabilities: Array) -> NDArray[np.int8]:
    """The predicted label sets: probabilities of shape (n, C) to 1 where a label is in the set, int8."""
    return (probabilities >= IN_SET).astype(np.int8)


def _accuracy(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def _f1(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def _macro_f1(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import f1_score

    if np.ndim(labels) == 2:  # label sets, of which the predictions are probabilities
        if not np.isfinite(predictions).all():
            return float("nan")
        predictions = predicted_sets(predictions)
    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def _matthews(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0  # what scikit-learn gives, without its warning
    return float(matthews_corrcoef(labels, predictions))


def _correlation(name: str) -> Callable[[Array, Array], float]:
    def correlation(labels: Array, predictions: Array) -> float:
        from scipy import stats

        if not np.isfinite(predictions).all():
            return float("nan")
        if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0  # undefined for a constant; zero says that nothing was explained
        return float(getattr(stats, name)(labels.astype(np.float64), predictions.astype(np.float64)).statistic)

    return correlation


METRICS: Mapping[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
}
"""Built-in metrics by name: each maps gold labels and predictions, both of shape (n,), to a number. F1 is that of
class 1; macro F1 takes label sets, too, (n, C) with predicted probabilities. Those of plugins, and others that are
built in, are had from `measure`."""


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric that a task is scored by.

    Attributes
    ----------
    name : str
    score : callable
        Gold labels and predictions, both of shape (n,), to a number.
    larger_is_better : bool
    contributions : callable or None
        Labels and predictions to what each example contributes to the score, shape (n,); None for a metric that has no
        such function of its own.
    needs_labels : bool
        Whether it looks at labels, which embeddings may lack.
    """

    name: str
    score: Callable[[Array, Array], float]
    larger_is_better: bool = True
    contributions: Callable[[Array, Array], Array] | None = None
    needs_labels: bool = True

    def is_better(self, one: float, other: float) -> bool:
        """Whether one score is better than another; False where either is NaN."""
        return one > other if self.larger_is_better else one < other


def measure(spec: TaskSpec, name: str) -> Measure:
    """A metric by its name: one that the task is scored by, or a built-in.

    Raises
    ------
    ConfigError
        For another name.
    """
    if name in spec.measures:
        found: Measure = spec.measures[name]
        return found
    if name not in METRICS:
        raise ConfigError(f"Unknown metric {name!r}.{did_you_mean(name, {**spec.measures, **METRICS})}")
    return Measure(name, METRICS[name])


def best_constant(labels: Array, metric: str | Measure) -> tuple[float, float]:
    """The one answer for all examples that scores best by a metric, and its score.

    Parameters
    ----------
    labels : array of shape (n,)
        Gold labels; integers are classes, others numbers.
    metric : str or Measure
        One of `METRICS`, or one that `measure` gave.

    Returns
    -------
    answer : float
        A class that occurs among the labels, or the labels' mean.
    score : float
        0 for correlations.
    """
    answers = np.unique(labels) if labels.dtype.kind == "i" else np.array([labels.mean()])
    one = Measure(metric, METRICS[metric]) if isinstance(metric, str) else metric
    scores = [one.score(labels, np.full_like(labels, answer)) for answer in answers]
    best = int(np.argmax(scores) if one.larger_is_better else np.argmin(scores))
    return float(answers[best]), scores[best]


def predictions(logits: Array, spec: TaskSpec) -> Array:
    """Predicted classes, int64, or values, as they are: (n, n_outputs) to (n,)."""
    return logits[:, 0] if spec.is_regression else logits.argmax(-1)


def alike_with(student_logits: Array, teacher_logits: Array, spec: TaskSpec) -> NDArray[np.bool_]:
    """Where student and teacher predict alike: (n, n_outputs) each to (n,).

    Classes must be equal; regression outputs may differ by `AGREEMENT_TOLERANCE` of the label range.
    """
    student, teacher = predictions(student_logits, spec), predictions(teacher_logits, spec)
    if spec.is_regression:
        tolerance = AGREEMENT_TOLERANCE * (spec.label_range[1] - spec.label_range[0])
        return np.asarray(np.abs(student - teacher) <= tolerance)
    return np.asarray(student == teacher)


def agreement(student_logits: Array, teacher_logits: Array, spec: TaskSpec) -> float:
    """Share of examples on which student and teacher predict alike ("teacher-labelled accuracy", paper section 3.4)."""
    return float(np.mean(alike_with(student_logits, teacher_logits, spec)))


def one_sided(synthetic: Array, real: Array, spec: TaskSpec) -> str:
    """What is wrong where the teacher makes of nearly all synthetic examples the same, unlike of real ones, or "".

    Parameters
    ----------
    synthetic, real : array of shape (m, n_outputs) and (n, n_outputs)
        The teacher's outputs.
    """
    if spec.is_regression:
        spreads = [float(outputs[:, 0].std()) for outputs in (synthetic, real)]
        if spreads[0] >= ONE_VALUE * spreads[1]:
            return ""
        return (
            f"the teacher's outputs on the synthetic examples spread by {spreads[0]:.2g}, on real ones by "
            f"{spreads[1]:.2g}: they teach little; exchange fewer tokens, or consistent=true for pairs"
        )
    classes = predictions(synthetic, spec)
    shares = np.bincount(classes, minlength=len(spec.labels)) / len(classes)
    most = int(shares.argmax())
    of_real = float(np.mean(predictions(real, spec) == most))
    if shares[most] <= ONE_CLASS or of_real > ONE_CLASS:
        return ""
    return (
        f"the teacher puts {shares[most]:.0%} of the synthetic examples into class {spec.labels[most]!r}, and "
        f"{of_real:.0%} of the real ones: exchange fewer tokens, set consistent=true for pairs, or take filter "
        "'choose' with balance='teacher'"
    )


def divergence(teacher: Array, student: Array) -> NDArray[np.float64]:
    r"""Kullback-Leibler divergence of the student's distribution from the teacher's, one per example.

    .. math:: \sum_c p_c (\log p_c - \log q_c), \quad p = \mathrm{softmax}(t), q = \mathrm{softmax}(s)

    For the single output of a regression task it is that of two normal distributions of unit variance about the two
    outputs, half the squared difference.

    Parameters
    ----------
    teacher, student : array of shape (n, n_outputs), float32

    Returns
    -------
    array of shape (n,), float64
        Not finite where an output is not.
    """
    t, s = teacher.astype(np.float64), student.astype(np.float64)
    if t.shape[1] == 1:
        return np.asarray(((t - s) ** 2).sum(axis=1) / 2)
    with np.errstate(invalid="ignore"):  # outputs that are not finite
        log_p, log_q = (x - x.max(axis=1, keepdims=True) for x in (t, s))
        log_p, log_q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (log_p, log_q))
        return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def calibration_error(logits: Array, labels: Array) -> float:
    """Expected calibration error over equal-width confidence bins (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Parameters
    ----------
    logits : array of shape (n, n_outputs)
    labels : array of shape (n,), int

    Returns
    -------
    float
        Mean distance of confidence and accuracy, between 0 and 1; NaN when a logit is not finite.
    """
    from scipy.special import softmax

    if not np.isfinite(logits).all():
        return float("nan")
    probabilities = softmax(logits, axis=-1)
    confidence = probabilities.max(-1)
    correct = (probabilities.argmax(-1) == labels).astype(np.float64)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))
