"""Tasks of tags, answers, label sets and embeddings, read from the data folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.tasks import xtreme
from sage_kit.components import HubSource, TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.entities import entities
from sage_kit.data.sources import Table, read_tables
from sage_kit.data.structured_labels import read_answers, read_label_sets, read_tags, read_words
from sage_kit.errors import ConfigError

PLUGINS = Plugins(allow="")
TAGS = ("panx", "udpos", "wnut17", "btc")
SPANS = ("squad_sample", "xquad", "mlqa", "tydiqa_goldp", "hotpotqa", "musique")


def tables(data_dir: Path, name: str, **options: Any) -> tuple[TaskSpec, dict[str, Table]]:
    spec = PLUGINS.task(name, options)
    config = load_config({"task": name, "data_dir": str(data_dir), "task_options": options})
    return spec, read_tables(spec, config)


def answers_of(table: Table) -> list[Any]:
    return read_answers(table.columns["answers"], table.columns["context"], table.where)


def test_each_task_says_its_kind() -> None:
    kinds = {item.spec.name: item.spec.task_kind for item in PLUGINS.components("task") if item.spec.task_kind}
    expected = dict.fromkeys(TAGS, "tags") | dict.fromkeys(SPANS, "spans") | {"sgd_acts": "label_sets"}
    assert kinds == expected | {"stsb_embeddings": "embeddings", "tatoeba": "embeddings"}


@pytest.mark.parametrize("name", [*TAGS, *SPANS, "sgd_acts", "stsb_embeddings", "tatoeba"])
def test_metrics_take_what_the_task_has(name: str) -> None:
    spec = PLUGINS.task(name, {})
    assert all(spec.label_kind in PLUGINS.metric(metric).takes for metric in spec.metrics)
    assert not spec.is_regression
    assert spec.n_outputs == {"tags": len(spec.labels), "spans": 2, "label_sets": 10}.get(spec.task_kind, 1)


# ---- tags


@pytest.mark.parametrize("name", TAGS)
def test_tags_of_every_split(data_dir: Path, name: str) -> None:
    spec, found = tables(data_dir, name)
    for table in found.values():
        if name != "btc":
            assert table.item_names == spec.labels, table.where
        words = read_words(table.columns["tokens"], table.where)
        tags = read_tags(table.columns[spec.label_column], words, spec.labels, table.where, names=table.item_names)
        seen = {tag for row in tags for tag in row}
        assert seen <= set(spec.labels)
        if spec.metrics[0] == "span_f1":
            assert seen == set(spec.labels)
            assert sum(len(entities(row)) for row in tags) > 100


def test_panx_by_eye(data_dir: Path) -> None:
    _, found = tables(data_dir, "panx", language="de", languages=["de"])
    table = found["train"]
    row = table.columns["tokens"].index(["als", "Teil", "der", "Savoyer", "Voralpen", "im", "Osten", "."])
    (tags,) = read_tags([table.columns["ner_tags"][row]], [table.columns["tokens"][row]], xtreme.ENTITIES, "x")
    assert tags == ("O", "O", "O", "B-LOC", "I-LOC", "O", "O", "O")


def test_the_broad_twitter_corpus_is_rid_of_empty_words(data_dir: Path) -> None:
    spec, found = tables(data_dir, "btc", section="h", sections=["f", "h"])
    assert spec.validation_splits == ("section_f",)
    assert len(found["train"]) == 1991
    assert len(found["section_f"]) == 1999


def test_languages_and_where_they_lie() -> None:
    spec = PLUGINS.task("panx", {"language": "de", "languages": ["pl", "de", "sw"]})
    assert spec.validation_splits == ("validation_de", "validation_pl", "validation_sw")
    assert spec.source_of("validation_sw").hub == HubSource("google/xtreme", "PAN-X.sw")
    assert spec.source_of("validation_pl").hub is None
    assert len(PLUGINS.task("panx", {"languages": []}).validation_splits) == 41
    spec = PLUGINS.task("udpos", {"languages": ["nl"]})
    assert spec.source_of("validation_nl").hub == HubSource("google/xtreme", "udpos.Dutch")
    assert set(xtreme.UDPOS_NAMES) == set(xtreme.UdposLanguage.__args__)
    spec = PLUGINS.task("mlqa", {"languages": ["de"]})
    assert spec.source_of("train").local == "squad_sample/train"
    assert spec.source_of("validation_de").hub == HubSource("google/xtreme", "MLQA.de.de")
    spec = PLUGINS.task("tydiqa_goldp", {"language": "ko"})
    assert spec.validation_splits == ("validation_ko", "validation_en")
    with pytest.raises(ConfigError, match=r"task 'xquad': option 'languages.*'"):
        PLUGINS.task("xquad", {"languages": ["xx"]})


# ---- answers


@pytest.mark.parametrize("name", SPANS)
def test_answers_of_every_split(data_dir: Path, name: str) -> None:
    _, found = tables(data_dir, name)
    for table in found.values():
        for answers, context in zip(answers_of(table), table.columns["context"], strict=True):
            text, start = answers.texts[0], answers.starts[0]
            assert context[start : start + len(text)] == text


def test_hotpotqa_finds_yes_and_no_at_the_beginning(data_dir: Path) -> None:
    _, found = tables(data_dir, "hotpotqa")
    assert {len(table) for table in found.values()} == {100}
    starts = Counter()
    for table in found.values():
        assert all(context.startswith("yes no\n") for context in table.columns["context"])
        starts.update(a.starts[0] for a in answers_of(table) if a.texts[0] in ("yes", "no"))
    assert starts == {0: 4, 4: 11}


def test_paragraphs_that_support_an_answer_hold_it(data_dir: Path) -> None:
    for name, all_of_them in (("hotpotqa", 10), ("musique", 20)):
        whole, some = (tables(data_dir, name, paragraphs=which)[1]["train"] for which in ("all", "supporting"))
        assert all(answers.starts[0] >= 0 for answers in answers_of(some))
        for long, short in zip(whole.columns["context"], some.columns["context"], strict=True):
            lines = long.split("\n")[name == "hotpotqa" :]
            assert len(lines) >= all_of_them - 8
            assert set(short.split("\n")) <= set(long.split("\n"))


def test_an_answer_is_placed_in_a_paragraph_that_it_needs(data_dir: Path) -> None:
    _, found = tables(data_dir, "hotpotqa")
    table = found["train"]
    row = table.columns["question"].index("If Gallu is a demon Lilu is what?")
    context, answers = table.columns["context"][row], answers_of(table)[row]
    line = context[context.rindex("\n", 0, answers.starts[0]) + 1 :].split("\n")[0]
    assert line.startswith(("Alû: ", "Lilu (mythology): "))


# ---- label sets and embeddings


def test_acts_are_those_that_the_data_join(data_dir: Path) -> None:
    import pyarrow.parquet as pq

    spec, found = tables(data_dir, "sgd_acts")
    source = pq.read_table(data_dir / "sgd_turns" / "train.parquet")
    names = json.loads(source.schema.metadata[b"huggingface"])["info"]["features"]["act"]["names"]
    joined = Counter(act for index in source["act"].to_pylist() for act in names[index].split("+"))
    sets = read_label_sets(found["train"].columns["act"], spec.labels, "x")
    assert dict(zip(spec.labels, sets.sum(axis=0).tolist(), strict=True)) == joined
    assert set(sets.sum(axis=1)) == {1, 2, 3}
    assert spec.group_column == "dialogue_id"


def test_embeddings(data_dir: Path) -> None:
    spec, found = tables(data_dir, "stsb_embeddings")
    assert {split: len(table) for split, table in found.items()} == {"train": 5749, "validation": 1500}
    labels = np.array(found["train"].columns["label"])
    assert (labels.min(), labels.max()) == spec.label_range
    spec, found = tables(data_dir, "tatoeba", languages=["sw", "de"])
    assert {split: len(table) for split, table in found.items()} == {"train": 9000, "test_sw": 390, "test_de": 1000}
    assert spec.label_column == ""
    assert all(set(table.columns) == {"sentence", "english"} for table in found.values())
