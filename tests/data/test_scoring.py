"""Metrics of plugins: named by settings and tasks, built, scored by, and told of when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from encodedrows import score
from sklearn.metrics import cohen_kappa_score, mean_absolute_error
from toyrun import toy_config

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.metrics import METRICS, best_constant, measure, predictions
from sage_kit.data.scoring import build_measure
from sage_kit.data.teacher_report import report_teacher
from sage_kit.distill import run
from sage_kit.errors import CompatibilityError, ConfigError, PluginError, UnknownComponentError
from sage_kit.recipe import resolve
from sage_kit.studies.predictions import compare_outputs, without_contributions
from sage_kit.studies.statistics import contributions, t_interval, two_way

PLUGIN = """
from pydantic import Field

from sage_kit import hookimpl
from sage_kit.adapters import sklearn_metric
from sage_kit.components import MetricSpec, Options


class WrongOptions(Options):
    weight: float = Field(default=1.0, gt=0, description="Of a wrong answer [1].")


class Wrong:
    def __init__(self, options, context):
        self.weight = options.weight

    def score(self, labels, predictions):
        return float(self.contributions(labels, predictions).mean())

    def contributions(self, labels, predictions):
        return self.weight * (labels != predictions).astype(float)


class Broken:
    def __init__(self, options, context):
        pass

    def score(self, labels, predictions):
        return "good"


@hookimpl
def sage_metrics():
    yield sklearn_metric("kappa", "sklearn.metrics:cohen_kappa_score", range=(-1, 1))
    yield sklearn_metric(
        "mean_error", "sklearn.metrics:mean_absolute_error", takes=("numbers",), larger_is_better=False,
        range=(0, float("inf")),
    )
    yield MetricSpec(
        name="wrong", summary="Wrong answers", factory=Wrong, options=WrongOptions, larger_is_better=False,
        range=(0, float("inf")),
    )
    yield MetricSpec(name="broken", summary="No number", factory=Broken)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "metrics_of_a_file.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def plugins(file: Path) -> Plugins:
    return Plugins([str(file)], allow="")


def test_a_run_is_scored_by_the_metrics_of_a_plugin(
    file: Path, plugins: Plugins, tmp_path: Path, tiny_bert: Path
) -> None:
    options = {"wrong": {"weight": 2.0}}
    config = toy_config(tmp_path, tiny_bert, rounds=1, metrics=["kappa", "wrong", "accuracy"], metric_options=options)
    directory, summary = run(config, plugins, [str(file)])
    assert summary["primary_metric"] == "kappa"
    found = directory.predictions()["validation"]
    labels, predicted = found["labels"], found["student"].argmax(-1)
    scores = summary["validation"]["validation"]
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(labels, predicted))
    assert scores["wrong"] == pytest.approx(2 * (1 - scores["accuracy"]))
    assert list(scores) == ["kappa", "wrong", "accuracy", "agreement", "calibration_error"]
    assert summary["teacher"]["dev"].keys() >= {"kappa", "wrong"}


def test_a_metric_that_is_not_there_is_told_before_anything_is_read(plugins: Plugins) -> None:
    with pytest.raises(UnknownComponentError, match=r"Unknown metric 'kapa'. Did you mean 'kappa'"):
        resolve(load_config({"task": "sst2", "schedule": "none", "metrics": ["kapa"]}), plugins)
    with pytest.raises(
        CompatibilityError, match=r"'mean_error' is for numbers, and task 'sst2' has classes: take .*f1"
    ):
        resolve(load_config({"task": "sst2", "schedule": "none", "metrics": ["mean_error"]}), plugins)
    with pytest.raises(CompatibilityError, match=r"'accuracy' is for classes, and task 'stsb' has numbers"):
        resolve(load_config({"task": "stsb", "schedule": "none", "metrics": ["accuracy"]}), plugins)
    with pytest.raises(ConfigError, match="Unknown option 'wieght'"):
        resolve(load_config({"task": "sst2", "schedule": "none", "metric_options": {"wrong": {"wieght": 2}}}), plugins)
    assert resolve(load_config({"task": "stsb", "schedule": "none", "metrics": ["mean_error", "pearson"]}), plugins)


def test_f1_of_three_classes_is_refused_with_those_that_fit(plugins: Plugins, tmp_path: Path, tiny_bert: Path) -> None:
    rows = [{**row, "label": str(i % 3)} for i, row in enumerate(tiny.toy_task_rows(90))]
    train = tiny.write_jsonl(tmp_path / "three.jsonl", rows)
    config = toy_config(tmp_path, tiny_bert, train_file=str(train), validation_file="", metrics=["f1"])
    with pytest.raises(
        CompatibilityError, match=r"'f1' tells 2 classes apart, and task 'file' has 3: .*macro_f1"
    ) as raised:
        run(config, plugins)
    assert "f1," not in str(raised.value).replace("macro_f1,", "")


def test_what_is_no_number_is_the_plugins_fault(plugins: Plugins) -> None:
    broken = build_measure("broken", plugins, load_config({}))
    with pytest.raises(PluginError, match="metric 'broken' returned 'good' instead of a number"):
        broken.score(np.array([0, 1]), np.array([0, 1]))


def spec_of(plugins: Plugins, *names: str, labels: tuple[str, ...] = ("no", "yes")) -> TaskSpec:
    built = {name: build_measure(name, plugins, load_config({})) for name in names}
    return TaskSpec(name="t", summary="", text_columns=("text",), labels=labels, metrics=names, measures=built)


def test_the_best_constant_and_the_teachers_report_know_which_way_is_up(plugins: Plugins) -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=400).astype(np.float32)
    spec = spec_of(plugins, "mean_error", labels=())
    good, bad = (labels + 0.1 * rng.standard_normal(400))[:, None], rng.normal(size=(400, 1))
    constant = best_constant(labels, measure(spec, "mean_error"))[1]
    assert constant == pytest.approx(mean_absolute_error(labels, np.full(400, labels.mean())), rel=1e-5)
    assert not report_teacher("t", spec, good.astype(np.float32), labels, outputs=None).warnings
    (warning,) = report_teacher("t", spec, bad.astype(np.float32), labels, outputs=None).warnings
    assert "no better than a constant answer" in warning
    classes = np.array([0, 0, 0, 1])
    assert best_constant(classes, measure(spec_of(plugins, "wrong"), "wrong")) == (0.0, 0.25)
    assert score(spec, good.astype(np.float32), labels)["mean_error"] == pytest.approx(
        mean_absolute_error(labels, predictions(good.astype(np.float32), spec))
    )


def test_names_are_looked_up_among_the_tasks_own_and_the_built_in(plugins: Plugins) -> None:
    spec = spec_of(plugins, "kappa")
    assert measure(spec, "accuracy").score is METRICS["accuracy"]
    with pytest.raises(ConfigError, match=r"Unknown metric 'kapa'. Did you mean 'kappa'"):
        measure(spec, "kapa")


class Outputs:
    """Three seeds of two arms on 60 examples."""

    tasks, arms = ("t",), ("plain", "sage")

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.gold = rng.integers(0, 2, 60)
        right = np.stack([self.gold == 0, self.gold == 1], axis=1)
        self.students = {
            arm: right + 1.2 * rng.standard_normal((3, 60, 2)) * scale for arm, scale in (("plain", 1.0), ("sage", 0.6))
        }

    def labels(self, task: str, split: str) -> Any:
        return self.gold

    def teacher_logits(self, task: str, split: str) -> Any:
        return np.eye(2)[self.gold]

    def logits(self, task: str, arm: str, split: str) -> Any:
        return self.students[arm]

    def splits(self, task: str) -> list[str]:
        return ["validation"]


def test_a_metric_without_influence_values_has_intervals_over_seeds_alone(plugins: Plugins) -> None:
    outputs, specs = Outputs(), {"t": spec_of(plugins, "kappa", "wrong")}
    assert without_contributions(specs, "") == ["kappa"]
    assert without_contributions(specs, "wrong") == without_contributions(specs, "agreement") == []
    predicted = {arm: logits.argmax(-1) for arm, logits in outputs.students.items()}
    kappas = {arm: [cohen_kappa_score(outputs.gold, row) for row in rows] for arm, rows in predicted.items()}
    (row,) = compare_outputs(outputs, specs, "plain").to_dict("records")
    expected = t_interval(np.subtract(kappas["sage"], kappas["plain"]))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert row["mean"] == pytest.approx(np.mean(kappas["sage"]))
    assert row["n_examples"] == 1


def test_a_metric_that_has_them_is_compared_by_examples(plugins: Plugins) -> None:
    outputs, specs = Outputs(), {"t": spec_of(plugins, "kappa", "wrong")}
    predicted = {arm: logits.argmax(-1) for arm, logits in outputs.students.items()}
    wrong = {arm: (rows != outputs.gold).astype(float) for arm, rows in predicted.items()}
    (row,) = compare_outputs(outputs, specs, "plain", metric="wrong").to_dict("records")
    expected = two_way(wrong["sage"] - wrong["plain"])
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    built = measure(specs["t"], "accuracy")
    np.testing.assert_array_equal(
        contributions(built, outputs.gold, predicted["sage"]),
        contributions("accuracy", outputs.gold, predicted["sage"]),
    )
