"""The steps of preparing a run, each announced, timed, and taken by one process at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit, encode
from sage_kit.data.scoring import load_scored
from sage_kit.data.splits import Split, TaskData
from sage_kit.data.teacher_report import describe_labels
from sage_kit.data.tokens import Tokens, unknown_shares
from sage_kit.models.readers import Reader
from sage_kit.models.split import InputLayers
from sage_kit.models.teacher import Teacher, load_teacher
from sage_kit.models.vectors import Pooled, TeacherOutputs, VectorStore, embed_split, label_split, pool_layer
from sage_kit.storage.cache import Cache
from sage_kit.system.devices import autocast_for, resolve_precision, synchronize
from sage_kit.system.machine import describe_machine, why_no_bf16
from sage_kit.system.processes import main_first
from sage_kit.training.prepared import PreparedSplit
from sage_kit.training.run_events import RunEvents

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

FINE_TUNING = "fine-tune teacher"
"""The activity under which the costs of making a teacher are counted."""

MOST_UNKNOWN = 0.2
"""Share of unknown tokens, and of texts without a known one, above which a run warns: half-read text is rarer."""


class PreparationSteps:
    """The steps that the ways of preparing share; each is announced, timed, and taken by one process at a time."""

    def __init__(self, config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs) -> None:
        self.config = config
        self.plugins = plugins
        self.accelerator = accelerator
        self.costs = costs
        events = RunEvents(plugins, accelerator.is_main_process)
        self.announce, self.steps = events.message, events.steps
        self.cache = Cache(Path(config.cache_dir).expanduser(), self.announce, events.damage)

    @contextlib.contextmanager
    def alone(self, activity: str) -> Iterator[None]:
        """Around what the first process computes, and the others then find; its time is counted."""
        device = self.accelerator.device
        with main_first(self.accelerator), self.costs.timed(activity, lambda: synchronize(device)):
            yield

    def load_data(self) -> TaskData:
        """The data of the task."""
        with main_first(self.accelerator):
            data = load_scored(self.plugins, self.config, self.announce)
        self.announce(describe_labels(data))
        return data

    def load_teacher(self, data: TaskData, name: str = "") -> Teacher:
        """The first teacher, or one of `other_teachers`, fine-tuned where it must be."""
        with main_first(self.accelerator):
            device = self.accelerator.device
            teacher = load_teacher(self.config, data, self.cache, device, self.announce, self.steps("teacher"), name)
        if teacher.seconds:
            self.costs.add(FINE_TUNING, teacher.seconds)
        return teacher

    def encode(
        self, split: Split, spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, prefix: str, name: str = ""
    ) -> EncodedSplit:
        """The tokens of a split; `name` is the model's whose tokenizer it is, "" for the teacher's."""
        encoded = encode(split, spec, tokenizer, self.config.max_length, prefix, folder=self.cache.directory)
        self._tell_of_unknown_text(split.name, encoded.tokens, tokenizer, name)
        if len(rows := encoded.shortened):
            self.announce(
                f"{split.name}: the first text of {len(rows):,} of {len(split):,} rows (the first: "
                f"{split.texts[rows[0]][:40]!r}) is cut, so that half of max_length, now {self.config.max_length}, is "
                "left for the second: raise max_length, or shorten such texts"
            )
        return encoded

    def embed(self, name: str, tokens: Tokens, input_layers: InputLayers, key: str, granularity: str) -> VectorStore:
        """What input layers make of a split."""
        with self.alone("input layers"):
            return embed_split(
                input_layers,
                key,
                tokens,
                name=name,
                granularity=granularity,
                pooling=self.config.pooling,
                dtype=self.config.vector_dtype,
                cache=self.cache,
                device=self.accelerator.device,
                on_step=self.steps(f"vectors of {name}"),
            )

    def read(self, split: Split, spec: TaskSpec, reader: Reader, name: str = "") -> tuple[EncodedSplit, VectorStore]:
        """A split as a model reads it: its tokens, and what its input layers make of them."""
        encoded = self.encode(split, spec, reader.tokenizer, reader.prefix, name)
        granularity = self.config.granularity
        return encoded, self.embed(split.name, encoded.tokens, reader.input_layers, reader.input_key, granularity)

    def label(self, name: str, store: VectorStore, reader: Reader, layers: Sequence[int]) -> TeacherOutputs:
        """A model's outputs on a split, and those of some of its blocks."""
        with self.alone("teacher"):
            return label_split(
                reader.upper,
                reader.mark,
                store,
                name=name,
                hidden_layers=layers,
                cache=self.cache,
                device=self.accelerator.device,
                autocast=self.autocast,
                precision=self.precision,
                on_step=self.steps(f"teacher's labels of {name}"),
            )

    def pool_layer(self, name: str, store: VectorStore, reader: Reader, layer: int) -> Pooled:
        """What a block of the teacher puts out on a split, pooled."""
        with self.alone("teacher"):
            return pool_layer(
                reader.upper,
                reader.mark,
                store,
                layer,
                name=name,
                pooling=self.config.pooling,
                cache=self.cache,
                device=self.accelerator.device,
                autocast=self.autocast,
                precision=self.precision,
                on_step=self.steps(f"layer {layer} of {name}"),
            )

    def tell_of_score(self, whose: str, split: Split, prepared: PreparedSplit) -> None:
        """Say how well teachers do on a split, if all of its labels are known."""
        scores = prepared.scores(prepared.outputs.logits, with_agreement=False)
        metric = prepared.encoded.spec.metrics[0]
        if metric in scores:
            self.announce(f"{whose} on {split.name} ({len(split):,} rows): {metric} {scores[metric]:.4f}")

    @cached_property
    def precision(self) -> str:
        """What models compute in: "fp32", "bf16" or "fp16"."""
        device = self.accelerator.device
        found = resolve_precision(self.config.precision, device)
        if found == "bf16" and device.type == "cpu" and (reason := why_no_bf16(device, describe_machine())):
            self.announce(f"precision is 'bf16', but {reason}: it is slower here than precision='fp32'")
        return found

    @cached_property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """Gives the context in which models run."""
        return autocast_for(self.accelerator.device, self.precision)

    def _tell_of_unknown_text(self, split: str, tokens: Tokens, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        unknown, blind = unknown_shares(tokens, tokenizer)
        if max(unknown, blind) < MOST_UNKNOWN:
            return
        called = repr(name or self.config.tokenizer or self.config.teacher)
        if blind == 1:
            what = f"the tokenizer of {called} knows no word of any of the {len(tokens):,} texts"
        else:
            what = (
                f"the tokenizer of {called} does not know {unknown:.0%} of the tokens, and no word of {blind:.0%} of "
                "the texts"
            )
        self.announce(
            f"WARNING: {split}: {what}, so they tell the models little; look at the texts (setting text_column), or "
            "choose a teacher and tokenizer for their language"
        )
