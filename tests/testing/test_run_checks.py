from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from sage_kit.builtin.filters import sage_filters
from sage_kit.components.spec_checks import KINDS
from sage_kit.errors import ConfigError, PluginError
from sage_kit.testing import check_component, check_names, parametrize_with_checks
from sage_kit.testing.registry import FIX
from sage_kit.testing.run_checks import checks_for

pytest_plugins = ("pytester",)

ALL = {check.name: check for kind in KINDS for check in checks_for(kind)}


def parameters(*arguments: Any, **keywords: Any) -> list[Any]:
    def test(spec: Any, check: Any) -> None:
        check(spec)

    decorated = parametrize_with_checks(*arguments, **keywords)(test)
    return decorated.pytestmark[0].args[1]  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("name", ALL)
def test_every_check_says_what_it_does_and_how_to_fix_a_failure(name: str) -> None:
    doc = inspect.cleandoc(ALL[name].function.__doc__ or "")
    what, _, fix = doc.partition(FIX)
    assert what.strip()
    assert fix.strip().endswith(".")
    assert ALL[name].fix == " ".join(fix.split())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_checks_of_its_own(kind: str) -> None:
    assert any(check.kinds == (kind,) for check in checks_for(kind))
    assert check_names(kind)[0] == "valid_name"
    assert check_names(kind)[-1] == "loop_run"


def test_there_is_one_test_for_each_check_of_each_component() -> None:
    specs = list(sage_filters())
    made = parameters(specs)
    assert [p.id for p in made] == [f"filter-{s.name}-{name}" for s in specs for name in check_names("filter")]
    assert not any(p.marks for p in made)


def test_expected_failures_are_strict_and_carry_their_reason() -> None:
    specs = [spec for spec in sage_filters() if spec.name in ("none", "cosine")]
    made = parameters(specs, {"filter_shapes": "all", "none/loop_run": "one"})
    marked = {p.id: p.marks[0].kwargs for p in made if p.marks}
    assert marked == {
        "filter-none-filter_shapes": {"strict": True, "reason": "all"},
        "filter-cosine-filter_shapes": {"strict": True, "reason": "all"},
        "filter-none-loop_run": {"strict": True, "reason": "one"},
    }


def test_no_component_is_an_error() -> None:
    with pytest.raises(PluginError, match="there is no component to check"):
        parametrize_with_checks([])


def test_misspelt_names_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"Unknown check 'filter_shape'.*Did you mean 'filter_shapes'"):
        parametrize_with_checks(sage_filters(), {"filter_shape": "?"})
    with pytest.raises(ConfigError, match="'cosin', which is none of the components"):
        parametrize_with_checks(sage_filters(), options={"cosin": {}})


def test_options_reach_the_component() -> None:
    (spec,) = (spec for spec in sage_filters() if spec.name == "cosine")
    results = {result.name: result for result in check_component(spec, options={"minimum": 5})}
    assert "option 'minimum' is 5" in results["protocol"].message
    assert all(result.passed for result in check_component(spec, options=spec.options(minimum=0.9)))


def test_what_depends_on_a_fault_is_not_run() -> None:
    (spec,) = (spec for spec in sage_filters() if spec.name == "cosine")
    results = {result.name: result for result in check_component(spec, options={"minimum": 5})}
    assert [name for name, result in results.items() if not result.passed] == ["protocol"]
    assert results["filter_shapes"].skipped
    assert results["filter_shapes"].message == "not run: first mend what protocol found"
    assert results["loop_run"].skipped
    assert not results["light_discovery"].skipped


SUITE = """
from sage_kit.components import FilterSpec
from sage_kit.testing import parametrize_with_checks

SPEC = FilterSpec(name="numbers", summary="Answers with numbers", factory=lambda options, context: Numbers())


class Numbers:
    def keep(self, request):
        import numpy as np

        return np.ones(len(request.vectors), dtype=int)


SHAPES = ["filter_shapes", "filter_is_repeatable", "filter_takes_hard_data", "loop_run"]


@parametrize_with_checks([SPEC], dict.fromkeys(SHAPES, "numbers instead of bool"))
def test_expected(spec, check):
    check(spec)


@parametrize_with_checks([SPEC], {"valid_name": "is valid", **dict.fromkeys(SHAPES, "numbers")})
def test_strict(spec, check):
    check(spec)


@parametrize_with_checks([SPEC])
def test_failing(spec, check):
    check(spec)
"""


def test_outcomes_in_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()
    skipped = 19  # one needs a module, the others look at what a right answer comes with
    ran = len(check_names("filter")) - skipped - 4  # four are about the answer's type
    assert outcome == {"xfailed": 8, "skipped": 3 * skipped, "passed": ran + ran - 1 + ran, "failed": 1 + 4}


def test_checks_work_outside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = next(iter(sage_filters()))
    assert all(result.passed for result in check_component(spec))
    assert list(tmp_path.iterdir()) == []
