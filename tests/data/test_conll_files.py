from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from sage_kit.data.formats import Dialect
from sage_kit.data.sources import Table, read_file
from sage_kit.errors import DataError

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""

CONLLU = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tleft\tout\tVERB\t_\t_\t_\t_\t_\t_
3\tal mar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def read(path: Path, content: str | bytes, columns: tuple[str, ...] = ("tokens", "tags"), **settings: Any) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_file(path, columns, columns[-1], Dialect(**settings))


def refuse(path: Path, content: str | bytes, message: str, **settings: Any) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(path, content, **settings)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.conll", "a.iob", "a.bio", "A.CONLL"])
def test_words_and_the_last_field(tmp_path: Path, name: str) -> None:
    table = read(tmp_path / name, CONLL_2003)
    assert table.columns["tokens"] == [["EU", "rejects", "German"], ["Peter", "Blackburn"]]
    assert table.columns["tags"] == [["B-ORG", "O", "B-MISC"], ["B-PER", "I-PER"]]
    assert table.others == ("column_1", "column_2", "column_3", "column_4")


def test_any_field_by_its_number(tmp_path: Path) -> None:
    table = read(tmp_path / "a.conll", CONLL_2003, ("tokens", "column_2"))
    assert table.columns["column_2"] == [["NNP", "VBZ", "JJ"], ["NNP", "NNP"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\tO\nb\tO\n\n\n \t \nc\tO", [["a", "b"], ["c"]]),  # tabs, several empty lines, no end of the last line
        ("a  O\r\nb O \r\n\r\nc O\r\n", [["a", "b"], ["c"]]),  # blanks in a row and at the end, ends as on Windows
        ("two words\tO\n\u00a0\tO\n", [["two words", "\u00a0"]]),
        ("\u2028\tO\na\u0085b\tO\n", [["\u2028", "a\u0085b"]]),  # what splitlines would take for an end of the line
        ("\ufeffa O\n", [["a"]]),
    ],
)
def test_spellings(tmp_path: Path, content: str, words: list[list[str]]) -> None:
    assert read(tmp_path / "a.conll", content).columns["tokens"] == words


def test_a_compressed_file(tmp_path: Path) -> None:
    table = read(tmp_path / "a.conll.gz", gzip.compress(CONLL_2003.encode()))
    assert len(table) == 2


def test_comments_and_words_that_begin_like_them(tmp_path: Path) -> None:
    # a comment as of MultiCoNER, of as many words as a line has fields; hashtags as of WNUT-17
    content = "# id 5239d808\tdomain=en\nx _ _ O\n#x _ _ B-A\n\n# id 7 X\n#tag _ _ O\ny _ _ O\n"
    table = read(tmp_path / "a.conll", content)
    assert table.columns["tokens"] == [["x", "#x"], ["#tag", "y"]]
    table = read(tmp_path / "b.conll", "# a comment\n#\tO\nx\tO\n\n#hash\tB-new\n")
    assert table.columns["tokens"] == [["#", "x"], ["#hash"]]


def test_universal_dependencies(tmp_path: Path) -> None:
    table = read(tmp_path / "a.conllu", CONLLU)
    assert table.columns["tokens"] == [["vamos", "nos", "al mar"], ["#"]]
    assert table.columns["tags"] == [["VERB", "PRON", "NOUN"], ["SYM"]]
    assert read(tmp_path / "a.conllu", CONLLU, ("form", "deprel")).columns["deprel"] == [
        ["root", "obj", "obl"],
        ["root"],
    ]


def test_a_delimiter_that_is_set(tmp_path: Path) -> None:
    assert read(tmp_path / "a.conll", "a,O\nb,O\n", delimiter=",").columns["tags"] == [["O", "O"]]


def test_a_file_without_words_has_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.conll", "\n-DOCSTART- O\n\n")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n", r"line 2 has 1 field, not 2 as line 1: 'b'; each line holds a word and its tags"),
        ("\na O\n\nb x O\n", r"line 4 has 3 fields, not 2 as line 2: 'b x O'"),
        ("a\tO\nb\t\n", r"line 2 has no tag: 'b\\t'"),
        ("a\tO\n\tO\n", r"line 2 has no word: '\\tO'"),
        ("alone\n", r"line 1 is 'alone', and not a word and its tag: part them by a tab or a blank, or set delimiter"),
        (b"a O\nb\xff O\n", r"line 2 is not UTF-8 text: save the file as UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    refuse(tmp_path / "a.conll", content, message)


def test_a_universal_file_has_ten_fields(tmp_path: Path) -> None:
    refuse(tmp_path / "a.conllu", "1\ta\tNOUN\n", "line 1 is .* and not 10 fields with tabs between them")


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("a O\n")
    with pytest.raises(DataError, match=r"has no column 'token'\. Did you mean 'tokens'\? Columns: column_1, "):
        read_file(path, ("token", "tags"))
