"""The decoding ladder: token states from real text down to noise, read by decoders, and read again by the teacher.

The rungs, from the top: the anchors' own token states; those of the synthetic examples; the anchors moved as far in the
directions that belong to other examples; moved as far in random directions; and noise that no text lies under.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat

from sage_kit.components import TaskSpec, TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.data.metrics import alike_with, predictions
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.errors import CompatibilityError, StudyError
from sage_kit.reports.decoding import decoded_texts, ids_of
from sage_kit.reports.lifted_round import LiftedRound, joined
from sage_kit.reports.reader import Reading, by_ids, by_words, fit_reader
from sage_kit.studies.analyses.run_data import label_text
from sage_kit.studies.statistics import compare_arms
from sage_kit.system.devices import autocast_for

Floats = NDArray[np.float32]

RUNGS = ("real", "synthetic", "shuffled", "noise", "no text")  # from the top
MIDDLE = "middle"  # halfway from *noise* to *real*: what stands above is nearer to the real text

UNITS: Mapping[str, str] = {"nearest_token": "cosine", "probe": "log-probability", "mlm_head": "log-probability"}
"""Unit of a decoder's scores, by its name; "score" for others."""

ROWS = 64  # rows that the teacher reads at once


def rungs(found: LiftedRound, seed: int) -> dict[str, TokenBatch]:
    """Token states of every rung by its name in `RUNGS`, the same examples and tokens in each.

    With d the way that a token has moved from its place in the anchor, *shuffled* goes in the direction of a moved
    token of the next example and *noise* in a random one; an example's tokens share one random linear map, so tokens
    that move together do so in *noise*, too. Both go as far as d does, token by token. *no text* is Gaussian noise of
    the length of the anchor's token states.
    """
    real, mask = found.real.states.float(), found.real.mask
    if found.lifted.mask.shape != mask.shape or not torch.equal(found.lifted.mask, mask):
        raise StudyError(f"lift {found.config.lift!r} changes the number of tokens, so they cannot be held against the "
                         "anchor's: take another lift")  # fmt: skip
    if len(real) < 2:
        raise StudyError("the ladder needs two synthetic examples at least: decode more of them")
    moves = found.lifted.states.float() - real
    lengths = moves.norm(dim=2, keepdim=True)
    moved = (lengths[..., 0] > 0) & mask
    generator = torch.Generator().manual_seed(seed)
    shuffled, noise = torch.zeros_like(moves), torch.zeros_like(moves)
    owners = [row for row in range(len(real)) if bool(moved[row].any())]
    dim = real.shape[2]
    for place, row in enumerate(owners):
        here = moved[row].nonzero()[:, 0]
        next_one = owners[(place + 1) % len(owners)]
        there = moved[next_one].nonzero()[:, 0]
        shuffled[row, here] = moves[next_one, there[torch.arange(len(here)) % len(there)]]
        turn = torch.randn(dim, dim, generator=generator).to(real.device)
        noise[row, here] = moves[row, here] @ turn
    gaussian = torch.randn(real.shape, generator=generator).to(real.device)
    states = {
        "real": real,
        "synthetic": found.lifted.states.float(),
        "shuffled": real + _of_length(shuffled, lengths),
        "noise": real + _of_length(noise, lengths),
        "no text": _of_length(gaussian, real.norm(dim=2, keepdim=True)),
    }
    return {name: TokenBatch(values * mask[..., None], mask) for name, values in states.items()}


def _of_length(vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The vectors' directions at these lengths; zero stays zero."""
    return torch.nn.functional.normalize(vectors, dim=2) * lengths


@dataclass(frozen=True)
class Ladder:
    """What decoders make of some synthetic examples of a run."""

    # One row per decoder, rung and example: decoder, rung, row (among the round's synthetic examples), anchor (among
    # the training examples), its text, and decoded; found, the share of the anchor's tokens, special ones left out,
    # that are read there, or of its words for a decoder without guesses; changed, the share read differently than in
    # the anchor; confidence and margin, means of the best guess's score and of what it is ahead of the second, NaN
    # without guesses; cosine, the mean one of the token states with the anchor's; label_anchor, label_states and
    # label_decoded, what the teacher says of the anchor, of the rung's states and of the decoded text tokenised again;
    # kept, 1 where the last two are alike, else 0; label_stays, the same of the first two.
    examples: DataFrame
    left_out: dict[str, str]  # decoders that do not go with the teacher, and why


def read_ladder(
    found: LiftedRound,
    plugins: Plugins,
    decoders: Sequence[str],
    *,
    announce: Callable[[str], None] = lambda text: None,
) -> Ladder:
    """Let decoders read the rungs of a run's synthetic examples."""
    for decoder in decoders:
        plugins.options("decoder", decoder, {})
    states = rungs(found, found.config.seed)
    batch, spec = joined(list(states.values())), found.prepared.data.spec
    on_states = teacher_on_states(found, batch)
    of_anchors = np.tile(on_states[: len(found.rows)], (len(RUNGS), 1))
    texts = texts_of(found, found.anchors)
    cosines = np.concatenate([_cosines(found, those) for those in states.values()])
    rows: list[dict[str, Any]] = []
    left_out = {}
    for decoder in decoders:
        try:
            reader = fit_reader(plugins, decoder, {}, found, announce)
        except CompatibilityError as error:
            left_out[decoder] = str(error)
            continue
        readings = reader.read(batch, only_guesses=True)  # text is made of the guesses, in the anchor's parts
        decoded, on_decoded = _teacher_on_readings(found, readings)
        kept, stays = alike_with(on_decoded, on_states, spec), alike_with(on_states, of_anchors, spec)
        for index, reading in enumerate(readings):
            example = index % len(found.rows)
            outputs = {"anchor": of_anchors, "states": on_states, "decoded": on_decoded}
            rows.append(
                {
                    "decoder": decoder,
                    "rung": RUNGS[index // len(found.rows)],
                    "row": int(found.rows[example]),
                    "anchor": int(found.anchors[example]),
                    "text": texts[example],
                    "decoded": decoded[index],
                    **_measured(found, example, texts[example], readings[example], reading, reader.has_guesses),
                    "cosine": cosines[index],
                    **{f"label_{of}": prediction_text(logits[index], spec) for of, logits in outputs.items()},
                    "kept": float(kept[index]),
                    "label_stays": float(stays[index]),
                }
            )
    return Ladder(DataFrame(rows), left_out)


def texts_of(found: LiftedRound, rows: NDArray[np.int64]) -> list[str]:
    """The texts of some training examples as far as the teacher reads them."""
    return decoded_texts(found.prepared.teacher.tokenizer, ids_of(found.prepared.train.tokens, rows))


def _measured(
    found: LiftedRound, example: int, text: str, anchor: Reading, reading: Reading, has_guesses: bool
) -> dict[str, float]:
    """The numbers of one reading, beside that of its anchor."""
    confidence = margin = np.nan
    if not has_guesses:
        own, changed = by_words(text, reading, reading), by_words(text, anchor, reading).changed
    else:
        (ids,) = ids_of(found.prepared.train.tokens, found.anchors[[example]])
        special = np.asarray(found.prepared.teacher.tokenizer.all_special_ids)
        own, beside = by_ids(ids, special, reading, reading), by_ids(ids, special, anchor, reading)
        counted = ~np.isin(ids, special)
        confidence = float(reading.scores[counted].mean()) if counted.any() else np.nan
        changed, margin = beside.changed, beside.margin
    share = own.right / own.counted if own.counted else np.nan
    return {"found": share, "changed": changed, "confidence": confidence, "margin": margin}


def _cosines(found: LiftedRound, batch: TokenBatch) -> NDArray[np.float64]:
    """Mean cosine of each example's token states with its anchor's, of shape (m,)."""
    cosines = torch.nn.functional.cosine_similarity(batch.states, found.real.states.float(), dim=2)
    mask = batch.mask.to(cosines.dtype)
    return np.asarray(((cosines * mask).sum(1) / mask.sum(1)).double().cpu().numpy())


def prediction_text(logits: Floats, spec: TaskSpec) -> str:
    """A prediction in words, or a number, from outputs of shape (n_outputs,)."""
    return label_text(predictions(logits[None], spec)[0], spec)


def teacher_on_states(found: LiftedRound, batch: TokenBatch) -> Floats:
    """The outputs of a run's teacher on token states, of shape (rows, n_outputs)."""
    prepared = found.prepared
    autocast = autocast_for(prepared.device, prepared.precision)
    parts = []
    with torch.no_grad(), autocast():
        for start in range(0, len(batch.mask), ROWS):
            part = slice(start, start + ROWS)
            parts.append(prepared.teacher_upper(batch.states[part], batch.mask[part]).logits.float().cpu())
    return np.asarray(torch.cat(parts).numpy())


def _teacher_on_readings(found: LiftedRound, readings: Sequence[Reading]) -> tuple[list[str], Floats]:
    """The readings as text, and the teacher's outputs on that text, tokenised again."""
    prepared, config = found.prepared, found.config
    tokenizer = prepared.teacher.tokenizer
    parts = [_parts(found, index % len(found.rows), reading) for index, reading in enumerate(readings)]
    is_pair = prepared.data.train.pairs is not None
    split = Split(
        "decoded",
        [part[0] for part in parts],
        [part[1] if len(part) > 1 else "" for part in parts] if is_pair else None,
        np.zeros(len(parts), np.int64),
    )
    tokens = tokenize(split, tokenizer, config.max_length)
    logits = []
    for start in range(0, len(tokens), ROWS):
        rows = np.arange(start, min(start + ROWS, len(tokens)), dtype=np.int64)
        ids, types, mask = (tensor.to(prepared.device) for tensor in tokens.pad(rows))
        with torch.no_grad():
            states = prepared.input_layers(ids, types, mask)
        logits.append(teacher_on_states(found, TokenBatch(states, mask)))
    return [" | ".join(part) for part in parts], np.concatenate(logits)


def _parts(found: LiftedRound, example: int, reading: Reading) -> tuple[str, ...]:
    """What was read: one text, or of a pair the two, which part where the anchor's own do."""
    tokenizer = found.prepared.teacher.tokenizer
    if not len(reading.ids):
        return (reading.text,)
    ends = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    (ids,) = ids_of(found.prepared.train.tokens, found.anchors[[example]])
    inside = ~np.isin(ids, [end for end in ends if end is not None])
    number = np.cumsum(~inside)  # tokens between the same two special ones have the same number
    groups = np.unique(number[inside])
    if found.prepared.data.train.pairs is None or len(groups) < 2:
        chosen = [inside]
    else:
        chosen = [inside & (number == groups[0]), inside & (number > groups[0])]
    return tuple(str(tokenizer.decode(reading.ids[rows].tolist(), skip_special_tokens=True)).strip() for rows in chosen)


MEASURES = ("found", "changed", "confidence", "margin", "cosine", "kept", "label_stays")
SHARES = ("found", "changed", "kept", "label_stays")


def over_rung(examples: DataFrame, measure: str, baseline: str) -> DataFrame:
    """Every rung against one of them, by lift and decoder, as `against_rung` has it.

    Each seed has synthesised other examples, so chance in the examples is part of what varies between seeds. Decoders
    that do not have the measure are left out. `examples` are rows of `Ladder.examples` with columns "task", "lift" and
    "seed" beside; the baseline is a rung, or `MIDDLE`, halfway from *noise* to *real* in that measure.
    """
    if measure not in MEASURES:
        raise StudyError(f"there is no measure {measure!r}: take one of {', '.join(MEASURES)}")
    found = []
    for (lift, decoder), rows in examples.groupby(["lift", "decoder"], sort=False):
        if rows.groupby(["task", "rung", "seed"])[measure].mean().isna().any():
            continue
        table = against_rung(rows, measure, baseline, is_share=measure in SHARES)
        found.append(table.assign(lift=lift, decoder=decoder, measure=measure))
    if not found:
        raise StudyError(f"no decoder gives {measure!r}: take one that guesses tokens")
    table = concat(found, ignore_index=True)
    first = ["lift", "decoder", "measure"]
    return table[first + [column for column in table.columns if column not in first]]


def against_rung(examples: DataFrame, measure: str, baseline: str, *, is_share: bool) -> DataFrame:
    """Every rung against one of them: `statistics.compare_arms` of the seeds' means, with the rung as the arm.

    With of_real besides, the difference as a share of what *real* is ahead of the baseline (NaN where it is not).
    `examples` has one row per example and rung, with the columns task, seed, rung and the measure; `is_share` says
    whether the measure counts among few examples.
    """
    means = examples.groupby(["task", "rung", "seed"], sort=False)[measure].mean().reset_index()
    if baseline == MIDDLE:
        ends = means[means["rung"].isin(["real", "noise"])].groupby(["task", "seed"], sort=False)[measure].mean()
        means = concat([means, ends.reset_index().assign(rung=MIDDLE)], ignore_index=True)
    # a share among few examples is counted in steps, so that seeds with the same share are not thought to be exact
    count = int(examples.groupby(["task", "rung", "seed"]).size().min())
    table = compare_arms(means.rename(columns={"rung": "arm"}), baseline, value=measure, resolution=is_share / count)
    real = table["task"].map(table[table["arm"] == "real"].set_index("task")["difference"])
    return table.assign(of_real=(table["difference"] / real).where(real > 0))


def examples_table(examples: DataFrame, decoder: str, count: int) -> DataFrame:
    """Synthetic examples and their anchors as a person reads them: `count` of a decoder's per task and lift."""
    table = beside_noise(examples[examples["decoder"] == decoder], "synthetic", "decoded")
    names = {
        "task": "task", "lift": "lift", "text": "anchor", "decoded": "synthetic, decoded", "noise": "noise, decoded",
        "changed": "changed", "label_anchor": "teacher on anchor", "label_states": "on synthetic states",
        "label_decoded": "on decoded text",
    }  # fmt: skip
    return spread(table, ["task", "lift"], count, names)


def beside_noise(examples: DataFrame, rung: str, read: str) -> DataFrame:
    """The rows of a rung, with what is read on rung *noise* of the same examples as column "noise"."""
    keys = [name for name in ("task", "lift", "seed", "row") if name in examples]
    noise = examples.loc[examples["rung"] == "noise", [*keys, read]].rename(columns={read: "noise"})
    return examples[examples["rung"] == rung].merge(noise, on=keys, how="left")


def spread(table: DataFrame, by: Sequence[str], count: int, names: Mapping[str, str]) -> DataFrame:
    """Some rows of each group, `count` at most and evenly over it, and the columns in `names` under these names."""
    parts = []
    for _, rows in table.groupby(list(by), sort=False):
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        parts.append(rows.iloc[chosen])
    return concat(parts, ignore_index=True)[list(names)].rename(columns=dict(names))
