from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.errors import StudyError
from sage_kit.reports.lifted_round import lift_round
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.studies.analyses import tour
from sage_kit.studies.runs import ArmRun
from sage_kit.synthesis.synthetic_set import SyntheticSet

STEPS = 19  # 270 examples of which 9 batches make a round, and 41 synthetic ones


def arm_run(folder, teacher, **settings):
    settings = {"observers": ["loss_profile"], "max_steps": STEPS, **settings}
    config = toy_config(folder, teacher, **settings)
    directory, summary = run(config, Plugins(allow=""))
    return ArmRun("arm", "file", config.seed, directory, config, summary, False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("tour")
    return {
        "half": arm_run(folder, tiny_bert, **tour.half_of_the_hard()),
        "plain": arm_run(folder, tiny_bert, schedule="none", losses_from="pass"),
        "other": arm_run(folder, tiny_bert, schedule="none", losses_from="pass", seed=1),
    }


@pytest.fixture(scope="module")
def found(runs):
    return lift_round(runs["half"].directory, Plugins(allow=""), limit=10)


def test_half_of_the_hard_become_anchors(runs):
    directory = runs["half"].directory
    _, losses = read_loss_profiles(directory.path)
    anchors = SyntheticSet.load(directory.synthetic(2)).anchors
    assert len(np.unique(anchors)) == len(anchors)
    order = np.argsort(-losses[0])
    hard = order[:81]  # 30 % of 270
    assert len(anchors) == 40
    assert np.isin(anchors, hard).all()
    # chance says which, so the hardest of them are not taken first
    ranks = np.flatnonzero(np.isin(hard, anchors))
    assert 30 < ranks.mean() < 50


def test_falls_by_group(runs):
    table = tour.loss_falls(runs["half"], runs["plain"]).set_index("group")
    assert list(table.index) == list(tour.GROUPS)
    assert table["examples"].tolist() == [40, 41, 189]
    (_, ours), (_, plain) = (read_loss_profiles(runs[name].directory.path) for name in ("half", "plain"))
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-4)
    anchors = np.unique(SyntheticSet.load(runs["half"].directory.synthetic(2)).anchors)
    row = table.loc["anchors"]
    assert row["before"] == pytest.approx(ours[0][anchors].mean())
    assert row["fall"] == pytest.approx(ours[0][anchors].mean() - ours[-1][anchors].mean(), abs=1e-6)
    assert row["fall_plain"] == pytest.approx(plain[0][anchors].mean() - plain[-1][anchors].mean(), abs=1e-6)
    assert row["beyond_plain"] == pytest.approx(row["fall"] - row["fall_plain"])
    total = (table["after"] * table["examples"]).sum() / 270
    assert total == pytest.approx(ours[-1].mean(), rel=1e-5)
    assert table.loc["easy", "before"] < table.loc["other hard", "before"]


def test_runs_that_differ_in_round_one_are_refused(runs):
    with pytest.raises(StudyError, match="differ in round one already"):
        tour.loss_falls(runs["half"], runs["other"])


def test_the_upper_says_what_the_whole_teacher_says(found):
    table = tour.bypass_table(found.prepared, 3)
    length = int(found.prepared.train.store.lengths[3])
    dim = found.prepared.input_layers.dim
    assert table["shape"].tolist() == [f"({length},)", f"({length}, {dim})", f"({dim},)", "(2,)", "(2,)", ""]
    assert float(table["note"].iloc[-1].split(": ")[1]) < 1e-5
    whole = sum(parameter.numel() for parameter in found.prepared.teacher.model.parameters())
    # what a classifier does not use of the model stands in no row
    assert 0 <= whole - table["parameters"].iloc[1] - table["parameters"].iloc[3] < 5000


def test_texts_and_predictions(found, runs):
    texts = tour.texts_table(found.prepared, [0, 5])
    train = found.prepared.data.train
    assert texts["text"].tolist() == [train.texts[0], train.texts[5]]
    label = found.prepared.data.spec.labels[int(train.labels[5])]
    assert texts["label"].iloc[1] == label
    dev = found.prepared.data.dev
    table = tour.predictions_table(runs["half"], dev.texts, found.prepared.data.spec, [2])
    logits = torch.from_numpy(runs["half"].predictions["dev"]["student"][2])
    share = float(logits.softmax(0).max())
    name = found.prepared.data.spec.labels[int(logits.argmax())]
    assert table["student"].iloc[0] == f"{name} ({share:.2f})"


def test_pictures(found, runs, tmp_path):
    directory = runs["half"].directory
    coordinates = load_file(directory.map)["coordinates"]
    _, losses = read_loss_profiles(directory.path)
    synthetic = found.synthetic
    figures = [
        tour.draw_loss_map(coordinates, losses[0], "map"),
        tour.draw_neighborhood(coordinates, losses[0], synthetic, int(synthetic.anchors[0]), "one"),
        tour.draw_states(found, 0),
        tour.draw_moves(np.array([0.1, np.nan, 0.4]), np.array([0.9, 0.8, 1.0])),
        tour.draw_labels(
            found.prepared.train.outputs.logits[synthetic.anchors], synthetic.logits, found.prepared.data.spec
        ),
    ]
    for figure in figures:
        figure.savefig(tmp_path / "figure.png", dpi=30)
    names = [text.get_text() for text in figures[2].axes[0].get_yticklabels()]
    assert names[0] == "[CLS]"
    assert names[-2:] == ["[SEP]", "mean"]
    offsets = figures[0].axes[0].collections[0]
    assert len(offsets.get_offsets()) == len(coordinates)
    assert offsets.get_array().argmax() == len(coordinates) - 1  # the hardest is drawn last
    made = SyntheticSet(2, synthetic.anchors, synthetic.vectors)
    with pytest.raises(StudyError, match="made without a map"):
        tour.draw_neighborhood(coordinates, losses[0], made, 0, "one")
