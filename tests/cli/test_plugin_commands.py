"""Commands that installed plugins add to `sage-kit`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pluginsources import Install

from sage_kit.cli import main

COMMANDS = """
@hookimpl
def sage_commands(app):
    @app.command("greet", help="Greet someone.")
    def greet(name: str, fail: bool = False):
        if fail:
            raise ValueError("no greeting")
        print("hello", name)
"""


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    """Exit status, standard output and standard error of a command line."""
    with pytest.raises(SystemExit) as raised:
        main(list(arguments))
    captured = capsys.readouterr()
    return raised.value.code, captured.out, captured.err


def test_a_plugins_command_is_listed_and_run(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(COMMANDS)
    _, out, _ = outcome(capsys, "--help")
    assert "greet" in out
    assert "Greet someone." in out
    assert outcome(capsys, "greet", "Ada") == (0, "hello Ada\n", "")
    # as any other usage error
    code, _, err = outcome(capsys, "greet")
    assert (code, err.lower()) == (2, "sage-kit: missing argument 'name'.\n")


def test_groups_and_several_commands(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(
        """
        import typer
        tools = typer.Typer()

        @tools.command("one")
        def one():
            print("first")

        @tools.command("two")
        def two():
            raise typer.Exit(3)

        @hookimpl
        def sage_commands(app):
            app.add_typer(tools, name="tools")
            app.command("alone")(one)
        """
    )
    assert outcome(capsys, "tools", "one") == (0, "first\n", "")
    assert outcome(capsys, "tools", "two")[0] == 3
    assert outcome(capsys, "alone") == (0, "first\n", "")


def test_what_a_command_raises_is_one_line(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    module = install(COMMANDS)
    code, _, err = outcome(capsys, "greet", "Ada", "--fail")
    assert code != 0
    assert err.startswith("sage-kit: command 'greet' of plugin acme-sage:acme: ValueError: no greeting")
    assert f"{module}.py:" in err
    assert err.count("\n") == 1


def test_a_taken_name_is_left_out(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(COMMANDS)
    install(COMMANDS.replace('"greet"', '"run"'), plugin="bold", distribution="bold-sage")
    install(COMMANDS, plugin="copy", distribution="copy-sage")
    _, _, err = outcome(capsys, "--help")
    assert sorted(err.splitlines()) == [
        "sage-kit: command 'greet' of plugin copy-sage:copy is left out: plugin acme-sage:acme has one of that name",
        "sage-kit: command 'run' of plugin bold-sage:bold is left out: sage-kit has one of that name",
    ]
    assert outcome(capsys, "greet", "Ada")[1] == "hello Ada\n"


def test_a_plugin_that_fails_is_told_and_the_others_go_on(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("@hookimpl\ndef sage_commands(app):\n    raise SystemExit('away')\n", plugin="bad", distribution="bad-sage")
    install(COMMANDS)
    code, out, err = outcome(capsys, "greet", "Ada")
    assert (code, out) == (0, "hello Ada\n")
    assert err.startswith("sage-kit: plugin bad-sage:bad: sage_commands: SystemExit: away at ")


def test_no_plugin_is_loaded_for_a_command_of_sage_kits_own(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("plugins were loaded")

    monkeypatch.setattr("sage_kit.components.plugins.Plugins.commands", refuse)
    for arguments in (["config"], ["--version"], ["run", "--help"]):
        assert outcome(capsys, *arguments)[0] == 0


def test_an_unknown_command_stays_an_error(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(COMMANDS)
    code, _, err = outcome(capsys, "greeet")
    assert code == 2
    assert "greeet" in err


def test_help_stays_light_with_a_plugins_commands() -> None:
    code = (
        "import sys\nfrom sage_kit.cli import main\n"
        "try:\n    main(['nonsense'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
