"""Exporting students to ONNX: the same outputs, for every kind of task, and nothing left where something is wrong."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import toyspans
import toytags
from toyrun import toy_run

from sage_kit.cli.app import main
from sage_kit.components.plugins import Plugins
from sage_kit.errors import MissingPackageError, SageError
from sage_kit.inference.predictor import Predictor, load_student
from sage_kit.rundir import RunDirectory

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'sage-kit[onnx]'")

from sage_kit.inference import onnx_export  # noqa: E402

try:
    onnx_export.require_exporter()
except MissingPackageError as too_old:  # torch's exporter came with a later version than the lowest that is declared
    pytest.skip(str(too_old), allow_module_level=True)

Finished = tuple[RunDirectory, dict[str, Any], Path]


def student(name: Path) -> Predictor:
    return load_student(str(name), plugins=Plugins(allow=""))


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def exported(classes: Finished, folder: Path) -> Path:
    """A run of classes, exported with a model in eight bits."""
    target = folder / "exported"
    assert command("export", classes[0].path, "--onnx", "--int8", "--pairs", "2", "--out", target) == 0
    return target


def test_a_run_is_exported_with_a_table(exported: Path, classes: Finished) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "config.json", "export.json", "model.onnx", "model_int8.onnx", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    told = json.loads((exported / "export.json").read_text())
    assert [line["name"] for line in told["table"]] == ["teacher", "student", "onnx", "int8"]
    assert 0 < told["largest_difference"] < 1e-4
    # of the validation split first, and then of what the student learnt from
    assert told["scored"] == {"validation": 120}
    assert told["rows"] == 420
    teacher, own, onnx, int8 = told["table"]
    score = classes[1]["validation"]["validation"]
    assert own["scores"]["validation"]["accuracy"] == pytest.approx(score["accuracy"])
    assert own["agreement"] == pytest.approx(score["agreement"])
    assert teacher["agreement"] is None
    assert onnx["scores"]["validation"]["accuracy"] == own["scores"]["validation"]["accuracy"]
    assert onnx["megabytes"] == pytest.approx((exported / "model.onnx").stat().st_size / 1e6)
    assert int8["megabytes"] < onnx["megabytes"]
    for line in told["table"]:
        assert [one["batch"] for one in line["latencies"]] == [1, 32]
        assert all(one["milliseconds"] > 0 and one["pairs"] == 2 for one in line["latencies"])
    assert [one["speedup"] for one in own["latencies"]] == [[1, 1, 1]] * 2


def test_labels_and_a_free_size_are_in_the_folder(exported: Path) -> None:
    import onnxruntime

    config = json.loads((exported / "config.json").read_text())
    assert config["id2label"] == {"0": "0", "1": "1"}
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    assert [(one.name, one.shape) for one in session.get_inputs()] == [
        (name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("logits", ["batch", 2])]


@pytest.mark.parametrize("file", ["", "model_int8.onnx"])
def test_commands_take_an_exported_folder(
    exported: Path, classes: Finished, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, summary, rows = classes
    output = tmp_path / "out.jsonl"
    assert command("predict", exported / file, rows, "--out", output) == 0
    texts = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    own = student(directory.path).predict(texts)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    same = np.mean([one["label"] == label for one, label in zip(found, own["label"], strict=True)])
    if not file:
        assert same == 1
        np.testing.assert_allclose([one["probability"] for one in found], own["probability"], atol=1e-5)
    else:
        assert same > 0.9
    capsys.readouterr()
    assert command("evaluate", exported / file, rows, "--json") == 0
    score = json.loads(capsys.readouterr().out)[0]["value"]
    assert score == pytest.approx(summary["validation"]["validation"]["accuracy"], abs=0.1 if file else 1e-9)


@pytest.mark.parametrize("kind", ["tags", "spans", "label_sets"])
def test_other_kinds(folder: Path, tiny_bert: Path, kind: str, tmp_path: Path) -> None:
    settings = toyspans.settings(folder) if kind == "spans" else toytags.settings(folder, kind)
    directory, _ = toy_run(folder, tiny_bert, **settings, rounds=1, teacher_epochs=2)
    target = tmp_path / "exported"
    assert command("export", directory.path, "--onnx", "--no-latency", "--out", target) == 0
    own, other = student(directory.path), student(target)
    assert other.spec.label_kind == kind
    assert other.spec.labels == own.spec.labels
    assert other.spec.text_columns == own.spec.text_columns
    rows = [json.loads(line) for line in Path(settings["validation_file"]).read_text().splitlines()][:30]
    texts = [" ".join(row["tokens"]) if kind == "tags" else row[settings["text_column"]] for row in rows]
    pairs = [row["context"] for row in rows] if kind == "spans" else None
    predicted = own.predict(texts, pairs)
    assert other.predict(texts, pairs) == predicted
    if kind == "spans":  # read in windows, which the page leaves to the command
        return
    page = told_snippets()
    session, tokenizer, about, page["labels"] = page["load"](target)
    encoded, (logits,) = page["compute"](session, tokenizer, about, texts)
    if kind == "tags":
        found = [page["tags"](*each) for each in zip(texts, encoded, logits, strict=True)]
    else:
        found = [[page["labels"][str(index)] for index in np.flatnonzero(row >= 0)] for row in logits]
    assert found == predicted[kind if kind == "tags" else "labels"]


def told_snippets() -> dict[str, Any]:
    """The functions that the page about exporting gives to programs without torch."""
    page = Path(__file__).parents[2] / "docs" / "exporting.md"
    first, second = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(first[: first.index("session, tokenizer, about, labels = load(")] + second[second.index("def tags(") :], names)
    return names


def test_embeddings_have_length_one_in_the_graph(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    import onnxruntime
    from tokenizers import Tokenizer

    texts = [row["text"] for row in tiny.toy_task_rows(40, seed=1)]
    file = tiny.write_jsonl(folder / "texts.jsonl", [{"text": text} for text in texts])
    directory, _ = toy_run(
        folder, tiny_bert, task_kind="embeddings", label_column="", train_file=str(file), validation_file="", rounds=1,
        text_prefix="good: ",
    )  # fmt: skip
    target = tmp_path / "exported"
    # the checkpoint alone, on a file without labels
    assert command("export", directory.student, file, "--onnx", "--no-latency", "--out", target) == 0
    about = json.loads((target / "export.json").read_text())
    assert (about["pooling"], about["prefix"], about["rows"]) == ("mean", "good: ", 40)
    # as somebody does who has neither torch nor this package
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch([about["prefix"] + text for text in texts])
    values = {
        "input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded],
        "token_type_ids": [one.type_ids for one in encoded],
    }  # fmt: skip
    session = onnxruntime.InferenceSession(target / "model.onnx")
    (found,) = session.run(["sentence_embedding"], {name: np.array(values[name]) for name in about["inputs"]})
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    own = np.array(student(directory.path).predict(texts)["embedding"])
    np.testing.assert_allclose(found, own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(student(target).predict(texts)["embedding"], own, atol=1e-4)


def test_a_model_that_differs_leaves_nothing(
    classes: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    assert command("export", classes[0].path, "--onnx", "--no-latency", "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"differs from the student by up to [\d.e-]+ on .*nothing is written", told), told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "say what to export to: --onnx"),
        (["nothing", "--onnx"], "nothing is no folder on this machine: say with --out"),
        (["nothing", "--onnx", "--out", "out"], "nothing"),
        (["STUDENT", "--onnx", "--out", "out"], "a checkpoint without a run.*name a file of real texts"),
        (["RUN", "FILE", "--onnx", "--task", "sst2", "--out", "out"], "either a file of texts or"),
        (["RUN", "FILE", "--onnx", "--text-column", "review", "--out", "out"], "has no column 'review'"),
        (["RUN", "other.jsonl", "--onnx", "--out", "out"], "'never seen'"),
        (["RUN", "absent.csv", "--onnx", "--out", "out"], r"absent\.csv does not exist"),
        (
            ["RUN", "--onnx", "--task", "stsb", "--out", "out"],
            "the student predicts classes, and labels of task 'stsb'",
        ),
        (["RUN", "--onnx", "--out", "other.jsonl"], r"other\.jsonl is a file: name a folder"),
        (["RUN", "--onnx", "--out", "full"], "full holds something else than an exported student"),
        (["RUN", "--onnx", "--out", "no/such/folder"], "no/such is no folder: make it first"),
        (["RUN", "--onnx", "--max-length", "99", "--out", "out"], "takes at most 64 tokens"),
        (["EXPORTED", "FILE", "--onnx", "--out", "out"], "is an exported student already"),
        (["BROKEN", "FILE", "--onnx", "--out", "out"], "has ids up to"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(
    classes: Finished, exported: Path, tmp_path: Path, words: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import shutil

    directory, _, file = classes
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_DATA_DIR", str(tmp_path / "none"))
    if "stsb" in words:
        texts = tiny.WORDS[:20]
        rows = [{"sentence1": word, "sentence2": "bad", "label": float(place % 5)} for place, word in enumerate(texts)]
        _write_parquet(Path("none/glue/stsb"), rows)
    tiny.write_jsonl(Path("other.jsonl"), [{"text": "good", "label": "never seen"}])
    tiny.write_jsonl(Path("full/rows.jsonl"), [{"text": "good"}])
    if "BROKEN" in words:
        shutil.copytree(directory.student, "broken")
        tokenizer = tiny.make_tokenizer()
        tokenizer.add_tokens([f"new{number}" for number in range(9)])
        tokenizer.save_pretrained("broken")
    before = sorted(tmp_path.rglob("*"))
    names = {
        "RUN": directory.path, "STUDENT": directory.student, "FILE": file, "EXPORTED": exported, "BROKEN": "broken",
    }  # fmt: skip
    assert command("export", *(names.get(word, word) for word in words)) == 2
    told = capsys.readouterr().err.splitlines()
    assert re.search(message, told[-1]), told
    assert sorted(tmp_path.rglob("*")) == before


def _write_parquet(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no about", "has no export.json beside it"),
        ("no model", r"model\.onnx does not exist: export the student again"),
        ("bad model", "cannot be read by onnxruntime"),
        ("bad about", r"export\.json is not readable"),
        ("old about", "version 0, and read is 1"),
        ("less about", "max_length is missing"),
        ("other inputs", "the two do not belong together"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(exported: Path, tmp_path: Path, change: str, message: str) -> None:
    import shutil

    target = tmp_path / "damaged"
    shutil.copytree(exported, target)
    name, path = target, target / "export.json"
    about = json.loads(path.read_text())
    if change == "no about":
        path.unlink()
        name = target / "model.onnx"
    elif change == "no model":
        (target / "model.onnx").unlink()
    elif change == "bad model":
        (target / "model.onnx").write_bytes(b"no graph")
    elif change == "bad about":
        path.write_text("{")
    else:
        if change == "less about":
            del about["max_length"]
        about |= {"old about": {"version": 0}, "other inputs": {"inputs": ["input_ids"]}}.get(change, {})
        path.write_text(json.dumps(about))
    with pytest.raises(SageError, match=message) as raised:
        student(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "is an exported student, which is computed as it was written, on the CPU"),
        ({"precision": "bf16"}, "leave out precision"),
        ({"kind": "tags"}, "was exported for a task of kind 'classification'"),
        ({"max_length": 99}, "takes at most 32 tokens"),
    ],
)
def test_settings_that_an_exported_student_lacks(exported: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SageError, match=message):
        load_student(str(exported), plugins=Plugins(allow=""), **settings)


def test_an_earlier_export_is_replaced_and_a_missing_package_is_named(
    exported: Path, classes: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (exported / "export.json").read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert command("export", classes[0].path, "--onnx", "--out", exported) == 2
    assert "exporting needs onnxscript: pip install 'sage-kit[onnx]'" in capsys.readouterr().err
    assert (exported / "export.json").read_bytes() == before


def test_the_service_of_the_documentation_answers_as_the_student_does(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("STUDENT", str(exported))
    app = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "serving" / "app.py"))["app"]
    client, texts = TestClient(app), [row["text"] for row in tiny.toy_task_rows(20, seed=9)]
    answers = client.post("/classify", json={"texts": texts}).json()
    predicted = student(exported).predict(texts)
    assert [one["label"] for one in answers] == predicted["label"]
    assert [one["probability"] for one in answers] == pytest.approx(predicted["probability"], abs=1e-5)
    for wrong in ({"texts": []}, {"texts": [""]}, {"texts": "a text"}, {}):
        assert client.post("/classify", json=wrong).status_code == 422
