"""Checks of what a component changes beside its result: each looks at one part of what it shares with the process."""

from __future__ import annotations

from sage_kit.testing.checks.many_rows import USED
from sage_kit.testing.exercises import require_nothing, require_use
from sage_kit.testing.registry import check
from sage_kit.testing.subject import Subject

ALL = (*USED, "observer", "task", "family")


def _require_none(subject: Subject, aspect: str) -> None:
    require_use(subject)
    require_nothing(subject.effects.get(aspect, []), "{}")


@check(*ALL)
def leaves_torch_as_it_was(subject: Subject) -> None:
    """Torch's default type and device, its threads and those of BLAS and OpenMP, and its gradients stay as they were.

    To fix: pass ``dtype=`` and ``device=`` to each tensor, use ``with torch.no_grad():``, and limit threads for one
    block with ``with threadpoolctl.threadpool_limits(1):``.
    """
    _require_none(subject, "torch")


@check(*ALL)
def leaves_numpy_as_it_was(subject: Subject) -> None:
    """Numpy's handling of floating-point errors and its print options stay as they were.

    To fix: use ``with np.errstate(...):`` and ``with np.printoptions(...):`` around the lines that need them.
    """
    _require_none(subject, "numpy")


@check(*ALL)
def leaves_the_working_directory(subject: Subject) -> None:
    """The process stays in its working directory, and no file in it is made, changed or removed.

    To fix: give full paths instead of os.chdir; write temporary files below tempfile.TemporaryDirectory, and results
    below ``run.directory`` from an observer.
    """
    _require_none(subject, "directory")


@check(*ALL)
def leaves_the_environment(subject: Subject) -> None:
    """Environment variables stay as they were: libraries that are loaded later read them.

    To fix: pass the value to the library itself; say in the component's documentation which variable a user may set.
    """
    _require_none(subject, "environment")


@check(*ALL)
def leaves_logging_as_it_was(subject: Subject) -> None:
    """Levels, handlers and filters of the loggers that are there stay as they were, the root logger's too.

    To fix: leave logging.basicConfig to the application; log to ``logging.getLogger(__name__)`` and set the level of
    that one only. An observer takes its handlers away again when the run ends.
    """
    _require_none(subject, "logging")


@check(*ALL)
def leaves_warnings_as_they_were(subject: Subject) -> None:
    """The filters of warnings stay as they were.

    To fix: put ``with warnings.catch_warnings():`` around the call whose warning you know, and the filter inside.
    """
    _require_none(subject, "warnings")


@check(*(kind for kind in ALL if kind != "observer"))
def leaves_random_states(subject: Subject) -> None:
    """It neither draws from nor seeds the global random generators of Python, numpy and torch.

    To fix: draw from the generator that the request brings, or from one of your own:
    ``np.random.default_rng(context.seed)``, ``torch.Generator().manual_seed(context.seed)``.
    """
    _require_none(subject, "random")


@check(*(kind for kind in ALL if kind != "observer"))
def prints_nothing(subject: Subject) -> None:
    """It writes nothing to the standard output and the error output, where results and progress bars are.

    To fix: tell the user with ``context.announce(text)``, and write the rest to ``logging.getLogger(__name__)``; turn a
    library's progress bar off.
    """
    _require_none(subject, "printed")


@check(*ALL)
def leaves_no_threads(subject: Subject) -> None:
    """No thread that it has started goes on half a second after the call.

    To fix: join your threads before you return, or use ``with ThreadPoolExecutor() as pool:``. An observer ends them
    in sage_run_finished and in sage_run_failed.
    """
    _require_none(subject, "threads")


@check(*ALL)
def leaves_the_interpreter(subject: Subject) -> None:
    """Signal handlers, recursion limit, locale, garbage collector and the like stay as they were.

    To fix: put back what you change, in a ``finally``; an iterative loop needs no deeper recursion.
    """
    _require_none(subject, "interpreter")


@check(*ALL)
def keeps_the_configuration(subject: Subject) -> None:
    """The settings that it is given, and the tables in them, stay as they were.

    To fix: copy a table before you change it, ``dict(context.config.sampler_options)``; read your own options from
    `options`.
    """
    require_use(subject)
    require_nothing(subject.changed_settings, "it changes the settings {}")
