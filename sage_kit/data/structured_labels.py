"""Labels that are more than a class or a number: sets of labels, tags of words, answers, read from a column's values.

Each reader returns what metrics get (`sage_kit.components.specs.LABEL_KINDS`), or raises DataError in one line that
names the first row that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import Answers
from sage_kit.data.classes import is_blank, read_label, shown
from sage_kit.data.entities import OUTSIDE
from sage_kit.data.row_checks import complain, parse_numbers
from sage_kit.data.sources import Table
from sage_kit.errors import did_you_mean

Values = Sequence[Any]


class _WrongError(Exception):
    """What is wrong with one row."""


def _read_rows(
    read: Callable[[int, Any], Any], values: Values, where: str, column: str, rows: Sequence[int], remedy: str
) -> list[Any]:
    """What `read` makes of each row's index and value; the rows that it finds wrong are told together."""
    found, problems = [], {}
    for row, value in enumerate(values):
        try:
            found.append(read(row, value))
        except _WrongError as wrong:
            problems[row] = str(wrong)
    if problems:
        _complain(where, column, values, rows, problems, remedy)
    return found


def _complain(
    where: str, column: str, values: Values, rows: Sequence[int], problems: Mapping[int, str], remedy: str
) -> NoReturn:
    complain(Table(where, {column: values}, rows=rows), column, problems, remedy)


def _is_nothing(value: Any) -> bool:
    return not isinstance(value, str | list | tuple | dict) and read_label(value).is_missing


def _is_number(value: Any) -> bool:
    """Whether it is an integer of Python or numpy, and no truth value."""
    return isinstance(value, Integral) and value is not True and value is not False


def _items(value: Any, what: str, separator: str | None = None) -> list[Any]:
    """The items of a list, or of a text that is parted at a separator; None parts it at blanks, "" nowhere."""
    if isinstance(value, str):
        parts = [value] if separator == "" else value.split(separator)
        return [part.strip() for part in parts if part.strip()]
    if hasattr(value, "tolist"):  # an array
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list(value)
    raise _WrongError(f"expected a list of {what}, got {value!r} ({type(value).__name__})"[:120])


def read_similarities(values: Values, where: str, column: str, *, rows: Sequence[int] = ()) -> NDArray[np.float32]:
    """How alike two texts are, in numbers of any range: array of shape (rows,)."""
    remedy = "the label of a pair says how alike its texts are, in a number: correct it, or set label_column to ''"
    return parse_numbers(Table(where, {column: values}, rows=rows), column, remedy).astype(np.float32)


class _Names:
    """Finds the name that an item means, a name or an index.

    `labels` are the names that count, or all where there are none; `embedded` those of the data, which indices count
    where they are given.
    """

    def __init__(self, what: str, labels: Sequence[str], embedded: Sequence[str]) -> None:
        self._what = what
        self._labels = tuple(labels)
        self._counted = tuple(embedded) or self._labels
        self._known = {name: name for name in self._labels}

    def find(self, item: Any, place: str = "") -> str:
        """The name; raises _WrongError, which calls the item by its place, as in "tag 'X' of word 3"."""
        if _is_number(item):
            if not 0 <= int(item) < len(self._counted):
                last = len(self._counted) - 1
                known = f"outside 0 to {last}" if self._counted else "a number, and nothing says what it stands for"
                raise _WrongError(f"{self._what} {int(item)}{place} is {known}")
            item = self._counted[int(item)]
        if not isinstance(item, str) or is_blank(item):
            nothing = "nothing" if item is None or isinstance(item, str) else repr(item)[:40]
            raise _WrongError(f"expected the name of a {self._what}{place}, got {nothing}")
        if self._labels and item not in self._known:
            raise _WrongError(
                f"{self._what} {shown(item)}{place} is unknown.{did_you_mean(item, self._labels, 'Known')}"[:-1]
            )
        return item


# ---- label sets -----------------------------------------------------------------------------------------------------


def read_label_sets(
    values: Values,
    labels: Sequence[str],
    where: str,
    column: str = "labels",
    *,
    names: Sequence[str] = (),
    separator: str = "",
    rows: Sequence[int] = (),
) -> NDArray[np.int8]:
    """Which labels each row has.

    Parameters
    ----------
    values : sequence
        For each row a list of names of labels or their indices, empty for none; a single name or index is a set of one.
    labels : sequence of str
        All labels.
    where : str
        File or split, to begin an error message with.
    column : str
    names : sequence of str
        Names that the data embed, which indices count; empty where they count `labels`.
    separator : str
        Between the labels of a row that is one text; "" where a text is one label.
    rows : sequence of int
        Where rows were left out: the number of each that is left, from 1.

    Returns
    -------
    array of shape (n, len(labels)), int8
        1 for each label that a row has.

    Raises
    ------
    DataError
        For the first row that is no such list, or holds an unknown label.
    """
    finder = _Names("label", labels, names)
    places = {name: place for place, name in enumerate(labels)}
    found = np.zeros((len(values), len(labels)), np.int8)

    def read(row: int, value: Any) -> None:
        for item in _set_items(value, separator):
            found[row, places[finder.find(item)]] = 1

    _read_rows(read, values, where, column, rows, "a row has a list of labels, empty for none; correct such rows")
    return found


def find_label_names(
    values: Values, where: str, column: str = "labels", *, separator: str = "", rows: Sequence[int] = ()
) -> tuple[str, ...]:
    """The different labels of all rows, sorted; raises as `read_label_sets` does, also for indices."""
    finder = _Names("label", (), ())
    seen: set[str] = set()

    def read(row: int, value: Any) -> None:
        seen.update(map(finder.find, _set_items(value, separator)))

    remedy = "a row has a list of names of labels, empty for none; correct such rows, or list the labels' names"
    _read_rows(read, values, where, column, rows, remedy)
    return tuple(sorted(seen))


def _set_items(value: Any, separator: str) -> list[Any]:
    if _is_nothing(value):
        raise _WrongError("there are no labels")
    return [value] if _is_number(value) else _items(value, "labels", separator)


def read_label_columns(columns: Mapping[str, Values], where: str, *, rows: Sequence[int] = ()) -> NDArray[np.int8]:
    """Which labels each row has, of data with a column of 0 and 1 for each label.

    Parameters
    ----------
    columns : mapping of str to sequence
        By label; true and false count as 1 and 0, as text too.
    where : str
        File or split, to begin an error message with.
    rows : sequence of int
        As for `read_label_sets`.

    Returns
    -------
    array of shape (n, len(columns)), int8

    Raises
    ------
    DataError
        For the first value that is neither.
    """

    def read(row: int, value: Any) -> int:
        label = read_label(value)
        if label.number not in (0, 1):
            raise _WrongError(f"expected 0 or 1, got {label}")
        return int(label.number)

    remedy = "a column of a label holds 1 where a row has it, else 0; correct such rows"
    found = [_read_rows(read, values, where, column, rows, remedy) for column, values in columns.items()]
    return np.array(found, np.int8).reshape(len(columns), -1).T.copy()


# ---- tags -----------------------------------------------------------------------------------------------------------


def read_words(
    values: Values, where: str, column: str = "tokens", *, rows: Sequence[int] = ()
) -> list[tuple[str, ...]]:
    """The words of each row.

    Parameters
    ----------
    values : sequence
        For each row a list of words, or a text, which is parted at blanks.
    where, column, rows
        As for `read_label_sets`.

    Raises
    ------
    DataError
        For the first row without words, or with one that is empty, no text or no valid Unicode.
    """

    def read(row: int, value: Any) -> tuple[str, ...]:
        if _is_nothing(value):
            raise _WrongError("there are no words")
        words = _items(value, "words")
        if not words:
            raise _WrongError("there are no words")
        for place, word in enumerate(words, start=1):
            if not isinstance(word, str) or not word:
                raise _WrongError(f"word {place} is {'empty' if word == '' else repr(word)[:40]}")
        try:
            "".join(words).encode()
        except UnicodeEncodeError:
            raise _WrongError("a word is not valid Unicode") from None
        return tuple(words)

    return _read_rows(
        read, values, where, column, rows, "a row has a list of words, none of them empty; correct such rows"
    )


def read_tags(
    values: Values,
    words: Sequence[Sequence[str]],
    labels: Sequence[str],
    where: str,
    column: str = "tags",
    *,
    names: Sequence[str] = (),
    rows: Sequence[int] = (),
) -> list[tuple[str, ...]]:
    """The tag of each word of each row.

    Parameters
    ----------
    values : sequence
        For each row a list of names of tags or their indices, or a text of names with blanks between them.
    words : sequence of sequence of str
        As `read_words` gives them.
    labels : sequence of str
        All tags; empty to take any.
    where, column, names, rows
        As for `read_label_sets`.

    Raises
    ------
    DataError
        For the first row whose tags are not one for each word, or with an unknown tag.
    """
    finder = _Names("tag", labels, names)

    def read(row: int, value: Any) -> tuple[str, ...]:
        if _is_nothing(value):
            raise _WrongError("there are no tags")
        tags, its_words = _items(value, "tags"), words[row]
        if len(tags) != len(its_words):
            counted = f"there {_number(len(tags), 'tag')} for {len(its_words)} word{'s' * (len(its_words) > 1)}"
            raise _WrongError(f"{counted}: {shown(' '.join(its_words))}")
        return tuple(map(find, tags, range(1, len(tags) + 1), its_words))

    known: dict[Any, str] = {}

    def find(tag: Any, place: int, word: str) -> str:
        name = known.get(tag) if isinstance(tag, str | int) and not isinstance(tag, bool) else None
        if name is None:
            name = finder.find(tag, f" of word {place} ({shown(word)})")
            known[tag] = name
        return name

    return _read_rows(read, values, where, column, rows, "each word has one tag; correct such rows")


def _number(count: int, what: str) -> str:
    return f"is 1 {what}" if count == 1 else f"are {count} {what}s"


def find_tags(tags: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The different tags of all rows, sorted, "O" first."""
    return tuple(sorted({tag for row in tags for tag in row}, key=lambda tag: (tag != OUTSIDE, tag)))


# ---- answers --------------------------------------------------------------------------------------------------------


def read_answers(
    values: Values, contexts: Sequence[str], where: str, column: str = "answers", *, rows: Sequence[int] = ()
) -> list[Answers]:
    """The answers of each row, and where they begin in its context.

    Parameters
    ----------
    values : sequence
        For each row ``{"text": [...], "answer_start": [...]}`` as Hugging Face datasets have it, a list of
        ``{"text": ..., "answer_start": ...}`` as SQuAD's files have it, a list of texts, or one text. No text, or "",
        stands for a question that the context does not answer. ``answer_start`` counts characters from 0; where it is
        left out or -1, the first place where the answer stands is taken, -1 if there is none.
    contexts : sequence of str
    where, column, rows
        As for `read_label_sets`.

    Raises
    ------
    DataError
        For the first row with something else, or with an answer that does not stand where its start says.
    """

    def read(row: int, value: Any) -> Answers:
        texts, starts = _answers(value)
        placed = [_place(text, start, contexts[row]) for text, start in zip(texts, starts, strict=True)]
        return Answers(tuple(texts), tuple(placed))

    remedy = (
        "an answer is a piece of its context and answer_start the character at which it begins, from 0; correct such "
        "rows, or leave answer_start out to take the first place where it stands"
    )
    return _read_rows(read, values, where, column, rows, remedy)


def _answers(value: Any) -> tuple[list[str], list[int]]:
    """Texts and starts of one row's answers, -1 where there is none."""
    if _is_nothing(value):
        raise _WrongError("there are no answers; a question without one has an empty list")
    if isinstance(value, Mapping):
        if "text" not in value:
            raise _WrongError(
                f"expected the answers under 'text', got {', '.join(map(repr, value)) or 'nothing'}"[:120]
            )
        texts = _some(value["text"])
        starts = _some(value.get("answer_start"))
        if starts and len(starts) != len(texts):
            raise _WrongError(f"there are {len(texts)} texts and {len(starts)} starts of answers")
    else:
        items = _some(value)
        parts = [item if isinstance(item, Mapping) else {"text": item} for item in items]
        texts, starts = [part.get("text") for part in parts], [part.get("answer_start") for part in parts]
    starts = [-1 if start is None else start for start in starts] or [-1] * len(texts)
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text:
            raise _WrongError(
                f"expected the text of an answer, got {'an empty one' if text == '' else repr(text)[:40]}"
            )
        if not _is_number(start) or start < -1:
            raise _WrongError(f"answer {shown(text)} begins at {start!r}, which is no character's number"[:120])
    return texts, [int(start) for start in starts]


def _some(value: Any) -> list[Any]:
    """A list as it is, a single value as a list of one, and nothing or "" as an empty one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None or value == "" else [value]


def _place(text: str, start: int, context: str) -> int:
    """Where an answer begins in its context."""
    if start < 0:
        return context.find(text)
    if context.startswith(text, start):
        return start
    place = context.find(text)
    where = f"but at {place}" if place >= 0 else "nor anywhere else"
    raise _WrongError(f"answer {shown(text)} does not stand at character {start} of its context, {where}")
