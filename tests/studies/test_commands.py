"""The commands `sage-kit study`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from studies.fakeresults import make_finding, save_result
from studies.toynotebook import write_notebook

from sage_kit.cli import main
from sage_kit.studies import runner

pytestmark = [
    # of the packages that execute notebooks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

needs_papermill = pytest.mark.skipif(
    not all(runner.importlib.util.find_spec(name) for name in ("papermill", "ipykernel")),
    reason="needs the extra `notebooks`",
)

QUESTION = "# Reducers [2-D]\n\n**Question.** Can they keep more?"
CODE = "if seeds == 3:\n    raise ValueError('three')\nprint('seed', seeds)"


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    write_notebook(Path("notebooks/05_reducers.ipynb"), CODE, text=QUESTION)
    write_notebook(Path("notebooks/06_slow.ipynb"), "import time\nopen('at_work', 'w').close()\ntime.sleep(120)")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main(["study", *arguments])
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list")
    assert code == 0
    assert "Reducers [2-D]" in out
    code, out, _ = call(capsys, "list", "--json", "--notebooks", "notebooks")
    assert [(item["study"], item["question"]) for item in json.loads(out)] == [
        ("05_reducers", "Can they keep more?"),
        ("06_slow", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["05", "-p", "sedes=5"], "Unknown parameter 'sedes' of study 05_reducers. Did you mean 'seeds'?"),
        (["05", "-p", "seeds=many"], "parameter 'seeds' of study 05_reducers is 'many': input should be a valid"),
        (["05", "-p", "learning_rate=0"], "parameter 'learning_rate' is 0.0: input should be greater than 0"),
        (["05", "--profile", "smal"], "Unknown profile 'smal'. Did you mean 'small'?"),
        (["05", "-p", "profile=smoke", "--profile", "small"], "both --profile and -p profile= are given"),
        (["05", "-p", "seeds=1", "-p", "seeds=2"], "parameter 'seeds' is given twice"),
        (["05", "-p", "seeds"], "-p 'seeds' is no NAME=VALUE"),
        (["05", "--plugin", "mine.py"], "Unknown parameter 'plugin'"),
        (["07"], "Unknown study '07'"),
        ([], "no study is named"),
        (["05", "--grid", "gone.toml"], "grid gone.toml: No such file"),
        (["05", "--backend", "slurm"], "Unknown backend 'slurm'"),
        (["05", "--jobs", "0"], "jobs is 0"),
        (["05", "--notebooks", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_parameters_end_with_2_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], what: str
) -> None:
    def refuse(*arguments: Any, **others: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    code, out, err = call(capsys, "run", *arguments)
    assert (code, out) == (2, "")
    assert what in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["notebooks"]


@needs_papermill
def test_a_grid_with_a_failing_cell_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.toml").write_text('study = "reducers"\nseeds = [2, 3]\n')
    code, out, err = call(capsys, "run", "--grid", "grid.toml")
    assert code == 1
    assert "seeds=2" in out
    assert "failed" in out
    lines = err.splitlines()
    assert lines[0].startswith("2 cells; ")
    assert any(line.endswith("| seed 2") for line in lines)
    assert "failed: ValueError: three (In [3]); see " in lines[-1]

    code, out, _ = call(capsys, "status", "--json")
    records = {record["parameters"]["seeds"]: record for record in json.loads(out)}
    assert {seed: record["state"] for seed, record in records.items()} == {2: "done", 3: "failed"}
    assert records[2]["last_line"].endswith("Z done")
    code, out, _ = call(capsys, "status")
    assert code == 0
    assert "1 done, 1 failed" in out
    assert "ValueError: three" in out

    write_notebook(Path("notebooks/05_reducers.ipynb"), CODE, text=QUESTION)
    code, out, err = call(capsys, "run", "5", "-p", "seeds=2")
    assert code == 0
    assert "done before" in out


@needs_papermill
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_an_interruption_is_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sage_kit", "study", "run", "slow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell's background job ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not Path("at_work").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == (
        "sage-kit: interrupted; what is done is kept, and the same command goes on from there"
    )
    assert "Traceback" not in err
    (record,) = runner.find_cells(Path("runs/cells"))
    assert record["state"] == "interrupted"


def test_status_without_cells(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "status")
    assert code == 0
    assert "No cells in runs/cells." in out
    assert json.loads(call(capsys, "status", "--json")[1]) == []


def test_report_hands_its_folders_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sage_kit.studies import gallery

    seen: dict[str, Any] = {}

    def build_gallery(results_dir: list[Path], out: Path, cells_dir: Path) -> gallery.Gallery:
        seen.update(results_dir=results_dir, out=out, cells_dir=cells_dir)
        return gallery.Gallery(out, Path("page.csv"), Path("page.parquet"), 1, ())

    monkeypatch.setattr(gallery, "build_gallery", build_gallery)
    code, out, _ = call(capsys, "report", "--out", "page.html", "--results", "mine")
    assert code == 0
    assert "Saved: page.html, page.csv, page.parquet" in out
    assert seen == {"results_dir": [Path("mine")], "out": Path("page.html"), "cells_dir": tmp_path / "runs" / "cells"}


def test_results_and_cells_are_found_from_any_folder_of_the_project(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    save_result(tmp_path / "results", "04_static_or_adaptive", make_finding("adaptive_over_static", 0.1, 0.2))
    save_result(tmp_path / "runs" / "results", "05_reducers", make_finding("other_over_umap", 0.1, 0.2))
    pages = []
    for folder in (tmp_path, tmp_path / "notebooks", tmp_path / "docs"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        code, _, err = call(capsys, "report")
        assert (code, err) == (0, "")
        page = Path("report.html").read_text(encoding="utf-8")
        pages.append(re.findall(r'<a href="#result-\d+" data-card.*?<span>([^<]*)</span></a>', page))
        assert call(capsys, "list")[0] == 0
    assert pages[0] == pages[1] == pages[2] != []
    assert pages[0] == ["04_static_or_adaptive", "05_reducers"]


def test_report_tells_broken_results_and_shows_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = tmp_path / "runs" / "results"
    save_result(results, "04_static_or_adaptive", make_finding("adaptive_over_static", 0.1, 0.2))
    (results / "05_reducers" / "small-rte").mkdir(parents=True)
    (results / "06_decode_tokens" / "small-sst2").mkdir(parents=True)
    (results / "06_decode_tokens" / "small-sst2" / "result.json").write_text("{", encoding="utf-8")
    code, out, err = call(capsys, "report")
    assert code == 0  # as `sage-kit claims`: a result may be being written now
    assert "Saved: report.html, report.csv, report.parquet" in out
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["sage-kit", "sage-kit"]
    assert "small-rte: half-written: it has no result.json" in lines[0]
    assert "small-sst2: result.json is not readable (EOF while parsing" in lines[1]
    assert "Broken results" in Path("report.html").read_text(encoding="utf-8")
    code, out, err = call(capsys, "report", "--out", str(results / "04_static_or_adaptive" / "small-cola+sst2"))
    assert (code, out) == (2, "")
    assert "is the folder of a result" in err


def test_claims_and_report_without_any_result(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["claims", "--json"])
    assert exit_info.value.code in (0, None)
    assert {claim["state"] for claim in json.loads(capsys.readouterr().out)["claims"]} == {"not run"}
    code, _, err = call(capsys, "report")
    assert (code, err) == (0, "sage-kit: there is no whole result yet: `sage-kit study run NAME` makes one\n")
    assert "from 0 results." in " ".join(Path("report.html").read_text(encoding="utf-8").split())


def test_a_named_folder_of_results_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "report", "--results", "nowhere")
    assert code == 2
    assert "there is no folder of results 'nowhere'" in err


def test_help_and_list_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sage_kit.cli import main\n"
        "for arguments in (['study', '--help'], ['study', 'run', '--help'], ['study', 'list']):\n"
        "    try:\n        main(arguments)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'numpy', 'papermill', 'nbformat', 'joblib', 'distributed', 'jinja2', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]", done.stderr
