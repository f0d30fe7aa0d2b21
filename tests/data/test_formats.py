from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import threading
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_kit.data.formats import Dialect, FileReader
from sage_kit.data.sources import read_file
from sage_kit.errors import DataError

COLUMNS = ("text", "label")
RECORDS = [{"text": "a, film", "label": 0}, {"text": 'the "plot"', "label": 1}, {"text": "naïve\nline", "label": 0}]
TEXTS = [record["text"] for record in RECORDS]


def delimited(delimiter: str = ",", **settings: Any) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, **settings)
    writer.writerows([COLUMNS, *(record.values() for record in RECORDS)])
    return stream.getvalue()


def lines() -> str:
    return "".join(json.dumps(record) + "\n" for record in RECORDS)


def zipped(*names: str, content: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return stream.getvalue()


def read(path: Path, content: str | bytes, dialect: Dialect | None = None) -> tuple[list[Any], list[Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns = read_file(path, COLUMNS, "label", dialect).columns
    return list(columns["text"]), list(columns["label"])


def refuse(path: Path, content: str | bytes, message: str, dialect: Dialect | None = None) -> str:
    with pytest.raises(DataError, match=message) as error:
        read(path, content, dialect)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value)


# ---- types and compressions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", delimited()),
        ("DATA.CSV", delimited()),
        ("data.tsv", delimited("\t")),
        ("data.jsonl", lines()),
        ("data.ndjson", lines()),
        ("data.json", lines()),
        ("data.json", json.dumps(RECORDS)),
        ("data.json", json.dumps(RECORDS, indent=2)),
        ("data.json", json.dumps({"data": RECORDS, "version": "1"})),
        ("data.json", json.dumps({"text": TEXTS, "label": [0, 1, 0]})),
        ("data.json", json.dumps({"data": {"text": TEXTS, "label": [0, 1, 0]}})),
        ("data.json", json.dumps({"text": dict(enumerate(TEXTS)), "label": {"0": 0, "1": 1, "2": 0}})),
        ("data.json", json.dumps(dict(enumerate(RECORDS)))),
        ("data.json", json.dumps({"columns": COLUMNS, "data": [list(record.values()) for record in RECORDS]})),
    ],
)
@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pa.compress(content, "zstd", asbytes=True)),
        (".zip", lambda content: zipped("inside", content=content.decode())),
        ("", gzip.compress),  # without a name that says so
        (".gz", bytes),  # uncompressed by a browser, say
    ],
)
def test_each_type_is_read_compressed_or_not(
    tmp_path: Path, name: str, content: str, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    texts, labels = read(tmp_path / (name + ending), compress(content.encode()))
    assert texts == TEXTS
    assert [int(label) for label in labels] == [0, 1, 0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "content"), [("a.csv", delimited()), ("a.jsonl", lines()), ("a.json", lines())])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    assert read(tmp_path / name, content.encode(encoding))[0] == TEXTS
    assert read(tmp_path / f"{name}.gz", gzip.compress(content.encode(encoding)))[0] == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", delimited().encode("utf-16-le"), "is not UTF-8 text: it holds zero bytes; if it is UTF-16, save"),
        ("data.csv", "text,label\ncafé,1\n".encode("latin-1"), "line 2 is not UTF-8 text: .*iconv -f WINDOWS-1252"),
        ("data.csv", b"\xff\xfeabc", "begins as UTF-16.*, but is not: save the file as UTF-8"),
        ("data.csv.gz", gzip.compress("text,label\ncafé,1\n".encode("latin-1")), "line 2 is not UTF-8 .* as UTF-8$"),
        ("data.csv.gz", gzip.compress(delimited().encode() * 50)[:-20], "cannot be uncompressed: .*; make or download"),
        ("data.csv.gz", b"\x1f\x8b" + b"x" * 40, "cannot be "),
        ("data.csv.xz", lzma.compress(delimited().encode())[:-20], "cannot be uncompressed: "),
        ("data.csv.zip", zipped("a", "b", content="x"), "is an archive of 2 files, and one is expected"),
        ("data.csv", zipped("a", "b", content="x"), "a spreadsheet is saved as CSV"),
        ("data.csv.zip", b"PK\x03\x04 cut", "cannot be uncompressed: "),
        ("data.xlsx", b"PK", r"its name must end in \.jsonl, .*; save the sheet as CSV"),
        ("data.csv", b"PAR1 and so on", r"is a parquet file: let its name end in \.parquet"),
        ("data.csv", b"version https://git-lfs.github.com/spec/v1\n", "only points to a file in Git LFS: fetch that"),
        ("data.parquet", b"version https://git-lfs.github.com/spec/v1\n", "only points to a file in Git LFS"),
        ("data.tar.gz", b"x", "unpack it$"),
        ("data.txt", b"x", "rename it to .csv and set delimiter"),
        ("data.gz", b"x", r"its name must end in .*each also with \.gz"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    refuse(tmp_path / name, content, message)


# ---- CSV ------------------------------------------------------------------------------------------------------------


def test_a_field_may_be_of_any_length_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    long = "x" * (csv.field_size_limit() + 1000)
    before = csv.field_size_limit()
    reader = FileReader(tmp_path / "data.csv", COLUMNS)
    (tmp_path / "data.csv").write_text(f"text,label\n{long},1\nshort,0\n" + "y,1\n" * 3000)
    for batch in reader.batches():
        assert csv.field_size_limit() == before
        if "short" in batch["text"]:
            assert batch["text"][0] == long
    assert csv.field_size_limit() == before
    refuse(tmp_path / "bad.csv", f'text,label\n{long},1\n"open', "line 3 is not valid CSV")
    assert csv.field_size_limit() == before


def test_files_are_read_by_several_threads_at_once(tmp_path: Path) -> None:
    long = "x" * (csv.field_size_limit() + 1)
    before = csv.field_size_limit()
    (tmp_path / "data.csv").write_text("text,label\n" + f"{long},1\n" * 20)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(read_file(tmp_path / "data.csv", COLUMNS))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [20] * 8
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["data.csv", "data.tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    ("delimiter", "named"), [(",", "','"), (";", "';'"), ("\t", "'tab'"), ("|", r"'\|'"), ("^", r"'\^'"), (":", "':'")]
)
def test_another_delimiter_is_named_and_then_read(
    tmp_path: Path, name: str, delimiter: str, named: str, quoting: Any
) -> None:
    content = delimited(delimiter, quoting=quoting)
    if delimiter != {"data.csv": ",", "data.tsv": "\t"}[name]:
        refuse(tmp_path / name, content, rf"its header is '.*': set delimiter to {named}$")
    assert read(tmp_path / name, content, Dialect(delimiter))[0] == TEXTS


def test_the_delimiter_is_named_though_the_usual_one_stands_in_the_header_too(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("id;text, or so;label\n7;a;1\n")
    message = "has 2 columns when it is read with ',', but its header is 'id;text, or so;label': set delimiter to ';'"
    with pytest.raises(DataError, match=message):
        read_file(tmp_path / "data.csv", ("text, or so", "label"))


def test_a_wrong_name_of_a_column_is_not_taken_for_a_wrong_delimiter(tmp_path: Path) -> None:
    refuse(tmp_path / "data.csv", "text;a,labels\nx,1\n", r"has no column 'text'\. Did you mean 'text;a'")
    refuse(tmp_path / "data.csv", "text,labels\nx,1\n", r"has no column 'label'\. Did you mean 'labels'\? Columns: ")
    refuse(tmp_path / "data.csv", "text, label\nx,1\n", "has no column 'label', but ' label', which differs in blanks")
    refuse(tmp_path / "data.csv", "TEXT,label\nx,1\n", "has no column 'text', but 'TEXT', which differs in case")
    (tmp_path / "one.csv").write_text("id,my_text\n1,x\n")
    with pytest.raises(DataError, match=r"has no column 'text'\. Did you mean 'my_text'\? Columns: id, my_text"):
        read_file(tmp_path / "one.csv", ("text",))
    refuse(tmp_path / "data.csv", "a film,1\nx,0\n", r"first line must name the columns; it is 'a film,1'")


def test_the_line_of_a_spreadsheet_that_declares_the_delimiter_counts(tmp_path: Path) -> None:
    assert read(tmp_path / "data.csv", "sep=;\r\n" + delimited(";"))[0] == TEXTS
    refuse(tmp_path / "data.csv", "sep=;\ntext;label\nx;1\ny\n", r"row 2 \(line 4\) has 1 field, but the header has 2")


def test_delimiters_at_the_end_of_a_line_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path / "data.csv", "text,label\nx,1,\ny,0,,\n") == (["x", "y"], ["1", "0"])
    refuse(tmp_path / "data.csv", "text,label\nx,1,\ny,0,z\n", r"row 2 \(line 3\) has 3 fields, but the header has 2")


@pytest.mark.parametrize("newline", ["\r", "\r\n", "\n"])
def test_lines_may_end_in_any_way_and_be_empty(tmp_path: Path, newline: str) -> None:
    content = "\n\ntext,label\nx,1\n\ny,0".replace("\n", newline)
    assert read(tmp_path / "data.csv", content) == (["x", "y"], ["1", "0"])


def test_quotes_may_have_no_meaning_or_be_others(tmp_path: Path) -> None:
    content = 'text\tlabel\n"open\t1\nsaid "so"\t0\n'
    message = r"line 2 is not valid CSV: .*; write \" twice inside a quoted field, or set quote to '' if quotes have no"
    refuse(tmp_path / "data.tsv", content, message)
    assert read(tmp_path / "data.tsv", content, Dialect(quote="")) == (['"open', 'said "so"'], ["1", "0"])
    assert read(tmp_path / "data.csv", "text,label\n'a, b',1\n", Dialect(quote="'")) == (["a, b"], ["1"])
    refuse(tmp_path / "b.csv", "'text';'label'\n'x';'1'\n", "set delimiter to ';'$")
    refuse(tmp_path / "b.csv", "'text';'label'\n'x';'1'\n", "has its fields in ': set quote to \"'\"", Dialect(";"))
    refuse(tmp_path / "data.csv", "text,label\na, b,1\n", "no field may hold commas where", Dialect(quote=""))


# ---- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "is not valid JSON: "),
        ("a.json", '[{"text": }]', "is not valid JSON: Expecting value"),
        ("a.json", "[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("a.json", lines() + "{bad", "line 4 is not valid JSON: "),
        ("a.json", "[1, 2]", "holds no table with 'text', 'label': expected a list of"),
        ("a.json", '"text"', "holds no table"),
        ("a.json", json.dumps({"train": RECORDS}), "holds no table"),
        ("a.json", '{"text": ["x"], "label": [1, 2]}', "its columns are of unequal length: {'text': 1, 'label': 2}"),
        ("a.json", '[{"text": "x", "labels": 1}]', r"has no column 'label'\. Did you mean 'labels'"),
        ("a.jsonl", json.dumps(RECORDS), r"line 1 is not a JSON object: .* one JSON document is named \.json"),
        ("a.jsonl", json.dumps(RECORDS, indent=1), r"line 1 is not valid JSON: .* one JSON document is named \.json"),
        ("a.jsonl", '{"text": "x", "label": 1, "label": 0}', "the name 'label' stands twice in one object"),
    ],
)
def test_json_that_holds_no_table_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    refuse(tmp_path / name, content, message)


def test_an_integer_may_have_any_number_of_digits(tmp_path: Path) -> None:
    content = '{"text": "x", "label": 1, "id": ' + "9" * 10_000 + "}"
    assert read(tmp_path / "a.jsonl", content) == (["x"], [1])


def test_a_list_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", "[]") == ([], [])


# ---- parquet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", "b", "a"], pa.large_string()), ["a", "b", "a"]),
        (pa.array([Decimal("0.0"), Decimal("1.0"), Decimal("0.0")]), [0, 1, 0]),
        (pa.array([0, 1, 0], pa.uint8()), [0, 1, 0]),
        (pa.array([[0], [1], None]), [[0], [1], None]),
    ],
)
def test_parquet_columns_of_any_type_become_plain_values(tmp_path: Path, labels: Any, values: list[Any]) -> None:
    texts = pa.array(TEXTS, pa.large_string()).dictionary_encode()
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    table = read_file(tmp_path / "a.parquet", COLUMNS)
    assert (table.columns["text"], table.columns["label"]) == (TEXTS, values)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    assert read_file(tmp_path / "a.parquet.gz", COLUMNS).columns == table.columns


def test_two_columns_of_one_name_are_refused_where_they_are_wanted(tmp_path: Path) -> None:
    arrays = [pa.array(["x"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(arrays, names=["text", "label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has 2 columns named 'label': rename all but one"):
        read_file(tmp_path / "a.parquet", COLUMNS)
    assert read_file(tmp_path / "a.parquet", ("text",)).columns == {"text": ["x"]}


def test_a_name_with_a_dot_is_a_column_like_any_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a.b": ["x"]}), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet", ("a.b",)).columns == {"a.b": ["x"]}
