"""Runs of a loop of a study's own: plain distillation by the usual loop from something else than usual.

Batches, losses, optimizer, learning rate, seeds, evaluation and records are those of `sage_kit.distill`, whose loop
this is. A run is made by one process and keeps no checkpoints: one that was killed is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.distill import Loop
from sage_kit.errors import ConfigError, SageError
from sage_kit.models.encoder_parts import embed, embedder
from sage_kit.models.families import family_of
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import RunDirectory
from sage_kit.system.devices import make_accelerator
from sage_kit.training.prepared import Prepared
from sage_kit.training.run_events import RunEvents

Itself = TypeVar("Itself", bound="TrainedEmbeddings")

PLAIN: Mapping[str, Any] = {"schedule": "none", "warmup_epochs": 0}  # settings that every such run must have


class TrainedEmbeddings(nn.Module):
    """A model's embeddings, trained or frozen: the base of modules that begin with them."""

    def __init__(self, model: PreTrainedModel, freeze: bool) -> None:
        super().__init__()
        family = family_of(model.config)
        self.embeddings = embedder(model, family).requires_grad_(not freeze)
        self._takes_types = family.token_types
        self._uses_types = family.uses_token_types(model.config)
        self._frozen = freeze

    def train(self: Itself, mode: bool = True) -> Itself:
        """Dropout on or off, that of frozen embeddings always off."""
        super().train(mode)
        self.embeddings.train(mode and not self._frozen)
        return self

    def states(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Token states (batch, tokens, dim) of ids and types, (batch, tokens) each."""
        kinds = (types if self._uses_types else torch.zeros_like(ids)) if self._takes_types else None
        return embed(self.embeddings, ids, kinds)


class UnsavedLoop(Loop):
    """The usual loop, which keeps no checkpoints."""

    def save(self, round: int, warmup: Any = None) -> None:
        """Keep no checkpoint."""


Make = Callable[[Recipe, "Accelerator", Costs], tuple[Prepared, type[UnsavedLoop]]]
"""Prepares a run, and says which loop makes it."""


def run_loop(
    config: RunConfig, plugins: Plugins, plugin_files: list[str], make: Make, *, who: str, needs: Mapping[str, Any]
) -> tuple[RunDirectory, dict[str, Any]]:
    """Distil into a new run directory; the counterpart of `sage_kit.distill.run`. `summary`: What summary.json holds,
    with the keys of any run's.
    """
    for name, value in {**PLAIN, **needs}.items():
        if getattr(config, name) != value:
            raise ConfigError(f"{name} is {getattr(config, name)!r}, but {who} needs {value!r}")
    recipe = resolve(config, plugins)
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise ConfigError(f"{who} is trained by one process: leave out `accelerate launch`")
    directory = RunDirectory.create(config, plugin_files=plugin_files, device=str(accelerator.device))
    plugins.remove_observers()
    events, costs = RunEvents(plugins, True), Costs()
    try:
        events.add_observers(recipe, str(accelerator.device))
        prepared, loop = make(recipe, accelerator, costs)
        made = loop(recipe, directory, accelerator, prepared, costs, events)
        events.tell(plugins.run_started)
        return directory, made.go()
    except SageError:
        directory.remove_if_unused()
        raise
    finally:
        plugins.remove_observers()
        directory.unlock()
