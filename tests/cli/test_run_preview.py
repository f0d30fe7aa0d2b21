"""`sage-kit run --check-only`: what it shows, that it is right, and that it starts and writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_run, toy_settings

from sage_kit.cli import main, run_preview
from sage_kit.cli.run_preview import disk_of, duration, origins, steps_of
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.scoring import load_scored
from sage_kit.recipe import resolve


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Exit code, standard output and standard error of a check."""
    with pytest.raises(SystemExit) as exit_info:
        main(["run", "--check-only", *arguments])
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


def written(folder: Path, settings: dict[str, Any]) -> str:
    """A TOML file of settings."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, dict)]
    lines += [f"{name} = {{{', '.join(f'{key} = {json.dumps(one)}' for key, one in value.items())}}}"
              for name, value in settings.items() if isinstance(value, dict)]  # fmt: skip
    path = folder / "settings.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_it_shows_everything_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bert: Path
) -> None:
    import sage_kit.distill

    monkeypatch.setattr(sage_kit.distill, "run", None)
    file = written(tmp_path, toy_settings(tmp_path, tiny_bert))
    before = tree(tmp_path)
    code, out, err = call(capsys, "--config", file, "--rounds", "2", "--seed", "7")
    assert (code, err) == (0, "")
    assert tree(tmp_path) == before
    rows = {
        cells[1]: cells for line in out.splitlines() if len(cells := [c.strip() for c in line.split("│")[1:-1]]) == 4
    }
    assert rows["rounds"][2:] == ["2", "flag --rounds"]
    assert rows["max_length"][2] == "32"
    assert rows["max_length"][3].startswith("file")
    assert rows["temperature"][2:] == ["1.0", "default"]
    assert rows["pca"][0] == "reducer"
    assert rows["kl"][3].startswith("weight=1")
    text = " ".join(out.split())
    assert re.search(r"Data: train \d+, dev \d+, validation 120.* rows\.", text)
    assert re.search(r"Steps: [\d,]+ in 2 rounds; stop rule 'agreement' may end the run earlier\.", text)
    assert re.search(r"Time: about .*, and between .* and .* by what is known of such estimates \(by their FLOPs", text)
    assert "to fine-tune the teacher" in text
    assert re.search(r"Disk: about \d+ MB in .*; [\d.,]+ GB are free\.", text)
    assert text.endswith("Nothing was started or written.")


def test_steps_disk_and_time_are_those_of_the_run(tmp_path: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(tmp_path, tiny_bert)
    config, plugins = directory.config(), Plugins()
    recipe, data = resolve(config, plugins), load_scored(plugins, config, lambda text: None)
    assert steps_of(recipe, data) == (summary["student_steps"], True)
    real = sum(path.stat().st_size for path in directory.path.rglob("*") if path.is_file())
    assert 0.5 < (disk_of(recipe, data).run - run_preview.TOKENIZER_BYTES) / real < 2
    again = resolve(load_config({**config.model_dump(), "run_dir": ""}), plugins)
    (line,) = (line for line in run_preview.preview_lines(again, plugins) if line.startswith("Time"))
    assert "(as earlier runs took: 1 run of its kind)." in line
    assert "fine-tune" not in line
    assert duration(summary["seconds"]) in line


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--rounds", "0"], "setting 'rounds' is '0'"),
        (["--reducer", "pcaa"], "Did you mean 'pca'?"),
        (["--student-layers", "9"], "student_layers is 9, but the teacher has 4 blocks"),
        (["--teacher", "nowhere/at/all"], "no directory 'nowhere/at/all' exists"),
        (["--teacher", "not/here"], "'not/here' is not on this machine, and HF_HUB_OFFLINE is set"),
        (["--label-column", "stars"], "has no column 'stars'"),
        (["--train-file", "gone.csv"], "gone.csv does not exist"),
        (["--optimizer", "adma"], "Unknown optimizer 'adma'"),
        (["--device", "cuda:7"], "device 'cuda:7' is not there"),
        (["--n-components", "500"], "n_components is 500, but the vectors have"),
        (["--runs-dir", "taken"], "run directory taken cannot be written (taken is no folder)"),
        (["--run-dir", "full"], "run directory full is not empty"),
        (["--preset", "papr"], "Did you mean 'paper'?"),
        (["--config", "gone.toml"], "configuration file gone.toml"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bert: Path,
    flags: list[str], what: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "taken").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    file = written(tmp_path, toy_settings(tmp_path, tiny_bert))
    before = tree(tmp_path)
    code, out, err = call(capsys, *(flags if "--config" in flags else ["--config", file, *flags]))
    assert (code, out) == (2, "")
    assert what in err
    assert len(err.splitlines()) == 1
    assert tree(tmp_path) == before


def test_origins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('preset = "paper"\nrounds = 3\nseed = 1\n', encoding="utf-8")
    monkeypatch.setenv("SAGE_KIT_DATA_DIR", "somewhere")
    monkeypatch.delenv("SAGE_KIT_CACHE_DIR", raising=False)
    given = {"seed": "2"}
    found = origins(load_config(given, file=file), given, "", str(file))
    wanted = {
        "seed": "flag --seed", "rounds": f"file {file}", "refit": "preset paper", "optimizer": "default",
        "data_dir": "environment SAGE_KIT_DATA_DIR", "cache_dir": "default",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    # what a preset chose for a component leaves with it
    other = {"lift": "shift"}
    assert origins(load_config(other), other, "", "")["lift_options"] == "default"


def test_data_that_would_be_fetched_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                           tiny_bert: Path, tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("SAGE_KIT_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(
        capsys, "--task", "sst2", "--teacher", str(tiny_bert), "--student-layers", "2", "--reducer", "pca"
    )
    assert code == 0
    assert "the data of task 'sst2' is not on this machine" in " ".join(out.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "text"), [(89, "89 s"), (600, "10 minutes"), (7200, "2.0 hours")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
