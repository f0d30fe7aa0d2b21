"""Checks of observers."""

from __future__ import annotations

from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject


@check("observer")
def observer_hooks(subject: Subject) -> None:
    """It implements observing hooks that exist, and bears those that are called before the run has a directory.

    To fix: decorate methods with sage_kit.hookimpl, name them and their parameters as in sage_kit.hookspecs, and expect
    ``run`` to be None in sage_step_finished and sage_message.
    """
    observer = subject.build()
    plugins = subject.plugins
    plugins.remove_observers()
    plugins.add_observer(subject.spec.name, observer)
    try:
        plugins.message(None, "a line")
        plugins.step_finished(None, "teacher", 1, 2)
        require(not plugins.disabled, "; ".join(plugins.disabled.values()))
    finally:
        plugins.remove_observers()
