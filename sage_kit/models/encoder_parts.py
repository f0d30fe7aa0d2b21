"""The parts of a stock model that its family names: embeddings, blocks, and what these share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import Tensor, nn

from sage_kit.models.families import code_of, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import Family, FamilySpec


_signature = functools.cache(inspect.signature)


class OwnBlocks(NamedTuple):
    """What computes blocks that are built otherwise than BERT's, and the model whose blocks they are."""

    code: Family
    model: PreTrainedModel


def own_blocks(model: PreTrainedModel, family: FamilySpec) -> OwnBlocks | None:
    """What computes the blocks of a model; None for blocks that are built as BERT's."""
    return OwnBlocks(code_of(family), model) if family.own_blocks else None


def embed(
    embeddings: nn.Module, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None = None
) -> Tensor:
    """Output of a family's embedding module.

    Without position ids it finds them itself; one that takes none embeds a token alike wherever it stands.
    """
    given = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    if position_ids is not None:
        inner = embeddings.embeddings if isinstance(embeddings, Projected) else embeddings
        if "position_ids" in _signature(type(inner).forward).parameters:
            given["position_ids"] = position_ids
    states: Tensor = embeddings(input_ids, **given)
    return states


class Projected(nn.Module):
    """Embeddings and their projection to the width of the blocks, as one module."""

    def __init__(self, embeddings: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.projection = embeddings, projection

    def forward(self, input_ids: Tensor, **given: Tensor) -> Tensor:
        """States of the blocks' width."""
        states: Tensor = self.projection(self.embeddings(input_ids, **given))
        return states


def embedder(model: PreTrainedModel, family: FamilySpec) -> nn.Module:
    """What turns the ids of a model into the states that enter its first block: the embeddings, or these projected."""
    embeddings = model.get_submodule(family.embeddings)
    found = _present(model, (family.projection,) if family.projection else ())
    return Projected(embeddings, found[0]) if found else embeddings


def shared_modules(model: PreTrainedModel, family: FamilySpec) -> list[nn.Module]:
    """Those modules that all blocks use and that this model has."""
    return _present(model, family.shared)


def _present(model: PreTrainedModel, paths: Iterable[str]) -> list[nn.Module]:
    """The modules of some paths, as far as the model has them."""
    found = []
    for path in paths:
        parent, _, name = path.rpartition(".")
        module = getattr(model.get_submodule(parent), name, None)
        if isinstance(module, nn.Module):
            found.append(module)
    return found


def blocks_of(model: PreTrainedModel, family: FamilySpec) -> list[nn.Module]:
    """A model's blocks in the order in which they compute; the same one again and again where all share it."""
    blocks = list(cast(nn.ModuleList, model.get_submodule(family.blocks)))
    return blocks[:1] * int(model.config.num_hidden_layers) if family.one_block else blocks


def language_head(model: PreTrainedModel) -> list[nn.Module]:
    """Of a masked language model, what makes logits from the last block's states, one after the other."""
    family = family_of(model.config)
    final = [model.get_submodule(family.final_norm)] if family.final_norm else []
    found = _present(model, family.masked_lm)
    return [*final, *found] if len(found) == len(family.masked_lm) else []


def front_modules(model: PreTrainedModel, family: FamilySpec) -> list[nn.Module]:
    """What belongs to the input layers besides blocks, in an order that is the same for every model of a family."""
    found = [model.get_submodule(family.embeddings)]
    if family.projection:
        found += _present(model, (family.projection,))
    if family.relative_positions:
        found.append(model.get_submodule(f"{family.relative_positions}.relative_attention_bias"))
    return found + shared_modules(model, family)
