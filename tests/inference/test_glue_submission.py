"""Submissions to the GLUE server: names, headers, sizes and labels of its files, whatever order labels have."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from sage_kit.cli.app import main
from sage_kit.components.plugins import Plugins
from sage_kit.errors import SageError
from sage_kit.inference.glue_submission import PARTS, files_by_part, students_by_task, submit
from sage_kit.inference.predictor import load_student

# names, sizes and labels as https://gluebenchmark.com/faq and the test sets have them
SERVER = {
    "CoLA.tsv": (1063, {"0", "1"}),
    "SST-2.tsv": (1821, {"0", "1"}),
    "MRPC.tsv": (1725, {"0", "1"}),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, {"0", "1"}),
    "MNLI-m.tsv": (9796, {"entailment", "neutral", "contradiction"}),
    "MNLI-mm.tsv": (9847, {"entailment", "neutral", "contradiction"}),
    "QNLI.tsv": (5463, {"entailment", "not_entailment"}),
    "RTE.tsv": (3000, {"entailment", "not_entailment"}),
    "WNLI.tsv": (146, {"0", "1"}),
    "AX.tsv": (1104, {"entailment", "neutral", "contradiction"}),
}

LABELS = {
    "sst2": ("positive", "negative"),  # not in the task's order
    "wnli": ("not_entailment", "entailment"),
    "mnli": ("CONTRADICTION", "ENTAILMENT", "NEUTRAL"),
    "qqp": ("0", "1"),
}


def make_student(folder: Path, names: tuple[str, ...], *, pairs: bool) -> Path:
    """A random classifier whose answers differ from text to text: no class is likelier than the others on the whole."""
    tiny.make_checkpoint(folder, layers=1, labels=len(names), label_names=names)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), tiny.make_tokenizer()
    batch = tokenizer(texts(50, 0), texts(50, 1) if pairs else None, return_tensors="pt", padding=True)
    with torch.no_grad():
        model.classifier.bias -= model.eval()(**batch).logits.mean(0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random classifiers by task, and a random regression model."""
    folder = tmp_path_factory.mktemp("glue")
    found = {task: str(make_student(folder / task, names, pairs=task != "sst2")) for task, names in LABELS.items()}
    return {**found, "stsb": str(tiny.make_checkpoint(folder / "stsb", layers=1, labels=1))}


def texts(n: int, seed: int) -> list[str]:
    return [row["text"] for row in tiny.toy_task_rows(n, seed)]


def write_test_set(data_dir: Path, task: str, split: str, columns: tuple[str, ...], n: int, **more: Any) -> None:
    path = data_dir / "glue" / task / f"{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {name: texts(n, seed) for seed, name in enumerate(columns)}
    pq.write_table(pa.table({**values, "label": [-1] * n, "idx": list(range(n)), **more}), path)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy texts in the layout and the sizes of the test sets of two tasks."""
    folder = tmp_path_factory.mktemp("data")
    write_test_set(folder, "sst2", "test", ("sentence",), 1821)
    write_test_set(folder, "wnli", "test", ("sentence1", "sentence2"), 146)
    return folder


def tables(archive: Path) -> dict[str, list[list[str]]]:
    with zipfile.ZipFile(archive) as opened:
        return {
            name: [line.split("\t") for line in opened.read(name).decode().splitlines()] for name in opened.namelist()
        }


def test_the_parts_are_the_servers() -> None:
    assert {part.file: (part.rows, set(part.answers) or None) for part in PARTS} == SERVER


def test_an_archive_has_what_the_server_wants(
    students: dict[str, str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "all.zip"
    command = ["submit", f"sst2={students['sst2']}", f"wnli={students['wnli']}", "--data-dir", str(data_dir), "--fill"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(output)])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    found = tables(output)
    assert list(found) == [part.file for part in PARTS]
    for name, (header, *rows) in found.items():
        size, labels = SERVER[name]
        assert header == ["index", "prediction"]
        assert [row[0] for row in rows] == [str(number) for number in range(size)]
        assert all(len(row) == 2 for row in rows)
        assert labels is None or {row[1] for row in rows} <= labels
    predicted = load_student(students["sst2"]).predict(texts(1821, 0))["label"]
    assert [row[1] for row in found["SST-2.tsv"][1:]] == [
        {"negative": "0", "positive": "1"}[name] for name in predicted
    ]
    assert len(set(predicted)) == 2
    predicted = load_student(students["wnli"]).predict(texts(146, 0), texts(146, 1))["label"]
    assert [row[1] for row in found["WNLI.tsv"][1:]] == [str(int(name == "entailment")) for name in predicted]
    # what no student has answered is told
    assert re.search(r"RTE.tsv\s+│ 3,000\s+│ entailment for every row: no student", told.out)
    assert {row[1] for row in found["RTE.tsv"][1:]} == {"entailment"}
    again = tmp_path / "again.zip"
    with pytest.raises(SystemExit):
        main([*command, "--out", str(again)])
    assert again.read_bytes() == output.read_bytes()


def test_files_of_other_rows(students: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also the server's own, whose columns are named otherwise and whose quotes mean nothing."""
    rows = list(zip(texts(20, 0), texts(20, 1), strict=True))
    (tmp_path / "m.tsv").write_text(
        "index\tgenre\tsentence1\tsentence2\n"
        + "".join(f'{n}\tfiction\t"{one}\t{other}\n' for n, (one, other) in enumerate(rows))
    )
    tiny.write_jsonl(tmp_path / "mm.jsonl", [{"premise": one, "hypothesis": other} for one, other in rows])
    # numbered otherwise than they stand
    (tmp_path / "qqp.tsv").write_text(
        "id\tquestion1\tquestion2\n" + "".join(f"{19 - n}\t{one}\t\n" for n, (one, _) in enumerate(rows))
    )
    output = tmp_path / "out.zip"
    with pytest.raises(SystemExit) as ended:
        main([
            "submit", f"mnli={students['mnli']}", f"qqp={students['qqp']}", "--file", f"mnli-m={tmp_path / 'm.tsv'}",
            "--file", f"mnli-mm={tmp_path / 'mm.jsonl'}", "--file", f"qqp={tmp_path / 'qqp.tsv'}", "--out", str(output),
            "--data-dir", str(tmp_path),
        ])  # fmt: skip
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert "AX.tsv is left out: " in told.err
    assert "the server wants all files, and there is no CoLA.tsv, SST-2.tsv," in told.err
    found = tables(output)
    assert set(found) == {"MNLI-m.tsv", "MNLI-mm.tsv", "QQP.tsv"}
    predicted = load_student(students["mnli"]).predict(*(list(side) for side in zip(*rows, strict=True)))["label"]
    assert len(set(predicted)) > 1
    assert [row[1] for row in found["MNLI-mm.tsv"][1:]] == [name.lower() for name in predicted]
    quoted = load_student(students["mnli"]).predict([f'"{one}' for one, _ in rows], [other for _, other in rows])
    assert [row[1] for row in found["MNLI-m.tsv"][1:]] == [name.lower() for name in quoted["label"]]
    # the last row comes first; one question of two may be empty
    assert [row[0] for row in found["QQP.tsv"][1:]] == [str(number) for number in range(20)]
    turned = tmp_path / "turned.tsv"
    turned.write_text("question1\tquestion2\n" + "".join(f"{one}\t\n" for one, _ in reversed(rows)))
    submit(
        {"qqp": students["qqp"]}, tmp_path / "turned.zip", plugins=Plugins(allow=""), files={"qqp": turned}
    )  # fmt: skip
    assert tables(tmp_path / "turned.zip")["QQP.tsv"] == found["QQP.tsv"]


def test_test_sets_of_the_hub(students: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(source: Any, split: str, way_out: str) -> Any:
        asked.append((source.repository, source.configuration, split))
        rows = 146 if source.configuration == "wnli" else 1000
        return datasets.Dataset.from_dict({
            "sentence1": texts(rows, 0), "sentence2": texts(rows, 1), "label": [-1] * rows, "idx": range(rows),
        })  # fmt: skip

    monkeypatch.setattr("sage_kit.inference.glue_submission.load_hub_split", load)
    submit({"wnli": students["wnli"]}, tmp_path / "o.zip", plugins=Plugins(allow=""))
    predicted = load_student(students["wnli"]).predict(texts(146, 0), texts(146, 1))["label"]
    answers = [row[1] for row in tables(tmp_path / "o.zip")["WNLI.tsv"][1:]]
    assert answers == [str(int(name == "entailment")) for name in predicted]
    assert asked == [("nyu-mll/glue", "wnli", "test")]
    with pytest.raises(SageError, match=r"split 'test' has 1,000 rows, and the server's test set has 3,000"):
        submit({"rte": students["wnli"]}, tmp_path / "rte.zip", plugins=Plugins(allow=""))


def test_numbers_keep_to_the_range(students: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sage_kit.inference.predictor.Predictor.predict_table",
        lambda *_: {"prediction": [-0.25, 1.23456, 5.5, float("5")]},
    )
    file = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"sentence1": "a", "sentence2": "b"}] * 4)
    submit({"stsb": students["stsb"]}, tmp_path / "o.zip", plugins=Plugins(allow=""), files={"stsb": file})
    answers = [row[1] for row in tables(tmp_path / "o.zip")["STS-B.tsv"][1:]]
    assert answers == ["0.000", "1.235", "5.000", "5.000"]


def test_the_task_of_a_run_need_not_be_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text('task = "stsb_embeddings"\n')
    assert students_by_task([str(run), "mnli=a=b"]) == {"stsb": str(run), "mnli": "a=b"}
    with pytest.raises(SageError, match="task 'stsb' has two students"):
        students_by_task([str(run), "stsb=other"])
    (run / "config.toml").write_text('task = "movie_reviews"\n')
    with pytest.raises(SageError, match="is on task 'movie_reviews', which is not of GLUE: write task=STUDENT"):
        students_by_task([str(run)])
    assert files_by_part(["mnli-mm=x.tsv"]) == {"mnli-mm": Path("x.tsv")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst22=X"], "Unknown task of GLUE 'sst22'. Did you mean 'sst2'"),
        (["sst2="], "'sst2=' names no student"),
        (["nothing"], "'nothing' does not say its task: write task=STUDENT"),
        (["sst2=SST2", "--out", "a.tar"], "a.tar: the name of an archive ends in .zip"),
        (["sst2=SST2", "--out", "none/a.zip"], "none is no folder"),
        (["sst2=nothing"], "model 'nothing' is not on this machine and the hub cannot be reached"),
        (["wnli=SST2"], "knows positive, negative, and task 'wnli' has not_entailment, entailment"),
        (["wnli=STSB"], "predicts numbers, and task 'wnli' asks for classes"),
        (["stsb=SST2", "--file", "stsb=pairs.jsonl"], "predicts classes, and task 'stsb' asks for numbers"),
        (["rte=WNLI"], "rte/test.parquet does not exist"),
        (["cola=SST2"], "test.parquet has 3 rows, and the server's test set has 1,063"),
        (
            ["mnli=MNLI", "--file", "mnli-m=nli.jsonl", "--file", "mnli-mm=nli.jsonl", "--file", "ax=x.tsv"],
            "x.tsv does",
        ),
        (["sst2=SST2", "--file", "sst=x"], "Unknown file of a submission 'sst'. Did you mean 'sst2'"),
        (["sst2=SST2", "--file", "rte=x"], "rte has a file and no student: write rte=STUDENT as well"),
        (["sst2=SST2", "--file", "sst2=pairs.jsonl"], "pairs.jsonl has no column 'sentence'"),
        (["sst2=SST2", "--file", "sst2=twice.jsonl"], "column 'idx' does not number the rows from 0 to 1"),
        (["sst2=SST2", "--file", "sst2=empty.csv"], "empty.csv has no rows"),
        (["sst2=SST2", "--file", "sst2=holes.jsonl"], "holes.jsonl, row 2"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(
    students: dict[str, str], data_dir: Path, tmp_path: Path, arguments: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_test_set(data_dir, "cola", "test", ("sentence",), 3)
    tiny.write_jsonl(Path("pairs.jsonl"), [{"sentence1": "a", "sentence2": "b"}])
    tiny.write_jsonl(Path("twice.jsonl"), [{"sentence": "a", "idx": 0}, {"sentence": "b", "idx": 0}])
    tiny.write_jsonl(Path("holes.jsonl"), [{"sentence": "a"}, {"sentence": " "}])
    tiny.write_jsonl(Path("nli.jsonl"), [{"premise": "a", "hypothesis": "b"}])
    Path("empty.csv").write_text("sentence\n")
    before = set(tmp_path.iterdir())
    for name in ("SST2", "WNLI", "STSB", "MNLI"):
        arguments = [word.replace(name, students[name.lower()]) for word in arguments]
    out = [] if "--out" in arguments else ["--out", "a.zip"]
    with pytest.raises(SystemExit) as ended:
        main(["submit", *arguments, *out, "--data-dir", str(data_dir)])
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2, told
    assert re.search(message, told[-1]), told
    assert set(tmp_path.iterdir()) == before
