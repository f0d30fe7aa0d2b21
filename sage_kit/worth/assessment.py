"""Whether distilling is worth it on a file: a teacher, students of several sizes, and what else would do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, field_extra, load_config
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.scoring import able_measures, load_scored
from sage_kit.data.splits import Split
from sage_kit.data.teacher_report import describe_labels
from sage_kit.errors import ConfigError, DataError
from sage_kit.inference.evaluation import contributions, row_interval
from sage_kit.recipe import resolve
from sage_kit.storage.files import disk_errors, only_finite, write_json
from sage_kit.storage.reading import json_loads
from sage_kit.studies.contents import file_content
from sage_kit.studies.effort import counted
from sage_kit.studies.statistics import Interval, of_scores
from sage_kit.worth.advice import RULE, Lead, SizeNumbers, Verdict, advise
from sage_kit.worth.contenders import Contender, Workshop

SETTINGS_FILE, NUMBERS_FILE = "settings.json", "worth.json"

MARGIN = 0.02
"""The loss of score that does not matter, unless another is named: two points."""

BATCH, WARM_UP = 32, 3  # texts in a batch that is timed; rounds before the clock is read

SET_ASIDE = ("task", "train_file", "run_dir", "runs_dir")
"""Settings that the file and the folder stand for, whatever a file of settings says."""
Cells = Mapping[str, tuple[float, NDArray[np.float64] | None]]
"""By model its score, and what each row contributes to it, (1, n); None for a metric that does not say."""

Times = tuple[list[float], list[float]]
"""Seconds for single texts, and for batches by the text."""

SCORED_SHARE = 0.25
"""Share of the file that models are scored on, unless a validation file is named."""


@dataclass(frozen=True)
class Standing:
    """How one contender did.

    Attributes
    ----------
    name, role : str
    blocks : int
        0 for word counts.
    score, low, high : float
        On the rows that no model has seen, with the 95 % interval over rows.
    over_teacher, over_low, over_high : float
        Its score less the teacher's, with the interval over rows; NaN for the teacher.
    parameters : int
    megabytes : float
        On disk.
    single_ms, batch_ms : float
        Per text, one by one and in batches of 32: medians [ms].
    single_speed, batch_speed : float
        How many times as fast as the teacher: medians over pairs.
    seconds : float
        It took to make, the teacher not included [s].
    """

    name: str
    role: str
    blocks: int
    score: float
    low: float
    high: float
    over_teacher: float
    over_low: float
    over_high: float
    parameters: int
    megabytes: float
    single_ms: float
    batch_ms: float
    single_speed: float
    batch_speed: float
    seconds: float


@dataclass(frozen=True)
class Assessment:
    """What came out.

    Attributes
    ----------
    verdict : str
        "yes", "no", "not needed" or "cannot tell".
    text : str
        Why, in sentences.
    standings : tuple of Standing
        The teacher first.
    metric : str
    rows : int
        That all were scored on.
    trained_on : int
        Rows that teacher, students and the others learned from.
    margin : float
    folder : Path
    """

    verdict: Verdict
    text: str
    standings: tuple[Standing, ...]
    metric: str
    rows: int
    trained_on: int
    margin: float
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN becomes None."""
        own = asdict(self)
        own["folder"] = str(self.folder)
        return dict(only_finite({**own, "rule": RULE}))


def usual_sizes(blocks: int) -> tuple[int, ...]:
    """The sizes that are tried: a sixth, a third and half of the teacher's blocks."""
    return tuple(sorted({max(1, blocks // part) for part in (6, 3, 2)}))


def assess(
    file: Path,
    folder: Path,
    settings: Mapping[str, Any],
    plugins: Plugins,
    *,
    sizes: Sequence[int] = (),
    margin: float = MARGIN,
    pairs: int = 50,
    announce: Callable[[str], None] = print,
) -> Assessment:
    """Fine-tune a teacher on a labelled file, distil it to several sizes, and say whether that is worth it.

    A part of the rows is set apart for scores alone: no model learns from it, and nothing is chosen by it. Each model
    is made once, with seed 0 unless `settings` say otherwise, and none is tuned. What lies in `folder` from an earlier
    call with the same settings is not made again.

    Parameters
    ----------
    file : Path
        As for the setting `train_file`.
    folder : Path
        Where models, numbers and the figure go.
    settings : mapping
        Of the runs, such as `teacher`, `text_column` and `validation_file`.
    plugins : Plugins
    sizes : sequence of int
        Blocks of the students; empty takes `usual_sizes`.
    margin : float
        The largest loss of score to the teacher that does not matter, as a share.
    pairs : int
        Texts that each model is timed on one by one, in turn with the others; 0 for no times.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    Assessment

    Raises
    ------
    ConfigError
        For sizes that the teacher does not have, a margin that is none, or a folder of an assessment by other settings.
    SageError
        As a run does for what is wrong with the file, the settings, or the teacher.
    """
    started = time.perf_counter()
    if not 0 < margin < 1:
        raise ConfigError(f"margin is {100 * margin:g} points: give one between 0 and 100, such as 2")
    if pairs < 0:
        raise ConfigError(f"{pairs} timed texts: give 0 for none, or more")
    config = _config(file, settings)
    recipe = resolve(config, plugins)
    data = load_scored(plugins, config, announce)
    announce(describe_labels(data))
    (name, split), *_ = data.validation.items()
    recipe.check_labels(len(data.train), data.train.unlabelled)
    workshop = Workshop(config, data, plugins, folder)
    teacher_blocks = workshop.teacher_blocks()
    chosen = _checked(sizes or usual_sizes(teacher_blocks), teacher_blocks)
    _take(folder, config)
    contenders = [workshop.teacher_contender()]
    for blocks in chosen:
        announce(f"student of {counted(blocks, 'block')}")
        contenders.append(workshop.student(blocks))
    for blocks in chosen:
        small = workshop.small_model(blocks)
        if small is None:
            announce("no model is trained on the labels alone: the teacher has a trained head, or the task no labels")
            break
        contenders.append(small)
    words = workshop.word_counts()
    contenders += [words] if words is not None else []

    cells = _cells(contenders, workshop.encode(split), split.name)
    times = _timed(contenders, split, pairs)
    standings = tuple(_standing(one, contenders[0], cells, times) for one in contenders)
    sizes_told = [_numbers(one, standings[0], standings, cells) for one in standings if one.role == "student"]
    metric = data.spec.metrics[0]
    verdict, text = advise(sizes_told, margin=margin, metric=metric, rows=len(split))
    found = Assessment(verdict, text, standings, metric, len(split), len(data.teacher), margin, folder)
    write_json(folder / NUMBERS_FILE, {**found.to_json(), "seconds": time.perf_counter() - started, "scored_on": name})
    return found


def _config(file: Path, settings: Mapping[str, Any]) -> RunConfig:
    defaults = RunConfig.model_fields
    for name in ("student", "student_layers"):
        if settings.get(name, defaults[name].default) != defaults[name].default:
            raise ConfigError(f"{name} is {settings[name]!r}, but an assessment makes its own students: give --sizes")
    settings = {name: value for name, value in settings.items() if name not in SET_ASIDE}
    usual: dict[str, Any] = {"evaluate_validation": "end"}
    if not settings.get("validation_file"):
        usual["validation_fraction"] = SCORED_SHARE
    return load_config({**usual, **settings, "task": "file", "train_file": str(file)})


def _checked(sizes: Sequence[int], blocks: int) -> list[int]:
    wrong = next((size for size in sizes if not 1 <= size <= blocks), None)
    if wrong is not None:
        raise ConfigError(f"a student of {wrong} blocks: the teacher has {blocks}, so give sizes from 1 to {blocks}")
    return sorted(set(sizes))


def _take(folder: Path, config: RunConfig) -> None:
    """Note what an assessment is of in its folder, or check that it is what lies there."""
    shaping = {
        name: value
        for name, value in config.model_dump(mode="json").items()
        if field_extra(name)["group"] not in ("machine", "output")
    }
    files = [name for name in ("train_file", "validation_file", "evaluation_file", "transfer_file") if shaping[name]]
    asked = {"settings": shaping, "files": {name: file_content(Path(shaping[name])) for name in files}}
    path = folder / SETTINGS_FILE
    if path.is_file():
        try:
            there = json_loads(path.read_bytes())
            other = next((name for name in shaping if shaping[name] != there["settings"].get(name)), "")
            changed = next((name for name in files if there["files"].get(name) != asked["files"][name]), "")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{path} is not readable ({error}): name another folder with --out") from None
        if other or changed:
            what = f"setting {other} {there['settings'].get(other)!r}" if other else f"another content of {changed}"
            raise ConfigError(f"{folder} holds an assessment with {what}: name another folder with --out")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else: name another folder with --out")
    with disk_errors(str(folder)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be made ({error.strerror}): name another folder with --out") from None
        write_json(path, asked)


def _cells(contenders: Sequence[Contender], encoded: EncodedSplit, split: str) -> Cells:
    measures = able_measures(encoded)
    if not measures:
        raise DataError(f"{split} has nothing to be scored by: name the column of its labels with label_column")
    found: dict[str, tuple[float, NDArray[np.float64] | None]] = {}
    for one in contenders:
        predicted = one.predicted(encoded)
        score = float(measures[0].score(encoded.gold, predicted))
        found[one.name] = score, contributions(measures[0], encoded, predicted)
    return found


def _lead(one: str, other: str, cells: Cells) -> Interval:
    """By how much one is ahead of another, over the same rows."""
    (ours, own), (theirs, base) = cells[one], cells[other]
    if own is None or base is None:
        return Interval(ours - theirs, math.nan, math.nan)
    return of_scores(own - base, largest=max(1.0, float(np.ptp(base))))


def _timed(contenders: Sequence[Contender], split: Split, pairs: int) -> dict[str, Times]:
    """By name the seconds for single texts and for batches: each round times all on the same texts, one after the
    other, beginning with another one each time, so that whatever else the machine does falls on all alike.
    """
    found: dict[str, Times] = {one.name: ([], []) for one in contenders}
    rounds = [(1, pairs), (BATCH, math.ceil(pairs / 5))]
    for which, (texts, number) in enumerate(rounds):
        for turn in range(-WARM_UP if number else 0, number):
            rows = [(turn * texts + place) % len(split) for place in range(texts)]
            some = [split.texts[row] for row in rows]
            others = None if split.pairs is None else [split.pairs[row] for row in rows]
            first = turn % len(contenders)
            for one in (*contenders[first:], *contenders[:first]):
                begun = time.perf_counter()
                one.ask(some, others)
                if turn >= 0:
                    found[one.name][which].append((time.perf_counter() - begun) / texts)
    return found


def _standing(
    one: Contender, teacher: Contender, cells: Cells,
    times: Mapping[str, Times],
) -> Standing:  # fmt: skip
    score, parts = cells[one.name]
    own = row_interval(parts, score)
    lead = Interval(math.nan, math.nan, math.nan) if one is teacher else _lead(one.name, teacher.name, cells)
    (single, batch), (base_single, base_batch) = times[one.name], times[teacher.name]
    return Standing(
        one.name, one.role, one.blocks, score, own.low, own.high, lead.value, lead.low, lead.high,
        one.parameters, one.megabytes, 1000 * _median(single), 1000 * _median(batch),
        _median([base / ours for base, ours in zip(base_single, single, strict=True)]),
        _median([base / ours for base, ours in zip(base_batch, batch, strict=True)]), one.seconds,
    )  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _numbers(
    one: Standing, teacher: Standing, all_of_them: Sequence[Standing],
    cells: Cells,
) -> SizeNumbers:  # fmt: skip
    rivals = [other for other in all_of_them if other.role == "labels alone" and other.blocks == one.blocks]
    rivals += [other for other in all_of_them if other.role == "word counts"]
    leads = [Lead(other.role, _lead(one.name, other.name, cells)) for other in (teacher, *rivals)]
    name = f"the student of {counted(one.blocks, 'block')}"
    return SizeNumbers(name, one.blocks, one.score, leads, one.single_speed, one.megabytes / teacher.megabytes)
