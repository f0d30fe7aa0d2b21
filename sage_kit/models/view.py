"""What a decoder may use of the teacher: its tokenizer, input layers and, where there is one, its language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sage_kit.components import TeacherView, TokenText
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_model_config, quiet, readable
from sage_kit.models.encoder_parts import blocks_of, language_head, own_blocks
from sage_kit.models.families import family_of
from sage_kit.models.locations import resolve
from sage_kit.models.positions import position_bias
from sage_kit.models.split import Bypass, InputLayers, input_blocks
from sage_kit.models.stock_pass import through_blocks
from sage_kit.models.teacher import Teacher
from sage_kit.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def teacher_view(
    teacher: Teacher, input_layers: InputLayers, *, name: str, bypass: Bypass, train: TokenText, held_out: TokenText
) -> TeacherView:
    """The view of a teacher.

    Parameters
    ----------
    teacher : Teacher
    input_layers : InputLayers
        Its input layers, on the device where decoders are to compute.
    name : str
        Its checkpoint, as the setting `teacher` names it. A teacher that was fine-tuned has lost its language model;
        the checkpoint that it was made from may have one, which then reads the token states of the teacher's own,
        slightly moved, input layers.
    bypass : "embeddings" or int
        Where the input layers end.
    train, held_out : TokenText
        Real text with its token states.

    Returns
    -------
    TeacherView
    """
    device = next(input_layers.parameters()).device
    family, settings = family_of(teacher.model.config), teacher.model.config

    def states_of(input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            states: Tensor = input_layers(input_ids.to(device), token_type_ids.to(device), mask.to(device))
        return states

    return TeacherView(
        tokenizer=teacher.tokenizer,
        input_layers=states_of,
        masked_lm=cache(lambda: masked_lm(name, bypass, device)),
        bypass=bypass,
        n_types=int(settings.type_vocab_size) if family.uses_token_types(settings) else 1,
        fingerprint=fingerprint(teacher.fingerprint, bypass),
        device=str(device),
        train=train,
        held_out=held_out,
    )


def masked_lm(name: str, bypass: Bypass, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The part of a masked language model behind the bypass, frozen.

    Parameters
    ----------
    name : str
        A checkpoint, named as in `sage_kit.models.checkpoints.resolve`.
    bypass : "embeddings" or int
        Where the token states come from: the embeddings' output, or that of so many blocks.
    device : torch.device

    Returns
    -------
    callable
        ``logits_of(states, mask)`` gives, for token states of shape (batch, tokens, dim) and their mask, logits of
        shape (batch, tokens, vocabulary), float32, on `device`.

    Raises
    ------
    CompatibilityError
        When the checkpoint holds no weights of such a head, or the bypass leaves no block behind it.
    ModelError
        When the checkpoint cannot be found or read.
    """
    model = find_masked_lm(name)
    if model is None:
        raise CompatibilityError(
            f"teacher {name!r} has no masked-language-model head: take decoder 'nearest_token' or 'probe'"
        )
    family = family_of(model.config, name)
    blocks = blocks_of(model, family)
    behind = blocks[input_blocks(bypass, len(blocks)) :]
    positions, own = position_bias(model, family), own_blocks(model, family)
    head = language_head(model)
    cast(nn.Module, model).to(device)

    def logits_of(states: Tensor, mask: Tensor) -> Tensor:
        states = states.to(device, torch.float32)
        with torch.no_grad():
            *_, states = through_blocks(behind, states, mask.to(device), positions, own, family.attention == "eager")
            for module in head:
                states = module(states)
        return states

    return logits_of


def find_masked_lm(name: str) -> PreTrainedModel | None:
    """A checkpoint as a masked language model in eval mode, frozen; None where it lacks any part of the head.

    Raises
    ------
    ModelError
        When the checkpoint cannot be found or read.
    """
    from transformers import AutoModelForMaskedLM

    config = load_model_config(name)
    family, source = family_of(config, name), resolve(name)
    if not family.masked_lm:
        return None
    with readable("weights", name, source), quiet(), torch.random.fork_rng(devices=[]):
        model, info = AutoModelForMaskedLM.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=family.attention,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    # transformers draws what a checkpoint lacks at random; weights that are tied to others are not missing
    if info["missing_keys"] or not language_head(model):
        return None
    # as for the teacher: away from the mapped file, whose alignment would change the last bits
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return cast("PreTrainedModel", model.eval().requires_grad_(False))
