"""What a run tells about itself: plain records that go to observers, to disk and into tables."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.storage.files import only_finite
from sage_kit.storage.frozen import FrozenTable, freeze

if TYPE_CHECKING:
    from sage_kit.config import RunConfig


@dataclass(frozen=True)
class RunInfo:
    """A run as observers see it.

    Attributes
    ----------
    directory : Path
        The run directory.
    config : RunConfig
        The settings.
    examples : mapping of str to int
        Number of examples per split: "train", "dev", the validation splits and, where they are apart, "teacher" and
        "evaluation".
    parameters : mapping of str to int
        "student" (deployable parameters, input layers included), "student_trained" and "teacher".
    primary_metric : str
        Name of the task's primary metric.
    history : tuple of RoundResult
        Rounds already done when the run was resumed.
    costs : Costs
        What the run has spent so far. An observer gets it as it is when the hook is called, and cannot change it.
    """

    directory: Path
    config: RunConfig
    examples: Mapping[str, int]
    parameters: Mapping[str, int]
    primary_metric: str
    history: tuple[RoundResult, ...] = ()
    costs: Costs = field(default_factory=lambda: Costs())

    def __post_init__(self) -> None:
        # observers get this object, and must not change the run by it
        for name in ("examples", "parameters"):
            object.__setattr__(self, name, freeze(getattr(self, name)))

    def as_of_now(self) -> RunInfo:
        """The same with a frozen copy of the costs, which would otherwise grow on."""
        costs = Costs(*(FrozenTable(getattr(self.costs, field.name)) for field in dataclasses.fields(Costs)))
        return dataclasses.replace(self, costs=costs)


@dataclass(frozen=True)
class RoundResult:
    """One round's outcome.

    Attributes
    ----------
    round : int
        From 1.
    steps : int
        Student steps in this round.
    total_steps : int
        Student steps so far, warm-up not counted.
    train_loss, train_agreement : float
        Mean per-instance loss and agreement with the teacher over the real examples of the training pass; NaN when the
        round saw none.
    synthetic_loss : float
        Mean per-instance loss over the synthetic examples; NaN without any.
    synthetic, dropped : int
        Synthetic examples trained on, and those the filter dropped.
    dev : mapping of str to float
        Metrics and "agreement" on the dev split; every decision is made on these.
    validation : mapping of str to mapping
        Per validation split, the same, for reporting only; empty where those wait for the end of the run.
    seconds : float
        Wall time of the round.
    padding : float
        Share of padding among the tokens the student trained on.
    outside_hull : float
        Share of the round's new points outside the convex hull of the map, where no inverter has seen data; NaN without
        a map.
    processes : int
        That shared its batches; their sizes do not depend on it.
    """

    round: int
    steps: int
    total_steps: int
    train_loss: float
    train_agreement: float
    synthetic_loss: float
    synthetic: int
    dropped: int
    dev: Mapping[str, float]
    validation: Mapping[str, Mapping[str, float]]
    seconds: float
    padding: float
    outside_hull: float = float("nan")
    processes: int = 1

    def __post_init__(self) -> None:
        # observers and stop rules get this object, and must not change the run by it
        for name in ("dev", "validation"):
            object.__setattr__(self, name, freeze(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None, since JSON has neither."""
        record: dict[str, Any] = only_finite(dataclasses.asdict(self))
        return record

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RoundResult:
        """The inverse of `to_json`; None becomes NaN."""
        known = {item.name for item in dataclasses.fields(cls)}  # a later version may tell more
        return cls(**{name: _nan_for_none(value) for name, value in data.items() if name in known})


@dataclass
class Costs:
    """Seconds, tokens and floating-point operations (FLOPs), by activity.

    FLOPs count multiplications and additions of matrix products over real tokens (padding excluded), forward and, where
    there is training, backward (twice the forward).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inside: list[float] = []  # of each block that is being timed, the seconds of those within it

    @contextlib.contextmanager
    def timed(self, activity: str, finish: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Add the wall time of a block to an activity, less that of timed blocks within it.

        Parameters
        ----------
        activity : str
        finish : callable
            Called at the block's end, before the clock is read: waits for the device.
        """
        started = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
            finish()
        finally:
            seconds, inside = time.perf_counter() - started, self._inside.pop()
            if self._inside:
                self._inside[-1] += seconds
        self.add(activity, seconds - inside)

    def add(self, activity: str, seconds: float = 0.0, tokens: int = 0, flops: int = 0) -> None:
        """Add to an activity's sums."""
        self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds
        self.tokens[activity] = self.tokens.get(activity, 0) + tokens
        self.flops[activity] = self.flops.get(activity, 0) + flops

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Costs:
        """The inverse of `to_json`."""
        known = {item.name for item in dataclasses.fields(cls)}
        return cls(**{name: dict(values) for name, values in data.items() if name in known})


def _nan_for_none(value: Any) -> Any:
    if value is None:
        return float("nan")
    if isinstance(value, Mapping):
        return {key: _nan_for_none(item) for key, item in value.items()}
    return value
