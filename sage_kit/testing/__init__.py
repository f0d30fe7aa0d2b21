"""Conformance checks for people who write plugins.

In a plugin's tests::

    from sage_kit.testing import parametrize_with_checks
    import my_plugin

    @parametrize_with_checks(my_plugin.sage_reducers())
    def test_conformance(spec, check):
        check(spec)

or, outside pytest, ``check_component(spec)`` and ``sage-kit check NAME``. Each check is a function whose docstring says
what it looks at and how to mend what it finds.
"""

from sage_kit.testing.registry import CheckFailure, CheckResult
from sage_kit.testing.run_checks import check_component, check_names, parametrize_with_checks

__all__ = ["CheckFailure", "CheckResult", "check_component", "check_names", "parametrize_with_checks"]
