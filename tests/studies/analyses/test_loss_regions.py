"""Hard sets, regions of high loss, how they move, and the loss where synthesis aimed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.errors import StudyError
from sage_kit.rundir.loss_profiles import write_loss_profile
from sage_kit.studies.analyses.loss_regions import (
    Maps,
    RegionOptions,
    aimed_at,
    alike,
    cluster,
    dev_losses,
    figure_of_regions,
    hard_set,
    high_regions,
    improvement,
    long_form,
    make_maps,
    movement,
    neighbor_rows,
    profiles,
    spatial,
    targeted,
)
from sage_kit.studies.arms import Arm
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.studies.statistics import compare_arms, morans_i
from sage_kit.studies.study import Study


def test_the_hard_set_is_that_of_the_highest_losses() -> None:
    losses = np.array([0.1, 5.0, np.nan, 3.0, 4.0, 0.2, 3.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(hard_set(losses, 0.3), [1, 3, 4])
    np.testing.assert_array_equal(hard_set(losses, 0.01), [1])


def test_regions_are_the_clusters_of_the_highest_mean() -> None:
    clusters = np.repeat([0, 1, 2, 3], 5)
    losses = np.repeat([1.0, 9.0, 2.0, 8.0], 5)
    losses[5] = 0.0  # the mean counts, not the lowest
    losses[0] = np.nan
    found = high_regions(losses, clusters, 0.5)
    np.testing.assert_array_equal(found, np.repeat([-1, 1, -1, 3], 5))
    assert set(high_regions(losses, clusters, 0.01)) == {-1, 3}


def test_clusters_are_those_of_the_places() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    points = np.concatenate([centre + rng.normal(size=(20, 2)) for centre in centres])
    found = cluster(points, 3, seed=1)
    assert alike(found, np.repeat([0, 1, 2], 20)) == {"ari": 1.0, "ami": pytest.approx(1.0)}
    np.testing.assert_array_equal(found, cluster(points, 3, seed=1))


def test_unrelated_partitions_are_alike_by_nothing() -> None:
    rng = np.random.default_rng(0)
    scores = [alike(rng.integers(0, 4, 400), rng.integers(0, 4, 400)) for _ in range(20)]
    assert abs(np.mean([one["ari"] for one in scores])) < 0.01
    assert abs(np.mean([one["ami"] for one in scores])) < 0.01


def test_neighbours_are_the_nearest_others() -> None:
    points = np.array([[0.0], [1.0], [1.5], [5.0]])
    np.testing.assert_array_equal(neighbor_rows(points, 1)[:, 0], [1, 2, 1, 2])
    assert neighbor_rows(points, 9).shape == (4, 3)
    twins = np.zeros((5, 2))
    assert not (neighbor_rows(twins, 2) == np.arange(5)[:, None]).any()


def fake_run(folder: Path, arm: str, seed: int, losses: list[Any]) -> ArmRun:
    """A run that has nothing but loss profiles."""
    path = folder / f"{arm}-{seed}"
    for number, values in enumerate(losses, start=1):
        write_loss_profile(path, number, np.asarray(values, np.float32))
    return ArmRun(arm, "toy", seed, cast(Any, SimpleNamespace(path=path)), cast(Any, None), {}, False)


def test_a_round_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second, third = rng.random((3, 100))
    third[:50] = second[:50]
    assert list(profiles(fake_run(tmp_path, "a", 0, [first, second, third]))) == [1, 2]
    unseen = first.copy()
    unseen[:20] = np.nan
    assert list(profiles(fake_run(tmp_path, "b", 0, [unseen, unseen]))) == []


def grid_map() -> Maps:
    """Four places of 50 examples each, and another map that mixes their halves."""
    rng = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [9, 0], [0, 9], [9, 9]], 50, axis=0) + rng.normal(size=(200, 2)) * 0.1
    places = np.repeat(np.arange(4), 50)
    return Maps([centres.astype(np.float32)] * 2, [places, np.roll(places, 25)])


OPTIONS = RegionOptions(clusters=4, region_share=0.25, permutations=99)


def high_at(place: int, seed: int) -> Any:
    """Losses that are high in one of the four places."""
    rng = np.random.default_rng(seed)
    return rng.random(200) + 5 * (np.repeat(np.arange(4), 50) == place)


@pytest.mark.parametrize("moves", [False, True])
def test_movement_tells_regions_that_move_from_those_that_stay(tmp_path: Path, moves: bool) -> None:
    runs = Runs(
        [fake_run(tmp_path, "adaptive", seed, [high_at(0, seed), high_at(int(moves), seed + 9)]) for seed in (0, 1, 2)]
    )
    table = movement(runs, {"toy": grid_map()}, OPTIONS)
    mean = table.groupby("between")["ari"].mean()
    assert mean["students"] == 1.0  # every student has the same places
    assert mean["rounds"] < 0 if moves else mean["rounds"] == 1.0
    # the other map's region shares half of its examples with the first one's
    shared = alike(np.repeat([1, 0, 0, 0], 50), np.roll(np.repeat([1, 0, 0, 0], 50), 25))["ari"]
    assert mean["maps"] == pytest.approx(shared)
    hard = table[table["between"] == "rounds"]["jaccard"]
    assert (hard == 0).all() if moves else (hard > 0.05).all()
    assert table["jaccard_by_chance"].dropna().between(0.05, 0.06).all()
    alone = table.assign(arm=table["between"]).groupby(["task", "arm", "seed"], sort=False)["ari"].mean().reset_index()
    (row,) = compare_arms(alone, "rounds", value="ari").query("arm == 'maps'").to_dict("records")
    assert (row["difference"] > 0) is moves


def test_one_round_is_too_few(tmp_path: Path) -> None:
    runs = Runs([fake_run(tmp_path, "adaptive", 0, [high_at(0, 0)])])
    with pytest.raises(StudyError, match="raise rounds"):
        movement(runs, {"toy": grid_map()}, OPTIONS)


def test_place_matters_where_the_loss_has_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    runs = Runs([fake_run(tmp_path, "adaptive", 0, [high_at(2, 0), rng.random(200)])])
    table = spatial(runs, {"toy": grid_map()}, {"toy": rng.normal(size=(200, 30)).astype(np.float32)}, OPTIONS)
    found = table.set_index(["round", "space"])
    assert found.loc[(1, "map"), "excess"] > 0.8
    assert found.loc[(1, "map"), "p"] == 0.01
    assert abs(found.loc[(1, "full"), "excess"]) < 0.15  # the vectors know nothing of the places
    assert abs(found.loc[(2, "map"), "excess"]) < 0.15


def test_examples_without_a_loss_take_no_part_in_morans_i(tmp_path: Path) -> None:
    losses = high_at(2, 0)
    missing = np.zeros(200, bool)
    missing[100:115] = True  # where the losses are high, so that a mean in their place would hide it
    losses[missing] = np.nan
    vectors = np.random.default_rng(3).normal(size=(200, 30)).astype(np.float32)
    found = spatial(Runs([fake_run(tmp_path, "a", 0, [losses])]), {"toy": grid_map()}, {"toy": vectors}, OPTIONS)
    known = neighbor_rows(grid_map().coordinates[0][~missing], OPTIONS.neighbors)
    alone = morans_i(losses[~missing].astype(np.float32), known, permutations=OPTIONS.permutations)
    assert found.set_index("space").loc["map", "morans_i"] == pytest.approx(alone.value, rel=1e-6)


def test_targeted_examples_are_those_near_anchors() -> None:
    train = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    dev = np.array([[5.05], [0.05], [5.2], [-1.0]], np.float32)
    chosen = targeted(np.array([0, 1, 7, 9]), train, dev, share=0.5, k=2)
    np.testing.assert_array_equal(chosen, [True, False, True, False])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Study:
    folder = tmp_path_factory.mktemp("regions")
    settings = toy_settings(folder, tiny_bert, rounds=2, observers=["loss_profile"])
    rest = {name: value for name, value in settings.items() if name not in ("cache_dir", "runs_dir", "task")}
    return Study(
        "toy", title="Toy", question="?", profile="smoke", task="file", seeds=2, runs_dir=str(folder / "runs"),
        results_dir=str(folder / "results"), cache_dir=settings["cache_dir"],
        base={**ALL_ROWS, **rest},
    )  # fmt: skip


def test_real_runs_have_all_that_is_asked_of_them(study: Study) -> None:
    arms = [Arm("plain", schedule="none"), Arm("adaptive", schedule="adaptive")]
    runs = study.run(arms, keep=["synthetic"])
    options = RegionOptions(clusters=6, permutations=49)
    with pytest.raises(StudyError, match="maps is 1"):
        make_maps(study, "file", 1, options)
    with pytest.raises(StudyError, match="clusters is 1"):
        make_maps(study, "file", 2, RegionOptions(clusters=1))
    maps = {"file": make_maps(study, "file", 2, options)}
    assert len(maps["file"].coordinates) == 2
    kinds = set(movement(runs, maps, options)["between"])
    assert kinds == {"rounds", "students", "maps"}
    vectors = {"file": study.vectors("file")}
    train, dev = vectors["file"]
    assert spatial(runs, maps, {"file": train}, options)["morans_i"].notna().all()

    run = runs.of(arm="adaptive")[0]
    counts = aimed_at(run)
    assert len(counts) == len(train)
    assert counts.sum() == sum(one["synthetic"] for one in run.summary["rounds"])
    outputs = run.predictions["dev"]
    t = run.config.temperature
    p, q = (np.exp(x / t) / np.exp(x / t).sum(1, keepdims=True) for x in (outputs["teacher"], outputs["student"]))
    np.testing.assert_allclose(dev_losses(run), t * t * (p * np.log(p / q)).sum(1), rtol=1e-3, atol=1e-6)

    gains = improvement(runs, "adaptive", "plain", vectors)
    assert list(gains["seed"]) == [0, 1]
    inside = targeted(counts, train, dev, share=0.25, k=5)
    plain = runs.of(arm="plain")[0]
    change = np.log(dev_losses(run)[inside].mean() / dev_losses(plain)[inside].mean())
    change -= np.log(dev_losses(run)[~inside].mean() / dev_losses(plain)[~inside].mean())
    assert gains["difference"].iloc[0] == pytest.approx(change, rel=1e-4)
    assert len(long_form([gains.assign(arm="x", value=1.0)] * 2, "value")) == 4
    assert len(figure_of_regions(run, maps["file"], options).axes) == len(profiles(run)) + 1
