"""What plugins make of the course of a run: the first process asks them, and all obey at the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sage_kit.components import Control
from sage_kit.components.plugins import Plugins
from sage_kit.system.processes import from_main
from sage_kit.training.learner import Learner
from sage_kit.training.prepared import Prepared
from sage_kit.training.run_events import OnStep, RunEvents

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
    prepared : Prepared
    learner : Learner
        What is scored on dev where the plugins ask for that.
    planned : int
        Student steps of the whole run.

    Attributes
    ----------
    stopped : str
        Why to stop, once someone has said so; "" before.
    keeps : bool
        Whether the checkpoint of the round that is under way is to be kept for good.
    """

    def __init__(
        self,
        plugins: Plugins,
        events: RunEvents,
        accelerator: Accelerator,
        prepared: Prepared,
        learner: Learner,
        planned: int,
    ) -> None:
        self.stopped = ""
        self.keeps = False
        self._plugins = plugins
        self._events = events
        self._accelerator = accelerator
        self._prepared = prepared
        self._learner = learner
        self._planned = planned

    def is_asked(self) -> bool:
        """Whether there is someone to ask, the same in every process; to be called by all of them."""
        return from_main(self._plugins.has_control, self._accelerator)

    def obey(self, done: int) -> bool:
        """Ask after so many student steps, and do what is answered; whether to stop.

        To be called by every process; all of them get the first one's answer.
        """
        found = Control()
        if self._accelerator.is_main_process and self._events.run is not None:
            found = self._plugins.control(self._events.run, done, self._planned)
        found = from_main(found, self._accelerator)
        self.stopped = self.stopped or found.stop
        self.keeps = self.keeps or found.save
        if found.evaluate:
            dev = self._prepared.dev
            logits = self._learner.predict(dev)
            self._learner.upper.train()
            scores = dev.scores(logits)
            self._events.tell(self._plugins.evaluated, done, scores)
        return bool(self.stopped)

    def watching(self, tell: OnStep) -> OnStep:
        """The callback of a round's student steps: it also asks, but after the last step, and says whether to stop."""
        is_asked, before = self.is_asked(), self._learner.steps

        def on_step(done: int, total: int, loss: Any = None) -> bool:
            tell(done, total, loss)
            return is_asked and done < total and self.obey(before + done)

        return on_step
