"""The family of a model: looked up by its type among those that plugins contribute, the built-in ones among them."""

from __future__ import annotations

from typing import Any, cast

from sage_kit.components import BuildContext, Family, FamilySpec
from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import DISTRIBUTION, code_parts, plain_fields
from sage_kit.config import RunConfig
from sage_kit.errors import ModelError


def model_types() -> tuple[str, ...]:
    """The supported values of ``model_type`` in ``config.json``."""
    return tuple(model_type for family in Plugins.in_use().families() for model_type in family.model_types)


def unsupported(model_type: str, name: str = "") -> str:
    """The message for a model of another type."""
    broken = "".join(
        f". Plugin {bad.origin.plugin!r} ({bad.origin}) is in quarantine: {bad.cause}"
        for bad in Plugins.in_use().quarantined
        if not bad.component
    )
    return (
        f"{f'model {name!r}' if name else 'the model'} is of type {model_type!r}: supported are "
        f"{', '.join(model_types())}; MiniLM and the like are of type 'bert', and a plugin adds a type with the hook "
        f"sage_families{broken}"
    )


def family_of(config: Any, name: str = "") -> FamilySpec:
    """The family of a model.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's transformers configuration.
    name : str
        What the user calls the model, for the message.

    Raises
    ------
    ModelError
        For a model of another type, a decoder, or one whose position embeddings are relative.
    PluginError, MissingPackageError
        As `Plugins.family_of_type` does.
    """
    family = Plugins.in_use().family_of_type(str(config.model_type))
    if family is None:
        raise ModelError(unsupported(str(config.model_type), name))
    called = f"model {name!r}" if name else "the model"
    if getattr(config, "is_decoder", False):
        raise ModelError(f"{called} is a decoder (is_decoder in its config.json): choose an encoder")
    # transformers 5 ignores this setting and would load such a model with its positions lost
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute" and not family.own_blocks:
        raise ModelError(f"{called} has {positions!r} positions: choose one with absolute position embeddings")
    if family.refuses is not None:
        reason = Plugins.in_use().call("family", family.name, family.refuses, config, step="refuses")
        if reason:
            raise ModelError(f"{called} {reason}")
    return family


def code_of(family: FamilySpec) -> Family:
    """What computes a family's blocks; whatever a plugin's raises of its own is reported under the family's name."""
    plugins = Plugins.in_use()
    context = BuildContext(config=RunConfig())
    code = cast(Family, plugins.build("family", family.name, {}, context))
    if plugins.registered("family", family.name).origin.distribution == DISTRIBUTION:
        return code
    return cast(Family, _Guarded(plugins, family.name, code))


class _Guarded:
    """The code of a plugin's family, each method called as a component's."""

    def __init__(self, plugins: Plugins, name: str, code: Any) -> None:
        self._plugins, self._name, self._code = plugins, name, code

    def __getattr__(self, attribute: str) -> Any:
        method = getattr(self._code, attribute)

        def call(*arguments: Any) -> Any:
            return self._plugins.call("family", self._name, method, *arguments, step=attribute)

        return call


def family_parts(family: FamilySpec) -> list[Any]:
    """What a key of cached results must hold of a family: its paths and capabilities, and its code."""
    origin = Plugins.in_use().registered("family", family.name).origin
    code = [one for one in (family.factory, family.refuses, family.student_config) if one is not None]
    return [
        plain_fields(family),
        plain_fields(family.head),
        plain_fields(family.token_head),
        plain_fields(family.span_head),
        code_parts(str(origin), origin.distribution, family.requires, *code),
    ]
