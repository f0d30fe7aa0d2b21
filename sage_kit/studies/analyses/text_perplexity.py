"""Coherence of synthetic texts: how likely a masked language model finds them, beside their anchors and shuffled text.

Only lifts that make text have any to be asked about. What a text is likely by is told with every number: a head that
came with the teacher's checkpoint, or one that was trained here and is no pretrained head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from pandas import DataFrame, concat

from sage_kit.components import TextBatch
from sage_kit.data.tokens import concatenated
from sage_kit.models.language import MaskedLanguage, load_language
from sage_kit.reports.lifted_round import LiftedRound
from sage_kit.studies.analyses.controls import corpus_at_hand, warmup_text
from sage_kit.studies.statistics import compare_arms
from sage_kit.studies.study import Study

ANCHOR, SYNTHETIC = "anchor", "synthetic"
ANCHOR_SHUFFLED, SYNTHETIC_SHUFFLED = "anchor, shuffled", "synthetic, shuffled"

KINDS = (ANCHOR, SYNTHETIC, SYNTHETIC_SHUFFLED, ANCHOR_SHUFFLED)
"""What texts are asked about; shuffled are the same tokens in random order."""

NO_TEXT = "makes no text"


class NamedLanguage(NamedTuple):
    """A masked language model, and what to say of it."""

    model: MaskedLanguage
    about: str  # which head it is, for tables and captions


def corpus_for(study: Study) -> str:
    """The text that a head is trained on, as `warmup_corpus` names it: that of a warm-up; "" where none is at hand."""
    is_there = study.size.name == "smoke" or corpus_at_hand(study.config(study.tasks[0]))
    return warmup_text(study) if is_there else ""


def language_of(found: LiftedRound, corpus: str, announce: Callable[[str], None] = lambda text: None) -> NamedLanguage:
    """The masked language model of a run's teacher; one that has to be trained sees no text of the transfer set.

    It learns from the corpus, named as the setting `warmup_corpus` names it, and from the rows that are held out from
    the transfer set (*dev* and the evaluation set), so that anchors are no likelier for having been seen, and all runs
    of a task share it. With "" it learns from the held-out rows alone.
    """
    prepared = found.prepared
    config = found.config.model_copy(update={"warmup_corpus": corpus, "warmup_rows": 0})
    held_out = [part.tokens for part in (prepared.dev, prepared.evaluation) if part is not None]
    tokenizer = prepared.teacher.tokenizer
    model = load_language(config, tokenizer, concatenated(held_out), prepared.cache, prepared.device, announce)
    measured = model.measured
    if measured is None:
        return NamedLanguage(model, f"the pretrained head of {config.teacher}")
    about = (
        f"no pretrained head, but one tied to the word embeddings and trained on {measured.texts:,} texts (perplexity "
        f"of others' masked tokens {measured.perplexity:,.0f}; by frequency alone {measured.unigram_perplexity:,.0f})"
    )
    return NamedLanguage(model, about)


def perplexities(found: LiftedRound, language: NamedLanguage) -> DataFrame:
    """Pseudo-perplexities of the synthetic texts of a round, of their anchors, and of both in random order.

    Tokens are shuffled within a text, of a pair within each of the two; special tokens stay. One row per kind and
    example: kind (of `KINDS`), row, anchor, text (as the tokens say it), log_perplexity; NaN for a text without tokens
    of text.
    """
    made = found.synthetic.tokens
    if made is None:
        raise ValueError(f"lift {found.config.lift!r} makes no text")
    cpu = torch.device("cpu")
    anchors = found.prepared.train.tokens.batch(found.anchors, cpu)
    synthetic = made.batch(found.rows, cpu)
    rng = np.random.default_rng(found.config.seed)
    texts = {ANCHOR: anchors, SYNTHETIC: synthetic}
    texts |= {SYNTHETIC_SHUFFLED: shuffled(synthetic, rng), ANCHOR_SHUFFLED: shuffled(anchors, rng)}
    decode = found.prepared.teacher.tokenizer.batch_decode
    rows = []
    for kind, batch in texts.items():
        logs = language.model.perplexity(batch.ids, batch.types, batch.mask).log().cpu().numpy()
        ids = [own[real].tolist() for own, real in zip(batch.ids, batch.mask, strict=True)]
        read = decode(ids, skip_special_tokens=True)
        rows += [
            (kind, int(row), int(anchor), text.strip(), float(value))
            for row, anchor, text, value in zip(found.rows, found.anchors, read, logs, strict=True)
        ]
    return DataFrame(rows, columns=["kind", "row", "anchor", "text", "log_perplexity"])


def shuffled(text: TextBatch, rng: np.random.Generator) -> TextBatch:
    """The same text with its tokens in random order: of a pair each of the two by itself, special tokens in place."""
    ids = text.ids.clone()
    for row in range(len(ids)):
        for second in (False, True):
            free = text.mask[row] & ~text.special[row] & (text.second[row] == second)
            places = free.nonzero()[:, 0]
            ids[row, places] = text.ids[row, places[torch.from_numpy(rng.permutation(len(places)))]]
    return replace(text, ids=ids)


def perplexity_table(examples: DataFrame, without: Sequence[tuple[str, str]] = ()) -> DataFrame:
    """Perplexities by task, lift and kind: geometric means over the examples of all seeds.

    `examples` are rows of `perplexities` with the columns task, lift, seed and head beside, perhaps none; `without`
    names lifts that make no text, whose row says so.
    """
    rows = []
    if len(examples):
        for (task, lift, kind), own in examples.groupby(["task", "lift", "kind"], sort=False):
            known = own["log_perplexity"].dropna()
            rows.append((task, lift, kind, len(known), float(np.exp(known.mean())), own["head"].iloc[0]))
    rows += [(task, lift, NO_TEXT, 0, np.nan, "") for task, lift in without]
    return DataFrame(rows, columns=["task", "lift", "kind", "texts", "perplexity", "head"])


def perplexities_over(examples: DataFrame, baseline: str) -> DataFrame:
    """Every kind of text against one of them, by lift: `compare_arms` of the seeds' mean logarithms.

    Below zero is more coherent. The column of_anchor has the difference as a share of that of the anchors (NaN where
    these are no more coherent than the baseline). `examples` is as for `perplexity_table`, and not empty.
    """
    found = []
    for lift, rows in examples.groupby("lift", sort=False):
        means = rows.groupby(["task", "kind", "seed"], sort=False)["log_perplexity"].mean().reset_index()
        table = compare_arms(means.rename(columns={"kind": "arm"}), baseline, value="log_perplexity")
        anchor = table["task"].map(table[table["arm"] == ANCHOR].set_index("task")["difference"])
        found.append(table.assign(of_anchor=(table["difference"] / anchor).where(anchor < 0), lift=lift))
    table = concat(found, ignore_index=True)
    return table[["lift", *(column for column in table.columns if column != "lift")]]


def lifts_over(examples: DataFrame, baseline: str) -> DataFrame:
    """By how much lifts raise the log perplexity over that of their anchors, against one of them: `compare_arms`. Above
    zero is less coherent. `examples` is as for `perplexity_table`.
    """
    keys = ["task", "lift", "seed"]
    of_kind = examples.groupby([*keys, "kind"], sort=False)["log_perplexity"].mean().unstack("kind")
    raised = (of_kind[SYNTHETIC] - of_kind[ANCHOR]).rename("raised").reset_index()
    order = {lift: number for number, lift in enumerate(dict.fromkeys(examples["lift"]))}
    raised = raised.sort_values("lift", key=lambda names: names.map(order), kind="stable")
    return compare_arms(raised.rename(columns={"lift": "arm"}), baseline, value="raised")
