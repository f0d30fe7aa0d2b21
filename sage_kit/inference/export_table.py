"""What a student costs and how good it is as it was distilled, as ONNX and in eight bits: sizes, scores, latencies."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.metrics import measure
from sage_kit.data.scoring import AGREEMENT, score_encoded
from sage_kit.data.tokens import Tokens
from sage_kit.inference.onnx_session import Feed, feed

TEACHER, STUDENT, ONNX, INT8 = "teacher", "student", "onnx", "int8"
"""What the rows of the table are called."""

BATCHES = (1, 32)
"""Sizes of the batches whose latency is measured."""

REPEATS = 5
"""Calls of a pair; the fastest counts, since what else the machine does empties its caches."""

LONG = 0.5
"""A batch that takes longer is computed once a pair [s]: an interruption matters less to it."""

BUDGET = 60.0
"""Time after which no further pair of a size of batch begins [s]."""

FEWEST_PAIRS = 5
"""So many are measured whatever they take."""

POINT = 0.01
"""What int8 may lose of a metric without a word: one point of a hundred."""


@dataclass(frozen=True)
class Latency:
    """What a batch takes with one thread, in time of the processor.

    Attributes
    ----------
    batch : int
        Texts.
    milliseconds : float
        Median.
    speedup : tuple of float
        Lower quartile, median and upper quartile, over pairs, of the student's time in torch divided by this one's.
    pairs : int
    """

    batch: int
    milliseconds: float
    speedup: tuple[float, float, float]
    pairs: int


@dataclass
class Line:
    """A model in the table.

    Attributes
    ----------
    name : str
    megabytes : float
        Of its weights, 10^6 bytes.
    scores : dict of str to dict of str to float
        By split, by metric.
    agreement : float or None
        Mean over the rows of its agreement with the reference; None where their outputs cannot be compared.
    latencies : list of Latency
    """

    name: str
    megabytes: float
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    agreement: float | None = None
    latencies: list[Latency] = field(default_factory=list)

    def primary(self, metric: str) -> float | None:
        """Mean over the splits of a metric; None where none has labels for it."""
        found = [scores[metric] for scores in self.scores.values() if metric in scores]
        return float(np.mean(found)) if found else None

    def to_json(self) -> dict[str, Any]:
        """For ``export.json``."""
        return asdict(self)


def score_line(
    line: Line,
    encoded: Mapping[str, EncodedSplit],
    outputs: Mapping[str, NDArray[np.float32]],
    reference: Mapping[str, NDArray[np.float32]],
) -> None:
    """Fill in a line's scores and agreement.

    Parameters
    ----------
    line : Line
        Changed.
    encoded : mapping of str to EncodedSplit
        By split, as the line's model reads it.
    outputs : mapping of str to array
        Of the model, by split, in the order of the task's classes.
    reference : mapping of str to array
        Of the model that it agrees with; empty where there is none.
    """
    shares = []
    for split, found in outputs.items():
        scores = score_encoded(encoded[split], found, reference.get(split))
        if AGREEMENT in scores:
            shares.append((scores.pop(AGREEMENT), len(encoded[split].labels)))
        line.scores[split] = scores
    if shares:
        line.agreement = float(np.average([one for one, _ in shares], weights=[rows for _, rows in shares]))


def losses_of_int8(lines: Mapping[str, Line], encoded: Mapping[str, EncodedSplit]) -> list[str]:
    """What int8 loses of the primary metric, split by split, where it is more than a point; lines for the user."""
    found = []
    for split, one in encoded.items():
        metric = one.spec.metrics[0]
        before, after = (lines[name].scores[split].get(metric) for name in (STUDENT, INT8))
        if before is None or after is None:
            continue
        lost = before - after if measure(one.spec, metric).larger_is_better else after - before
        if lost > POINT:
            found.append(
                f"int8 loses {100 * lost:.1f} points of {metric} on {split}, from {100 * before:.1f} to "
                f"{100 * after:.1f}: take the model in float32 where that matters"
            )
    return found


# ---- latency --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Contender:
    """A model whose latency is measured.

    Attributes
    ----------
    tokens : Tokens
        Of real sequences, as it reads them.
    inputs : tuple of str
    compute : callable
        Computes a batch, with one thread.
    """

    tokens: Tokens
    inputs: tuple[str, ...]
    compute: Callable[[Feed], object]

    def batch(self, start: int, size: int) -> Feed:
        """So many sequences from one on; where there are too few, they come again."""
        return feed(self.tokens, (start + np.arange(size)) % len(self.tokens), self.inputs)


def measure_latencies(
    lines: Mapping[str, Line], contenders: Mapping[str, Contender], pairs: int, batches: Sequence[int] = BATCHES
) -> None:
    """Fill in latencies: in each pair all models compute the same real texts one after the other, forwards and
    backwards in turn.

    Parameters
    ----------
    lines : mapping of str to Line
        By name; changed.
    contenders : mapping of str to Contender
        By name, `STUDENT` among them.
    pairs : int
        Fewer where `BUDGET` does not last.
    batches : sequence of int
        Sizes.
    """
    sequences = len(contenders[STUDENT].tokens)
    with _one_thread():
        for size in batches:
            starts = np.linspace(0, max(0, sequences - size), pairs).round().astype(np.int64)
            seconds = _alternate(contenders, [int(start) for start in starts], size)
            own = np.array(seconds[STUDENT])
            for name in contenders:
                low, middle, high = map(float, np.percentile(own / np.array(seconds[name]), (25, 50, 75)))
                milliseconds = 1000 * float(np.median(seconds[name]))
                lines[name].latencies.append(Latency(size, milliseconds, (low, middle, high), len(own)))


def _alternate(contenders: Mapping[str, Contender], starts: Sequence[int], size: int) -> dict[str, list[float]]:
    """Seconds of a batch from each start, by contender."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    slowest = max(_seconds(one.compute, one.batch(starts[0], size)) for one in contenders.values())
    repeats = REPEATS if slowest < LONG else 1
    began = time.perf_counter()
    for number, start in enumerate(starts):
        if number >= FEWEST_PAIRS and time.perf_counter() - began > BUDGET:
            break
        for name in contenders if number % 2 else reversed(list(contenders)):
            one = contenders[name]
            inputs = one.batch(start, size)
            found[name].append(min(_seconds(one.compute, inputs) for _ in range(repeats)))
    return found


def _seconds(compute: Callable[[Feed], object], inputs: Feed) -> float:
    # of the processor: with one thread that is what one waits for, less what others take of a busy machine
    start = time.process_time()
    compute(inputs)
    return time.process_time() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch, and no collection of garbage between two readings of the clock."""
    threads, collects = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collects:
            gc.enable()
