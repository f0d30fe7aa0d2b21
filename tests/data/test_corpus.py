from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_kit.config import load_config
from sage_kit.data import load_corpus
from sage_kit.errors import ConfigError, DataError

ROWS = ["One paragraph.", "", None, "   ", "Another.", "A third one."]
TEXTS = ["One paragraph.", "Another.", "A third one."]


def write(path: Path, values: list[Any] = ROWS, column: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: values, "source": list(range(len(values)))}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    else:
        path.write_text("\n".join(value or "" for value in values), encoding="utf-8")
    return path


def corpus(name: str | Path, **settings: Any) -> list[str]:
    return load_corpus(load_config({"warmup_corpus": str(name), "data_dir": "", **settings}))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_each_type_of_file_gives_its_texts_in_order(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"corpus{suffix}")
    assert corpus(path) == TEXTS
    assert corpus(path, warmup_rows=2) == TEXTS[:2]
    assert corpus(path, warmup_rows=10) == TEXTS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.ndjson", "a.txt.gz", "a.csv.gz", "a.jsonl.xz"])
def test_the_corpus_is_read_like_other_files(tmp_path: Path, name: str) -> None:
    records = [{"n": i, "text": text} for i, text in enumerate(TEXTS)]
    stream = io.StringIO(newline="")
    if ".txt" in name:
        stream.write("\n".join(TEXTS))
    elif "json" in name:
        stream.write("\n".join(map(json.dumps, records)))
    else:
        rows = [["n", "text"], *map(list, (record.values() for record in records))]
        csv.writer(stream, delimiter="\t" if ".tsv" in name else ",").writerows(rows)
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(compress(stream.getvalue().encode()))
    assert corpus(tmp_path / name) == TEXTS
    assert corpus(tmp_path / name, warmup_rows=2) == TEXTS[:2]


def test_the_corpus_follows_the_settings_of_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n;text\n1;'one; two'\n2;three\n")
    with pytest.raises(DataError, match="set delimiter to ';'"):
        corpus(tmp_path / "a.csv")
    assert corpus(tmp_path / "a.csv", delimiter=";", quote="'") == ["one; two", "three"]


def test_rows_that_no_tokenizer_takes_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", ["\ud800", 7, ["x"], "\u200b", "text"])
    assert corpus(path) == ["text"]


@pytest.mark.parametrize("name", ["corpus/train", "corpus/train.parquet"])
def test_a_name_is_also_looked_for_below_data_dir(tmp_path: Path, name: str) -> None:
    write(tmp_path / "corpus" / "train.parquet")
    assert corpus(name, data_dir=str(tmp_path)) == TEXTS


@pytest.mark.parametrize("name", ["missing.txt", "./missing", "/missing/corpus"])
def test_a_file_that_does_not_exist_is_named_with_the_places_looked_at(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"warm-up corpus '.*missing.*' does not exist; looked for .*parquet"):
        corpus(name, data_dir=str(tmp_path))


def test_a_file_of_another_type_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "corpus.doc"
    path.write_text("text\nx\n")
    with pytest.raises(DataError, match=r"corpus\.doc: its name must end in \.jsonl, .*\.txt, each also with \.gz"):
        corpus(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_missing_column_is_an_error_with_the_closest_one(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"corpus{suffix}", column="txt")
    with pytest.raises(DataError, match=r"has no column 'text'. Did you mean 'txt'\? Columns: .*txt"):
        corpus(path)
    assert corpus(path, warmup_column="txt") == TEXTS


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_a_corpus_without_text_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"corpus{suffix}", ["", " "])
    with pytest.raises(DataError, match=rf"corpus\{suffix}.* holds no text for the warm-up"):
        corpus(path)


def test_malformed_files_are_errors_that_say_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(DataError, match=r"broken\.parquet is not a valid parquet file"):
        corpus(broken)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "x"}\n\n{"text": \n')
    with pytest.raises(DataError, match=r"lines\.jsonl, line 3 is not valid JSON"):
        corpus(lines)
    lines.write_text('["x"]\n')
    with pytest.raises(DataError, match=r"lines\.jsonl, line 1 is not a JSON object"):
        corpus(lines)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt, line 2 is not UTF-8 text"):
        corpus(latin)


def test_a_corpus_must_be_named() -> None:
    with pytest.raises(ConfigError, match="warmup_corpus names no text"):
        corpus("")


def test_a_hub_data_set_is_streamed_only_when_rows_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(repository: str, configuration: str | None, **arguments: Any) -> Any:
        calls.append((repository, configuration, arguments["revision"], arguments["streaming"]))
        data = datasets.Dataset.from_dict({"text": ROWS, "title": ROWS})
        return data.to_iterable_dataset() if arguments["streaming"] else data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert corpus("some/set:20231101.en", warmup_rows=2) == TEXTS[:2]
    assert corpus("some/set") == TEXTS
    assert corpus("some/set@v2:en") == TEXTS
    assert calls == [
        ("some/set", "20231101.en", "main", True), ("some/set", None, "main", False), ("some/set", "en", "v2", False)
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"hub data set some/set, split 'train' has no column 'texts'. Did you mean"):
        corpus("some/set", warmup_column="texts")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments: Any, **settings: Any) -> Any:
        raise ConnectionError("Couldn't reach\n'some/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"some/set:en, split 'train' cannot be loaded .*data_dir") as error:
        corpus("some/set:en")
    assert "\n" not in str(error.value)
