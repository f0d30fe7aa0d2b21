"""-v, -q and --log-level: what each level tells on standard error, on every command alike."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from studies.fakeresults import make_finding, save_result

from sage_kit.cli import main
from sage_kit.cli.app import app
from sage_kit.cli.options import announce, warn
from sage_kit.cli.verbosity import LEVEL_VARIABLE, LEVELS


@pytest.fixture(autouse=True)
def no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)


def call(capsys: pytest.CaptureFixture[str], *arguments: str, command: Any = app) -> tuple[Any, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments), command)
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_takes_the_flags() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert ("study", "report") in found
    assert len(found) > 20
    for words, command in found.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {"-v", "--verbose", "-q", "--quiet", "--log-level"} <= flags, words


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], {"info", "warning"}),
        (["-q"], {"warning"}),
        (["-qq"], set()),
        (["-qqqq"], set()),
        (["-v"], {"info", "warning", "log"}),
        (["-v", "-q"], {"info", "warning"}),
        (["--log-level", "ERROR"], set()),
        (["--log-level", "warning", "-v"], {"info", "warning"}),
    ],
)
@pytest.mark.parametrize("behind", [True, False])
def test_what_each_level_tells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str], told: set[str], behind: bool
) -> None:
    from sage_kit.cli import component_commands

    def load(files: Any) -> Any:
        announce("info")
        warn("warning")
        logging.getLogger("of_a_library").info("log")
        raise typer.Exit(3)

    monkeypatch.setattr(component_commands, "load_plugins", load)
    code, out, err = call(capsys, *(["plugins", *flags] if behind else [*flags, "plugins"]))
    assert (code, out) == (3, "")
    assert {line.split()[-1] for line in err.splitlines()} == told


def test_results_and_errors_are_told_at_every_level(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    save_result(results, "04_static_or_adaptive", make_finding("adaptive_over_static", 0.1, 0.2))
    (results / "05_reducers" / "half").mkdir(parents=True)
    page = str(tmp_path / "a.html")
    code, out, err = call(capsys, "study", "report", "-q", "--results", str(results), "--out", page)
    assert (code, "Saved" in out, "half-written" in err) == (0, True, True)
    code, out, err = call(capsys, "study", "report", "-qq", "--results", str(results), "--out", page)
    assert (code, "Saved" in out, err) == (0, True, "")
    code, out, err = call(capsys, "study", "report", "-qq", "--results", str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert "no folder of results" in err


@pytest.mark.parametrize(
    ("arguments", "variable", "what"),
    [
        (
            ["--log-level", "wanring", "plugins"],
            "",
            "Unknown log level 'wanring' in --log-level. Did you mean 'warning'?",
        ),
        (
            ["plugins", "--log-level", "7"],
            "",
            "Unknown log level '7' in --log-level. Available: debug, error, info, warning",
        ),
        (["plugins"], "loud", "Unknown log level 'loud' in SAGE_KIT_LOG_LEVEL."),
        (["plugins", "-v", "3"], "", "unexpected extra argument"),
    ],
)
def test_an_unknown_level_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str, what: str
) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, variable)
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert what in err
    assert len(err.splitlines()) == 1


def test_the_level_is_handed_on_and_left_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sage_kit.cli import component_commands

    seen: list[tuple[str | None, int]] = []

    def load(files: Any) -> Any:
        seen.append((os.environ.get(LEVEL_VARIABLE), logging.getLogger("sage_kit").level))
        raise typer.Exit(0)

    monkeypatch.setattr(component_commands, "load_plugins", load)
    handlers, level = list(logging.root.handlers), logging.root.level
    call(capsys, "plugins", "-q")
    call(capsys, "-v", "plugins")
    call(capsys, "plugins")
    assert seen == [("warning", logging.WARNING), ("debug", logging.DEBUG), (None, logging.NOTSET)]
    assert LEVEL_VARIABLE not in os.environ
    assert (logging.root.handlers, logging.root.level) == (handlers, level)
    assert logging.getLogger("sage_kit").level == logging.NOTSET
    monkeypatch.setenv(LEVEL_VARIABLE, "warning")  # as a process that another has started finds it
    call(capsys, "plugins")
    assert seen[-1] == ("warning", logging.WARNING)
    assert list(LEVELS) == ["error", "warning", "info", "debug"]


def test_a_level_in_front_of_the_command_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, _ = call(capsys, "--log-level", "info", "config")
    assert code == 0
    assert "teacher = " in out
