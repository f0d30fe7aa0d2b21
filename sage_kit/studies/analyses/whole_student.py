"""A student that keeps an input layer of its own, trained on token ids: the usual loop, as a control for the bypass.

Plain distillation and nothing else. Batches, losses, optimizer, learning rate, seeds, evaluation and records are those
of `sage_kit.distill`, called by their names here, so that a run differs from one with ``schedule="none"`` and
``cut="embeddings"`` in one thing: the student's embeddings are trained, from the teacher's on, with their dropout.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sage_kit.compatibility import check_choices
from sage_kit.components import BuildContext, TokenBatch
from sage_kit.config import RunConfig
from sage_kit.data.tokens import Tokens
from sage_kit.devices import make_accelerator, synchronize
from sage_kit.errors import ConfigError, SageError
from sage_kit.evaluate import score
from sage_kit.files import atomic_directory, disk_errors
from sage_kit.losses import LossSettings
from sage_kit.models.export import export_student
from sage_kit.models.families import family_of
from sage_kit.models.trunk import Trunk, TrunkOutput, embed
from sage_kit.plugins import Plugins
from sage_kit.preparation import FINE_TUNING, Prepared, PreparedSplit, prepare
from sage_kit.records import Costs, RoundResult, RunInfo
from sage_kit.rundir import RunDirectory
from sage_kit.synthesis import derive_seed
from sage_kit.training import (
    Pass,
    Profile,
    RealBatches,
    count_flops,
    learning_rate_factor,
    make_optimizer,
    predict,
    profile_pass,
    train_pass,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


class WholeStudent(nn.Module):
    """A student with its input layer, called as a trunk is, on token ids in place of token states.

    Parameters
    ----------
    model : PreTrainedModel
        A student that `sage_kit.models.student.build_student` made for ``cut="embeddings"``; its modules are shared.
    freeze : bool
        Whether its embeddings stay as they are, their dropout off: it then computes what a bypassed student does.

    Attributes
    ----------
    trunk : Trunk
        Everything behind the embeddings.
    """

    def __init__(self, model: PreTrainedModel, *, freeze: bool = False) -> None:
        super().__init__()
        family = family_of(model.config)
        self.embeddings = model.get_submodule(family.embeddings)
        self.trunk = Trunk(model, 0)
        self._takes_types = family.token_types
        self._uses_types = family.uses_token_types(model.config)
        self._frozen = freeze
        self.embeddings.requires_grad_(not freeze)
        self.train(model.training)

    def train(self, mode: bool = True) -> WholeStudent:
        """Dropout on or off, that of frozen embeddings always off."""
        super().train(mode)
        self.embeddings.train(mode and not self._frozen)
        return self

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None, hidden: bool = False) -> TrunkOutput:
        """Logits and, if asked for, the output of every block.

        Parameters
        ----------
        tokens : Tensor of shape (batch, tokens, 2), int64
            Token ids and token type ids.
        mask : Tensor of shape (batch, tokens), bool, or None
            True at real tokens; None when there is no padding.
        hidden : bool
            Whether to return the blocks' outputs.
        """
        ids, types = tokens.unbind(-1)
        kinds = (types if self._uses_types else torch.zeros_like(ids)) if self._takes_types else None
        states = embed(self.embeddings, ids, kinds)
        if mask is not None:
            states = states * mask.unsqueeze(-1)
        return cast(TrunkOutput, self.trunk(states, mask, hidden=hidden))

    def flops(self, lengths: NDArray[np.integer[Any]], hidden: bool = False) -> int:
        """Forward FLOPs, counted as in `Trunk.flops`; a look-up in the embeddings is none."""
        return self.trunk.flops(lengths, hidden)

    def training_flops(self, lengths: NDArray[np.integer[Any]], hidden: bool = False) -> int:
        """FLOPs of a training step: three forward passes.

        `Trunk.training_flops` leaves out the gradient of the first block's input, which nothing needs there; here the
        embeddings are trained by it. Their own gradient and the optimizer's update are sums, not products, and count
        as none, though they take time.
        """
        return self.trunk.training_flops(lengths, hidden) if self._frozen else 3 * self.trunk.flops(lengths, hidden)


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Token ids of a split, with what batches ask of a `VectorStore`: ids stand in the place of token states.

    Attributes
    ----------
    tokens : Tokens
    """

    tokens: Tokens

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Example i has the tokens ``offsets[i]`` to ``offsets[i + 1]``; shape (n + 1,)."""
        return self.tokens.offsets

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example, of shape (n,)."""
        return self.tokens.lengths

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> TokenBatch:
        """Some examples: ids and types of shape (batch, tokens, 2), padded to the longest, and the mask."""
        ids, types, mask = self.tokens.pad(indices)
        return TokenBatch(torch.stack([ids, types], dim=-1).to(device), mask.to(device))


def run_whole_student(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None, *, freeze: bool = False
) -> tuple[RunDirectory, dict[str, Any]]:
    """Distil a whole student into a new run directory; the counterpart of `sage_kit.distill.run`.

    It keeps no checkpoints: a run that was killed is made again.

    Parameters
    ----------
    config : RunConfig
        With ``schedule="none"``, ``cut="embeddings"`` and ``granularity="token"``, and without a warm-up.
    plugins : Plugins
    plugin_files : list of str
        One-file plugins that `plugins` was made with; recorded.
    freeze : bool
        Whether the embeddings stay as they are (see `WholeStudent`).

    Returns
    -------
    directory : RunDirectory
    summary : dict
        What summary.json holds, with the keys of any run's.

    Raises
    ------
    ConfigError
        For a setting that such a student has no use for.
    SageError
        As `sage_kit.distill.run` does.
    """
    for name, value in {"schedule": "none", "cut": "embeddings", "granularity": "token", "warmup_epochs": 0}.items():
        if getattr(config, name) != value:
            raise ConfigError(f"{name} is {getattr(config, name)!r}, but a student with an input layer needs {value!r}")
    check_choices(config, plugins)
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise ConfigError("a student with an input layer is trained by one process: leave out `accelerate launch`")
    directory = RunDirectory.create(config)
    directory.lock()
    directory.write_environment({}, plugin_files or [], str(accelerator.device))
    plugins.remove_observers()
    try:
        for name in config.observers:
            context = BuildContext(config=config, seed=config.seed, device=str(accelerator.device))
            plugins.add_observer(name, plugins.build("observer", name, config.observer_options.get(name, {}), context))
        costs = Costs()
        prepared = prepare(config, plugins, accelerator, costs)
        loop = _Loop(config, plugins, directory, accelerator, prepared, costs, freeze)
        plugins.run_started(loop.info)
        stopped = loop.reason_to_stop()
        while stopped is None:
            loop.round()
            stopped = loop.reason_to_stop()
        summary = loop.finish(stopped)
        plugins.run_finished(loop.info, summary)
        return directory, summary
    except SageError:
        directory.remove_if_unused()
        raise
    finally:
        plugins.remove_observers()
        directory.unlock()


class _Loop:
    """The state of a run between rounds; its methods are those of the loop in `sage_kit.distill`, less synthesis."""

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        directory: RunDirectory,
        accelerator: Accelerator,
        prepared: Prepared,
        costs: Costs,
        freeze: bool,
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.directory = directory
        self.accelerator = accelerator
        self.prepared = prepared = on_tokens(prepared)
        self.costs = costs
        self.device = accelerator.device
        self.spec = prepared.data.spec
        self.history: list[RoundResult] = []
        self.predictions: dict[str, NDArray[np.float32]] = {}
        self.total_steps = 0

        student: Any = prepared.student.to(self.device)
        self.whole = WholeStudent(student, freeze=freeze)
        raw = make_optimizer(self.whole, config.learning_rate, config.weight_decay)
        self.student, self.optimizer = accelerator.prepare(self.whole, raw)
        self.losses = LossSettings(
            config.temperature,
            config.hard_label_weight,
            config.hidden_weight,
            config.hidden_loss,
            self.spec.is_regression,
        )
        self.profile = Profile(len(prepared.train.store), self.spec.n_outputs, self.device)
        name, options = config.component_choice("stop_rule")
        context = BuildContext(config=config, seed=config.seed)
        self.stop_rule = plugins.build("stop_rule", name, options, context)
        examples = {"train": len(prepared.train.store), "dev": len(prepared.dev.store)}
        examples.update({name: len(split.store) for name, split in prepared.validation.items()})
        self.info = RunInfo(
            directory=directory.path,
            config=config,
            examples=examples,
            parameters={
                "student": sum(p.numel() for p in prepared.student.parameters()),
                "student_trained": sum(p.numel() for p in self.whole.parameters() if p.requires_grad),
                "teacher": sum(p.numel() for p in prepared.teacher.model.parameters()),
            },
            primary_metric=self.spec.metrics[0],
            costs=costs,
        )

    def round(self) -> None:
        """One pass over the real examples, and its evaluation."""
        number, started = len(self.history) + 1, time.perf_counter()
        self.plugins.round_started(self.info, number)
        torch.manual_seed(derive_seed(self.config.seed, number, "dropout", self.accelerator.process_index))
        did = self._train(number)
        train_loss = self.profile.mean_loss()
        if self.config.losses_from == "pass":
            before = time.perf_counter()
            profile_pass(self.student, self.prepared, self.profile, self.losses, self.accelerator)
            self.costs.add("profile", time.perf_counter() - before)
        train_agreement = self.profile.agreement(self.prepared)
        losses = self.profile.losses.cpu().numpy()
        losses.flags.writeable = False
        self.plugins.losses_profiled(self.info, number, losses)
        dev, validation = self._evaluate()
        result = RoundResult(
            round=number,
            steps=did.steps,
            total_steps=self.total_steps,
            train_loss=train_loss,
            train_agreement=train_agreement,
            synthetic_loss=float("nan"),
            synthetic=0,
            dropped=0,
            dev=dev,
            validation=validation,
            seconds=time.perf_counter() - started,
            padding=did.padding,
        )
        self.history.append(result)
        self.plugins.round_finished(self.info, result)

    def _train(self, number: int) -> Pass:
        config = self.config
        started, before = time.perf_counter(), self.total_steps
        rng = np.random.default_rng(derive_seed(config.seed, number, "real"))
        batches = RealBatches(self.prepared.train, self.profile, config, self.device, rng)
        planned = config.max_steps or config.rounds * len(batches)

        def learning_rate(step: int) -> float:
            progress = min(1.0, (before + step) / planned)
            return config.learning_rate * learning_rate_factor(config.lr_schedule, config.lr_warmup, progress)

        did = train_pass(
            self.student,
            self.optimizer,
            [batches],
            accelerator=self.accelerator,
            settings=self.losses,
            student_layers=self.prepared.student_layers,
            learning_rate=learning_rate,
            max_grad_norm=config.max_grad_norm,
            max_steps=config.max_steps - before if config.max_steps else None,
            rng=np.random.default_rng(derive_seed(config.seed, number, "order")),
            on_step=lambda done, total, loss: self.plugins.step_finished(
                self.info, f"round {number}", done, total, loss
            ),
        )
        synchronize(self.device)
        self.total_steps += did.steps
        hidden = bool(self.prepared.student_layers)
        flops = count_flops(cast(Trunk, self.whole), did.lengths, training=True, hidden=hidden)
        self.costs.add("student", time.perf_counter() - started, tokens=did.tokens, flops=flops)
        return did

    def _evaluate(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        started = time.perf_counter()
        dev = self._score("dev", self.prepared.dev)
        validation = {name: self._score(name, split) for name, split in self.prepared.validation.items()}
        self.costs.add("evaluate", time.perf_counter() - started)
        return dev, validation

    def _score(self, name: str, split: PreparedSplit) -> dict[str, float]:
        logits = predict(self.student, split.store, self.spec.n_outputs, self.accelerator)
        self.predictions[name] = logits
        flops = count_flops(cast(Trunk, self.whole), split.store.lengths, training=False)
        self.costs.add("evaluate", 0.0, tokens=int(split.store.offsets[-1]), flops=flops)
        return score(self.spec, logits, split.labels, split.outputs.logits)

    def reason_to_stop(self) -> str | None:
        """Why to stop now, or None."""
        config = self.config
        if config.max_steps and self.total_steps >= config.max_steps:
            return f"{self.total_steps} student steps are done"
        if self.history:
            reason: str | None = self.stop_rule.reason_to_stop(tuple(self.history))
            if reason is not None:
                return reason
        if not config.max_steps and len(self.history) >= config.rounds:
            return f"{len(self.history)} rounds are done"
        return None

    def finish(self, stopped: str) -> dict[str, Any]:
        """Export the student, and write predictions, costs and summary."""
        prepared, last = self.prepared, self.history[-1]
        splits = {"dev": prepared.dev, **prepared.validation}
        gold = {name: score(self.spec, split.outputs.logits, split.labels) for name, split in splits.items()}
        summary: dict[str, Any] = {
            "task": self.config.task,
            "primary_metric": self.info.primary_metric,
            "stopped": stopped,
            "rounds": [result.to_json() for result in self.history],
            "student_steps": self.total_steps,
            "teacher_tokens": int(prepared.train.store.offsets[-1]),
            "parameters": dict(self.info.parameters),
            "examples": dict(self.info.examples),
            "dev": dict(last.dev),
            "validation": {name: dict(scores) for name, scores in last.validation.items()},
            "teacher": {
                "name": self.config.teacher,
                "finetuned_here": prepared.teacher.finetuned,
                "seconds": self.costs.seconds.get(FINE_TUNING, 0.0),
                "dev": gold["dev"],
                "validation": {name: gold[name] for name in prepared.validation},
            },
            "seconds": sum(self.costs.seconds.values()) - self.costs.seconds.get(FINE_TUNING, 0.0),
            "precision": prepared.precision,
            "device": str(self.device),
            "processes": self.accelerator.num_processes,
            "disabled_observers": dict(self.plugins.disabled),
            "checkpoint_equals_student": True,
        }
        with disk_errors(str(self.directory.student)), atomic_directory(self.directory.student) as temporary:
            export_student(prepared.student, prepared.teacher.tokenizer, temporary, self.spec)
        self.directory.write_predictions(
            {
                name: {"student": self.predictions[name], "teacher": split.outputs.logits, "labels": split.labels}
                for name, split in splits.items()
            }
        )
        self.directory.write_costs(self.costs)
        self.directory.write_summary(summary)
        return summary


def on_tokens(prepared: Prepared) -> Prepared:
    """The same splits, with token ids in the place of token states in every batch."""

    def one(split: PreparedSplit) -> PreparedSplit:
        return replace(split, store=cast(Any, TokenStore(split.tokens)))

    validation = {name: one(split) for name, split in prepared.validation.items()}
    return replace(prepared, train=one(prepared.train), dev=one(prepared.dev), validation=validation)
