"""Where the splits lie of a task that is trained in one language and scored in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sage_kit.components import HubSource, SplitSource

HubOf = Callable[[str], HubSource | None]
"""Where the hub holds the data of a language, if it does."""


def scored(options: Any) -> list[str]:
    """The languages to score: those that are chosen, or all."""
    every = type(options).model_fields["languages"].annotation.__args__[0].__args__
    return list(options.languages or every)


def split_fields(train: SplitSource, validation: Mapping[str, SplitSource]) -> dict[str, Any]:
    """The fields of a task's spec that say where its splits lie."""
    return {"validation_splits": tuple(validation), "sources": {"train": train, **validation}}


def own_first(options: Any, folder: str, hub: HubOf) -> dict[str, Any]:
    """Splits of a task that is scored in the language of training, too, and in that one first."""
    own = options.language
    languages = [own, *(language for language in scored(options) if language != own)]
    return split_fields(
        SplitSource(f"{folder}/{own}/train", hub(own), "train"), validation_splits(languages, folder, hub)
    )


def validation_splits(languages: list[str], folder: str, hub: HubOf) -> dict[str, SplitSource]:
    """The validation splits of some languages, by name."""
    return {
        f"validation_{each}": SplitSource(f"{folder}/{each}/validation", hub(each), "validation") for each in languages
    }
