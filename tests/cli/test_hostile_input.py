"""What a stranger's files and names may hold: one line that a person can read, and nothing executed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from commandline import call, call_well
from rich.table import Table
from rich.text import Text
from toyrun import go_back, toy_config, toy_run

from sage_kit.cli.options import print_all
from sage_kit.config import to_toml
from sage_kit.errors import LONGEST_MESSAGE, printable

PLUGIN = """
from pathlib import Path
from sage_kit import hookimpl
Path(__file__).with_name("executed").touch()

@hookimpl
def sage_run_started():
    pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def finished(folder: Path, tiny_bert: Path) -> Path:
    return toy_run(folder, tiny_bert, rounds=2, keep_checkpoints=0)[0].path


# ---- nothing is executed without consent


@pytest.mark.parametrize("command", ["resume", "resume finished", "decode", "card", "push", "show", "predict"])
def test_a_plugin_that_a_run_names_is_executed_with_consent_alone(
    finished: Path, folder: Path, tmp_path: Path, command: str
) -> None:
    run, plugin = tmp_path / "run", tmp_path / "evil.py"
    shutil.copytree(finished, run)
    plugin.write_text(PLUGIN)
    told = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**told, "plugin_files": [str(plugin)]}))
    if command == "resume":
        go_back(type(toy_directory(run))(run), to_round=1)
    words = {
        "push": ["push", str(run), "me/x", "--dry-run"], "card": ["card", str(run), "--show"],
        "predict": ["predict", str(run), str(folder / "validation.jsonl"), "--out", str(tmp_path / "out.csv")],
    }.get(command, [command.split()[0], str(run)])  # fmt: skip
    answer = call_well(*words)
    assert not (tmp_path / "executed").exists()
    if command in ("show", "predict"):  # which need no plugin
        assert answer.code == 0
        return
    assert str(plugin) in answer.err
    assert "SHA-256" in answer.err
    assert answer.code == (0 if command in ("card", "push") else 2)
    call_well(*words, "--trust-plugins")
    assert (tmp_path / "executed").exists()
    (tmp_path / "executed").unlink()
    call_well(*words, "--plugin", str(plugin))
    assert (tmp_path / "executed").exists()


def toy_directory(path: Path):
    from sage_kit.rundir import RunDirectory

    return RunDirectory(path)


def test_a_search_names_no_plugin_that_is_executed(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra `search`")
    from sage_kit.searching.search_plan import SearchPlan
    from sage_kit.searching.search_space import read_space

    plugin = tmp_path / "evil.py"
    plugin.write_text(PLUGIN)
    plan = SearchPlan(
        toy_config(folder, tiny_bert), read_space(["learning_rate=1e-4:1e-2"]), plugin_files=[str(plugin)]
    )
    plan.write(tmp_path)
    answer = call_well("search", str(tmp_path))
    assert answer.code == 2
    assert str(plugin) in answer.last
    assert not (tmp_path / "executed").exists()


# ---- names and texts


@pytest.mark.parametrize("name", ["a [/x] b", "[bold]", "a\x1b[31m", "ä\u202e", "x" * 3000, "\udcff\udcfe", "a\nb"])
def test_names_of_any_characters(name: str, tmp_path: Path) -> None:
    for words in (["show"], ["resume"], ["card"], ["study", "status", "--out"], ["cache", "--cache-dir"],
                  ["claims", "--results"], ["config", "--config"], ["study", "run", "--grid"],
                  ["run", "--reducer", "pca", "--task", "file", "--train-file"]):  # fmt: skip
        answer = call_well(*words, str(tmp_path / name))
        assert "\x1b" not in answer.err + answer.out
        assert "[/x]" in answer.err + answer.out or "[/x]" not in name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_files_whose_names_are_no_utf8(finished: Path, folder: Path, tmp_path: Path) -> None:
    rows = os.fsdecode(os.fsencode(tmp_path) + b"/rows\xff.jsonl")
    shutil.copy(folder / "validation.jsonl", rows)
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xfe.csv")
    answer = call_well("predict", str(finished), rows, "--out", out)
    assert answer.code == 0
    assert "out\\udcfe.csv: 120 rows" in answer.out
    answer = call_well("run", "--task", "file", "--train-file", rows)
    assert answer.code == 2
    assert "holds bytes that are no UTF-8" in answer.last
    run = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
    shutil.copytree(finished, run)
    assert call_well("show", run).code == 0


@pytest.mark.parametrize("number", ["1e300", "1e308", "-1e308", "inf", "nan", "9" * 5000, "1_0", "0x10"])
@pytest.mark.parametrize("flag", ["--temperature", "--rounds", "--sampler-options", "--teacher-weights", "--seed"])
def test_numbers_that_no_run_can_compute_with(
    flag: str, number: str, tmp_path: Path, folder: Path, tiny_bert: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(to_toml(toy_config(folder, tiny_bert)))
    if flag == "--sampler-options":
        number = f"k={number}"
    answer = call_well(
        "run", "--config", str(file), flag, number, "--run-dir", str(tmp_path / "run"), "--task", "nowhere"
    )
    assert answer.code == 2
    assert not (tmp_path / "run").exists()


def test_a_table_with_two_columns_of_one_name(finished: Path, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    texts = pyarrow.array(["a good film", "a bad film"])
    parquet.write_table(pyarrow.table([texts, texts], names=["text", "text"]), path)
    answer = call_well("predict", str(finished), str(path), "--out", str(tmp_path / "out.csv"))
    assert answer.code == 2
    assert "text" in answer.last
    assert not (tmp_path / "out.csv").exists()


def test_a_tokenizer_whose_regular_expression_panics(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library of tokenizers then raises what is no Exception."""
    student = tmp_path / "student"
    shutil.copytree(finished / "student", student)
    path = student / "tokenizer.json"
    told = json.loads(path.read_text())
    told["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(told))
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"text": "a" * 2000 + "!", "label": 0}])
    answer = call_well(
        "predict", str(student), str(rows), "--out", str(tmp_path / "out.csv"), "--kind", "classification"
    )
    assert answer.code == 2
    assert "the tokenizer breaks down on a text" in answer.last


# ---- what is printed


def test_messages_fit_a_screen_and_keep_their_end() -> None:
    text = printable(f"{'x' * 5000}\n\x1b[31m: correct it")
    assert len(text) <= LONGEST_MESSAGE
    assert text.endswith(r"\x1b[31m: correct it")
    assert printable("one  line\n of text") == "one line of text"


def test_tables_hold_no_control_characters_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("heading")
    table.add_row("a [/x] [red]b[/red] \x1b[31m")
    table.add_row(Text("\x1b]0;title\x07"))
    print_all(table, "line \x1b[2J", "[/nothing]")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    for text in ("a [/x] [red]b[/red] \\x1b[31m", "line \\x1b[2J", "[/nothing]"):
        assert text in shown


def test_memory_that_runs_out_is_one_line(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(to_toml(toy_config(folder, tiny_bert)))
    answer = call(
        "run", "--config", str(file), "--student-ffn", "1000000000000000", "--runs-dir", str(tmp_path / "runs")
    )
    assert answer.code == 1
    assert "memory ran out" in answer.last
