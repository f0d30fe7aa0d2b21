"""A labelled file in, a verdict out: all models on the same rows, and nothing made twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from toyrun import toy_settings
from toytags import settings as tag_settings

from sage_kit.cli import main
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config, to_toml
from sage_kit.data.scoring import load_scored
from sage_kit.rundir import RunDirectory
from sage_kit.worth import contenders
from sage_kit.worth.assessment import Assessment, assess, usual_sizes
from sage_kit.worth.worth_report import write_report


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worth")


@pytest.fixture(scope="module")
def file(place: Path) -> Path:
    path = place / "reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, ["text", "label"])
        rows.writeheader()
        rows.writerows(
            {**row, "label": "good" if row["label"] else "not so good"} for row in tiny.toy_task_rows(400, 3)
        )
    return path


@pytest.fixture(scope="module")
def settings(place: Path, tiny_bert: Path) -> dict[str, Any]:
    own = toy_settings(place, tiny_bert, rounds=2)
    return {
        name: own[name]
        for name in own
        if name not in ("task", "train_file", "validation_file", "student_layers", "runs_dir")
    }


@pytest.fixture(scope="module")
def found(file: Path, place: Path, settings: dict[str, Any]) -> Assessment:
    return assess(file, place / "out", settings, Plugins(allow=""), pairs=4, announce=lambda line: None)


def test_all_are_scored_on_the_same_rows(found: Assessment, file: Path, settings: dict[str, Any]) -> None:
    names = [one.name for one in found.standings]
    assert names == [
        "teacher", "student, 1 block", "student, 2 blocks", "labels alone, 1 block", "labels alone, 2 blocks",
        "word counts",
    ]  # fmt: skip
    assert (found.metric, found.rows) == ("accuracy", 100)
    by_name = {one.name: one for one in found.standings}
    for blocks, name in ((1, "student, 1 block"), (2, "student, 2 blocks")):
        summary = RunDirectory(found.folder / "students" / str(blocks)).summary()
        assert summary is not None
        assert by_name[name].score == pytest.approx(summary["validation"]["validation"]["accuracy"])
        assert by_name["teacher"].score == pytest.approx(summary["teacher"]["validation"]["validation"]["accuracy"])
        assert by_name[name].over_teacher == pytest.approx(by_name[name].score - by_name["teacher"].score)
        assert by_name[name].blocks == blocks
    config = load_config({**settings, "task": "file", "train_file": str(file), "validation_fraction": 0.25})
    data = load_scored(Plugins(allow=""), config, lambda line: None)
    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\S+")
    features = counts.fit_transform(data.train.texts)
    scores = {}
    for strength in contenders.STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, data.train.labels)
        dev, split = data.dev, data.validation["validation"]
        scores[model.score(counts.transform(dev.texts), dev.labels), -strength] = model.score(
            counts.transform(split.texts), split.labels
        )
    assert by_name["word counts"].score == pytest.approx(scores[max(scores)])
    for one in found.standings:
        assert 0 < one.low < one.score < one.high or one.score == 1.0
        assert min(one.single_ms, one.batch_ms, one.single_speed, one.megabytes, one.parameters) > 0
    assert (
        by_name["student, 1 block"].parameters < by_name["student, 2 blocks"].parameters < by_name["teacher"].parameters
    )


def test_small_models_learn_from_labels_as_long_as_students_do(found: Assessment) -> None:
    summary = RunDirectory(found.folder / "students" / "2").summary()
    assert summary is not None
    config = json.loads((found.folder / "labels_alone" / "2" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 2
    assert set(config["label2id"]) == {"good", "not so good"}


def test_page_and_figure(found: Assessment) -> None:
    page = write_report(found)
    text = page.read_text(encoding="utf-8")
    assert found.text in text
    assert text.count("\n| ") == 2 + len(found.standings)
    assert (page.parent / "worth.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((page.parent / "worth.json").read_text(encoding="utf-8"))
    assert told["verdict"] == found.verdict
    assert [one["name"] for one in told["standings"]] == [one.name for one in found.standings]


def test_it_goes_on_where_it_was_and_makes_nothing_twice(
    found: Assessment, file: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("something was made again")

    for name in ("run", "resume", "load_teacher", "export_student", "build_student"):
        monkeypatch.setattr(contenders, name, never)
    again = assess(file, found.folder, settings, Plugins(allow=""), pairs=0, announce=lambda line: None)
    assert again.text.split(",")[0] == found.text.split(",")[0]
    assert [one.score for one in again.standings] == [one.score for one in found.standings]
    assert [one.seconds for one in again.standings[:-1]] == [one.seconds for one in found.standings[:-1]]


def test_tags_have_no_word_counts(place: Path, tiny_bert: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    own = tag_settings(tmp_path, "tags")
    file = Path(own.pop("train_file"))
    given = {**settings, **own, "rounds": 1}
    found = assess(file, tmp_path / "out", given, Plugins(allow=""), sizes=[1], pairs=0, announce=lambda line: None)
    assert [one.role for one in found.standings] == ["teacher", "student", "labels alone"]
    assert found.metric == "span_f1"


def test_usual_sizes() -> None:
    assert [usual_sizes(blocks) for blocks in (1, 2, 4, 6, 12)] == [(1,), (1,), (1, 2), (1, 2, 3), (2, 4, 6)]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, list[str]]:
    with pytest.raises(SystemExit) as exit_info:
        main(["worth", *arguments])
    return exit_info.value.code, [
        line for line in capsys.readouterr().err.splitlines() if "error" in line.lower() or line
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{file}", "--sizes", "1,two"], "--sizes '1,two' is no list of numbers of blocks"),
        (["{file}", "--sizes", "9"], "a student of 9 blocks: the teacher has 4"),
        (["{file}", "--margin", "0"], "margin is 0 points"),
        (["{file}", "--timed", "-1"], "-1 timed texts"),
        (
            ["{file}", "--student-layers", "3"],
            "student_layers is 3, but an assessment makes its own students: give --sizes",
        ),
        (["{file}", "--label-column", "stars"], "has no column 'stars'"),
        (["nowhere.csv"], "nowhere.csv"),
        (["{file}", "--out", "{out}", "--temperature", "7"], "holds an assessment with setting temperature 1.0"),
        (["{file}", "--out", "{place}"], "holds something else"),
        (["{file}", "--out", "{file}"], "holds something else"),
    ],
)
def test_bad_input_gets_one_line(
    found: Assessment, file: Path, place: Path, settings: dict[str, Any], tmp_path: Path, arguments: list[str],
    says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    toml = tmp_path / "settings.toml"
    plain = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
    toml.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in plain.items()), encoding="utf-8")
    if "{out}" in arguments:  # as they were
        toml.write_text(to_toml(load_config(settings)), encoding="utf-8")
        arguments = [*arguments, "--evaluate-validation", "end", "--validation-fraction", "0.25"]
    told = [part.format(file=file, out=found.folder, place=place) for part in arguments]
    code, lines = call(capsys, *told, "--config", str(toml))
    assert code == 2
    assert says in lines[-1]
    assert not (tmp_path / "runs" / "worth" / "reviews" / "students").exists()
