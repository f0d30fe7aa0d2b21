"""The synthetic examples of each round: made by one process, labelled by all, kept in the run directory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import Compared
from sage_kit.components.records import Costs
from sage_kit.data.metrics import one_sided
from sage_kit.errors import RunDirectoryError
from sage_kit.models.compiled import Compiled
from sage_kit.recipe import Recipe
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.directory import COORDINATES
from sage_kit.storage.files import disk_errors, write_bytes
from sage_kit.storage.tensorfile import dumps
from sage_kit.synthesis.labelling import label_synthetic
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.devices import autocast_for, synchronize
from sage_kit.system.processes import from_main
from sage_kit.training.component_state import give_back, state_of
from sage_kit.training.learner import Learner
from sage_kit.training.losses import example_divergence
from sage_kit.training.map_ahead import MapAhead, fits_ahead, may_fit_ahead
from sage_kit.training.prepared import Prepared
from sage_kit.training.run_events import OnStep, RunEvents
from sage_kit.training.steps import count_flops

if TYPE_CHECKING:
    from accelerate import Accelerator

STATEFUL_KINDS = ("sampler", "filter")
"""Components of the synthesis that may carry something from round to round."""

States = dict[str, NDArray[Any]]
"""What components carry, under ``<kind>.<entry>``."""


class RoundSynthesis:
    """Makes, labels and keeps the synthetic examples of each round.

    Parameters
    ----------
    recipe : Recipe
    prepared : Prepared
    learner : Learner
        Whose losses and outputs the examples follow.
    directory : RunDirectory
    accelerator : Accelerator
    costs : Costs
    events : RunEvents

    Attributes
    ----------
    synthesizer : Synthesizer or None
        From the first round on that has synthetic examples.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        learner: Learner,
        directory: RunDirectory,
        accelerator: Accelerator,
        costs: Costs,
        events: RunEvents,
    ) -> None:
        self.recipe = recipe
        self.prepared = prepared
        self.learner = learner
        self.directory = directory
        self.accelerator = accelerator
        self.costs = costs
        self.events = events
        self.synthesizer: Synthesizer | None = None
        teacher: Any = prepared.teacher_upper
        self._teacher: Any = Compiled(teacher, recipe.config.compile_buckets) if recipe.config.compile else teacher
        self._static: SyntheticSet | None = None
        self._saved: States = {}
        self._ahead: MapAhead | None = None

    def of_round(
        self, number: int, history: list[NDArray[np.float32]], on_step: OnStep
    ) -> tuple[SyntheticSet | None, int]:
        """A round's labelled synthetic examples, new ones, the static ones or none, and how many tokens were labelled.

        Parameters
        ----------
        number : int
            The round.
        history : list of array of shape (n,)
            The losses of the real examples after each round so far.
        on_step : callable
            Told how far the teacher is.
        """
        config, first = self.recipe.config, self.recipe.first_synthetic
        if config.schedule == "none" or number < first:
            self._fit_ahead()
            return None, 0
        if self._static is not None:
            return self._static, 0
        main, synthesizer = self.accelerator.is_main_process, self._built()
        # a resumed run: the examples of the first round that had some are on disk
        is_found = config.schedule == "static" and number > first
        # one process draws, inverts and filters, and the others receive what it made
        made: SyntheticSet | None = None
        if main:
            path = self.directory.synthetic(first)
            made = SyntheticSet.load(path) if is_found else self._create(synthesizer, number, history)
        synthetic = from_main(cast(SyntheticSet, made), self.accelerator)
        labelled = self._label(synthesizer, synthetic, on_step, is_found=is_found)
        if not is_found:
            if main:
                synthesizer.filter_labelled(synthetic)
            synthetic.kept = from_main(synthetic.kept, self.accelerator)
            synthetic = synthesizer.without_dropped(synthetic)
            self._tell_of_labels(number, synthetic)
        if config.schedule == "static":
            self._static = synthetic
        if is_found:  # saved, told and counted when it was made
            return synthetic, 0
        if main:
            synthetic.save(self.directory.synthetic(number))
            if synthesizer.coordinates is not None:
                self._save_map(synthesizer.coordinates)
        self.events.tell(self.recipe.plugins.synthetic_created, number, synthetic)
        if not len(synthetic):
            self.events.message(
                f"filter {config.filter!r} dropped every synthetic example; round {number} uses real data"
            )
        return synthetic, labelled

    def _built(self) -> Synthesizer:
        if self.synthesizer is None:
            self.synthesizer = self.prepared.synthesizer(self.recipe, self.events.message, self.costs)
            if self.accelerator.is_main_process:  # the one that draws and filters
                for kind in STATEFUL_KINDS:
                    give_back(self.recipe[kind], getattr(self.synthesizer, kind), self._saved)
        return self.synthesizer

    def _fit_ahead(self) -> None:
        """Let the map be fitted while the student trains on real examples, where that costs the student no time."""
        if self._ahead is not None or not self.accelerator.is_main_process or not fits_ahead(self.prepared.device):
            return
        if not self.recipe.uses_map:
            return
        # not the one of later rounds: its sampler and filter are built when they are needed
        synthesizer = self.prepared.synthesizer(self.recipe, self.events.message, self.costs)
        if not may_fit_ahead(self.recipe, self.prepared, synthesizer):
            return
        self._ahead = MapAhead(self.recipe, self.prepared, synthesizer)
        self.events.message(f"{self.recipe['reducer']}: fitting in a process of its own, while the student trains")

    def close(self) -> None:
        """End what still works ahead."""
        if self._ahead is not None:
            self._ahead.end()

    def _create(self, synthesizer: Synthesizer, number: int, history: list[NDArray[np.float32]]) -> SyntheticSet:
        """New synthetic examples, without labels."""
        n = len(self.prepared.anchors.store)
        if self._ahead is not None:
            # it fills the cache, so what fails there fails again below, where it is told
            self.costs.add("reduce", self._ahead.wait())
        return synthesizer.create(
            number,
            max(1, round(self.recipe.config.synthetic_ratio * n)),
            history[-1] if history else np.full(n, np.nan, np.float32),
            self.learner.profile.logits.cpu().numpy(),
            self.learner.divergence_gradient,
            self.learner.hidden_states,
            np.stack(history) if history else np.zeros((0, n), np.float32),
        )

    def _label(self, synthesizer: Synthesizer, synthetic: SyntheticSet, on_step: OnStep, *, is_found: bool) -> int:
        """Let the teacher label a set, several processes sharing its batches; returns the tokens that were labelled.

        Of one that was found and had been labelled before, time counts alone.
        """
        accelerator, prepared = self.accelerator, self.prepared
        with_student = synthesizer.needs_student and not is_found
        device, hidden = accelerator.device, bool(prepared.teacher_layers)
        by_token = hidden or prepared.anchors.outputs.per_token
        with self.costs.timed("teacher", lambda: synchronize(device)):
            tokens = label_synthetic(
                synthesizer,
                synthetic,
                self._teacher,
                teachers=prepared.teachers,
                student_input=prepared.own_input,
                hidden_layers=prepared.teacher_layers,
                device=device,
                autocast=autocast_for(device, prepared.precision),
                on_step=on_step,
                # what there is per token is kept where it is used, so each process then labels all
                mine=lambda number: by_token or number % accelerator.num_processes == accelerator.process_index,
                student=self.learner.raw if with_student else None,
                divergence=self._divergence,
            )
            if accelerator.num_processes > 1 and not by_token:
                for name in ("logits", "student_logits", "divergences"):
                    if getattr(synthetic, name) is not None:
                        merged = accelerator.reduce(torch.from_numpy(getattr(synthetic, name)).to(device), "sum")
                        setattr(synthetic, name, merged.cpu().numpy())
                tokens = int(accelerator.reduce(torch.tensor(tokens, device=device), "sum"))
        tokens *= len(prepared.teachers.all)
        if is_found:
            return tokens
        lengths = prepared.anchors.store.lengths[synthetic.anchors]
        flops = count_flops(prepared.teacher_upper, lengths, training=False, hidden=hidden)
        flops += sum(count_flops(one.upper, lengths, training=False) for one in prepared.teachers.others)
        self.costs.add("teacher", tokens=tokens, flops=flops)
        if with_student:
            # its seconds are among the teacher's: both read the same batches in turn
            self.costs.add("choose", flops=count_flops(self.learner.raw, lengths, training=False))
        return tokens

    @property
    def _divergence(self) -> Callable[[Compared, Compared], torch.Tensor] | None:
        """Of outputs that are neither classes nor numbers, whose logits a filter cannot compare by itself."""
        if not self.prepared.data.spec.is_structured:
            return None
        return partial(example_divergence, regression=self.prepared.loss_inputs.sizes.regression)

    def _save_map(self, coordinates: NDArray[np.float32]) -> None:
        """Keep the map beside the run, for pictures, whatever becomes of the cache."""
        path = self.directory.map
        if path.exists() and self.recipe.config.refit == "never":
            try:
                self.directory.coordinates()
                return
            except RunDirectoryError as error:
                self.events.damage(f"{error}; writing it again")
        with disk_errors(str(path)):
            write_bytes(path, dumps({COORDINATES: np.ascontiguousarray(coordinates)}))

    def _tell_of_labels(self, number: int, synthetic: SyntheticSet) -> None:
        """Say when the teacher makes of nearly all synthetic examples the same, and of the real ones it does not."""
        spec = self.prepared.data.spec
        if synthetic.logits is None or not len(synthetic) or spec.is_structured:
            return
        problem = one_sided(synthetic.logits[synthetic.kept], self.prepared.anchors.outputs.logits, spec)
        if problem:
            self.events.message(f"round {number}: {problem}")

    def states(self) -> States:
        """What the sampler and the filter carry from round to round."""
        if self.synthesizer is None:  # not built yet, by this process: what an earlier one saved still holds
            return self._saved
        found: States = {}
        for kind in STATEFUL_KINDS:
            found |= state_of(self.recipe[kind], getattr(self.synthesizer, kind))
        return found

    def restore(self, saved: States) -> None:
        """Keep what `states` gave before the run was interrupted, until the components are built."""
        self._saved = {name: array for name, array in saved.items() if name.startswith(STATEFUL_KINDS)}
