"""The one-file plugin of the notebook beyond GLUE, on small files of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.splits import TaskData, load_task
from sage_kit.errors import DataError

FILE = Path(__file__).parents[2] / "notebooks" / "plugins" / "beyond_glue_tasks.py"
PAWSX = ("en", "de", "es", "fr", "ja", "ko", "zh")


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins([str(FILE)], allow="")


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beyond")
    for language in PAWSX:
        # rows 2k and 2k + 1 share their first sentence, and every tenth row its second with the next pair's first
        rows = [
            {
                "sentence1": f"{language} first {row // 2}",
                "sentence2": f"{language} first {row // 2 + 1}" if row % 10 == 1 else f"{language} second {row}",
                "label": row % 2,
            }
            for row in range(120)
        ]
        if language == "de":
            rows[16]["sentence2"] = "NS"  # not translated, as in the real files
        write(root, f"pawsx/{language}/validation", rows)
    for split in ("train", "validation"):
        rows = [
            {"question1": f"{split} a{n}", "question2": "" if n == 3 else f"b{n}", "label": n % 2} for n in range(30)
        ]
        write(root, f"glue/qqp/{split}", rows)
        facts = [{"question": f"{split} q{n}?", "facts": f"f{n}.", "label": n % 2} for n in range(30)]
        write(root, f"strategyqa/{split}", facts)
    for source in ("retrieved", "distractor"):
        rows = [{"question": f"{source} q{n // 5}?", "paragraph": f"p{n}", "label": int(n % 5 == 0)} for n in range(40)]
        write(root, f"hotpotqa/support_pairs_{source}_sample", rows)
    for split in ("train", "validation"):
        rows = [
            {
                "question": f"{split} what {n}?",
                "context": f"{split} {n // 3}: it is w{n}.",
                "answers": {"text": [f"w{n}"], "answer_start": [len(f"{split} {n // 3}: it is ")]},
            }
            for n in range(30)
        ]
        write(root, f"squad_sample/{split}", rows)
    for name in ("distractor_sample", "distractor_train_sample2"):
        rows = [
            {
                "question": f"{name} {n}?",
                "answer": "yes" if n == 1 else "nowhere" if n == 2 else f"u{n}",
                "context": {"title": ["A", "B", "C"], "sentences": [[f"u{n}. ", "More."], ["Much."], ["Little."]]},
                "supporting_facts": {"title": ["A", "C"], "sent_id": [0, 0]},
            }
            for n in range(6)
        ]
        write(root, f"hotpotqa/{name}", rows)
    return root


def load(plugins: Plugins, folder: Path, task: str) -> TaskData:
    config = load_config({"task": task, "data_dir": str(folder)})
    return load_task(plugins.task(task), config, lambda text: None)


@pytest.mark.parametrize(
    ("task", "validation"),
    [
        ("strategyqa", ["validation"]),
        ("strategyqa_facts", ["validation"]),
        ("hotpot_support", ["distractor"]),
        ("hotpot_answers", ["hotpot", "squad"]),
        ("pawsx_parted", [*PAWSX]),
        ("qqp_to_pawsx", ["pawsx", "qqp"]),
    ],
)
def test_every_task_loads_with_its_splits(plugins: Plugins, folder: Path, task: str, validation: list[str]) -> None:
    data = load(plugins, folder, task)
    assert list(data.validation) == validation
    assert (data.train.pairs is None) == (task == "strategyqa")
    trained = {text for split in (data.train, data.dev) for text in split.texts}
    for split in data.validation.values():
        assert not trained & set(split.texts)


def test_pawsx_parts_groups_that_share_a_sentence_and_the_same_rows_in_every_language(
    plugins: Plugins, folder: Path
) -> None:
    data = load(plugins, folder, "pawsx_parted")
    inside = {text for split in (data.train, data.dev) for side in (split.texts, split.pairs or []) for text in side}
    english = data.validation["en"]
    assert not inside & {*english.texts, *(english.pairs or [])}
    assert len(data.train) + len(data.dev) + len(english) == 120
    assert 10 < len(english) < 80
    numbers = {f"en second {row}": row for row in range(120)}
    held_out = [numbers.get(text, -1) for text in english.pairs or []]
    assert 16 in held_out
    for language in PAWSX:
        there = [text.replace(f"{language} ", "en ") for text in data.validation[language].texts]
        pairs = data.validation[language].pairs or []
        assert "NS" not in pairs
        missing = {16} if language == "de" else set()
        assert there == [text for row, text in zip(held_out, english.texts, strict=True) if row not in missing]


def test_hotpotqa_trains_on_as_many_supporting_paragraphs_as_others(plugins: Plugins, folder: Path) -> None:
    data = load(plugins, folder, "hotpot_support")
    paragraphs = {f"p{n}": int(n % 5 == 0) for n in range(40)}
    read = [paragraphs[text] for split in (data.train, data.dev) for text in split.pairs or []]
    assert sorted(read) == [0] * 8 + [1] * 8
    assert [*data.train.labels, *data.dev.labels] == read  # rows stay whole
    assert [*data.validation["distractor"].labels] == [*paragraphs.values()]


def test_a_missing_file_is_one_clear_line(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*pawsx/en/validation.parquet: set data_dir"):
        load(plugins, tmp_path, "pawsx_parted")


def test_unequal_languages_are_refused(plugins: Plugins, folder: Path, tmp_path: Path) -> None:
    for language in PAWSX:
        rows = [
            {"sentence1": f"a{n}", "sentence2": f"b{n}", "label": n % 2} for n in range(9 if language == "ko" else 10)
        ]
        write(tmp_path, f"pawsx/{language}/validation", rows)
    with pytest.raises(DataError, match=r"pawsx/ko/validation has 9 rows and English 10"):
        load(plugins, tmp_path, "pawsx_parted")


def test_the_real_files_load(plugins: Plugins, data_dir: Path) -> None:
    assert len(load(plugins, data_dir, "pawsx_parted").validation["de"]) > 500
    hotpot = load(plugins, data_dir, "hotpot_support")
    assert not {*hotpot.train.texts, *hotpot.dev.texts} & {*hotpot.validation["distractor"].texts}


def test_hotpotqa_is_answered_from_supporting_paragraphs(plugins: Plugins, folder: Path) -> None:
    """Yes and no stand in front; a question whose answer is no piece of the text is left out."""
    hotpot = load(plugins, folder, "hotpot_answers").validation["hotpot"]
    assert len(hotpot) == 10
    assert hotpot.pairs is not None
    assert hotpot.pairs[0] == "yes no\nA: u0. More.\nC: Little."
    assert [labels.texts for labels in hotpot.labels[:3]] == [("u0",), ("yes",), ("u3",)]
    assert hotpot.labels[1].starts == (0,)
