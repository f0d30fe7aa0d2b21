"""Rows that batch as a whole task does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import toyspans
import toytags

from sage_bench.whole_batches import choose, write_examples
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.batches import plan_batches
from sage_kit.data.scoring import task_of
from sage_kit.data.splits import TaskData, load_task


def padding(lengths: np.ndarray) -> float:
    """Share of padding among the tokens of batches."""
    batches = plan_batches(lengths, batch_size=32, batch_tokens=4096, rng=np.random.default_rng(0))
    return 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)


def test_chosen_rows_batch_like_all_rows_and_are_as_long() -> None:
    rng = np.random.default_rng(3)
    lengths = np.maximum(4, rng.gamma(4.0, 12.0, 4000)).astype(np.int64)
    rows = choose(lengths, 256, 32, rng)
    assert len(rows) == len(set(rows.tolist())) == 256
    assert padding(lengths[rows]) < padding(lengths) + 0.02 < padding(lengths[rng.choice(4000, 256, False)])
    assert abs(lengths[rows].mean() / lengths.mean() - 1) < 0.05


def test_fewer_rows_than_a_batch_are_all_taken() -> None:
    assert sorted(choose(np.array([5, 3, 9]), 64, 32, np.random.default_rng(0))) == [0, 1, 2]


def test_written_rows_are_read_as_a_task_in_whole_batches(tmp_path: Path, tiny_bert: Path) -> None:
    file = tiny.write_jsonl(tmp_path / "all.jsonl", tiny.toy_task_rows(200, seed=1))
    settings = {"task": "file", "train_file": str(file), "max_length": 32}
    chosen = write_examples(settings, 64, 16, str(tiny_bert), tmp_path)
    config = load_config({**settings, **chosen})
    data = load_task(Plugins(allow="").task("file"), config, lambda text: None)
    assert len(data.train) == 63  # one row is carved off
    assert set(data.validation) == {"validation"}
    assert not set(data.train.texts) & set(data.validation["validation"].texts)


@pytest.mark.parametrize("kind", ["tags", "spans"])
def test_labels_of_words_and_answers_are_read_back_as_they_were(tmp_path: Path, tiny_bert: Path, kind: str) -> None:
    toy = toyspans.settings(tmp_path) if kind == "spans" else toytags.settings(tmp_path, kind)
    settings: dict[str, Any] = {"task": "file", **toy}

    def read(more: dict[str, Any]) -> TaskData:
        config = load_config({**settings, **more})
        return load_task(task_of(Plugins(allow=""), config), config, lambda text: None)

    chosen = read(write_examples(settings, 64, 16, str(tiny_bert), tmp_path))
    all_of_it = read({})
    assert chosen.spec.kind_name == kind
    # a tag that no drawn row has keeps its place
    assert chosen.spec.labels == all_of_it.spec.labels
    assert len(chosen.train) == 63
    (validation,) = chosen.validation.values()
    for drawn, known in ((chosen.train, all_of_it.train), (validation, all_of_it.dev)):
        labels = dict(zip(zip(known.texts, known.pairs or known.texts, strict=True), known.labels, strict=True))
        keys = list(zip(drawn.texts, drawn.pairs or drawn.texts, strict=True))
        assert [labels[key] for key in keys] == list(drawn.labels)
