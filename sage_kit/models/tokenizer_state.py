"""What a tokenizer keeps beside its rules: sides, lengths, padding and truncation, set as this package uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEFT_OVER = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "padding", "truncation")
"""Arguments of an earlier call, which transformers takes over from a saved tokenizer and saves again."""


def set_as_used(tokenizer: PreTrainedTokenizerBase, max_length: int, *, token_types: bool) -> None:
    """Set the state of a tokenizer, so that plain transformers makes the same tokens and batches of it as a run does.

    Whatever state it was saved in, it cuts at the end, of a pair the longer text first, pads at the end, has the length
    limit of the run and no other, and makes an attention mask. What it does to text (lower case, special tokens,
    vocabulary) stays as it is.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Changed in place.
    max_length : int
        Longest text in tokens, special ones included.
    token_types : bool
        Whether the model distinguishes the two texts of a pair; if not, the tokenizer makes no token type ids.
    """
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    if not token_types:
        names = [name for name in names if name != "token_type_ids"]
    state = {
        "padding_side": "right",
        "truncation_side": "right",
        "model_max_length": max_length,
        # a model of plain transformers that is given no mask takes padding for text
        "model_input_names": [*names, "attention_mask"],
    }
    for name, value in state.items():
        setattr(tokenizer, name, value)
    # what is saved are these arguments, and of the attributes only those that are among them
    tokenizer.init_kwargs.update(state)
    for name in _LEFT_OVER:
        tokenizer.init_kwargs.pop(name, None)
    if "pad_token_type_id" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["pad_token_type_id"] = 0
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.enable_truncation(max_length, stride=0, strategy="longest_first", direction="right")
