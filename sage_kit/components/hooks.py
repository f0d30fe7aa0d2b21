"""Hooks: registering an object's implementations, and typed calls of the observing hooks."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

import sage_kit
from sage_kit.components import hookspecs, run_hookspecs
from sage_kit.components.guard import Failure, attempt, own_error, plugin_error, remember_home, show_traceback, where
from sage_kit.components.messages import Control
from sage_kit.components.records import RunInfo
from sage_kit.components.spec_checks import CONTRIBUTING_HOOKS
from sage_kit.errors import PluginError, SageError, did_you_mean, one_line
from sage_kit.storage.frozen import frozen_copy

OBSERVER = "observer:"
"""In front of the names of the observers that a run builds."""

if TYPE_CHECKING:
    from sage_kit.components.records import RoundResult

HOOKS: tuple[str, ...] = tuple(
    name
    for module in (hookspecs, run_hookspecs)
    for name, hook in vars(module).items()
    if name.startswith("sage_") and hook.__module__ == module.__name__
)
"""Names of all hooks, in the order in which they are declared."""

COMMANDS = "sage_commands"

OBSERVING_HOOKS: tuple[str, ...] = tuple(name for name in HOOKS if name not in {*CONTRIBUTING_HOOKS, COMMANDS})


class Hooks:
    """The hooks of registered objects, and the calls of those that observe a run.

    Implementations are called one by one and not through ``pm.hook``: an error is traced to the plugin that raised it,
    disables that plugin alone, and the others are still called.

    Attributes
    ----------
    disabled : dict of str to str
        Observers that raised since the last `remove_observers`, and what.
    record_disabled : callable or None
        Is told of each one of these, by name and cause, until the next `remove_observers`.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(sage_kit.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.disabled: dict[str, str] = {}
        self.record_disabled: Callable[[str, str], None] | None = None

    def _register_hooks(self, plugin: Any, key: str, title: str = "") -> None:
        """Register an object's hook implementations under `key`, or raise PluginError and leave nothing behind.

        `title` names the object at the head of a message; without one it is "it".
        """
        head, title = (f"{title}: ", title) if title else ("", "it")
        if plugin is None:  # to pluggy, that is a name that is blocked
            raise PluginError(f"{title} is None, not an object with hooks")
        try:
            attempt(self._manager.register, plugin, key)
        except Failure as failure:
            error = failure.error
            if isinstance(error, ValueError):
                raise PluginError(f"{title} is registered already") from None
            with contextlib.suppress(Exception):  # some of its hooks may be there already
                self._manager.unregister(name=key)
            if isinstance(error, pluggy.PluginValidationError):
                raise PluginError(f"{head}{one_line(error)}") from None
            # even looking at it may raise
            raise plugin_error(f"{head}its hooks cannot be read", error, type(plugin)) from error
        callers = self._manager.get_hookcallers(plugin) or []
        found = [(caller, i) for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin]
        remember_home(functions=[i.function for _, i in found])
        unknown = [caller.name for caller, i in found if not caller.has_spec() and not i.optionalhook]
        if any(i.wrapper or i.hookwrapper for _, i in found):
            problem = "has a hook wrapper, which sage_kit does not call: write a plain implementation"
        elif unknown:
            hint = did_you_mean(unknown[0], HOOKS, "Hooks").removesuffix(".")
            problem = f"implements an unknown hook {unknown[0]!r}.{hint}"
        elif not callers:
            problem = "implements no hook: decorate its functions with sage_kit.hookimpl"
        else:
            return
        self._manager.unregister(plugin)
        raise PluginError(f"{title} {problem}")

    def add_observer(self, name: str, observer: Any) -> None:
        """Register an observer's object for the observing hooks.

        Raises
        ------
        PluginError
            When it implements no hook or one that does not exist, or has been added already.
        """
        self._register_hooks(observer, f"{OBSERVER}{name}", f"observer {name!r}")
        remember_home(module=type(observer).__module__)

    def remove_observers(self) -> None:
        """Drop the observers that `add_observer` added and forget which ones failed."""
        for name, plugin in self._manager.list_name_plugin():
            if name.startswith(OBSERVER) and plugin is not None:
                self._manager.unregister(plugin)
        self.disabled.clear()
        self.record_disabled = None

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """The implementations of a hook in the order in which they are called."""
        # pluggy lists them in order of registration and `trylast` first, to call them backwards; here they go forwards.
        return sorted(getattr(self._manager.hook, hook).get_hookimpls(), key=lambda i: i.trylast - i.tryfirst)

    def _observe(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call every implementation of an observing hook; one that raises is reported once and disabled.

        Whatever an observer raises, the run goes on. What it is handed is its own or cannot be changed. Returns the
        answers, each with the name of the plugin.
        """
        answers = []
        for implementation in self._implementations(hook):
            name = implementation.plugin_name
            if name in self.disabled:
                continue
            try:
                given = (_handed(arguments[a]) for a in implementation.argnames)
                answers.append((str(name), attempt(implementation.function, *given)))
            except (Failure, SageError) as raised:
                error = own_error(raised)
                show_traceback(error)
                cause = f"{hook} raised {where(error, implementation.function)}"
                self._disable(str(name), cause, arguments.get("run"))
        return answers

    def _disable(self, name: str, cause: str, run: RunInfo | None) -> None:
        """Leave an observer out for the rest of the run, and say so."""
        self.disabled[name] = cause
        if self.record_disabled is not None:
            self.record_disabled(name, cause)
        self.message(run, f"{name} is disabled: {cause}")

    def commands(self, app: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
        """Call `sage_commands`, each with a new app; gives a plugin's name, and that or a PluginError."""
        for implementation in self._implementations(COMMANDS):
            name, own = implementation.plugin_name, app()
            try:
                attempt(implementation.function, *([own] if implementation.argnames else []))
            except (Failure, SageError) as raised:
                error = own_error(raised)
                show_traceback(error)
                yield name, plugin_error(f"plugin {name}: {COMMANDS}", error, implementation.function)
            else:
                yield name, own

    def run_started(self, run: RunInfo) -> None:
        """Call `sage_run_started`."""
        self._observe("sage_run_started", run=run)

    def round_started(self, run: RunInfo, round: int) -> None:
        """Call `sage_round_started`."""
        self._observe("sage_round_started", run=run, round=round)

    def losses_profiled(self, run: RunInfo, round: int, losses: Any) -> None:
        """Call `sage_losses_profiled`."""
        # a copy that never changes: on a CPU the loop goes on writing to the same memory
        if self._manager.hook.sage_losses_profiled.get_hookimpls():
            self._observe("sage_losses_profiled", run=run, round=round, losses=frozen_copy(losses))

    def synthetic_created(self, run: RunInfo, round: int, synthetic: Any) -> None:
        """Call `sage_synthetic_created`."""
        # a copy that never changes: the student is about to train on the set itself
        if self._manager.hook.sage_synthetic_created.get_hookimpls():
            self._observe("sage_synthetic_created", run=run, round=round, synthetic=synthetic.frozen())

    def step_finished(self, run: RunInfo | None, activity: str, done: int, total: int, loss: Any = None) -> None:
        """Call `sage_step_finished`."""
        self._observe("sage_step_finished", run=run, activity=activity, done=done, total=total, loss=loss)

    @property
    def has_control(self) -> bool:
        """Whether anyone implements `sage_control`."""
        implementations = self._manager.hook.sage_control.get_hookimpls()
        return any(implementation.plugin_name not in self.disabled for implementation in implementations)

    def control(self, run: RunInfo, done: int, total: int) -> Control:
        """Call `sage_control`."""
        found = Control()
        for name, answer in self._observe("sage_control", run=run, done=done, total=total):
            if answer is None:
                continue
            problem = answer.problem() if isinstance(answer, Control) else "it is no Control, nor None"
            if problem:
                self._disable(name, f"sage_control returned {answer!r}: {problem}", run)
            else:
                found |= answer
        return found

    def evaluated(self, run: RunInfo, done: int, scores: dict[str, float]) -> None:
        """Call `sage_evaluated`."""
        self._observe("sage_evaluated", run=run, done=done, scores=scores)

    def message(self, run: RunInfo | None, text: str) -> None:
        """Call `sage_message`."""
        self._observe("sage_message", run=run, text=text)

    def damage(self, run: RunInfo | None, text: str) -> None:
        """Call `sage_message`; where no progress is shown, damage is told on the error output all the same."""
        shown_by = f"{OBSERVER}progress"
        if not self._manager.has_plugin(shown_by) or shown_by in self.disabled:
            print(f"sage-kit: {text}", file=sys.stderr, flush=True)
        self.message(run, text)

    def round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Call `sage_round_finished`."""
        self._observe("sage_round_finished", run=run, result=result)

    def checkpoint_saved(self, run: RunInfo, round: int, path: Path) -> None:
        """Call `sage_checkpoint_saved`."""
        self._observe("sage_checkpoint_saved", run=run, round=round, path=path)

    def run_finished(self, run: RunInfo, summary: dict[str, Any]) -> None:
        """Call `sage_run_finished`."""
        self._observe("sage_run_finished", run=run, summary=summary)

    def run_failed(self, run: RunInfo, error: BaseException) -> None:
        """Call `sage_run_failed`."""
        self._observe("sage_run_failed", run=run, error=error)


def _handed(value: Any) -> Any:
    """What an observer gets of an argument: the same where nothing of the run can be changed by it, else a copy."""
    if isinstance(value, RunInfo):
        return value.as_of_now()
    if isinstance(value, dict):
        return copy.deepcopy(value)
    return value
