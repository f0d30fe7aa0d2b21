"""What the student is trained by: the weighted sum of a run's losses, one value per example.

This is the one place that goes through the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import BuildContext, LossBatch, ModelOutputs
from sage_kit.config import RunConfig
from sage_kit.errors import PluginError
from sage_kit.models.loss_inputs import BatchInputs, LossInputs
from sage_kit.models.split import UpperLayers, UpperOutput
from sage_kit.recipe import LossChoice
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.training.labelled_batches import LabelledBatch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Objective:
    """The losses of a run.

    Parameters
    ----------
    config : RunConfig
    inputs : LossInputs
    student : UpperLayers
        Not compiled, nor prepared by Accelerate.
    device : torch.device
    announce : callable
        Shows one line of text to the user.
    processes : int
        That share each batch.

    Attributes
    ----------
    inputs : LossInputs
    modules : ModuleDict
        By name, the losses that are modules: their parameters are trained with the student.
    uses_logits : bool
        Whether a loss is known to look at logits. Otherwise the head may get no gradient.
    """

    def __init__(
        self,
        config: RunConfig,
        inputs: LossInputs,
        student: UpperLayers,
        device: torch.device,
        announce: Callable[[str], None] = lambda text: None,
        processes: int = 1,
    ) -> None:
        self.inputs = inputs
        self._student = student
        self._batch_size = config.batch_size
        self._keeps_outputs = inputs.handling.spec.keeps_outputs
        self._losses: dict[str, Any] = {}
        for name, choice in inputs.losses.items():
            seed = derive_seed(config.seed, "loss", name)
            context = BuildContext(config, seed, str(device), announce=announce, sizes=inputs.sizes)
            self._losses[name] = choice.build(context)
        found = {name: loss for name, loss in self._losses.items() if isinstance(loss, torch.nn.Module)}
        self.modules = torch.nn.ModuleDict(found).to(device)
        self.uses_logits = any(choice.spec.of_outputs for choice in inputs.losses.values())
        compare = [name for name, choice in inputs.losses.items() if choice.spec.of_batch]
        if processes > 1 and compare:
            announce(
                f"loss {', '.join(map(repr, compare))} compares the examples of a batch, and each of the {processes} "
                "processes sees its share of them only: another number of processes gives another student"
            )

    def __call__(
        self,
        output: UpperOutput,
        batch: LabelledBatch,
        progress: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The training loss of each example of a batch, and what a profile records of the student's outputs.

        Parameters
        ----------
        output : UpperOutput
            What the student makes of the batch, with what `asks` says.
        batch : LabelledBatch
        progress : float
            Share of the run's student steps that are done, for weights that change.
        autocast : callable
            Gives the context in which models run.

        Returns
        -------
        losses : Tensor of shape (batch,), float32
        outputs : Tensor of shape (batch, n_outputs), or of shape (batch,) with an output per token and of embeddings
            The student's logits, or how far they agree with the teacher's.

        Raises
        ------
        PluginError
            When a loss fails, or returns something else than one number for each example.
        """
        seen = BatchInputs(
            self.inputs,
            self._student,
            output,
            batch.states,
            batch.mask,
            batch.logits,
            batch.positions,
            batch.hidden,
            batch.labels,
            autocast,
        )
        losses = self._sum(self.inputs.losses, seen.of, len(batch.labels), progress)
        return losses, output.logits if self._keeps_outputs else seen.alike()

    @property
    def asks(self) -> dict[str, Any]:
        """What the student must return beside logits, as keywords of `UpperLayers.forward`."""
        return {"hidden": self.inputs.hidden, "projections": self.inputs.projections}

    @property
    def of_batch(self) -> bool:
        """Whether a loss that looks at outputs alone is a property of the whole batch."""
        return any(choice.spec.of_batch for choice in self.inputs.losses.values() if choice.spec.of_outputs)

    def of_outputs(
        self,
        logits: torch.Tensor,
        teacher: torch.Tensor,
        labels: torch.Tensor,
        progress: float,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of each example by what the losses make of outputs alone; the others are left out.

        Parameters
        ----------
        logits, teacher : Tensor of shape (n, n_outputs) or (n, tokens, n_outputs)
        labels : Tensor of shape (n,) or (n, k)
        progress : float
        positions : Tensor of shape (n, tokens), bool, or None

        Returns
        -------
        Tensor of shape (n,), float32
        """
        losses = {name: choice for name, choice in self.inputs.losses.items() if choice.spec.of_outputs}
        student, its = (self.inputs.handling.compared(one, positions) for one in (logits, teacher))
        parts = []
        size = self._batch_size if self.of_batch else 1 << 62
        for rows in torch.arange(len(logits), device=logits.device).split(size):
            batch = LossBatch(
                ModelOutputs(student.logits[rows]), ModelOutputs(its.logits[rows]), labels[rows],
                regression=self.inputs.sizes.regression,
                positions=None if student.counts is None else student.counts[rows],
                outcomes=None if student.outcomes is None else student.outcomes[rows],
            )  # fmt: skip
            parts.append(self._sum(losses, dict.fromkeys(losses, batch).__getitem__, len(rows), progress))
        return torch.cat(parts)

    def _sum(
        self, losses: Iterable[str], batch_of: Callable[[str], LossBatch], rows: int, progress: float
    ) -> torch.Tensor:
        total: torch.Tensor | None = None
        for name in losses:
            choice = self.inputs.losses[name]
            value = choice.call(self._losses[name].per_example, batch_of(name))
            _check(choice, value, rows)
            value = choice.weight.at(progress) * value
            total = value if total is None else total + value
        assert total is not None, "a run has a loss"
        return total

    def flops(self, lengths: NDArray[np.int64]) -> int:
        """FLOPs that the losses add to training steps on examples of these lengths."""
        return self.inputs.flops(lengths)

    # ---- parameters of losses

    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that are trained with the student."""
        return [parameter for parameter in self.modules.parameters() if parameter.requires_grad]

    def average_gradients(self, accelerator: Accelerator) -> None:
        """Make the gradients of the losses' parameters the mean over all processes, as the student's are."""
        if accelerator.num_processes == 1:
            return
        for parameter in self.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(gradient, "mean")

    def states(self) -> dict[str, NDArray[Any]]:
        """The parameters and buffers for a checkpoint, under ``loss.<name>.<parameter>``."""
        return {f"loss.{name}": value.detach().cpu().numpy().copy() for name, value in self._tensors().items()}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `states` gave."""
        if self._tensors():
            self.modules.load_state_dict({name: torch.from_numpy(saved[f"loss.{name}"]) for name in self._tensors()})

    def _tensors(self) -> dict[str, torch.Tensor]:
        return dict(self.modules.state_dict())


def _check(choice: LossChoice, value: Any, rows: int) -> None:
    """Raise PluginError for what is no loss of each example; never waits for the device."""
    if not isinstance(value, torch.Tensor):
        raise PluginError(f"{choice} returned {type(value).__name__}, not a tensor of one value for each example")
    if value.shape != (rows,) or value.dtype != torch.float32:
        raise PluginError(
            f"{choice} returned {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}, not one "
            f"float32 value for each of the {rows} examples"
        )
