"""Completion in the shell: what it offers, from where it is asked for, and how light it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pluginsources import Install

from sage_kit.cli import completion


def offered(line: str, *, check: str = "") -> list[str]:
    """What a bash would offer for the last word of a line, which may be empty."""
    words = line.split(" ")
    start = "import sys; from sage_kit.cli import main; sys.argv = ['sage-kit']"
    program = f"{start}\ntry:\n    main()\nfinally:\n    {check or 'pass'}"
    env = {**os.environ, "_SAGE_KIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("sage-kit ", {"run", "study", "doctor"}),
        ("sage-kit study r", {"run", "report"}),
        ("sage-kit run --reducer-", {"--reducer-options", "--reducer-seed"}),
        ("sage-kit run --reducer pc", {"pca"}),
        ("sage-kit run --losses kl,hidden", {"kl,hidden_cosine", "kl,hidden_mse"}),
        ("sage-kit run --mix r", {"replace"}),
        ("sage-kit run --preset ", {"default", "paper"}),
        ("sage-kit study run 05", {"05_reducers"}),
        ("sage-kit study run 05 --profile sm", {"smoke", "small"}),
        ("sage-kit plugins --kind red", {"reducer"}),
        ("sage-kit decode x --decoder near", {"nearest_token"}),
        ("sage-kit check autoen", {"autoencoder"}),
        ("sage-kit --log-level w", {"warning"}),
    ],
)
def test_what_is_offered(line: str, some: set[str]) -> None:
    found = offered(line)
    assert some <= set(found)
    last = line.split(" ")[-1]
    assert all(word.startswith(last) for word in found)


@pytest.mark.parametrize("line", ["sage-kit run --reducer ", "sage-kit study run ", "sage-kit "])
def test_nothing_heavy_is_imported(line: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'umap', 'sklearn', 'scipy', 'numpy', 'pandas'}"
    found = offered(line, check=f"print('heavy', *sorted({heavy} & set(sys.modules)))")
    assert found[-1] == "heavy"


def test_settings_are_completed_by_what_they_take() -> None:
    reducers = completion.for_setting("reducer")
    assert reducers is not None
    assert "pca" in reducers("")
    assert completion.for_setting("teacher") is None
    schedules = completion.for_setting("schedule")
    assert schedules is not None
    assert schedules("a") == ["adaptive"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, []),
        ({"_SAGE_KIT_COMPLETE": "complete_bash", "COMP_WORDS": "sage-kit run --rou"}, ["run", "--rou"]),
        ({"_SAGE_KIT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "sage-kit study "}, ["study"]),
        ({"_SAGE_KIT_COMPLETE": "complete_bash", "COMP_WORDS": "sage-kit run 'a b"}, ["run", "'a", "b"]),
    ],
)  # fmt: skip
def test_the_words_that_a_shell_hands_over(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str]
) -> None:
    for name in ("_SAGE_KIT_COMPLETE", "COMP_WORDS", "_TYPER_COMPLETE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert completion.words_so_far() == words


def test_without_notebooks_no_study_is_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sage_kit.errors import StudyError
    from sage_kit.studies import parameters

    def refuse(directory: str = "") -> Path:
        raise StudyError("none")

    monkeypatch.setattr(parameters, "notebooks_folder", refuse)
    assert completion.studies("") == []


def test_commands_of_plugins_are_offered(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_kit.cli.app import app
    from sage_kit.cli.plugin_commands import with_plugin_commands

    install('@hookimpl\ndef sage_commands(app):\n    @app.command("greet")\n    def greet():\n        pass\n')
    assert "greet" in with_plugin_commands(app, []).commands
    assert "greet" not in with_plugin_commands(app, ["run"]).commands  # none of the plugins is loaded for it
