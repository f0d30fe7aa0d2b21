"""The loops that people use today on the same models and examples: `Trainer`, TextBrewer, torchdistill."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from sage_bench.measure import Work
from sage_kit.errors import MissingPackageError
from sage_kit.models.architectures import auto_class
from sage_kit.models.checkpoints import quiet
from sage_kit.system.child import Child, ChildEnded, ChildFailed
from sage_kit.system.devices import synchronize

try:
    from transformers import (
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
except (ImportError, RuntimeError) as error:  # its lazy imports end in either
    raise MissingPackageError(
        f"transformers' Trainer, the main peer, cannot be imported ({' '.join(str(error).split())[:120]}): where there "
        "is a torchvision that was built for another torch, remove it with `pip uninstall torchvision`"
    ) from None

if TYPE_CHECKING:
    from sage_kit.components.task_kinds import Architecture

WORKER = Path(__file__).with_name("peer_worker.py")
PYTHON_VARIABLE = "SAGE_KIT_BENCH_PYTHON_{peer}"
"""Environment variable that names the Python of another environment in which a peer is installed."""

INSTALL: Mapping[str, str] = {
    "textbrewer": "pip install textbrewer==0.2.1.post1",
    "torchdistill": "pip install torchdistill==1.1.5 with the torchvision that belongs to the torch installed",
}

TARGETS = ("labels", "start_positions", "end_positions")
"""Names of labels among a batch's inputs: given to a model, they would have it compute its own loss as well."""

NO_LABEL = -100
"""Label of tokens that do not count, as transformers' collator pads with."""

PADDING_LOGIT = -1e4
"""Finite in half precision, and its probability is 0."""


class PeerError(Exception):
    """A peer cannot take part; the message says why."""


@dataclass(frozen=True)
class PeerWork:
    """What a peer trains on.

    Attributes
    ----------
    teacher, student : Path
        Plain checkpoints; the student as it starts.
    examples : Path
        ids, types, offsets and labels as safetensors; labels of tags one per token, of answers the first and last token
        of each example.
    tokenizer : PreTrainedTokenizerBase
    n_examples, n_tokens, flops : int
        Of one epoch; FLOPs are those of matrix products over real tokens.
    batch_size : int
    temperature, learning_rate : float
    device : torch.device
    precision : "fp32" or "bf16"
    scratch : Path
        For what a peer writes.
    architecture : "sequence", "token" or "span"
        Which head the models have.
    """

    teacher: Path
    student: Path
    examples: Path
    tokenizer: Any
    n_examples: int
    n_tokens: int
    flops: int
    batch_size: int
    temperature: float
    learning_rate: float
    device: torch.device
    precision: str
    scratch: Path
    architecture: Architecture = "sequence"

    def work(self, seconds: float) -> Work:
        """An epoch that took so long."""
        amounts = {"examples": float(self.n_examples), "tokens": float(self.n_tokens), "FLOP": float(self.flops)}
        return Work(amounts, seconds)


# ---- transformers.Trainer -------------------------------------------------------------------------------------------


class DistillationTrainer(Trainer):
    """`Trainer` as people extend it for distillation by hand: the teacher is asked in `compute_loss`, batch by batch.

    Parameters
    ----------
    teacher : PreTrainedModel
        Frozen, in eval mode.
    temperature : float
    **arguments
        The base class's.
    """

    def __init__(self, *, teacher: Any, temperature: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.teacher = teacher
        self.temperature = temperature

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Batch mean of the KL divergence to the teacher's softened distribution, times the squared temperature."""
        asked = {name: value for name, value in inputs.items() if name not in TARGETS}
        outputs = model(**asked)
        with torch.no_grad():
            teacher_outputs = self.teacher(**asked)
        loss = self.temperature**2 * F.kl_div(
            F.log_softmax(self.logits(outputs, inputs) / self.temperature, dim=-1),
            F.softmax(self.logits(teacher_outputs, inputs) / self.temperature, dim=-1),
            reduction="batchmean",
        )
        return (loss, outputs) if return_outputs else loss

    def logits(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """What is compared, a distribution a row: of shape (batch, n_outputs)."""
        found: torch.Tensor = outputs.logits
        return found


class TagTrainer(DistillationTrainer):
    """The same for token classification: a distribution for each token that has a label."""

    def logits(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Those where labels are not -100: of shape (words, n_outputs)."""
        found: torch.Tensor = outputs.logits[inputs["labels"] != NO_LABEL]
        return found


class AnswerTrainer(DistillationTrainer):
    """The same for question answering: two distributions over the tokens, of the start and of the end."""

    def logits(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Starts, then ends, padding masked: of shape (2 * batch, tokens)."""
        both = torch.cat([outputs.start_logits, outputs.end_logits])
        return both.masked_fill(inputs["attention_mask"].repeat(2, 1) == 0, PADDING_LOGIT)


TRAINERS: Mapping[str, type[DistillationTrainer]] = {
    "sequence": DistillationTrainer,
    "token": TagTrainer,
    "span": AnswerTrainer,
}
COLLATORS: Mapping[str, Callable[[Any], Any]] = {
    "sequence": DataCollatorWithPadding,
    "token": DataCollatorForTokenClassification,
    "span": DataCollatorWithPadding,
}


class _Stopwatch(TrainerCallback):
    """Times the steps alone, without the preparation of the Trainer."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._started = 0.0

    def on_train_begin(self, *arguments: Any, **more: Any) -> None:
        synchronize(self._device)
        self._started = time.perf_counter()

    def on_train_end(self, *arguments: Any, **more: Any) -> None:
        synchronize(self._device)
        self.seconds = time.perf_counter() - self._started


def length_grouping() -> dict[str, Any]:
    """The training arguments by which the installed `Trainer` groups examples by length."""
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    if "train_sampling_strategy" in fields:
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def make_trainer(
    work: PeerWork, teacher: Any, student: Any, data: Any, *, grouped: bool, seed: int = 0
) -> DistillationTrainer:
    """A `Trainer` for one epoch with its own defaults beyond batch size, learning rate and length grouping."""
    arguments = TrainingArguments(
        output_dir=str(work.scratch / "trainer"),
        per_device_train_batch_size=work.batch_size,
        learning_rate=work.learning_rate,
        num_train_epochs=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=work.device.type == "cpu",
        dataloader_pin_memory=work.device.type == "cuda",
        bf16=work.precision == "bf16",
        seed=seed,
        **(length_grouping() if grouped else {}),
    )
    trainer = TRAINERS[work.architecture](
        teacher=teacher,
        temperature=work.temperature,
        model=student,
        args=arguments,
        train_dataset=data,
        data_collator=COLLATORS[work.architecture](work.tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_data(work: PeerWork) -> Any:
    """The examples as a `datasets.Dataset`, tokenised beforehand, as people hand them to `Trainer`."""
    from datasets import Dataset
    from safetensors.numpy import load_file

    arrays = load_file(work.examples)
    bounds = list(itertools.pairwise(arrays["offsets"].tolist()))
    columns: dict[str, list[Any]] = {"input_ids": [arrays["ids"][a:b].tolist() for a, b in bounds]}
    if "token_type_ids" in work.tokenizer.model_input_names:
        columns["token_type_ids"] = [arrays["types"][a:b].tolist() for a, b in bounds]
    columns["attention_mask"] = [[1] * (b - a) for a, b in bounds]
    labels = arrays["labels"]
    if work.architecture == "token":
        columns["labels"] = [labels[a:b].tolist() for a, b in bounds]
    elif work.architecture == "span":
        columns["start_positions"], columns["end_positions"] = labels.T.tolist()
    else:
        columns["labels"] = labels.tolist()
    return Dataset.from_dict(columns)


def trainer_epochs(work: PeerWork) -> tuple[Callable[[], Work], Callable[[], Work]]:
    """Two calls that train one epoch each: batches at random, and grouped by length; padded to the longest of a batch.

    Each starts from the same student; making the Trainer is not timed.
    """
    with quiet():
        found = auto_class(work.architecture)
        teacher = found.from_pretrained(work.teacher).to(work.device)
        student = found.from_pretrained(work.student)
    teacher.eval().requires_grad_(False)
    data = trainer_data(work)

    def epoch(grouped: bool) -> Work:
        trainer = make_trainer(work, teacher, copy.deepcopy(student), data, grouped=grouped)
        watch = _Stopwatch(work.device)
        trainer.add_callback(watch)
        trainer.train()
        return work.work(watch.seconds)

    return lambda: epoch(False), lambda: epoch(True)


# ---- libraries in processes of their own ----------------------------------------------------------------------------


class PeerProcess:
    """A peer's loop in a child process, in this environment or in another one that a variable names.

    Parameters
    ----------
    peer : "textbrewer" or "torchdistill"
    work : PeerWork

    Attributes
    ----------
    about : str
        Versions in that process.

    Raises
    ------
    PeerError
        When the peer is not installed or does not work with what is installed beside it.
    """

    def __init__(self, peer: str, work: PeerWork) -> None:
        variable = PYTHON_VARIABLE.format(peer=peer.upper())
        python = os.environ.get(variable, "")
        if not python and importlib.util.find_spec(peer) is None:
            raise PeerError(f"not installed: {INSTALL[peer]}, or set {variable} to a Python that has it")
        if work.precision != "fp32":
            raise PeerError("has no bf16 on this device")
        self._work = work
        try:
            self._child = Child([python or sys.executable, str(WORKER)], work.scratch)
        except OSError as error:
            raise PeerError(f"{variable} is {python!r}: {error.strerror}") from None
        setup = {
            "peer": peer, "teacher": str(work.teacher), "student": str(work.student), "examples": str(work.examples),
            "pad_id": work.tokenizer.pad_token_id or 0, "batch_size": work.batch_size,
            "temperature": work.temperature, "learning_rate": work.learning_rate, "device": str(work.device),
            "scratch": str(work.scratch / peer),
        }  # fmt: skip
        try:
            self.about = str(self._ask(setup)["about"])
        except PeerError:
            self.end()
            raise

    def epoch(self) -> Work:
        """Train one epoch; only its steps are timed.

        Raises
        ------
        PeerError
            When it fails.
        """
        return self._work.work(float(self._ask("epoch")["seconds"]))

    def _ask(self, message: Any) -> dict[str, Any]:
        try:
            return self._child.ask(message)
        except ChildFailed as error:
            raise PeerError(f"installed, but fails: {error}") from None
        except ChildEnded as error:
            raise PeerError(str(error)) from None

    def end(self) -> None:
        """End the process."""
        self._child.end()
