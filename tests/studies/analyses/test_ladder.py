from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from scipy import stats
from toyrun import toy_config

from sage_kit.components import DecoderSpec, TokenBatch
from sage_kit.components.loader import Origin
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.distill import run
from sage_kit.errors import StudyError, UnknownComponentError
from sage_kit.reports.lifted_round import lift_round
from sage_kit.reports.reader import fit_reader
from sage_kit.studies.analyses.ladder import (
    MIDDLE,
    RUNGS,
    examples_table,
    over_rung,
    read_ladder,
    rungs,
)
from sage_kit.studies.runs import ArmRun

CHOICES = {"inverter": "knn", "synthetic_ratio": 0.3, "rounds": 2}


def arm_run(folder, teacher, **settings):
    config = toy_config(folder, teacher, **{**CHOICES, **settings})
    directory, summary = run(config, Plugins(allow=""))
    return ArmRun(settings.get("lift", "shift"), "file", config.seed, directory, config, summary, False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("ladder")
    return {lift: arm_run(folder, tiny_bert, lift=lift) for lift in ("shift", "replace")}


@pytest.fixture
def plugins():
    return Plugins(allow="")


def moves(found, states):
    """What was added to the anchors' real tokens, flat, and the example of each."""
    mask = found.real.mask
    owners = torch.arange(len(mask))[:, None].expand_as(mask)[mask]
    return (states.states - found.real.states)[mask].numpy(), owners.numpy()


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("lift", ["shift", "replace"])
def test_the_rungs_go_as_far_in_other_directions(runs, plugins, lift):
    found = lift_round(runs[lift].directory, plugins, limit=9)
    states = rungs(found, seed=3)
    assert tuple(states) == RUNGS
    for batch in states.values():
        assert torch.equal(batch.mask, found.real.mask)
        assert (batch.states[~batch.mask] == 0).all()
    assert torch.equal(states["real"].states, found.real.states)
    assert torch.equal(states["synthetic"].states, found.lifted.states)
    own, owners = moves(found, states["synthetic"])
    lengths = np.linalg.norm(own, axis=1)
    for name in ("shuffled", "noise"):
        there, _ = moves(found, states[name])
        np.testing.assert_allclose(np.linalg.norm(there, axis=1), lengths, atol=1e-5)
        moved = lengths > 0
        assert np.abs(cosine(there[moved], own[moved])).mean() < 0.6
    there, _ = moves(found, states["noise"])
    together = [np.ptp(values[owners == row], axis=0).max() < 1e-5 for row in range(9) for values in (own, there)]
    assert all(together) if lift == "shift" else not any(together)
    real = found.real.states[found.real.mask].norm(dim=1)
    torch.testing.assert_close(states["no text"].states[found.real.mask].norm(dim=1), real)
    again, other = rungs(found, seed=3), rungs(found, seed=4)
    assert torch.equal(again["noise"].states, states["noise"].states)
    assert not torch.equal(other["noise"].states, states["noise"].states)


def test_shuffled_takes_the_next_examples_direction(runs, plugins):
    found = lift_round(runs["shift"].directory, plugins, limit=4)
    shuffled, owners = moves(found, rungs(found, 0)["shuffled"])
    own, _ = moves(found, found.lifted)
    first = [np.flatnonzero(owners == row)[0] for row in range(4)]
    np.testing.assert_allclose(cosine(shuffled[first], own[np.roll(first, -1)]), 1, atol=1e-5)


def test_a_ladder(runs, plugins):
    ladder = read_ladder(
        lift_round(runs["replace"].directory, plugins, limit=6), plugins, ["nearest_token", "mlm_head"]
    )
    assert list(ladder.left_out) == ["mlm_head"]
    assert "has no masked-language-model head" in ladder.left_out["mlm_head"]
    table = ladder.examples
    assert len(table) == 5 * 6
    assert table["rung"].unique().tolist() == list(RUNGS)
    by = {rung: rows.reset_index(drop=True) for rung, rows in table.groupby("rung")}
    # real text is found to the last token, and is itself again when it is tokenised
    real = by["real"]
    assert (real[["found", "kept", "label_stays"]] == 1).all().all()
    assert (real["changed"] == 0).all()
    assert real["decoded"].tolist() == real["text"].tolist()
    np.testing.assert_allclose(real[["confidence", "cosine"]], 1, atol=1e-5)
    # tokens were replaced, and are read
    synthetic = by["synthetic"]
    assert (synthetic["found"] < 1).all()
    np.testing.assert_allclose(synthetic["changed"], 1 - synthetic["found"])
    assert by["no text"]["confidence"].max() < by["noise"]["confidence"].min() < 0.99
    # the teacher's labels are those that the student was trained with
    found = lift_round(runs["replace"].directory, plugins, limit=6)
    labels = found.prepared.data.spec.labels
    expected = [labels[index] for index in found.synthetic.logits[found.rows].argmax(1)]
    assert synthetic["label_states"].tolist() == expected
    of_anchors = found.prepared.train.outputs.logits[found.anchors].argmax(1)
    assert synthetic["label_anchor"].tolist() == [labels[index] for index in of_anchors]
    assert (synthetic["label_stays"] == (synthetic["label_anchor"] == synthetic["label_states"])).all()
    assert (synthetic["kept"] == (synthetic["label_decoded"] == synthetic["label_states"])).all()


def test_texts_in_pairs_are_read_in_pairs(tmp_path, tiny_bert, plugins):
    for name, count in (("train", 120), ("validation", 40)):
        rows = tiny.toy_task_rows(count, seed=len(name))
        pairs = [{**row, "other": rows[-1 - index]["text"]} for index, row in enumerate(rows)]
        tiny.write_jsonl(tmp_path / f"{name}.jsonl", pairs)
    one = arm_run(tmp_path, tiny_bert, text_pair_column="other", max_length=48)
    found = lift_round(one.directory, plugins, limit=5)
    table = read_ladder(found, plugins, ["nearest_token"]).examples
    real = table[table["rung"] == "real"]
    assert all(text.count(" | ") == 1 for text in real["decoded"])
    assert (real["found"] == 1).all()
    # only a pair that is tokenised as one gives the teacher what it saw before
    assert (real["kept"] == 1).all()
    first = found.prepared.data.train.texts[found.anchors[0]].lower()
    assert (
        real["decoded"].iloc[0].split(" | ")[0].split()
        == " ".join(found.prepared.teacher.tokenizer.tokenize(first)).split()
    )


class Words:
    def __init__(self, options, context):
        pass

    def fit(self, teacher):
        return self

    def decode(self, batch: TokenBatch) -> list[str]:
        return ["the movie"] * len(batch.states)


def test_a_decoder_without_guesses_is_measured_by_words(runs, plugins):
    spec = DecoderSpec(name="words", summary="Words", factory=Words)
    plugins._components["decoder", "words"] = Registered(spec, Origin("words", "words.py", ""))
    table = read_ladder(lift_round(runs["shift"].directory, plugins, limit=3), plugins, ["words"]).examples
    assert table[["confidence", "margin"]].isna().all().all()
    assert (table["decoded"] == "the movie").all()
    assert (table["changed"] == 0).all()
    assert ((table["found"] >= 0) & (table["found"] < 1)).all()
    with pytest.raises(StudyError, match="no decoder gives 'confidence'"):
        over_rung(table.assign(task="t", lift="shift", seed=0), "confidence", "noise")


def test_guesses_alone_are_those_that_come_with_the_text(runs, plugins):
    found = lift_round(runs["shift"].directory, plugins, limit=3)
    reader = fit_reader(plugins, "nearest_token", {}, found)
    for both, alone in zip(reader.read(found.real), reader.read(found.real, only_guesses=True), strict=True):
        assert both.text
        assert not alone.text
        for name in ("ids", "scores", "margins"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(both, name))


def test_what_cannot_be_laddered(runs, plugins):
    found = lift_round(runs["shift"].directory, plugins, limit=3)
    short = TokenBatch(found.lifted.states[:, :1], found.lifted.mask[:, :1])
    with pytest.raises(StudyError, match="lift 'shift' changes the number of tokens"):
        rungs(dataclasses.replace(found, lifted=short), 0)
    with pytest.raises(StudyError, match="two synthetic examples at least"):
        rungs(lift_round(runs["shift"].directory, plugins, limit=1), 0)
    with pytest.raises(UnknownComponentError, match="Did you mean 'probe'"):
        read_ladder(found, plugins, ["prob"])


# ---- tables


def made_up(seeds=4):
    rng = np.random.default_rng(1)
    rest = {"label_anchor": "a", "label_states": "b", "label_decoded": "b"}
    rest |= dict.fromkeys(("found", "changed", "margin", "cosine", "kept", "label_stays"), 1.0)
    levels = {"real": 1.0, "synthetic": 0.8, "noise": 0.5}
    keys = itertools.product(("t", "u"), range(seeds), levels, range(6))
    rows = [
        {"task": task, "lift": "shift", "decoder": "d", "seed": seed, "rung": rung, "row": row, "text": f"text {row}",
         "decoded": f"{rung} {row}", "confidence": levels[rung] + rng.standard_normal() / 10, **rest}
        for task, seed, rung, row in keys
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_rungs_are_compared_by_the_seeds_means():
    table = made_up()
    found = over_rung(table, "confidence", "noise")
    (row,) = found[(found["task"] == "t") & (found["arm"] == "synthetic")].to_dict("records")
    assert (row["lift"], row["decoder"], row["measure"]) == ("shift", "d", "confidence")
    own = table[table["task"] == "t"].groupby(["rung", "seed"])["confidence"].mean()
    differences = own["synthetic"] - own["noise"]
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(interval))
    assert set(found["task"]) == {"t", "u", "average"}
    real = own["real"].mean() - own["noise"].mean()
    assert row["of_real"] == pytest.approx(differences.mean() / real)
    middle = over_rung(table, "confidence", MIDDLE)
    assert "middle" not in set(middle["arm"])
    (row,) = middle[(middle["task"] == "t") & (middle["arm"] == "synthetic")].to_dict("records")
    halfway = own["synthetic"] - (own["real"] + own["noise"]) / 2
    assert row["difference"] == pytest.approx(halfway.mean())
    assert row["low"] == pytest.approx(stats.ttest_1samp(halfway, 0).confidence_interval().low)
    # shares that are the same under every seed are known to the step in which six examples count, and no better
    (row,) = over_rung(table, "kept", "noise").query("task == 't' and arm == 'synthetic'").to_dict("records")
    assert row["difference"] == 0
    assert row["high"] == pytest.approx(-row["low"])
    assert row["high"] == pytest.approx(stats.t.ppf(0.975, 3) / 6 / 2 / np.sqrt(4))
    with pytest.raises(StudyError, match="there is no measure 'sureness'"):
        over_rung(table, "sureness", "noise")


def test_examples_to_be_read():
    table = examples_table(made_up(), "d", 3)
    assert len(table) == 6
    assert table["task"].tolist() == ["t"] * 3 + ["u"] * 3
    assert table["synthetic, decoded"].iloc[0] == "synthetic 0"
    assert table["noise, decoded"].iloc[0] == "noise 0"
    assert json.loads(table.to_json(orient="records"))[0]["on synthetic states"] == "b"
