"""Copies to a device, and batches that are gathered ahead."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toyrun import toy_run

from sage_kit.system.transfer import gathers_ahead, pinned, prefetched, to_device
from sage_kit.training import steps

CPU, META = torch.device("cpu"), torch.device("meta")


def test_only_a_card_wants_pinned_memory_and_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.append(tensor) or tensor)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: bool(asked))
    tensor = torch.ones(3)
    assert pinned(tensor, CPU) is tensor
    assert to_device(tensor, CPU) is tensor
    assert to_device(tensor, META).device == META
    assert not asked
    assert [gathers_ahead(torch.device(name)) for name in ("cpu", "meta", "mps", "cuda:0")] == [0, 0, 0, 1]
    for _ in range(2):  # once pinned, not again
        pinned(tensor, torch.device("cuda"))
    assert len(asked) == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_come_in_order(ahead: bool) -> None:
    story: list[tuple[str, int, bool]] = []

    def gather(number: int) -> Any:
        here = threading.current_thread() is threading.main_thread()
        story.append(("gathered", number, here))

        def place() -> int:
            assert threading.current_thread() is threading.main_thread()
            return number

        return place

    with contextlib.closing(prefetched([lambda n=n: gather(n) for n in range(4)], ahead)) as batches:
        assert list(batches) == [0, 1, 2, 3]
    assert story == [("gathered", number, not ahead) for number in range(4)]
    assert list(prefetched([], ahead)) == []


def test_the_next_batch_is_gathered_while_one_is_in_use() -> None:
    is_gathered = [threading.Event() for _ in range(3)]

    def gather(number: int) -> Any:
        is_gathered[number].set()
        return lambda: number

    batches = prefetched([lambda n=n: gather(n) for n in range(3)], ahead=True)
    assert next(batches) == 0
    assert is_gathered[1].wait(10)
    assert not is_gathered[2].is_set()
    batches.close()
    assert not is_gathered[2].is_set()


def test_the_thread_takes_the_card_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[int, str]] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: chosen.append((device, threading.current_thread().name))
    )
    assert list(prefetched([lambda: lambda: 0, lambda: lambda: 1], ahead=True)) == [0, 1]
    assert chosen == [(3, "gather_0")]


def test_what_a_gather_raises_comes_with_its_batch_and_ends_the_thread() -> None:
    def fail() -> Any:
        raise ValueError("row 7 is missing")

    batches = prefetched([lambda: lambda: 0, fail, lambda: lambda: 2], ahead=True)
    assert next(batches) == 0
    with pytest.raises(ValueError, match="row 7 is missing"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gather")]


@pytest.mark.parametrize(
    "settings",
    [{}, {"bypass": 1, "lift": "shift"}, {"hidden_weight": 0.5, "filter": "choose", "gradient_accumulation": 2}],
)
def test_a_run_is_the_same_to_the_bit(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    threads: set[str] = set()
    for ahead in (False, True):
        monkeypatch.setattr(steps, "gathers_ahead", lambda device, ahead=ahead: ahead)
        monkeypatch.setattr(steps, "partial", lambda call, *given: partial(noting, partial(call, *given), threads))
        directory, summary = toy_run(tmp_path, tiny_bert, rounds=2, **settings)
        assert summary["rounds"][-1]["synthetic"] > 0
        found.append(load_file(directory.student / "model.safetensors"))
    assert threads == {"MainThread", "gather_0"}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def noting(call: Any, threads: set[str]) -> Any:
    threads.add(threading.current_thread().name)
    return call()
