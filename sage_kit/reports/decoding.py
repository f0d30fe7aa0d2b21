"""The synthetic examples of a finished round as text: lifted once more as in training, and read by a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import BuildContext, DecoderSpec, Guesses, TeacherView, TokenBatch, TokenIds, TokenText
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, PluginError, RunDirectoryError
from sage_kit.models.view import teacher_view
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import RunDirectory
from sage_kit.storage.frozen import read_only
from sage_kit.synthesis.synthetic_set import FLAT, SyntheticSet
from sage_kit.system.devices import autocast_for, make_accelerator
from sage_kit.training.preparation import Prepared, PreparedSplit, prepare

CANDIDATES = 2
"""Tokens per position that decoders are asked for: a margin lies between two."""
LABEL_TOLERANCE = 0.1
"""Largest difference, as a share of 1 + the largest logit, between labels made in different precisions."""


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


@dataclass(frozen=True, eq=False)
class LiftedRound:
    """Some synthetic examples of a round, lifted once more as in training, and their anchors.

    Attributes
    ----------
    config : RunConfig
    prepared : Prepared
    synthetic : SyntheticSet
        The whole round's.
    rows : array of shape (m,), int64
        Which of them these are.
    real, lifted : TokenBatch
        Token states of the anchors and of the synthetic examples, m rows each.
    """

    config: RunConfig
    prepared: Prepared
    synthetic: SyntheticSet
    rows: NDArray[np.int64]
    real: TokenBatch
    lifted: TokenBatch

    @property
    def anchors(self) -> NDArray[np.int64]:
        """The training examples that they start from, of shape (m,)."""
        return self.synthetic.anchors[self.rows]


def lift_round(directory: RunDirectory, plugins: Plugins, *, round: int | None = None, limit: int = 10) -> LiftedRound:
    """Lift some of a round's synthetic examples once more; the teacher's labels show that they are what they were.

    Parameters
    ----------
    directory : RunDirectory
    plugins : Plugins
        With whatever the run was made with.
    round : int or None
        None for the last one that has synthetic examples.
    limit : int
        Most examples; they are spread evenly over those that were trained on.

    Returns
    -------
    LiftedRound

    Raises
    ------
    RunDirectoryError
        When the run or the round has no synthetic examples, or they are no longer what they were.
    CompatibilityError
        When the run has no token states: ``granularity="pooled"``.
    SageError
        Of the kind that fits what is wrong with data or teacher.
    """
    config = directory.config()
    _require_token_states(config)
    recipe = resolve(config, plugins)
    synthetic = _load(directory, round)
    prepared = prepare(recipe, make_accelerator(config), Costs())
    kept = np.flatnonzero(synthetic.kept)
    rows = kept[np.unique(np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(np.int64))]
    lifted = _lift(recipe, prepared, synthetic, rows, directory)
    real = prepared.train.store.batch(synthetic.anchors[rows], prepared.device)
    return LiftedRound(config, prepared, synthetic, rows, real, lifted)


def view_of(config: RunConfig, prepared: Prepared) -> TeacherView:
    """What a decoder may use of a run's teacher; it learns from the training split and is scored on the carved part.

    The arrays are read-only.

    Raises
    ------
    CompatibilityError
        When the run has no token states.
    """
    _require_token_states(config)

    def text(split: PreparedSplit) -> TokenText:
        tokens, states = split.tokens, split.store.states
        flat = {name: read_only(getattr(tokens, name)) for name in FLAT}
        return TokenText(**flat, states=read_only(states))

    return teacher_view(
        prepared.teacher,
        prepared.input_layers,
        name=config.teacher,
        bypass=config.bypass,
        train=text(prepared.train),
        held_out=text(prepared.dev),
    )


def _require_token_states(config: RunConfig) -> None:
    if config.granularity == "pooled":
        raise CompatibilityError(
            "granularity is 'pooled', so an example is one vector and has no token states to decode: decode a run with "
            "granularity='token'"
        )


# ---- the synthetic examples -----------------------------------------------------------------------------------------


def _load(directory: RunDirectory, round: int | None) -> SyntheticSet:
    """A round's synthetic examples, at least one of which was trained on."""
    rounds = directory.rounds_with_synthetic()
    if not rounds:
        raise RunDirectoryError(
            f"{directory.path} has no synthetic examples: they are made from round 2 on, unless schedule is 'none'"
        )
    number = rounds[-1] if round is None else round
    if number not in rounds:
        listed = ", ".join(map(str, rounds))
        raise RunDirectoryError(
            f"{directory.path} has no synthetic examples of round {number}; it has those of {listed}"
        )
    synthetic = SyntheticSet.load(directory.synthetic(number))
    if not len(synthetic):
        raise RunDirectoryError(f"{directory.path}: the filter dropped every synthetic example of round {number}")
    return synthetic


def _lift(
    recipe: Recipe,
    prepared: Prepared,
    synthetic: SyntheticSet,
    rows: NDArray[np.int64],
    directory: RunDirectory,
) -> TokenBatch:
    """The token states of some rows, lifted in the batches and with the randomness of training."""
    store = prepared.train.store
    changed = RunDirectoryError(
        f"{directory.path}: the data, the teacher or a component has changed since the run, so its synthetic examples "
        "cannot be made again as they were"
    )
    if synthetic.anchors.max() >= len(store) or synthetic.vectors.shape[1] != store.pooled.shape[1]:
        raise changed
    synthesizer = prepared.synthesizer(recipe, lambda text: None, Costs())
    autocast = autocast_for(prepared.device, prepared.precision)
    found: dict[int, torch.Tensor] = {}
    for number, members in enumerate(synthesizer.plan(synthetic)):
        places = np.flatnonzero(np.isin(members, rows))
        if not len(places):
            continue
        batch = synthesizer.lift(synthetic, members, number)
        if synthetic.logits is not None:
            with torch.no_grad(), autocast():
                labels = prepared.teacher_upper(batch.states, batch.mask).logits.float().cpu().numpy()
            known = synthetic.logits[members]
            if np.abs(labels - known).max() > LABEL_TOLERANCE * (1 + np.abs(known).max()):
                raise changed
        found |= {int(members[place]): batch.states[place, batch.mask[place]] for place in places}
    return _padded([found[int(row)] for row in rows])


def joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of several batches, one after the other, padded with zeros."""
    return _padded([states[real] for batch in batches for states, real in zip(batch.states, batch.mask, strict=True)])


def _padded(rows: list[torch.Tensor]) -> TokenBatch:
    """A batch of rows of shape (tokens, dim)."""
    states = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    return TokenBatch(states, torch.arange(states.shape[1], device=states.device) < lengths[:, None])


# ---- reading --------------------------------------------------------------------------------------------------------


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
