"""Model cards of runs of every kind: true to the run, readable by the hub, and with nothing of this machine."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import toyspans
import toytags
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from toyrun import go_back, toy_run, toy_settings

import sage_kit
from sage_kit.cli.app import main
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config, to_toml
from sage_kit.errors import SageError
from sage_kit.inference.card_facts import ENGLISH, RunFacts, without_folders
from sage_kit.inference.card_markup import code, fenced
from sage_kit.inference.evaluation import evaluate_file
from sage_kit.inference.model_card import model_card, write_model_card
from sage_kit.inference.predictor import load_student
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.run_record import recorded_settings

KINDS = ("classes", "numbers", "label_sets", "tags", "spans", "embeddings")

TAGS = {"tags": "token-classification", "spans": "question-answering", "embeddings": "sentence-similarity"}


@pytest.fixture(scope="module")
def runs(folder: Path, tiny_bert: Path) -> dict[str, RunDirectory]:
    """A finished run of each kind, with the card's file of validation rows beside it."""
    for name, seed in (("train", 1), ("others", 2)):
        rows = tiny.toy_task_rows(160, seed)
        tiny.write_jsonl(folder / f"numbers_{name}.jsonl", [{**row, "label": 2.5 * row["label"]} for row in rows])
        pairs = [
            {"text": one["text"], "other": other["text"], "label": float(one["label"] == other["label"])}
            for one, other in zip(rows[::2], rows[1::2], strict=True)
        ]
        tiny.write_jsonl(folder / f"pairs_{name}.jsonl", pairs)

    def files(name: str) -> dict[str, str]:
        places = {"train_file": "train", "validation_file": "others"}
        return {setting: str(folder / f"{name}_{part}.jsonl") for setting, part in places.items()}

    settings: dict[str, dict[str, Any]] = {
        "classes": {},
        "numbers": {"task_kind": "regression", **files("numbers")},
        "label_sets": toytags.settings(folder, "label_sets"),
        "tags": toytags.settings(folder, "tags"),
        "spans": toyspans.settings(folder, unanswered=0.2),
        "embeddings": {
            "task_kind": "embeddings", "text_pair_column": "other", **files("pairs"), "text_prefix": "good: ",
        },
    }  # fmt: skip
    return {kind: toy_run(folder, tiny_bert, **settings[kind], rounds=1, teacher_epochs=8)[0] for kind in KINDS}


def card(directory: RunDirectory) -> str:
    return model_card(directory.path, Plugins(allow=""))


def table_rows(text: str, heading: str) -> list[list[str]]:
    """The cells of a card's first table below a heading, as a reader of Markdown sees them."""
    tokens = MarkdownIt().enable("table").parse(text.split(f"## {heading}\n")[1])
    rows: list[list[str]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[place + 1].children or ()))
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_tells_what_the_student_scores(runs: dict[str, RunDirectory], kind: str) -> None:
    """Its scores and intervals are those that asking the student gives."""
    directory = runs[kind]
    config, text = directory.config(), card(directory)
    predictor = load_student(str(directory.path), plugins=Plugins(allow=""))
    columns = tuple(filter(None, (config.text_column, config.text_pair_column)))
    expected = {
        one.metric: one
        for one in evaluate_file(
            predictor, Path(config.validation_file), columns, config.label_column,
            load_config({"metrics": directory.summary()["metrics"]}), Plugins(allow=""), lambda line: None,
        )
    }  # fmt: skip
    header, *rows = table_rows(text, "Scores")
    assert header == ["split", "rows", "metric", "student", "teacher", "student less teacher"]
    scored = {row[2]: row for row in rows if row[0] == "validation"}
    assert scored.keys() == {*expected, "agreement with the teacher"}
    teacher = directory.summary()["teacher"]["validation"]["validation"]
    for name, one in expected.items():
        _, count, _, own, of_teacher, less = scored[name]
        assert int(count) == one.rows
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", own)]
        assert numbers[0] == pytest.approx(one.value, abs=1e-4)
        if math.isnan(one.low):
            assert len(numbers) == 1
        else:
            least = -1.0 if name in ("pearson", "spearman") else 0.0
            assert numbers[1:] == pytest.approx([max(one.low, least), min(one.high, 1.0)], abs=2e-4)
        assert float(of_teacher) == pytest.approx(teacher[name], abs=1e-4)
        assert float(less.split()[0]) == pytest.approx(one.value - teacher[name], abs=2e-4)
    assert "One student, made with one seed" in text
    assert "never scored" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_reads_it(runs: dict[str, RunDirectory], kind: str) -> None:
    directory = runs[kind]
    summary, data = directory.summary(), ModelCard(card(directory)).data
    assert data.pipeline_tag == TAGS.get(kind, "text-classification")
    assert data.to_dict()["library_name"] == ("sentence-transformers" if kind == "embeddings" else "transformers")
    assert data.base_model is None  # a folder of this machine
    assert data.license is None
    assert "knowledge-distillation" in data.tags
    told = {one.metric_name: (one.metric_value, one.dataset_split, one.dataset_args) for one in data.eval_results}
    scores = summary["validation"]["validation"]
    assert told == {
        name: (round(scores[name], 4), "validation", {"rows": summary["examples"]["validation"]})
        for name in summary["metrics"]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_this_machine_is_told(runs: dict[str, RunDirectory], kind: str, folder: Path) -> None:
    text = card(runs[kind])
    for private in (str(folder), str(Path.home()), str(Path.cwd()), "tmp"):
        assert private not in text
    assert text == card(runs[kind])


# the tiny tokenizer has words alone and no pieces of them
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "embeddings"])
def test_what_it_says_of_loading_works(runs: dict[str, RunDirectory], kind: str) -> None:
    directory = runs[kind]
    text = card(directory).replace("path/to/student", str(directory.student))
    text = text.replace("A text of some words.", "good awful movie")
    plain, own = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    told = []
    for snippet in (plain, own):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(snippet, {})
        told.append(printed.getvalue().strip())
    predictor = load_student(str(directory.student), plugins=Plugins(allow=""), kind=kind if kind == "spans" else "")
    if kind == "spans":
        question, context = "Who wrote the book?", "The book was written by Ada, and read by many."
        assert told[0] == predictor.predict([question], [context])["answer"][0] != ""
        return
    assert told[1] == str(predictor.predict(["A text.", "Another text."]))
    found = predictor.predict(["A text."], probabilities=kind == "label_sets")
    if kind == "classes":
        ((label, score),) = re.findall(r"'label': '(.*?)', 'score': ([\d.]+)", told[0])
        assert (label, float(score)) == (found["label"][0], pytest.approx(found["probability"][0], abs=1e-5))
    elif kind == "numbers":
        assert float(told[0]) == pytest.approx(found["prediction"][0], abs=1e-5)
    elif kind == "tags":
        # pieces that are tagged as nothing are left out
        (tags,) = predictor.predict(["good awful movie"])["tags"]
        assert (
            {one["entity_group"] for one in eval(told[0], {"np": np})}
            == {tag[2:] for tag in tags if tag != "O"}
            != set()
        )
    else:
        assert sorted(re.findall(r"'(.*?)'", told[0])) == sorted(found["labels"][0])


def test_embeddings_are_loaded_by_sentence_transformers(runs: dict[str, RunDirectory]) -> None:
    plain, own = re.findall(r"```python\n(.*?)\n```", card(runs["embeddings"]), re.DOTALL)
    assert 'SentenceTransformer("path/to/student")' in plain
    compile(plain, "card", "exec")
    exec(own.replace("path/to/student", str(runs["embeddings"].student)), {})
    assert "In front of each text stands `good:`" in card(runs["embeddings"])


def copy_of(
    directory: RunDirectory, path: Path, settings: dict[str, Any] | None = None, **summary: Any
) -> RunDirectory:
    """The same run in another place, with other settings, and with other things in its summary."""
    shutil.copytree(directory.path, path)
    found = RunDirectory.open(path)
    if settings:
        config = found.config().model_copy(update=settings)
        (path / "config.toml").write_text(to_toml(config))
        told = json.loads((path / "environment.json").read_text())
        (path / "environment.json").write_text(json.dumps({**told, "settings": recorded_settings(config)}))
    if summary:
        found.write_summary({**found.summary(), **summary})
    return found


def test_names_that_look_like_markup(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    """A reader of Markdown finds the same tables, and no markup in them."""
    names = ["a|b`c``d", "---\nx: [", "<script>alert(1)</script>", "[click](http://example.org)", "`", " ", "**no**"]
    labels = {"classes": {name: {"train": 3, "dev": 1} for name in names}}
    directory = copy_of(
        runs["classes"], tmp_path / "run", {"train_file": "/home/x/`|` [a](b).jsonl", "text_prefix": "```\n# x"},
        labels=labels, stopped="because\n# of | this",
    )  # fmt: skip
    text = card(directory)
    assert ModelCard(text).data.pipeline_tag == "text-classification"
    assert [row[0] for row in table_rows(text.replace("Rows of each class:", "## Classes\n\n"), "Classes")[1:]] == [
        "a|b`c``d", "--- x: [", *names[2:5], "(empty)", "**no**"
    ]  # fmt: skip
    tokens = [
        child
        for token in MarkdownIt().enable("table").parse(ModelCard(text).text)
        for child in (token, *(token.children or ()))
    ]
    marks = [token.content for token in tokens if token.type in ("html_block", "html_inline")]
    assert [mark.strip().split(":")[0] for mark in marks] == ["<!-- written by sage-kit card"]
    assert [token.attrs["href"] for token in tokens if token.type == "link_open"] == [
        "https://arxiv.org/abs/2508.14783"
    ]
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == ["Use", "Data", "Scores", "Limits", "Costs", "Settings", "Made with"]
    (block,) = [token.content for token in tokens if token.type == "fence" and token.info == "toml"]
    assert load_config(file=_write(tmp_path / "c.toml", block)).text_prefix == "```\n# x"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_markup() -> None:
    assert code("x" * 200, 10) == "`xxxxxxx...`"
    assert code("a\tb\nc") == "`a b c`"
    assert fenced("````", "toml") == "`````toml\n````\n`````"
    assert without_folders({"a": ["/home/x/data.csv", "b/c", "C:\\Users\\x\\t.csv"]}) == {
        "a": ["data.csv", "b/c", "t.csv"]
    }
    assert without_folders("package:mod/x") == "package:mod/x"


def test_what_was_never_looked_at(folder: Path, tiny_bert: Path) -> None:
    directory, _ = toy_run(folder, tiny_bert, rounds=1, evaluate_validation="never", schedule="none")
    text = card(directory)
    assert "- It was never scored on validation data." in text
    assert "The student was scored on dev alone" in text
    assert "by plain distillation" in text
    assert ModelCard(text).data.eval_results is None
    assert {row[0] for row in table_rows(text, "Scores")[1:]} == {"dev"}
    assert ["validation", "120", "not looked at"] in table_rows(text, "Data")


def test_other_splits_and_missing_labels(folder: Path, tiny_bert: Path) -> None:
    """A transfer set, an evaluation set without labels: by agreement alone."""
    rows = tiny.toy_task_rows(50, seed=5)
    texts = tiny.write_jsonl(folder / "others.jsonl", [{"text": row["text"]} for row in rows])
    directory, summary = toy_run(
        folder, tiny_bert, rounds=1, transfer_pool=100, transfer_rows=60, evaluation_file=str(texts),
        evaluate_validation="end",
    )  # fmt: skip
    text = card(directory)
    assert ["train", "60", "the student learned from them"] in table_rows(text, "Data")
    assert any(row[0] == "teacher" and row[2] == "the teacher learned from them" for row in table_rows(text, "Data"))
    found = [row for row in table_rows(text, "Scores") if row[0] == "evaluation"]
    assert [row[1:3] for row in found] == [["50", "agreement with the teacher"]]
    assert float(found[0][3].split()[0]) == pytest.approx(summary["evaluation"]["agreement"], abs=1e-4)
    assert "evaluation texts from `others.jsonl`" in text
    assert {one.dataset_split for one in ModelCard(text).data.eval_results} == {"validation"}


def test_a_teacher_of_the_hub(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    """Its name, licence and number of blocks are told where the hub's cache holds it; a name alone is no proof."""
    directory = copy_of(runs["classes"], tmp_path / "run", {"teacher": "acme/teacher", "task": "sst2"})
    text = card(directory)
    assert ModelCard(text).data.base_model is None
    assert "distilled from `acme/teacher` by" in text
    cached = Path(constants.HF_HUB_CACHE) / "models--acme--teacher"
    snapshot = cached / "snapshots" / ("0" * 40)
    try:
        tiny.make_checkpoint(snapshot, layers=7)
        (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\nA teacher.\n")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
        text = card(directory)
    finally:
        shutil.rmtree(cached)
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.language) == ("acme/teacher", "apache-2.0", "en")
    assert data.datasets == ["nyu-mll/glue"]
    assert {one.dataset_config for one in data.eval_results} == {"sst2"}
    assert "[`acme/teacher`](https://huggingface.co/acme/teacher)" in text
    assert "2 encoder blocks of its teacher's 7" in text


@pytest.mark.parametrize("card_of_teacher", ["A teacher.\n", "---\n- no table\n---\n", "---\n: [\n---\n"])
def test_a_teacher_whose_card_tells_nothing(
    runs: dict[str, RunDirectory],
    tiny_bert: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    card_of_teacher: str,
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "teacher")
    (tmp_path / "teacher" / "README.md").write_text(card_of_teacher)
    directory = copy_of(runs["classes"], tmp_path / "run", {"teacher": str(tmp_path / "teacher")})
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    try:
        assert ModelCard(card(directory)).data.license is None
    finally:
        logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    assert not caplog.records


def test_languages_are_of_known_tasks() -> None:
    plugins = Plugins(allow="")
    for name in ENGLISH:
        assert "language" not in plugins.task(name, {}).options.model_fields
    assert facts_of(plugins, "xnli", {"language": "de"}) == "de"
    assert facts_of(plugins, "xnli", {}) == "en"
    assert facts_of(plugins, "file", {}) == ""


def facts_of(plugins: Plugins, task: str, options: dict[str, Any]) -> str:
    config = load_config({"task": task, "task_options": options})
    empty: Any = None
    return RunFacts("x", config, {}, {}, {}, {}, False, plugins.task(task, options), empty, None, [], {}).language


def test_a_metric_that_is_gone_has_no_interval(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    summary = runs["classes"].summary()
    scores = {**summary["validation"]["validation"], "mine": 0.25}
    directory = copy_of(
        runs["classes"], tmp_path / "run", metrics=["mine", "accuracy"], validation={"validation": scores}
    )
    rows = {row[2]: row for row in table_rows(card(directory), "Scores")[1:]}
    assert rows["mine"][3:] == ["0.2500", "-", "-"]
    assert "(" in rows["accuracy"][3]
    assert "Of some metrics no interval is known" in card(directory)


def test_a_task_whose_plugin_is_gone(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    text = card(copy_of(runs["numbers"], tmp_path / "run", {"task": "gone"}))
    assert "Task `gone`, of a plugin." in text
    assert ModelCard(text).data.datasets is None
    assert 'function_to_apply="none"' in text
    assert table_rows(text, "Scores") == table_rows(card(runs["numbers"]), "Scores")


def test_what_is_special_about_a_run(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    summary = runs["classes"].summary()
    directory = copy_of(
        runs["classes"], tmp_path / "run", {"student_width": 16, "other_teachers": ["a/b"]},
        rounds=summary["rounds"] * 3, exported_round=2, checkpoint_equals_student=False, unanswered=True,
        teacher={**summary["teacher"], "report": {**summary["teacher"]["report"], "warnings": ["/home/x is weak"]}},
        disabled_observers={"watch": "/home/x/y.py failed"},
    )  # fmt: skip
    text = card(directory)
    for told in (
        "Its blocks are 16 dimensions wide", "(a checkpoint on its maker's machine) and `a/b` by",
        "The student is that of round 2, the best on dev.", "so that it scores otherwise than",
        "little or no better than an answer that looks at no text", "Some observers of the run failed",
    ):  # fmt: skip
        assert told in text
    assert "/home/x" not in text


def test_run_and_resume_write_it(folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "by_command"
    settings = {**toy_settings(folder, tiny_bert, rounds=2, keep_checkpoints=0), "run_dir": str(target)}
    file = folder / "by_command.toml"
    file.write_text(to_toml(load_config(settings)))
    with pytest.raises(SystemExit) as ended:
        main(["run", "--config", str(file)])
    assert ended.value.code == 0, capsys.readouterr().err
    readme = target / "student" / "README.md"
    assert readme.read_text() == model_card(target)
    go_back(RunDirectory.open(target), to_round=1)
    shutil.rmtree(target / "student")
    with pytest.raises(SystemExit) as ended:
        main(["resume", str(target)])
    assert ended.value.code == 0, capsys.readouterr().err
    assert readme.read_text() == model_card(target)


def test_a_card_changed_by_hand_is_kept(runs: dict[str, RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    directory = runs["tags"]
    path = write_model_card(directory.path)
    first = path.read_text()
    assert first == model_card(directory.path)
    assert sage_kit.write_model_card(directory.path) == path  # as it was written by rule, so it may be written again
    path.write_text(first.replace("## Limits", "## Limits\n\nMine."))
    with pytest.raises(SageError, match="was written or changed by hand: keep it"):
        write_model_card(directory.path)
    assert "Mine." in path.read_text()
    with pytest.raises(SystemExit):
        main(["card", str(directory.path), "--overwrite"])
    assert path.read_text() == first
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["card", str(directory.path), "--show"])
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "summary.json").unlink(), "is not finished, so it has no student: finish it with `sage-"),
        (lambda path: (path / "summary.json").write_text("{}"), "summary.json has no 'dev' that can be used"),
        (lambda path: (path / "summary.json").write_text("{"), "summary.json is not readable"),
        (lambda path: (path / "costs.json").write_text("[1"), "costs.json is not readable"),
        (lambda path: (path / "environment.json").unlink(), "environment.json does not exist"),
        (lambda path: (path / "predictions.safetensors").write_bytes(b"x"), "predictions.safetensors is not readable"),
        (lambda path: shutil.rmtree(path / "student"), "config.json does not exist"),
        (lambda path: shutil.rmtree(path), "does not exist: name a directory that `sage-kit run` made"),
        (lambda path: (path / "config.toml").unlink(), "is not a run"),
        (lambda path: (path / "config.toml").write_text("tsk = 1"), "unusable settings: Unknown setting 'tsk'"),
    ],
)
def test_what_is_no_finished_run(
    runs: dict[str, RunDirectory], tmp_path: Path, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(runs["classes"], tmp_path / "run")
    (directory.student / "README.md").unlink(missing_ok=True)
    spoil(directory.path)
    with pytest.raises(SystemExit) as ended:
        main(["card", str(directory.path)])
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2, told
    assert message in told[-1]
    assert len(told) == 1
    assert not (directory.student / "README.md").exists()


def test_numbers_that_are_not_finite(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    """A score that no number stands for has no row; JSON has null in its place."""
    dev = {**runs["classes"].summary()["dev"], "f1": None}
    directory = copy_of(runs["classes"], tmp_path / "run", dev=dev)
    names = [row[2] for row in table_rows(card(directory).replace("On dev, on", "## Dev\n\nOn dev, on"), "Dev")[1:]]
    assert names == ["accuracy", "agreement with the teacher"]
    assert json.loads((directory.path / "summary.json").read_text())["dev"]["f1"] is None
