from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toyrun import toy_config

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.errors import StudyError
from sage_kit.reports.lifted_round import lift_round
from sage_kit.studies.analyses.label_flips import ANCHORS, count_flips, flips_of, flips_over
from sage_kit.studies.runs import ArmRun
from sage_kit.synthesis.synthetic_set import SyntheticSet

CLASSES = TaskSpec(name="t", summary="", text_columns=("text",), labels=("a", "b"))
NUMBERS = TaskSpec(name="n", summary="", text_columns=("text",), label_range=(0.0, 5.0), metrics=("pearson",))


def test_flips_of_classes_and_of_numbers():
    found = flips_of(np.array([[1, 0], [0, 1], [0, 1], [2, 1]]), np.array([[1, 0], [1, 0], [0, 3], [0, 1]]), CLASSES)
    assert (found.examples, found.flips) == (4, 0.5)
    assert np.isnan(found.change)
    # a twentieth of the range of 5 is 0.25
    found = flips_of(np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([[1.2], [2.3], [2.0], [4.0]]), NUMBERS)
    assert found.flips == 0.5
    assert found.change == pytest.approx((0.2 + 0.3 + 1.0) / 4)


def test_all_examples_of_all_rounds_count_but_those_that_a_filter_dropped(tmp_path, tiny_bert):
    settings = {"lift": "replace_random", "synthetic_ratio": 0.4, "rounds": 3}
    config = toy_config(tmp_path, tiny_bert, **settings)
    directory, summary = run(config, Plugins(allow=""))
    one = ArmRun("random", "file", config.seed, directory, config, summary, False)
    path = directory.synthetic(2)
    synthetic = SyntheticSet.load(path)
    synthetic.kept[::3] = False
    synthetic.save(path)
    prepared = lift_round(directory, Plugins(allow=""), limit=2).prepared
    flipped = []
    for round in (2, 3):
        there = SyntheticSet.load(directory.synthetic(round))
        for anchor, logits, kept in zip(there.anchors, there.logits, there.kept, strict=True):
            if kept:
                flipped.append(logits.argmax() != prepared.train.outputs.logits[anchor].argmax())
    found = count_flips(one, prepared)
    assert found.examples == len(flipped)
    assert found.flips == pytest.approx(np.mean(flipped))
    assert 0 < found.flips < 0.6
    for round in (2, 3):
        directory.synthetic(round).unlink()
    with pytest.raises(StudyError, match="arm 'random' has kept no synthetic examples"):
        count_flips(dataclasses.replace(one), prepared)


def made_up():
    rng = np.random.default_rng(2)
    rows = [
        {"task": task, "lift": lift, "seed": seed, "examples": 50, "flips": share + rng.integers(0, 5) / 50,
         "change": share * 3 + rng.random() if task == "n" else np.nan}
        for task in ("t", "n") for lift, share in (("shift", 0.02), ("replace", 0.3)) for seed in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_shares_of_flips_have_intervals_over_seeds():
    table = made_up()
    found = flips_over(table, ANCHORS)
    assert set(found["arm"]) == {"shift", "replace"}
    own = table[(table["task"] == "t") & (table["lift"] == "replace")]["flips"]
    (row,) = found[(found["task"] == "t") & (found["arm"] == "replace")].to_dict("records")
    assert row["difference"] == pytest.approx(own.mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(stats.ttest_1samp(own, 0).confidence_interval()))
    average = table[table["lift"] == "replace"]["flips"].mean()
    (row,) = found[(found["task"] == "average") & (found["arm"] == "replace")].to_dict("records")
    assert row["difference"] == pytest.approx(average)
    beside = flips_over(table, "shift")
    assert set(beside["arm"]) == {"replace"}
    shift = table[(table["task"] == "t") & (table["lift"] == "shift")]["flips"]
    (row,) = beside[beside["task"] == "t"].to_dict("records")
    assert row["difference"] == pytest.approx(own.mean() - shift.mean())
    # none in 50 under each seed is known to one in 50 and no better
    none = table.assign(flips=0.0)
    (row,) = flips_over(none, ANCHORS).query("task == 't' and arm == 'shift'").to_dict("records")
    assert row["difference"] == 0
    assert row["high"] == pytest.approx(stats.t.ppf(0.975, 4) / 50 / 2 / np.sqrt(5))
