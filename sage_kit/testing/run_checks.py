"""Running the checks: as a function, and as pytest's parameters."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sage_kit.components import Options
from sage_kit.components.plugins import Plugins
from sage_kit.components.spec_checks import Spec
from sage_kit.errors import ConfigError, MissingPackageError, PluginError, did_you_mean
from sage_kit.testing.registry import CHECKS, Check, CheckResult, CheckWarning, ConformanceWarning, NotApplicable
from sage_kit.testing.subject import Subject

# the order in which they run; each module adds its checks to the list when it is imported
CHECK_MODULES = (
    "common", "discovery", "many_rows", "reducers", "samplers", "inverters", "lifts", "filters", "loss_values",
    "decoders", "metric_scores", "stop_rules", "observers", "tasks", "aligned_outputs", "encoder_families",
    "later_rounds", "side_effects", "loop",
)  # fmt: skip


def checks_for(kind: str) -> list[Check]:
    """The checks that a component of this kind goes through, in their order."""
    for name in CHECK_MODULES:
        importlib.import_module(f"sage_kit.testing.checks.{name}")
    return [check for check in CHECKS if not check.kinds or kind in check.kinds]


def check_names(kind: str) -> list[str]:
    """Names of the checks that a component of this kind goes through."""
    return [check.name for check in checks_for(kind)]


def check_component(
    spec: Spec, *, options: Mapping[str, Any] | Options | None = None, plugins: Plugins | None = None
) -> list[CheckResult]:
    """Run every check of the component's kind.

    Parameters
    ----------
    spec : ComponentSpec or TaskSpec
        What a contributing hook yields.
    options : mapping or Options
        Options under which the component is checked, e.g. fewer epochs; the others have their defaults.
    plugins : Plugins
        Where `spec` is registered already; None registers it beside all installed plugins.

    Returns
    -------
    list of CheckResult
        One per check, in order. Where the component cannot be built, or returns what its kind does not, the checks that
        depend on it are skipped: their failures would hide the cause.
    """
    return list(run_checks(Subject(spec, options, plugins)))


def run_checks(subject: Subject, started: Callable[[str], None] = lambda name: None) -> Iterator[CheckResult]:
    """The results of all checks, each as soon as it is there."""
    cause = ""
    for check in checks_for(subject.spec.kind):
        started(check.name)
        if cause and (check.name == "loop_run" or check.kinds):
            yield not_run(check.name, cause)
            continue
        result = check.result(subject)
        if not result.passed and check.name in ("protocol", f"{subject.spec.kind}_shapes"):
            cause = check.name
        yield result


def not_run(name: str, cause: str) -> CheckResult:
    """The result of a check that would only show again what another one has found."""
    return CheckResult(name, True, f"not run: first mend what {cause} found", 0.0, skipped=True)


def parametrize_with_checks(
    specs: Iterable[Spec],
    expected_failures: Mapping[str, str] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test that takes ``spec`` and ``check`` and calls ``check(spec)``: one test for each pair.

    Parameters
    ----------
    specs : iterable of ComponentSpec or TaskSpec
    expected_failures : mapping of str to str
        Reason by check, for checks that these components are known to fail; ``"name/check"`` means one component's.
        A check that is named here and passes fails the test. One that warns has failed if it is named here; else pytest
        shows its warning.
    options : mapping of str to mapping
        Options under which a component is checked, by its name.

    Raises
    ------
    PluginError
        When there is no component.
    ConfigError
        When an expected failure names no check, or options no component.
    MissingPackageError
        When pytest is not installed.

    Examples
    --------
    ::

        @parametrize_with_checks(my_plugin.sage_reducers(), {"reducer_batch_invariance": "the library draws at random"})
        def test_conformance(spec, check):
            check(spec)
    """
    try:
        pytest = importlib.import_module("pytest")  # only there where tests are run
    except ModuleNotFoundError:
        raise MissingPackageError("parametrize_with_checks needs pytest: pip install pytest") from None
    chosen: Sequence[Spec] = list(specs)
    expected, given = dict(expected_failures or {}), dict(options or {})
    if not chosen:
        raise PluginError("there is no component to check: the list of specs is empty")
    pairs = [(spec, check) for spec in chosen for check in checks_for(spec.kind)]
    known = {check.name for _, check in pairs} | {f"{spec.name}/{check.name}" for spec, check in pairs}
    for name in expected:
        if name not in known:
            raise ConfigError(f"Unknown check {name!r} in expected_failures.{did_you_mean(name, known)}")
    for name in given:
        if name not in {spec.name for spec in chosen}:
            raise ConfigError(f"options are given for {name!r}, which is none of the components under check")
    subjects = {id(spec): _LazySubject(spec, given.get(spec.name)) for spec in chosen}
    parameters = []
    for spec, check in pairs:
        reason = expected.get(f"{spec.name}/{check.name}", expected.get(check.name))
        # the plugin's author says which checks fail, and why; strict, so that one that passes is told
        marks = [] if reason is None else [pytest.mark.xfail(strict=True, reason=reason)]
        parameters.append(
            pytest.param(
                spec,
                _pytest_check(check, subjects[id(spec)], pytest, reason is not None),
                marks=marks,
                id=f"{spec.kind}-{spec.name}-{check.name}",
            )
        )
    decorated: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.parametrize(
        ("spec", "check"), parameters
    )
    return decorated


class _LazySubject:
    """Makes the subject of a spec when its first check runs, not when pytest collects."""

    def __init__(self, spec: Spec, options: Mapping[str, Any] | None) -> None:
        self._arguments = (spec, options)
        self._subject: Subject | None = None

    def get(self) -> Subject:
        if self._subject is None:
            self._subject = Subject(*self._arguments)
        return self._subject


def _pytest_check(check: Check, subject: _LazySubject, pytest: Any, expected: bool) -> Callable[[Spec], None]:
    def run(spec: Spec) -> None:
        try:
            check.run(subject.get())
        except NotApplicable as reason:  # the check says why, as of a component that lacks what it looks at
            pytest.skip(str(reason))
        except CheckWarning as warning:
            if expected:
                raise
            warnings.warn(ConformanceWarning(str(warning)), stacklevel=2)

    run.__name__ = run.__qualname__ = check.name
    return run
