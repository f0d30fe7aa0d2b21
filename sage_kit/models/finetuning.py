"""Fine-tuning a teacher on its task: AdamW, a linear schedule with warm-up, dropout on.

It is saved now and then, so that one that was killed goes on to the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.data.targets import Targets
from sage_kit.errors import ModelError
from sage_kit.models.encoder_parts import embed, embedder
from sage_kit.models.learning_rate import WARMUP_SHARE, learning_rate_factor
from sage_kit.models.split import UpperLayers
from sage_kit.storage.files import write_bytes
from sage_kit.system.devices import autocast_for, synchronize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec
    from sage_kit.data.encoding import EncodedSplit

WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0

IGNORED = -100
"""Target without a loss."""

SAVED_EVERY = 500
"""Steps between two checkpoints; each epoch but the last ends with one too."""

OnStep = Callable[[int, int, Tensor | None], None]


def finetune(
    model: PreTrainedModel,
    family: FamilySpec,
    encoded: EncodedSplit,
    config: RunConfig,
    *,
    precision: str,
    device: torch.device,
    kept: Path,
    announce: Callable[[str], None],
    on_step: OnStep,
) -> float:
    """Train all of a model.

    Parameters
    ----------
    model : PreTrainedModel
        With the task's head; it is trained in place.
    family : FamilySpec
        Its own.
    encoded : EncodedSplit
        Labelled: numbers are learnt by the squared error, distributions by the cross-entropy, its mean over those of a
        text that count.
    config : RunConfig
        Epochs, learning rate and seed of the teacher, and the sizes of batches.
    precision : str
        "fp32" or "bf16".
    device : torch.device
    kept : Path
        File of the checkpoint: gone on from where it is there.
    announce : callable
        Shows one line to the user.
    on_step : callable
        ``on_step(done, total, loss)`` after each step; the loss stays on the device.

    Returns
    -------
    float
        Seconds that the training took, with those before the checkpoint.

    Raises
    ------
    ModelError
        When the weights are no longer finite.
    """
    seed, tokens, handling = config.teacher_seed, encoded.tokens, encoded.handling
    epochs = [
        plan_batches(
            tokens.lengths,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
            rng=np.random.default_rng([seed, epoch]),
        )
        for epoch in range(config.teacher_epochs)
    ]
    batches = [batch for epoch in epochs for batch in epoch]
    ends = set(np.cumsum([len(epoch) for epoch in epochs]).tolist())
    total = len(batches)
    cast(nn.Module, model).to(device).train()
    upper = UpperLayers(model)
    embeddings = embedder(model, family)
    uses_types = family.uses_token_types(model.config)
    targets = Targets.of(encoded)
    autocast = autocast_for(device, precision)
    optimizer = torch.optim.AdamW(_decay_groups(model), lr=config.teacher_learning_rate, fused=True)
    parameters = list(model.parameters())
    with _seeded(seed, device):
        first, before = _restore(kept, model, optimizer, device)
        if first:
            announce(f"fine-tuning goes on after {first:,} of {total:,} steps")
        started = time.perf_counter()
        for step in range(first, total):
            batch = batches[step]
            ids, types, mask = tokens.pad(batch)
            padding = None if bool(mask.all()) else mask.to(device, non_blocking=True)
            ids = ids.to(device, non_blocking=True)
            kinds = None
            if family.token_types:
                kinds = types.to(device, non_blocking=True) if uses_types else torch.zeros_like(ids)
            target, positions = targets.batch(batch, device)
            with autocast():
                logits = upper(embed(embeddings, ids, kinds), padding).logits
            compared = handling.compared(logits.float(), positions)
            if target.is_floating_point():
                loss = nn.functional.mse_loss(compared.logits.squeeze(-1), target)
            elif compared.counts is None:
                loss = nn.functional.cross_entropy(compared.logits, target)
            else:
                loss = nn.functional.cross_entropy(
                    compared.logits.flatten(0, 1), target.masked_fill(~compared.counts, IGNORED).flatten()
                )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            for group in optimizer.param_groups:
                group["lr"] = config.teacher_learning_rate * learning_rate_factor("linear", WARMUP_SHARE, step, total)
            optimizer.step()
            optimizer.zero_grad()
            done = step + 1
            if (done % SAVED_EVERY == 0 or done in ends) and done < total:
                synchronize(device)
                _save(kept, model, optimizer, device, done, before + time.perf_counter() - started)
            on_step(done, total, loss.detach())
        synchronize(device)
        seconds = before + time.perf_counter() - started
    if not all(bool(parameter.isfinite().all()) for parameter in parameters):
        shutil.rmtree(kept.parent, ignore_errors=True)
        raise ModelError(
            f"fine-tuning teacher {config.teacher!r} diverged (its weights are not finite): lower "
            f"teacher_learning_rate, now {config.teacher_learning_rate:g}"
        )
    return seconds


def _decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for biases and layer norms, as in BERT's own training."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators, the device's too, and put them back afterwards."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, done: int, seconds: float
) -> None:
    """Keep what is needed to go on: weights, the optimizer's state, and the state of the random generators."""
    from safetensors.torch import save

    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model|{name}"] = parameter.detach()
        for entry, value in optimizer.state[parameter].items():
            tensors[f"{entry}|{name}"] = torch.as_tensor(value).detach()
    tensors["random|cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random|cuda"] = torch.cuda.get_rng_state(device)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(tensors, metadata={"done": str(done), "seconds": repr(seconds)}))


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> tuple[int, float]:
    """Take over a checkpoint, and return its steps and seconds; 0 for both where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            done, seconds = int(told["done"]), float(told["seconds"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            random = tensors.pop("random|cpu")
            parameters = dict(model.named_parameters())
            weights = {name: tensors.pop(f"model|{name}") for name in parameters}
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0, 0.0
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for key, tensor in tensors.items():
        entry, _, name = key.partition("|")
        if name in parameters:
            optimizer.state[parameters[name]][entry] = tensor.to(device)
    torch.set_rng_state(random)
    if device.type == "cuda" and "random|cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random|cuda"], device)
    return done, seconds
