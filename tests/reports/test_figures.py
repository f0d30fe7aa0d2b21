"""Pictures of a run directory made by hand: what they say, and that something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sage_kit.components.records import Costs, RoundResult
from sage_kit.config import RunConfig
from sage_kit.errors import DiskFullError
from sage_kit.reports.figures import draw_run, learning_curves, synthesis_map
from sage_kit.rundir import Checkpoint, RunDirectory
from sage_kit.synthesis.synthetic_set import SyntheticSet

NAN = float("nan")
SPLITS = ("matched", "mismatched")
RNG = np.random.default_rng(0)


def result(round: int, **changes: Any) -> RoundResult:
    plain: dict[str, Any] = {
        "round": round, "steps": 10, "total_steps": 10 * round, "train_loss": 1 / round,
        "train_agreement": 1 - 0.3 / round, "synthetic_loss": NAN if round == 1 else 0.5,
        "synthetic": 0 if round == 1 else 40, "dropped": 0,
        "dev": {"accuracy": 0.5 + 0.1 * round, "agreement": 0.75},
        "validation": {split: {"accuracy": 0.4 + 0.1 * round, "agreement": 0.7} for split in SPLITS},
        "seconds": 1.0, "padding": 0.0,
    }  # fmt: skip
    return RoundResult(**{**plain, **changes})


SUMMARY = {
    "primary_metric": "accuracy",
    "rounds": [result(round).to_json() for round in (1, 2, 3)],
    "teacher": {"validation": {split: {"accuracy": 0.875} for split in SPLITS}},
}


def synthetic_set(n_components: int | None, round: int = 3) -> SyntheticSet:
    coordinates = None if n_components is None else RNG.normal(size=(40, n_components)).astype(np.float32)
    kept = np.ones(40, bool)
    kept[:4] = False
    anchors = np.repeat(np.arange(8), 5)
    vectors = RNG.normal(size=(40, 6)).astype(np.float32)
    return SyntheticSet(round, anchors, vectors, coordinates, dropped=3, kept=kept)


def make_run(tmp_path: Path, n_components: int | None = 2, *, finished: bool = True) -> RunDirectory:
    run = RunDirectory.create(RunConfig(run_dir=str(tmp_path / "run"), reducer="pca"))
    run.save_checkpoint(Checkpoint(2, "c", 20, 0, [result(1), result(2)], Costs()), keep=2)
    if finished:
        run.write_summary(SUMMARY)
    for round in (2, 3):
        synthetic_set(n_components, round).save(run.synthetic(round))
    if n_components is not None:
        save_file({"coordinates": RNG.normal(size=(60, n_components)).astype(np.float32)}, run.map)
    return run


def pixels(path: Path) -> NDArray[np.float32]:
    return np.asarray(image.imread(path))[..., :3]


def assert_drawn(path: Path, *colours: str) -> None:
    """The picture is a PNG, not blank, and has each of the colours on it."""
    assert path.read_bytes().startswith(b"\x89PNG")
    flat = pixels(path).reshape(-1, 3)
    assert len(flat) > 100_000
    assert (flat.min(1) < 0.5).sum() > 500
    for colour in colours:
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(flat - wanted).max(1) < 0.02).sum() > 20, colour


# ---- a run's pictures


@pytest.mark.parametrize("finished", [True, False])
def test_curves_and_map_of_a_run(tmp_path: Path, finished: bool) -> None:
    run = make_run(tmp_path, finished=finished)
    paths = draw_run(run)
    assert paths == [run.path / "figures" / "learning_curves.png", run.path / "figures" / "map.png"]
    assert_drawn(paths[0], "#c1441e", "#1f6fb4", "#777777")
    assert_drawn(paths[1], "#b8bec8", "#c1441e")
    assert draw_run(run) == paths  # again, over the old ones


@pytest.mark.parametrize("n_components", [1, 3])
def test_maps_of_one_and_of_three_dimensions(tmp_path: Path, n_components: int) -> None:
    paths = draw_run(make_run(tmp_path, n_components))
    assert [path.name for path in paths] == ["learning_curves.png", "map.png"]
    assert_drawn(paths[1], "#b8bec8", "#c1441e")


def test_a_run_without_a_finished_round_has_no_pictures(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(run_dir=str(tmp_path / "run")))
    assert draw_run(run) == []
    assert not (run.path / "figures").exists()


def test_a_run_without_a_map_has_curves(tmp_path: Path) -> None:
    assert [path.name for path in draw_run(make_run(tmp_path, None))] == ["learning_curves.png"]


def test_what_a_killed_process_left_is_not_drawn(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(run_dir=str(tmp_path / "run")))
    run.save_checkpoint(Checkpoint(1, "c", 10, 0, [result(1)], Costs()), keep=2)
    save_file({"coordinates": np.zeros((3, 2), np.float32)}, run.map)
    half = run.path / "rounds" / ".tmp-002-01234567" / "synthetic.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert [path.name for path in draw_run(run)] == ["learning_curves.png"]


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    run = make_run(tmp_path)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(DiskFullError, match=r"learning_curves\.png: free some space"):
        draw_run(run)


# ---- what the pictures say


def lines(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_curves_hold_the_numbers_of_the_history() -> None:
    history = [result(round) for round in (1, 2, 3)]
    left, middle, right = learning_curves(history, "accuracy", SUMMARY).axes
    steps = [10, 20, 30]
    assert lines(left)["real"] == (steps, [1.0, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(lines(left)["synthetic"][1], [NAN, 0.5, 0.5])
    assert left.get_ylim()[0] == 0
    assert lines(middle)["train"] == (steps, [1 - 0.3, 1 - 0.3 / 2, 1 - 0.3 / 3])
    assert lines(middle)["dev"] == (steps, [0.75] * 3)
    assert lines(middle)["matched"] == lines(middle)["mismatched"] == (steps, [0.7] * 3)
    assert lines(right)["dev"][1] == pytest.approx([0.6, 0.7, 0.8])
    assert lines(right)["matched"][1] == pytest.approx([0.5, 0.6, 0.7])
    assert lines(right)["teacher, mismatched"][1] == [0.875, 0.875]
    assert right.get_title() == "accuracy"


def test_two_validation_splits_can_be_told_apart() -> None:
    _, middle, right = learning_curves([result(1), result(2)], "accuracy", SUMMARY).axes
    for axes in (middle, right):
        styles = {line.get_label(): (line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}
        assert styles["matched"] != styles["mismatched"]


def test_curves_of_plain_distillation_and_of_an_unfinished_run() -> None:
    history = [result(round, synthetic=0, synthetic_loss=NAN) for round in (1, 2)]
    left, _, right = learning_curves(history, "accuracy").axes
    assert set(lines(left)) == {"real"}
    assert not [label for label in lines(right) if label.startswith("teacher")]


def test_curves_of_a_run_that_diverged(tmp_path: Path) -> None:
    teacher = {"validation": {split: {"accuracy": None} for split in SPLITS}}
    history = [result(1, train_loss=NAN, train_agreement=NAN)]
    learning_curves(history, "accuracy", {**SUMMARY, "teacher": teacher}).savefig(tmp_path / "x.png")
    assert_drawn(tmp_path / "x.png")


def offsets(axes: Any) -> list[NDArray[Any]]:
    return [np.asarray(points.get_offsets()) for points in axes.collections]


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_the_map_shows_real_examples_kept_points_and_their_anchors(n_components: int) -> None:
    coordinates = RNG.normal(size=(60, n_components)).astype(np.float32)
    synthetic = synthetic_set(n_components)
    assert synthetic.coordinates is not None
    (axes,) = synthesis_map(coordinates, synthetic, "pca map, round 3").axes
    real, points, anchors = offsets(axes)
    width = min(2, n_components)
    np.testing.assert_array_equal(real[:, :width], coordinates[:, :2])
    np.testing.assert_array_equal(points[:, :width], synthetic.coordinates[4:, :2])
    np.testing.assert_array_equal(anchors[:, :width], coordinates[:8, :2])
    if n_components == 1:
        assert not real[:, 1].any()
        assert not points[:, 1].any()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "real examples (60)", "synthetic points (36)", "anchors (8)",
    ]  # fmt: skip
    assert axes.get_title() == "pca map, round 3" + (", first two of 3 dimensions" if n_components == 3 else "")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("coordinate 1", "" if n_components == 1 else "coordinate 2")


def test_an_anchor_whose_points_were_all_dropped_is_not_shown() -> None:
    synthetic = synthetic_set(2)
    synthetic.kept[:5] = False
    (axes,) = synthesis_map(np.zeros((60, 2), np.float32), synthetic, "").axes
    assert [len(group) for group in offsets(axes)] == [60, 35, 7]
