"""The command `sage-kit scorecard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scorecardspies import write_plugin
from toyrun import toy_settings

from sage_kit.cli import main
from sage_kit.config import load_config, to_toml
from sage_kit.scorecard import clock


@pytest.fixture
def command(tmp_path: Path, tiny_bert: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs it on the toy task; returns exit code, standard output and error output."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setattr(clock, "TIMED_SECONDS", 0.0)
    settings = load_config(toy_settings(tmp_path, tiny_bert))
    (tmp_path / "settings.toml").write_text(to_toml(settings), encoding="utf-8")

    def run(*arguments: str) -> tuple[Any, str, str]:
        fixed = ["--config", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as exit_info:
            main(["scorecard", *fixed, *arguments])
        captured = capsys.readouterr()
        return exit_info.value.code, captured.out, captured.err

    return run


def test_it_prints_and_saves(command, tmp_path: Path) -> None:
    code, out, err = command("--reducer", "pca", "--inverter", "knn")
    assert code == 0, err
    for words in ("nearest real vector", "as published; split and scale", "vectors/s", "not fine-tuned", "transform"):
        assert words in out
    assert (tmp_path / "out" / "file-pca-2-knn" / "arrays.safetensors").exists()


def test_it_prints_json_only(command, tmp_path: Path) -> None:
    code, out, err = command("--reducer", "pca", "--inverter", "native", "--n-components", "3", "--json")
    assert code == 0, err
    saved = json.loads((tmp_path / "out" / "file-pca-3-native" / "scorecard.json").read_text())
    assert saved.pop("vectors")
    assert json.loads(out) == saved


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reducer", "pac", "--inverter", "knn"], "Unknown reducer 'pac'. Did you mean 'pca'?"),
        (["--reducer", "pca", "--inverter", "knm"], "Unknown inverter 'knm'. Did you mean 'knn'?"),
        (["--reducer", "rigid", "--inverter", "native"], "which reducer 'rigid' does not have"),
        (["--reducer", "pca", "--inverter-options", "l=3"], "Unknown option 'l'"),
        (["--reducer", "identity", "--inverter", "knn"], "n_components"),
        (["--reducer", "pca", "--inverter", "fails"], "inverter 'fails'"),
        (["--reducer", "pca", "--task", "sst3"], "Unknown task 'sst3'"),
    ],
)
def test_a_mistake_is_one_line(command, tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = command("--plugin", str(write_plugin(tmp_path)), *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len([line for line in err.splitlines() if line.startswith("sage-kit: ")]) == 1
    assert "Traceback" not in err
