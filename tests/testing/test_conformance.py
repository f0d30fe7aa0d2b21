"""`sage-kit check` and `sage-kit new-plugin`: what they print and how they exit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sage_kit.cli import main
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.testing import CheckResult, check_component
from sage_kit.testing.run_checks import checks_for
from sage_kit.testing.subject import Subject

GOOD = """
from sage_kit import hookimpl
from sage_kit.components import FilterSpec


class Keep:
    def __init__(self, options, context):
        pass

    def keep(self, request):
        import numpy as np

        return np.ones(len(request.vectors), dtype=bool)


@hookimpl
def sage_filters():
    yield FilterSpec(name="keep", summary="Keeps all", factory=Keep)
"""

WATCH = """
from sage_kit import hookimpl


@hookimpl
def sage_round_finished(result):
    pass
"""


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components are checked in this process, which saves seconds where processes are not what is tested."""

    def check_here(item: Registered, files: Sequence[str], **keywords: Any) -> list[CheckResult]:
        return check_component(item.spec, plugins=Plugins(files))

    monkeypatch.setattr("sage_kit.testing.conformance.check_alone", check_here)


def test_a_sound_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "good.py"
    file.write_text(GOOD, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 0
    shown = capsys.readouterr().out
    assert "light_discovery" in shown
    assert "same_in_another_process" in shown
    assert re.search(r"(2\d|3\d) checks ran, 0 failed; 0 skipped", shown), shown


@pytest.mark.usefixtures("here")
def test_a_broken_file_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import numpy\n" + GOOD.replace("dtype=bool", "dtype=int"), encoding="utf-8")
    assert command("check", "keep", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "FAILED light_discovery: filter 'keep': importing" in shown
    assert "loads numpy" in shown
    assert "FAILED filter_shapes: filter 'keep': keep returns int64 instead of bool. To fix:" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check: name a component, or a plugin file with --plugin FILE"),
        (["cosin"], "No component is named 'cosin'. Did you mean 'cosine'?"),
        (["cosin", "--kind", "filter"], "Unknown filter 'cosin'. Did you mean 'cosine'?"),
        (["cosine", "--kind", "filtre"], "Unknown kind 'filtre'. Did you mean 'filter'?"),
    ],
)
def test_nothing_to_check_is_an_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    assert command("check", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_implements_observing_hooks_is_checked_as_an_observer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "watch.py"
    file.write_text(WATCH.replace("pass", "raise SystemExit(4)"), encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "FAILED observer_bears_every_hook: observer 'watch': " in shown
    assert "SystemExit: 4" in shown


def test_a_file_without_components_of_the_kind_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "watch.py"
    file.write_text(WATCH, encoding="utf-8")
    assert command("check", "--kind", "filter", "--plugin", str(file)) == 2
    assert "contributes no component of kind 'filter'" in capsys.readouterr().err


MISSING = GOOD.replace(
    'summary="Keeps all"', 'summary="Keeps all", requires=("sage-kit>=9.0",), install="pip install -U x"'
)


@pytest.mark.usefixtures("here")
def test_a_missing_package_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "newer.py"
    file.write_text(MISSING, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "NOT CHECKED filter 'keep' needs sage-kit>=9.0 (version" in shown
    assert "): pip install -U x" in shown


TWO = GOOD.replace(
    "yield FilterSpec",
    'yield FilterSpec(name="ends", summary="Ends the process", factory=Ends)\n    yield FilterSpec',
).replace("class Keep:", """class Ends:
    def __init__(self, options, context):
        pass

    def keep(self, request):
        import os

        STATEMENT


class Keep:""")  # fmt: skip


WAITS = "filter 'ends': it has waited for 8 s without computing anything (time limit)"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("os.kill(os.getpid(), 11)", "filter 'ends': it ends the process: killed by SIGSEGV"),
        ("__import__('time').sleep(1e6)", WAITS),
    ],
    ids=["crashes", "hangs"],
)
def test_a_component_that_ends_its_process_is_named(
    statement: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.py"
    file.write_text(TWO.replace("STATEMENT", statement), encoding="utf-8")
    assert command("check", "ends", "--plugin", str(file), "--time-limit", "8") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert f"FAILED works_with_many_rows: {message}" in shown
    assert "not run: first mend what works_with_many_rows found" in shown
    assert "1 failed;" in shown


def test_the_others_are_checked_and_what_an_import_changes_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.py"
    text = "import random\n\nrandom.seed(0)\n" + TWO.replace("STATEMENT", "os._exit(7)")
    file.write_text(text, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "FAILED works_with_many_rows: filter 'ends': it ends the process, with exit status 7. To fix:" in shown
    assert "FAILED leaves_random_states: filter 'keep': importing two.py changes random" in shown
    assert "2 failed;" in shown


HASHED = GOOD.replace(
    "return np.ones(len(request.vectors), dtype=bool)",
    'return np.arange(len(request.vectors)) % 7 != hash("a text") % 7',
)


def test_what_depends_on_the_process_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hashed.py"
    file.write_text(HASHED, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "FAILED same_in_another_process: filter 'keep': two processes give different answers" in shown


def test_new_plugin_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("new-plugin", "lift", "mine", "--dest", str(tmp_path)) == 0
    assert "sage-kit check mine --kind lift" in capsys.readouterr().out
    assert command("new-plugin", "lift", "mine", "--dest", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "exists already" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["reducer", "task", "lift"])
def test_discovery_is_checked_for_built_ins(kind: str) -> None:
    (check,) = (check for check in checks_for(kind) if check.name == "light_discovery")
    result = check.result(Subject(Plugins(allow="").components(kind)[0].spec))
    assert result.passed
    assert not result.skipped
