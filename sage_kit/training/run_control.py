"""What plugins make of the course of a run: the first process asks them, and all obey at the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.components import Control
from sage_kit.components.plugins import Plugins
from sage_kit.system.processes import from_main
from sage_kit.training.run_events import RunEvents

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunControl:
    """Asks the plugins' `sage_control`.

    Parameters
    ----------
    plugins : Plugins
    events : RunEvents
        Knows the run that the plugins are told of.
    accelerator : Accelerator

    Attributes
    ----------
    stopped : str
        Why to stop, once someone has said so; "" before.
    keeps : bool
        Whether the checkpoint of the round that is under way is to be kept for good.
    """

    def __init__(self, plugins: Plugins, events: RunEvents, accelerator: Accelerator) -> None:
        self.stopped = ""
        self.keeps = False
        self._plugins = plugins
        self._events = events
        self._accelerator = accelerator

    def is_asked(self) -> bool:
        """Whether there is someone to ask, the same in every process; to be called by all of them."""
        return from_main(self._plugins.has_control, self._accelerator)

    def ask(self, done: int, total: int) -> Control:
        """The answer, the same in every process; to be called by all of them."""
        found = Control()
        if self._accelerator.is_main_process and self._events.run is not None:
            found = self._plugins.control(self._events.run, done, total)
        found = from_main(found, self._accelerator)
        self.stopped = self.stopped or found.stop
        self.keeps = self.keeps or found.save
        return found
