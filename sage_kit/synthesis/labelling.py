"""The teacher's labels of synthetic examples, and what the student makes of them where a filter asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from sage_kit.components import Compared, TextBatch
from sage_kit.data.targets import Targets
from sage_kit.data.tokens import tokens_of
from sage_kit.models.split import UpperLayers
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet


def label_synthetic(
    synthesizer: Synthesizer,
    synthetic: SyntheticSet,
    teacher: UpperLayers,
    *,
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
    hidden_layers : sequence of int
        Blocks (from 1) whose output the loss needs.
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
    texts: list[TextBatch] = []
    keeps_text = synthesizer.makes_text and synthetic.tokens is None
    if student is not None:
        student.eval()
    with torch.no_grad():
        for number, rows in enumerate(plan):
            if not mine(number) and not keeps_text:
                continue
            batch = synthesizer.lift(synthetic, rows, number)
            if keeps_text and batch.text is not None:
                texts.append(batch.text)
            if not mine(number):  # every process keeps the text of all
                continue
            index = torch.from_numpy(rows).to(device)
            with autocast():
                output = teacher(batch.states, batch.mask, hidden=bool(hidden_layers))
                its = None if student is None else student(batch.states, batch.mask).logits.float()
            found = output.logits.float()
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
                chosen = torch.stack([output.hidden[layer - 1] for layer in hidden_layers], dim=2)
                synthetic.hidden[number] = chosen.to(torch.float16)
            on_step(number + 1, len(plan))
    synthetic.logits = logits.cpu().numpy()
    synthetic.student_logits = None if student is None else of_student.cpu().numpy()
    if student is not None and divergence is not None:
        synthetic.divergences = divergences.cpu().numpy()
    if texts:
        synthetic.tokens = tokens_of(texts, np.concatenate(plan), synthesizer.pad_id)
    return int(tokens)
