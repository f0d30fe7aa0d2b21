"""What is shown of classes and teacher before training, and when it is a warning."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from toyrun import toy_run, toy_settings

from sage_kit.cli import main
from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data.splits import Split, TaskData
from sage_kit.data.teacher_report import describe_labels, label_counts, report_teacher

TWO = TaskSpec(name="two", summary="", text_columns=("text",), labels=("blame", "praise"))
FOUR = TaskSpec(name="four", summary="", text_columns=("text",), labels=("a", "b", "c", "d"))
NUMBER = TaskSpec(
    name="number", summary="", text_columns=("text",), label_range=(0.0, 5.0), metrics=("pearson", "spearman")
)


def one_hot(answers: NDArray[Any], n: int) -> NDArray[np.float32]:
    return np.eye(n, dtype=np.float32)[answers]


def report(spec: TaskSpec, answers: NDArray[Any], labels: NDArray[Any], outputs: Any = "own") -> Any:
    logits = answers[:, None].astype(np.float32) if spec.is_regression else one_hot(answers, len(spec.labels))
    if outputs == "own":
        outputs = None if spec.is_regression else range(len(spec.labels))
    return report_teacher("t", spec, logits, labels, outputs=outputs)


def data(spec: TaskSpec, train: Any, dev: Any) -> TaskData:
    def split(name: str, labels: Any) -> Split:
        return Split(name, ["text"] * len(labels), None, np.asarray(labels))

    return TaskData(spec, split("train", train), split("dev", dev), {})


# ---- the classes


def test_few_classes_are_listed_with_their_counts() -> None:
    found = data(FOUR, [0, 0, 1, 2, 3, 3, 3], [0, 3])
    assert describe_labels(found) == (
        "4 classes: a (2 train, 1 dev), b (1 train, 0 dev), c (1 train, 0 dev), d (3 train, 1 dev)"
    )
    assert label_counts(found)["classes"]["d"] == {"train": 3, "dev": 1}


def test_many_classes_are_summed_up_in_one_short_line() -> None:
    spec = dataclasses.replace(FOUR, labels=tuple(f"c{index:03}" for index in range(150)))
    counts = np.full(150, 10)
    counts[7], counts[9] = 31, 4
    text = describe_labels(data(spec, np.repeat(np.arange(150), counts), np.arange(148)))
    assert text == (
        "150 classes: c007, c000, c001, ...: from 4 (c009) to 31 (c007) rows of train; 2 of them have no row in dev"
    )


def test_numbers_are_shown_by_their_range() -> None:
    found = data(NUMBER, np.float32([0.5, 1.5, 4]), np.float32([1, 3]))
    assert describe_labels(found) == "labels: numbers from 0 to 5 (train 0.5 to 4, mean 2; dev 1 to 3, mean 2)"
    assert label_counts(found)["range"] == [0.0, 5.0]


# ---- the teacher beside a constant answer


def test_a_good_teacher_is_shown_without_a_warning() -> None:
    labels = np.arange(40) % 2
    answers = labels.copy()
    answers[:5] = 1 - answers[:5]
    found = report(TWO, answers, labels)
    assert found.lines == ("teacher 't' on dev (40 rows): accuracy 0.8750; the best constant answer (blame): 0.5000",)
    assert found.warnings == ()
    assert found.to_json() == {
        "metric": "accuracy", "constant_answer": "blame", "constant_dev": 0.5, "warnings": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", accuracy_score),
        ("f1", lambda labels, answers: f1_score(labels, answers, zero_division=0)),
        ("macro_f1", lambda labels, answers: f1_score(labels, answers, average="macro", zero_division=0)),
        ("matthews", matthews_corrcoef),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of scikit-learn's own, for a constant
def test_scores_are_by_the_primary_metric(metric: str, reference: Any) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.3).astype(np.int64)
    answers = np.where(rng.random(200) < 0.8, labels, 1 - labels)
    found = report(dataclasses.replace(TWO, metrics=(metric,)), answers, labels)
    assert found.score == pytest.approx(reference(labels, answers))
    assert found.constant == pytest.approx(max(reference(labels, np.full(200, answer)) for answer in (0, 1)))
    assert not found.warnings


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews"])
def test_a_teacher_that_knows_nothing_is_told(metric: str) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    for answers in (rng.integers(0, 2, 300), np.zeros(300, np.int64), np.ones(300, np.int64)):
        found = report(dataclasses.replace(TWO, metrics=(metric,)), answers, labels)
        (warning,) = found.warnings
        assert re.search(
            r"WARNING: teacher 't' is (no better than a constant answer|right no more often than by chance) on dev",
            warning,
        )
        assert found.lines[-1] == warning
        # answers that are all alike, or unrelated, are in no other order
        assert found.better_labels == ()


def test_a_teacher_of_one_answer_for_a_rarer_class_is_not_said_to_be_out_of_order() -> None:
    labels = np.repeat([0, 1], [180, 20])
    found = report(TWO, np.ones(200, np.int64), labels)
    assert "no better than a constant answer on dev (accuracy 0.1000, constant answer 0.9000)" in found.warnings[0]
    assert not found.better_labels


def test_few_rows_say_nothing_that_chance_could_say() -> None:
    # one of two rows right: a teacher that is right three times of four does no better in 7 of 16 such pairs
    assert not report(TWO, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])).warnings
    assert not report(TWO, np.array([1, 0]), np.array([0, 1])).warnings
    # ten rows, all of them wrong: of 252 ways to shuffle the labels, one is as bad
    assert report(TWO, np.repeat([1, 0], 5), np.repeat([0, 1], 5)).better_labels == ("praise", "blame")
    # rows of one class: no teacher can be better than that answer
    assert not report(TWO, np.zeros(50, np.int64), np.zeros(50, np.int64)).warnings


def test_false_alarms_and_silence_are_as_rare_as_the_rules_say() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(40) % 2
    good = [report(TWO, np.where(rng.random(40) < 0.85, labels, 1 - labels), labels) for _ in range(200)]
    assert sum(bool(found.warnings) for found in good) <= 2
    blind = [report(TWO, rng.integers(0, 2, 40), labels) for _ in range(200)]
    assert sum(bool(found.warnings) for found in blind) >= 180
    # a rare class: the best constant answer is hard to beat, and what the teacher knows shows all the same
    rare = np.repeat([0, 1], [150, 50])
    knows = [report(TWO, np.where(rng.random(200) < 0.8, rare, 1 - rare), rare) for _ in range(200)]
    assert not any(found.warnings for found in knows if found.score > found.constant)
    many = dataclasses.replace(FOUR, labels=tuple("abcdefghij"))
    tens = np.arange(200) % 10
    weak = [report(many, np.where(rng.random(200) < 0.2, tens, rng.integers(0, 10, 200)), tens) for _ in range(100)]
    assert sum(bool(found.warnings) for found in weak) <= 5
    assert sum(bool(found.better_labels) for found in blind) <= 6
    turned = [report(TWO, np.where(rng.random(40) < 0.85, 1 - labels, labels), labels) for _ in range(200)]
    assert sum(bool(found.better_labels) for found in turned) >= 195


def test_numbers() -> None:
    rng = np.random.default_rng(3)
    labels = rng.uniform(0, 5, 100).astype(np.float32)
    good = report(NUMBER, labels / 5 + rng.normal(0, 0.05, 100), labels)
    assert not good.warnings
    assert re.fullmatch(
        rf"teacher 't' on dev \(100 rows\): pearson 0\.9\d+; the best constant answer \({labels.mean():.4g}\): 0.0000; "
        r"its outputs: -?0\.\d+ to 1\.?\d*", good.lines[0]
    )  # fmt: skip
    blind = report(NUMBER, rng.normal(0, 1, 100), labels)
    assert re.search("than a constant answer|related to the labels no more than by chance", blind.warnings[0])
    turned = report(NUMBER, -labels + rng.normal(0, 0.1, 100), labels)
    assert "its numbers fall where the labels rise (correlation -0.99" in turned.warnings[0]
    assert "teacher_labels" not in turned.warnings[0]
    assert not report(NUMBER, rng.normal(0, 1, 8), labels[:8]).warnings


# ---- another order of the outputs


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_best_order_of_many_outputs_is_found_and_named(metric: str) -> None:
    rng = np.random.default_rng(4)
    spec = dataclasses.replace(FOUR, labels=tuple("abcdefghij"), metrics=(metric,))
    labels = rng.integers(0, 10, 500)
    means = rng.permutation(10)  # what each output really means
    right = np.where(rng.random(500) < 0.9, labels, rng.integers(0, 10, 500))
    answers = np.argsort(means)[right]
    found = report(spec, answers, labels)
    assert found.better_labels == tuple(spec.labels[meant] for meant in means)
    expected = (accuracy_score if metric == "accuracy" else lambda a, b: f1_score(a, b, average="macro"))(labels, right)
    assert found.better_score == pytest.approx(expected)
    assert found.to_json()["better_teacher_labels"] == list(found.better_labels)
    assert f"teacher_labels = [{', '.join(json.dumps(label) for label in found.better_labels)}]" in found.warnings[0]


def test_two_of_four_outputs_swapped_are_told_although_the_teacher_beats_a_constant() -> None:
    labels = np.arange(80) % 4
    answers = np.array([0, 2, 1, 3])[labels]
    found = report(FOUR, answers, labels)
    assert found.better_labels == ("a", "c", "b", "d")
    assert (
        "in the best order its accuracy on dev is 1.0000, as they are 0.5000, above a constant answer's 0.2500"
        in (found.warnings[0])
    )
    assert "(--teacher-labels a,c,b,d)" in found.warnings[0]


def test_the_order_is_that_of_the_checkpoints_own_outputs() -> None:
    labels = np.arange(80) % 4
    # class 0 is taken from output 3, class 1 from output 0, ...: what the names in the checkpoint say
    outputs = (3, 0, 1, 2)
    found = report(FOUR, np.array([1, 0, 2, 3])[labels], labels, outputs=outputs)
    # output 3 stands for class 0, but means class 1; output 0 stands for class 1, but means class 0
    assert found.better_labels == ("a", "c", "d", "b")


def test_mistakes_of_a_weak_teacher_are_no_other_order() -> None:
    rng = np.random.default_rng(5)
    spec = dataclasses.replace(FOUR, labels=tuple(f"c{index:03}" for index in range(150)))
    labels = np.arange(150)
    answers = np.where(rng.random(150) < 0.7, labels, rng.integers(0, 150, 150))
    assert not report(spec, answers, labels).warnings


def test_a_head_trained_here_has_its_own_remedy() -> None:
    labels = np.arange(40) % 2
    found = report(TWO, 1 - labels, labels, outputs=None)
    assert found.warnings[0].endswith("check the labels, or raise teacher_epochs")


def test_names_that_a_flag_cannot_hold_are_given_for_the_file_alone() -> None:
    spec = dataclasses.replace(TWO, labels=('no, "never"', "it's so"))
    labels = np.arange(40) % 2
    warning = report(spec, 1 - labels, labels).warnings[0]
    assert warning.endswith('teacher_labels = ["it\'s so", "no, \\"never\\""]')


# ---- in a run


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with the toy task, and a trained teacher whose two outputs are swapped and have no names."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("swapped")
    made = tiny.make_checkpoint(folder / "new", layers=2)
    toy_run(folder, made, rounds=1, student_layers=2, schedule="none")
    cache = next((folder / "cache" / "teacher").glob("*/config.json")).parent
    model = AutoModelForSequenceClassification.from_pretrained(cache)
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight.flip(0))
        model.classifier.bias.copy_(model.classifier.bias.flip(0))
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    model.config.label2id = {"LABEL_0": 0, "LABEL_1": 1}
    model.save_pretrained(folder / "teacher")
    AutoTokenizer.from_pretrained(cache).save_pretrained(folder / "teacher")
    return folder, folder / "teacher"


def test_a_run_shows_classes_and_teacher_and_its_remedy_works(swapped: tuple[Path, Path], capsys: Any) -> None:
    folder, teacher = swapped
    settings = {"rounds": 1, "schedule": "none", "observers": ["progress"]}
    directory, summary = toy_run(folder, teacher, **settings)
    shown = capsys.readouterr().err
    assert "2 classes: 0 (135 train, 15 dev), 1 (135 train, 15 dev)" in shown
    constant = summary["teacher"]["report"]["constant_dev"]
    wrong = summary["teacher"]["dev"]["accuracy"]
    assert wrong < 0.2 < constant
    assert f"teacher {str(teacher)!r} on dev (30 rows): accuracy {wrong:.4f}; the best constant answer" in shown
    flag = re.search(r"\(--teacher-labels (\S+)\)", shown)
    assert flag, shown
    assert flag[1] == "1,0"
    assert summary["labels"]["classes"]["1"] == {"train": 135, "dev": 15}
    # told again at the end, and when the run is looked at
    with pytest.raises(SystemExit):
        main(["show", str(directory.path), "--no-figures"])
    again = " ".join(capsys.readouterr().out.split())
    assert summary["teacher"]["report"]["warnings"][0] in again

    _, summary = toy_run(folder, teacher, **settings, teacher_labels=flag[1])
    shown = capsys.readouterr().err
    assert "its outputs mean 1, 0, as teacher_labels says" in shown
    assert "WARNING" not in shown
    assert summary["teacher"]["dev"]["accuracy"] == pytest.approx(1 - wrong)
    assert summary["validation"]["validation"]["accuracy"] > 0.8


def test_the_remedy_as_a_line_of_a_file(swapped: tuple[Path, Path], tmp_path: Path) -> None:
    folder, teacher = swapped
    line = report(TWO, np.arange(40) % 2, 1 - np.arange(40) % 2).warnings[0].partition("stop and set ")[2]
    (tmp_path / "run.toml").write_text(line.partition(" (--")[0])
    config = load_config(toy_settings(folder, teacher), file=tmp_path / "run.toml")
    assert config.teacher_labels == ["praise", "blame"]
