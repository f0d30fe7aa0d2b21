"""The plan of a study, told without any of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.toynotebook import write_notebook

from sage_kit.cli import main
from sage_kit.studies.plan_only import PLAN_ONLY, PlanEndError, end_of_plan

ENDS = "from sage_kit.studies.plan_only import end_of_plan\nprint('Time: a while')\nend_of_plan()\n"


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")


def run_plan(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "plan", "--notebooks", "notebooks", *arguments])
    return int(exit_info.value.code or 0)


def test_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end_of_plan()
    monkeypatch.setenv(PLAN_ONLY, "1")
    with pytest.raises(PlanEndError, match=PLAN_ONLY):
        end_of_plan()


def test_a_notebook_ends_behind_its_plan_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_notebook(Path("notebooks/05_reducers.ipynb"), ENDS, "open('later', 'w').close()")
    assert run_plan("05", "-p", "seeds=2") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("05_reducers: profile=smoke, seeds=2, dims=2,8, verbose=False, results_dir=results\n"
                          "  Time: a while\n", "")  # fmt: skip
    assert [path.name for path in Path().iterdir()] == ["notebooks"]


def test_a_notebook_that_fails_before_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_notebook(Path("notebooks/05_reducers.ipynb"), "if seeds == 1:\n    1 / 0", ENDS)
    Path("grid.toml").write_text('study = "05"\nseeds = [1, 2]\n', encoding="utf-8")
    assert run_plan("--grid", "grid.toml") == 1
    out, err = capsys.readouterr()
    assert out.count("05_reducers: ") == 2
    assert out.count("  Time: a while") == 1
    assert "sage-kit: 05_reducers has no plan: ZeroDivisionError: division by zero" in err


def test_a_study_of_the_project_makes_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notebooks = Path(__file__).parents[2] / "notebooks"
    assert run_plan("10", "--notebooks", str(notebooks), "--profile", "smoke", "-p", "task=movie_reviews") == 0
    out, _ = capsys.readouterr()
    assert "differences that it finds with 80 % chance" in out
    # 14 arms that need nothing, two controls, noise, and plain distillation of two longer runs; two seeds, no tuning
    assert "Time: 38 runs: 0 found, 38 to make" in out
    assert list(tmp_path.iterdir()) == []
