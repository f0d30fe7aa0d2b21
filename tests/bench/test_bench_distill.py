"""The bench `distill`, on a tiny model and the toy task."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tiny
import toyspans
import toytags
from safetensors.numpy import load_file

from sage_bench import distill, real_texts
from sage_bench.ceilings import SHARE, Copy
from sage_bench.measure import Session
from sage_bench.peers import PeerWork, trainer_data
from sage_kit.components.plugins import Plugins
from sage_kit.models.architectures import auto_class
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


TOYS = {"tags": lambda folder: toytags.settings(folder, "tags"), "answers": toyspans.settings}


@pytest.mark.parametrize(("kind", "outputs"), [("tags", len(toytags.TAGS)), ("answers", 2)])
def test_tags_and_answers_are_done_by_all_sides(
    session: Session, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, kind: str, outputs: int
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setattr(distill, "GEMM_SECONDS", 0.01)
    monkeypatch.setattr(distill, "Copy", lambda device: Copy(device, megabytes=1, times=1))
    works: list[PeerWork] = []
    make = distill.peer_work
    monkeypatch.setattr(distill, "peer_work", lambda *given: works.append(make(*given)) or works[0])
    job = distill.Job(kind, distill.Model("tiny", str(tiny_bert), 2), "fp32", 64, 1, 1e9)
    settings = {"task": "file", "device": "cpu", "max_length": 32, **TOYS[kind](session.scratch)}
    lines, targets, about = distill.run_job(session, job, "toy", settings, session.scratch)
    by_name = {line.who: line for line in lines}
    measured = {distill.REAL, distill.SYNTHETIC, distill.TRAINER, distill.GROUPED}
    assert {name for name, line in by_name.items() if line.values} == measured
    shares = [by_name[name].ceiling_share for name in measured]
    assert all(share is not None and 0 < share.median < 1 for share in shares)
    (target,) = targets
    assert (target.goal, target.measured) == (2.5, by_name[distill.TRAINER].ratios[distill.REAL_RATIO])

    (work,) = works
    arrays = load_file(work.examples)
    n = np.diff(arrays["offsets"])
    assert (work.n_examples, work.n_tokens) == (len(n), n.sum()) == (about["examples"], about["tokens"])
    # one row is carved off; a long context has several windows
    assert len(n) == 63 if kind == "tags" else len(n) > 63
    teacher = auto_class(work.architecture).from_pretrained(work.teacher)
    assert teacher.config.num_labels == outputs

    def forward(layers: int) -> int:
        return int((layers * (2 * (4 * 32**2 + 2 * 32 * 64) * n + 4 * 32 * n**2) + 2 * 32 * outputs * n).sum())

    assert work.flops == 3 * forward(2) + forward(4)
    data = trainer_data(work)
    if kind == "tags":
        assert set(data.column_names) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
        assert [len(tags) for tags in data["labels"]] == n.tolist()
        assert {tag for tags in data["labels"] for tag in tags} == {-100, *range(outputs)}
    else:
        first, last = np.array(data["start_positions"]), np.array(data["end_positions"])
        assert ((first <= last) & (last < n)).all()
        assert (last > 0).any()


def test_what_is_counted_of_a_real_round_of_tags_is_every_block_of_every_token(
    session: Session, tiny_bert: Path
) -> None:
    plugins = Plugins(allow="")
    job = distill.Job("tags", distill.Model("tiny", str(tiny_bert), 2), "fp32", 60, 1, 1e9)
    toy = toytags.settings(session.scratch, "tags", label_names=toytags.TAGS)
    settings = {"task": "file", "device": "cpu", "max_length": 32, **toy}
    config = distill.job_config(job, settings, session.scratch, plugins, quick=True)
    distill.write_teacher(job.model, session.scratch / "teacher", config, plugins)
    ours = distill.OurSide(config, plugins)
    real, n = ours.real_round(), np.asarray(ours.lengths)
    work = distill.peer_work(ours, session.scratch)
    forward = 2 * (2 * (4 * 32**2 + 2 * 32 * 64) * n + 4 * 32 * n**2) + 2 * 32 * len(toytags.TAGS) * n
    # the first block's queries, keys and values need no gradient of their input
    assert real.amounts == {"examples": len(n), "tokens": n.sum(), "FLOP": (3 * forward - 2 * 3 * 32**2 * n).sum()}
    assert work.flops > real.amounts["FLOP"]
    assert bool(ours.profile.fresh.all())
    assert bool(ours.profile.losses.isfinite().all())


def test_tags_and_answers_are_skipped_with_a_reason_where_their_texts_are_not(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tuple(distill.Job(kind, distill.MINILM_MODEL, "fp32", 8, 1, 1.0) for kind in ("tags", "answers"))
    monkeypatch.setattr(distill, "QUICK_JOBS", jobs)
    notes = [line.note for line in distill.run(session).lines]
    assert [note.split(": ", 2)[0] for note in notes] == ["skipped", "skipped"]
    assert "SAGE_KIT_DATA_DIR to a folder with wnut17/train.parquet" in notes[0]
    (tmp_path / "wnut17").mkdir()
    there = Session(quick=True, scratch=tmp_path, announce=session.announce, data_dir=str(tmp_path))
    assert distill.why_no_data(there, "tags") == ""
    assert distill.why_no_data(there, "answers") == f"{tmp_path} has no folder squad_sample"
    assert distill.why_no_data(session, "pairs") == ""
    assert {job.kind for job in distill.FULL_JOBS} >= {"tags", "answers"}


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
    monkeypatch.setattr(real_texts, "_packaged_texts", lambda: ["a", "b", "c", "d", "e"])
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
