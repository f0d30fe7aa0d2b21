"""Checks of what a component changes beside its result: each looks at one part of what it shares with the process."""

from __future__ import annotations

from sage_kit.testing.checks.many_rows import USED
from sage_kit.testing.exercises import require_nothing, require_use
from sage_kit.testing.registry import FIX, check
from sage_kit.testing.subject import Subject

ALL = (*USED, "observer", "task", "family")
NO_OBSERVER = tuple(kind for kind in ALL if kind != "observer")


def _leaves(name: str, aspect: str, what: str, fix: str, kinds: tuple[str, ...] = ALL) -> None:
    """Register the check that nothing was noted of an aspect."""

    def function(subject: Subject) -> None:
        require_use(subject)
        require_nothing(subject.effects.get(aspect, []), "{}")

    function.__name__ = name
    function.__doc__ = f"{what}\n\n{FIX} {fix}"
    check(*kinds)(function)


_leaves(
    "leaves_torch_as_it_was", "torch",
    "Torch's default type and device, its threads and those of BLAS and OpenMP, and its gradients stay as they were.",
    "pass ``dtype=`` and ``device=`` to each tensor, use ``with torch.no_grad():``, and limit threads for one block "
    "with ``with threadpoolctl.threadpool_limits(1):``.",
)  # fmt: skip
_leaves(
    "leaves_numpy_as_it_was", "numpy",
    "Numpy's handling of floating-point errors and its print options stay as they were.",
    "use ``with np.errstate(...):`` and ``with np.printoptions(...):`` around the lines that need them.",
)  # fmt: skip
_leaves(
    "leaves_the_working_directory", "directory",
    "The process stays in its working directory, and no file in it is made, changed or removed.",
    "give full paths instead of os.chdir; write temporary files below tempfile.TemporaryDirectory, and results below "
    "``run.directory`` from an observer.",
)  # fmt: skip
_leaves(
    "leaves_the_environment", "environment",
    "Environment variables stay as they were: libraries that are loaded later read them.",
    "pass the value to the library itself; say in the component's documentation which variable a user may set.",
)  # fmt: skip
_leaves(
    "leaves_logging_as_it_was", "logging",
    "Levels, handlers and filters of the loggers that are there stay as they were, the root logger's too.",
    "leave logging.basicConfig to the application; log to ``logging.getLogger(__name__)`` and set the level of that "
    "one only. An observer takes its handlers away again when the run ends.",
)  # fmt: skip
_leaves(
    "leaves_warnings_as_they_were", "warnings",
    "The filters of warnings stay as they were.",
    "put ``with warnings.catch_warnings():`` around the call whose warning you know, and the filter inside.",
)  # fmt: skip
_leaves(
    "leaves_random_states", "random",
    "It neither draws from nor seeds the global random generators of Python, numpy and torch.",
    "draw from the generator that the request brings, or from one of your own: "
    "``np.random.default_rng(context.seed)``, ``torch.Generator().manual_seed(context.seed)``.",
    NO_OBSERVER,
)  # fmt: skip
_leaves(
    "prints_nothing", "printed",
    "It writes nothing to the standard output and the error output, where results and progress bars are.",
    "tell the user with ``context.announce(text)``, and write the rest to ``logging.getLogger(__name__)``; turn a "
    "library's progress bar off.",
    NO_OBSERVER,
)  # fmt: skip
_leaves(
    "leaves_no_threads", "threads",
    "No thread that it has started goes on half a second after the call.",
    "join your threads before you return, or use ``with ThreadPoolExecutor() as pool:``. An observer ends them in "
    "sage_run_finished and in sage_run_failed.",
)  # fmt: skip
_leaves(
    "leaves_the_interpreter", "interpreter",
    "Signal handlers, recursion limit, locale, garbage collector and the like stay as they were.",
    "put back what you change, in a ``finally``; an iterative loop needs no deeper recursion.",
)  # fmt: skip


@check(*ALL)
def keeps_the_configuration(subject: Subject) -> None:
    """The settings that it is given, and the tables in them, stay as they were.

    To fix: copy a table before you change it, ``dict(context.config.sampler_options)``; read your own options from
    `options`.
    """
    require_use(subject)
    require_nothing(subject.changed_settings, "it changes the settings {}")
