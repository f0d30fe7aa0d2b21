"""The checks of families find what is wrong with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sage_kit.builtin.families import FAMILIES
from sage_kit.builtin.families.rotary import ModernBlocks
from sage_kit.components import FamilySpec
from sage_kit.components.plugins import Plugins
from sage_kit.components.spec_checks import missing_requirements
from sage_kit.testing.registry import CheckFailure
from sage_kit.testing.run_checks import checks_for
from sage_kit.testing.subject import PluginsWith, Subject

FAMILY = {family.name: family for family in FAMILIES}
CHECKS = {check.name: check for check in checks_for("family")}


@pytest.fixture(autouse=True)
def built_in_again() -> Any:
    """The families of the process are the built-in ones again."""
    yield
    Plugins(allow="")


def run(check: str, family: FamilySpec) -> None:
    subject = Subject(family, plugins=PluginsWith(family))
    CHECKS[check].run(subject)


class Broken(ModernBlocks):
    """Blocks of ModernBERT with something wrong."""


class NoMask(Broken):
    """Padding is seen."""

    def surroundings(self, model: Any, states: Any, mask: Any) -> Any:
        return super().surroundings(model, states, None)


class EverywhereGlobal(Broken):
    """No local attention."""

    def block(self, block: Any, states: Any, surroundings: Any) -> Any:
        allowed, _ = surroundings["full_attention"]
        return block(states, attention_mask=allowed, position_embeddings=surroundings[block.attention_type][1])


class FlatProjections(Broken):
    """Queries, keys and values beside each other."""

    def project(self, block: Any, states: Any) -> Any:
        return super().project(block, states).flatten(-2)


def head(family: FamilySpec, **changes: Any) -> FamilySpec:
    return replace(family, head=replace(family.head, **changes))


WRONG = {
    "unknown type": ("family_is_declared", replace(FAMILY["bert"], model_types=("no_such",)), "no small model"),
    "no such path": (
        "family_is_declared", replace(FAMILY["bert"], blocks="bert.encoder.layers"), "has no module 'bert.enc",
    ),
    "left out": (
        "family_is_declared", replace(FAMILY["modernbert"], final_norm=""), "to the parameter 'model.final_norm",
    ),
    "another activation": ("family_equals_the_model", head(FAMILY["bert"], activation="relu"), "differ by"),
    "another pooling": ("family_equals_the_model", head(FAMILY["bert"], pooling="mean"), "differ by"),
    "no norm behind the blocks": (
        "family_equals_the_model", replace(FAMILY["modernbert"], final_norm=""), "differ by",
    ),
    "not as BERT's": (
        "family_equals_the_model", replace(FAMILY["nomic_bert"], own_blocks=False), "To fix",
    ),
    "attention to all": (
        "family_equals_the_model",
        replace(FAMILY["modernbert"], factory=EverywhereGlobal), "differ by",
    ),
    "attention to padding": (
        "family_examples_stand_alone", replace(FAMILY["modernbert"], factory=NoMask), "alone and in a batch",
    ),
    "positions counted from elsewhere": (
        "family_embeds_at_places", replace(FAMILY["roberta"], positions_from_padding=False), "at given places",
    ),
    "flat projections": (
        "family_projects", replace(FAMILY["modernbert"], factory=FlatProjections), "are not of shape",
    ),
    "what blocks share is left out": (
        "family_student_reloads", replace(FAMILY["deberta_v2"], shared=()), "of a student of all blocks differ",
    ),
    "another language head": (
        "family_masked_lm", replace(FAMILY["modernbert"], masked_lm=("decoder",)), "of the language head differ",
    ),
    "no language head": (
        "family_masked_lm", replace(FAMILY["bert"], masked_lm=("lm_head",)), "lacks a module of",
    ),
    "too few positions": (
        "family_runs", replace(FAMILY["bert"], refuses=lambda config: "is refused"), "is refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_found(wrong: str) -> None:
    check, family, message = WRONG[wrong]
    if missing := missing_requirements(family.requires):
        pytest.skip(f"needs {', '.join(missing)}")
    with pytest.raises(CheckFailure, match=message):
        run(check, family)
