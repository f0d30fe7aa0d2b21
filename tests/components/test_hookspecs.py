from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

import pluggy
import pytest

import sage_kit
from sage_kit import hookimpl
from sage_kit.components import HeadParts, HubSource, hookspecs, lazy
from sage_kit.components.hooks import COMMANDS, HOOKS, OBSERVING_HOOKS
from sage_kit.components.plugins import Plugins
from sage_kit.components.spec_checks import CONTRIBUTING_HOOKS


def example(name: str) -> str:
    """The code of the hook's one example."""
    doc = inspect.cleandoc(getattr(hookspecs, name).__doc__)
    titles = re.findall(r"^(\w+)\n-{3,}$", doc, flags=re.MULTILINE)
    assert titles.count("Examples") == 1
    assert titles[-1] == "Examples"
    return textwrap.dedent(doc.partition("Examples\n--------\n::\n")[2]).strip()


@pytest.mark.parametrize("name", HOOKS)
def test_docstring_says_when_and_shows_one_example_that_compiles(name: str) -> None:
    doc = inspect.cleandoc(getattr(hookspecs, name).__doc__)
    assert re.match(r"(Contribute|Called) ", doc)
    tree = ast.parse(example(name))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert name in {function.name for function in functions}
    for function in functions:
        assert [ast.unparse(decorator) for decorator in function.decorator_list] == ["hookimpl"]


@pytest.mark.parametrize("name", HOOKS)
def test_example_is_accepted_by_the_hook(name: str) -> None:
    # What an example takes from its surroundings is given here; what it imports from sage_kit is the real thing.
    names: dict[str, Any] = {"hookimpl": hookimpl, "lazy": lazy, "HubSource": HubSource, "HeadParts": HeadParts}
    names |= {spec.__name__: spec for spec in CONTRIBUTING_HOOKS.values()}
    names |= dict.fromkeys(re.findall(r"make_\w+|list_runs", example(name)), lambda options, context: None)
    exec(compile(example(name), name, "exec"), names)
    manager = pluggy.PluginManager(sage_kit.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = type("Plugin", (), {name: staticmethod(names[name])})
    manager.register(plugin)
    manager.check_pending()
    if name in CONTRIBUTING_HOOKS:
        specs = list(names[name]())
        assert [type(spec) for spec in specs] == [CONTRIBUTING_HOOKS[name]]
        assert specs[0].summary


@pytest.mark.parametrize("name", [COMMANDS, *OBSERVING_HOOKS])
def test_every_parameter_of_an_observing_hook_is_documented(name: str) -> None:
    doc = inspect.cleandoc(getattr(hookspecs, name).__doc__)
    section = doc.partition("Parameters\n----------\n")[2].partition("Examples\n")[0]
    documented = [
        part.strip() for line in re.findall(r"^([\w, ]+) : ", section, flags=re.MULTILINE) for part in line.split(",")
    ]
    assert documented == list(inspect.signature(getattr(hookspecs, name)).parameters)


@pytest.mark.parametrize("name", OBSERVING_HOOKS)
def test_every_observing_hook_has_a_call_method_of_the_same_parameters(name: str) -> None:
    method = getattr(Plugins, name.removeprefix("sage_"))
    assert list(inspect.signature(method).parameters)[1:] == list(
        inspect.signature(getattr(hookspecs, name)).parameters
    )
    assert method.__doc__ == f"Call `{name}`."


@pytest.mark.parametrize("name", CONTRIBUTING_HOOKS)
def test_contributing_hooks_take_nothing(name: str) -> None:
    assert not inspect.signature(getattr(hookspecs, name)).parameters
