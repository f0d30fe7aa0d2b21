"""What the processes of a search have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_kit.config import LARGEST_SEED, load_config
from sage_kit.errors import ConfigError, StudyError
from sage_kit.searching.search_plan import RECORD, Ending, SearchPlan, asked_plan
from sage_kit.searching.search_space import read_space

SPACE = (
    "learning_rate=log:1e-5:5e-4",
    "sampler=high_loss,random",
    "student_init=[0, 1],[2, 3]",
    "lift_options.span=1:3",
)


def a_plan(settings: dict[str, Any] | None = None, space: tuple[str, ...] = SPACE, **own: Any) -> SearchPlan:
    return SearchPlan(load_config({"reducer": "pca", "max_steps": 50, **(settings or {})}), read_space(space), **own)


def test_the_record_reads_back(tmp_path: Path) -> None:
    losses = {"kl": 1.0, "minilm_relations": {"start": 1.0, "end": 0.0}}
    plan = a_plan({"losses": losses, "student_layers": 2}, measure="agreement", seeds=3, prune=False, trials=7)
    plan.write(tmp_path)
    found = SearchPlan.read(tmp_path)
    assert found == plan
    plan.check_same(found, tmp_path)
    assert asked_plan(tmp_path, {}, {}, {}) is None
    # what does not shape the outcome of a trial may differ
    a_plan({"losses": losses, "student_layers": 2, "device": "cpu", "runs_dir": "x"}, measure="agreement", seeds=3,
           prune=False).check_same(found, tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"temperature": 2.0}}, "searches with temperature 1, and this command says 2"),
        ({"space": SPACE[:3]}, "values of lift_options.span 1:3, and this command says none"),
        (
            {"space": (*SPACE[1:], "learning_rate=log:1e-5:6e-4")},
            "log:1e-05:0.0005, and this command says log:1e-05:0.0006",
        ),
        ({"space": (*SPACE, "temperature=1:2")}, "values of temperature none, and this command says 1.0:2.0"),
        ({"measure": "metric"}, "measure divergence, and this command says metric"),
        ({"seeds": 2}, "seeds 1, and this command says 2"),
        ({"prune": False}, "prune true, and this command says false"),
        ({"search_seed": 1}, "search-seed 0, and this command says 1"),
    ],
)
def test_what_differs_is_named(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        a_plan(**changed).check_same(a_plan(), tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_says_a_part_is_held_against_it(tmp_path: Path) -> None:
    plan = a_plan()
    plan.write(tmp_path)
    asked = asked_plan(tmp_path, {}, {}, {"measure": "agreement"})
    assert asked is not None
    with pytest.raises(StudyError, match="measure"):
        asked.check_same(plan, tmp_path)
    asked = asked_plan(tmp_path, {}, {"temperature": "2"}, {"trials": 9})
    assert asked is not None
    assert asked.trials == 9
    with pytest.raises(StudyError, match="temperature"):
        asked.check_same(plan, tmp_path)
    with pytest.raises(ConfigError, match="nothing to search"):
        asked_plan(tmp_path / "new", {}, {"temperature": "2"}, {})


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    for content in (
        "[search",
        "",
        "[search]\n[space]\n[settings]\nnone = 1\n",
        "[search]\nx = 1\n[space]\n[settings]\n",
    ):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(StudyError, match="search in another folder"):
            SearchPlan.read(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"trials": 0}, "trials is 0"),
        ({"search_seed": -1}, "search-seed is -1"),
        ({"measure": "divergenc"}, "Did you mean 'divergence'"),
        ({"settings": {"run_dir": "x"}}, "run_dir names the directory of one run"),
        ({"space": ()}, "nothing to search"),
    ],
)
def test_bad_plans_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        a_plan(**given)


def test_seeds_of_trials_and_checks_are_apart_and_draw_transfer_sets() -> None:
    plan = a_plan({"seed": 3, "transfer_rows": 10, "transfer_pool": 40, "transfer_seed": 5}, seeds=2)
    runs = [plan.run_config({"learning_rate": 2e-4}, number) for number in range(4)]
    assert [(run.seed, run.transfer_seed) for run in runs] == [(3, 5), (4, 6), (5, 7), (6, 8)]
    assert {(run.learning_rate, run.evaluate_validation, run.max_steps) for run in runs} == {(2e-4, "never", 50)}
    assert a_plan({"transfer_seed": 5}).run_config({}, 1).transfer_seed == 5
    best = plan.best_config({"learning_rate": 2e-4})
    assert (best.seed, best.evaluate_validation, best.run_dir) == (3, "every_round", "")
    # trials have the first two seeds, then come those of the finals, then those of the check
    assert (Ending(3, 4, 5).final_numbers(plan), Ending(3, 4, 5).check_numbers(plan)) == (range(2, 6), range(6, 11))
    assert (Ending(0, 4, 5).final_numbers(plan), Ending(0, 4, 5).check_numbers(plan)) == (range(2, 2), range(2, 7))
    Ending(check_seeds=0).check(plan)
    with pytest.raises(ConfigError, match="an interval needs 2"):
        Ending(check_seeds=1).check(plan)
    with pytest.raises(ConfigError, match="must not be above"):
        Ending(0, check_seeds=5).check(a_plan({"seed": LARGEST_SEED - 2}))


def test_rounds_and_steps_are_not_searched_beside_a_limit(tmp_path: Path) -> None:
    store: Any = None
    with pytest.raises(ConfigError, match="search one of the two"):
        a_plan(space=("rounds=2:5",)).with_steps(store)
    with pytest.raises(ConfigError, match="search one of the two"):
        a_plan({"max_steps": 0}, space=("rounds=2:5", "max_steps=10:20")).with_steps(store)
    free = a_plan({"max_steps": 0}, space=("rounds=2:5",))
    assert free.with_steps(store) is free
    assert not free.has_equal_steps
    assert a_plan().with_steps(store).base.max_steps == 50
