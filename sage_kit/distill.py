"""The distillation loop.

`distill` reads from top to bottom: prepare, warm up, then rounds of profile, synthesise, train, evaluate, and at last
the export. Everything random is drawn from seeds derived from (seed, round, purpose), so a run that was killed goes on
from its last checkpoint to the same end.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import BuildContext
from sage_kit.components.guard import counting_interrupts
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig, with_absolute_paths
from sage_kit.data.metrics import divergence, one_sided, score
from sage_kit.data.splits import EVALUATION
from sage_kit.data.teacher_report import label_counts
from sage_kit.errors import PluginError, RunDirectoryError, SageError
from sage_kit.models.export import export_student
from sage_kit.models.learning_rate import learning_rate_factor
from sage_kit.models.split import split_model
from sage_kit.recipe import check_choices, chosen_options, first_synthetic_round, needed_kinds
from sage_kit.rundir import Checkpoint, RunDirectory
from sage_kit.storage.files import atomic_directory, disk_errors, write_bytes
from sage_kit.storage.frozen import frozen_copy
from sage_kit.synthesis.synthesizer import EMBED, Synthesizer, SyntheticSet, build_ahead, derive_seed, label_synthetic
from sage_kit.system.devices import autocast_for, make_accelerator, synchronize
from sage_kit.system.processes import from_main
from sage_kit.training.component_state import give_back, state_of
from sage_kit.training.divergence import divergence_gradient
from sage_kit.training.losses import LossSettings
from sage_kit.training.preparation import FINE_TUNING, Prepared, PreparedSplit, prepare
from sage_kit.training.steps import (
    Batches,
    Pass,
    Profile,
    RealBatches,
    SyntheticBatches,
    count_flops,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    predict,
    profile_pass,
    train_pass,
)
from sage_kit.training.student_states import mean_hidden_states
from sage_kit.training.tracing import LABELLED_BATCHES, STUDENT_STEPS, RoundTrace
from sage_kit.training.warmup import warm_up

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

STATEFUL_KINDS = ("sampler", "filter")
"""Components of the synthesis that may carry something from round to round; the stop rule may too."""


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
    config = with_absolute_paths(config)
    plugin_files = [str(Path(file).resolve()) for file in plugin_files or ()]
    check_choices(config, plugins)
    accelerator = make_accelerator(config)
    directory = RunDirectory(Path())
    if accelerator.is_main_process:
        directory = RunDirectory.create(config)
        directory.lock()
        directory.write_environment(
            _origins(config, plugins), chosen_options(config, plugins), plugin_files, str(accelerator.device)
        )
    directory.path = Path(from_main(str(directory.path), accelerator))
    try:
        return directory, distill(config, plugins, directory, accelerator)
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
        When another process holds the run, or its data or teacher is no longer what it was.
    """
    config = directory.config()
    summary = directory.summary()
    if summary is not None:
        return summary
    check_choices(config, plugins)
    accelerator = make_accelerator(config)
    if accelerator.is_main_process:
        directory.lock()
    try:
        return distill(config, plugins, directory, accelerator)
    finally:
        directory.unlock()


@counting_interrupts()  # once for the run: plugin code is called at each step
def distill(config: RunConfig, plugins: Plugins, directory: RunDirectory, accelerator: Accelerator) -> dict[str, Any]:
    """Distil a student into a run directory, going on from its newest checkpoint if it has one.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    directory : RunDirectory
        Made by `RunDirectory.create` or opened by `RunDirectory.open`.
    accelerator : Accelerator

    Returns
    -------
    dict
        What summary.json holds.
    """
    main = accelerator.is_main_process
    plugins.remove_observers()
    if main:
        plugins.record_disabled = directory.record_disabled_observer
        add_observers(config, plugins, str(accelerator.device))
        for bad in plugins.quarantined:
            plugins.message(None, f"{bad} is in quarantine: {bad.cause}")
    info: RunInfo | None = None
    try:
        # ---- prepare: data, teacher, cached vectors and labels, a new student ---------------------------------------
        build_ahead(config, plugins, accelerator.device)
        checkpoint = directory.latest_checkpoint(lambda text: plugins.message(None, text))
        costs = checkpoint.costs if checkpoint else Costs()
        prepared = prepare(config, plugins, accelerator, costs)
        if checkpoint and checkpoint.content != prepared.content:
            raise RunDirectoryError(
                f"{directory.path}: the data or the teacher has changed since the run began; start a new run"
            )
        loop = Loop(config, plugins, directory, accelerator, prepared, costs)
        if checkpoint:
            loop.restore(checkpoint)
        info = loop.info
        if main:
            plugins.run_started(info)
            if checkpoint:
                after = f"{checkpoint.warmup_steps} steps of the warm-up" if checkpoint.in_warmup else ""
                plugins.message(info, f"resumed after {after or f'round {checkpoint.round}'}")

        # ---- warm-up on generic text --------------------------------------------------------------------------------
        if checkpoint is None or checkpoint.in_warmup:
            loop.warm_up(checkpoint)
            loop.save(round=0)

        # ---- rounds -------------------------------------------------------------------------------------------------
        stopped = loop.reason_to_stop()
        while stopped is None:
            loop.round()
            stopped = loop.reason_to_stop()

        # ---- export ----------------------------------------------------------------------------------------------
        summary = loop.finish(stopped)
        if main:
            plugins.run_finished(info, summary)
            if plugins.disabled.keys() - summary["disabled_observers"].keys():  # one failed at that last moment
                summary["disabled_observers"] |= plugins.disabled
                directory.write_summary(summary)
        return summary
    except BaseException as error:
        if main and info is not None:
            plugins.run_failed(info, error)
        raise
    finally:
        plugins.remove_observers()


def add_observers(config: RunConfig, plugins: Plugins, device: str) -> None:
    """Build the observers that the settings name, and let them hear what happens."""
    for name in config.observers:
        context = BuildContext(config=config, seed=config.seed, device=device)
        options = config.observer_options.get(name, {})
        plugins.add_observer(name, plugins.build("observer", name, options, context))


class Loop:
    """The state of a run between rounds, and one method per step of a round."""

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        directory: RunDirectory,
        accelerator: Accelerator,
        prepared: Prepared,
        costs: Costs,
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.directory = directory
        self.accelerator = accelerator
        self.prepared = prepared
        self.costs = costs
        self.device = accelerator.device
        self.spec = prepared.data.spec
        self.history: list[RoundResult] = []
        self.total_steps = 0
        self.warmup_steps = 0
        # what the teacher has labelled for this run, whether computed now or found in the cache
        self.teacher_tokens = int(prepared.train.store.offsets[-1])

        student = prepared.student.to(self.device)
        self.raw_upper = self.trained_part(student)
        upper: Any = self.raw_upper
        self.teacher: Any = prepared.teacher_upper
        if config.compile:
            upper, self.teacher = torch.compile(upper, dynamic=True), torch.compile(self.teacher, dynamic=True)
        self.raw_optimizer = make_optimizer(self.raw_upper, config.learning_rate, config.weight_decay)
        self.upper, self.optimizer = accelerator.prepare(upper, self.raw_optimizer)

        self.losses = LossSettings(
            config.temperature,
            config.hard_label_weight,
            config.hidden_weight,
            config.hidden_loss,
            self.spec.is_regression,
            config.relation_weight,
            prepared.relations.heads if prepared.relations else 1,
        )
        self.profile = Profile(len(prepared.train.store), self.spec.n_outputs, self.device)
        self.loss_history: list[NDArray[np.float32]] = []
        self.component_states: dict[str, NDArray[Any]] = {}
        self.predictions: dict[str, NDArray[np.float32]] = {}
        self.synthesizer: Synthesizer | None = None
        self.static_set: SyntheticSet | None = None
        self.first_synthetic = first_synthetic_round(config, plugins)
        rule, options = config.component_choice("stop_rule")
        context = BuildContext(config=config, seed=config.seed)
        self.stop_rule = plugins.build("stop_rule", rule, options, context)
        self.info = self._run_info()
        self.trace: RoundTrace | None = None
        if config.trace and accelerator.is_main_process:
            first = 1 if config.schedule == "none" else self.first_synthetic
            self.trace = RoundTrace(directory.path, first, self.device)

    def trained_part(self, student: PreTrainedModel) -> Any:
        """The module that is trained, called as upper layers are: the student behind its frozen input layers."""
        return split_model(student, self.config.bypass)[1]

    # ---- the warm-up ------------------------------------------------------------------------------------------------

    def warm_up(self, checkpoint: Checkpoint | None) -> None:
        """The warm-up, if the settings ask for one, from where a checkpoint that was saved amid it stands."""
        if not self.config.warmup_epochs:
            return
        self.warmup_steps = warm_up(
            self.config,
            self.prepared,
            self.upper,
            self.accelerator,
            self.costs,
            self.steps("warm-up"),
            save=lambda done, optimizer: self.save(0, warmup=(done, optimizer)),
            done=checkpoint.warmup_steps if checkpoint else 0,
            optimizer_state=checkpoint.optimizer if checkpoint else None,
        )

    # ---- a round ----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One round: profile, synthesise, train, evaluate, save."""
        number = len(self.history) + 1
        with self.trace.round(number, self.costs) if self.trace else contextlib.nullcontext():
            self._round(number)
        self.save(number)

    def _round(self, number: int) -> None:
        started = time.perf_counter()
        if self.accelerator.is_main_process:
            self.plugins.round_started(self.info, number)
        torch.manual_seed(derive_seed(self.config.seed, number, "dropout", self.accelerator.process_index))

        # ---- synthesise from the losses of the latest pass: from round two on, or from one where none are needed
        with self._window("synthesis", LABELLED_BATCHES):
            synthetic = self._synthetic_examples(number) if number >= self.first_synthetic else None

        # ---- train on real and synthetic batches; the pass gives the new losses
        sources, dropped = self._sources(number, synthetic)
        with self._window("training", STUDENT_STEPS):
            did = self._train(number, sources)
        self._attribute(sources)

        # ---- evaluate: dev for decisions, the official validation splits for reporting
        train_agreement = self.profile.agreement(self.prepared)
        train_loss = self.profile.mean_loss()
        if self.config.losses_from == "pass":
            before = time.perf_counter()
            profile_pass(self.upper, self.prepared, self.profile, self.losses, self.accelerator)
            train_agreement = self.profile.agreement(self.prepared)
            self.costs.add("profile", time.perf_counter() - before)
        losses = frozen_copy(self.profile.losses.cpu().numpy())
        self.loss_history.append(losses)
        if self.accelerator.is_main_process:
            self.plugins.losses_profiled(self.info, number, losses)
        dev = self._evaluate_dev()
        validation = self._evaluate_validation() if self.config.evaluate_validation == "every_round" else {}
        synthetic_profile = next((s.profile for s in sources if isinstance(s, SyntheticBatches)), None)
        result = RoundResult(
            round=number,
            steps=did.steps,
            total_steps=self.total_steps,
            train_loss=train_loss,
            train_agreement=train_agreement,
            synthetic_loss=synthetic_profile.mean_loss() if synthetic_profile else float("nan"),
            synthetic=0 if synthetic is None else len(synthetic),
            dropped=dropped,
            dev=dev,
            validation=validation,
            seconds=time.perf_counter() - started,
            padding=did.padding,
            outside_hull=float("nan") if synthetic is None else synthetic.outside_hull,
        )
        self.history.append(result)
        if self.accelerator.is_main_process:
            self.plugins.round_finished(self.info, result)

    def _synthetic_examples(self, number: int) -> SyntheticSet | None:
        """The round's labelled synthetic examples: new ones, the static ones, or none."""
        config = self.config
        if config.schedule == "none":
            return None
        if self.static_set is not None:
            return self.static_set
        main = self.accelerator.is_main_process
        synthesizer = self._synthesizer()
        # a resumed run: the examples of the first round that had some are on disk
        first = self.first_synthetic
        is_found = config.schedule == "static" and number > first
        # one process draws, inverts and filters, and the others receive what it made
        made: SyntheticSet | None = None
        if main:
            made = SyntheticSet.load(self.directory.synthetic(first)) if is_found else self._create(synthesizer, number)
        synthetic = from_main(cast(SyntheticSet, made), self.accelerator)
        self._label(synthesizer, synthetic, count=not is_found)
        if not is_found:
            if main:
                synthesizer.filter_labelled(synthetic)
            synthetic.kept = from_main(synthetic.kept, self.accelerator)
            synthetic = synthesizer.without_dropped(synthetic)
            if main:
                self._tell_of_labels(number, synthetic)
        if config.schedule == "static":
            self.static_set = synthetic
        if main:
            synthetic.save(self.directory.synthetic(number))
            self._save_map(synthesizer)
            self.plugins.synthetic_created(self.info, number, synthetic)
            if not len(synthetic):
                self.plugins.message(
                    self.info,
                    f"filter {config.filter!r} dropped every synthetic example; round {number} uses real data",
                )
        return synthetic

    def _create(self, synthesizer: Synthesizer, number: int) -> SyntheticSet:
        """New synthetic examples, without labels."""
        n = len(self.prepared.train.store)
        unknown = np.full(n, np.nan, np.float32)
        return synthesizer.create(
            number,
            max(1, round(self.config.synthetic_ratio * n)),
            self.loss_history[-1] if self.loss_history else unknown,
            self.profile.logits.cpu().numpy(),
            self._divergence_gradient,
            self._student_hidden,
            np.stack(self.loss_history) if self.loss_history else np.zeros((0, n), np.float32),
        )

    def _tell_of_labels(self, number: int, synthetic: SyntheticSet) -> None:
        """Say when the teacher makes of nearly all synthetic examples the same, and of the real ones it does not."""
        if synthetic.logits is None or not len(synthetic):
            return
        problem = one_sided(synthetic.logits[synthetic.kept], self.prepared.train.outputs.logits, self.spec)
        if problem:
            self.plugins.message(self.info, f"round {number}: {problem}")

    def _divergence_gradient(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What samplers that follow the gradient call."""
        return divergence_gradient(
            self.raw_upper,
            self.prepared.teacher_upper,
            self.prepared.train.store,
            indices,
            self.losses,
            device=self.device,
            autocast=autocast_for(self.device, self.prepared.precision),
        )

    def _student_hidden(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What samplers that look at the student's hidden states call."""
        return mean_hidden_states(
            self.raw_upper,
            self.prepared.train.store,
            indices,
            device=self.device,
            autocast=autocast_for(self.device, self.prepared.precision),
        )

    def _label(self, synthesizer: Synthesizer, synthetic: SyntheticSet, *, count: bool) -> None:
        """Let the teacher label a set; several processes share its batches."""
        accelerator = self.accelerator
        started = time.perf_counter()
        lifted = self._lifting()
        step = self.steps("teacher's labels")
        tokens = label_synthetic(
            synthesizer,
            synthetic,
            self.teacher,
            hidden_layers=self.prepared.teacher_layers,
            device=self.device,
            autocast=autocast_for(self.device, self.prepared.precision),
            on_step=lambda done, total: step(done, total, None),
            # hidden states are kept where they are used, so each process then labels all
            mine=lambda number: (
                bool(self.prepared.teacher_layers) or number % accelerator.num_processes == accelerator.process_index
            ),
            student=self.raw_upper if count and synthesizer.needs_student else None,
        )
        if accelerator.num_processes > 1 and not self.prepared.teacher_layers:
            for name in ("logits", "student_logits"):
                if getattr(synthetic, name) is not None:
                    merged = accelerator.reduce(torch.from_numpy(getattr(synthetic, name)).to(self.device), "sum")
                    setattr(synthetic, name, merged.cpu().numpy())
            tokens = int(accelerator.reduce(torch.tensor(tokens, device=self.device), "sum"))
        synchronize(self.device)
        seconds = time.perf_counter() - started - (self._lifting() - lifted)
        lengths = self.prepared.train.store.lengths[synthetic.anchors]
        hidden = bool(self.prepared.teacher_layers)
        flops = count_flops(self.prepared.teacher_upper, lengths, training=False, hidden=hidden)
        self.costs.add("teacher", seconds, tokens=tokens, flops=flops)
        if count and synthesizer.needs_student:
            # its seconds are among the teacher's: both read the same batches in turn
            self.costs.add("choose", flops=count_flops(self.raw_upper, lengths, training=False))
        if count:
            self.teacher_tokens += tokens

    def _sources(self, number: int, synthetic: SyntheticSet | None) -> tuple[list[Batches], int]:
        """The round's batches, and how many synthetic examples the filter dropped."""
        config, train = self.config, self.prepared.train
        rng = np.random.default_rng(derive_seed(config.seed, number, "real"))
        dropped = 0 if synthetic is None else synthetic.dropped + len(synthetic.anchors) - len(synthetic)
        if synthetic is None or not len(synthetic):
            return [RealBatches(train, self.profile, config, self.device, rng)], dropped
        sources: list[Batches] = []
        if config.mix == "add":
            sources.append(RealBatches(train, self.profile, config, self.device, rng))
        else:
            real = len(train.store) - min(len(synthetic), len(train.store))
            subset = np.sort(rng.choice(len(train.store), real, replace=False))
            if real:
                sources.append(RealBatches(train, self.profile, config, self.device, rng, subset))
            else:
                self.profile.start_pass()
        sources.append(SyntheticBatches(self._synthesizer(), synthetic, self.device, self.spec.is_regression))
        return sources, dropped

    def _train(self, number: int, sources: list[Batches]) -> Pass:
        config = self.config
        started = time.perf_counter()
        lifted = self._lifting()
        planned, before = self._planned_steps(), self.total_steps
        relations = self.prepared.relations

        def learning_rate(step: int) -> float:
            factor = learning_rate_factor(config.lr_schedule, config.lr_warmup, before + step, planned)
            return config.learning_rate * factor

        did = train_pass(
            self.upper,
            self.optimizer,
            sources,
            accelerator=self.accelerator,
            settings=self.losses,
            student_layers=self.prepared.student_layers,
            learning_rate=learning_rate,
            max_grad_norm=config.max_grad_norm,
            max_steps=config.max_steps - before if config.max_steps else None,
            rng=np.random.default_rng(derive_seed(config.seed, number, "order")),
            on_step=self.steps(f"round {number}"),
            relations=relations,
        )
        synchronize(self.device)
        self.total_steps += did.steps
        seconds = time.perf_counter() - started - (self._lifting() - lifted)
        hidden = bool(self.prepared.student_layers)
        flops = count_flops(
            self.raw_upper, did.lengths, training=True, hidden=hidden, projections=relations is not None
        )
        if relations is not None:
            flops += relations.flops(did.lengths)
        self.costs.add("student", seconds, tokens=did.tokens, flops=flops)
        return did

    def _lifting(self) -> float:
        """Seconds spent so far on token states of synthetic examples."""
        return self.costs.seconds.get("lift", 0.0) + self.costs.seconds.get(EMBED, 0.0)

    def _attribute(self, sources: list[Batches]) -> None:
        """Give examples that gave way to synthetic ones the loss of those that started from them."""
        for source in sources:
            if isinstance(source, SyntheticBatches):
                self.profile.attribute(source.synthetic.anchors, source.profile)

    def _evaluate_dev(self) -> dict[str, float]:
        return self._score("dev", self.prepared.dev)

    def _evaluate_validation(self) -> dict[str, dict[str, float]]:
        return {name: self._score(name, split) for name, split in self.prepared.validation.items()}

    def _evaluate_apart(self) -> dict[str, float]:
        """The scores on the evaluation set, and the mean divergence from the teacher; nothing without such a set."""
        split = self.prepared.evaluation
        if split is None:
            return {}
        scores = self._score(EVALUATION, split)
        apart = divergence(split.outputs.logits, self.predictions[EVALUATION])
        return {**scores, "divergence": float(apart.mean())}

    def _score(self, name: str, split: PreparedSplit) -> dict[str, float]:
        started = time.perf_counter()
        logits = predict(self.upper, split.store, self.spec.n_outputs, self.accelerator)
        self.predictions[name] = logits
        flops = count_flops(self.raw_upper, split.store.lengths, training=False)
        tokens = int(split.store.offsets[-1])
        self.costs.add("evaluate", time.perf_counter() - started, tokens=tokens, flops=flops)
        return score(self.spec, logits, split.gold, split.outputs.logits)

    # ---- between rounds ---------------------------------------------------------------------------------------------

    def reason_to_stop(self) -> str | None:
        """Why to stop now, or None."""
        config = self.config
        if config.max_steps and self.total_steps >= config.max_steps:
            return f"{self.total_steps} student steps are done"
        if self.history:
            if self.history[-1].steps == 0:
                return "a round had no examples to train on"
            reason: str | None = None
            if self.accelerator.is_main_process:
                reason = self._ask_stop_rule()
            reason = from_main(reason, self.accelerator)
            if reason is not None:
                return reason
        if not config.max_steps and len(self.history) >= config.rounds:
            return f"{len(self.history)} rounds are done"
        return None

    def _ask_stop_rule(self) -> str | None:
        name = self.config.stop_rule
        reason: Any = self.plugins.call("stop_rule", name, self.stop_rule.reason_to_stop, tuple(self.history))
        if reason is not None and not isinstance(reason, str):
            raise PluginError(f"stop rule {name!r} returned {reason!r} instead of text or None")
        return reason

    def save(self, round: int, warmup: tuple[int, dict[str, torch.Tensor]] | None = None) -> None:
        """Write a checkpoint and the costs; amid the warm-up, with its steps so far and its optimizer's state."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        history = self.loss_history
        checkpoint = Checkpoint(
            round=round,
            content=self.prepared.content,
            total_steps=self.total_steps,
            teacher_tokens=self.teacher_tokens,
            history=self.history,
            costs=self.costs,
            student={name: value.detach().cpu().contiguous() for name, value in self.raw_upper.state_dict().items()},
            optimizer=optimizer_tensors(self.raw_optimizer, self.raw_upper) if warmup is None else warmup[1],
            profile={
                "losses": self.profile.losses.cpu(),
                "logits": self.profile.logits.cpu(),
                "history": torch.tensor(np.stack(history)) if history else torch.zeros(0, len(self.profile.losses)),
            },
            components=self._component_states(),
            scaler=scaler.state_dict() if scaler is not None else {},
            warmup_steps=self.warmup_steps if warmup is None else warmup[0],
            in_warmup=warmup is not None,
        )
        path = self.directory.save_checkpoint(checkpoint, self.config.keep_checkpoints)
        self.directory.write_costs(self.costs)
        self.plugins.checkpoint_saved(self.info, round, path)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.history = list(checkpoint.history)
        self.total_steps = checkpoint.total_steps
        self.warmup_steps = checkpoint.warmup_steps
        self.teacher_tokens = checkpoint.teacher_tokens
        self.raw_upper.load_state_dict(checkpoint.student)
        if not checkpoint.in_warmup:
            load_optimizer_tensors(self.raw_optimizer, self.raw_upper, checkpoint.optimizer)
        self.profile.losses = checkpoint.profile["losses"].to(self.device)
        self.profile.logits = checkpoint.profile["logits"].to(self.device)
        self.loss_history = [frozen_copy(losses) for losses in checkpoint.profile["history"].numpy()]
        self.component_states = checkpoint.components
        self._give_back("stop_rule", self.stop_rule)
        if checkpoint.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
        self.info = self._run_info()

    def _component_states(self) -> dict[str, NDArray[Any]]:
        """The state of the components that carry something from round to round."""
        states = state_of("stop_rule", self.config.stop_rule, self.stop_rule, self.plugins)
        if self.synthesizer is None:  # not built yet, by this process: what an earlier one saved still holds
            others = {name: array for name, array in self.component_states.items() if not name.startswith("stop_rule.")}
            return {**others, **states}
        for kind in STATEFUL_KINDS:
            name = self.config.component_choice(kind)[0]
            states |= state_of(kind, name, getattr(self.synthesizer, kind), self.plugins)
        return states

    def _give_back(self, kind: str, component: Any) -> None:
        """Hand a component the state that a checkpoint holds of it."""
        name = self.config.component_choice(kind)[0]
        give_back(kind, name, component, self.plugins, self.component_states)

    def finish(self, stopped: str) -> dict[str, Any]:
        """Export the student and write the summary."""
        config, prepared = self.config, self.prepared
        last = self.history[-1] if self.history else None
        validation = last.validation if last else {}
        if "dev" not in self.predictions:  # resumed after the last round
            self._evaluate_dev()
        evaluation: dict[str, float] = {}
        if config.evaluate_validation != "never":
            if not self.predictions.keys() >= prepared.validation.keys():
                validation = self._evaluate_validation()
            evaluation = self._evaluate_apart()
        summary: dict[str, Any] = {
            "task": config.task,
            "primary_metric": self.info.primary_metric,
            "stopped": stopped,
            "rounds": [result.to_json() for result in self.history],
            "student_steps": self.total_steps,
            "planned_steps": self._planned_steps(),
            "teacher_tokens": self.teacher_tokens,
            "parameters": dict(self.info.parameters),
            "examples": dict(self.info.examples),
            "labels": label_counts(prepared.data),
            "dev": dict(last.dev) if last else {},
            "validation": {name: dict(scores) for name, scores in validation.items()},
            "validation_source": prepared.data.validation_source,
            "evaluation": evaluation,
            "teacher": {
                "name": config.teacher,
                "finetuned_here": prepared.teacher.finetuned,
                "seconds": self.costs.seconds.get(FINE_TUNING, 0.0),
                "dev": self._teacher_score(prepared.dev),
                "report": prepared.report.to_json(),
                "validation": {name: self._teacher_score(split) for name, split in prepared.validation.items()},
                "evaluation": self._teacher_score(prepared.evaluation) if prepared.evaluation else {},
            },
            # a teacher is made once for all runs, so its seconds are not the student's
            "seconds": sum(self.costs.seconds.values()) - self.costs.seconds.get(FINE_TUNING, 0.0),
            "precision": prepared.precision,
            "device": str(self.device),
            "processes": self.accelerator.num_processes,
            "disabled_observers": {**self.directory.disabled_observers(), **self.plugins.disabled},
            # a student of pooled vectors needs pooling in front of its blocks, which a plain checkpoint does not do
            "checkpoint_equals_student": config.granularity == "token",
        }
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return summary
        if config.granularity == "pooled":
            self.plugins.message(
                self.info,
                "granularity is 'pooled': the exported checkpoint reads token states, so its outputs differ from the "
                "student's, which read one pooled vector per example",
            )
        with disk_errors(str(self.directory.student)), atomic_directory(self.directory.student) as temporary:
            export_student(prepared.student, prepared.teacher.tokenizer, temporary, self.spec)
        splits = {"dev": prepared.dev, **prepared.validation}
        if prepared.evaluation:
            splits[EVALUATION] = prepared.evaluation
        self.directory.write_predictions(
            {
                name: {"student": logits, "teacher": splits[name].outputs.logits, "labels": splits[name].labels}
                for name, logits in self.predictions.items()
            }
        )
        self.directory.write_costs(self.costs)
        self.directory.write_summary(summary)
        return summary

    # ---- small parts ------------------------------------------------------------------------------------------------

    def steps(self, activity: str) -> Any:
        """A callback that tells observers, and the trace, of an activity's steps."""
        if not self.accelerator.is_main_process:
            return lambda done, total, loss: None

        def step(done: int, total: int, loss: Any) -> None:
            if self.trace:
                self.trace.step()
            self.plugins.step_finished(self.info, activity, done, total, loss)

        return step

    def _window(self, name: str, steps: int) -> contextlib.AbstractContextManager[None]:
        """Around an activity that is traced if the settings ask for it."""
        return self.trace.window(name, steps) if self.trace else contextlib.nullcontext()

    def _synthesizer(self) -> Synthesizer:
        if self.synthesizer is None:
            self.synthesizer = Synthesizer(
                self.config,
                self.plugins,
                self.prepared.train.store,
                self.prepared.train.outputs,
                self.prepared.cache,
                self.device,
                lambda text: self.plugins.message(self.info, text) if self.accelerator.is_main_process else None,
                self.costs,
                self.prepared.train.gold,
                self.prepared.train.tokens,
                self.prepared.input_layers,
                self.prepared.mapped,
                self.prepared.vocabulary,
            )
            if self.accelerator.is_main_process:  # the one that draws and filters
                for kind in STATEFUL_KINDS:
                    self._give_back(kind, getattr(self.synthesizer, kind))
        return self.synthesizer

    def _save_map(self, synthesizer: Synthesizer) -> None:
        """Keep the map beside the run, for pictures, whatever becomes of the cache."""
        if synthesizer.coordinates is None or (self.directory.map.exists() and self.config.refit == "never"):
            return
        from safetensors.numpy import save

        with disk_errors(str(self.directory.map)):
            data = save({"coordinates": np.ascontiguousarray(synthesizer.coordinates)})
            write_bytes(self.directory.map, data)

    def _planned_steps(self) -> int:
        """Student steps over which the learning rate falls: what the settings say, or what the rounds would take."""
        config = self.config
        if config.lr_steps or config.max_steps:
            return config.lr_steps or config.max_steps
        count = len(RealBatches(self.prepared.train, self.profile, config, self.device, np.random.default_rng(0)))
        per_round: float = count / self.accelerator.num_processes
        added = per_round * config.synthetic_ratio if config.schedule != "none" and config.mix == "add" else 0
        with_synthetic = max(0, config.rounds + 1 - self.first_synthetic)
        return max(1, round(config.rounds * per_round + with_synthetic * added))

    def _teacher_score(self, split: PreparedSplit) -> dict[str, float]:
        return score(self.spec, split.outputs.logits, split.gold)

    def _run_info(self) -> RunInfo:
        prepared = self.prepared
        examples = {"train": len(prepared.train.store), "dev": len(prepared.dev.store)}
        examples.update({name: len(split.store) for name, split in prepared.validation.items()})
        # of the teacher's own split no vectors are made
        examples.update({name: len(split) for name, split in prepared.data.splits.items() if name not in examples})
        trained = sum(p.numel() for p in self.raw_upper.parameters() if p.requires_grad)
        return RunInfo(
            directory=self.directory.path,
            config=self.config,
            examples=examples,
            parameters={
                "student": sum(p.numel() for p in prepared.student.parameters()),
                "student_trained": trained,
                "teacher": sum(p.numel() for p in prepared.teacher.model.parameters()),
            },
            primary_metric=self.spec.metrics[0],
            history=tuple(self.history),
            costs=self.costs,
        )


def _origins(config: RunConfig, plugins: Plugins) -> dict[str, str]:
    """Where each chosen component comes from."""
    chosen = {kind: config.component_choice(kind)[0] for kind in needed_kinds(config, plugins)}
    return {kind: f"{name} ({plugins.registered(kind, name).origin})" for kind, name in chosen.items()}
