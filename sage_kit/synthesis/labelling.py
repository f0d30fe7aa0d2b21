"""The teacher's labels of synthetic examples, and what the student makes of them where a filter asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sage_kit.components import Compared, TextBatch, TokenBatch
from sage_kit.data.targets import Targets
from sage_kit.data.tokens import TokenWriter
from sage_kit.models.readers import Ensemble
from sage_kit.models.split import InputLayers, UpperLayers
from sage_kit.models.vectors import chosen_states
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.transfer import to_device

TEXTS_AT_ONCE = 64
"""Batches of text that are put aside at once, on a CPU; another device is not waited for before all are labelled."""


def label_synthetic(
    synthesizer: Synthesizer,
    synthetic: SyntheticSet,
    teacher: UpperLayers,
    *,
    teachers: Ensemble | None = None,
    student_input: InputLayers | None = None,
    hidden_layers: Sequence[int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    on_step: Callable[[int, int], None],
    mine: Callable[[int], bool] = lambda number: True,
    student: UpperLayers | None = None,
    divergence: Callable[[Compared, Compared], torch.Tensor] | None = None,
) -> int:
    """Give a set the teacher's labels, and its text where it is text, batch by batch of its plan.

    Parameters
    ----------
    synthesizer : Synthesizer
    synthetic : SyntheticSet
        Gets its `logits`, `tokens` if it is text, `student_logits` if there is a student, `hidden` if layers are asked
        for, `token_logits` where there is an output per token, and `divergences` if there is a student and
        `divergence`.
    teacher : UpperLayers
        The first one.
    teachers : Ensemble or None
        All of them, where there are several.
    student_input : InputLayers or None
        The student's own input layers; None where it takes the teacher's.
    hidden_layers : sequence of int
        Blocks (from 1) whose output the loss needs, 0 for the token states.
    device : torch.device
    autocast : callable
        Gives the context in which the teacher runs.
    on_step : callable
        Told the number of batches done and in all.
    mine : callable
        Whether this process labels the batch of that number.
    student : UpperLayers or None
        The student, where the filter asks what it makes of the examples.
    divergence : callable or None
        Of the student's outputs from the teacher's; None where the filter finds it from logits.

    Returns
    -------
    int
        Tokens that were labelled.
    """
    plan, encoded, per_token = synthesizer.plan(synthetic), synthesizer.encoded, teacher.head.per_token
    logits = torch.zeros(len(synthetic.anchors), 0 if per_token else teacher.n_outputs, device=device)
    of_student = torch.zeros_like(logits)
    divergences = torch.zeros(len(synthetic.anchors), dtype=torch.float64, device=device)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    synthetic.hidden = [torch.empty(0)] * len(plan) if hidden_layers else []
    synthetic.token_logits = [torch.empty(0)] * len(plan) if per_token else []
    texts: TokenWriter | None = None
    waiting: list[TextBatch] = []
    keeps_text = synthesizer.makes_text and synthetic.tokens is None
    if student is not None:
        student.eval()
    with torch.no_grad():
        for number, rows in enumerate(plan):
            if not mine(number) and not keeps_text:
                continue
            batch = synthesizer.lift(synthetic, rows, number)
            if keeps_text and batch.text is not None:
                waiting.append(_narrow(batch.text))
                if device.type == "cpu" and len(waiting) == TEXTS_AT_ONCE:
                    texts = _written(waiting, texts, synthesizer.scratch)
            if not mine(number):  # every process keeps the text of all
                continue
            index = to_device(torch.from_numpy(rows), device)
            own_states = batch.states
            if student is not None and student_input is not None:
                own_states = synthesizer.states_by(student_input, batch)
            with autocast():
                output = teacher(batch.states, batch.mask, hidden=bool(hidden_layers), lengths=batch.lengths)
                its = None
                if student is not None:
                    its = student(own_states, batch.mask, lengths=batch.lengths).logits.float()
            found = output.logits.float()
            if teachers is not None and teachers.others:
                found = _mean_of_all(synthesizer, teachers, batch, found, autocast)
            if per_token:
                synthetic.token_logits[number] = found
            else:
                logits[index] = found
            if its is not None and not per_token:
                of_student[index] = its
            if its is not None and encoded is not None and divergence is not None:
                positions = Targets.of(encoded).positions(synthetic.anchors[rows], device)
                of_both = (encoded.handling.compared(one, positions) for one in (its, found))
                divergences[index] = divergence(*of_both).double()
            tokens += batch.mask.sum()
            if hidden_layers:
                chosen = chosen_states(output, batch.states, hidden_layers)
                synthetic.hidden[number] = chosen.to(torch.float16)
            on_step(number + 1, len(plan))
    synthetic.logits = logits.cpu().numpy()
    synthetic.student_logits = None if student is None else of_student.cpu().numpy()
    if student is not None and divergence is not None:
        synthetic.divergences = divergences.cpu().numpy()
    texts = _written(waiting, texts, synthesizer.scratch)
    if texts is not None:
        in_order = np.argsort(np.concatenate(plan))
        synthetic.tokens = texts.finish(synthesizer.pad_id).take(in_order, synthesizer.scratch)
    return int(tokens)


def _narrow(text: TextBatch) -> TextBatch:
    """The batch in as few bytes as hold it."""
    return replace(text, ids=text.ids.to(torch.int32), types=text.types.to(torch.uint8))


def _written(waiting: list[TextBatch], writer: TokenWriter | None, folder: Path) -> TokenWriter | None:
    """The writer with the batches that waited; None as long as there was none."""
    if waiting and writer is None:
        writer = TokenWriter(folder)
    for batch in waiting:
        assert writer is not None
        writer.append_batch(batch)
    waiting.clear()
    return writer


def _mean_of_all(
    synthesizer: Synthesizer,
    teachers: Ensemble,
    batch: TokenBatch,
    first: torch.Tensor,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> torch.Tensor:
    """The weighted mean of all teachers' outputs, of which those of the first are there."""
    total = teachers.weights[0] * first
    for reader, weight in zip(teachers.others, teachers.weights[1:], strict=True):
        states = synthesizer.states_by(reader.input_layers, batch)
        with autocast():
            total += weight * reader.upper(states, batch.mask, lengths=batch.lengths).logits.float()
    return total
