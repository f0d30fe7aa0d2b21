"""The warm-up: on generic text the student learns the teacher's final hidden states (paper, method summary)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.data.corpus import load_corpus
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.models.learning_rate import WARMUP_SHARE, learning_rate_factor
from sage_kit.models.vectors import pool
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.system.devices import autocast_for, synchronize
from sage_kit.system.processes import main_first
from sage_kit.system.transfer import to_device
from sage_kit.training.losses import hidden_state_loss
from sage_kit.training.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from sage_kit.training.prepared import Prepared
from sage_kit.training.steps import share_of

if TYPE_CHECKING:
    from accelerate import Accelerator

SAVED_EVERY = 500
"""Steps between two checkpoints; fixed, since dropout is seeded anew after each."""

Save = Callable[[int, dict[str, torch.Tensor]], None]
"""Told the steps done and the optimizer's state."""


def warm_up(
    config: RunConfig,
    prepared: Prepared,
    upper: torch.nn.Module,
    accelerator: Accelerator,
    costs: Costs,
    on_step: Callable[[int, int, Any], None],
    *,
    save: Save = lambda done, optimizer: None,
    done: int = 0,
    optimizer_state: dict[str, torch.Tensor] | None = None,
) -> int:
    """Train the student's upper layers for `warmup_epochs` on the corpus; it has an optimizer of its own.

    Parameters
    ----------
    config : RunConfig
    prepared : Prepared
        Gives the input layers and the teacher.
    upper : Module
        The student's upper layers, prepared by Accelerate.
    accelerator : Accelerator
    costs : Costs
        Takes the time and the tokens under "warm-up".
    on_step : callable
        Told the steps done, the steps in all, and the loss as a tensor.
    save : callable
        Called in every process after each `SAVED_EVERY` steps but the last.
    done : int
        Steps that an earlier process saved: a multiple of `SAVED_EVERY`, or 0.
    optimizer_state : dict of str to Tensor, or None
        What it saved of the optimizer.

    Returns
    -------
    int
        Steps in all.

    Raises
    ------
    DataError
        When the corpus cannot be read or holds no text.
    """
    with main_first(accelerator):
        texts = load_corpus(config)
    if prepared.teacher.prefix:
        texts = [prepared.teacher.prefix + text for text in texts]
    split = Split("corpus", texts, None, np.zeros(len(texts), dtype=np.int64))
    tokens = tokenize(split, prepared.teacher.tokenizer, config.max_length)
    raw_upper: Any = accelerator.unwrap_model(upper)
    raw_upper = getattr(raw_upper, "uncompiled", raw_upper)
    raw_optimizer = make_optimizer(
        raw_upper, config.warmup_learning_rate, config.weight_decay, config.optimizer, config.optimizer_options
    )
    load_optimizer_tensors(raw_optimizer, raw_upper, optimizer_state or {})
    optimizer = accelerator.prepare_optimizer(raw_optimizer)
    autocast = autocast_for(prepared.device, prepared.precision)
    batches = []
    for epoch in range(config.warmup_epochs):
        rng = np.random.default_rng(derive_seed(config.seed, "warm-up", epoch))
        batches += plan_batches(tokens.lengths, batch_size=config.batch_size, batch_tokens=config.batch_tokens, rng=rng)
    total = len(batches)
    upper.train()
    started, counted = time.perf_counter(), 0

    def count_costs() -> None:
        nonlocal started, counted
        synchronize(prepared.device)
        costs.add("warm-up", time.perf_counter() - started, tokens=counted)
        started, counted = time.perf_counter(), 0

    for number in range(done, total):
        if number % SAVED_EVERY == 0:
            purpose = ("warm-up dropout", accelerator.process_index, number // SAVED_EVERY)
            torch.manual_seed(derive_seed(config.seed, *purpose))
        rows = batches[number]
        counted += int(tokens.lengths[rows].sum())
        part, weight = share_of(len(rows), accelerator.process_index, accelerator.num_processes)
        rows = rows[part]
        lengths = tokens.lengths[rows]
        ids, types, mask = (to_device(tensor, prepared.device) for tensor in tokens.pad(rows))
        with torch.no_grad():
            states = prepared.input_layers(ids, types, mask).float()
            if config.granularity == "pooled":
                pooled = pool(states, mask, config.pooling)[:, None]
                states, mask = pooled, torch.ones(len(rows), 1, dtype=torch.bool, device=prepared.device)
                lengths = np.ones_like(lengths)
            with autocast():
                target = prepared.teacher_upper(states, mask, hidden=True, lengths=lengths).hidden[-1]
        for group in optimizer.param_groups:
            group["lr"] = config.warmup_learning_rate * learning_rate_factor("linear", WARMUP_SHARE, number, total)
        output = upper(states, mask, hidden=True, lengths=lengths)
        # the head takes no part; its zero-weighted logits keep every parameter in the graph for several processes
        distance = hidden_state_loss(
            output.hidden[-1].unsqueeze(2), target.unsqueeze(2), mask, config.hidden_loss
        ).mean()
        if accelerator.num_processes > 1:
            distance = distance * weight
        loss = distance + 0.0 * output.logits.float().sum()
        accelerator.backward(loss)
        if config.max_grad_norm:
            accelerator.clip_grad_norm_(upper.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(number + 1, total, loss.detach())
        if (number + 1) % SAVED_EVERY == 0 and number + 1 < total:
            count_costs()
            save(number + 1, optimizer_tensors(raw_optimizer, raw_upper))
    count_costs()
    return total
