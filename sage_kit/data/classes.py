"""Classes: what a label means, whatever its spelling and type, and which classes a column of labels holds."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]*)?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?")
"""What counts as a number in text, as a full match without blanks around it."""

MISSING_WORDS = frozenset(
    {"nan", "-nan", "null", "(null)", "none", "nil", "na", "n/a", "n.a.", "#n/a", "#n/an/a", "#na", "<na>", "nat"}
    | {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "?", "-", "missing", "undefined", "unlabeled", "unlabelled"}
    | {"nolabel"}
)
"""Words for "no label", as `loose_form` has them: those that pandas reads so, and others that data sets use."""

MISSING_CODES = (-1, -100, -9, -99, -999, -9999)
"""Numbers for "no label": the hub's, the loss's of torch, and those of surveys."""

SURVEY_CODES = ((99, 9), (999, 99), (9999, 999))
"""Numbers for "no label" in surveys, each with the largest class beside which it is taken for one."""

BLANK_CHARACTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that show nothing, though Unicode counts them among letters and symbols."""


def is_blank(text: str) -> bool:
    """Whether nothing of a text shows: white space, zero-width and control characters only."""
    return all(map(_shows_nothing, text))


def _shows_nothing(character: str) -> bool:
    return (
        character.isspace()
        or character in BLANK_CHARACTERS
        or unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp")
    )


def loose_form(text: str) -> str:
    """A text without what is easily overlooked: blanks, case, zero-width characters and its Unicode form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in folded if not _shows_nothing(c) and not 0xFE00 <= ord(c) <= 0xFE0F)


# ---- one label -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """A label as it stands in the data, and what it means.

    Attributes
    ----------
    text : str
        As it is written.
    number : int, float or None
        The number that it is, an int where it is whole; 1 and 0 for true and false.
    is_boolean : bool
        True and false, and the texts of that name.
    is_missing : bool
        Nothing, NaN, a text of which nothing shows, or a word of `MISSING_WORDS`.
    is_word : bool
        A text; with `is_missing`, one that could be the name of a class all the same.
    type_name : str
        Python type of a value that is neither text, number, boolean nor missing; else "".
    """

    text: str
    number: int | float | None = None
    is_boolean: bool = False
    is_missing: bool = False
    is_word: bool = False
    type_name: str = ""

    @property
    def is_name(self) -> bool:
        """Whether it can only be the name of a class."""
        return self.is_word and self.number is None and not self.is_missing

    def __str__(self) -> str:
        if self.type_name:
            return f"{self.text} ({self.type_name})"
        if self.number is not None or self.text in ("", "nan"):
            return self.text or "nothing"
        return shown(self.text)


def shown(text: str) -> str:
    """A text in quotes, with escapes for what cannot be seen."""
    composed = unicodedata.normalize("NFC", text)
    quoted = repr(text) if composed == text else ascii(text)
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}..."


def read_label(value: Any) -> Label:
    """What one value of a label column means."""
    if isinstance(value, str):
        return _read_text(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # the latter two are pandas'
        return Label("", is_missing=True)
    if isinstance(value, bool):
        return Label(str(value).lower(), int(value), is_boolean=True)
    if isinstance(value, numbers.Integral):
        return Label(str(int(value)), int(value)) if abs(int(value)) < 10**300 else _other(value)
    if isinstance(value, Decimal | numbers.Real):
        as_float = math.nan if isinstance(value, Decimal) and value.is_nan() else float(value)
        if math.isnan(as_float):
            return Label("nan", is_missing=True)
        if math.isfinite(as_float):
            whole = int(value) if isinstance(value, Decimal) else int(as_float)
            return Label(str(value), whole if value == whole else as_float)
    return _other(value)


def _other(value: Any) -> Label:
    text = repr(value)
    return Label(text if len(text) <= 40 else f"{text[:37]}...", type_name=type(value).__name__)


def _read_text(text: str) -> Label:
    stripped = text.strip().replace("\u2212", "-")  # the minus sign of typography
    if NUMBER.fullmatch(stripped):
        exact = Decimal(stripped)
        return Label(text, int(exact) if exact == exact.to_integral_value() else float(exact), is_word=True)
    if any("\ud800" <= character <= "\udfff" for character in text):  # JSON can spell half of a surrogate pair
        return Label(ascii(text), type_name="str that is not valid Unicode")
    loose = loose_form(text)
    if loose in ("true", "false"):
        return Label(text, int(loose == "true"), is_boolean=True, is_word=True)
    if not loose:
        return Label(text, is_missing=True)
    return Label(text, is_missing=loose in MISSING_WORDS, is_word=True)


def read_labels(values: Iterable[Any], class_names: Sequence[str] = ()) -> list[Label]:
    """What each value of a column means.

    Parameters
    ----------
    values : iterable
    class_names : sequence of str
        Names that the file embeds: an integer is an index into them.
    """
    known: dict[Any, Label] = {}
    labels = []
    for value in values:
        try:
            label = known.get((type(value), value))
        except TypeError:  # a list or the like
            labels.append(read_label(value))
            continue
        if label is None:
            label = read_label(value)
            if class_names and isinstance(value, int) and 0 <= value < len(class_names):
                label = Label(class_names[value], is_word=True)
            if not label.is_missing:  # no NaN is found again
                known[type(value), value] = label
        labels.append(label)
    return labels


def missing_codes(found: Collection[int | float], *, with_names: bool = False) -> set[int | float]:
    """Those of a column's numbers that mean "no label" beside the others.

    -1 is a class beside 1 alone, and on a scale that has other negative numbers; 99, 999 and 9999 mean "no label" only
    beside far smaller numbers.

    Parameters
    ----------
    found : collection of int or float
    with_names : bool
        Whether names of classes stand in the column as well.
    """
    codes = {number for number in found if number in MISSING_CODES}
    rest = set(found) - codes
    if codes == {-1} and ((rest == {1} and not with_names) or any(number < 0 for number in rest)):
        return set()
    survey = {code for code, _ in SURVEY_CODES}
    largest = max(rest - survey, default=math.inf)
    return codes | {code for code, limit in SURVEY_CODES if code in rest and largest <= limit}


# ---- the classes of a task -----------------------------------------------------------------------------------------


class ClassFinder:
    """Finds the class that a label means among named classes.

    A text is the class of that name. A number is the class whose name is that number; where no class has a number for
    a name, it counts the classes from 0, and true and false count as 1 and 0.

    Parameters
    ----------
    names : sequence of str
        Names of the classes in the order of their indices.
    integers_count : bool
        An integer that is no text always counts, whatever the names.
    """

    def __init__(self, names: Sequence[str], *, integers_count: bool = False) -> None:
        self.names = tuple(names)
        self._integers_count = integers_count
        self._by_text = {name: index for index, name in enumerate(names)}
        read = [read_label(name) for name in names]
        self._booleans = {label.number: index for index, label in enumerate(read) if label.is_boolean}
        all_boolean = len(self._booleans) == len(self.names)
        self._numbers: dict[Any, int] = {}
        for index, label in enumerate(read):
            if label.number is not None and (all_boolean or not label.is_boolean):
                self._numbers.setdefault(label.number, index)

    @property
    def are_numbers(self) -> bool:
        """Whether some class has a number for a name."""
        return bool(self._numbers)

    def names_it(self, label: Label) -> bool:
        """Whether a class has exactly that label for a name, or the number that it is."""
        return label.text in self._by_text or (label.number is not None and label.number in self._numbers)

    def index(self, label: Label) -> int | None:
        """Index of the class; None for a label that is none. A number may lie outside the classes."""
        if self._integers_count and isinstance(label.number, int) and not label.is_word:
            return label.number
        if label.text in self._by_text and not label.type_name:
            return self._by_text[label.text]
        if label.is_boolean and label.number in self._booleans:
            return self._booleans[label.number]
        if not self._numbers:
            return label.number if isinstance(label.number, int) else None
        return None if label.number is None else self._numbers.get(label.number)


@dataclass(frozen=True)
class FoundClasses:
    """The classes that a column of labels holds.

    Attributes
    ----------
    names : tuple of str
        Sorted: numbers by value and before names.
    of : mapping of Label to str
        The name of each label's class.
    """

    names: tuple[str, ...]
    of: Mapping[Label, str]

    def spellings(self) -> dict[str, list[str]]:
        """By class, its spellings, where it has more than one."""
        texts: dict[str, dict[str, None]] = {}
        for label, name in self.of.items():
            texts.setdefault(name, {})[label.text] = None
        return {name: list(found) for name, found in texts.items() if len(found) > 1}

    def lookalikes(self) -> list[list[str]]:
        """Groups of classes whose names differ only in blanks, case or Unicode form."""
        groups: dict[str, list[str]] = {}
        for name in self.names:
            groups.setdefault(loose_form(name), []).append(name)
        return [group for group in groups.values() if len(group) > 1]


def find_classes(labels: Iterable[Label]) -> FoundClasses:
    """The classes of labels none of which is missing or of another type.

    A number is one class however it is spelled. So are true and false, which keep their spelling where they have a
    single one; beside other numbers they are 1 and 0, and beside names their texts are names like any other.
    """
    distinct = list(dict.fromkeys(labels))
    has_names = any(label.is_name for label in distinct)
    has_numbers = any(label.number is not None and not label.is_boolean for label in distinct)
    of: dict[Label, str] = {}
    keys: dict[str, tuple[int, float, str]] = {}
    for label in distinct:
        if label.number is None or (label.is_boolean and has_names):
            of[label] = label.text
            keys[label.text] = (1, 0, label.text)
            continue
        name = str(label.number)
        if label.is_boolean and not has_numbers:
            texts = {other.text for other in distinct if other.number == label.number}
            name = texts.pop() if len(texts) == 1 else ("false", "true")[int(label.number)]
        of[label] = name
        keys[name] = (0, label.number, "")
    return FoundClasses(tuple(sorted(keys, key=keys.__getitem__)), of)


def difference(one: str, other: str) -> str:
    """What tells two texts of the same loose form apart: "blanks", "case" or "Unicode form", or several of these."""
    bare = ["".join(c for c in text if not _shows_nothing(c)) for text in (one, other)]
    blanks = [[c for c in text if _shows_nothing(c)] for text in (one, other)]
    composed = [unicodedata.normalize("NFKC", text) for text in bare]
    kinds = ["blanks"] if blanks[0] != blanks[1] else []
    if composed[0] != composed[1]:
        kinds.append("case")
    if bare[0] != bare[1] and (composed[0] == composed[1] or bare[0].casefold() != bare[1].casefold()):
        kinds.append("Unicode form")
    return " and ".join(kinds)
