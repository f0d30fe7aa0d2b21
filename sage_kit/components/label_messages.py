"""Labels of kinds of task that are neither a class nor a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answers:
    """What a question about a text may be answered with, word for word from that text.

    Attributes
    ----------
    texts : tuple of str
        The answers that count as right; empty where the text does not answer the question.
    starts : tuple of int
        Where each begins in the text, in characters from 0; -1 where that is not known.
    """

    texts: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.starts):
            raise ValueError(f"{len(self.texts)} texts and {len(self.starts)} starts of answers")
