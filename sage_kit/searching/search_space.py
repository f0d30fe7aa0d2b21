"""What a search trials: settings by name, each with a range or a list of values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, field_extra, load_config, toml_loads
from sage_kit.errors import ConfigError, SageError, did_you_mean
from sage_kit.recipe import CHOSEN_KINDS, Recipe, choose, resolve

if TYPE_CHECKING:
    from optuna.trial import Trial

BUDGET = ("rounds", "max_steps")
"""Settings that say how long a run trains: where one is searched, trials are not of equal length."""

LARGEST = 1e300
"""Ends of a range beyond it are no number that a setting can have."""
LOG = "log"
MOST_LISTED = 500  # combinations of values that are listed
MOST_COMPANIONS = 200  # combinations of other values that a value is checked in, before it is refused

_SEEDS = ("seed", "transfer_seed", "split_seed", "teacher_seed", "reducer_seed")
_TEACHER = (
    "teacher", "other_teachers", "teacher_weights", "tokenizer", "teacher_labels", "teacher_epochs",
    "teacher_learning_rate",
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A range of numbers, both ends included; whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values that are checked before a search starts."""
        return (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value lies within it."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.is_whole or value == int(value))

    def suggest(self, trial: Trial, name: str) -> Any:
        """Draw a value for a trial, as the journal has it."""
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, float(self.low), float(self.high), log=self.log)

    def to_record(self) -> Any:
        """As a file of a search says it, which `read_dimension` reads back."""
        return f"{'log:' if self.log else ''}{self.low!r}:{self.high!r}"


@dataclass(frozen=True)
class Choices:
    """Values of which one is taken."""

    values: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values that are checked before a search starts."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return label_of(value) in self.labels

    @property
    def labels(self) -> list[str]:
        """The values as Optuna's journal has them: texts, since it holds no lists."""
        return [label_of(value) for value in self.values]

    def suggest(self, trial: Trial, name: str) -> Any:
        """Draw a value for a trial, as the journal has it."""
        return trial.suggest_categorical(name, self.labels)

    def to_record(self) -> Any:
        """As a file of a search says it, which `read_dimension` reads back."""
        return list(self.values)


Dimension = Span | Choices


def label_of(value: Any) -> str:
    """A value as text, the same for 1 and 1.0."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


# ---- reading --------------------------------------------------------------------------------------------------------


def read_space(texts: Sequence[str] = (), file: str = "") -> dict[str, Dimension]:
    """The space of a search, from a TOML file and then from texts ``NAME=VALUES``, which win.

    Values are a range ``LOW:HIGH`` or ``log:LOW:HIGH``, or a list with commas. In the file they are such a text, a
    list, or a table of "low", "high" and perhaps "log"; names of options are quoted, or stand in a table.

    Raises
    ------
    ConfigError
        For a name that no search can take, or values that are not as said.
    """
    space = _read_file(Path(file)) if file else {}
    given: dict[str, Dimension] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ConfigError(f"-s {text!r}: expected NAME=VALUES, as learning_rate=log:1e-5:5e-4 or mix=add,replace")
        if name in given:
            raise ConfigError(f"-s names {name} twice: give all its values once")
        given[name] = read_dimension(name, values)
    return {**space, **given}


def _read_file(path: Path) -> dict[str, Dimension]:
    try:
        content = toml_loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"search space {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"search space {path} is not valid TOML: {error}") from None
    return dict(_dimensions(content, ""))


def _dimensions(content: Mapping[str, Any], head: str) -> Iterator[tuple[str, Dimension]]:
    for key, value in content.items():
        name = f"{head}{key}"
        if isinstance(value, Mapping) and "low" not in value and "high" not in value:
            yield from _dimensions(value, f"{name}.")
        else:
            yield name, read_dimension(name, value)


def read_dimension(name: str, value: Any) -> Dimension:
    """The values of one setting, from what a file or a flag says; raises ConfigError as `read_space` does."""
    _check_name(name)
    found = _from_text(name, value) if isinstance(value, str) else _from_toml(name, value)
    if isinstance(found, Choices):
        double = next((one for one in found.labels if found.labels.count(one) > 1), None)
        if double is not None:
            raise ConfigError(f"search space, {name}: {double} is named twice")
        if len(found.values) < 2:
            raise ConfigError(
                f"search space, {name}: {label_of(found.values[0]) if found.values else 'it'} leaves no choice: list "
                "several values with commas, or a range LOW:HIGH"
            )
    return found


def _from_toml(name: str, value: Any) -> Dimension:
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in ("low", "high", LOG)]
        if unknown:
            known = did_you_mean(str(unknown[0]), ("low", "high", LOG))
            raise ConfigError(f"search space, {name}: unknown key {unknown[0]!r}.{known}")
        low, high, log = value.get("low"), value.get("high"), value.get(LOG, False)
        if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
            raise ConfigError(f"search space, {name}: low and high are {low!r} and {high!r}: give two numbers")
        if not isinstance(log, bool):
            raise ConfigError(f"search space, {name}: log is {log!r}: write true or false")
        return _span(name, low, high, log)
    return Choices(tuple(value)) if isinstance(value, list) else Choices((value,))


def _from_text(name: str, text: str) -> Dimension:
    log = text.startswith(f"{LOG}:")
    ends = text.removeprefix(f"{LOG}:").split(":")
    numbers = [_number(end) for end in ends]
    if len(ends) == 2 and None not in numbers:
        return _span(name, numbers[0], numbers[1], log)
    if log or (len(ends) > 1 and all(number is not None for number in numbers)):
        raise ConfigError(f"search space, {name}: {text!r} is no range: write LOW:HIGH or log:LOW:HIGH")
    try:
        return Choices(tuple(toml_loads(f"values = [{text}]")["values"]))
    except ValueError:
        return Choices(tuple(_word(part.strip()) for part in text.split(",") if part.strip()))


def _number(text: str) -> int | float | None:
    text = text.strip()
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:  # of a number of thousands of digits, too
        return None


def _word(text: str) -> Any:
    try:
        return toml_loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _span(name: str, low: Any, high: Any, log: bool) -> Span:
    kind = RunConfig.model_fields[name].annotation if name in RunConfig.model_fields else None
    if not all(-LARGEST <= end <= LARGEST for end in (low, high)) or not low < high:
        ends = f"{label_of(low)}:{label_of(high)}"
        raise ConfigError(f"search space, {name}: {ends} is no range: the first number must be the smaller one")
    if log and low <= 0:
        raise ConfigError(f"search space, {name}: {low} is not above 0, and a range by logarithm (log:) needs that")
    if kind is int and not (isinstance(low, int) and isinstance(high, int)):
        raise ConfigError(f"search space, {name}: {low}:{high} are not whole numbers, which {name} takes")
    if kind is float or not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Span(low, high, log)


def _check_name(name: str) -> None:
    """Refuse a name that is no setting, and settings whose values cannot be compared by a search."""
    setting, dot, option = name.partition(".")
    if setting not in RunConfig.model_fields:
        hint = did_you_mean(setting, RunConfig.model_fields, elsewhere="`sage-kit config` lists all settings.")
        raise ConfigError(f"search space: unknown setting {setting!r}.{hint}")
    if dot and not (option and isinstance(getattr(RunConfig(), setting), Mapping)):
        raise ConfigError(f"search space: {name!r}: setting {setting!r} is no table of options")
    why = ""
    if setting in _SEEDS:
        why = "a seed is chance and no choice: `--seeds` runs each trial under several"
    elif setting in _TEACHER:
        why = "trials under several teachers are not held against the same outputs"
    elif field_extra(setting)["group"] == "data":
        why = "trials on other data cannot be compared"
    elif field_extra(setting)["group"] in ("machine", "output"):
        why = "it is no part of the method"
    if why:
        raise ConfigError(f"search space: {setting} cannot be searched: {why}")


# ---- settings of a trial ---------------------------------------------------------------------------------------------


def with_values(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The settings with values of a space over them.

    Options that are set for a component belong to it, and leave where another one is chosen.

    Raises
    ------
    ConfigError
        For a bad value, or values that contradict each other.
    """
    settings = base.model_dump()
    for name, value in values.items():
        if "." not in name:
            if f"{name}_options" in settings and label_of(settings[name]) != label_of(value):
                settings[f"{name}_options"] = {}
            settings[name] = value
    for name, value in values.items():
        setting, _, path = name.partition(".")
        if path:
            settings[setting] = _nested(settings[setting], path.split("."), value)
    return load_config(settings)


def _nested(table: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of a table with one value set."""
    copy: dict[str, Any] = dict(table) if isinstance(table, Mapping) else {}
    copy[path[0]] = value if len(path) == 1 else _nested(copy.get(path[0]), path[1:], value)
    return copy


def takes(base: RunConfig, plugins: Plugins, name: str, values: Mapping[str, Any]) -> bool:
    """Whether a name is drawn beside values of other names: an option, where the chosen component has it."""
    setting, _, path = name.partition(".")
    kind = setting.removesuffix("_options")
    if not path or kind not in CHOSEN_KINDS:
        return True
    component = values.get(kind, getattr(base, kind))
    return path.partition(".")[0] in plugins.spec(kind, component).options.model_fields


def in_order(space: Mapping[str, Dimension]) -> list[str]:
    """The names of a space, options behind the components that they belong to."""
    return sorted(space, key=lambda name: "." in name)


def value_of(dimension: Dimension, drawn: Any) -> Any:
    """The value of a setting, from what stands in the journal."""
    return dimension.values[dimension.labels.index(drawn)] if isinstance(dimension, Choices) else drawn


def default_values(base: RunConfig, space: Mapping[str, Dimension], plugins: Plugins) -> dict[str, Any]:
    """What the settings say of the names of a space, as the journal has it; without what the space does not hold."""
    found = {}
    for name in in_order(space):
        setting, _, path = name.partition(".")
        kind, value = setting.removesuffix("_options"), getattr(base, setting)
        if path and kind in CHOSEN_KINDS:
            value = choose(kind, base, plugins).options.model_dump(mode="json")
        for key in path.split(".") if path else ():
            value = value.get(key) if isinstance(value, Mapping) else None
        if space[name].holds(value):
            found[name] = label_of(value) if isinstance(space[name], Choices) else value
    return found


def small_space(base: RunConfig, space: Mapping[str, Dimension], plugins: Plugins) -> list[dict[str, Any]] | None:
    """All values of a space of few choices, as the journal has them; None of one with more than `MOST_LISTED`."""
    if not all(isinstance(one, Choices) for one in space.values()):
        return None
    if math.prod(len(one.probes) for one in space.values()) > MOST_LISTED:
        return None
    found: list[dict[str, Any]] = []
    names = in_order(space)
    for values in product(*(space[name].probes for name in names)):
        every = dict(zip(names, values, strict=True))
        drawn = {name: label_of(value) for name, value in every.items() if takes(base, plugins, name, every)}
        if drawn not in found:
            found.append(drawn)
    return found


def check_space(base: RunConfig, space: Mapping[str, Dimension], plugins: Plugins) -> None:
    """Check every listed value, and both ends of every range, as a run would; by itself or, where it cannot stand so,
    beside values of other names.

    Raises
    ------
    SageError
        Of the kind that `resolve` raises, with the name and the value in front.
    """
    resolve(base, plugins)
    for name in in_order(space):
        _check_option(base, space, plugins, name)
        for value in space[name].probes:
            first: SageError | None = None
            for others in islice(_companions(space, name), MOST_COMPANIONS):
                values = {**others, name: value}
                if not takes(base, plugins, name, values):
                    continue
                try:
                    checked(base, {key: v for key, v in values.items() if takes(base, plugins, key, values)}, plugins)
                except SageError as error:
                    first = first or error
                else:
                    break
            else:
                if first is not None:
                    raise type(first)(f"search space, {name} = {label_of(value)}: {first}")


def checked(base: RunConfig, values: Mapping[str, Any], plugins: Plugins) -> Recipe:
    """The recipe of the settings with these values; raises as `load_config` and `resolve` do."""
    return resolve(with_values(base, values), plugins)


def _companions(space: Mapping[str, Dimension], name: str) -> Iterator[dict[str, Any]]:
    """Values of other names to check a value beside: none, then of each other name alone, then of all."""
    yield {}
    others = [other for other in space if other != name]
    for other in others:
        for value in space[other].probes:
            yield {other: value}
    for values in product(*(space[other].probes for other in others)):
        yield dict(zip(others, values, strict=True))


def _check_option(base: RunConfig, space: Mapping[str, Dimension], plugins: Plugins, name: str) -> None:
    """Refuse an option that none of the components has which may be chosen."""
    setting, _, path = name.partition(".")
    kind = setting.removesuffix("_options")
    if not path or kind not in CHOSEN_KINDS:
        return
    dimension = space.get(kind)
    components = list(dimension.probes) if dimension is not None else [getattr(base, kind)]
    known = {option for one in components for option in plugins.spec(kind, one).options.model_fields}
    option = path.partition(".")[0]
    if option not in known:
        which = " or ".join(repr(one) for one in components)
        raise ConfigError(
            f"search space: {name!r}: {kind.replace('_', ' ')} {which} has no option {option!r}."
            f"{did_you_mean(option, known)}"
        )
