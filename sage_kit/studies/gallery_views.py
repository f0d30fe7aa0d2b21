"""What the gallery's template shows of results, figures and cells, as plain values."""

from __future__ import annotations

import base64
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sage_kit.studies import verdicts
from sage_kit.studies.cell_key import NEUTRAL
from sage_kit.studies.claims import Claim
from sage_kit.studies.ledger import Evidence, rank_of
from sage_kit.studies.ledger_text import interval_text, number_text
from sage_kit.studies.result import RESULT, Finding, StudyResult
from sage_kit.studies.runner import parameters_text

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""Kinds of figure, as Pillow calls them."""

WEBP = {"lossless": True, "quality": 75, "method": 5}
"""How figures are written: every pixel as it was. Measured of 14 figures, a third of PNG's bytes, in 0.05 s each."""

BAR_WIDTH = 144.0  # width of the drawing of an interval [units of its view box]


@dataclass(frozen=True)
class Card:
    """A study and its results.

    Attributes
    ----------
    anchor, study : str
        Its place in the page, and the name of its notebook.
    view : mapping
        The result that stands for it, as `result_view` has it.
    others : list of mapping
        Its further results.
    claims : list of Claim
        What of the ledger it tests.
    """

    anchor: str
    study: str
    view: Mapping[str, Any]
    others: list[Mapping[str, Any]]
    claims: list[Claim]


def by_study(results: Iterable[StudyResult]) -> list[list[StudyResult]]:
    """The results of each study, the one that counts before others first: as claims take them (`ledger.RULE`), and
    smoke runs last. Studies without any result but smoke runs come last.
    """
    groups: dict[str, list[StudyResult]] = {}
    for result in sorted(results, key=lambda result: result.time, reverse=True):
        groups.setdefault(result.study, []).append(result)
    ordered = [sorted(groups[study], key=rank_of) for study in sorted(groups)]
    return sorted(ordered, key=lambda group: group[0].profile == "smoke")


def card_of(
    group: Sequence[StudyResult],
    anchors: Mapping[int, str],
    claims: Sequence[Claim],
    cells: Sequence[Mapping[str, Any]],
    base: Path,
) -> Card:
    """The card of a study from its results, which `by_study` has put in order."""
    views = [result_view(result, cells, base) for result in group]
    own = [claim for claim in claims if claim.study == group[0].study]
    return Card(anchors[id(group[0])], group[0].study, views[0], list(views[1:]), own)


def result_view(result: StudyResult, cells: Iterable[Mapping[str, Any]], base: Path) -> dict[str, Any]:
    """What a card shows of a result; `base` is the folder of the page, which links start from."""
    folder = result.folder
    assert folder is not None, "the result was not loaded from a folder"
    notebooks = [
        *folder.glob("[!.]*.ipynb"),
        *(path for cell in cells if _made(cell, result) for path in _notebooks(cell)),
    ]
    links = [_link(folder, base, "result folder"), _link(folder / RESULT, base, RESULT)]
    main = result.findings[0] if result.findings else None
    lead, further = _figures(result, folder)
    seeds = f"{result.seeds} {'seed' if result.seeds == 1 else 'seeds'}"
    parts = (result.study, f"profile {result.profile}", f"tasks {', '.join(result.tasks)}", seeds, result.time)
    return {
        "result": result,
        "is_smoke": result.profile == "smoke",
        "about": " · ".join(parts),
        "state": result.verdict[0],
        "sentence": result.verdict[1] if main is None else main.sentence,
        "detectable": "" if main is None else detectable_sentence(main),
        "findings": [_finding_view(finding) for finding in result.findings],
        "counts": counted_states(finding.state for finding in result.findings),
        "lead": lead,
        "figures": further,
        "details": [
            ("Settings that differ from the defaults", _texts(result.settings)),
            ("Parameters", _texts(result.parameters)),
            ("Data", _texts(result.data)),
            ("Machine", _texts({**result.machine, "seconds": result.seconds})),
            ("Versions", _texts(result.packages)),
        ],
        "links": links + [_link(path, base, path.name) for path in dict.fromkeys(sorted(notebooks))],
    }


def detectable_sentence(finding: Finding) -> str:
    """What the design of a finding could have found: the smallest difference, in a sentence."""
    if not verdicts.can_decide(finding.seeds):
        seeds = f"{finding.seeds} {'seed' if finding.seeds == 1 else 'seeds'}"
        return f"Nothing can be decided: {seeds}, and a decision needs {verdicts.LEAST_SEEDS}."
    if not math.isfinite(finding.detectable):
        return ""
    if finding.counts is not None:
        size = f"a share {100 * finding.detectable:.0f} % from the threshold"
    else:
        size = verdicts.detectable_text(finding.detectable, finding.unit)
        of_unit = "" if finding.unit == verdicts.PERCENT_CHANGE else f" {finding.unit}"
        size = f"a difference of {size}{of_unit}".rstrip()
    return f"Detectable with 80 % chance at the correction over {finding.family} findings: {size}."


def counted_states(states: Iterable[str]) -> str:
    """How many of each state: ``2 yes, 1 undecided``."""
    counts = Counter(states)
    return ", ".join(f"{counts[name]} {name}" for name in verdicts.STATES if counts[name])


def short_numbers(evidence: Evidence | None) -> str:
    """The number of a claim on a line: that of its first finding, with its interval."""
    if evidence is None:
        return ""
    finding = evidence.finding
    if finding.counts is not None:
        return f"{finding.counts[0]} of {finding.counts[1]} {finding.unit or 'runs'}"
    return f"{interval_text(finding)} {verdicts.unit_text(finding.unit)}".rstrip()


def cell_view(cell: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """What the page shows of a cell that is not done."""
    seconds = cell.get("seconds")
    return {
        "study": cell["study"],
        "state": cell["state"],
        "parameters": parameters_text(cell.get("parameters") or {}) or "no parameters",
        "seconds": "" if seconds is None else f"{number_text(seconds)} s",
        "error": cell.get("error") or "",
        "last_line": cell.get("last_line") or "",
        "links": [
            _link(Path(cell["directory"]), base, "folder"),
            *(_link(path, base, path.name) for path in _notebooks(cell)),
        ],
    }


# ---- findings -------------------------------------------------------------------------------------------------------


def _finding_view(finding: Finding) -> dict[str, Any]:
    threshold = verdicts.number_text(finding.threshold, finding.unit)
    return {
        "finding": finding,
        "interval": interval_text(finding),
        "against": f"{'>' if finding.direction == 'above' else '<'} {threshold}",
        "bar": interval_bar(finding.value, finding.low, finding.high, finding.threshold),
        "unit": verdicts.unit_text(finding.unit),
    }


def interval_bar(value: float, low: float, high: float, threshold: float) -> dict[str, float] | None:
    """Places of an interval, its value and the threshold from 0 to `BAR_WIDTH`; None when one is not a number."""
    numbers = {"value": value, "low": low, "high": high, "threshold": threshold}
    if not all(math.isfinite(number) for number in numbers.values()):
        return None
    start, end = min(numbers.values()), max(numbers.values())
    margin = 6.0  # so that the dot is whole
    scale = (BAR_WIDTH - 2 * margin) / (end - start) if end > start else 0.0
    centre = margin if scale else BAR_WIDTH / 2
    return {name: round(centre + (number - start) * scale, 1) for name, number in numbers.items()}


# ---- figures --------------------------------------------------------------------------------------------------------


def _figures(result: StudyResult, folder: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The figure that shows the main finding, that of its table or else the first, and the others."""
    if not result.figures:
        return None, []
    tables = [finding.table for finding in result.findings[:1]]
    lead = next((item for item in result.figures if Path(item[0]).stem in tables), result.figures[0])
    views = [figure_view(folder, *item, result.title) for item in [lead, *(o for o in result.figures if o != lead)]]
    return views[0], views[1:]


def figure_view(folder: Path, file: str, caption: str, title: str) -> dict[str, Any]:
    """A figure as the page holds it: its data, the smaller of WebP without loss and the file as it is, or its fault."""
    from PIL import Image

    view = {"caption": caption, "alt": caption or f"Figure {file} of {title}", "source": "", "fault": ""}
    path = folder / file
    kind = IMAGES.get(path.suffix.lower())
    if kind is None or path.name != file:
        return view | {"fault": f"The figure {file} is not shown: it is no PNG or JPEG file of this folder."}
    try:
        data = path.read_bytes()
    except OSError as error:
        return view | {"fault": f"The figure {file} cannot be read ({type(error).__name__}): run the study again."}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file that would fill the memory
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                width, height = image.size
                small = webp(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return view | {"fault": f"The figure {file} is not shown: it has too many pixels."}
    except (OSError, SyntaxError, ValueError):  # Pillow's ways to say that a file is broken
        return view | {"fault": f"The figure {file} is not whole: run the study again."}
    name, chosen = ("webp", small) if len(small) < len(data) else (kind.lower(), data)
    source = f"data:image/{name};base64,{base64.b64encode(chosen).decode()}"
    return view | {"source": source, "width": width, "height": height}


def webp(image: Image) -> bytes:
    """A picture as WebP, every pixel as it was."""
    opaque = "A" not in image.getbands() or image.getchannel("A").getextrema()[0] == 255
    stream = io.BytesIO()
    image.convert("RGB" if opaque else "RGBA").save(stream, "WEBP", **WEBP)
    return stream.getvalue()


# ---- texts and links ------------------------------------------------------------------------------------------------


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as a person reads them; those that were left out are not shown."""
    texts = {}
    for name, value in values.items():
        if isinstance(value, float):
            texts[name] = number_text(value)
        elif isinstance(value, list | tuple):
            texts[name] = ", ".join(map(str, value))
        elif value is not None:
            texts[name] = str(value)
    return {name: text for name, text in texts.items() if text}


def _made(cell: Mapping[str, Any], result: StudyResult) -> bool:
    """Whether a cell is where a result was made: it is done, and they differ in no parameter that both record."""
    parameters = cell.get("parameters") or {}
    shared = (parameters.keys() & result.parameters.keys()) - NEUTRAL
    return (
        cell["state"] == "done"
        and cell["study"] == result.study
        and all(parameters[name] == result.parameters[name] for name in shared)
    )


def _notebooks(cell: Mapping[str, Any]) -> list[Path]:
    return sorted(Path(cell["directory"]).glob("[!.]*.ipynb"))


def _link(path: Path, base: Path, text: str) -> dict[str, str]:
    return {"href": quote(relative(path, base)), "text": text}


def relative(path: Path, base: Path) -> str:
    """`path` as seen from the page's folder; as it is where no relative path leads there (another drive)."""
    try:
        relative = os.path.relpath(path, base)
    except ValueError:
        return path.as_posix()
    return Path(relative).as_posix()
