"""The synthetic examples of a finished round, lifted once more as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import TeacherView, TokenBatch, TokenText
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, RunDirectoryError
from sage_kit.models.vectors import flat_states
from sage_kit.models.view import teacher_view
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import RunDirectory
from sage_kit.storage.frozen import read_only
from sage_kit.synthesis.synthetic_set import FLAT, SyntheticSet
from sage_kit.system.devices import autocast_for, make_accelerator
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared, PreparedSplit

LABEL_TOLERANCE = 0.1
"""Largest difference, as a share of 1 + the largest logit, between labels made in different precisions."""


@dataclass(frozen=True, eq=False)
class LiftedRound:
    """Some synthetic examples of a round, lifted once more as in training, and their anchors.

    Attributes
    ----------
    config : RunConfig
    prepared : Prepared
    synthetic : SyntheticSet
        The whole round's.
    rows : array of shape (m,), int64
        Which of them these are.
    real, lifted : TokenBatch
        Token states of the anchors and of the synthetic examples, m rows each.
    """

    config: RunConfig
    prepared: Prepared
    synthetic: SyntheticSet
    rows: NDArray[np.int64]
    real: TokenBatch
    lifted: TokenBatch

    @property
    def anchors(self) -> NDArray[np.int64]:
        """The training examples that they start from, of shape (m,)."""
        return self.synthetic.anchors[self.rows]


def lift_round(directory: RunDirectory, plugins: Plugins, *, round: int | None = None, limit: int = 10) -> LiftedRound:
    """Lift some of a round's synthetic examples once more; the teacher's labels show that they are what they were.

    Parameters
    ----------
    directory : RunDirectory
    plugins : Plugins
        With whatever the run was made with.
    round : int or None
        None for the last one that has synthetic examples.
    limit : int
        Most examples; they are spread evenly over those that were trained on.

    Returns
    -------
    LiftedRound

    Raises
    ------
    RunDirectoryError
        When the run or the round has no synthetic examples, or they are no longer what they were.
    CompatibilityError
        When the run has no token states: ``granularity="pooled"``.
    SageError
        Of the kind that fits what is wrong with data or teacher.
    """
    config = directory.config()
    _require_token_states(config)
    recipe = resolve(config, plugins)
    synthetic = _load(directory, round)
    prepared = prepare(recipe, make_accelerator(config), Costs())
    kept = np.flatnonzero(synthetic.kept)
    rows = kept[np.unique(np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(np.int64))]
    lifted = _lift(recipe, prepared, synthetic, rows, directory)
    real = prepared.train.store.batch(synthetic.anchors[rows], prepared.device)
    return LiftedRound(config, prepared, synthetic, rows, real, lifted)


def view_of(config: RunConfig, prepared: Prepared) -> TeacherView:
    """What a decoder may use of a run's teacher; it learns from the training split and is scored on the dev split.

    The arrays are read-only.

    Raises
    ------
    CompatibilityError
        When the run has no token states.
    """
    _require_token_states(config)

    def text(split: PreparedSplit) -> TokenText:
        flat = {name: read_only(getattr(split.tokens, name)) for name in FLAT}
        return TokenText(**flat, states=read_only(flat_states(split.store, prepared.cache, prepared.device)))

    return teacher_view(
        prepared.teacher,
        prepared.input_layers,
        name=config.teacher,
        bypass=config.bypass,
        train=text(prepared.train),
        held_out=text(prepared.dev),
    )


def _require_token_states(config: RunConfig) -> None:
    if config.granularity == "pooled":
        raise CompatibilityError(
            "granularity is 'pooled', so an example is one vector and has no token states to decode: decode a run with "
            "granularity='token'"
        )


def _load(directory: RunDirectory, round: int | None) -> SyntheticSet:
    """A round's synthetic examples, at least one of which was trained on."""
    rounds = directory.rounds_with_synthetic()
    if not rounds:
        raise RunDirectoryError(
            f"{directory.path} has no synthetic examples: they are made from round 2 on, unless schedule is 'none'"
        )
    number = rounds[-1] if round is None else round
    if number not in rounds:
        listed = ", ".join(map(str, rounds))
        raise RunDirectoryError(
            f"{directory.path} has no synthetic examples of round {number}; it has those of {listed}"
        )
    synthetic = SyntheticSet.load(directory.synthetic(number))
    if not len(synthetic):
        raise RunDirectoryError(f"{directory.path}: the filter dropped every synthetic example of round {number}")
    return synthetic


def _lift(
    recipe: Recipe,
    prepared: Prepared,
    synthetic: SyntheticSet,
    rows: NDArray[np.int64],
    directory: RunDirectory,
) -> TokenBatch:
    """The token states of some rows, lifted in the batches and with the randomness of training."""
    store = prepared.train.store
    changed = RunDirectoryError(
        f"{directory.path}: the data, the teacher or a component has changed since the run, so its synthetic examples "
        "cannot be made again as they were"
    )
    if synthetic.anchors.max() >= len(store) or synthetic.vectors.shape[1] != store.pooled.shape[1]:
        raise changed
    synthesizer = prepared.synthesizer(recipe, lambda text: None, Costs())
    autocast = autocast_for(prepared.device, prepared.precision)
    found: dict[int, torch.Tensor] = {}
    for number, members in enumerate(synthesizer.plan(synthetic)):
        places = np.flatnonzero(np.isin(members, rows))
        if not len(places):
            continue
        batch = synthesizer.lift(synthetic, members, number)
        # of outputs per token none are kept, and the text is
        if synthetic.logits is not None and synthetic.logits.shape[1]:
            with torch.no_grad(), autocast():
                labels = prepared.teacher_upper(batch.states, batch.mask).logits.float().cpu().numpy()
            known = synthetic.logits[members]
            if np.abs(labels - known).max() > LABEL_TOLERANCE * (1 + np.abs(known).max()):
                raise changed
        found |= {int(members[place]): batch.states[place, batch.mask[place]] for place in places}
    return _padded([found[int(row)] for row in rows])


def joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of several batches, one after the other, padded with zeros."""
    return _padded([states[real] for batch in batches for states, real in zip(batch.states, batch.mask, strict=True)])


def _padded(rows: list[torch.Tensor]) -> TokenBatch:
    """A batch of rows of shape (tokens, dim)."""
    states = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    return TokenBatch(states, torch.arange(states.shape[1], device=states.device) < lengths[:, None])
