"""The student's steps: labelled batches, the pass over them, the learning rate, and the loss profile that falls out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.data.metrics import agreement
from sage_kit.models.relations import TeacherRelations
from sage_kit.models.split import UpperLayers
from sage_kit.models.vectors import INFERENCE_BATCH_SIZE, INFERENCE_BATCH_TOKENS, VectorStore
from sage_kit.synthesis.synthesizer import Synthesizer, SyntheticSet
from sage_kit.training.losses import LossSettings, instance_losses
from sage_kit.training.preparation import Prepared, PreparedSplit

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class LabelledBatch:
    """What one student step needs.

    Attributes
    ----------
    states : Tensor of shape (batch, tokens, dim)
        Token states.
    mask : Tensor of shape (batch, tokens), bool
        Real tokens.
    logits : Tensor of shape (batch, n_outputs)
        The teacher's.
    labels : Tensor of shape (batch,)
        Gold, or the teacher's for synthetic examples.
    hidden : Tensor of shape (batch, tokens, n_layers, dim) or None
        The teacher's hidden states.
    rows : Tensor of shape (batch,), int64
        Where the examples stand in their split or set.
    padded : bool
        Whether the mask is false anywhere.
    """

    states: torch.Tensor
    mask: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    hidden: torch.Tensor | None
    rows: torch.Tensor
    padded: bool


class Batches(Protocol):
    """A planned sequence of labelled batches."""

    profile: Profile

    def __len__(self) -> int: ...

    def fetch(self, number: int) -> LabelledBatch:
        """The batch of that number."""
        ...


class Profile:
    """Loss and student logits of each example, gathered on the device while training goes on.

    Parameters
    ----------
    rows, n_outputs : int
        Sizes.
    device : torch.device

    Attributes
    ----------
    losses : Tensor of shape (rows,), float32
        NaN for examples not seen yet.
    logits : Tensor of shape (rows, n_outputs), float32
        The student's.
    fresh : Tensor of shape (rows,), bool
        Seen since `start_pass`.
    """

    def __init__(self, rows: int, n_outputs: int, device: torch.device) -> None:
        self.losses = torch.full((rows,), float("nan"), device=device)
        self.logits = torch.zeros(rows, n_outputs, device=device)
        self.fresh = torch.zeros(rows, dtype=torch.bool, device=device)

    def start_pass(self) -> None:
        """Forget which examples were seen; their losses stay until they are seen again."""
        self.fresh.zero_()

    def record(self, rows: torch.Tensor, losses: torch.Tensor, logits: torch.Tensor) -> None:
        """Take over the losses and logits of one batch; never waits for the device."""
        self.losses[rows] = losses.detach()
        self.logits[rows] = logits.detach().float()
        self.fresh[rows] = True

    def merge(self, accelerator: Accelerator) -> None:
        """Bring together what several processes saw."""
        if accelerator.num_processes == 1:
            return
        seen = self.fresh.float()
        count = accelerator.reduce(seen, "sum").clamp(min=1)
        losses = accelerator.reduce(torch.where(self.fresh, self.losses, 0.0), "sum") / count
        logits = accelerator.reduce(self.logits * seen[:, None], "sum") / count[:, None]
        fresh = accelerator.reduce(seen, "sum") > 0
        self.losses = torch.where(fresh, losses, self.losses)
        self.logits = torch.where(fresh[:, None], logits, self.logits)
        self.fresh = fresh

    def attribute(self, anchors: NDArray[np.int64], children: Profile) -> None:
        """Give anchors that were not seen in this pass the mean loss of their synthetic examples."""
        index = torch.from_numpy(anchors).to(self.losses.device)
        index, losses, logits = index[children.fresh], children.losses[children.fresh], children.logits[children.fresh]
        count = torch.zeros_like(self.losses).index_add_(0, index, torch.ones_like(losses))
        take = (count > 0) & ~self.fresh
        divisor = count.clamp(min=1)
        self.losses = torch.where(
            take, torch.zeros_like(self.losses).index_add_(0, index, losses) / divisor, self.losses
        )
        summed = torch.zeros_like(self.logits).index_add_(0, index, logits)
        self.logits = torch.where(take[:, None], summed / divisor[:, None], self.logits)

    def mean_loss(self) -> float:
        """Mean loss of the examples of this pass; NaN without any."""
        return float(self.losses[self.fresh].mean()) if bool(self.fresh.any()) else float("nan")

    def agreement(self, prepared: Prepared) -> float:
        """Agreement with the teacher on the examples of this pass; NaN without any."""
        fresh = self.fresh.cpu().numpy()
        if not fresh.any():
            return float("nan")
        return agreement(self.logits.cpu().numpy()[fresh], prepared.train.outputs.logits[fresh], prepared.data.spec)


class RealBatches:
    """Batches of real examples.

    Parameters
    ----------
    split : PreparedSplit
    profile : Profile
        Of the split's size.
    config : RunConfig
    device : torch.device
    rng : numpy Generator
        For order and composition.
    subset : array of int64 or None
        The examples to take; None for all.
    """

    def __init__(
        self,
        split: PreparedSplit,
        profile: Profile,
        config: RunConfig,
        device: torch.device,
        rng: np.random.Generator,
        subset: NDArray[np.int64] | None = None,
    ) -> None:
        self.profile = profile
        self._split = split
        self._device = device
        lengths = split.store.lengths
        chosen = np.arange(len(lengths)) if subset is None else subset
        plan = plan_batches(lengths[chosen], batch_size=config.batch_size, batch_tokens=config.batch_tokens, rng=rng)
        self._plan = [chosen[rows] for rows in plan]

    def __len__(self) -> int:
        return len(self._plan)

    def fetch(self, number: int) -> LabelledBatch:
        """The batch of that number."""
        rows, device = self._plan[number], self._device
        store, outputs = self._split.store, self._split.outputs
        tokens = store.batch(rows, device)
        lengths = store.offsets[rows + 1] - store.offsets[rows]
        return LabelledBatch(
            states=tokens.states,
            mask=tokens.mask,
            logits=torch.from_numpy(outputs.logits[rows]).to(device, non_blocking=True),
            labels=torch.from_numpy(self._split.labels[rows]).to(device, non_blocking=True),
            hidden=outputs.hidden_batch(store.offsets, rows, device),
            rows=torch.from_numpy(rows).to(device, non_blocking=True),
            padded=bool(lengths.min() != lengths.max()),
        )


class SyntheticBatches:
    """Batches of a labelled synthetic set, lifted as they are fetched; those that a filter emptied are left out.

    Every process must plan the same batches, so all of them need the same `synthetic.kept`.

    Parameters
    ----------
    synthesizer : Synthesizer
    synthetic : SyntheticSet
        Labelled.
    device : torch.device
    regression : bool
    """

    def __init__(
        self, synthesizer: Synthesizer, synthetic: SyntheticSet, device: torch.device, regression: bool
    ) -> None:
        if synthetic.logits is None:
            raise ValueError("the synthetic set has no labels")
        self.profile = Profile(len(synthetic.anchors), synthetic.logits.shape[1], device)
        self.synthetic = synthetic
        self._synthesizer = synthesizer
        self._device = device
        plan = enumerate(synthesizer.plan(synthetic))
        # with its number in the plan, which seeds the lift
        self._plan = [(number, rows) for number, rows in plan if synthetic.kept[rows].any()]
        self._logits = torch.from_numpy(synthetic.logits).to(device)
        self._labels = self._logits[:, 0] if regression else self._logits.argmax(-1)

    def __len__(self) -> int:
        return len(self._plan)

    def fetch(self, number: int) -> LabelledBatch:
        """The batch of that number, without the examples that a filter dropped."""
        number, rows = self._plan[number]
        kept = self.synthetic.kept[rows]
        tokens = self._synthesizer.lift(self.synthetic, rows, number)
        states, mask = tokens.states, tokens.mask
        hidden = self.synthetic.hidden[number].float() if self.synthetic.hidden else None
        if not kept.all():
            keep = torch.from_numpy(kept).to(self._device)
            states, mask, rows = states[keep], mask[keep], rows[kept]
            hidden = None if hidden is None else hidden[keep]
        index = torch.from_numpy(rows).to(self._device, non_blocking=True)
        # whether a lift left padding is not known without asking the device, so the mask is always used
        return LabelledBatch(states, mask, self._logits[index], self._labels[index], hidden, index, padded=True)


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


def make_optimizer(upper: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over the upper layers' trainable parameters; no weight decay for biases and LayerNorms."""
    parameters = [parameter for parameter in upper.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def train_pass(
    upper: torch.nn.Module,
    optimizer: Any,
    sources: Sequence[Batches],
    *,
    accelerator: Accelerator,
    settings: LossSettings,
    student_layers: Sequence[int],
    learning_rate: Callable[[int], float],
    max_grad_norm: float,
    max_steps: int | None,
    rng: np.random.Generator,
    on_step: Callable[[int, int, torch.Tensor], None],
    relations: TeacherRelations | None = None,
) -> Pass:
    """Train on every batch of the sources once, in random order, and profile the losses on the way.

    Nothing in here waits for the device.

    Parameters
    ----------
    upper : Module
        The student's upper layers, prepared by Accelerate.
    optimizer : Optimizer
        Prepared by Accelerate.
    sources : sequence of Batches
    accelerator : Accelerator
    settings : LossSettings
    student_layers : sequence of int
        Blocks (from 1) that the hidden-state loss pairs with the first ones kept of the teacher.
    learning_rate : callable
        Maps the step's number in this pass, from 0, to the learning rate.
    max_grad_norm : float
        0 for no clipping.
    max_steps : int or None
        Stop after so many steps.
    rng : numpy Generator
        For the order.
    on_step : callable
        Told the steps done, the steps in all, and the mean loss as a tensor.
    relations : TeacherRelations or None
        The teacher's side of the relations loss; None where it is off.

    Returns
    -------
    Pass
    """
    upper.train()
    for source in sources:
        source.profile.start_pass()
    order = [(source, number) for source in sources for number in range(len(source))]
    order = [order[i] for i in rng.permutation(len(order))]
    if max_steps is not None:
        order = order[: max_steps * accelerator.num_processes]
    order = _share(order, accelerator)
    steps, padded_tokens = 0, 0
    lengths: list[torch.Tensor] = []
    for source, number in order:
        batch = source.fetch(number)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(steps)
        output = upper(
            batch.states,
            batch.mask if batch.padded else None,
            hidden=bool(student_layers),
            projections=relations is not None,
        )
        losses = instance_losses(
            settings,
            output.logits,
            batch.logits,
            batch.labels,
            student_hidden=(
                torch.stack([output.hidden[layer - 1] for layer in student_layers], dim=2) if student_layers else None
            ),
            teacher_hidden=None if batch.hidden is None else batch.hidden[:, :, : len(student_layers)],
            student_projections=output.projections,
            teacher_projections=None if relations is None else _projections_of(relations, batch, accelerator),
            mask=batch.mask,
        )
        loss = losses.mean()
        accelerator.backward(loss)
        if max_grad_norm:
            accelerator.clip_grad_norm_(upper.parameters(), max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        source.profile.record(batch.rows, losses, output.logits)
        lengths.append(batch.mask.sum(1))
        padded_tokens += batch.mask.numel()
        steps += 1
        on_step(steps, len(order), loss.detach())
    for source in sources:
        source.profile.merge(accelerator)
    flat = torch.cat(lengths).cpu().numpy() if lengths else np.zeros(0, np.int64)
    return Pass(steps, int(flat.sum()), padded_tokens, flat)


def _projections_of(relations: TeacherRelations, batch: LabelledBatch, accelerator: Accelerator) -> torch.Tensor:
    """The teacher's queries, keys and values on a batch, in the precision of the run."""
    with accelerator.autocast():
        return relations.projections(batch.states, batch.hidden)


def predict(
    upper: torch.nn.Module,
    store: VectorStore,
    n_outputs: int,
    accelerator: Accelerator,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Logits on a split, dropout off: array of shape (n, n_outputs), float32, the same in every process."""
    upper.eval()
    device = accelerator.device
    logits = torch.zeros(len(store), n_outputs, device=device)
    batches = plan_batches(store.lengths, batch_size=INFERENCE_BATCH_SIZE, batch_tokens=INFERENCE_BATCH_TOKENS)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    with torch.no_grad():
        for done, rows in enumerate(mine, start=1):
            batch = store.batch(rows, device)
            with accelerator.autocast():
                output = upper(batch.states, batch.mask)
            logits[torch.from_numpy(rows).to(device)] = output.logits.float()
            on_step(done, len(mine))
    result: NDArray[np.float32] = accelerator.reduce(logits, "sum").cpu().numpy()
    return result


def profile_pass(
    upper: torch.nn.Module,
    prepared: Prepared,
    profile: Profile,
    settings: LossSettings,
    accelerator: Accelerator,
) -> None:
    """Fill the profile by a pass of the student over the real data, dropout off, by what the losses make of outputs."""
    logits = torch.from_numpy(predict(upper, prepared.train.store, prepared.data.spec.n_outputs, accelerator)).to(
        accelerator.device
    )
    teacher = torch.from_numpy(prepared.train.outputs.logits).to(accelerator.device)
    labels = torch.from_numpy(prepared.train.labels).to(accelerator.device)
    profile.start_pass()
    profile.record(
        torch.arange(len(logits), device=logits.device), instance_losses(settings, logits, teacher, labels), logits
    )


def count_flops(
    upper: UpperLayers, lengths: NDArray[np.int64], *, training: bool, hidden: bool = False, projections: bool = False
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
    projections : bool
        Whether the last block's queries, keys and values are asked for.
    """
    counted = upper.training_flops if training else upper.flops
    return counted(lengths, hidden, projections)


def _share(items: list[Any], accelerator: Accelerator) -> list[Any]:
    """The batches of this process: as many as of any other, for which the first ones may be used again."""
    processes = accelerator.num_processes
    if processes == 1 or not items:
        return items
    missing = -len(items) % processes
    padded = items + [items[i % len(items)] for i in range(missing)]
    return padded[accelerator.process_index :: processes]


def _named_parameters(
    optimizer: torch.optim.Optimizer, upper: torch.nn.Module
) -> Iterable[tuple[str, torch.nn.Parameter]]:
    """Names and parameters of upper layers that the optimizer updates."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [(name, parameter) for name, parameter in upper.named_parameters() if id(parameter) in known]


def optimizer_tensors(optimizer: torch.optim.Optimizer, upper: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors on the CPU: ``<parameter>|<entry>``."""
    tensors = {}
    for name, parameter in _named_parameters(optimizer, upper):
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{entry}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, upper: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    """Take over what `optimizer_tensors` returned."""
    for name, parameter in _named_parameters(optimizer, upper):
        prefix = f"{name}|"
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {entry: value.to(parameter.device) for entry, value in state.items()}
