"""Peers compute what we compute, and what is not there is said in one line."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load_file, save_file

from sage_bench import peer_worker
from sage_bench.peers import (
    PYTHON_VARIABLE,
    PeerError,
    PeerProcess,
    PeerWork,
    make_trainer,
    trainer_data,
    trainer_epochs,
)
from sage_kit.components import handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.components.task_kinds import Architecture
from sage_kit.models.architectures import auto_class
from sage_kit.models.split import split_model
from sage_kit.training.losses import kl_divergence

LENGTHS = (5, 9, 7, 9, 4, 6)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> PeerWork:
    folder = tmp_path_factory.mktemp("peers")
    teacher = tiny.make_checkpoint(folder / "teacher", layers=4, labels=2, seed=1)
    student = tiny.make_checkpoint(folder / "student", layers=2, labels=2, seed=2)
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    tokenizer = tiny.make_tokenizer()
    arrays = {
        "ids": rng.integers(5, len(tokenizer), offsets[-1]).astype(np.int32),
        "types": rng.integers(0, 2, offsets[-1]).astype(np.uint8),
        "offsets": offsets,
        "labels": np.array([0, 1, 0, 1, 0, 1]),
    }
    save_file(arrays, folder / "examples.safetensors")
    return PeerWork(
        teacher, student, folder / "examples.safetensors", tokenizer, len(LENGTHS), int(offsets[-1]), 1, 3, 2.0, 1e-3,
        torch.device("cpu"), "fp32", folder,
    )  # fmt: skip


def test_trainers_loss_and_gradients_are_ours(work: PeerWork) -> None:
    from transformers import AutoModelForSequenceClassification

    teacher, student = (
        AutoModelForSequenceClassification.from_pretrained(path).double().eval()
        for path in (work.teacher, work.student)
    )
    trainer = make_trainer(work, teacher, student, trainer_data(work), grouped=False)
    batch = trainer.data_collator(trainer.train_dataset.to_list())
    loss = trainer.compute_loss(student, batch)
    loss.backward()
    theirs = {name: p.grad.clone() for name, p in student.named_parameters() if ".layer." in name}
    assert len(theirs) > 20
    student.zero_grad()

    input_layers, upper = split_model(student, "embeddings")
    _, teacher_upper = split_model(teacher, "embeddings")
    teacher_input_layers, _ = split_model(teacher, "embeddings")
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        logits = teacher_upper(teacher_input_layers(batch["input_ids"], batch["token_type_ids"], mask), mask).logits
        states = input_layers(batch["input_ids"], batch["token_type_ids"], mask)
    ours = kl_divergence(upper(states, mask).logits, logits, work.temperature).mean()
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-5)
    assert ours.item() > 1e-3
    for name, gradient in theirs.items():
        torch.testing.assert_close(dict(student.named_parameters())[name].grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["token", "span"])
def test_trainers_loss_of_tags_and_answers_is_that_of_what_counts(
    work: PeerWork, tmp_path: Path, architecture: Architecture
) -> None:
    """For tags a mean over all words of a batch, as people write it, where ours is one over texts of means over words.

    Its distributions over tokens include those of the question, where ours have the context's.
    """
    rng = np.random.default_rng(1)
    total, is_tags = sum(LENGTHS), architecture == "token"
    tags = np.where(rng.random(total) < 0.6, rng.integers(0, 5, total), -100)
    arrays = load_file(work.examples)
    arrays["labels"] = tags if is_tags else np.array([[1, 2]] * len(LENGTHS))
    save_file(arrays, tmp_path / "examples.safetensors")
    work = replace(work, examples=tmp_path / "examples.safetensors", scratch=tmp_path, architecture=architecture)
    torch.manual_seed(0)
    teacher, student = (
        auto_class(architecture).from_config(tiny.make_config(layers=n, labels=5 if is_tags else 2)).double().eval()
        for n in (4, 2)
    )
    trainer = make_trainer(work, teacher, student, trainer_data(work), grouped=False)
    batch = trainer.data_collator(trainer.train_dataset.to_list())
    loss = trainer.compute_loss(student, batch)
    loss.backward()
    theirs = {name: p.grad.clone() for name, p in student.named_parameters() if ".layer." in name}
    assert len(theirs) > 20
    student.zero_grad()

    mask = batch["attention_mask"].bool()
    counted = mask
    if is_tags:
        counted = batch["labels"] != -100
        assert counted.sum() == (tags != -100).sum() < mask.sum()
        assert counted[~mask].sum() == 0
    kind = handling_of(Plugins(allow="").task("wnut17" if is_tags else "squad_sample"))
    outputs = []
    for model in (student, teacher):
        input_layers, upper = split_model(model, "embeddings")
        states = input_layers(batch["input_ids"], batch["token_type_ids"], mask).detach()
        outputs.append(kind.compared(upper(states, mask).logits, counted))
    values = kl_divergence(outputs[0].logits, outputs[1].logits.detach(), work.temperature)
    ours = values[outputs[0].counts].mean()
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-5)
    assert ours.item() > 1e-4
    for name, gradient in theirs.items():
        torch.testing.assert_close(dict(student.named_parameters())[name].grad, gradient, rtol=1e-4, atol=1e-6)


def test_an_epoch_of_trainer_counts_every_example_and_starts_from_the_same_student(work: PeerWork) -> None:
    for epoch in trainer_epochs(work):
        done = epoch()
        assert done.amounts["examples"] == len(LENGTHS)
        assert done.amounts["tokens"] == sum(LENGTHS)
        assert done.seconds is not None
        assert done.seconds > 0


def test_what_is_not_installed_is_said_with_what_to_install(work: PeerWork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PeerError, match=r"not installed: pip install textbrewer==.*_PYTHON_TEXTBREWER"):
        PeerProcess("textbrewer", work)


def test_a_peer_that_does_not_work_says_why(work: PeerWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = PYTHON_VARIABLE.format(peer="TORCHDISTILL")
    monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    with pytest.raises(PeerError, match=f"{variable} is .*No such file"):
        PeerProcess("torchdistill", work)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'it broke' >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(variable, str(broken))
    with pytest.raises(PeerError, match="its process ended: it broke"):
        PeerProcess("torchdistill", work)


def test_a_peer_answers_from_its_own_process(work: PeerWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\nread setup\necho \'{"event": "ready", "about": "a peer 1.0"}\'\n'
        'read epoch\necho \'{"event": "done", "seconds": 2.0}\'\n'
        'read epoch\necho \'{"event": "failed", "reason": "ValueError: no"}\'\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(PYTHON_VARIABLE.format(peer="TEXTBREWER"), str(fake))
    process = PeerProcess("textbrewer", work)
    try:
        assert process.about == "a peer 1.0"
        assert process.epoch().seconds == 2.0
        with pytest.raises(PeerError, match="installed, but fails: ValueError: no"):
            process.epoch()
    finally:
        process.end()


def test_the_worker_pads_to_the_longest_of_a_batch(work: PeerWork) -> None:
    examples = peer_worker.Examples(str(work.examples), pad_id=9)
    assert len(examples) == len(LENGTHS)
    batch = examples.collate([examples[0], examples[1]])
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"].sum(1).tolist() == [5, 9]
    assert batch["input_ids"][0, 5:].tolist() == [9] * 4
    assert set(peer_worker.PEERS) == {"textbrewer", "torchdistill"}
