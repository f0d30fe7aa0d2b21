"""Coherence of synthetic vectors, the filter that keeps a half, and the shares that filters let through."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.components import BuildContext, FilterRequest
from sage_kit.components.plugins import Plugins
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.coherence import (
    HALVINGS,
    LIMITS,
    MOST_RATIO,
    FilterSetting,
    cosines,
    figure_of_cosines,
    filter_arms,
    filter_settings,
    half_arms,
    half_name,
    nearest_cosine,
    trained_on,
)
from sage_kit.studies.analyses.run_data import synthetic_sets
from sage_kit.studies.arms import Arm
from sage_kit.studies.runs import Runs
from sage_kit.studies.study import Study
from sage_kit.testing import check_component

PLUGIN = Path(__file__).parents[3] / "notebooks" / "plugins" / "half_filter.py"


def random_vectors(rows: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)


def test_nearest_cosine_is_that_of_the_nearest_direction() -> None:
    vectors, real = random_vectors(5000), random_vectors(40, seed=1)
    found = nearest_cosine(vectors, real)
    products = vectors @ real.T / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(real, axis=1)
    np.testing.assert_allclose(found, products.max(axis=1), atol=1e-5)
    itself = nearest_cosine(real, real)
    np.testing.assert_allclose(itself, 1, atol=1e-6)
    others = nearest_cosine(real, real, skip=np.arange(40))
    assert others.max() < 0.999
    assert nearest_cosine(np.zeros((1, 6), np.float32), real)[0] == 0


def judge(plugins: Plugins, **options: Any) -> Any:
    from sage_kit.config import load_config

    return plugins.build("filter", "half", options, BuildContext(config=load_config({}), seed=3))


def request(vectors: Any, real: Any) -> FilterRequest:
    return FilterRequest(
        vectors=vectors, anchors=np.zeros(len(vectors), np.int64), coordinates=None, real_vectors=real,
        real_logits=np.zeros((len(real), 2), np.float32),
    )  # fmt: skip


def test_halves_are_equally_large_and_of_the_right_side() -> None:
    plugins = Plugins([PLUGIN], allow="")
    asked = request(random_vectors(101), random_vectors(30, seed=1))
    cosine = nearest_cosine(asked.vectors, asked.real_vectors)
    kept = {which: judge(plugins, which=which).keep(asked) for which in ("top", "bottom", "random")}
    assert {which: int(keep.sum()) for which, keep in kept.items()} == {"top": 50, "bottom": 50, "random": 50}
    assert cosine[kept["top"]].min() >= cosine[~kept["top"]].max()
    assert cosine[kept["bottom"]].max() <= cosine[~kept["bottom"]].min()
    assert not np.array_equal(kept["random"], kept["top"])
    np.testing.assert_array_equal(judge(plugins, which="random").keep(asked), kept["random"])
    other = judge(plugins, which="random").keep(request(random_vectors(101, seed=2), asked.real_vectors))
    assert not np.array_equal(other, kept["random"])
    assert judge(plugins, share=0.2).keep(asked).sum() == 20
    assert judge(plugins).keep(request(random_vectors(0), asked.real_vectors)).shape == (0,)


def test_the_plugin_conforms() -> None:
    plugins = Plugins([PLUGIN], allow="")
    results = check_component(plugins.spec("filter", "half"), plugins=plugins)
    # a file for one notebook may import numpy, which is loaded there anyway
    assert [r.message for r in results if not r.passed and r.name != "light_discovery"] == []


def test_half_arms_make_twice_as_many() -> None:
    arms = half_arms(["anchored", "knn"], 0.5)
    assert [arm.name for arm in arms] == [
        "coherent half", "incoherent half", "random half", "coherent half, knn", "incoherent half, knn",
    ]  # fmt: skip
    assert {arm.settings["synthetic_ratio"] for arm in arms} == {1.0}
    assert [arm.settings["inverter"] for arm in arms] == ["anchored"] * 3 + ["knn"] * 2
    assert [arm.settings["filter_options"]["which"] for arm in arms] == ["top", "bottom", "random", "top", "bottom"]
    assert half_name("coherent", "knn", ["anchored", "knn"]) == "coherent half, knn"


def test_filter_arms_make_up_for_what_is_dropped() -> None:
    settings = [FilterSetting("density", {"quantile": 0.5}, 0.8), FilterSetting("cosine", {}, 0.01)]
    arms = filter_arms(settings, 1.0)
    assert [(arm.name, arm.settings["synthetic_ratio"]) for arm in arms] == [("density", 1.25), ("cosine", MOST_RATIO)]
    assert [arm.settings["filter_options"] for arm in arms] == [{"quantile": 0.5}, {}]
    assert [FilterSetting("cosine", {}, share).is_usable for share in (0.0, 0.3, 1.0)] == [False, True, False]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Study:
    folder = tmp_path_factory.mktemp("coherence")
    settings = toy_settings(folder, tiny_bert, rounds=2)
    names = ("cache_dir", "runs_dir", "task")
    rest = {name: value for name, value in settings.items() if name not in names}
    return Study(
        "toy", title="Toy", question="?", profile="smoke", task="file", seeds=1, plugin=str(PLUGIN),
        runs_dir=str(folder / "runs"), results_dir=str(folder / "results"), cache_dir=settings["cache_dir"],
        base={**ALL_ROWS, **rest},
    )  # fmt: skip


def test_limits_let_the_share_through(study: Study) -> None:
    run = study.run([Arm("none", schedule="adaptive")], keep=["synthetic"]).of()[0]
    with pytest.raises(StudyError, match=r"a share of 1.5 through.*between 0 and 1"):
        filter_settings(study, run, ["cosine"], 1.5)
    filters = ["cosine", "density", "teacher_confidence", "agreement_with_anchor", "half"]
    settings = {one.name: one for one in filter_settings(study, run, filters, 0.7)}
    assert settings["half"].share == pytest.approx(0.5, abs=0.01)  # it has no limit, and its own share
    assert settings["agreement_with_anchor"].options == {}
    (made,) = synthetic_sets(run)
    train, _ = study.vectors("file")
    odds = np.exp(made.logits - made.logits.max(axis=1, keepdims=True))
    scores = {"cosine": nearest_cosine(made.vectors, train), "teacher_confidence": 1 / odds.sum(axis=1)}
    asked = FilterRequest(
        vectors=made.vectors, anchors=made.anchors, coordinates=None, real_vectors=train,
        real_logits=np.zeros((len(train), 2), np.float32), logits=made.logits,
    )  # fmt: skip
    for name, score in scores.items():
        strictest = np.sort(score)[::-1][math.ceil(0.7 * len(score)) - 1]  # several may have the same
        limit, width = settings[name].options["minimum"], 2 * 2.0**-HALVINGS
        assert strictest - width < limit < strictest + 1e-6, name
        assert (score >= strictest).mean() <= settings[name].share <= (score >= strictest - width).mean(), name
    for name in ("cosine", "density", "teacher_confidence"):
        # how far above depends on how many have the same score; a limit that is one step stricter lets less through
        option, loose, strict = LIMITS[name]
        stricter = settings[name].options[option] + 1.5 * (strict - loose) * 2.0**-HALVINGS
        context = BuildContext(config=run.config, seed=run.config.reducer_seed)
        filtering = study.plugins.build("filter", name, {option: stricter}, context)
        assert filtering.keep(asked).mean() < 0.7 <= settings[name].share, name
        # the same synthetic examples: the first synthesis follows a round that no filter has touched
        arm = Arm(name, schedule="adaptive", filter=name, filter_options=dict(settings[name].options))
        (filtered,) = study.run([arm])
        (last,) = (one for one in filtered.summary["rounds"] if one["round"] == 2)
        assert last["synthetic"] / (last["synthetic"] + last["dropped"]) == pytest.approx(settings[name].share), name


def test_a_limit_is_looked_for_on_a_part_of_many(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study.run([Arm("none", schedule="adaptive")], keep=["synthetic"]).of()[0]
    (made,) = synthetic_sets(run)
    monkeypatch.setattr("sage_kit.studies.analyses.coherence.LOOKED_AT", len(made.anchors) // 3)
    (setting,) = filter_settings(study, run, ["cosine"], 0.7)
    train, _ = study.vectors("file")
    step = math.ceil(len(made.anchors) / (len(made.anchors) // 3))
    score = nearest_cosine(made.vectors, train)[::step]
    assert step > 1
    assert setting.share == (score >= setting.options["minimum"]).mean() >= 0.7


def test_cosines_are_those_of_the_run(study: Study) -> None:
    run = study.run([Arm("none", schedule="adaptive")], keep=["synthetic"]).of()[0]
    (made,) = synthetic_sets(run)
    train, dev = study.vectors("file")
    table = cosines(run, train, dev)
    counts = table.groupby("kind", sort=False).size().to_dict()
    assert counts == {
        "synthetic": len(made), "synthetic, anchor aside": len(made), "held out": len(dev), "train": len(train),
    }  # fmt: skip
    of = {kind: group["cosine"].to_numpy() for kind, group in table.groupby("kind")}
    assert (of["synthetic"] >= of["synthetic, anchor aside"]).all()
    assert len(figure_of_cosines(table, "toy").axes[0].lines) == 4


def test_what_was_trained_on_is_counted(study: Study) -> None:
    ratio = study.config("file").synthetic_ratio
    arms = [Arm("none", schedule="adaptive"), Arm("plain", schedule="none"), half_arms(["anchored"], ratio)[0]]
    table = trained_on(study.run(arms)).set_index("arm")
    assert set(table.index) == {"none", "coherent half"}
    assert table.loc["coherent half", "synthetic"] == table.loc["none", "synthetic"]
    assert table.loc["coherent half", "dropped"] == table.loc["none", "synthetic"]
    assert table.loc["coherent half", "share_kept"] == 0.5
    assert table.loc["none", "dropped"] == 0


def test_a_run_without_its_synthetic_examples_is_told(study: Study) -> None:
    runs: Runs = study.run([Arm("plain", schedule="none")])
    with pytest.raises(StudyError, match="kept no synthetic examples"):
        cosines(runs.of()[0], *study.vectors("file"))
