"""What `sage-kit run --check-only` says: where settings and components come from, and steps, time and disk of the run.

Whatever can be checked without a model is checked, and nothing is started or written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sage_kit.config import (
    CACHE_DIR_VARIABLE,
    DATA_DIR_VARIABLE,
    GROUPS,
    RunConfig,
    field_extra,
    toml_loads,
)
from sage_kit.config.loss_weights import LossWeight
from sage_kit.errors import ModelError, RunDirectoryError, SageError, causes_of
from sage_kit.recipe import LossChoice, Recipe

if TYPE_CHECKING:
    from sage_kit.components.plugins import Plugins
    from sage_kit.data.splits import TaskData

FROM_ENVIRONMENT = {"cache_dir": CACHE_DIR_VARIABLE, "data_dir": DATA_DIR_VARIABLE}
"""Settings whose default a variable of the environment gives."""

TOKENIZER_BYTES = 1_000_000  # of a student's folder beside its weights, about
OFFLINE = "HF_HUB_OFFLINE"


@dataclass(frozen=True)
class Size:
    """Bytes that a run is expected to leave.

    Attributes
    ----------
    run, cache : int
        In its directory, and in the caches where nothing is found there.
    """

    run: int
    cache: int


def origins(config: RunConfig, settings: Mapping[str, Any], preset: str, file: str) -> dict[str, str]:
    """By setting, where its value comes from.

    Parameters
    ----------
    config : RunConfig
        As `load_config` made it from the others.
    settings : mapping
        Those of the command line.
    preset, file : str
        As `load_config` takes them.

    Returns
    -------
    dict
        "flag --name", "file NAME", "preset NAME", "environment VARIABLE" or "default".
    """
    in_file = toml_loads(Path(file).read_text(encoding="utf-8")) if file else {}
    name = preset or in_file.get("preset") or "default"
    found = {}
    for setting in RunConfig.model_fields:
        if setting in settings:
            found[setting] = f"flag --{setting.replace('_', '-')}"
        elif setting in in_file:
            found[setting] = f"file {file}"
        elif setting in config.model_fields_set:
            found[setting] = f"preset {name}"
        elif setting in FROM_ENVIRONMENT and os.environ.get(FROM_ENVIRONMENT[setting]):
            found[setting] = f"environment {FROM_ENVIRONMENT[setting]}"
        else:
            found[setting] = "default"
    return found


def setting_rows(config: RunConfig, origin_of: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Group, name, value and origin of every setting, in the order of the groups."""
    for group in GROUPS:
        for name in RunConfig.model_fields:
            if field_extra(name)["group"] == group:
                value = config.model_dump(mode="json", include={name})[name]
                yield group, name, value if isinstance(value, str) else json.dumps(value), origin_of[name]


def component_rows(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """Kind, name, origin and options of every component that the run uses."""
    plugins, config = recipe.plugins, recipe.config
    chosen = {**recipe.choices, **{f"loss.{name}": choice for name, choice in recipe.losses.items()}}
    for choice in chosen.values():
        options = choice.options.model_dump(mode="json")
        weight = {"weight": _weight_text(choice.weight)} if isinstance(choice, LossChoice) else {}
        told = ", ".join(f"{name}={value}" for name, value in {**weight, **options}.items())
        yield choice.kind.replace("_", " "), choice.name, str(choice.registered.origin), told
    for name in config.observers:
        yield "observer", name, str(plugins.registered("observer", name).origin), ""
    yield "task", config.task, str(plugins.registered("task", config.task).origin), ""


def _weight_text(weight: LossWeight) -> str:
    ends = dict.fromkeys((weight.start, weight.end))
    return " to ".join(f"{end:g}" for end in ends)


def check_places(config: RunConfig) -> None:
    """Check that the run's directory could be made, without making it; RunDirectoryError as a run raises it."""
    path = Path(config.run_dir or config.runs_dir).expanduser()
    if config.run_dir and (path / "config.toml").exists():
        raise RunDirectoryError(
            f"run directory {path} holds a run already: choose another, or go on with `sage-kit resume {path}`"
        )
    if config.run_dir and path.is_dir() and any(path.iterdir()):
        raise RunDirectoryError(f"run directory {path} is not empty: choose another")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "no folder" if not there.is_dir() else "not writable"
        raise RunDirectoryError(
            f"run directory {path} cannot be written ({there} is {why}): choose another with run_dir or runs_dir"
        )


def check_rest(recipe: Recipe, data: TaskData | None) -> list[str]:
    """Check device, precision, optimizer, schedule, models and data against each other, as a run does before it trains.

    Returns lines about what is not on this machine yet and so cannot be checked.

    Raises
    ------
    SageError
        Of the kind that a run would raise.
    """
    from sage_kit.models.families import family_of
    from sage_kit.models.locations import resolve, resolve_checkpoint
    from sage_kit.models.student import layer_map
    from sage_kit.studies.effort import checkpoint_sizes
    from sage_kit.system.devices import precision_of
    from sage_kit.training.optimizer import check_optimizer
    from sage_kit.training.rate_schedules import check_schedule

    config, lines = recipe.config, []
    precision_of(config)
    check_optimizer(config.optimizer, config.optimizer_options)
    check_schedule(config)
    for name in filter(None, (config.teacher, *config.other_teachers, config.student)):
        if "@" not in name:  # a revision would be fetched
            resolve(name)
        folder = resolve_checkpoint(name)
        if folder is None:
            if _is_set(OFFLINE):
                raise ModelError(
                    f"checkpoint {name!r} is not on this machine, and {OFFLINE} is set: unset it, or name one that is "
                    "here"
                )
            lines.append(
                f"{name} is not on this machine: it is fetched from the hub, and its sizes are taken for BERT-base's"
            )
        elif (folder / "config.json").is_file():
            told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            family_of(SimpleNamespace(**{"model_type": "", **told}), name)
    dim, _, layers = checkpoint_sizes(config.teacher)
    if resolve_checkpoint(config.teacher) is not None and not config.student:
        front = 0 if config.bypass == "embeddings" else int(config.bypass)
        layer_map(config.student_init, layers - front, config.student_layers)
    if data is not None:
        recipe.check_labels(len(data.train), data.train.unlabelled)
        recipe.check_sizes(len(data.train), dim)
    return lines


def load_data(recipe: Recipe) -> tuple[TaskData | None, str]:
    """The data of the run, or None and why it is not here: what would be fetched is not.

    Raises
    ------
    SageError
        For data that a run could not use either.
    """
    from sage_kit.data.scoring import load_scored

    was_offline = _is_set(OFFLINE)
    with _kept_offline():
        try:
            return load_scored(recipe.plugins, recipe.config, lambda text: None), ""
        except SageError as error:
            if was_offline or not any(isinstance(cause, ConnectionError) for cause in causes_of(error)):
                raise
    return None, f"the data of task {recipe.config.task!r} is not on this machine: it is fetched from the hub"


def _is_set(variable: str) -> bool:
    """Whether a variable of the hub's library says yes."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


@contextlib.contextmanager
def _kept_offline() -> Iterator[None]:
    before = os.environ.get(OFFLINE)
    os.environ[OFFLINE] = "1"  # read when the hub's library is imported, which a command has not done yet
    try:
        yield
    finally:
        if before is None:
            del os.environ[OFFLINE]


def steps_of(recipe: Recipe, data: TaskData) -> tuple[int, bool]:
    """Student steps that the rounds take if nothing ends the run earlier, and whether that is exact.

    Batches are cut by examples and by tokens; tokens are estimated by words, which matters where they are the limit.
    """
    import numpy as np

    from sage_kit.studies.effort import SPECIAL_TOKENS, TOKENS_PER_WORD
    from sage_kit.training.labelled_batches import planned_steps

    config, train = recipe.config, data.train
    pairs = train.pairs or [""] * len(train)
    words = [len(f"{text} {pair}".split()) for text, pair in zip(train.texts, pairs, strict=True)]
    lengths = np.minimum(config.max_length, np.ceil(SPECIAL_TOKENS + TOKENS_PER_WORD * np.array(words))).astype(int)
    split: Any = SimpleNamespace(store=SimpleNamespace(lengths=lengths))
    is_exact = bool(config.max_steps) or config.batch_size * config.max_length <= config.batch_tokens
    return config.max_steps or planned_steps(recipe, split), is_exact


def disk_of(recipe: Recipe, data: TaskData) -> Size:
    """Bytes of checkpoints, student and synthetic examples in the run's directory, and of vectors and a fine-tuned
    teacher in the caches.
    """
    from sage_kit.studies.effort import SPECIAL_TOKENS, TOKENS_PER_WORD, checkpoint_sizes, parameters_of

    config = recipe.config
    dim, inner, layers = checkpoint_sizes(config.student or config.teacher)
    embeddings, block = parameters_of(config.student or config.teacher)
    blocks = layers if config.student else config.student_layers
    if config.student_width:
        share = config.student_width / dim
        block = int(block * share * (config.student_ffn / inner if config.student_ffn else share))
    trained = blocks * block + dim * dim
    kept = config.keep_checkpoints or config.rounds
    checkpoints = 12 * trained * kept  # weights and the two moments of AdamW, in single precision
    student = 4 * (trained + embeddings) + TOKENIZER_BYTES
    texts = [len(text.split()) for text in data.train.texts[:500]]
    tokens = min(config.max_length, SPECIAL_TOKENS + TOKENS_PER_WORD * sum(texts) / max(len(texts), 1))
    rounds = 0 if config.schedule == "none" else max(0, config.rounds + 1 - recipe.first_synthetic)
    synthetic = int(rounds * config.synthetic_ratio * len(data.train) * (4 * dim + 8 * tokens))
    rows = sum(len(split) for split in data.splits.values())
    states = 0 if config.bypass == "embeddings" else 2 * dim * tokens
    own, teacher_block = parameters_of(config.teacher)
    teacher = 4 * (own + layers * teacher_block)
    cache = int(rows * (4 * dim + 8 * tokens + states)) + teacher * (1 + len(config.other_teachers))
    return Size(checkpoints + student + synthetic, cache)


def preview_lines(recipe: Recipe, plugins: Plugins) -> list[str]:
    """Data, steps, time and disk in words, everything checked on the way."""
    from sage_kit.studies.effort import Effort, Planned

    config = recipe.config
    check_places(config)
    data, absent = load_data(recipe)
    lines = check_rest(recipe, data)
    if data is None:
        return [*lines, f"{absent}; steps, time and disk are not known before."]
    splits = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    lines.append(f"Data: {splits} rows.")
    steps, is_exact = steps_of(recipe, data)
    rounds = "" if config.max_steps else f" in {config.rounds} rounds"
    ends = "" if config.max_steps else f"; stop rule {config.stop_rule!r} may end the run earlier"
    lines.append(f"Steps: {'' if is_exact else 'about '}{steps:,}{rounds}{ends}.")
    effort = Effort(Path(config.runs_dir).expanduser(), lambda _: data)
    told = effort.estimate(Planned(config, steps, found=False))
    lines.append(
        f"Time: about {duration(told.seconds)}, and between {duration(told.low)} and {duration(told.high)} by what is "
        f"known of such estimates ({told.source})"
        + (f"; at most {duration(told.teacher)} more to fine-tune the teacher" if told.teacher else "")
        + ("." if told.is_measured else "; loading, vectors and the map come on top.")
    )
    size = disk_of(recipe, data)
    place = Path(config.run_dir or config.runs_dir).expanduser().absolute()
    free = shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free
    lines.append(
        f"Disk: about {size.run / 1e6:,.0f} MB in {config.run_dir or config.runs_dir}, and "
        f"{size.cache / 1e6:,.0f} MB in the caches where nothing is found there; {free / 1e9:,.1f} GB are free."
    )
    if size.run + size.cache > free:
        lines.append("The disk is too small for this run: free some space, or lower keep_checkpoints.")
    return lines


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"
