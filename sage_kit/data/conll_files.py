"""Files of tagged words in columns, as in the shared tasks of CoNLL: a word a line, an empty line after a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from sage_kit.data.streams import file_type, open_text
from sage_kit.errors import DataError, shortened

UNIVERSAL = ".conllu"
"""Universal Dependencies: always ten fields with tabs between them (universaldependencies.org/format.html)."""

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Of a file of Universal Dependencies, in order."""

WORDS, TAGS = "tokens", "tags"
"""Names of the columns: the first field, or "form"; the last, or "upos". Each field has a name of its own as well."""

DOCUMENT = "-DOCSTART-"
"""Begins the line that parts documents, which is no word."""

Line = tuple[int, str]


def read_conll(path: Path, delimiter: str = "") -> tuple[dict[str, int], list[list[Sequence[str]]]]:
    """Read a file of tagged words.

    Lines that begin with ``#`` before a sentence's first word are comments, unless they have fields and a tag like the
    lines of words, for a word may begin so, too.

    Parameters
    ----------
    path : Path
    delimiter : str
        Between fields; "" takes the tab where the first word's line has one, else blanks.

    Returns
    -------
    places : dict of str to int
        Which field each column is: `WORDS` and `TAGS`, and each field by its name in `FIELDS` or as ``column_1``, ...
    sentences : list
        For each sentence its words, each a sequence of fields.

    Raises
    ------
    DataError
        For a line with more or fewer fields than the first, without a word or without a tag.
    """
    with open_text(path) as stream:
        lines = [(number, line.rstrip("\n")) for number, line in enumerate(stream, start=1)]
    is_universal = file_type(path) == UNIVERSAL
    words = [(number, line) for number, line in lines if _may_be_word(line)]
    if not words:
        return {WORDS: 0, TAGS: 1}, []
    first_number, first = words[0]
    delimiter = delimiter or ("\t" if is_universal or "\t" in first else "")
    split = _splitter(delimiter)
    size = len(split(first))
    places = _places(size, is_universal)
    if size < 2 or (is_universal and size != len(FIELDS)):
        wanted = f"{len(FIELDS)} fields with tabs between them" if is_universal else "a word and its tag"
        raise DataError(
            f"{path}, line {first_number} is {shortened(first, 80)!r}, and not {wanted}"
            + ("" if is_universal else ": part them by a tab or a blank, or set delimiter")
        )
    is_comment = _comment_test(words, split, size, is_universal, delimiter)

    sentences: list[list[Sequence[str]]] = [[]]
    for number, line in lines:
        if not line.strip() or line.startswith(DOCUMENT):
            if sentences[-1]:
                sentences.append([])
        elif line.startswith("#") and not sentences[-1] and is_comment(line):
            continue
        else:
            fields = split(line)
            if is_universal and re.fullmatch(r"\d+[-.]\d+", fields[0]):
                continue  # a contraction that is parted into the words after it, or a word that is left out
            _check(path, number, line, fields, places, f"{size} as line {first_number}")
            sentences[-1].append(fields)
    return places, [sentence for sentence in sentences if sentence]


def _may_be_word(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", DOCUMENT))


def _splitter(delimiter: str) -> Callable[[str], list[str]]:
    if delimiter.strip(" "):
        return lambda line: [field.strip(" ") for field in line.split(delimiter)]
    return lambda line: re.split(" +", line.strip(" "))


def _places(size: int, is_universal: bool) -> dict[str, int]:
    if is_universal:
        names = {name: place for place, name in enumerate(FIELDS)}
        return {WORDS: names["form"], TAGS: names["upos"], **names}
    return {WORDS: 0, TAGS: size - 1, **{f"column_{place + 1}": place for place in range(size)}}


def _comment_test(
    words: Sequence[Line], split: Callable[[str], list[str]], size: int, is_universal: bool, delimiter: str
) -> Callable[[str], bool]:
    """Whether a line that begins with # before a sentence is a comment."""
    if is_universal:
        return lambda line: True
    if delimiter:
        return lambda line: len(split(line)) != size
    tags = {split(line)[-1] for _, line in words}  # a comment may have as many words as a line has fields
    return lambda line: len(split(line)) != size or split(line)[-1] not in tags


def _check(path: Path, number: int, line: str, fields: Sequence[str], places: dict[str, int], expected: str) -> None:
    size = len(set(places.values()))
    if len(fields) != size:
        raise DataError(
            f"{path}, line {number} has {len(fields)} field{'s' if len(fields) != 1 else ''}, not {expected}: "
            f"{shortened(line, 80)!r}; each line holds a word and its tags, and an empty line ends a sentence"
        )
    for name, what in ((WORDS, "word"), (TAGS, "tag")):
        if not fields[places[name]]:
            raise DataError(
                f"{path}, line {number} has no {what}: {shortened(line, 80)!r}; write one, or O for no entity"
            )
