"""Checks of decoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from sage_kit.testing import toy
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, disturbed, unchanged


def _decode(subject: Subject, rows: int = 6) -> list[str]:
    batch = toy.tokens(np.arange(rows))
    with unchanged(states=batch.states, mask=batch.mask):
        texts: Any = subject.build().decode(batch)
    require(isinstance(texts, list), f"decode returns {type(texts).__name__} instead of a list")
    require(len(texts) == rows, f"decode returns {len(texts)} texts for {rows} rows")
    require(all(isinstance(text, str) for text in texts), "decode returns something that is no text")
    return list(texts)


@check("decoder")
def decoder_shapes(subject: Subject) -> None:
    """One text for each row, for one row and for many; the token states are left as they were.

    To fix: return a list of str with one text for each row of ``batch.states``, and work on copies.
    """
    _decode(subject)
    _decode(subject, rows=1)


@check("decoder")
def decoder_is_repeatable(subject: Subject) -> None:
    """The same seed and token states give the same texts, whatever the state of the global random generators.

    To fix: draw everything random from ``context.seed``.
    """
    found = []
    for number in (61, 62):
        with disturbed(number):
            found.append(_decode(subject))
    require(found[0] == found[1], "the same token states are decoded differently")
