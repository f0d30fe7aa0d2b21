from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import tiny
import tinyview
import torch
from scipy import stats
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.data.splits import Split
from sage_kit.data.tokens import tokenize
from sage_kit.distill import run
from sage_kit.models import tied_language
from sage_kit.reports.lifted_round import lift_round
from sage_kit.studies import Study
from sage_kit.studies.analyses import text_perplexity
from sage_kit.studies.analyses.text_perplexity import (
    ANCHOR,
    ANCHOR_SHUFFLED,
    KINDS,
    NO_TEXT,
    SYNTHETIC,
    SYNTHETIC_SHUFFLED,
    corpus_for,
    language_of,
    lifts_over,
    perplexities,
    perplexities_over,
    perplexity_table,
    shuffled,
)


def lifted(folder, teacher, **settings):
    config = toy_config(folder, teacher, **{"synthetic_ratio": 0.3, "rounds": 2, "lift": "replace_random", **settings})
    directory, _ = run(config, Plugins(allow=""))
    return lift_round(directory, Plugins(allow=""), limit=5)


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_bert):
    return lifted(tmp_path_factory.mktemp("perplexity"), tiny_bert, evaluation_rows=40)


def test_a_tied_head_learns_from_no_text_of_the_transfer_set(found, tmp_path, monkeypatch):
    monkeypatch.setattr(tied_language, "MASKED_TOKENS", 2000)
    given, load = [], text_perplexity.load_language

    def spied(config, tokenizer, tokens, *rest):
        given.append((config, tokens))
        return load(config, tokenizer, tokens, *rest)

    monkeypatch.setattr(text_perplexity, "load_language", spied)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(row["text"] for row in tiny.toy_task_rows(30, seed=4)), encoding="utf-8")
    messages: list[str] = []
    language = language_of(found, str(corpus), messages.append)
    ((config, tokens),) = given
    assert config.warmup_corpus == str(corpus)
    held_out = found.prepared.dev.tokens, found.prepared.evaluation.tokens
    assert len(held_out[1]) == 40
    np.testing.assert_array_equal(tokens.ids, np.concatenate([part.ids for part in held_out]))
    assert f"on {len(tokens) + 30} texts" in messages[0]
    assert language.model.measured is not None
    assert language.about.startswith("no pretrained head, but one tied to the word embeddings and trained on ")
    assert f"{language.model.measured.texts} texts" in language.about
    assert f"masked tokens {language.model.measured.perplexity:,.0f};" in language.about


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Texts lifted under a checkpoint that has a masked-language head."""
    folder = tmp_path_factory.mktemp("pretrained")
    tinyview.make_masked_lm(folder / "teacher", "bert")
    tiny.make_tokenizer().save_pretrained(folder / "teacher")
    return lifted(folder, folder / "teacher")


def test_texts_are_as_likely_as_the_head_says(pretrained):
    language = language_of(pretrained, "")
    assert language.about == f"the pretrained head of {pretrained.config.teacher}"
    table = perplexities(pretrained, language)
    assert table["kind"].unique().tolist() == list(KINDS)
    assert len(table) == 5 * len(KINDS)
    tokens = {ANCHOR: (pretrained.prepared.train.tokens, pretrained.anchors),
              SYNTHETIC: (pretrained.synthetic.tokens, pretrained.rows)}  # fmt: skip
    for kind, (flat, rows) in tokens.items():
        own = table[table["kind"] == kind]
        for row, text, value in zip(rows, own["text"], own["log_perplexity"], strict=True):
            alone = language.model.perplexity(*flat.pad(np.array([row])))
            assert value == pytest.approx(float(alone.log()), abs=1e-5)
            ids = flat.ids[slice(*flat.offsets[row : row + 2])].tolist()
            assert text == tiny.make_tokenizer().decode(ids, skip_special_tokens=True)
    assert table[table["kind"] == ANCHOR]["anchor"].tolist() == pretrained.anchors.tolist()
    for kind, mixed in ((ANCHOR, ANCHOR_SHUFFLED), (SYNTHETIC, SYNTHETIC_SHUFFLED)):
        one, other = (table[table["kind"] == name] for name in (kind, mixed))
        for first, second in zip(one["text"], other["text"], strict=True):
            assert sorted(first.split()) == sorted(second.split())
        assert (one["text"].to_numpy() != other["text"].to_numpy()).any()


def test_tokens_of_a_pair_stay_in_their_text():
    texts, pairs = ["the movie was very good ."], ["a film that i liked a lot !"]
    tokens = tokenize(Split("pairs", texts, pairs, np.zeros(1, np.int64)), tiny.make_tokenizer(), 64)
    batch = tokens.batch(np.array([0]), torch.device("cpu"))
    mixed = shuffled(batch, np.random.default_rng(0))
    special, second = batch.special[0], batch.second[0]
    assert torch.equal(mixed.ids[0][special], batch.ids[0][special])
    for part in (~special & ~second, ~special & second):
        assert int(part.sum()) > 5
        assert not torch.equal(mixed.ids[0][part], batch.ids[0][part])
        assert torch.equal(mixed.ids[0][part].sort().values, batch.ids[0][part].sort().values)


def test_lifts_without_text_are_refused(tmp_path, tiny_bert, found):
    shift = lifted(tmp_path, tiny_bert, lift="shift")
    with pytest.raises(ValueError, match="lift 'shift' makes no text"):
        perplexities(shift, None)


def test_the_corpus_is_that_of_a_warm_up(tmp_path, monkeypatch):
    def study(profile, data_dir):
        places = {"runs_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
        about = {"title": "", "question": "", "task": "sst2" if profile == "small" else None}
        return Study("00_x", profile=profile, data_dir=data_dir, **about, **places)

    monkeypatch.delenv("SAGE_KIT_DATA_DIR", raising=False)
    assert corpus_for(study("small", str(tmp_path))) == ""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.parquet").write_bytes(b"")
    assert corpus_for(study("small", str(tmp_path))) == "corpus/train.parquet"


# ---- tables


def made_up(seeds=5):
    rng = np.random.default_rng(1)
    levels = {ANCHOR: 5.0, SYNTHETIC: 5.4, SYNTHETIC_SHUFFLED: 6.0, ANCHOR_SHUFFLED: 6.1}
    keys = itertools.product(("t", "u"), ("replace", "random"), range(seeds), levels, range(4))
    rows = [
        {"task": task, "lift": lift, "seed": seed, "kind": kind, "row": row, "head": "a head",
         "log_perplexity": levels[kind] + (0.3 if lift == "random" else 0) + rng.standard_normal() / 10}
        for task, lift, seed, kind, row in keys
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_perplexities_are_geometric_means_and_lifts_without_text_are_named():
    table = made_up()
    table.loc[0, "log_perplexity"] = np.nan
    found = perplexity_table(table, [("t", "shift")])
    own = table.query("task == 't' and lift == 'replace' and kind == 'anchor'")["log_perplexity"].dropna()
    (row,) = found.query("task == 't' and lift == 'replace' and kind == 'anchor'").to_dict("records")
    assert (row["texts"], row["head"]) == (19, "a head")
    assert row["perplexity"] == pytest.approx(stats.gmean(np.exp(own)))
    assert found.iloc[-1][["task", "lift", "kind", "texts"]].tolist() == ["t", "shift", NO_TEXT, 0]
    assert perplexity_table(pd.DataFrame(), [("t", "shift")])["kind"].tolist() == [NO_TEXT]


def test_texts_are_held_against_shuffled_ones_and_lifts_against_another():
    table = made_up()
    found = perplexities_over(table, SYNTHETIC_SHUFFLED)
    own = table.query("task == 't' and lift == 'replace'").groupby(["kind", "seed"])["log_perplexity"].mean()
    (row,) = found.query("task == 't' and lift == 'replace' and arm == 'synthetic'").to_dict("records")
    differences = own[SYNTHETIC] - own[SYNTHETIC_SHUFFLED]
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(stats.ttest_1samp(differences, 0).confidence_interval()))
    ahead = (own[ANCHOR] - own[SYNTHETIC_SHUFFLED]).mean()
    assert row["of_anchor"] == pytest.approx(differences.mean() / ahead)
    assert set(found["task"]) == {"t", "u", "average"}
    found = lifts_over(table, "replace")
    assert found["arm"].unique().tolist() == ["random"]
    means = table[table["task"] == "t"].groupby(["lift", "kind", "seed"])["log_perplexity"].mean()
    raised = {lift: means[lift, SYNTHETIC] - means[lift, ANCHOR] for lift in ("replace", "random")}
    (row,) = found[found["task"] == "t"].to_dict("records")
    assert row["difference"] == pytest.approx((raised["random"] - raised["replace"]).mean())
