"""What a decoder may use of the teacher: its tokenizer, its front end and, where there is one, its language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sage_kit.components import TeacherView, TokenText
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_model_config, quiet, readable
from sage_kit.models.families import family_of
from sage_kit.models.locations import resolve
from sage_kit.models.positions import position_bias
from sage_kit.models.teacher import Teacher
from sage_kit.models.trunk import Cut, FrontEnd, front_blocks, through_blocks
from sage_kit.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEADS = {
    "BERT": ("cls",),
    "RoBERTa": ("lm_head",),
    "MPNet": ("lm_head",),
    "DistilBERT": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
}
"""By family, the modules that make logits from final states, one after the other."""


def teacher_view(
    teacher: Teacher, front_end: FrontEnd, *, name: str, cut: Cut, train: TokenText, held_out: TokenText
) -> TeacherView:
    """The view of a teacher.

    Parameters
    ----------
    teacher : Teacher
    front_end : FrontEnd
        Its front end, on the device where decoders are to compute.
    name : str
        Its checkpoint, as the setting `teacher` names it. A teacher that was fine-tuned has lost its language model;
        the checkpoint that it was made from may have one, which then reads the token states of the teacher's own,
        slightly moved, front end.
    cut : "embeddings" or int
        Where the front end ends.
    train, held_out : TokenText
        Real text with its token states.

    Returns
    -------
    TeacherView
    """
    device = next(front_end.parameters()).device
    family, settings = family_of(teacher.model.config), teacher.model.config

    def states_of(input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            states: Tensor = front_end(input_ids.to(device), token_type_ids.to(device), mask.to(device))
        return states

    return TeacherView(
        tokenizer=teacher.tokenizer,
        front_end=states_of,
        masked_lm=cache(lambda: masked_lm(name, cut, device)),
        cut=cut,
        n_types=int(settings.type_vocab_size) if family.uses_token_types(settings) else 1,
        fingerprint=fingerprint(teacher.fingerprint, cut),
        device=str(device),
        train=train,
        held_out=held_out,
    )


def masked_lm(name: str, cut: Cut, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The part of a masked language model behind the cut, frozen.

    Parameters
    ----------
    name : str
        A checkpoint, named as in `sage_kit.models.checkpoints.resolve`.
    cut : "embeddings" or int
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
        When the checkpoint holds no weights of such a head, or the cut leaves no block behind it.
    ModelError
        When the checkpoint cannot be found or read.
    """
    model = find_masked_lm(name)
    if model is None:
        raise CompatibilityError(
            f"teacher {name!r} has no masked-language-model head: take decoder 'nearest_token' or 'probe'"
        )
    family = family_of(model.config, name)
    blocks = cast(nn.ModuleList, model.get_submodule(family.blocks))
    behind = blocks[front_blocks(cut, len(blocks)) :]
    positions = position_bias(model, family)
    head = [model.get_submodule(path) for path in HEADS[family.name]]
    cast(nn.Module, model).to(device)

    def logits_of(states: Tensor, mask: Tensor) -> Tensor:
        states = states.to(device, torch.float32)
        with torch.no_grad():
            *_, states = through_blocks(behind, states, mask.to(device), positions)
            for module in head:
                states = module(states)
        return states

    return logits_of


def find_masked_lm(name: str) -> PreTrainedModel | None:
    """A checkpoint as a masked language model in eval mode, frozen; None where it lacks any parameter of the head.

    Raises
    ------
    ModelError
        When the checkpoint cannot be found or read.
    """
    from transformers import AutoModelForMaskedLM

    config = load_model_config(name)
    source = resolve(name)
    with readable("weights", name, source), quiet(), torch.random.fork_rng(devices=[]):
        model, info = AutoModelForMaskedLM.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=family_of(config, name).attention,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    # transformers draws what a checkpoint lacks at random; weights that are tied to others are not missing
    if info["missing_keys"]:
        return None
    # as for the teacher: away from the mapped file, whose alignment would change the last bits
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return cast("PreTrainedModel", model.eval().requires_grad_(False))
