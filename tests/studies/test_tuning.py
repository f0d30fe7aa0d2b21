"""Learning rates: equal tries for every arm, a choice by dev alone, and seeds that no comparison takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.config import RunConfig
from sage_kit.errors import StudyError
from sage_kit.studies import Arm, Study
from sage_kit.studies.result import StudyResult, read_tables
from sage_kit.studies.runs import Runs
from sage_kit.studies.sizes import RATES, SIZES
from sage_kit.studies.tuning import SEARCH_SEED, TUNING_SEED, Try, Tuning, further, widened
from sage_kit.studies.verification import verify_folder

PLAIN, SAGE = Arm("plain", schedule="none"), Arm("sage")


def try_of(arm: str, rate: float, divergence: float, *, seed: int = TUNING_SEED, task: str = "a") -> Try:
    return Try(task, arm, rate, seed, 10, divergence, 0.5, 0.5, "run")


def tuning_of(arm: str, divergences: dict[float, Sequence[float]], task: str = "a") -> Tuning:
    tuning = Tuning()
    for rate, own in divergences.items():
        for number, divergence in enumerate(own):
            tuning.add(try_of(arm, rate, divergence, seed=TUNING_SEED + number, task=task))
    return tuning


def test_the_lowest_mean_divergence_wins_and_the_smaller_rate_of_equal_ones() -> None:
    assert tuning_of("x", {1e-4: [0.2, 0.4], 2e-4: [0.1, 0.3], 4e-4: [0.3, 0.2]}).best("a", "x") == 2e-4
    assert tuning_of("x", {1e-4: [0.2], 2e-4: [0.2]}).best("a", "x") == 1e-4


def test_a_rate_at_which_a_student_falls_apart_is_not_taken() -> None:
    tuning = tuning_of("x", {1e-4: [0.5, 0.5], 2e-4: [0.1, math.nan]})
    assert tuning.best("a", "x") == 1e-4
    with pytest.raises(StudyError, match=r"arm 'x' on a: no learning rate of 0\.1, 0\.2 trains it; try smaller"):
        tuning_of("x", {0.1: [math.nan], 0.2: [math.inf]}).best("a", "x")


def test_unlike_tries_are_refused() -> None:
    tuning = tuning_of("x", {1e-4: [0.2, 0.4], 2e-4: [0.1, 0.3]})
    tuning.add(try_of("y", 1e-4, 0.2))
    tuning.check_alike("a", ["x"])
    tuning.check_alike("b", ["x", "y"])  # neither was tuned there
    with pytest.raises(StudyError, match=r"unlike tries on a: 'x' by 4 \(0.0001, 0.0002\), 'y' by 1 \(0.0001\)"):
        tuning.check_alike("a", ["x", "y"])
    with pytest.raises(StudyError, match=r"'x' by 4 .*, 'z' by none; hand all of them to Study.tune"):
        tuning.check_alike("a", ["z", "x"])


def test_a_list_goes_on_by_the_same_factor() -> None:
    rates = [5e-5, 1e-4, 2e-4, 4e-4]
    assert further(rates, []) == []
    assert further(rates, [5e-5]) == [2.5e-5]
    assert further(rates, [4e-4, 4e-4]) == [8e-4]
    assert further(rates, [4e-4, 5e-5]) == [2.5e-5, 8e-4]
    assert further([1e-4, 3e-4], [3e-4]) == [9e-4]


def test_a_study_may_take_other_rates_than_its_size_and_a_parameter_others_still(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    own = {"small": (2e-4, 1e-4), "medium": (3e-4,)}
    assert make_study(tmp_path, tiny_bert, usual_rates=own).rates == (1e-4, 2e-4)
    assert make_study(tmp_path, tiny_bert, usual_rates={"medium": (3e-4,)}).rates == SIZES["small"].rates
    study = make_study(tmp_path, tiny_bert, usual_rates=own, rates=[5e-4])
    assert study.rates == (5e-4,)
    # what a study takes by itself is no change of its profile, which a label would tell
    assert "rates" in study._changed
    assert "rates" not in make_study(tmp_path, tiny_bert, usual_rates=own)._changed


def test_every_size_lists_rates_in_order_and_seeds_do_not_overlap() -> None:
    for size in SIZES.values():
        assert list(size.rates) == sorted(set(size.rates))
        assert len(size.rates) > 1
        assert size.seeds < TUNING_SEED
        assert TUNING_SEED + size.tuning_seeds <= SEARCH_SEED


# ---- in a study, with runs whose divergence is known -----------------------------------------------------------------


class Runner:
    """Stands for the store's `run`: a run's divergence is lowest at the arm's own rate, and is logged."""

    def __init__(self, best: dict[str, float]) -> None:
        self.best = best
        self.made: list[tuple[str, float, int, int]] = []

    def __call__(self, arm: str, config: RunConfig, **others: Any) -> Any:
        self.made.append((arm, config.learning_rate, config.seed, config.transfer_seed))
        assert config.evaluate_validation == ("never" if config.seed >= TUNING_SEED else "end")
        apart = abs(math.log(config.learning_rate / self.best[arm]))
        row = {"student_steps": config.max_steps, "dev_divergence": apart, "dev": -apart, "dev_agreement": 0.5,
               "run": f"{arm}{config.learning_rate}"}  # fmt: skip
        return SimpleNamespace(
            arm=arm,
            task=config.task,
            seed=config.seed,
            config=config,
            row=lambda: row,
            summary={"student_steps": 1},
            found=True,
        )


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    return make_study(tmp_path, tiny_bert, rates=RATES)


def make_study(place: Path, tiny_bert: Path, **changes: Any) -> Study:
    settings = toy_settings(place, tiny_bert, rounds=2, observers=["jsonl", "loss_profile"])
    del settings["task"], settings["runs_dir"]
    data = {**ALL_ROWS, "transfer_rows": 40, "transfer_pool": 60, "evaluation_rows": 30, "dev_rows": 20}
    return Study(
        "04_x", title="X", question="Is it?", profile="small", task="file", runs_dir=str(place / "runs"),
        results_dir=str(place / "results"), **{"seeds": 2, **settings, **data, **changes},
    )  # fmt: skip


def test_all_arms_get_the_same_tries_and_each_its_own_rate(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner({"plain": 1e-4, "sage": 2e-4})
    monkeypatch.setattr(study.store, "run", runner)
    plain, sage = study.tune([PLAIN, SAGE])
    assert (plain.on("file"), sage.on("file")) == ({"schedule": "none", "learning_rate": 1e-4}, {"learning_rate": 2e-4})
    tries = {arm: [rest for name, *rest in runner.made if name == arm] for arm in ("plain", "sage")}
    assert tries["plain"] == tries["sage"]
    assert [rate for rate, *_ in tries["plain"]] == [5e-5, 5e-5, 1e-4, 1e-4, 2e-4, 2e-4, 4e-4, 4e-4]
    # each try under a seed of its own, which draws a transfer set of its own
    assert {(seed, transfer) for _, seed, transfer in tries["plain"]} == {(1000, 1000), (1001, 1001)}
    table = study.tables["tuning"]
    assert len(table) == 16
    taken = table[table["taken"]]
    assert dict(zip(taken["arm"], taken["learning_rate"], strict=True)) == {"plain": 1e-4, "sage": 2e-4}
    assert not table["at_end"].any()
    assert "end of" not in capsys.readouterr().out


def test_at_an_end_the_list_goes_on_for_all_arms_alike(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study.store, "run", Runner({"plain": 1e-4, "sage": 3e-3}))
    plain, sage = study.tune([PLAIN, SAGE])
    assert sage.on("file")["learning_rate"] == 8e-4
    assert plain.on("file")["learning_rate"] == 1e-4
    counts = study.tables["tuning"].groupby("arm")["learning_rate"].nunique()
    assert counts.tolist() == [5, 5]
    told = capsys.readouterr().out
    assert "file: a best learning rate is at an end of the list, so all arms try 0.0008 too" in told
    assert "file, sage: the best learning rate, 0.0008, is at an end of those tried" in told
    assert study.tables["tuning"].query("at_end")["arm"].unique().tolist() == ["sage"]
    # an arm that comes later is tried at what the earlier ones were, no more and no less
    (later,) = study.tune([Arm("plain", temperature=1.0)])
    assert len(study.tuning.of("file", "plain")) == 10
    assert later.on("file")["learning_rate"] == 1e-4


def test_one_rate_is_no_tuning(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study.store, "run", Runner({}))
    (plain,) = study.tune([PLAIN], rates=[3e-4])
    assert plain.on("file")["learning_rate"] == 3e-4
    assert not study.tuning
    assert "All arms learn at a rate of 0.0003: none is tuned." in capsys.readouterr().out


def test_what_cannot_be_fair_is_refused(study: Study, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(StudyError, match="arm 'mine' sets learning_rate: leave it out, for it is tuned"):
        study.tune([Arm("mine", learning_rate=1e-4)])
    with pytest.raises(StudyError, match="seed 3 is one of those that are compared: choose settings on 1,000 and up"):
        study.tune([PLAIN], seeds=[1000, 3])
    with pytest.raises(StudyError, match="seeds is 1001: a study needs at least one, and seeds from 1,000 are for"):
        make_study(tmp_path, tiny_bert, seeds=1001)
    with pytest.raises(StudyError, match=r"rates are \[0.0\]: give at least one learning rate, each above 0"):
        make_study(tmp_path, tiny_bert, rates=[0.0])


def test_runs_that_chose_are_not_compared(study: Study) -> None:
    study.choose_on([SEARCH_SEED])
    run = SimpleNamespace(arm="plain", task="file", seed=SEARCH_SEED)
    with pytest.raises(StudyError, match="seed 2000 chose settings in this study: compare runs under other seeds"):
        study.compare(Runs([run]), "plain")  # type: ignore[list-item]


def test_arms_tuned_unlike_are_not_compared(study: Study) -> None:
    study.tuning.add(try_of("sage", 1e-4, 0.1, task="file"))
    runs = [SimpleNamespace(arm=arm, task="file", seed=0) for arm in ("plain", "sage")]
    with pytest.raises(StudyError, match="arms of one comparison are tuned by unlike tries on file"):
        study.compare(Runs(runs), "plain")  # type: ignore[arg-type]


# ---- with real runs --------------------------------------------------------------------------------------------------


def test_a_tuned_comparison_is_saved_and_can_be_executed_again(tmp_path: Path, tiny_bert: Path) -> None:
    study = make_study(tmp_path, tiny_bert, rates=[1e-4, 1e-2], seeds=1, rounds=1)
    runs = study.run(study.tune([PLAIN, SAGE], seeds=[TUNING_SEED]))
    assert study.scored == "evaluation"
    assert {(run.config.seed, run.config.transfer_seed) for run in runs} == {(0, 0)}
    study.add_table("comparison", study.compare(runs, "plain"))
    assert study.tables["comparison"]["split"].unique().tolist() == ["evaluation"]
    assert study.tables["comparison"]["n_examples"].unique().tolist() == [30]
    study.finish()
    assert study.result is not None
    assert study.result.folder is not None
    loaded = StudyResult.load(study.result.folder)
    table = read_tables(loaded)["tuning"]
    taken = table[table["taken"]].set_index("arm")["learning_rate"].to_dict()
    saved = {run["arm"]: run["settings"].get("learning_rate", RunConfig().learning_rate) for run in loaded.runs}
    assert saved == taken
    assert loaded.parameters["rates"] == [1e-4, 1e-2]
    assert [check.state for check in verify_folder(study.result.folder)] == ["equal", "equal"]


def test_each_run_draws_its_own_transfer_set(tmp_path: Path, tiny_bert: Path) -> None:
    study = make_study(tmp_path, tiny_bert, rounds=1)
    first, second = study.run([PLAIN])
    texts = [set(study.store.data(run.config).train.texts) for run in (first, second)]
    assert texts[0] != texts[1]
    assert first.predictions["evaluation"]["labels"].tolist() == second.predictions["evaluation"]["labels"].tolist()
    (fixed, other) = study.run([Arm("one set", schedule="none", transfer_seed=7)])
    assert {run.config.transfer_seed for run in (fixed, other)} == {7}


# ---- arms with choices -----------------------------------------------------------------------------------------------

MILD, WARM = {"temperature": 2.0}, {"temperature": 4.0}


class ChoiceRunner(Runner):
    """As `Runner`; what has choices is best at temperature 4 and its rate."""

    def __call__(self, arm: str, config: RunConfig, **others: Any) -> Any:
        run = super().__call__(arm, config, **others)
        row = run.row()
        row["dev_divergence"] += config.temperature in (1.0, 2.0)
        return run


def test_each_choice_is_tried_at_each_rate_and_other_arms_get_as_many_tries(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = ChoiceRunner({"plain": 1e-4, "sage": 2e-4})
    monkeypatch.setattr(study.store, "run", runner)
    sage = Arm("sage", choices={"mild": MILD, "warm": WARM})
    _, sage = study.tune([PLAIN, sage], rates=[1e-4, 2e-4])
    assert sage.on("file") == {**WARM, "learning_rate": 2e-4}
    assert not sage.choices
    rates = {arm: [rate for name, rate, *_ in runner.made if name == arm] for arm in ("plain", "sage")}
    assert rates == {
        "plain": [5e-5, 5e-5, 1e-4, 1e-4, 2e-4, 2e-4, 4e-4, 4e-4],
        "sage": [1e-4, 1e-4, 2e-4, 2e-4, 1e-4, 1e-4, 2e-4, 2e-4],
    }
    study.tuning.check_alike("file", ["plain", "sage"])
    table = study.tables["tuning"]
    assert list(table.columns[:4]) == ["task", "arm", "choice", "learning_rate"]
    taken = table[table["taken"]]
    assert taken[["arm", "choice", "learning_rate"]].drop_duplicates().to_numpy().tolist() == [
        ["plain", "", 1e-4], ["sage", "warm", 2e-4],
    ]  # fmt: skip
    # an end of its own two rates
    assert taken.groupby("arm")["at_end"].all().to_dict() == {"plain": False, "sage": True}
    assert "learning rate of sage: warm at 0.0002 on file" in capsys.readouterr().out
    # an arm that comes later gets as many tries, with choices or without
    runner.best |= {"later": 1e-4, "more": 1e-4}
    study.tune([Arm("later", schedule="none")], rates=[1e-4, 2e-4])
    study.tune([Arm("more", choices={"mild": MILD, "warm": WARM})], rates=[1e-4, 2e-4])
    study.tuning.check_alike("file", ["plain", "sage", "later", "more"])


def test_one_rate_and_choices_are_tuned(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ChoiceRunner({"plain": 1e-4, "sage": 1e-4, "later": 1e-4})
    monkeypatch.setattr(study.store, "run", runner)
    study.tune([PLAIN, Arm("sage", choices={"mild": MILD, "warm": WARM})], rates=[1e-4])
    study.tune([Arm("later", schedule="none")], rates=[1e-4])
    assert study.tuning.rates("file") == (1e-4, 2e-4)
    study.tuning.check_alike("file", ["plain", "sage", "later"])


def test_fewer_tries_of_choices_are_refused(study: Study) -> None:
    for choice, rate in (("mild", 1e-4), ("warm", 1e-4), ("mild", 2e-4)):
        study.tuning.add(try_of("sage", rate, 0.1)._replace(choice=choice))
    for rate in (1e-4, 2e-4):
        study.tuning.add(try_of("plain", rate, 0.1))
    with pytest.raises(StudyError, match=r"unlike tries on a: 'sage' by 3 \(0.0001, 0.0002\), 'plain' by 2"):
        study.tuning.check_alike("a", ["plain", "sage"])
    study.tuning.add(try_of("plain", 4e-4, 0.1))
    study.tuning.check_alike("a", ["plain", "sage"])
    # as many again, but not under the same seeds
    study.tuning.add(try_of("plain", 4e-4, 0.1, seed=TUNING_SEED + 1))
    study.tuning.add(try_of("sage", 4e-4, 0.1)._replace(choice="warm"))
    with pytest.raises(StudyError, match="unlike tries"):
        study.tuning.check_alike("a", ["plain", "sage"])


def test_choices_are_planned_and_must_be_tuned(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    sage = Arm("sage", choices={"mild": MILD, "warm": WARM})
    with pytest.raises(StudyError, match=r"arm 'sage' has choices: hand it to Study\.tune, and run what that returns"):
        study.run([sage])
    with pytest.raises(StudyError, match="arm 'sage' sets learning_rate: leave it out"):
        study.tune([Arm("sage", choices={"mild": {"learning_rate": 1e-4}})])
    with pytest.raises(StudyError, match=r"arm 'sage': there is no setting 'temprature'\. Did you mean 'temperature'"):
        Arm("sage", choices={"mild": {"temprature": 1e-4}})
    study.plan(arms={"file": [PLAIN, sage]}, tuned=True)
    # four rates with two choices, and as many tries without: 8 under 2 seeds each, and 2 runs that are compared
    assert "36 runs: 0 found, 36 to make" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rates", "count", "expected"),
    [
        ([1e-4, 2e-4], 4, [5e-5, 1e-4, 2e-4, 4e-4]),
        ([1e-4, 2e-4], 3, [5e-5, 1e-4, 2e-4]),
        ([1e-4], 2, [1e-4, 2e-4]),
        ([1e-4], 1, [1e-4]),
        ([1e-4, 2e-4, 4e-4], 6, [2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4]),
    ],
)
def test_a_list_is_made_longer_at_both_ends(rates: list[float], count: int, expected: list[float]) -> None:
    assert widened(rates, count) == pytest.approx(expected)
