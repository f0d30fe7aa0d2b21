"""Everything that a page or a widget shows, as one compressed block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sage_kit
from sage_kit.components.plugins import Plugins
from sage_kit.errors import ConfigError
from sage_kit.explorer.binary_blocks import Blocks
from sage_kit.explorer.explored_run import ExploredRun, plane, read_runs
from sage_kit.explorer.held_points import Group, Held, group_runs, hold
from sage_kit.explorer.run_facts import facts_of, headline, read_scorecard
from sage_kit.explorer.synthetic_texts import pieces_of, written
from sage_kit.explorer.training_texts import Outputs, TrainingTexts, of_whole_texts, read_texts_of

MOST_RUNS = 6
"""Most runs that a page compares."""

POINTS = 100_000
"""Most training examples that a page holds, unless more are asked for."""

MOST_BYTES = 21_000_000
"""Most bytes of the block; as text within a page they are a third more, and a page stays under 30 MB."""

FEWEST = 1_000
"""As few points are never halved again to make a page smaller."""

PLACES = 65_535
UNKNOWN = 65_535
"""A loss that is not known; the others are at most one less."""

COLOUR_SHARES = (0.02, 0.98)
"""The colours range between these quantiles of all known losses; what lies outside has the colour of an end."""


def page_data(
    paths: Sequence[str | Path],
    *,
    points: int | None = None,
    texts: bool = True,
    compute: bool = False,
    scorecards: Sequence[str | Path] = (),
    plugins: Callable[[list[str]], Plugins] = Plugins,
    announce: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Read runs and pack all that is shown of them.

    Parameters
    ----------
    paths : sequence of path
        Run directories.
    points : int or None
        Most training examples, and most synthetic ones; of more, an even draw is held. None for `POINTS`, or as many
        as keep the block under `MOST_BYTES`.
    texts : bool
        Whether texts, and synthetic examples as text, go in.
    compute : bool
        Make the teacher's outputs again where the cache no longer has them.
    scorecards : sequence of path
        Scorecards of inversion that `sage-kit scorecard` wrote.
    plugins : callable
        From one-file plugins to plugins.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    bytes
        As `Blocks.pack` gives them.

    Raises
    ------
    RunDirectoryError
        When a directory is no run, has no finished round, or is damaged; for more than `MOST_RUNS`.
    ConfigError
        For fewer than one point.
    DataError
        For a scorecard that is none.
    """
    if points is not None and points < 1:
        raise ConfigError(f"points is {points}: show at least 1")
    cards = [read_scorecard(Path(path)) for path in scorecards]
    runs = read_runs(paths, MOST_RUNS, announce)
    found: list[TrainingTexts | None] = []
    for run in runs:
        own = None
        if texts:
            announce(f"{run.name}: reading texts and outputs")
            own = read_texts_of(run, plugins(run.directory.plugin_files()), compute=compute)
        found.append(own)
    groups = group_runs(runs, found)
    most = points or POINTS
    while True:
        packed = _pack(runs, found, groups, most, cards)
        if points is not None or len(packed) <= MOST_BYTES or most <= FEWEST:
            return packed
        most //= 2
        announce(f"the page would be larger than {MOST_BYTES * 4 // 3 / 1e6:.0f} MB: at most {most:,} points are held")


def _pack(
    runs: list[ExploredRun], texts: list[TrainingTexts | None], groups: list[Group], points: int, cards: list[Any]
) -> bytes:
    blocks = Blocks()
    told = [facts_of(run) for run in runs]
    for place, facts in enumerate(told):
        facts["headline"] = headline(told, place)
    scale = _scale(runs)
    packed_groups = []
    for number, group in enumerate(groups):
        held = hold(group, runs, points)
        packed_groups.append(_group(blocks, group, held))
        for place in group.runs:
            told[place]["group"] = number
            told[place].update(_points_of(blocks, runs[place], texts[place], place, group, held, scale))
    header = {
        "version": sage_kit.__version__, "runs": told, "groups": packed_groups, "scale": scale, "scorecards": cards,
    }  # fmt: skip
    return blocks.pack(header)


def _group(blocks: Blocks, group: Group, held: Held) -> dict[str, Any]:
    """The examples that the runs of a group share."""
    found: dict[str, Any] = {
        "runs": group.runs, "examples": group.examples, "even": held.even,
        "rows": blocks.array(held.rows.astype(np.uint32)),
    }  # fmt: skip
    if group.texts is not None:
        found["texts"] = blocks.strings([group.texts.texts[row] for row in held.rows])
        if any(group.texts.gold):
            found["gold"] = blocks.coded([group.texts.gold[row] for row in held.rows])
    return found


def _points_of(
    blocks: Blocks,
    run: ExploredRun,
    texts: TrainingTexts | None,
    place: int,
    group: Group,
    held: Held,
    scale: dict[str, Any],
) -> dict[str, Any]:
    """What a run makes of the examples of its group, and its synthetic ones."""
    found: dict[str, Any] = {
        "loss_rounds": run.loss_rounds.tolist(),
        "losses": [blocks.array(quantised(losses[held.rows], scale)) for losses in run.losses],
        "mean_losses": [float(np.nanmean(row)) if np.isfinite(row).any() else None for row in run.losses],
    }
    frame = _frame(run)
    if frame is not None and run.coordinates is not None:
        found["xy"] = blocks.array(_placed(run.coordinates[held.rows], frame))
    if texts is not None:
        for name in ("teacher", "student"):
            outputs: Outputs | None = getattr(texts, name)
            if outputs is not None and any(outputs.words):
                shares = None if outputs.shares is None else outputs.shares[held.rows]
                found[name + "_outputs"] = {
                    **blocks.coded([outputs.words[row] for row in held.rows]),
                    "shares": None if shares is None else blocks.array((shares * 255).round().astype(np.uint8)),
                }
        if texts.agreement is not None:
            found["agreement"] = blocks.array((texts.agreement[held.rows] * 255).round().astype(np.uint8))
    found["synthetic"] = _synthetic(blocks, run, texts, place, group, held, frame)
    found["has_map"] = run.coordinates is not None
    return found


def _synthetic(
    blocks: Blocks,
    run: ExploredRun,
    texts: TrainingTexts | None,
    place: int,
    group: Group,
    held: Held,
    frame: tuple[NDArray[np.float32], float] | None,
) -> dict[str, Any]:
    """The synthetic examples of each round, and the pieces that their texts are made of."""
    pieces = {}
    if texts is not None and texts.tokenizer is not None:
        special = {int(index) for index in texts.tokenizer.all_special_ids}
        for number, found in run.synthetic.items():
            if found.tokens is not None:
                rows = held.synthetic[place, number]
                pieces[number] = pieces_of(found.tokens, rows, found.anchors[rows], texts.tokens, special)
    known = np.unique(np.concatenate([one.ids for one in pieces.values()])) if pieces else np.zeros(0, np.int64)
    vocabulary = written(texts.tokenizer, known) if texts is not None and len(known) else []
    width: type[np.unsignedinteger[Any]] = np.uint16 if len(known) <= PLACES else np.uint32
    rounds = []
    for number, found in run.synthetic.items():
        rows = held.synthetic[place, number]
        anchors = held.places(found.anchors[rows], group.examples)
        one: dict[str, Any] = {
            "round": number, "total": len(found.anchors), "held": len(rows),
            "anchors": blocks.array(anchors.astype(np.uint32)),
        }  # fmt: skip
        if found.coordinates is not None and frame is not None:
            one["xy"] = blocks.array(_placed(plane(found.coordinates[rows]), frame))
        if texts is not None and found.logits is not None and found.logits.shape[1]:
            words = of_whole_texts(texts.spec, found.logits[rows])
            if words is not None:
                one["labels"] = blocks.coded(words.words)
        if number in pieces:
            own = pieces[number]
            one |= {
                "lengths": blocks.array(own.lengths.astype(np.uint16)),
                "pieces": blocks.array(np.searchsorted(known, own.ids).astype(width)),
                "flags": blocks.array(own.flags),
            }
        rounds.append(one)
    return {"rounds": rounds, "vocabulary": blocks.strings(vocabulary)}


# ---- numbers as unsigned integers -----------------------------------------------------------------------------------


def _frame(run: ExploredRun) -> tuple[NDArray[np.float32], float] | None:
    """Centre and half side of the square around everything in a run's map."""
    if run.coordinates is None:
        return None
    drawn = [run.coordinates, *(plane(s.coordinates) for s in run.synthetic.values() if s.coordinates is not None)]
    low = np.min([part.min(axis=0) for part in drawn if len(part)], axis=0)
    high = np.max([part.max(axis=0) for part in drawn if len(part)], axis=0)
    half = float((high - low).max()) / 2
    return (low + high) / 2, half or 1.0


def _placed(coordinates: NDArray[np.float32], frame: tuple[NDArray[np.float32], float]) -> NDArray[np.uint16]:
    """Places within the frame, both dimensions by the same scale: (n, 2), x and y in turn."""
    centre, half = frame
    share = (np.clip((coordinates - centre) / half, -1, 1) + 1) / 2
    found: NDArray[np.uint16] = (share * PLACES).round().astype(np.uint16)
    return found


def _scale(runs: Sequence[ExploredRun]) -> dict[str, Any]:
    """How losses of all runs become integers, and colours: by their logarithm where none is negative."""
    known = [run.losses[np.isfinite(run.losses)] for run in runs]
    values = np.concatenate(known).astype(np.float64) if known else np.zeros(0)
    if not len(values):
        return {"kind": "linear", "low": 0.0, "high": 1.0, "first": 0.0, "last": 1.0}
    first, last = np.quantile(values, COLOUR_SHARES)
    low, high = float(values.min()), float(values.max())
    kind = "linear"
    if low >= -1e-6 * high and high > 0:  # rounding takes a divergence of 0 below it
        kind = "log"
        # what is smaller counts as this: its logarithm would stretch the scale
        low = max(low, high * 1e-6)
        first, last = max(first, low), max(last, low)
    if high <= low:
        high = low * 1.01 if kind == "log" else low + 1.0
    if last <= first:
        first, last = low, high
    return {"kind": kind, "low": low, "high": high, "first": float(first), "last": float(last)}


def quantised(losses: NDArray[np.float32], scale: dict[str, Any]) -> NDArray[np.uint16]:
    """Losses as integers on a scale, `UNKNOWN` for those that are not finite."""
    values = losses.astype(np.float64)
    low, high = scale["low"], scale["high"]
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale["kind"] == "log":
            share = np.log(np.maximum(values, low) / low) / np.log(high / low)
        else:
            share = (values - low) / (high - low)
    whole = np.nan_to_num(np.clip(share, 0, 1), nan=0.0) * (UNKNOWN - 1)
    found: NDArray[np.uint16] = np.where(np.isfinite(values), whole.round(), UNKNOWN).astype(np.uint16)
    return found
