"""Checks of decoders."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from sage_kit.components import DecoderSpec, Guesses, TokenBatch
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed

ROWS = 6
LARGE = 300
CANDIDATES = 3


def _fit(subject: Subject, decoder: Any = None) -> Any:
    """The decoder, fitted to the toy teacher."""
    decoder = (decoder or subject.build()).fit(toy.teacher_view())
    require(callable(getattr(decoder, "decode", None)), "fit returns something without decode: it must return self")
    return decoder


def _texts(decoder: Any, batch: TokenBatch) -> list[str]:
    """What decode returns, if it is a text for each row."""
    texts: Any = decoder.decode(batch)
    rows = len(batch.states)
    require(isinstance(texts, list), f"decode returns {type(texts).__name__} instead of a list")
    require(len(texts) == rows, f"decode returns {len(texts)} texts for {rows} rows")
    require(all(isinstance(text, str) for text in texts), "decode returns something that is no text")
    return list(texts)


def _guesses(decoder: Any, batch: TokenBatch, k: int = CANDIDATES) -> Guesses:
    """What guess returns, if its arrays are right at the real positions."""
    found = decoder.guess(batch, k)
    require(isinstance(found, Guesses), f"guess returns {type(found).__name__} instead of Guesses")
    shape, mask = (*batch.mask.shape, k), batch.mask.numpy()
    for name, values in (("ids", found.ids), ("scores", found.scores)):
        require(isinstance(values, np.ndarray), f"{name} is a {type(values).__name__} instead of a numpy array")
        require(values.shape == shape, f"{name} has shape {values.shape} instead of {shape}")
    require(found.ids.dtype == np.int64, f"ids are {found.ids.dtype} instead of int64")
    require(found.scores.dtype == np.float32, f"scores are {found.scores.dtype} instead of float32")
    ids, scores = found.ids[mask], found.scores[mask]
    tokens = len(toy.teacher_view().tokenizer)
    require(((ids >= 0) & (ids < tokens)).all(), f"an id lies outside the tokenizer's 0 to {tokens - 1}")
    require(np.isfinite(scores).all(), "scores hold NaN or infinity at real tokens")
    require((np.diff(scores, axis=1) <= 0).all(), "scores do not fall along the last axis: the best comes first")
    require((np.diff(np.sort(ids, axis=1), axis=1) > 0).all(), "an id is named twice at one position")
    return cast(Guesses, found)


def _needs_guesses(subject: Subject) -> None:
    if not cast(DecoderSpec, subject.spec).has_guesses:
        raise NotApplicable("the spec says that it has no guesses")


def _batch(rows: int = ROWS) -> TokenBatch:
    return toy.tokens(np.arange(rows))


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    return {"batch": toy.tokens(np.arange(rows), toy.many())}


def _use(subject: Subject, decoder: Any, inputs: Inputs) -> Outputs:
    fitted = _fit(subject, decoder)
    found: Outputs = {"texts": _texts(fitted, inputs["batch"])}
    if cast(DecoderSpec, subject.spec).has_guesses:
        guesses, mask = _guesses(fitted, inputs["batch"]), inputs["batch"].mask.numpy()
        found |= {"ids": guesses.ids[mask], "scores": guesses.scores[mask]}
    return found


EXERCISES["decoder"] = Exercise(_make, _use, few=ROWS, many=LARGE, unit="texts")


@check("decoder")
def decoder_fit(subject: Subject) -> None:
    """Fit returns the decoder, which then decodes; the teacher's text and token states are left as they were.

    To fix: end fit with ``return self``, keep what decoding needs in attributes, and work on copies of the text.
    """
    view = toy.teacher_view()
    arrays = {
        f"{part}.{name}": getattr(getattr(view, part), name)
        for part in ("train", "held_out")
        for name in ("ids", "types", "offsets", "states")
    }
    with unchanged(**arrays):
        _texts(_fit(subject), _batch())


@check("decoder")
def decoder_shapes(subject: Subject) -> None:
    """One text for each row, for one row and for many.

    To fix: return a list of str with one text for each row of ``batch.states``.
    """
    decoder = _fit(subject)
    for rows in (ROWS, 1):
        _texts(decoder, _batch(rows))


@check("decoder")
def decoder_keeps_its_input(subject: Subject) -> None:
    """Decode and guess leave the token states and the mask as they were.

    To fix: avoid methods that end in an underscore and ``+=`` on the batch's tensors.
    """
    decoder, batch = _fit(subject), _batch()
    with unchanged(states=batch.states, mask=batch.mask):
        decoder.decode(batch)
        if cast(DecoderSpec, subject.spec).has_guesses:
            decoder.guess(batch, CANDIDATES)


@check("decoder")
def decoder_is_repeatable(subject: Subject) -> None:
    """The same seed, teacher and token states give the same texts, whatever the state of the global random generators.

    To fix: draw everything random from ``context.seed``.
    """
    found = []
    for number in (61, 62):
        with disturbed(number):
            found.append(_texts(_fit(subject), _batch()))
    require(found[0] == found[1], "the same token states are decoded differently")


@check("decoder")
def decoder_ignores_padding(subject: Subject) -> None:
    """A text is decoded alike alone and beside a longer one: what stands behind its last token does not count.

    To fix: leave out positions where ``batch.mask`` is False.
    """
    decoder, batch = _fit(subject), _batch()
    together = _texts(decoder, batch)
    for row, real in enumerate(batch.mask):
        alone = _texts(decoder, TokenBatch(batch.states[row : row + 1, real], batch.mask[row : row + 1, real]))
        require(
            alone == together[row : row + 1], f"row {row} is decoded as {alone[0]!r} alone, and otherwise in a batch"
        )


@check("decoder")
def decoder_guesses(subject: Subject) -> None:
    """Ids and scores of the k likeliest tokens: of shape (batch, tokens, k), the best first, finite at real tokens.

    To fix: end guess with ``return Guesses(ids, scores)`` in int64 and float32, ordered as torch's topk does, and name
    ids of the teacher's tokenizer only; declare `has_guesses` only if there is a method ``guess(batch, k)``.
    """
    _needs_guesses(subject)
    decoder = _fit(subject)
    many, one = _guesses(decoder, _batch()), _guesses(decoder, _batch(), k=1)
    mask = _batch().mask.numpy()
    require(np.allclose(many.scores[mask][:, :1], one.scores[mask], atol=1e-4), "the best score depends on k")


@check("decoder")
def decoder_takes_hard_data(subject: Subject) -> None:
    """No rows, texts of one token, and token states of zero or far from any real one work or give a one-line SageError.

    To fix: look for divisions by a norm that may be zero and for a maximum over no rows; raise
    sage_kit.errors.CompatibilityError for what cannot work.
    """
    import torch

    decoder, batch = _fit(subject), _batch()
    full = torch.ones(ROWS, 1, dtype=torch.bool)
    cases = {
        "no rows": TokenBatch(batch.states[:0], batch.mask[:0]),
        "texts of one token": TokenBatch(batch.states[:, :1], full),
        "token states of zero": TokenBatch(torch.zeros_like(batch.states), batch.mask),
        "token states of 1e4": TokenBatch(batch.states.sign() * 1e4, batch.mask),
    }
    for what, case in cases.items():
        works_or_explains(what, lambda case=case: _texts(decoder, case))  # type: ignore[misc]
        if cast(DecoderSpec, subject.spec).has_guesses:
            works_or_explains(what, lambda case=case: _guesses(decoder, case))  # type: ignore[misc]
