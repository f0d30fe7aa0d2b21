"""The student's steps: a pass over labelled batches, a pass without training, and what both cost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.tokens import padded_rows
from sage_kit.models.split import UpperLayers
from sage_kit.models.vectors import VectorStore, forward_batches
from sage_kit.system.processes import from_all
from sage_kit.system.transfer import gathers_ahead, prefetched, to_device
from sage_kit.training.labelled_batches import Batches
from sage_kit.training.objective import Objective

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Pass:
    """What a training pass did: steps, real tokens, tokens with padding, and each example's length."""

    steps: int
    tokens: int
    padded_tokens: int
    lengths: NDArray[np.int64]

    @property
    def padding(self) -> float:
        """Share of padding among the tokens."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


def train_pass(
    upper: torch.nn.Module,
    optimizer: Any,
    sources: Sequence[Batches],
    *,
    accelerator: Accelerator,
    objective: Objective,
    progress: Callable[[int], float],
    learning_rate: Callable[[int], float],
    max_grad_norm: float,
    max_steps: int | None,
    rng: np.random.Generator,
    on_step: Callable[[int, int, torch.Tensor], object],
    accumulation: int = 1,
) -> Pass:
    """Train on every batch of the sources once, in random order, and profile the losses on the way.

    Several processes share the examples of each batch, so that a step is the same at any number of them. Nothing in
    here waits for the device.

    Parameters
    ----------
    upper : Module
        The student's upper layers, prepared by Accelerate.
    optimizer : Optimizer
        Prepared by Accelerate.
    sources : sequence of Batches
    accelerator : Accelerator
    objective : Objective
        The losses.
    progress : callable
        Maps the step's number in this pass, from 0, to the share of the run's student steps done before it.
    learning_rate : callable
        Maps the step's number in this pass, from 0, to the learning rate.
    max_grad_norm : float
        0 for no clipping.
    max_steps : int or None
        Stop after so many steps.
    rng : numpy Generator
        For the order.
    on_step : callable
        Told the steps done, the steps in all, and the mean loss as a tensor; says whether to end the pass.
    accumulation : int
        Batches per step; the last step of a pass may have fewer. Its loss is the mean over the examples of all.

    Returns
    -------
    Pass
    """
    upper.train()
    asks, of_losses = objective.asks, objective.parameters()
    for source in sources:
        source.profile.start_pass()
    order = [(source, number) for source in sources for number in range(len(source))]
    order = [order[i] for i in rng.permutation(len(order))]
    if max_steps is not None:
        order = order[: max_steps * accumulation]
    counts = [source.examples(number) for source, number in order]
    total, shares = -(-len(order) // accumulation), shares_of_step(counts, accumulation)
    steps, padded_tokens, mean = 0, 0, torch.zeros((), device=accelerator.device)
    # one tensor, since a small one kept for each step lies in the way of the large ones that come and go
    lengths, seen = torch.zeros(sum(counts), dtype=torch.int64).to(accelerator.device), 0
    shared = [share_of(count, accelerator.process_index, accelerator.num_processes) for count in counts]
    gathers = [partial(source.gather, number, part) for (source, number), (part, _) in zip(order, shared, strict=True)]
    with contextlib.closing(prefetched(gathers, gathers_ahead(accelerator.device))) as batches:
        for place, batch in enumerate(batches, start=1):
            (source, _), (_, weight) = order[place - 1], shared[place - 1]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(steps)
            output = upper(batch.states, batch.mask if batch.padded else None, lengths=batch.lengths, **asks)
            losses, recorded = objective(output, batch, progress(steps), accelerator.autocast)
            loss = losses.mean()
            if accelerator.num_processes > 1:
                loss = loss * weight
                if not objective.uses_logits:
                    # several processes wait for the gradient of every parameter
                    loss = loss + 0.0 * output.logits.float().sum()
            is_whole = place % accumulation == 0 or place == len(order)
            if accumulation > 1:
                loss = loss * shares[place - 1]
            with contextlib.nullcontext() if is_whole else accelerator.no_sync(upper):
                accelerator.backward(loss)
            if weight:
                source.profile.record(batch.rows, losses, recorded)
                own = len(batch.mask)
                lengths[seen : seen + own] = batch.mask.sum(1)
                seen += own
                padded_tokens += batch.mask.numel()
            mean = mean + loss.detach() if accumulation > 1 else loss.detach()
            if not is_whole:
                continue
            objective.average_gradients(accelerator)
            if max_grad_norm:
                accelerator.clip_grad_norm_([*upper.parameters(), *of_losses], max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
            if on_step(steps, total, mean):
                break
            mean = torch.zeros_like(mean) if accumulation > 1 else mean
    for source in sources:
        source.profile.merge(accelerator)
    flat = lengths[:seen].cpu().numpy()
    if accelerator.num_processes > 1:
        found = from_all((flat, padded_tokens), accelerator)
        flat, padded_tokens = np.concatenate([own for own, _ in found]), sum(own for _, own in found)
    return Pass(steps, int(flat.sum()), padded_tokens, flat)


def share_of(examples: int, process: int, processes: int) -> tuple[slice, float]:
    """The examples of a batch that a process takes, and the weight of its mean loss.

    The mean over processes of the weighted losses is the mean loss over the batch. Where there are fewer examples than
    processes, those that get none take the first with weight 0, since all processes wait for each other's gradients.
    """
    if processes == 1:
        return slice(None), 1.0
    own = len(range(process, examples, processes))
    if not own:
        return slice(0, 1), 0.0
    return slice(process, None, processes), own * processes / examples


def shares_of_step(counts: Sequence[int], accumulation: int) -> list[float]:
    """For each batch of so many examples, the share of its step's that it has: 1 where a step is one batch."""
    if accumulation == 1:
        return [1.0] * len(counts)
    sums = [sum(counts[start : start + accumulation]) for start in range(0, len(counts), accumulation)]
    return [count / sums[place // accumulation] for place, count in enumerate(counts)]


def predict(
    upper: torch.nn.Module,
    store: VectorStore,
    n_outputs: int,
    accelerator: Accelerator,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    *,
    per_token: bool = False,
) -> NDArray[np.float32]:
    """Logits on a split, dropout off: array of shape (n, n_outputs), float32, the same in every process.

    With an output per token of shape (total_tokens, n_outputs), aligned with the store's rows.
    """
    upper.eval()
    device = accelerator.device
    logits = torch.zeros(int(store.offsets[-1]) if per_token else len(store), n_outputs, device=device)
    batches = forward_batches(store.lengths, device)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    gathered = prefetched([partial(store.gather, rows, device) for rows in mine], gathers_ahead(device))
    with torch.no_grad(), contextlib.closing(gathered) as fetched:
        for done, (rows, batch) in enumerate(zip(mine, fetched, strict=True), start=1):
            with accelerator.autocast():
                output = upper(batch.states, batch.mask, lengths=batch.lengths)
            found = output.logits.float()
            if per_token:
                places, real = padded_rows(store.offsets, rows)
                rows, found = places[real], found[batch.mask]
            logits[to_device(torch.from_numpy(rows), device)] = found
            on_step(done, len(mine))
    result: NDArray[np.float32] = accelerator.reduce(logits, "sum").cpu().numpy()
    return result


def count_flops(
    upper: UpperLayers,
    lengths: NDArray[np.int64],
    *,
    training: bool,
    hidden: bool = False,
    projections: Sequence[int] = (),
) -> int:
    """FLOPs of upper layers on examples of these lengths: a forward pass, or a training step
    (`UpperLayers.training_flops`).

    Parameters
    ----------
    upper : UpperLayers
    lengths : array of shape (n,), int64
    training : bool
        Whether the backward pass counts.
    hidden : bool
        Whether the blocks' outputs are asked for; without them the last block is computed for the first token only.
    projections : sequence of int
        The blocks, from 1, whose queries, keys and values are asked for.
    """
    counted = upper.training_flops if training else upper.flops
    return counted(lengths, hidden, projections)
