"""A step of the student never waits for the device: on a card, each wait would leave it idle.

There need be no card. The device "meta" computes shapes alone, so whatever asks for a value, a count of true entries or
a copy on the host fails there. And where tensors are real, each operation is watched for those that must wait.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toyrun import toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.models import split
from sage_kit.models.narrow import trained_layers
from sage_kit.models.varlen import flash_attention
from sage_kit.recipe import resolve
from sage_kit.synthesis.labelling import label_synthetic
from sage_kit.system.devices import make_accelerator
from sage_kit.training import learner, round_synthesis
from sage_kit.training.labelled_batches import RealBatches
from sage_kit.training.objective import Objective
from sage_kit.training.preparation import prepare
from sage_kit.training.profile import Profile
from sage_kit.training.steps import train_pass

META = torch.device("meta")
STEPS = 3


class EnoughSteps(Exception):
    """Ends a pass before what comes after its last step, which may wait."""


def on_meta(folder: Path, teacher: Path, **settings: Any) -> list[int]:
    """The steps that a pass over real examples takes on the device "meta"; "packed" as a card takes them in bf16."""
    calls: list[int] = []

    def flash(*given: Any) -> torch.Tensor:
        calls.append(1)
        return flash_attention(*given)

    is_packed = settings.pop("packed")
    with pytest.MonkeyPatch.context() as patch:
        if is_packed:
            patch.setattr(split, "varlen_attention", lambda states, width: flash if states.is_meta else None)
        done = steps_on_meta(folder, teacher, **settings)
    assert bool(calls) == is_packed
    return done


def steps_on_meta(folder: Path, teacher: Path, **settings: Any) -> list[int]:
    config = toy_config(folder, teacher, schedule="none", **settings)
    prepared = prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())
    part: Any = trained_layers(prepared.student, prepared.teacher.model, config.bypass).to(META)
    store = prepared.train.store
    if store.input_layers is not None:
        store.input_layers.to(META)
    profile = Profile(len(store), prepared.teacher_upper.n_outputs, META)
    objective = Objective(config, prepared.loss_inputs, part, META)
    accelerator: Any = SimpleNamespace(
        device=META,
        num_processes=1,
        process_index=0,
        autocast=contextlib.nullcontext,
        backward=lambda loss: loss.backward(),
        no_sync=lambda module: contextlib.nullcontext(),
        clip_grad_norm_=torch.nn.utils.clip_grad_norm_,
    )
    done: list[int] = []

    def on_step(number: int, total: int, loss: torch.Tensor) -> None:
        done.append(number)
        if number == STEPS:
            raise EnoughSteps

    with pytest.raises(EnoughSteps):
        train_pass(
            part,
            torch.optim.AdamW(part.parameters(), foreach=True),
            [RealBatches(prepared.train, profile, config, META, np.random.default_rng(0))],
            accelerator=accelerator,
            objective=objective,
            progress=lambda step: 0.0,
            learning_rate=lambda step: 1e-3,
            max_grad_norm=1.0,
            max_steps=None,
            rng=np.random.default_rng(0),
            on_step=on_step,
            accumulation=config.gradient_accumulation,
        )
    return done


@pytest.mark.parametrize("is_packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bypass": 1},
        {"hidden_weight": 0.5, "relation_weight": 0.5, "hard_label_weight": 0.5},
        {"gradient_accumulation": 2, "losses": {"kl": 1.0, "dist": 0.5, "rkd": 0.5, "tinybert_attention": 0.5}},
    ],
)
def test_real_batches_and_losses_need_no_value_from_the_device(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], is_packed: bool
) -> None:
    assert on_meta(tmp_path, tiny_bert, packed=is_packed, **settings) == list(range(1, STEPS + 1))


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "is_nonzero"}
"""Operations whose result, or its size, the host must know."""


class Watch(TorchDispatchMode):
    """Counts operations that wait, by name and line of the package."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.operations += 1
        by_mask = name.startswith(("index", "_index_put")) and isinstance(args[1], (list, tuple))
        if name in WAITING or (by_mask and any(one is not None and one.dtype == torch.bool for one in args[1])):
            frames = [frame for frame in traceback.extract_stack() if "/sage_kit/" in frame.filename]
            self.found[f"{name}: {frames[-1].filename.partition('/sage_kit/')[2]}:{frames[-1].lineno}"] += 1
        return func(*args, **(kwargs or {}))


def something(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any) -> torch.Tensor:
    """In the place of a card's attention: of the right shape, with gradients, and asking for nothing."""
    return query * key.mean() + value.mean(0)


@pytest.mark.parametrize("is_packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lift": "shift", "lift_options": {}, "bypass": 1},
        {"lift": "replace_random", "lift_options": {}, "sampler": "random", "sampler_options": {}},
        {"lift": "mixup", "lift_options": {}, "sampler": "mixup", "sampler_options": {}},
        {"hidden_weight": 0.5, "relation_weight": 0.5, "filter": "choose"},
    ],
)  # fmt: skip
def test_synthetic_batches_wait_for_nothing(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs, on the two paths that a card takes."""
    watches = []

    def watched(*arguments: Any, **named: Any) -> Any:
        watches.append(Watch())
        with watches[-1]:
            return train_pass(*arguments, **named)

    monkeypatch.setattr(split, "runs_packed", lambda states: False)
    monkeypatch.setattr(split, "varlen_attention", lambda states, width: something if is_packed else None)
    monkeypatch.setattr(learner, "train_pass", watched)
    _, summary = toy_run(tmp_path, tiny_bert, rounds=2, **settings)
    assert summary["rounds"][-1]["synthetic"] > 0
    assert len(watches) == 2
    for watch in watches:
        assert watch.operations > 100
        assert dict(watch.found) == {}


@pytest.mark.parametrize("settings", [{}, {"lift": "shift", "bypass": 1}, {"filter": "choose", "hidden_weight": 0.5}])
def test_labelling_waits_once_at_its_end(
    tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For how many tokens there were; outputs and texts are copied to the host then, too."""
    watches = []

    def watched(*arguments: Any, **named: Any) -> int:
        watches.append(Watch())
        with watches[-1]:
            return label_synthetic(*arguments, **named)

    monkeypatch.setattr(split, "runs_packed", lambda states: False)
    monkeypatch.setattr(split, "varlen_attention", lambda states, width: something)
    monkeypatch.setattr(round_synthesis, "label_synthetic", watched)
    toy_run(tmp_path, tiny_bert, rounds=2, **settings)
    (watch,) = watches
    assert watch.operations > 100
    ((place, count),) = watch.found.items()
    assert place.startswith("_local_scalar_dense: synthesis/labelling.py")
    assert count == 1
