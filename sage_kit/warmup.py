"""The warm-up: on generic text the student learns the teacher's final hidden states (paper, method summary)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.data.corpus import load_corpus
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.devices import autocast_for, synchronize
from sage_kit.losses import hidden_state_loss
from sage_kit.preparation import Prepared
from sage_kit.records import Costs
from sage_kit.synthesis import derive_seed
from sage_kit.training import learning_rate_factor, make_optimizer
from sage_kit.vectors import masked_mean

if TYPE_CHECKING:
    from accelerate import Accelerator


def warm_up(
    config: RunConfig,
    prepared: Prepared,
    trunk: torch.nn.Module,
    accelerator: Accelerator,
    costs: Costs,
    on_step: Callable[[int, int, Any], None],
) -> int:
    """Train the student's trunk for `warmup_epochs` on the corpus; it has an optimizer of its own.

    Parameters
    ----------
    config : RunConfig
    prepared : Prepared
        Gives the front end and the teacher.
    trunk : Module
        The student's trunk, prepared by Accelerate.
    accelerator : Accelerator
    costs : Costs
        Takes the time and the tokens under "warm-up".
    on_step : callable
        Told the steps done, the steps in all, and the loss as a tensor.

    Returns
    -------
    int
        Steps taken.

    Raises
    ------
    DataError
        When the corpus cannot be read or holds no text.
    """
    started = time.perf_counter()
    with accelerator.local_main_process_first():
        texts = load_corpus(config)
    split = Split("corpus", texts, None, np.zeros(len(texts), dtype=np.int64))
    tokens = tokenize(split, prepared.teacher.tokenizer, config.max_length)
    optimizer = accelerator.prepare_optimizer(make_optimizer(trunk, config.warmup_learning_rate, config.weight_decay))
    autocast = autocast_for(prepared.device, prepared.precision)
    torch.manual_seed(derive_seed(config.seed, "warm-up dropout"))
    plans = [
        plan_batches(
            tokens.lengths,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
            rng=np.random.default_rng(derive_seed(config.seed, "warm-up", epoch)),
        )
        for epoch in range(config.warmup_epochs)
    ]
    processes = accelerator.num_processes
    total = sum(len(plan) // processes for plan in plans)
    trunk.train()
    done = 0
    for plan in plans:
        for rows in plan[accelerator.process_index : len(plan) // processes * processes : processes]:
            ids, types, mask = (tensor.to(prepared.device) for tensor in tokens.pad(rows))
            with torch.no_grad():
                states = prepared.front_end(ids, types, mask).float()
                if config.granularity == "pooled":
                    pooled = states[:, :1] if config.pooling == "cls" else masked_mean(states, mask)[:, None]
                    states, mask = pooled, torch.ones(len(rows), 1, dtype=torch.bool, device=prepared.device)
                with autocast():
                    target = prepared.teacher_trunk(states, mask, hidden=True).hidden[-1]
            for group in optimizer.param_groups:
                group["lr"] = config.warmup_learning_rate * learning_rate_factor("linear", 0.06, done / total)
            output = trunk(states, mask, hidden=True)
            # the head takes no part; its zero-weighted logits keep every parameter in the graph for several processes
            loss = (
                hidden_state_loss(output.hidden[-1].unsqueeze(2), target.unsqueeze(2), mask, config.hidden_loss).mean()
                + 0.0 * output.logits.float().sum()
            )
            accelerator.backward(loss)
            if config.max_grad_norm:
                accelerator.clip_grad_norm_(trunk.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            on_step(done, total, loss.detach())
    synchronize(prepared.device)
    costs.add("warm-up", time.perf_counter() - started, tokens=int(tokens.lengths.sum()) * config.warmup_epochs)
    return done
