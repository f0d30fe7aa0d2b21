"""The trials of a search: a journal that processes share, and who runs which of them.

A process holds a lock for as long as it runs a trial; the system lets go of it when the process ends, however it ends.
So a trial that is under way in the journal and held by nobody was left by a process that is gone, and the next one
takes it over, with its values, its reports and whatever its runs have left on disk. Who takes a trial, draws one or
counts them holds the folder's lock meanwhile, so that there are never more of them than asked for.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sage_kit.components.plugins import Plugins
from sage_kit.errors import MissingPackageError, SageError, StudyError, one_line
from sage_kit.searching.search_plan import SearchPlan
from sage_kit.searching.search_space import checked, default_values, in_order, small_space, takes, value_of
from sage_kit.storage.files import disk_errors
from sage_kit.storage.fingerprint import derive_seed

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
LOCKS = "locks"
NAME = "search"  # of the only study in a journal

DEFAULT = "default"
"""Marks the trial of the settings without the searched ones."""
PASSED_OVER = "passed_over"
"""Why a trial does not count: its values do not go together, or have been tried."""
WHY = "why"
"""Why a trial that counts has no result."""

MOST_REPEATS = 10  # draws of what was tried already, after which values are drawn without regard to results
MOST_DRAWS = 300


def require_optuna() -> None:
    """Raise MissingPackageError where Optuna is not installed, and keep it from telling what this package tells."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingPackageError("a search needs optuna: pip install 'sage-kit[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class JournalLock:
    """The journal's lock, as Optuna calls it: the system lets go of it when its process ends."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for it."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()


@dataclass
class Claim:
    """A trial that this process runs.

    Attributes
    ----------
    trial : Trial
    values : mapping of str to Any
        Values by name.
    is_default : bool
        Whether it is the trial of the default.
    is_taken_over : bool
        Whether another process had begun it.
    """

    trial: Trial
    values: Mapping[str, Any]
    is_default: bool
    is_taken_over: bool
    lock: BaseFileLock

    @property
    def number(self) -> int:
        """Its number in the journal."""
        return int(self.trial.number)


class Trials:
    """The trials in a folder.

    Parameters
    ----------
    folder : Path
        Of the search; it exists.
    plan : SearchPlan
    plugins : Plugins

    Raises
    ------
    StudyError
        When the journal is not readable.
    """

    def __init__(self, folder: Path, plan: SearchPlan, plugins: Plugins) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder = folder
        self.plan = plan
        self.plugins = plugins
        self.is_exhausted = False  # whether there is nothing left that has not been tried
        self._default = default_values(plan.base, plan.space, plugins)
        (folder / LOCKS).mkdir(exist_ok=True)
        journal = folder / JOURNAL
        lock = JournalLock(folder / LOCKS / "journal.lock")
        with self.alone():
            _mend(journal, lock)
            try:
                storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=cast(Any, lock)))
                self.study: Study = optuna.create_study(
                    storage=storage,
                    study_name=NAME,
                    direction=plan.direction,
                    pruner=optuna.pruners.NopPruner(),  # `sage_kit.searching.pruning` says why
                    load_if_exists=True,
                )
                if not self.study.get_trials(deepcopy=False):
                    self.study.enqueue_trial(self._default, user_attrs={DEFAULT: True})
            # Optuna takes each line for what it wrote itself
            except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
                text = one_line(error, 200) or type(error).__name__
                raise StudyError(f"{journal} is not readable ({text}): search in another folder") from None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder: nobody else takes, draws or counts trials meanwhile."""
        from filelock import FileLock

        with FileLock(self.folder / LOCKS / "folder.lock"), disk_errors(str(self.folder / JOURNAL)):
            yield

    # ---- what there is

    def all(self) -> list[FrozenTrial]:
        """All trials that count, in order."""
        return [one for one in self.study.get_trials(deepcopy=False) if PASSED_OVER not in one.user_attrs]

    def finished(self) -> list[FrozenTrial]:
        """The trials that have ended, with or without a result."""
        return [one for one in self.all() if one.state.is_finished()]

    def complete(self) -> list[FrozenTrial]:
        """The trials with a result."""
        from optuna.trial import TrialState

        return [one for one in self.all() if one.state == TrialState.COMPLETE]

    def best(self) -> FrozenTrial | None:
        """The complete trial with the best result; of several alike the first."""
        pick = min if self.plan.direction == "minimize" else max
        return pick(self.complete(), key=lambda one: cast(float, one.value), default=None)

    def values(self, trial: FrozenTrial | Trial) -> dict[str, Any]:
        """The values of a trial by name; of the default none, since it has those of the settings."""
        if trial.user_attrs.get(DEFAULT):
            return {}
        return {name: value_of(self.plan.space[name], drawn) for name, drawn in trial.params.items()}

    # ---- who runs what

    def claim(self, trials: int) -> Claim | None:
        """A trial to run: one that a process which is gone has left or, where there are fewer than `trials`, a new one.

        None where there is nothing to take, now or ever (`is_exhausted`).

        Raises
        ------
        StudyError
            When no values are found that go together.
        """
        from optuna.trial import Trial, TrialState

        with self.alone():
            for one in self.all():
                if one.state == TrialState.RUNNING and (lock := self._hold(one.number)):
                    trial = Trial(self.study, one._trial_id)
                    self._draw(trial)  # it may have been left before it had all its values
                    if not self._passed_over(trial):
                        return Claim(trial, self.values(trial), self._is_default(trial), True, lock)
                    lock.release()
            return self._new() if len([one for one in self.all() if not _is_waiting(one)]) < trials else None

    def running(self) -> int:
        """How many trials are under way."""
        from optuna.trial import TrialState

        return sum(one.state == TrialState.RUNNING for one in self.all())

    def has_others(self, claim: Claim) -> bool:
        """Whether another process runs a trial beside this one."""
        from optuna.trial import TrialState

        for one in self.all():
            if one.state == TrialState.RUNNING and one.number != claim.number:
                lock = self._hold(one.number)
                if lock is None:
                    return True
                lock.release()
        return False

    def _new(self) -> Claim | None:
        for draw in range(0 if self.is_exhausted else MOST_DRAWS):
            # one seed for each draw, so that two processes, or one that goes on, do not draw alike
            seed = derive_seed(self.plan.search_seed, len(self.study.get_trials(deepcopy=False)), "draw") % 2**32
            self.study.sampler = _sampler(seed, len(self.plan.space), at_random=draw >= MOST_REPEATS)
            if draw >= MOST_REPEATS:
                untried = self._untried()
                if untried:
                    self.study.enqueue_trial(untried[seed % len(untried)])
                elif untried is not None:
                    break
            trial = self.study.ask()
            lock = self._hold(trial.number)
            if lock is None:
                raise StudyError(
                    f"{self.folder}: the lock of trial {trial.number} is held by a process of another search"
                )
            self._draw(trial)
            if not self._passed_over(trial):
                return Claim(trial, self.values(trial), self._is_default(trial), False, lock)
            lock.release()
        if not self.finished() and not self.running():
            raise StudyError("no values were found that go together: search fewer settings, or narrower values")
        self.is_exhausted = True
        return None

    def _untried(self) -> list[dict[str, Any]] | None:
        """What of a small space has not been drawn yet, as the journal has it; None of one that is not small."""
        combinations = small_space(self.plan.base, self.plan.space, self.plugins)
        if combinations is None:
            return None
        drawn = [one.params for one in self.study.get_trials(deepcopy=False)]
        return [one for one in combinations if one not in drawn]

    def _draw(self, trial: Trial) -> None:
        """Draw the values of a trial that it has not got yet."""
        space = self.plan.space
        values = {name: value_of(space[name], drawn) for name, drawn in trial.params.items()}
        for name in in_order(space):
            if name in values or (self._is_default(trial) and name not in self._default):
                continue
            if takes(self.plan.base, self.plugins, name, values):
                values[name] = value_of(space[name], space[name].suggest(trial, name))

    def _passed_over(self, trial: Trial) -> bool:
        """Whether the values of a trial do not go together or have been tried; it is ended then."""
        from optuna.trial import TrialState

        if self._is_default(trial):
            return False
        alike = next((one for one in self.all() if one.number < trial.number and self._is_alike(one, trial)), None)
        if alike is not None:
            trial.set_user_attr(PASSED_OVER, f"as trial {alike.number}")
            self.study.tell(trial, state=TrialState.FAIL)  # one that is pruned would be a bad one to the sampler
            return True
        try:
            checked(self.plan.base, self.values(trial), self.plugins)
        except SageError as error:
            self.pass_over(trial, one_line(error))
            return True
        return False

    def _is_alike(self, one: FrozenTrial, trial: Trial) -> bool:
        is_whole = not one.user_attrs.get(DEFAULT) or len(one.params) == len(self.plan.space)
        return bool(is_whole and not _is_waiting(one) and one.params == trial.params)

    @staticmethod
    def _is_default(trial: Trial) -> bool:
        return bool(trial.user_attrs.get(DEFAULT))

    def _hold(self, number: int) -> BaseFileLock | None:
        """The lock of a trial, or None where another process has it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCKS / f"trial-{number:04d}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    # ---- how it ended

    def pass_over(self, trial: Trial, why: str) -> None:
        """End a trial that does not count, since its values do not go together."""
        from optuna.trial import TrialState

        trial.set_user_attr(PASSED_OVER, why)
        self.study.tell(trial, state=TrialState.PRUNED)  # a bad one to the sampler

    def end(self, claim: Claim, value: float | None, why: str = "", *, failed: bool = False, **told: Any) -> None:
        """End a trial that counts: with its result, or without one and with the reason. `told` is written down too."""
        from optuna.trial import TrialState

        with disk_errors(str(self.folder / JOURNAL)):
            for name, one in told.items():
                claim.trial.set_user_attr(name, one)
            if value is not None:
                self.study.tell(claim.trial, value)
                return
            claim.trial.set_user_attr(WHY, why)
            self.study.tell(claim.trial, state=TrialState.FAIL if failed else TrialState.PRUNED)


def _sampler(seed: int, dimensions: int, *, at_random: bool) -> BaseSampler:
    """What draws the values of a trial."""
    import optuna

    if at_random:
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # by all settings together, in groups where some are not drawn; trials that are under way count as bad ones, so
        # that processes do not draw alike
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True,
            n_startup_trials=max(4, min(10, 2 * dimensions)),
        )  # fmt: skip


def _is_waiting(trial: FrozenTrial) -> bool:
    from optuna.trial import TrialState

    return bool(trial.state == TrialState.WAITING)


def _mend(journal: Path, lock: JournalLock) -> None:
    """Take half a line away that a machine left at the journal's end when it went down: Optuna reads no further."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        with journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - 1_000_000)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail) and (whole or not start):
                file.truncate(start + whole)
    finally:
        lock.release()
