"""What a search is: its settings, its space and how trials are judged; kept in its folder, and the same ever after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

from sage_kit.config import (
    LARGEST_SEED,
    PLACES,
    RunConfig,
    field_extra,
    load_config,
    with_absolute_paths,
)
from sage_kit.errors import ConfigError, SageError, StudyError, did_you_mean, one_line
from sage_kit.recipe import resolve
from sage_kit.searching.search_space import BUDGET, Dimension, label_of, read_dimension, with_values
from sage_kit.storage.files import write_text
from sage_kit.storage.privacy import private, revealed
from sage_kit.storage.reading import LONGEST_CAUSE, Fields, checked, read_toml

if TYPE_CHECKING:
    from sage_kit.studies.run_store import RunStore

RECORD = "search.toml"
AGREEMENT, DIVERGENCE, METRIC = "agreement", "divergence", "metric"
MEASURES = (DIVERGENCE, AGREEMENT, METRIC)
LEAST_CHECK_SEEDS = 2
FINALISTS, FINAL_SEEDS, CHECK_SEEDS = 3, 3, 5  # unless said otherwise
TRIALS = 20  # unless said otherwise

ELSEWHERE = "search in another folder"

_HEAD = """\
# Written by `sage-kit search`: what its trials have in common. The same command, or `sage-kit search` with this folder
# alone, goes on with it.
"""


class _SearchFields(Fields):
    model_config = ConfigDict(extra="forbid", strict=True)

    measure: str
    seeds: int
    prune: bool
    search_seed: int
    trials: int
    plugin_files: list[str]


class PlanFields(Fields):
    """The record of a search."""

    search: _SearchFields
    space: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """What follows the trials: the best few and the default again under new seeds, then the winner against the default.

    Attributes
    ----------
    finalists : int
        Trials that run again beside the default; 0 takes the best trial as it is.
    final_seeds : int
        New seeds that these run under.
    check_seeds : int
        Further seeds that the winner is held against the default under; 0 for none.
    """

    finalists: int = FINALISTS
    final_seeds: int = FINAL_SEEDS
    check_seeds: int = CHECK_SEEDS

    def final_numbers(self, plan: SearchPlan) -> range:
        """Numbers of the seeds of the finals, as `SearchPlan.run_config` counts them."""
        return range(plan.seeds, plan.seeds + (self.final_seeds if self.finalists else 0))

    def check_numbers(self, plan: SearchPlan) -> range:
        """Numbers of the seeds of the check, which neither a trial nor the finals had."""
        start = self.final_numbers(plan).stop
        return range(start, start + self.check_seeds)

    def flags(self) -> list[str]:
        """The same as options of the command."""
        named = {
            "--finalists": self.finalists,
            "--final-seeds": self.final_seeds,
            "--check-seeds": self.check_seeds,
        }
        return [word for name, value in named.items() for word in (name, str(value))]

    def check(self, plan: SearchPlan) -> None:
        """Refuse more seeds than there are, or too few for an interval.

        Raises
        ------
        ConfigError
        """
        if 0 < self.check_seeds < LEAST_CHECK_SEEDS:
            raise ConfigError(
                f"check-seeds is {self.check_seeds}: an interval needs {LEAST_CHECK_SEEDS} at least; 0 checks none"
            )
        last = max(plan.base.seed, plan.base.transfer_seed) + self.check_numbers(plan).stop
        if last > LARGEST_SEED:
            raise ConfigError(
                f"seeds, final-seeds and check-seeds are too many: the last seed, {last:,}, must not be above "
                f"{LARGEST_SEED:,}"
            )


@dataclass(frozen=True)
class SearchPlan:
    """What all processes of a search, at any time, have in common.

    Attributes
    ----------
    base : RunConfig
        The settings that are not searched and, of those that are, the default that the best is held against.
    space : mapping of str to Dimension
    measure : str
        One of `MEASURES`: what of a run on dev is searched for.
    seeds : int
        Runs of a trial, under seeds from that of `base` on.
    prune : bool
        Whether a trial that is behind others is ended before its last round.
    search_seed : int
        Seed of the search itself.
    trials : int
        Trials, unless a process asks for others.
    plugin_files : list of str
        One-file plugins of the runs.
    """

    base: RunConfig
    space: Mapping[str, Dimension]
    measure: str = DIVERGENCE
    seeds: int = 1
    prune: bool = True
    search_seed: int = 0
    trials: int = TRIALS
    plugin_files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("trials", 1), ("search_seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name.replace('_', '-')} is {getattr(self, name)}: it must be {least} at least")
        if self.measure not in MEASURES:
            raise ConfigError(f"Unknown measure {self.measure!r}.{did_you_mean(self.measure, MEASURES)}")
        if self.base.run_dir:
            raise ConfigError("run_dir names the directory of one run, and a search makes many: leave it out")
        if not self.space:
            raise ConfigError("nothing to search: name settings with -s NAME=VALUES or --space FILE")

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which way is better, as Optuna says it."""
        return "minimize" if self.measure == DIVERGENCE else "maximize"

    @property
    def has_equal_steps(self) -> bool:
        """Whether every trial takes as many student steps."""
        return not any(name in self.space for name in BUDGET)

    def with_steps(self, store: RunStore) -> SearchPlan:
        """The same with the steps of every try: those of `max_steps` or, without that, of the default's rounds.

        Raises
        ------
        ConfigError
            Where the budget is set and searched at once.
        DataError
            When the data cannot be loaded.
        """
        base = self.base
        searched = [name for name in BUDGET if name in self.space]
        if "rounds" in searched and (base.max_steps or "max_steps" in searched):
            raise ConfigError("max_steps is set, and rounds say nothing beside it: search one of the two, set neither")
        if searched or base.max_steps:
            return self
        more = 0.0 if base.schedule == "none" or base.mix == "replace" else base.synthetic_ratio
        passes = base.rounds + more * (base.rounds + 1 - resolve(base, store.plugins).first_synthetic)
        steps = max(2, math.ceil(passes * len(store.data(base).train) / base.batch_size / base.gradient_accumulation))
        return replace(self, base=load_config({**base.model_dump(), "max_steps": steps}))

    def run_config(self, values: Mapping[str, Any], number: int) -> RunConfig:
        """The settings of a run of a trial, under the seed of that number; from `seeds` on, of what `Ending` runs."""
        chosen = with_values(self.base, values)
        changes: dict[str, Any] = {"seed": chosen.seed + number}
        if chosen.transfer_rows:  # each seed also draws a transfer set of its own
            changes["transfer_seed"] = chosen.transfer_seed + number
        # dev alone is looked at
        changes |= {"evaluate_validation": "never", "keep_checkpoints": 1}
        changes["observers"] = [name for name in chosen.observers if name != "progress"]
        return load_config({**chosen.model_dump(), **changes})

    def best_config(self, values: Mapping[str, Any]) -> RunConfig:
        """Complete settings with these values, for a run of their own."""
        return load_config({**with_values(self.base, values).model_dump(), "run_dir": ""})

    # ---- the record

    def write(self, folder: Path) -> None:
        """Write it into the folder of the search."""
        import tomlkit

        document = tomlkit.document()
        own = {"measure": self.measure, "seeds": self.seeds, "prune": self.prune, "search_seed": self.search_seed,
               "trials": self.trials, "plugin_files": private(self.plugin_files)}  # fmt: skip
        document.add("search", tomlkit.item(own))
        document.add("space", tomlkit.item({name: one.to_record() for name, one in self.space.items()}))
        document.add("settings", tomlkit.item(private(self.base.model_dump(mode="json"))))
        write_text(folder / RECORD, f"{_HEAD}\n{tomlkit.dumps(document)}")

    @classmethod
    def read(cls, folder: Path) -> SearchPlan:
        """The plan of the search in a folder.

        Raises
        ------
        StudyError
            When its record is not readable.
        """
        path = folder / RECORD
        try:
            content = checked(read_toml(path, StudyError, ELSEWHERE), PlanFields, str(path), StudyError, ELSEWHERE)
            space = {name: read_dimension(name, value) for name, value in content["space"].items()}
            return cls(load_config(revealed(content["settings"])), space, **revealed(content["search"]))
        except StudyError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, SageError) as error:
            raise StudyError(f"{path} is not readable ({one_line(error, LONGEST_CAUSE)}): {ELSEWHERE}") from None

    def check_same(self, other: SearchPlan, folder: Path) -> None:
        """Refuse to go on with this plan where the folder's own is another.

        Raises
        ------
        StudyError
            With the first thing in which they differ.
        """

        def refuse(name: str, here: Any, there: Any) -> None:
            raise StudyError(
                f"{folder} searches with {name} {_shown(there)}, and this command says {_shown(here)}: take the same, "
                f"or another folder (`sage-kit search {folder}` alone goes on with it)"
            )

        for name in [*other.space, *self.space]:
            ours, theirs = (plan.space.get(name) for plan in (self, other))
            if (None if ours is None else ours.to_record()) != (None if theirs is None else theirs.to_record()):
                refuse(f"values of {name}", *(one and one.to_record() for one in (ours, theirs)))
        for name in ("measure", "seeds", "prune", "search_seed", "plugin_files"):
            if getattr(self, name) != getattr(other, name):
                refuse(name.replace("_", "-"), getattr(self, name), getattr(other, name))
        own, those = (plan.base.model_dump(mode="json") for plan in (self, other))
        for name in own:
            if own[name] != those[name] and name not in PLACES and field_extra(name)["group"] != "output":
                if name == "device":  # two processes may use a card each
                    continue
                refuse(name, own[name], those[name])


def asked_plan(
    folder: Path,
    space: Mapping[str, Dimension],
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
    *,
    config: str = "",
    preset: str = "",
) -> SearchPlan | None:
    """The plan that a command line asks for; None where it asks for nothing but to go on.

    Parameters
    ----------
    folder : Path
        Of the search; what is not said is taken from the search that is there.
    space : mapping of str to Dimension
    settings : mapping
        Settings of a run, as flags.
    own : mapping
        Fields of `SearchPlan` beside these.
    config, preset : str
        As `load_config` takes them.

    Raises
    ------
    ConfigError, StudyError
        For a bad setting, nothing to search, or a search that is not readable.
    """
    is_there = (folder / RECORD).is_file()
    if is_there and not (space or settings or config or preset or own.keys() - {"trials"}):
        return None
    if not is_there and not space:
        raise ConfigError("nothing to search: name settings with -s NAME=VALUES or --space FILE")
    there = SearchPlan.read(folder) if is_there else None
    if there is not None and not (config or preset or space):
        base = load_config({**there.base.model_dump(), **settings})
    else:
        base = load_config(settings, preset=preset, file=config)
    base = with_absolute_paths(base)
    if there is None:
        return SearchPlan(base, space, **own)
    return replace(there, base=base, space=space or there.space, **own)


def _shown(value: Any) -> str:
    return "none" if value is None or value == "" else label_of(value)
