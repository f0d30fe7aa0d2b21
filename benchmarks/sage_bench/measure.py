"""Alternating repeats: what is compared takes turns, so that what the machine does meanwhile meets all of it alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sage_bench.records import Spread


@dataclass(frozen=True)
class Work:
    """What a contender did in one repeat.

    Attributes
    ----------
    amounts : mapping of str to float
        How much of what: "examples", "tokens", "FLOP", "bytes", "vectors".
    seconds : float or None
        Time it took, measured by the contender itself (in a process of its own, or without its preparation); None to
        take the time of the call.
    figures : mapping of str to float
        Anything else worth a spread, such as a share or a fit.
    """

    amounts: Mapping[str, float]
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """Something that takes its turn: a name and a call that does the work once."""

    name: str
    do: Callable[[], Work]


@dataclass(frozen=True)
class Measured:
    """A contender's repeats.

    Attributes
    ----------
    name : str
    works : tuple of Work
        One per repeat, `seconds` filled in.
    """

    name: str
    works: tuple[Work, ...]

    def rate(self, amount: str) -> Spread:
        """Amount per second."""
        return Spread.of(work.amounts[amount] / self._seconds(work) for work in self.works)

    def seconds(self) -> Spread:
        """Seconds per repeat."""
        return Spread.of(self._seconds(work) for work in self.works)

    def figure(self, name: str) -> Spread:
        """One of the other figures."""
        return Spread.of(work.figures[name] for work in self.works)

    @staticmethod
    def _seconds(work: Work) -> float:
        assert work.seconds is not None
        return work.seconds


def alternate(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    budget: float,
    warm_up: bool = True,
    announce: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measured]:
    """Let contenders take turns.

    Every second repeat goes through them backwards (A B C, C B A, ...), so that a drift of the machine favours none.

    Parameters
    ----------
    contenders : sequence of Contender
        With different names.
    repeats : int
        How often each takes its turn.
    budget : float
        Time after which no further repeat begins [s]; one repeat is made in any case.
    warm_up : bool
        Whether each works once before, which does not count.
    announce : callable
        Shows one line to the user.
    clock : callable
        Seconds.

    Returns
    -------
    dict of str to Measured
        By name; all with the same number of repeats, so that they can be paired.
    """
    names = [contender.name for contender in contenders]
    if len(set(names)) != len(names):
        raise ValueError(f"contenders need different names: {names}")
    began = clock()
    if warm_up:
        for contender in contenders:
            announce(f"warming up: {contender.name}")
            contender.do()
    done: dict[str, list[Work]] = {name: [] for name in names}
    for repeat, order in enumerate(_orders(contenders, repeats)):
        elapsed = clock() - began
        # the next repeat takes about as long as those before
        if repeat and elapsed + elapsed / (repeat + warm_up) > budget:
            announce(f"time for {repeat} of {repeats} repeats")
            break
        for contender in order:
            announce(f"repeat {repeat + 1} of {repeats}: {contender.name}")
            started = clock()
            work = contender.do()
            took = clock() - started if work.seconds is None else work.seconds
            done[contender.name].append(Work(work.amounts, took, work.figures))
    return {name: Measured(name, tuple(works)) for name, works in done.items()}


def _orders(contenders: Sequence[Contender], repeats: int) -> Iterator[Sequence[Contender]]:
    for repeat in range(repeats):
        yield contenders if repeat % 2 == 0 else contenders[::-1]


@dataclass(frozen=True)
class Session:
    """What benches are given.

    Attributes
    ----------
    quick : bool
        Small and few, so that all benches together take three minutes on two idle cores.
    scratch : Path
        An empty folder for data, caches and models; removed at the end.
    announce : callable
        Shows one line of progress.
    data_dir : str
        The setting of that name; "" without.
    """

    quick: bool
    scratch: Path
    announce: Callable[[str], None]
    data_dir: str = ""
