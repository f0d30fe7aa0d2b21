"""Checks that every component goes through: its spec, its options and what its factory returns."""

from __future__ import annotations

import dataclasses
import json

from sage_kit.components import ComponentSpec
from sage_kit.components.plugins import Plugins
from sage_kit.components.spec_checks import NAME
from sage_kit.errors import ConfigError, MissingPackageError
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import PluginsWith, Subject


@check()
def valid_name(subject: Subject) -> None:
    """The name can stand in a configuration.

    To fix: name the component with lower case letters, digits and underscores, a letter first.
    """
    name = subject.spec.name
    require(isinstance(name, str) and NAME.fullmatch(name), f"the name {name!r} is malformed")


@check()
def summary_is_one_line(subject: Subject) -> None:
    """Listings have room for one line.

    To fix: give the spec a summary of one line, without blanks at its ends.
    """
    summary = subject.spec.summary
    require(isinstance(summary, str) and summary.strip(), "the summary is empty")
    require(len(summary.splitlines()) == 1, "the summary has several lines")
    require(summary == summary.strip(), "the summary has blanks at its ends")


@check()
def options_are_checked(subject: Subject) -> None:
    """Options have defaults and descriptions, can be written to a file, and an unknown one is refused.

    To fix: derive the options class from sage_kit.components.Options and give each field a plain default and a
    description: ``k: int = Field(default=15, ge=1, description="Neighbours [examples].")``.
    """
    spec = subject.component_spec
    for name, field in spec.options.model_fields.items():
        require(not field.is_required(), f"option {name!r} has no default")
        require(field.description, f"option {name!r} has no description")
    json.dumps(spec.options().model_dump(mode="json"))
    subject.need_packages()
    if spec.options.model_config.get("extra") == "allow":
        raise NotApplicable("its options go through to a library that checks them")
    try:
        subject.plugins.options(spec.kind, spec.name, {"no_such_option": 1})
    except ConfigError as error:
        require("no_such_option" in str(error), f"the error for an unknown option does not name it: {error}")
    else:
        require(False, "it takes an option that it does not have")


@check()
def missing_package_is_named(subject: Subject) -> None:
    """Where a required package is missing, users get one line that says how to install it.

    To fix: list requirements in the spec's `requires`, and in `install` the one command that brings them.
    """
    absent = "sage-kit-no-such-package>=1"
    require(isinstance(subject.spec.requires, tuple), "`requires` is not a tuple")
    spec = dataclasses.replace(subject.spec, requires=(*subject.spec.requires, absent))
    try:
        PluginsWith(spec).registered(spec.kind, spec.name)
    except MissingPackageError as error:
        message = str(error)
        require("\n" not in message, f"the message has several lines: {message}")
        require(absent in message, f"the message does not name the package: {message}")
        require((spec.install or "pip install") in message, f"the message does not say how to install it: {message}")
    else:
        require(False, "it can be looked up though a package that it requires is missing")


@check()
def protocol(subject: Subject) -> None:
    """The factory returns an object with the methods of its kind and of the capabilities that the spec declares.

    To fix: write the methods of the kind's protocol in sage_kit.components; declare a capability such as `has_inverse`
    only if its method is there.
    """
    spec = subject.component_spec
    assert isinstance(spec, ComponentSpec)
    subject.need_packages()
    plugins: Plugins = subject.plugins
    plugins.build(spec.kind, spec.name, subject.options, subject.context())
