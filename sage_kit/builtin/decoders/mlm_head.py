"""Decoder `mlm_head`: what the teacher's masked language model would say at each position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.builtin.decoders.token_decoder import TokenDecoder, require_candidates, to_guesses

if TYPE_CHECKING:
    from sage_kit.builtin.decoders import MLMHeadOptions
    from sage_kit.components import BuildContext, Guesses, TeacherView, TokenBatch

LOGITS = 1 << 25
"""Logits that are held at once, unless a single row has more (134 MB in single precision)."""


class MLMHeadDecoder(TokenDecoder):
    """Lets the checkpoint's masked language model read the token states, and takes its likeliest tokens.

    The model reads all of a text, so what it says at a position also comes from the others: it may put in a word that
    fits where the state itself says little.

    Parameters
    ----------
    options : MLMHeadOptions
    context : BuildContext
    """

    def __init__(self, options: MLMHeadOptions, context: BuildContext) -> None:
        self.options = options

    def fit(self, teacher: TeacherView) -> MLMHeadDecoder:
        """Load the language model; return self.

        Raises
        ------
        CompatibilityError
            When the teacher's checkpoint has none.
        """
        self.tokenizer_ = teacher.tokenizer
        self._logits = teacher.masked_lm()
        # rows beyond the tokenizer's, with which some models fill their vocabulary up, stand for no token
        self._vocabulary = max(teacher.tokenizer.get_vocab().values()) + 1
        return self

    def guess(self, batch: TokenBatch, k: int) -> Guesses:
        """The k likeliest tokens at each position, with the logarithms of their probabilities.

        Raises
        ------
        CompatibilityError
            When k is larger than the vocabulary without padding.
        """
        require_candidates("mlm_head", k, self._vocabulary - 1)
        rows, tokens, _ = batch.states.shape
        ids = torch.zeros(rows, tokens, k, dtype=torch.int64)
        scores = torch.zeros(rows, tokens, k)
        size = max(1, LOGITS // max(1, tokens * self._vocabulary))
        with torch.no_grad():
            for start in range(0, rows if tokens else 0, size):
                part = slice(start, start + size)
                logits = self._logits(batch.states[part], batch.mask[part])[..., : self._vocabulary].clone()
                logits[..., self.tokenizer_.pad_token_id] = -torch.inf
                scores[part], ids[part] = logits.log_softmax(-1).topk(k, dim=-1)
        return to_guesses(ids, scores)
