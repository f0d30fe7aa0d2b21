"""The bench `start`: its observer, its reading of import times, and its processes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from sage_bench import start
from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import SageError

REPORT = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     numpy.core
import time:    250000 |     250100 |   numpy
import time:   9000000 |    9000000 |   torch
import time:    500000 |     760100 | scipy.optimize
some other line
"""


def test_import_times_are_summed_by_package_without_torch() -> None:
    assert start.import_seconds(REPORT) == {"scipy": 0.5, "numpy": 0.2501}


def test_the_observer_ends_the_process_at_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, out = tmp_path / "first_step.py", tmp_path / "time.txt"
    plugin.write_text(start.OBSERVER, encoding="utf-8")
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setenv("SAGE_KIT_BENCH_FILE", str(out))
    plugins = Plugins([plugin], allow="")
    plugins.add_observer("first_step", plugins.build("observer", "first_step", {}, BuildContext(config=load_config())))
    plugins.step_finished(None, "teacher", 1, 2, None)
    assert ended == []
    before = time.time()
    plugins.step_finished(None, "round 1", 1, 2, None)
    assert ended == [0]
    assert before <= float(out.read_text(encoding="utf-8")) <= time.time()
    assert plugins.disabled == {}


def test_a_process_is_timed_until_the_observer_writes(tmp_path: Path) -> None:
    write = "open(os.environ['SAGE_KIT_BENCH_FILE'], 'w').write(repr(time.time() + 100))"
    # some work, since the system counts processor time in hundredths of a second
    program = f"import os, time; sum(range(10_000_000)); {write}"
    work = start._process_until_step([sys.executable, "-c", program], tmp_path)
    assert work.seconds is not None
    assert work.seconds > 100
    assert work.figures[start.PROCESSOR] > 0
    with pytest.raises(SageError, match="without a training step"):
        start._process_until_step([sys.executable, "-c", "pass"], tmp_path)


def test_a_process_that_fails_is_an_error_with_its_last_line() -> None:
    with pytest.raises(SageError, match="exit code 1: ValueError: no"):
        start._process([sys.executable, "-c", "raise ValueError('no')"])
