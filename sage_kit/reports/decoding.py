"""The synthetic examples of a finished round as text: lifted once more as in training, and read by a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TokenIds
from sage_kit.components.plugins import Plugins
from sage_kit.reports.lifted_round import joined, lift_round
from sage_kit.reports.reader import by_ids, by_words, fit_reader
from sage_kit.rundir import RunDirectory


@dataclass(frozen=True)
class DecodedExample:
    """One synthetic example and its anchor.

    Attributes
    ----------
    row : int
        The synthetic example, among those of its round.
    anchor : int
        The real example that it starts from, among the training examples.
    text : str
        The anchor's text, as far as the teacher reads it.
    synthetic_text : str
        The synthetic example's own text where the lift makes text; "" where there is none to be known.
    anchor_decoded, synthetic_decoded : str
        What the decoder makes of the anchor's and of the synthetic token states.
    changed : float
        Share of the anchor's tokens, special ones left out, that the decoder reads differently in the synthetic
        example; where it has no guesses, of the words. NaN when there are none.
    margin : float
        Mean margin of the synthetic example's tokens in the decoder's unit; NaN where it has no guesses.
    """

    row: int
    anchor: int
    text: str
    synthetic_text: str
    anchor_decoded: str
    synthetic_decoded: str
    changed: float
    margin: float


@dataclass(frozen=True)
class Decoding:
    """Some synthetic examples of a round, decoded.

    Attributes
    ----------
    decoder : str
    round : int
    synthetic : int
        Synthetic examples that the round trained on.
    accuracy : float
        Share of the anchors' real tokens, special ones left out, that the decoder finds; of the words where it has no
        guesses. NaN when there are none.
    unit : str
        What was counted: "tokens" or "words".
    counted : int
        How many.
    examples : list of DecodedExample
    """

    decoder: str
    round: int
    synthetic: int
    accuracy: float
    unit: str
    counted: int
    examples: list[DecodedExample]

    def to_json(self) -> dict[str, Any]:
        """As JSON, NaN as None."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(item) for key, item in value.items()}
            if isinstance(value, list):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and math.isnan(value) else value

        return dict(plain(asdict(self)))


def decode_run(
    directory: RunDirectory,
    plugins: Plugins,
    decoder: str,
    options: Mapping[str, Any],
    *,
    round: int | None = None,
    limit: int = 10,
    announce: Callable[[str], None] = lambda text: None,
) -> Decoding:
    """Decode some of a round's synthetic examples, and their anchors for comparison.

    Parameters
    ----------
    directory : RunDirectory
    plugins : Plugins
        With whatever the run was made with.
    decoder : str
    options : mapping
        The decoder's options.
    round : int or None
        None for the last one that has synthetic examples.
    limit : int
        Most examples; they are spread evenly over those that were trained on.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    Decoding

    Raises
    ------
    RunDirectoryError
        When the run or the round has no synthetic examples, or they are no longer what they were.
    CompatibilityError
        When the decoder cannot work with the teacher or the settings, among them ``granularity="pooled"``.
    SageError
        Of the kind that fits what is wrong with the decoder's name or options, data or teacher.
    """
    plugins.options("decoder", decoder, options)  # what is wrong with the decoder is told before anything is loaded
    found = lift_round(directory, plugins, round=round, limit=limit)
    reader = fit_reader(plugins, decoder, options, found, announce)

    prepared, rows, anchors = found.prepared, found.rows, found.anchors
    tokenizer, tokens = prepared.teacher.tokenizer, prepared.train.tokens
    real = ids_of(tokens, anchors)
    texts = decoded_texts(tokenizer, real)
    made = found.synthetic.tokens
    own = [""] * len(rows) if made is None else decoded_texts(tokenizer, ids_of(made, rows))
    # all at once: some decoders take as long for many rows as for one
    readings = reader.read(joined([found.real, found.lifted]))
    of_anchors, of_synthetic = readings[: len(rows)], readings[len(rows) :]
    special = np.asarray(tokenizer.all_special_ids)
    measured = [
        by_ids(ids, special, before, after) if reader.has_guesses else by_words(text, before, after)
        for ids, text, before, after in zip(real, texts, of_anchors, of_synthetic, strict=True)
    ]
    counted = sum(item.counted for item in measured)
    return Decoding(
        decoder=decoder,
        round=found.synthetic.round,
        synthetic=len(found.synthetic),
        accuracy=sum(item.right for item in measured) / counted if counted else float("nan"),
        unit="tokens" if reader.has_guesses else "words",
        counted=counted,
        examples=[
            DecodedExample(int(row), int(anchor), text, new, before.text, after.text, item.changed, item.margin)
            for row, anchor, text, new, before, after, item in zip(
                rows, anchors, texts, own, of_anchors, of_synthetic, measured, strict=True
            )
        ],
    )


def ids_of(tokens: TokenIds, rows: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    """Token ids of some examples, special ones included."""
    return [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]


def decoded_texts(tokenizer: Any, ids: list[NDArray[np.int32]]) -> list[str]:
    """Texts as far as the teacher reads them, from their token ids."""
    decoded = tokenizer.batch_decode([row.tolist() for row in ids], skip_special_tokens=True)
    return [text.strip() for text in decoded]
