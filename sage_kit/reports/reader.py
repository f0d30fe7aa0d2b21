"""Decoders, called and checked: what one makes of token states, compared with the text that they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import BuildContext, DecoderSpec, Guesses, TeacherView, TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.errors import PluginError
from sage_kit.reports.lifted_round import LiftedRound, view_of

CANDIDATES = 2
"""Tokens per position that decoders are asked for: a margin lies between two."""


@dataclass(frozen=True)
class Reading:
    """What a decoder makes of one example.

    Attributes
    ----------
    text : str
    ids : array of shape (tokens,), int64
        The best guess at each real token; empty for a decoder without guesses, and so are the others.
    scores, margins : array of shape (tokens,), float32
        That guess's score, and what it is ahead of the second, in the decoder's unit.
    """

    text: str
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    margins: NDArray[np.float32]


def fit_reader(
    plugins: Plugins,
    decoder: str,
    options: Mapping[str, Any],
    of: LiftedRound,
    announce: Callable[[str], None] = lambda text: None,
) -> Reader:
    """A decoder that has learnt from the teacher of a round's run.

    Parameters
    ----------
    plugins : Plugins
    decoder : str
    options : mapping
        The decoder's options.
    of : LiftedRound
    announce : callable
        Shows one line to the user.

    Returns
    -------
    Reader

    Raises
    ------
    CompatibilityError
        When the decoder cannot work with the teacher or the settings.
    """
    config, prepared = of.config, of.prepared
    registered = plugins.registered("decoder", decoder)
    context = BuildContext(
        config=config,
        seed=config.seed,
        device=str(prepared.device),
        n_components=config.n_components,
        announce=announce,
        cached=prepared.cache.arrays,
    )
    component = plugins.build("decoder", decoder, options, context)
    spec = registered.spec
    assert isinstance(spec, DecoderSpec)
    reader = Reader(component, spec, f"decoder {decoder!r} ({registered.origin})", plugins)
    reader.fit(view_of(config, prepared))
    return reader


@dataclass(frozen=True)
class Measured:
    """What a decoder makes of a synthetic example and of its anchor, compared.

    Attributes
    ----------
    counted, right : int
        Tokens or words of the anchor's real text, special tokens left out, and how many of them the decoder finds in
        the anchor.
    changed : float
        Share of them that it reads differently in the synthetic example.
    margin : float
        Mean margin of the synthetic example's tokens; NaN without guesses.
    """

    counted: int
    right: int
    changed: float
    margin: float


class Reader:
    """Calls a decoder; what it raises of its own, and what it returns amiss, is reported under its name.

    Parameters
    ----------
    decoder : object
    spec : DecoderSpec
    title : str
        Its name and origin, for messages.
    plugins : Plugins
    """

    def __init__(self, decoder: Any, spec: DecoderSpec, title: str, plugins: Plugins) -> None:
        self._plugins = plugins
        self._decoder = decoder
        self._spec = spec
        self._title = title

    @property
    def has_guesses(self) -> bool:
        """Whether it names the tokens that it reads."""
        return self._spec.has_guesses

    def fit(self, view: TeacherView) -> None:
        """Let the decoder learn from a teacher's view."""
        self._decoder = self._call("fit", view)
        if not callable(getattr(self._decoder, "decode", None)):
            raise PluginError(f"{self._title}: fit returned {type(self._decoder).__name__}, not the decoder itself")

    def read(self, batch: TokenBatch, *, only_guesses: bool = False) -> list[Reading]:
        """What the decoder makes of each row.

        With `only_guesses`, a decoder that names tokens is not asked for the text as well, which takes some as long
        again: readings then have none.
        """
        rows, tokens = batch.mask.shape
        texts = [""] * rows if only_guesses and self.has_guesses else self._call("decode", batch)
        if not isinstance(texts, list) or len(texts) != rows or not all(isinstance(text, str) for text in texts):
            raise PluginError(f"{self._title}: decode returned no list of {rows} texts")
        if not self._spec.has_guesses:
            none = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)
            return [Reading(text, *none) for text in texts]
        guesses = self._call("guess", batch, CANDIDATES)
        shape = (rows, tokens, CANDIDATES)
        if isinstance(guesses, Guesses):
            guesses = Guesses(*(self._array(values) for values in (guesses.ids, guesses.scores)))
        if not isinstance(guesses, Guesses) or guesses.ids.shape != shape or guesses.scores.shape != shape:
            raise PluginError(f"{self._title}: guess returned no Guesses of shape {shape}")
        mask = batch.mask.cpu().numpy()
        return [
            Reading(text, ids[real, 0], scores[real, 0], margins[real])
            for text, ids, scores, margins, real in zip(
                texts, guesses.ids, guesses.scores, guesses.margin, mask, strict=True
            )
        ]

    def _array(self, values: Any) -> NDArray[Any]:
        array: NDArray[Any] = self._plugins.call("decoder", self._spec.name, np.asarray, values, step="guess")
        return array

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._plugins.call("decoder", self._spec.name, getattr(self._decoder, method), *arguments, step=method)


def by_ids(real: NDArray[np.int32], special: NDArray[Any], before: Reading, after: Reading) -> Measured:
    """Compare ids at the positions of the anchor's tokens that are not special ones."""
    counted = ~np.isin(real, special)
    synthetic = np.full(len(real), -1, dtype=np.int64)  # of what a shorter synthetic example lacks, all is changed
    shared = min(len(real), len(after.ids))
    synthetic[:shared] = after.ids[:shared]
    margins = after.margins[:shared][counted[:shared]]
    return Measured(
        counted=int(counted.sum()),
        right=int((before.ids == real)[counted].sum()),
        changed=float((before.ids != synthetic)[counted].mean()) if counted.any() else float("nan"),
        margin=float(margins.mean()) if len(margins) else float("nan"),
    )


def by_words(text: str, before: Reading, after: Reading) -> Measured:
    """Compare words, in their order."""

    def same(first: list[str], second: list[str]) -> int:
        return sum(block.size for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks())

    real, anchor = text.split(), before.text.split()
    changed = 1 - same(anchor, after.text.split()) / len(anchor) if anchor else float("nan")
    return Measured(len(real), same(real, anchor), changed, float("nan"))
