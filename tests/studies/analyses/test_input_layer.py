"""What an input layer costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.errors import StudyError
from sage_kit.models.checkpoints import load_classifier
from sage_kit.studies.analyses.input_layer import cost_table, depth_arms, saved, teacher_pass
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import Runs


def test_every_arm_is_equally_deep() -> None:
    arms = depth_arms(" embeddings, 1,2 ", 3)
    assert [arm.name for arm in arms] == ["embeddings", "1 block", "2 blocks"]
    assert [arm.settings["bypass"] for arm in arms] == ["embeddings", 1, 2]
    assert [arm.settings["student_layers"] for arm in arms] == [3, 2, 1]


@pytest.mark.parametrize("bypasses", ["3", "0", "none", "-1", "1.5"])
def test_a_cut_that_leaves_no_student_is_told(bypasses: str) -> None:
    with pytest.raises(StudyError, match="from 1 to 2, below student_layers"):
        depth_arms(bypasses, 3)
    with pytest.raises(StudyError, match="names no bypass"):
        depth_arms(" , ", 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Runs:
    folder = tmp_path_factory.mktemp("layers")
    store = RunStore(folder / "store", Plugins(allow=""))
    made = []
    arms: dict[str, dict[str, Any]] = {"shallow": {"bypass": "embeddings"}, "deep": {"bypass": 1, "student_layers": 1}}
    for name, settings in arms.items():
        for seed in (0, 1):
            config = toy_config(folder, tiny_bert, schedule="none", rounds=2, observers=[], seed=seed, **settings)
            made.append(store.run(name, config, announce=lambda text: None))
    return Runs(made)


def test_costs_are_those_of_the_whole_teacher_whatever_the_cut(runs: Runs) -> None:
    table = cost_table(runs, Plugins(allow=""))
    assert list(table["arm"]) == ["shallow", "shallow", "deep", "deep"]
    np.testing.assert_allclose(table["passes"], 2)
    assert table["parameters"].nunique() == 1
    assert table["trained_parameters"].nunique() == 2
    assert (table["total_flops"] - table["student_flops"] == table["teacher_flops_once"]).all()
    np.testing.assert_allclose(
        table["total_flops_uncached"] - table["total_flops"], table["teacher_flops_once"], rtol=1e-12
    )
    # input layers and upper layers together are the teacher, wherever they are split
    assert table["teacher_flops_once"].nunique() == 1
    deep = table[table["arm"] == "deep"]
    assert (deep["student_flops"] < table["student_flops"].iloc[0]).all()


def test_a_teacher_pass_counts_each_linear_layer(runs: Runs) -> None:
    config = runs.of(arm="shallow")[0].config
    found = teacher_pass(config, Plugins(allow=""))
    model = load_classifier(config.teacher).model.config
    d, f, blocks, tokens = model.hidden_size, model.intermediate_size, model.num_hidden_layers, found["tokens"]
    linear = 2 * tokens * (4 * d * d + 2 * d * f)
    # attention and the head come on top, the last block is computed for the first token alone
    assert (blocks - 1) * linear < found["flops"] < blocks * linear * 1.5


def test_savings_are_paired_by_task_and_seed() -> None:
    rows = [
        ("a", "own", 0, 100.0), ("a", "own", 1, 200.0), ("b", "own", 0, 10.0), ("b", "own", 1, 10.0),
        ("a", "bypass", 0, 90.0), ("a", "bypass", 1, 160.0), ("b", "bypass", 0, 5.0), ("b", "bypass", 1, 6.0),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "arm", "seed", "cost"])
    found = saved(table, "own", "cost").set_index("task")
    np.testing.assert_allclose(found["saved"], [0.15, 0.45, 0.3])
    # Student's interval of 0.1 and 0.2: 12.706 times 0.05 about 0.15
    np.testing.assert_allclose(found.loc["a", "high"], 0.15 + 12.7062 * 0.05, rtol=1e-4)
    assert (found["n_seeds"] == 2).all()
    # the tasks' errors are of one size, so that of their mean is theirs over sqrt(2), with two degrees of freedom
    np.testing.assert_allclose(found.loc["average", "high"], 0.3 + 4.30265 * 0.05 / np.sqrt(2), rtol=1e-4)


def test_counts_that_do_not_differ_have_an_interval() -> None:
    rows = [("a", arm, seed, cost) for arm, cost in (("own", 4.0), ("bypass", 3.0)) for seed in (0, 1)]
    found = saved(pd.DataFrame(rows, columns=["task", "arm", "seed", "cost"]), "own", "cost")
    assert (found["low"].iloc[0], found["high"].iloc[0]) == (0.25, 0.25)
    assert list(found["task"]) == ["a"]
