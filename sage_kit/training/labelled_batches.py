"""Batches that the student trains on: real examples, and synthetic ones that are lifted as they are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.models.split import InputLayers
from sage_kit.recipe import Recipe
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.transfer import Placing, pinned, to_device
from sage_kit.training.prepared import Prepared, PreparedSplit
from sage_kit.training.profile import Profile

ALL = slice(None)
"""Every example of a batch."""


@dataclass(frozen=True)
class LabelledBatch:
    """What one student step needs.

    Attributes
    ----------
    states : Tensor of shape (batch, tokens, dim)
        Token states.
    mask : Tensor of shape (batch, tokens), bool
        Real tokens.
    logits : Tensor of shape (batch, n_outputs) or (batch, tokens, n_outputs)
        The teacher's.
    labels : Tensor of shape (batch,) or (batch, k)
        Gold, or the teacher's for synthetic examples.
    hidden : Tensor of shape (batch, tokens, n_layers, dim) or None
        The teacher's hidden states.
    rows : Tensor of shape (batch,), int64
        Where the examples stand in their split or set.
    padded : bool
        Whether the mask is false anywhere.
    positions : Tensor of shape (batch, tokens), bool, or None
        Where outputs count; None for one an example.
    lengths : array of shape (batch,), int64, or None
        What the mask says, where the host knows it.
    """

    states: torch.Tensor
    mask: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    hidden: torch.Tensor | None
    rows: torch.Tensor
    padded: bool
    positions: torch.Tensor | None = None
    lengths: NDArray[np.int64] | None = None


class Batches(Protocol):
    """A planned sequence of labelled batches."""

    profile: Profile

    def __len__(self) -> int: ...

    def examples(self, number: int) -> int:
        """How many examples the batch of that number has."""
        ...

    def gather(self, number: int, part: slice = ALL) -> Placing[LabelledBatch]:
        """Gather on the host what the batch of that number, or a part of its examples, is made of.

        May be called in another thread. What it returns makes the batch on the device.
        """
        ...


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

    def examples(self, number: int) -> int:
        """How many examples the batch of that number has."""
        return len(self._plan[number])

    def gather(self, number: int, part: slice = ALL) -> Placing[LabelledBatch]:
        """Gathers the batch of that number, or a part of its examples; what it returns makes it on the device."""
        rows, device = self._plan[number][part], self._device
        store, outputs = self._split.store, self._split.outputs
        tokens, targets = store.gather(rows, device), self._split.targets.gather(rows, device)
        logits = outputs.gather(store.offsets, rows, device)
        hidden = outputs.gather_hidden(store.offsets, rows, device)
        lengths, index = store.lengths_of(rows), pinned(torch.from_numpy(rows), device)

        def place() -> LabelledBatch:
            batch = tokens()
            labels, positions = targets()
            return LabelledBatch(
                states=batch.states,
                mask=batch.mask,
                logits=logits(),
                labels=labels,
                hidden=hidden(),
                rows=to_device(index, device),
                padded=bool(lengths.min() != lengths.max()),
                positions=positions,
                lengths=lengths,
            )

        return place


class SyntheticBatches:
    """Batches of a labelled synthetic set, lifted as they are fetched; those that a filter emptied are left out.

    Every process must plan the same batches, so all of them need the same `synthetic.kept`.

    Parameters
    ----------
    synthesizer : Synthesizer
    synthetic : SyntheticSet
        Labelled.
    device : torch.device
    real : PreparedSplit
        What the anchors are of.
    own_input : InputLayers or None
        The student's own input layers; None where it takes the teacher's.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        synthetic: SyntheticSet,
        device: torch.device,
        real: PreparedSplit,
        own_input: InputLayers | None = None,
    ) -> None:
        if synthetic.logits is None:
            raise ValueError("the synthetic set has no labels")
        self._handling, self._targets = real.encoded.handling, real.targets
        width = synthetic.logits.shape[1] if self._handling.spec.keeps_outputs else 0
        self.profile = Profile(len(synthetic.anchors), width, device)
        self.synthetic = synthetic
        self._synthesizer = synthesizer
        self._device = device
        self._own_input = own_input
        plan = enumerate(synthesizer.plan(synthetic))
        # with its number in the plan, which seeds the lift
        self._plan = [(number, rows) for number, rows in plan if synthetic.kept[rows].any()]
        self._logits = torch.from_numpy(synthetic.logits).to(device)

    def __len__(self) -> int:
        return len(self._plan)

    def examples(self, number: int) -> int:
        """How many examples of the batch of that number a filter has kept."""
        return int(self.synthetic.kept[self._plan[number][1]].sum())

    def gather(self, number: int, part: slice = ALL) -> Placing[LabelledBatch]:
        """Gathers the batch of that number without the examples that a filter dropped, or a part of those.

        What it returns makes the batch on the device. It is lifted whole in any case: what is drawn for an example
        depends on its place in the batch.
        """
        number, rows = self._plan[number]
        device, synthetic = self._device, self.synthetic
        kept = synthetic.kept[rows]
        if part != ALL:
            kept = kept & np.isin(np.arange(len(rows)), np.flatnonzero(kept)[part])
        tokens = self._synthesizer.gather(synthetic, rows, number, self._own_input)
        # of the whole batch, so that they are as wide as the states, whichever examples are left
        gathered = self._targets.gather_positions(synthetic.anchors[rows], device)
        is_whole, left = bool(kept.all()), rows[kept]
        chosen, index = (pinned(torch.from_numpy(one), device) for one in (np.flatnonzero(kept), left))

        def place() -> LabelledBatch:
            batch, positions = tokens(), gathered()
            states, mask = batch.states, batch.mask
            hidden = synthetic.hidden[number].float() if synthetic.hidden else None
            logits = synthetic.token_logits[number] if synthetic.token_logits else None
            if not is_whole:
                keep = to_device(chosen, device)
                states, mask = states[keep], mask[keep]
                hidden = None if hidden is None else hidden[keep]
                logits = None if logits is None else logits[keep]
                positions = None if positions is None else positions[keep]
            where = to_device(index, device)
            lengths = None if batch.lengths is None else batch.lengths[kept]
            logits = self._logits[where] if logits is None else logits
            labels = self._handling.answers(self._handling.compared(logits, positions))
            # whether a lift left padding is not always known, so the mask is always used
            return LabelledBatch(
                states, mask, logits, labels, hidden, where, padded=True, positions=positions, lengths=lengths
            )

        return place


def sources_of(
    config: RunConfig,
    prepared: Prepared,
    profile: Profile,
    synthesizer: Synthesizer | None,
    synthetic: SyntheticSet | None,
    rng: np.random.Generator,
) -> list[Batches]:
    """What a round trains on: real batches, synthetic ones beside them, or synthetic ones in the place of some.

    Parameters
    ----------
    config : RunConfig
        Says which by `mix`.
    prepared : Prepared
    profile : Profile
        Of the real examples.
    synthesizer : Synthesizer or None
    synthetic : SyntheticSet or None
        Labelled; None, or one without examples, for a round of real data.
    rng : numpy Generator
        Draws the real examples that stay, their order and batches.
    """
    train, device = prepared.train, prepared.device
    if synthesizer is None or synthetic is None or not len(synthetic):
        return [RealBatches(train, profile, config, device, rng)]
    made = SyntheticBatches(synthesizer, synthetic, device, prepared.anchors, prepared.own_input)
    if config.mix == "add":
        return [RealBatches(train, profile, config, device, rng), made]
    real = len(train.store) - min(len(synthetic), len(train.store))
    subset = np.sort(rng.choice(len(train.store), real, replace=False))
    if real:
        return [RealBatches(train, profile, config, device, rng, subset), made]
    profile.start_pass()
    return [made]


def planned_steps(recipe: Recipe, train: PreparedSplit) -> int:
    """Student steps over which the learning rate falls: what the settings say, or what the rounds would take."""
    config = recipe.config
    if config.lr_steps or config.max_steps:
        return config.lr_steps or config.max_steps
    limits = {"batch_size": config.batch_size, "batch_tokens": config.batch_tokens}
    per_round = len(plan_batches(train.store.lengths, **limits, rng=np.random.default_rng(0)))
    added = per_round * config.synthetic_ratio if config.schedule != "none" and config.mix == "add" else 0
    with_synthetic = max(0, config.rounds + 1 - recipe.first_synthetic)
    return max(1, round((config.rounds * per_round + with_synthetic * added) / config.gradient_accumulation))
