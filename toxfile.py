"""What tox loads beside `tox.ini`: no combination of factors resolves to an environment that runs nothing.

tox takes any environment whose name is made of factors that it knows, and gives it the settings of ``[testenv]``, whose
commands depend on the factors. So ``py311-lint`` would install everything, run nothing and pass.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from tox.plugin import impl
from tox.report import HandledError
from tox.tox_env.python.api import Python

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tox.config.sets import ConfigSet, EnvConfigSet
    from tox.session.state import State

ROOT = Path(__file__).parent

TESTS = ("core", "plugins", "all", "notebooks", "min")
"""Factors that choose what is tested; beside them each folder below ``plugins`` tests one plugin alone."""

VERSIONS = ("torch25", "transformers50", "newest")
"""Factors that exchange versions of packages."""


def choices() -> tuple[str, ...]:
    """All factors that choose what is tested."""
    return (*TESTS, *sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")))


def fault_of(name: str, own_sections: Iterable[str]) -> str:
    """What is wrong with the name of an environment, and what to do; empty for a good one.

    Parameters
    ----------
    name : str
        Factors, joined by hyphens.
    own_sections : iterable of str
        Environments that have a section of their own in ``tox.ini``.
    """
    alone = set(own_sections)
    if name in alone:
        return ""
    factors = name.split("-")
    tests = [factor for factor in dict.fromkeys(factors) if factor in choices()]
    for factor in factors:
        if factor not in (*tests, *VERSIONS) and not is_python(factor):
            if factor in alone:
                remedy = f"it stands alone: tox run -e {factor}"
            else:
                known = (*choices(), *VERSIONS, *sorted(alone))
                close = difflib.get_close_matches(factor, known, n=1)
                remedy = f"did you mean {close[0]!r}? Factors are {_known()}" if close else f"factors are {_known()}"
            return f"factor {factor!r} cannot be part of environment {name!r}: {remedy}"
    if not tests:
        return f"environment {name!r} names no tests: add one of {', '.join(choices())}"
    pythons = [factor for factor in factors if is_python(factor)]
    if len(pythons) > 1:
        return f"environment {name!r} names {len(pythons)} Pythons: take one of {', '.join(pythons)}"
    if len(tests) > 1:
        each = ",".join("-".join(f for f in factors if f == one or f not in tests) for one in tests)
        return (
            f"environment {name!r} names {len(tests)} sets of tests: take one, or run them in turn: tox run -e {each}"
        )
    if {"min", "newest"} <= set(factors):
        return f"environment {name!r} wants the lowest versions and the newest: leave out 'min' or 'newest'"
    return ""


def is_python(factor: str) -> bool:
    """Whether tox takes a factor for a version of Python."""
    return factor == "py" or Python.extract_base_python(factor) is not None


def _known() -> str:
    return f"a Python such as py311, then one of {', '.join(choices())}, then {', '.join(VERSIONS)}"


def _own_sections(state: State) -> list[str]:
    return [name for section in state.conf.sections() if section.is_test_env for name in section.names]


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Refuse the names on the command line, with more advice than tox gives for those that it does not know.

    Raises
    ------
    HandledError
        With the one line that tox prints.
    """
    for name in getattr(state.conf.options, "env", None) or ():
        fault = "" if name.startswith(".") else fault_of(name, _own_sections(state))
        if fault:
            raise HandledError(fault)


@impl
def tox_add_env_config(env_conf: EnvConfigSet, state: State) -> None:
    """Refuse whatever else tox would make an environment of, before anything is installed for it.

    Raises
    ------
    HandledError
        With the one line that tox prints.
    """
    if env_conf.name.startswith("."):  # tox's own, which build wheels
        return
    fault = fault_of(env_conf.name, _own_sections(state))
    if not fault and not env_conf["commands"]:
        fault = f"environment {env_conf.name!r} has no commands in tox.ini"
    if fault:
        raise HandledError(fault)
