"""The student while it learns: its upper layers, optimizer and losses, and what each example's loss was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.models.compiled import Compiled
from sage_kit.models.loss_inputs import alike
from sage_kit.models.vectors import INFERENCE_BATCH_SIZE, INFERENCE_BATCH_TOKENS
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.system.devices import autocast_for, synchronize
from sage_kit.training.feedback import divergence_gradient, mean_hidden_states
from sage_kit.training.labelled_batches import Batches
from sage_kit.training.objective import Objective
from sage_kit.training.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from sage_kit.training.prepared import Prepared, PreparedSplit
from sage_kit.training.profile import Profile
from sage_kit.training.rate_schedules import rate_of
from sage_kit.training.steps import Pass, count_flops, predict, train_pass

if TYPE_CHECKING:
    from accelerate import Accelerator


class Learner:
    """The student while it learns.

    Parameters
    ----------
    config : RunConfig
    prepared : Prepared
    part : Module
        What is trained, called as upper layers are; on the run's device.
    accelerator : Accelerator
    costs : Costs
        Takes "student", "profile" and "evaluate".
    announce : callable
        Shows one line of text to the user.

    Attributes
    ----------
    raw : Module
        `part`.
    upper : Module
        The same, compiled if the settings ask for it and prepared by Accelerate.
    objective : Objective
        The losses.
    profile : Profile
        Of the real examples.
    steps : int
        Steps so far, those of the warm-up not counted.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        part: Any,
        accelerator: Accelerator,
        costs: Costs,
        announce: Callable[[str], None],
    ) -> None:
        self.config = config
        self.prepared = prepared
        self.accelerator = accelerator
        self.costs = costs
        self.device = accelerator.device
        self.raw = part
        part.recomputes = config.gradient_checkpointing
        processes = accelerator.num_processes
        self.objective = Objective(config, prepared.loss_inputs, part, self.device, announce, processes)
        # without parameters of losses, the names in a checkpoint are those of the student's own
        own = self.objective.parameters()
        self._trained: Any = torch.nn.ModuleList([part, self.objective.modules]) if own else part
        self.raw_optimizer = make_optimizer(
            self._trained, config.learning_rate, config.weight_decay, config.optimizer, config.optimizer_options
        )
        compiled: Any = Compiled(part, config.compile_buckets) if config.compile else part
        self.upper, self.optimizer = accelerator.prepare(compiled, self.raw_optimizer)
        # of the teacher: a part may be any module that is called as upper layers are
        self._per_token, self._n_outputs = prepared.train.outputs.per_token, prepared.teacher_upper.n_outputs
        kind = prepared.loss_inputs.handling.spec
        self._keeps_outputs, self._has_vectors = kind.keeps_outputs, kind.has_vectors
        self.profile = Profile(len(prepared.train.store), self._n_outputs if self._keeps_outputs else 0, self.device)
        self.steps = 0
        self._progress = 0.0

    def train(
        self, number: int, sources: list[Batches], planned: int, on_step: Callable[[int, int, torch.Tensor], object]
    ) -> Pass:
        """Train on every batch of a round's sources once, as far as `max_steps` allows.

        Parameters
        ----------
        number : int
            The round.
        sources : list of Batches
        planned : int
            Student steps of the whole run, over which the learning rate falls.
        on_step : callable
            As in `train_pass`.
        """
        config, before = self.config, self.steps
        rate = rate_of(config, planned)

        with self.costs.timed("student", lambda: synchronize(self.device)):
            did = train_pass(
                self.upper,
                self.optimizer,
                sources,
                accelerator=self.accelerator,
                objective=self.objective,
                progress=lambda step: (before + step) / planned,
                learning_rate=lambda step: rate(before + step),
                max_grad_norm=config.max_grad_norm,
                max_steps=config.max_steps - before if config.max_steps else None,
                rng=np.random.default_rng(derive_seed(config.seed, number, "order")),
                on_step=on_step,
                accumulation=config.gradient_accumulation,
            )
        self.steps += did.steps
        self._progress = self.steps / planned
        flops = count_flops(self.raw, did.lengths, training=True, **self.objective.asks)
        flops += self.objective.flops(did.lengths)
        self.costs.add("student", tokens=did.tokens, flops=flops)
        return did

    def train_agreement(self) -> float:
        """Agreement with the teacher on the examples of the latest pass; NaN without any."""
        return self.profile.agreement(self.prepared.train.outputs.logits, self.prepared.train.encoded)

    def profile_pass(self) -> None:
        """Fill the profile by a pass over the real data, dropout off, by what the losses make of outputs alone."""
        train, device = self.prepared.train, self.device
        with self.costs.timed("profile"):
            logits = predict(self.upper, train.store, self._n_outputs, self.accelerator, per_token=self._per_token)
            student = replace(train.outputs, logits=logits)
            self.profile.start_pass()
            for rows in self._profiled():
                index = torch.from_numpy(rows).to(device)
                labels, positions = train.targets.batch(rows, device)
                mine, theirs = (one.batch(train.store.offsets, rows, device) for one in (student, train.outputs))
                losses = self.objective.of_outputs(mine, theirs, labels, self._progress, positions)
                recorded = mine
                if not self._keeps_outputs:
                    both = (train.encoded.handling.compared(one, positions) for one in (mine, theirs))
                    recorded = alike(*both, vectors=self._has_vectors)
                self.profile.record(index, losses, recorded)

    def _profiled(self) -> list[NDArray[np.int64]]:
        """The examples in the batches in which a pass profiles them: all at once where nothing is padded."""
        store = self.prepared.train.store
        if not self._per_token:
            return [np.arange(len(store))]
        size = self.config.batch_size if self.objective.of_batch else INFERENCE_BATCH_SIZE
        return plan_batches(store.lengths, batch_size=size, batch_tokens=INFERENCE_BATCH_TOKENS)

    def predict(self, split: PreparedSplit) -> NDArray[np.float32]:
        """The student's outputs on a split: array of shape (n, n_outputs), or (total_tokens, n_outputs) per token."""
        with self.costs.timed("evaluate"):
            logits = predict(self.upper, split.store, self._n_outputs, self.accelerator, per_token=self._per_token)
            flops = count_flops(self.raw, split.store.lengths, training=False)
        self.costs.add("evaluate", tokens=int(split.store.offsets[-1]), flops=flops)
        return logits

    # ---- what samplers may ask

    def divergence_gradient(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What samplers that follow the gradient call."""
        return divergence_gradient(
            self.raw,
            self.prepared.teacher_upper,
            self.prepared.train.store,
            indices,
            temperature=self.config.temperature,
            encoded=self.prepared.train.encoded,
            device=self.device,
            autocast=autocast_for(self.device, self.prepared.precision),
        )

    def hidden_states(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What samplers that look at the student's hidden states call."""
        return mean_hidden_states(
            self.raw,
            self.prepared.train.store,
            indices,
            device=self.device,
            autocast=autocast_for(self.device, self.prepared.precision),
        )

    # ---- in and out of a checkpoint

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained tensors, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.raw.state_dict().items()}

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state as named tensors."""
        return optimizer_tensors(self.raw_optimizer, self._trained)

    def scaler_state(self) -> dict[str, Any]:
        """The gradient scaler's state, in half precision."""
        scaler = self.accelerator.scaler
        return scaler.state_dict() if scaler is not None else {}

    def restore(
        self,
        weights: dict[str, torch.Tensor],
        optimizer: dict[str, torch.Tensor] | None,
        profile: dict[str, torch.Tensor],
        scaler: dict[str, Any],
        steps: int,
    ) -> None:
        """Take over what a checkpoint holds; `optimizer` is None where it is the warm-up's."""
        self.raw.load_state_dict(weights)
        if optimizer is not None:
            load_optimizer_tensors(self.raw_optimizer, self._trained, optimizer)
        self.profile.losses = profile["losses"].to(self.device)
        self.profile.logits = profile["logits"].to(self.device)
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(scaler))
        self.steps = steps
