"""Entities: the spans of words that tags such as B-PER and I-PER mark, and their F1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sage_kit.errors import DataError, shortened

OUTSIDE = "O"

_PARTS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
"""Begin, inside, end and single; BILOU calls the latter two last and unit."""


class Entity(NamedTuple):
    """An entity: its type, and its words as a half-open range."""

    type: str
    start: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that the tags of one text mark.

    The rules are those of the script conlleval of the shared tasks of CoNLL (Tjong Kim Sang and Buchholz 2000), which
    reads IOB1, IOB2 (also called BIO), IOE and IOBES alike: an entity begins at B and S, at I and E after a word
    outside, after E and S, and where the type changes; it ends before each of these and before a word outside. So an I
    that follows nothing begins an entity. BILOU is read as IOBES.

    Parameters
    ----------
    tags : sequence of str
        ``O``, or a part and a type such as ``B-PER``; a part alone is of type "".

    Raises
    ------
    DataError
        For a tag that is neither, as tags of parts of speech are.
    """
    return list(_entities(tags))


def _entities(tags: Sequence[str]) -> Iterator[Entity]:
    start, kind, part_before = -1, "", OUTSIDE
    for place, tag in enumerate(tags):
        part, its_kind = _read(tag)
        is_first = part in "BS" or part_before in "OES" or its_kind != kind
        if start >= 0 and (part == OUTSIDE or is_first):
            yield Entity(kind, start, place)
            start = -1
        if part != OUTSIDE and is_first:
            start = place
        part_before, kind = part, its_kind
    if start >= 0:
        yield Entity(kind, start, len(tags))


def _read(tag: str) -> tuple[str, str]:
    if tag == OUTSIDE:
        return OUTSIDE, ""
    part, dash, kind = tag.partition("-")
    if part not in _PARTS or (dash and not kind):
        raise DataError(
            f"tag {shortened(tag, 40)!r} marks no entity: such tags are O, and B-, I-, E- or S- before a type; "
            "for others take metric 'tag_accuracy'"
        )
    return _PARTS[part], kind


def entity_counts(labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> list[tuple[int, int, int]]:
    """For each text the entities that are right, those that the labels mark, and those that are predicted.

    A predicted entity is right where the labels mark one of the same type and words.

    Raises
    ------
    DataError
        As `entities` does, and for a text whose predictions are not one per word.
    """
    check_lengths(labels, predictions)
    counts = []
    for gold, predicted in zip(labels, predictions, strict=True):
        ours, theirs = set(_entities(gold)), set(_entities(predicted))
        counts.append((len(ours & theirs), len(ours), len(theirs)))
    return counts


def check_lengths(labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> None:
    """Raise DataError where predicted tags are not one for each tag of the labels."""
    if len(labels) != len(predictions):
        raise DataError(f"there are {len(labels):,} rows of tags, and {len(predictions):,} of predicted ones")
    for row, (gold, predicted) in enumerate(zip(labels, predictions, strict=True), start=1):
        if len(gold) != len(predicted):
            raise DataError(f"row {row} has {len(gold)} tags, and {len(predicted)} predicted ones: each word needs one")
