"""How many of a study's runs there are, and how long the others take; under plain papermill on its terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from studies.toynotebook import write_notebook

from sage_kit.config import load_config
from sage_kit.studies import run_count, runner
from sage_kit.studies.effort import Planned
from sage_kit.studies.run_count import RunCount


def planned(found: int, missing: int) -> list[Planned]:
    config = load_config({"task": "sst2"})
    return [Planned(config, 10, number < found) for number in range(found + missing)]


def test_runs_are_counted_and_the_time_left_is_that_of_runs_made() -> None:
    count = RunCount()
    count.plan(planned(1, 3))
    count.ask(2)
    assert count.add(None) == "; 1 of 4 runs"  # found: nothing is known of the others
    assert count.add(120.0) == "; 2 of 4 runs, about 4 minutes left"
    count.ask(2)
    assert count.add(60.0) == "; 3 of 4 runs, about 2 minutes left"
    assert count.add(60.0) == "; 4 of 4 runs"


def test_runs_beyond_the_plan_make_it_longer() -> None:
    count = RunCount()
    count.plan(planned(0, 1))
    count.ask(1)
    assert count.add(30.0) == "; 1 of 1 run"
    count.ask(2)  # a list of rates that goes on, say
    assert count.add(30.0) == "; 2 of 3 runs"
    assert count.add(None) == "; 3 of 3 runs"


def test_without_papermill_a_line_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    run_count.tell("said")
    assert capsys.readouterr() == ("said\n", "")


@pytest.mark.skipif(
    not all(runner.importlib.util.find_spec(name) for name in ("papermill", "ipykernel")),
    reason="needs the extra `notebooks`",
)
@pytest.mark.parametrize("flags", [[], ["--log-output"]])
def test_papermill_shows_the_line_once(tmp_path: Path, flags: list[str]) -> None:
    code = "from sage_kit.studies.run_count import tell\ntell(f'Time: {seeds} minutes')"
    write_notebook(tmp_path / "n.ipynb", code)
    command = [sys.executable, "-m", "papermill", "n.ipynb", "out.ipynb", "-k", "python3", "-p", "seeds", "3", *flags]
    # within pytest a kernel leaves the descriptors alone
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Time: 3 minutes") == 1
    assert "Time: 3 minutes" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")
