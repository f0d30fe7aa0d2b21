"""The map that a process of its own fits while the student trains in round one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toyrun import toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.errors import PluginError
from sage_kit.storage.cache import MANIFEST
from sage_kit.training import round_synthesis
from sage_kit.training.learner import Learner
from sage_kit.training.map_ahead import MapAhead, fits_ahead, may_fit_ahead
from sage_kit.training.map_worker import fit


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """As on a card; the processes that were started."""
    started: list[Any] = []

    class Noted(MapAhead):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            started.append(self)
            self.seconds = -1.0

        def wait(self) -> float:
            self.seconds = super().wait()
            return self.seconds

    monkeypatch.setattr(round_synthesis, "fits_ahead", lambda device: True)
    monkeypatch.setattr(round_synthesis, "MapAhead", Noted)
    return started


def test_only_beside_a_card() -> None:
    assert [fits_ahead(torch.device(name)) for name in ("cpu", "mps", "cuda:1")] == [False, False, True]


def test_a_run_is_the_same_to_the_bit(tmp_path: Path, tiny_bert: Path, ahead: list[Any]) -> None:
    settings = {"rounds": 2, "reducer_seed": 3}
    first, summary = toy_run(tmp_path, tiny_bert, **settings, cache_dir=str(tmp_path / "one"))
    assert len(ahead) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_synthesis, "fits_ahead", fits_ahead)
        other, _ = toy_run(tmp_path, tiny_bert, **settings, cache_dir=str(tmp_path / "two"))
    assert len(ahead) == 1
    assert summary["rounds"][-1]["synthetic"] > 0
    assert first.map.read_bytes() == other.map.read_bytes()
    ours, theirs = (load_file(one.student / "model.safetensors") for one in (first, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    costs = json.loads((first.path / "costs.json").read_text(encoding="utf-8"))
    assert costs["seconds"]["reduce"] > ahead[0].seconds > 0
    (entry,) = (tmp_path / "one" / "map").glob(f"[!.]*/{MANIFEST}")
    (its,) = (tmp_path / "two" / "map").glob(f"[!.]*/{MANIFEST}")
    assert entry.parent.name == its.parent.name
    # a later run finds it, and starts no process
    toy_run(tmp_path, tiny_bert, **settings, cache_dir=str(tmp_path / "one"))
    assert len(ahead) == 1


REDUCER = """
import os, time
from pathlib import Path
from sage_kit import hookimpl
from sage_kit.components import ReducerSpec

HERE = Path(__file__).parent

class Mine:
    def fit_transform(self, vectors):
        (HERE / f"fitting-{os.getpid()}").touch()
        BODY

@hookimpl
def sage_reducers():
    yield ReducerSpec(name="mine", summary="A reducer.", factory=lambda options, context: Mine())
"""


def with_reducer(folder: Path, teacher: Path, body: str) -> tuple[Any, Plugins, list[str]]:
    file = folder / "mine.py"
    file.write_text(REDUCER.replace("BODY", body), encoding="utf-8")
    config = toy_config(folder, teacher, rounds=2, reducer="mine", inverter="knn")
    return config, Plugins([file], allow=""), [str(file)]


def test_what_it_raises_is_told_as_without_it(tmp_path: Path, tiny_bert: Path, ahead: list[Any]) -> None:
    config, plugins, files = with_reducer(tmp_path, tiny_bert, 'raise ValueError("no neighbours")')
    with pytest.raises(PluginError, match=r"reducer 'mine'.*no neighbours") as found:
        run(config, plugins, files)
    fitting = {int(path.name.partition("-")[2]) for path in tmp_path.glob("fitting-*")}
    assert len(fitting) == 2
    assert os.getpid() in fitting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_synthesis, "fits_ahead", fits_ahead)
        with pytest.raises(PluginError) as expected:
            run(config, plugins, files)
    assert str(found.value) == str(expected.value)


def test_it_ends_when_the_round_fails(
    tmp_path: Path, tiny_bert: Path, ahead: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, plugins, files = with_reducer(tmp_path, tiny_bert, "time.sleep(600)")
    children: list[int] = []

    def fail(*given: Any, **named: Any) -> Any:
        assert ahead[0]._child is not None
        for _ in range(1200):  # until it is at work
            if any(tmp_path.glob("fitting-*")):
                break
            time.sleep(0.1)
        children.append(ahead[0]._child._process.pid)
        raise MemoryError("the card is full")

    monkeypatch.setattr(Learner, "train", fail)
    with pytest.raises(MemoryError):
        run(config, plugins, files)
    assert [int(path.name.partition("-")[2]) for path in tmp_path.glob("fitting-*")] == children
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)
    assert not list((tmp_path / "cache" / "map").glob(f"[!.]*/{MANIFEST}"))


def test_a_process_that_cannot_be_started_is_done_without(
    tmp_path: Path, tiny_bert: Path, ahead: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(command: list[str]) -> Any:
        raise OSError("too many processes")

    monkeypatch.setattr("sage_kit.training.map_ahead.Child", refuse)
    _, summary = toy_run(tmp_path, tiny_bert, rounds=2)
    assert len(ahead) == 1
    assert summary["rounds"][-1]["synthetic"] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"refit": "every_round"},
        {"schedule": "none"},
        {"sampler": "random", "sampler_options": {}},
        {"sampler": "random", "sampler_options": {}, "lift": "replace_random"},
    ],
)
def test_where_the_map_is_needed_at_once_or_anew_nothing_is_started(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], ahead: list[Any]
) -> None:
    toy_run(tmp_path, tiny_bert, rounds=1, **settings)
    assert not ahead


@pytest.mark.parametrize(
    ("spec", "needs_inverse", "vectors", "has_map", "expected"),
    [
        ({}, False, "file", False, True),
        ({}, True, "file", False, False),
        ({"has_state": True}, True, "file", False, True),
        ({"uses_gpu": True}, False, "file", False, False),
        ({}, False, "memory", False, False),
        ({}, False, "file", True, False),
    ],
)
def test_what_another_process_can_fit(
    tmp_path: Path, spec: dict[str, Any], needs_inverse: bool, vectors: str, has_map: bool, expected: bool
) -> None:
    class Recipe(dict[str, Any]):
        uses_map = True
        config = SimpleNamespace(schedule="adaptive", refit="never")

    recipe: Any = Recipe(
        reducer=SimpleNamespace(spec=SimpleNamespace(**{"has_state": False, "uses_gpu": False, **spec}))
    )
    recipe.needs_inverse = needs_inverse
    array = np.zeros((4, 2), np.float32)
    if vectors == "file":
        array = np.memmap(tmp_path / "vectors", np.float32, "w+", shape=(4, 2))
    prepared: Any = SimpleNamespace(mapped=SimpleNamespace(vectors=array))
    assert may_fit_ahead(recipe, prepared, SimpleNamespace(has_map=has_map)) is expected


def test_labels_reach_a_reducer_that_learns_from_them(tmp_path: Path, tiny_bert: Path) -> None:
    """In this process: what the other one does with the message."""
    from sage_kit.components.records import Costs
    from sage_kit.recipe import resolve
    from sage_kit.system.devices import make_accelerator
    from sage_kit.training.preparation import prepare

    config, plugins = toy_config(tmp_path, tiny_bert, rounds=2), Plugins(allow="")
    recipe = resolve(config, plugins)
    prepared = prepare(recipe, make_accelerator(config), Costs())
    synthesizer = prepared.synthesizer(recipe, lambda text: None, Costs())
    sent: list[dict[str, Any]] = []

    class Listener:
        def __init__(self, command: list[str]) -> None:
            pass

        def send(self, message: dict[str, Any]) -> None:
            sent.append(json.loads(json.dumps(message)))
            assert not synthesizer.has_map
            assert fit(sent[0]) > 0

        def end(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_kit.training.map_ahead.Child", Listener)
        MapAhead(recipe, prepared, synthesizer).end()
    assert synthesizer.has_map
    assert sent[0]["labels"]
    assert sent[0]["allow"] == ""
