"""What observers are told of a run: by the main process, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.recipe import Recipe

if TYPE_CHECKING:
    from sage_kit.components.records import RunInfo

P = ParamSpec("P")

OnStep = Callable[..., Any]
"""Told the steps done, the steps in all and, if there is one, the loss as a tensor."""


class RunEvents:
    """Tells the observers of `plugins`, unless this is not the main process.

    Parameters
    ----------
    plugins : Plugins
    is_main : bool

    Attributes
    ----------
    run : RunInfo or None
        The run that the observers are told of; None before it has a directory.
    """

    def __init__(self, plugins: Plugins, is_main: bool) -> None:
        self.run: RunInfo | None = None
        self._plugins = plugins
        self._is_main = is_main

    def tell(self, hook: Callable[Concatenate[Any, P], None], *arguments: P.args, **named: P.kwargs) -> None:
        """Call one of the observing methods of `Plugins`, with the run in front of the arguments."""
        if self._is_main:
            hook(self.run, *arguments, **named)

    def message(self, text: str) -> None:
        """Show a line to the user."""
        self.tell(self._plugins.message, text)

    def damage(self, text: str) -> None:
        """Tell the user of a file that is damaged, whichever observers run."""
        self.tell(self._plugins.damage, text)

    def steps(self, activity: str) -> OnStep:
        """A callback that tells of an activity's steps."""
        step = self._plugins.step_finished
        return lambda done, total, loss=None: self.tell(step, activity, done, total, loss)

    def add_observers(self, recipe: Recipe, device: str) -> None:
        """Build the observers that the settings name; they are told from now on."""
        context = BuildContext(config=recipe.config, seed=recipe.config.seed, device=device)
        for name, options in recipe.observers.items():
            self._plugins.add_observer(name, self._plugins.build("observer", name, options, context))
