"""The distillation loop.

`distill` reads from top to bottom: prepare, warm up, then rounds of synthesise, train, profile, evaluate, save, and at
last the export. Everything random is drawn from seeds derived from (seed, round, purpose), so a run that was killed
goes on from its last checkpoint to the same end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import BuildContext
from sage_kit.components.guard import counting_interrupts
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig, with_absolute_paths
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import PluginError, ProcessLostError, RunDirectoryError, SageError
from sage_kit.models.narrow import trained_layers
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import Checkpoint, RunDirectory
from sage_kit.rundir.run_record import CONFIG, check_settings, differing_settings, recorded_settings
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.storage.frozen import frozen_copy
from sage_kit.synthesis.synthesizer import build_ahead
from sage_kit.system.devices import make_accelerator
from sage_kit.system.processes import check_shared, from_main, telling_of_lost
from sage_kit.training.best_round import BestRound
from sage_kit.training.component_state import give_back, state_of
from sage_kit.training.labelled_batches import SyntheticBatches, planned_steps, sources_of
from sage_kit.training.learner import Learner
from sage_kit.training.optimizer import check_optimizer
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared, PreparedSplit
from sage_kit.training.rate_schedules import check_schedule
from sage_kit.training.round_synthesis import RoundSynthesis
from sage_kit.training.run_control import RunControl
from sage_kit.training.run_events import OnStep, RunEvents
from sage_kit.training.summary import evaluation_scores, run_info, summarize, write_outcome
from sage_kit.training.tracing import LABELLED_BATCHES, STUDENT_STEPS, RoundTrace
from sage_kit.training.warmup import warm_up

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


def run(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None
) -> tuple[RunDirectory, dict[str, Any]]:
    """Start a new run: check the choices, make its directory, distil.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    plugin_files : list of str
        One-file plugins that `plugins` was made with; recorded so that a resume loads them again.

    Relative paths among the settings and the plugins are resolved from the current folder and recorded so.

    Returns
    -------
    directory : RunDirectory
    summary : dict
        What summary.json holds.

    Raises
    ------
    SageError
        Of the kind that fits what is wrong; the run directory is removed again if nothing was computed into it.
    """
    # a resume may be started from another folder
    recipe = resolve(with_absolute_paths(config), plugins)
    plugin_files = [str(Path(file).resolve()) for file in plugin_files or ()]
    accelerator = make_accelerator(recipe.config)
    directory = RunDirectory(Path())
    if accelerator.is_main_process:
        directory = RunDirectory.create(
            recipe.config,
            components={key: f"{one.name} ({one.registered.origin})" for key, one in recipe.named.items()},
            options=recipe.options,
            plugin_files=plugin_files,
            device=str(accelerator.device),
        )
    try:
        with telling_of_lost(accelerator, lambda: _remedy(directory)):
            directory.path = Path(from_main(str(directory.path), accelerator))
            return directory, distill(recipe, directory, accelerator)
    except ProcessLostError:  # which is no mistake of the settings: the run can go on
        raise
    except SageError:
        if accelerator.is_main_process:
            directory.remove_if_unused()
        raise
    finally:
        directory.unlock()


def resume(directory: RunDirectory, plugins: Plugins) -> dict[str, Any]:
    """Go on with a run from its newest whole checkpoint; a finished run's summary is returned as it is.

    Raises
    ------
    RunDirectoryError
        When another process holds the run, its data, teacher or settings are no longer what they were, or a file of it
        is damaged.
    """
    summary = directory.summary()
    if summary is not None:
        directory.require_whole()
        return summary
    recipe = resolve(directory.config(), plugins)
    accelerator = make_accelerator(recipe.config)
    if accelerator.is_main_process:
        directory.lock()
    try:
        with telling_of_lost(accelerator, lambda: _remedy(directory)):
            return distill(recipe, directory, accelerator)
    finally:
        directory.unlock()


def _remedy(directory: RunDirectory) -> str:
    return f"the same launcher with `sage-kit resume {directory.path}` goes on from the last checkpoint"


@counting_interrupts()  # once for the run: plugin code is called at each step
def distill(recipe: Recipe, directory: RunDirectory, accelerator: Accelerator) -> dict[str, Any]:
    """Distil a student into a run directory, going on from its newest checkpoint if it has one.

    Parameters
    ----------
    recipe : Recipe
    directory : RunDirectory
        Made by `RunDirectory.create` or opened by `RunDirectory.open`.
    accelerator : Accelerator

    Returns
    -------
    dict
        What summary.json holds.
    """
    plugins, events = recipe.plugins, RunEvents(recipe.plugins, accelerator.is_main_process)
    check_shared([directory.path, Path(recipe.config.cache_dir).expanduser()], accelerator)
    plugins.remove_observers()
    if accelerator.is_main_process:
        plugins.record_disabled = directory.record_disabled_observer
        events.add_observers(recipe, str(accelerator.device))
        for bad in plugins.quarantined:
            events.message(f"{bad} is in quarantine: {bad.cause}")
    try:
        # ---- prepare: data, teacher, cached vectors and labels, a new student ---------------------------------------
        check_optimizer(recipe.config.optimizer, recipe.config.optimizer_options)
        check_schedule(recipe.config)
        build_ahead(recipe, accelerator.device)
        checkpoint = directory.latest_checkpoint(events.damage)
        if checkpoint:
            check_settings(checkpoint.settings, recipe.config, str(directory.path / CONFIG))
        costs = checkpoint.costs if checkpoint else Costs()
        prepared = prepare(recipe, accelerator, costs)
        if checkpoint and checkpoint.content != prepared.content:
            moved = "".join(f" ({text})" for text in differing_settings(checkpoint.settings, recipe.config)[:1])
            raise RunDirectoryError(
                f"{directory.path}: the data or the teacher has changed since the run began{moved}; start a new run"
            )
        loop = Loop(recipe, directory, accelerator, prepared, costs, events)
        if checkpoint:
            loop.restore(checkpoint)
        events.tell(plugins.run_started)
        if checkpoint:
            after = f"{checkpoint.warmup_steps} steps of the warm-up" if checkpoint.in_warmup else ""
            events.message(f"resumed after {after or f'round {checkpoint.round}'}")

        # ---- warm-up on generic text --------------------------------------------------------------------------------
        if checkpoint is None or checkpoint.in_warmup:
            loop.warm_up(checkpoint)
            loop.save(round=0)

        # ---- rounds, and the export ---------------------------------------------------------------------------------
        summary = loop.go()
        if plugins.disabled.keys() - summary["disabled_observers"].keys():  # one failed at that last moment
            summary["disabled_observers"] |= plugins.disabled
            directory.write_summary(summary)
        return summary
    except BaseException as error:
        if events.run is not None:
            events.tell(plugins.run_failed, error)
        raise
    finally:
        plugins.remove_observers()


class Loop:
    """The state of a run between rounds, and one method per step of a round."""

    def __init__(
        self,
        recipe: Recipe,
        directory: RunDirectory,
        accelerator: Accelerator,
        prepared: Prepared,
        costs: Costs,
        events: RunEvents,
    ) -> None:
        self.recipe = recipe
        self.config = config = recipe.config
        self.plugins = recipe.plugins
        self.directory = directory
        self.accelerator = accelerator
        self.prepared = prepared
        self.costs = costs
        self.events = events
        self.device = accelerator.device
        self.history: list[RoundResult] = []
        self.warmup_steps = 0
        # what the teacher has labelled for this run, whether computed now or found in the cache
        self.teacher_tokens = int(prepared.anchors.store.offsets[-1]) * len(prepared.teachers.all)
        part = self.trained_part(prepared.student.to(self.device))
        self.learner = Learner(config, prepared, part, accelerator, costs, events.message)
        self.loss_history: list[NDArray[np.float32]] = []
        self.predictions: dict[str, NDArray[np.float32]] = {}
        self.synthesis = RoundSynthesis(recipe, prepared, self.learner, directory, accelerator, costs, events)
        self.planned_steps = planned_steps(recipe, prepared.train)
        self.control = RunControl(recipe.plugins, events, accelerator, prepared, self.learner, self.planned_steps)
        self.best = BestRound.of(config, prepared.data.spec, directory.path / "best")
        self.stop_rule = recipe["stop_rule"].build(BuildContext(config=config, seed=config.seed))
        traces = config.trace and accelerator.is_main_process
        first = 1 if config.schedule == "none" else recipe.first_synthetic
        self.trace = RoundTrace(directory.path, first if traces else 0, self.device)
        self.info = self._run_info()

    def trained_part(self, student: PreTrainedModel) -> Any:
        """The module that is trained, called as upper layers are: the student behind its frozen input layers."""
        ready = self.prepared.ready
        return ready.reader.upper if ready else trained_layers(student, self.prepared.teacher.model, self.config.bypass)

    def go(self) -> dict[str, Any]:
        """Rounds until there is a reason to stop, then the export; returns what summary.json holds."""
        try:
            stopped = self.reason_to_stop()
            while stopped is None:
                self.round()
                stopped = self.reason_to_stop()
        finally:
            self.synthesis.close()
        summary = self.finish(stopped)
        self.events.tell(self.plugins.run_finished, summary)
        return summary

    def warm_up(self, checkpoint: Checkpoint | None) -> None:
        """The warm-up, if the settings ask for one, from where a checkpoint that was saved during it stands."""
        if not self.config.warmup_epochs:
            return
        self.warmup_steps = warm_up(
            self.config,
            self.prepared,
            self.learner.upper,
            self.accelerator,
            self.costs,
            self._on_step("warm-up"),
            save=lambda done, optimizer: self.save(0, warmup=(done, optimizer)),
            done=checkpoint.warmup_steps if checkpoint else 0,
            optimizer_state=checkpoint.optimizer if checkpoint else None,
        )

    # ---- a round ----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One round: synthesise, train, profile, evaluate, save."""
        number = len(self.history) + 1
        with self.trace.round(number, self.costs):
            self._round(number)
        self.save(number)

    def _round(self, number: int) -> None:
        config, learner = self.config, self.learner
        started = time.perf_counter()
        self.events.tell(self.plugins.round_started, number)
        torch.manual_seed(derive_seed(config.seed, number, "dropout", self.accelerator.process_index))

        # ---- synthesise from the losses of the latest pass: from round two on, or from one where none are needed
        with self.trace.window("synthesis", LABELLED_BATCHES):
            synthetic, labelled = self.synthesis.of_round(number, self.loss_history, self._on_step("teacher's labels"))
        self.teacher_tokens += labelled

        # ---- train on real and synthetic batches; the pass gives the new losses
        rng = np.random.default_rng(derive_seed(config.seed, number, "real"))
        sources = sources_of(config, self.prepared, learner.profile, self.synthesis.synthesizer, synthetic, rng)
        with self.trace.window("training", STUDENT_STEPS):
            did = learner.train(
                number, sources, self.planned_steps, self.control.watching(self._on_step(f"round {number}"))
            )
        children = next((source for source in sources if isinstance(source, SyntheticBatches)), None)
        if children is not None:
            learner.profile.attribute(children.synthetic.anchors, children.profile)

        # ---- profile, and evaluate: dev for decisions, the official validation splits for reporting
        train_loss = learner.profile.mean_loss()
        if config.losses_from == "pass":
            learner.profile_pass()
        losses = frozen_copy(learner.profile.losses.cpu().numpy())
        self.loss_history.append(losses)
        self.events.tell(self.plugins.losses_profiled, number, losses)
        dev = self._score("dev", self.prepared.dev)
        validation = self._evaluate_validation() if config.evaluate_validation == "every_round" else {}
        result = RoundResult(
            round=number,
            steps=did.steps,
            total_steps=learner.steps,
            train_loss=train_loss,
            train_agreement=learner.train_agreement(),
            synthetic_loss=children.profile.mean_loss() if children else float("nan"),
            synthetic=0 if synthetic is None else len(synthetic),
            dropped=0 if synthetic is None else synthetic.refused,
            dev=dev,
            validation=validation,
            seconds=time.perf_counter() - started,
            padding=did.padding,
            outside_hull=float("nan") if synthetic is None else synthetic.outside_hull,
            processes=self.accelerator.num_processes,
        )
        self.history.append(result)
        self.events.tell(self.plugins.round_finished, result)

    def _evaluate_validation(self) -> dict[str, dict[str, float]]:
        return {name: self._score(name, split) for name, split in self.prepared.validation.items()}

    def _score(self, name: str, split: PreparedSplit) -> dict[str, float]:
        self.predictions[name] = self.learner.predict(split)
        return split.scores(self.predictions[name])

    # ---- between rounds ---------------------------------------------------------------------------------------------

    def reason_to_stop(self) -> str | None:
        """Why to stop now, or None."""
        config, steps = self.config, self.learner.steps
        if self.control.stopped:
            return self.control.stopped
        if config.max_steps and steps >= config.max_steps:
            return f"{steps} student steps are done"
        if self.history:
            if self.history[-1].steps == 0:
                return "a round had no examples to train on"
            # the other processes are told
            reason = from_main(self._ask_stop_rule() if self.accelerator.is_main_process else None, self.accelerator)
            if reason is not None:
                return reason
        if not config.max_steps and len(self.history) >= config.rounds:
            return f"{len(self.history)} rounds are done"
        if self.control.is_asked():
            self.control.obey(steps)
            if self.control.keeps and self.history and self.accelerator.is_main_process:
                self.directory.keep_checkpoint(len(self.history))
            self.control.keeps = False
        return self.control.stopped or None

    def _ask_stop_rule(self) -> str | None:
        choice = self.recipe["stop_rule"]
        reason: Any = choice.call(self.stop_rule.reason_to_stop, tuple(self.history))
        if reason is not None and not isinstance(reason, str):
            raise PluginError(f"{choice} returned {reason!r} instead of text or None")
        return reason

    def save(self, round: int, warmup: tuple[int, dict[str, torch.Tensor]] | None = None) -> None:
        """Write a checkpoint and the costs; during the warm-up, with its steps so far and its optimizer's state."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        learner, history = self.learner, self.loss_history
        losses = learner.profile.losses.cpu()
        checkpoint = Checkpoint(
            round=round,
            content=self.prepared.content,
            total_steps=learner.steps,
            teacher_tokens=self.teacher_tokens,
            history=self.history,
            costs=self.costs,
            student=learner.weights(),
            optimizer=learner.optimizer_state() if warmup is None else warmup[1],
            profile={
                "losses": losses,
                "logits": learner.profile.logits.cpu(),
                "history": torch.tensor(np.stack(history)) if history else torch.zeros(0, len(losses)),
            },
            components={
                **self.synthesis.states(),
                **state_of(self.recipe["stop_rule"], self.stop_rule),
                **learner.objective.states(),
            },
            scaler=learner.scaler_state(),
            warmup_steps=self.warmup_steps if warmup is None else warmup[0],
            in_warmup=warmup is not None,
            stopped=self.control.stopped,
            settings=recorded_settings(self.config),
        )
        if self.best is not None and warmup is None:
            self.best.keep(self.history, checkpoint.student)
        path = self.directory.save_checkpoint(checkpoint, self.config.keep_checkpoints, for_good=self.control.keeps)
        self.control.keeps = False
        if self.best is not None:
            self.best.forget_others(self.history)
        self.directory.write_costs(self.costs)
        self.events.tell(self.plugins.checkpoint_saved, round, path)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.history = list(checkpoint.history)
        self.control.stopped = checkpoint.stopped
        self.warmup_steps = checkpoint.warmup_steps
        self.teacher_tokens = checkpoint.teacher_tokens
        self.learner.restore(
            checkpoint.student,
            None if checkpoint.in_warmup else checkpoint.optimizer,
            checkpoint.profile,
            dict(checkpoint.scaler),
            checkpoint.total_steps,
        )
        self.loss_history = [frozen_copy(losses) for losses in checkpoint.profile["history"].numpy()]
        self.learner.objective.restore(checkpoint.components)
        self.synthesis.restore(checkpoint.components)
        give_back(self.recipe["stop_rule"], self.stop_rule, checkpoint.components)
        if self.best is not None and self.accelerator.is_main_process and not checkpoint.in_warmup:
            self.best.keep(self.history, checkpoint.student)  # it may have been removed by a later round
        self.info = self._run_info()

    def finish(self, stopped: str) -> dict[str, Any]:
        """Export the student and write the summary."""
        config, prepared = self.config, self.prepared
        exported = len(self.history)
        if self.best is not None:
            exported = self.best.take_back(self.history, self.learner.raw, self.accelerator, self.events)
            if exported < len(self.history):
                self.predictions = {}  # those of the last round
        validation = dict(self.history[exported - 1].validation) if self.history else {}
        if "dev" not in self.predictions:  # resumed after the last round
            self._score("dev", prepared.dev)
        evaluation: dict[str, float] = {}
        if config.evaluate_validation != "never":
            if not self.predictions.keys() >= prepared.validation.keys():
                validation = dict(self._evaluate_validation())
            if prepared.evaluation is not None:
                self.predictions[EVALUATION] = self.learner.predict(prepared.evaluation)
                evaluation = evaluation_scores(prepared, self.predictions[EVALUATION])
        summary = summarize(
            self.info,
            prepared,
            self.history,
            self.costs,
            exported_round=exported,
            validation=validation,
            evaluation=evaluation,
            stopped=stopped,
            student_steps=self.learner.steps,
            planned_steps=self.planned_steps,
            teacher_tokens=self.teacher_tokens,
            processes=self.accelerator.num_processes,
            disabled_observers={**self.directory.disabled_observers(), **self.plugins.disabled},
        )
        self.accelerator.wait_for_everyone()
        if config.granularity == "pooled":
            self.events.message(
                "granularity is 'pooled': the exported checkpoint reads token states, so its outputs differ from the "
                "student's, which read one pooled vector per example"
            )
        if self.accelerator.is_main_process:
            write_outcome(self.directory, prepared, self.predictions, self.costs, summary)
        return summary

    # ---- small parts ------------------------------------------------------------------------------------------------

    def _on_step(self, activity: str) -> OnStep:
        """A callback that tells observers, and the trace, of an activity's steps."""
        tell = self.events.steps(activity)

        def on_step(done: int, total: int, loss: Any = None) -> None:
            self.trace.step()
            tell(done, total, loss)

        return on_step

    def _run_info(self) -> RunInfo:
        """The run as observers see it from now on."""
        info = run_info(self.directory, self.config, self.prepared, self.learner, self.history, self.costs)
        self.events.run = info
        return info
