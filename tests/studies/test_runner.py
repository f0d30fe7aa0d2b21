"""Executing one cell: what it leaves behind, and when it is executed again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from studies.toynotebook import write_notebook

from sage_kit.errors import MissingPackageError, PluginError, StudyError, UnknownComponentError
from sage_kit.studies import cell_key, runner
from sage_kit.studies.runner import Cell, CellLog, find_cells, make_cell, read_record, run_cell
from sage_kit.studies.sizes import PACKAGED_TEACHER

needs_papermill = pytest.mark.skipif(
    not all(runner.importlib.util.find_spec(name) for name in ("papermill", "ipykernel")),
    reason="needs the extra `notebooks`",
)
pytestmark = [
    # of the packages that execute notebooks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

COUNT = "with open('count', 'a') as file:\n    file.write('x')\n"


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def cell_of(*code: str, name: str = "01_toy", **parameters: Any) -> Cell:
    return make_cell(write_notebook(Path(f"notebooks/{name}.ipynb"), *code), parameters, Path("cells"))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def log_of(cell: Cell) -> str:
    return (cell.directory / "log.txt").read_text(encoding="utf-8")


def times(path: str = "count") -> int:
    return len(Path(path).read_text()) if Path(path).exists() else 0


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


# ---- execution -------------------------------------------------------------------------------------------------------


@needs_papermill
def test_a_cell_is_executed_once_in_this_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_CACHE_DIR", "as it was when the cell was made")
    code = (
        COUNT + "import json, os, sys\n"
        "json.dump([sys.executable, os.getcwd(), seeds, dims, os.environ['SAGE_KIT_CACHE_DIR']], open('seen', 'w'))\n"
        "print('to stdout')\nprint('to stderr', file=sys.stderr)"
    )
    cell = cell_of(code, "print('half', end='')", seeds="5")
    monkeypatch.setenv("SAGE_KIT_CACHE_DIR", "another")
    lines: list[str] = []
    outcome = run_cell(cell, announce=lines.append)
    assert (outcome.state, outcome.reused, outcome.error) == ("done", False, "")
    # the kernel that the file names does not exist
    assert json.loads(Path("seen").read_text()) == [
        sys.executable, str(tmp_path), 5, [2, 8], "as it was when the cell was made",
    ]  # fmt: skip
    assert names(cell.directory) == [".lock", "cell.json", "log.txt", "notebook.html", "notebook.ipynb"]

    record = read_record(cell.directory)
    assert record["state"] == "done"
    assert record["study"] == "01_toy"
    assert record["key"] == cell.key == cell.directory.name
    assert record["parameters"] == dict(cell.parameters)
    assert record["parameters"]["seeds"] == 5
    assert record["started"] <= record["ended"]
    assert record["seconds"] > 0
    assert record["error"] is None
    assert record["host"]

    notebook = json.loads((cell.directory / "notebook.ipynb").read_text())
    assert {"output_type": "stream", "name": "stdout", "text": ["to stdout\n"]} in notebook["cells"][3]["outputs"]
    page = (cell.directory / "notebook.html").read_text(encoding="utf-8")
    assert "to stdout" in page
    assert page.count("<summary>code</summary>") == 4
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)

    log = log_of(cell)
    assert lines == log.splitlines()
    assert all(line[:2] == "20" and line[19] == "Z" for line in lines)
    texts = [line[21:] for line in lines]
    assert texts[0].startswith("01_toy ")
    assert "started: profile=smoke, seeds=5, dims=2,8" in texts[0]
    assert "| to stdout" in texts
    assert "| to stderr" in texts
    assert "| half" in texts
    assert any(text.startswith("cell 3 of 4 started: with open('count', 'a')") for text in texts)
    assert any(text.startswith("cell 4 of 4 ended after ") for text in texts)
    assert texts[-1] == "done"

    again = run_cell(cell)
    assert (again.state, again.reused) == ("done", True)
    assert again.seconds == record["seconds"]
    assert times() == 1
    assert run_cell(cell, again=True).reused is False
    assert times() == 2


@needs_papermill
def test_a_failing_cell_is_kept_with_its_error_and_executed_again() -> None:
    code = COUNT + "if not __import__('os').path.exists('mended'):\n    raise ValueError('no\\nluck')"
    cell = cell_of(code)
    outcome = run_cell(cell)
    assert (outcome.state, outcome.error) == ("failed", "ValueError: no luck (In [3])")
    assert names(cell.directory) == [".lock", "cell.json", "failed.ipynb", "log.txt"]
    record = read_record(cell.directory)
    assert (record["state"], record["error"]) == ("failed", "ValueError: no luck (In [3])")
    outputs = [
        output
        for item in json.loads((cell.directory / "failed.ipynb").read_text())["cells"]
        for output in item.get("outputs", [])
    ]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["ValueError"]
    assert "cell 3 of 3 ended with error" in log_of(cell)
    assert log_of(cell).splitlines()[-1].endswith("failed: ValueError: no luck (In [3])")

    Path("mended").touch()
    assert run_cell(cell).state == "done"
    assert times() == 2
    assert names(cell.directory) == [".lock", "cell.json", "log.txt", "notebook.html", "notebook.ipynb"]


@needs_papermill
def test_a_kernel_that_dies_fails_the_cell() -> None:
    cell = cell_of("print('before', flush=True)", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    outcome = run_cell(cell)
    assert (outcome.state, outcome.error) == ("failed", "the kernel died, perhaps because memory ran out")
    notebook = json.loads((cell.directory / "failed.ipynb").read_text())
    assert [output["text"] for output in notebook["cells"][3]["outputs"]] == [["before\n"]]


@needs_papermill
def test_progress_bars_do_not_fill_the_log() -> None:
    code = (
        "import sys\nfor i in range(5000):\n    sys.stderr.write(f'\\r\\x1b[32m{i}/5000\\x1b[0m')\n"
        "sys.stderr.write('\\n')\nprint('after')"
    )
    cell = cell_of(code)
    run_cell(cell)
    printed = [line[21:] for line in log_of(cell).splitlines() if line[21:].startswith("|")]
    assert sorted(printed) == ["| 4999/5000", "| after"]


def test_a_bar_that_runs_for_long_is_seen_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    with CellLog(tmp_path / "log.txt") as log:
        for second in range(300):
            clock[0] = float(second)
            log.write(f"\r{second} of 300")
    shown = [line.partition("| ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert shown == ["60 of 300", "120 of 300", "180 of 300", "240 of 300", "299 of 300"]


# ---- interruption ----------------------------------------------------------------------------------------------------

SLOW = (
    "import os, time\nopen('kernel', 'w').write(str(os.getpid()))\nos.rename('kernel', 'kernel.pid')\ntime.sleep(120)"
)
QUICK_NEXT_TIME = COUNT + "import os\nif not os.path.exists('kernel.pid'):\n" + textwrap.indent(SLOW, "    ")

SCRIPT = """
import sys
from pathlib import Path
from sage_kit.studies.runner import make_cell, run_cell
run_cell(make_cell(Path("notebooks/01_toy.ipynb"), {}, Path("cells")))
"""


def start_script() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # a shell's background job ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(Path("kernel.pid"))
    return process


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_papermill
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux")
def test_a_killed_runner_leaves_nothing_half_done() -> None:
    cell = cell_of(QUICK_NEXT_TIME)
    process = start_script()
    running = find_cells(Path("cells"))
    assert [(record["key"], record["state"]) for record in running] == [(cell.key, "running")]
    assert "cell 3 of 3 started" in running[0]["last_line"]
    assert run_cell(cell, wait=False).state == "busy"

    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (cell.directory / "notebook.ipynb").exists()
    # it had no time to say so
    assert read_record(cell.directory)["state"] == "interrupted"
    assert [record["state"] for record in find_cells(Path("cells"))] == ["interrupted"]
    kernel = int(Path("kernel.pid").read_text())
    end = time.monotonic() + 30
    while is_alive(kernel):
        assert time.monotonic() < end, "the kernel outlives its runner"
        time.sleep(0.05)

    assert run_cell(cell).state == "done"
    assert times() == 2
    assert names(cell.directory) == [".lock", "cell.json", "log.txt", "notebook.html", "notebook.ipynb"]


@needs_papermill
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux")
def test_an_interrupted_runner_says_so_and_ends_its_kernel() -> None:
    cell = cell_of(SLOW)
    process = start_script()
    process.send_signal(signal.SIGINT)
    process.communicate()
    record = read_record(cell.directory)
    assert record["state"] == "interrupted"
    assert record["ended"]
    assert log_of(cell).splitlines()[-1].endswith("interrupted")
    assert names(cell.directory) == [".lock", "cell.json", "failed.ipynb", "log.txt"]
    assert not is_alive(int(Path("kernel.pid").read_text()))


@needs_papermill
def test_two_runners_execute_a_cell_once() -> None:
    cell = cell_of(COUNT + "import time\nopen('at_work', 'w').close()\ntime.sleep(1)")
    first = subprocess.Popen([sys.executable, "-c", SCRIPT])
    wait_for(Path("at_work"))
    lines: list[str] = []
    outcome = run_cell(cell, announce=lines.append)
    assert first.wait() == 0
    assert lines == ["waiting for another process that is executing this cell"]
    assert (outcome.state, outcome.reused) == ("done", True)
    assert times() == 1


def test_a_cell_that_another_process_holds_is_not_waited_for_unless_asked() -> None:
    cell = cell_of("1")
    cell.directory.mkdir(parents=True)
    runner.write_json(cell.directory / "cell.json", {"study": "01_toy", "key": cell.key, "state": "running"})
    with FileLock(cell.directory / ".lock"):
        if all(runner.importlib.util.find_spec(name) for name in ("papermill", "ipykernel")):
            assert run_cell(cell, wait=False).state == "busy"
        states: list[bool] = []
        thread = threading.Thread(target=lambda: states.append(runner.is_held(cell.directory)))
        thread.start()
        thread.join()
        assert states == [True]
    assert read_record(cell.directory)["state"] == "interrupted"


def test_a_record_that_is_not_readable_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "cells" / "01_toy" / "abc"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text('{"state": "do')
    (record,) = find_cells(tmp_path / "cells")
    assert (record["study"], record["key"], record["state"]) == ("01_toy", "abc", "failed")
    assert record["error"] == "cell.json is not readable"


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of("1")
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs papermill: pip install 'sage-kit\[notebooks\]'"):
        run_cell(cell)
    assert not cell.directory.exists()


def test_a_folder_that_cannot_be_written() -> None:
    pytest.importorskip("papermill", reason="needs the extra `notebooks`")
    cell = cell_of("1")
    Path("cells").write_text("a file")
    with pytest.raises(StudyError, match="cannot be written"):
        run_cell(cell)


# ---- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_holds_code_and_values_but_not_outputs() -> None:
    key = cell_of("1").key
    assert len(key) == 16
    assert cell_of("1", profile="smoke", dims="2,8").key == key  # the defaults
    notebook = json.loads(Path("notebooks/01_toy.ipynb").read_text())
    notebook["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hi"]}]
    notebook["cells"][-1]["execution_count"] = 3
    Path("notebooks/01_toy.ipynb").write_text(json.dumps(notebook))
    assert make_cell(Path("notebooks/01_toy.ipynb"), {}, Path("cells")).key == key
    others = [
        cell_of("2").key,
        cell_of("1", seeds="1").key,
        cell_of("1", dims="8,2").key,
        cell_of("1", profile="full").key,
        cell_of("1", name="02_toy").key,
        cell_of("1", results_dir="elsewhere").key,  # which takes seconds, since it finds its runs
    ]
    assert len({key, *others}) == 7


def test_the_key_holds_all_code_and_the_versions_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "copy" / "sage_kit"
    (package / "inner").mkdir(parents=True)
    (package / "inner" / "code.py").write_text("x = 1")
    monkeypatch.setattr(cell_key.sage_kit, "__file__", str(package / "__init__.py"))

    def key() -> str:
        cell_key._installed.cache_clear()  # as in the next process
        return cell_of("1").key

    try:
        before = key()
        assert key() == before
        (package / "inner" / "code.py").write_text("x = 2")
        changed = key()
        monkeypatch.setattr(cell_key.importlib.metadata, "distributions", lambda: ())
        assert len({before, changed, key()}) == 3
    finally:
        cell_key._installed.cache_clear()


def test_texts_between_the_cells_and_comments_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))

    def key(text: str, code: str) -> str:
        return make_cell(write_notebook(Path("d.ipynb"), code, text=text), {}, Path("cells")).key

    before = key("# A title", "x = 1")
    assert key("# Another title\n\nAnd more.", "# of x\nx = 1  # one") == before
    assert key("# A title", "%matplotlib inline\nx = 1") == before
    assert key("# A title", "x = 2") != before
    Path("mine.py").write_text("y = 1")
    local = key("# A title", "import mine\nx = 1")
    Path("mine.py").write_text("y = 2")
    assert key("# A title", "import mine\nx = 1") != local


def test_a_plugin_that_the_notebook_brings_counts_by_its_code() -> None:
    Path("plugins").mkdir()

    def key(code: str) -> str:
        Path("plugins/own.py").write_text(code)
        forget_plugins()
        notebook = write_notebook(Path("e.ipynb"), 'companion("plugins/own.py")')
        return make_cell(notebook, {}, Path("cells")).key

    assert key(PLUGIN) != key(PLUGIN.replace("context: None", "context: 0"))


def test_a_teacher_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'profile: str = "smoke"  # size\nteacher: str | None = None  # teacher\n'

    def key(teacher: str | None = None) -> str:
        notebook = write_notebook(Path("f.ipynb"), "1", parameters=code)
        return make_cell(notebook, {} if teacher is None else {"teacher": teacher}, Path("cells")).key

    package = tmp_path / "site" / "acme_teachers" / "model"
    package.mkdir(parents=True)
    (package / "config.json").write_text("{}")
    (package.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    shutil.copytree(package, "copied")
    before, copied = key("package:acme_teachers/model"), key("copied")
    (package / "config.json").write_text("{ }")
    assert key("package:acme_teachers/model") != before
    assert key("copied") == copied
    Path("copied/README.md").write_text("Nobody reads this.")
    assert key("copied") == copied
    assert len({before, copied, key(), key("some/hub-name"), key("other/hub-name")}) == 5


def test_the_teacher_of_the_profile_counts_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(cell_key, "checkpoint_content", lambda name, folder: names.append(name) or name)
    code = 'profile: str = "smoke"  # size\nteacher: str = None  # teacher\n'
    for parameters in ({}, {"teacher": "mine"}, {"profile": "full"}):
        make_cell(write_notebook(Path("h.ipynb"), "1", parameters=code), parameters, Path("cells"))
    assert names[::3] == [PACKAGED_TEACHER, "mine", "bert-base-uncased"]


WITH_PLUGIN = 'plugin: str = ""  # one-file plugins\ntask: str | None = None  # task\n'

PLUGIN = """
import sage_kit
from sage_kit.components import ReducerSpec

@sage_kit.hookimpl
def sage_reducers():
    yield ReducerSpec(name="mine", summary="Mine.", factory=lambda options, context: None)
"""


def key_of(**parameters: Any) -> str:
    return make_cell(write_notebook(Path("a.ipynb"), "1", parameters=WITH_PLUGIN), parameters, Path("cells")).key


def forget_plugins() -> None:
    cell_key._plugins.cache_clear()


def test_names_of_components_are_looked_up_before_a_kernel_starts() -> None:
    Path("mine.py").write_text(PLUGIN)
    code = 'reducers: str = "nobody_has_it"  # reducers, which the notebook itself may look up\n' + WITH_PLUGIN

    def make(**parameters: Any) -> Cell:
        return make_cell(write_notebook(Path("b.ipynb"), "1", parameters=code), parameters, Path("cells"))

    make(task="rte, sst2", reducers="pca,mine", plugin="mine.py")
    with pytest.raises(UnknownComponentError, match=r"Unknown task 'sst3'\. Did you mean 'sst2'"):
        make(task="rte,sst3")
    with pytest.raises(UnknownComponentError, match="Unknown reducer 'mine'"):
        make(reducers="pca,mine")
    # a plugin that the notebook brings itself
    Path("plugins").mkdir()
    Path("plugins/own.py").write_text(PLUGIN.replace('"mine"', '"own"'))
    brings = write_notebook(Path("c.ipynb"), 'companion("plugins/own.py")', parameters=code)
    make_cell(brings, {"reducers": "own"}, Path("cells"))
    with pytest.raises(UnknownComponentError, match="Unknown reducer 'own'"):
        make(reducers="own")


def test_a_plugin_file_counts_by_its_code() -> None:
    Path("mine.py").write_text(PLUGIN)
    key = key_of(plugin="mine.py")
    assert key != key_of()
    Path("mine.py").write_text(PLUGIN.replace("context: None", "context: 0"))
    forget_plugins()
    assert key_of(plugin="mine.py") != key
    Path("mine.py").write_text("1 +")
    forget_plugins()
    with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: SyntaxError"):
        key_of(plugin="mine.py")


def test_the_key_holds_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/glue/rte").mkdir(parents=True)
    file = Path("data/glue/rte/train.parquet")
    file.write_bytes(b"one")
    without = key_of(task="rte")
    monkeypatch.setenv("SAGE_KIT_DATA_DIR", "data")
    key = key_of(task="rte")
    assert key == key_of(task="rte") != without
    file.write_bytes(b"other")
    assert key_of(task="rte") != key
    with_file = "train_file: str = None  # rows\n"
    notebook = write_notebook(Path("g.ipynb"), "1", parameters=with_file)

    def key_with_file() -> str:
        return make_cell(notebook, {"train_file": "rows.jsonl"}, Path("cells")).key

    absent = key_with_file()
    Path("rows.jsonl").write_text("1")
    present = key_with_file()
    Path("rows.jsonl").write_text("12")
    assert len({absent, present, key_with_file()}) == 3
