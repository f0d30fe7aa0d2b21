"""A study as a notebook writes it: arms, their runs, tables, findings, figures, and the result that is saved.

::

    study = Study("04_static_or_adaptive", question="Is the curriculum worth it?", profile=profile, seeds=seeds,
                  task=task, runs_dir=runs_dir, results_dir=results_dir, rounds=rounds)
    runs = study.run([Arm("plain", schedule="none"), Arm("adaptive", schedule="adaptive")])
    study.add_table("comparison", study.compare(runs, baseline="plain"))
    study.find("gain", "Is adaptive synthesis ahead of plain distillation?", table="comparison",
               row={"task": study.overall, "arm": "adaptive"}, yes="Adaptive synthesis is ahead",
               no="Adaptive synthesis is behind")
    study.finish()

Findings are decided together, in `finish`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import commit
from sage_kit.config import RunConfig, default_settings, load_config
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import ConfigError, RunHeldError, StudyError, did_you_mean
from sage_kit.recipe import resolve
from sage_kit.storage.files import disk_errors
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import source_digest
from sage_kit.studies import statistics
from sage_kit.studies.arms import Arm, at_rates, for_choice
from sage_kit.studies.design import expected_table, plan_text
from sage_kit.studies.display import VerdictBox
from sage_kit.studies.effort import Effort, Planned
from sage_kit.studies.findings import Findings
from sage_kit.studies.parameters import Parameter, check, check_components, check_parameters, listed
from sage_kit.studies.places import RESULTS, RUNS, in_project
from sage_kit.studies.predictions import (
    DEV,
    VALIDATION,
    compare_outputs,
    halved,
    save_predictions,
    split_name,
)
from sage_kit.studies.result import PREDICTIONS, RESULT, StudyResult, label_of
from sage_kit.studies.runs import LOOP, ArmRun, Runs, RunStore
from sage_kit.studies.sizes import COMMON, size
from sage_kit.studies.tuning import TUNING_SEED, Try, Tuning, further, rates_text
from sage_kit.system.devices import precision_of

if TYPE_CHECKING:
    from pandas import DataFrame

PACKAGES = ("sage-kit", "torch", "transformers", "numpy", "scipy", "scikit-learn", "umap-learn", "openTSNE", "pacmap")
"""Packages whose versions a result records, where they are installed."""

OWN_PARAMETERS = [
    Parameter("profile", "str", "smoke", ""),
    Parameter("task", "str | None", None, ""),
    Parameter("seeds", "int | None", None, ""),
    Parameter("plugin", "str", "", ""),
    Parameter("preset", "str | None", None, ""),
    Parameter("runs_dir", "str | None", None, ""),
    Parameter("results_dir", "str | None", None, ""),
]
"""Parameters of every study beside the settings of its runs."""

PLACES = ("data_dir", "cache_dir", "device")
"""Settings that say where things are."""


class Study(Findings):
    """A study: what it asks, its size, and all that it finds.

    Parameters
    ----------
    name : str
        The notebook's name without its ending.
    title : str
        Its heading.
    question : str
        What it asks.
    profile : str
        Name of its size, of `sage_kit.studies.sizes.SIZES`.
    task : str or None
        Tasks, separated by commas; None takes `tasks`, or else the size's.
    seeds : int or None
        Runs per arm, with seeds from 0; None takes the size's.
    plugin : str
        One-file plugins, separated by commas.
    preset : str or None
        Named settings (`sage_kit.config.PRESETS`) that the arms build on, below those of the size; None takes the
        defaults. The warm-up of a preset takes place at "full" only, since its corpus is fetched.
    runs_dir, results_dir : str or None
        Folders of the runs and of the results; None takes those of the project, which git ignores
        (`sage_kit.studies.places`).
    tasks : mapping of str to str
        By profile, tasks that this study takes instead of the size's, separated by commas.
    rates : sequence of float or None
        Learning rates that arms are tuned over; None takes `usual_rates` or the size's, and one alone stands for no
        tuning.
    usual_rates : mapping of str to sequence of float
        By profile, learning rates that this study takes instead of the size's.
    base : mapping
        Settings of every run of this study, over the size's.
    more : mapping
        The notebook's other parameters, None where they were left to the profile; recorded.
    **settings
        Settings of every run; None takes what `base` or the size says.

    Raises
    ------
    StudyError
        For an unknown profile, setting or a senseless number of seeds.
    ConfigError, UnknownComponentError, MissingPackageError
        For a value that a setting does not take, or a task or a component that is not there, in whatever parameter it
        is named.
    """

    def __init__(
        self,
        name: str,
        *,
        title: str,
        question: str,
        profile: str,
        task: str | None = None,
        seeds: int | None = None,
        plugin: str = "",
        preset: str | None = None,
        runs_dir: str | None = None,
        results_dir: str | None = None,
        tasks: Mapping[str, str] | None = None,
        rates: Sequence[float] | None = None,
        usual_rates: Mapping[str, Sequence[float]] | None = None,
        base: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._started = time.perf_counter()
        own = {"profile": profile, "task": task, "seeds": seeds, "plugin": plugin, "runs_dir": runs_dir,
               "results_dir": results_dir, "preset": preset}  # fmt: skip
        check(OWN_PARAMETERS, own, study=name)
        self.name, self.title, self.question = name, title, question
        self.size = size(profile)
        self.seeds = self.size.seeds if seeds is None else seeds
        if not 1 <= self.seeds <= TUNING_SEED:
            raise StudyError(
                f"seeds is {self.seeds}: a study needs at least one, and seeds from {TUNING_SEED:,} are for tuning"
            )
        usual = (usual_rates or {}).get(profile, self.size.rates)
        self.rates = tuple(sorted(set(usual if rates is None else rates)))
        if not self.rates or self.rates[0] <= 0:
            raise StudyError(f"rates are {list(self.rates)}: give at least one learning rate, each above 0")
        chosen = task or (tasks or {}).get(profile) or ",".join(self.size.tasks)
        self.tasks = tuple(dict.fromkeys(listed(chosen)))
        files = [str(Path(part).resolve()) for part in listed(plugin)]
        self.plugins = Plugins(files)
        check_components(self.plugins, {"task": ",".join(self.tasks), **settings, **(more or {})})
        self.store = RunStore(in_project(runs_dir, RUNS), self.plugins, files)
        given = {key: value for key, value in settings.items() if value is not None}
        self.preset = preset or "default"
        is_cold = preset is not None and profile != "full"
        cold = {"warmup_epochs": 0, "warmup_corpus": "", "warmup_rows": 0} if is_cold else {}
        self._over = {**cold, **(base or {}), **given}
        self.settings: dict[str, Any] = {**self.size.settings, **self._over}
        self._takes_passes = self.size.passes > 0 and "rounds" not in given
        self._check_names(settings)
        lacking = next((name for name in self.size.needs if not self.settings.get(name)), None)
        if lacking is not None:
            raise StudyError(f"profile {profile} needs the parameter {lacking!r}: {self.size.needs[lacking]}")
        self.config(self.tasks[0])  # a bad value is told before anything is computed
        self.parameters = {
            "profile": profile, "task": task, "seeds": seeds, "plugin": plugin, "preset": preset,
            "rates": None if rates is None else list(self.rates), **settings, **(more or {}),
        }  # fmt: skip
        # what tells this result from that of the profile as it stands; where things lie does not, and the precision
        # stands in the label, whoever chose it
        told = {**given, "preset": preset, "rates": None if rates is None else list(self.rates), **(more or {})}
        self._changed = {
            key: value for key, value in told.items() if value is not None and key not in (*PLACES, "precision")
        }
        if seeds is not None and seeds != self.size.seeds:
            self._changed["seeds"] = seeds
        self.results_dir = in_project(results_dir, RESULTS)
        self.result: StudyResult | None = None
        self._all_runs: dict[tuple[str, str, int], ArmRun] = {}
        self._compared: dict[tuple[str, str, int], tuple[ArmRun, set[str]]] = {}
        self._is_planned = False
        self.tuning = Tuning()
        self._choosing: set[int] = set()
        self._effort = Effort(self.store.root, self.store.data)
        self._verdict = VerdictBox()
        if profile == "smoke":
            print("This is a smoke run: it shows that every step works. Its numbers are no evidence.")

    @classmethod
    def from_parameters(
        cls,
        namespace: MutableMapping[str, Any],
        name: str,
        *,
        own: Sequence[str] = (),
        companion: str = "",
        **given: Any,
    ) -> Study:
        """The study of a notebook, with the parameters of its tagged cell as they are set.

        They are checked first (`sage_kit.studies.parameters.check_parameters`). Those that this class takes by name are
        handed on, those that name a setting of a run become one of every run, and the others are recorded as `more`.

        Parameters
        ----------
        namespace : mutable mapping
            ``globals()`` of the notebook.
        name : str
            The notebook's name without its ending.
        own : sequence of str
            Parameters that name a setting and yet are not one of every run: the notebook sees to them.
        companion : str
            File of a plugin that lies beside the notebook and is always loaded; "" for none.
        **given
            Further parameters of this class, such as `title`, `question`, `tasks` and `base`.

        Returns
        -------
        Study

        Raises
        ------
        StudyError
            For a parameter that the notebook does not take, and as the class does.
        """
        values = check_parameters(namespace, name)
        of_study = {parameter.name for parameter in OWN_PARAMETERS} | {"rates"}
        settings = {
            parameter: value
            for parameter, value in values.items()
            if parameter in of_study or (parameter in RunConfig.model_fields and parameter not in own)
        }
        more = {parameter: value for parameter, value in values.items() if parameter not in settings}
        plugin = ",".join(filter(None, [companion, settings.get("plugin")]))
        return cls(name, **{**settings, "plugin": plugin}, more=more, **given)

    # ---- runs -------------------------------------------------------------------------------------------------------

    @property
    def overall(self) -> str:
        """What the column `task` of a comparison holds in the row about all tasks: the task if there is one only."""
        return statistics.AVERAGE if len(self.tasks) > 1 else self.tasks[0]

    def config(self, task: str, **settings: Any) -> RunConfig:
        """The settings of a run of this study on a task, with some changed."""
        own = self.size.by_task.get(task, {})
        return load_config({**self.size.settings, **own, **self._over, "task": task, **settings}, preset=self.preset)

    @property
    def scored(self) -> str:
        """The split that arms are compared on: "evaluation" where the settings hold rows out for it, else "dev"."""
        config = self.config(self.tasks[0])
        return EVALUATION if config.evaluation_rows or config.evaluation_file else DEV

    def steps(self, task: str, rounds: float | None = None) -> int:
        """Student steps of a run on a task: those of the size's passes, or of `rounds` rounds of synthesis.

        The first round counts as one pass, each later one as one and its synthetic examples. All arms take as many
        steps, whatever a round, or a transfer set, is to them.

        Parameters
        ----------
        task : str
        rounds : float or None
            None takes the size's passes or, where it has none or `rounds` is given to the study, the setting.
        """
        config = self.config(task)
        if rounds is None and self._takes_passes:
            passes: float = self.size.passes
        else:
            passes = 1 + ((rounds or config.rounds) - 1) * (1 + config.synthetic_ratio)
        return max(2, math.ceil(passes * len(self.store.data(config).train) / config.batch_size))

    def run(
        self,
        arms: Sequence[Arm],
        *,
        tasks: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        equal_steps: bool = True,
        steps: Mapping[str, int] | None = None,
        keep: Sequence[str] = (),
    ) -> Runs:
        """The finished runs of arms, on every task and under every seed; those made before are found again.

        Parameters
        ----------
        arms : sequence of Arm
        tasks, seeds : sequence or None
            None takes the study's. Each seed is that of the run and, unless the arm sets another, of its transfer set.
        equal_steps : bool
            Whether each run takes `steps(task)` student steps; if not, `rounds` and the stop rule decide.
        steps : mapping of task to int, or None
            Student steps instead of these, as `equal_flops_steps` returns them.
        keep : sequence of str
            Of `sage_kit.studies.runs.PARTS`, what of the runs is looked at later.

        Returns
        -------
        Runs

        Raises
        ------
        StudyError
            When two arms have the same name.
        ConfigError, UnknownComponentError, MissingPackageError, CompatibilityError
            For settings of any of the arms, before the first run is made.
        """
        chosen = tuple(tasks or self.tasks)
        self._check_arms(arms, chosen)
        if not self._is_planned:
            self.plan(arms=arms, tasks=chosen, seeds=seeds, equal_steps=equal_steps, steps=steps)
        asked = [
            (arm, self._run_config(task, arm, seed, self._limit(task, equal_steps, steps)), "")
            for task in chosen
            for arm in arms
            for seed in (range(self.seeds) if seeds is None else seeds)
        ]
        runs = self._made(asked, keep)
        self._all_runs |= {(run.task, run.arm, run.seed): run for run in runs}
        return Runs(runs)

    def tune(
        self,
        arms: Sequence[Arm],
        *,
        rates: Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
        tasks: Sequence[str] | None = None,
        equal_steps: bool = True,
        steps: Mapping[str, int] | None = None,
        extensions: int = 1,
    ) -> list[Arm]:
        """The arms with the learning rate that brings each closest to the teacher on dev, by task, after equal tries.

        Each arm is run at each rate under the same seeds, on transfer sets of their own (`TUNING_SEED` and above). The
        rate with the lowest mean divergence on dev is taken; held-out rows and official validation data are not read.
        Where the best rate of an arm is the smallest or the largest, the list goes on by a rate for all arms of the
        task alike; where it still is at an end, a line says so. Every try stands in the table ``tuning``.

        Parameters
        ----------
        arms : sequence of Arm
            All that will be compared. An arm that is tuned later, as plain distillation at equal FLOPs, takes the rates
            that were tried before on the task.
        rates : sequence of float or None
            None takes the study's. With one rate there is nothing to choose: all arms get it.
        seeds : sequence of int or None
            None takes as many as the size says.
        tasks, equal_steps, steps
            As in `run`.
        extensions : int
            How often a list of three rates or more may be extended.

        Returns
        -------
        list of Arm

        Raises
        ------
        StudyError
            For an arm that sets a learning rate of its own, seeds that a comparison may take, or an arm that no rate
            trains.
        """
        chosen = tuple(tasks or self.tasks)
        for arm in arms:
            if any("learning_rate" in own for own in (arm.settings, *arm.by_task.values())):
                raise StudyError(f"arm {arm.name!r} sets learning_rate: leave it out, for it is tuned")
        self._check_arms(arms, chosen)
        listed_rates = tuple(sorted(set(self.rates if rates is None else rates)))
        if len(listed_rates) < 2:
            print(f"All arms learn at a rate of {rates_text(listed_rates)}: none is tuned.", flush=True)
            return [at_rates(arm, dict.fromkeys(chosen, listed_rates[0])) for arm in arms]
        tried = tuple(TUNING_SEED + number for number in range(self.size.tuning_seeds)) if seeds is None else seeds
        self.choose_on(tried)
        if not self._is_planned:
            self.plan(arms=arms, tasks=chosen, tuned=True, equal_steps=equal_steps, steps=steps)
        for task in chosen:
            limit = self._limit(task, equal_steps, steps)
            before = self.tuning.rates(task)
            self._try(arms, task, before or listed_rates, tried, limit)
            names = [arm.name for arm in arms]
            # of two rates each is at an end; and arms of earlier comparisons would miss later rates
            for _ in range(0 if before or len(listed_rates) < 3 else extensions):
                more = further(self.tuning.rates(task), self.tuning.at_ends(task, names).values())
                if not more:
                    break
                print(f"{task}: a best learning rate is at an end of the list, so all arms try {rates_text(more)} too")
                self._try(arms, task, more, tried, limit)
            for name, rate in self.tuning.at_ends(task, names).items():
                print(
                    f"{task}, {name}: the best learning rate, {rate:g}, is at an end of those tried "
                    f"({rates_text(self.tuning.rates(task))}), for all arms alike"
                )
        self.add_table("tuning", self.tuning.table(), show=False)
        found = {arm.name: {task: self.tuning.best(task, arm.name) for task in chosen} for arm in arms}
        for name, by_task in found.items():
            print(f"learning rate of {name}: {', '.join(f'{rate:g} on {task}' for task, rate in by_task.items())}")
        return [at_rates(arm, found[arm.name]) for arm in arms]

    def choose_on(self, seeds: Iterable[int]) -> None:
        """Keep seeds for choices: what is run under them is never compared.

        Raises
        ------
        StudyError
            For a seed below `TUNING_SEED`, which a comparison may take.
        """
        seeds = set(seeds)
        wrong = next((seed for seed in sorted(seeds) if seed < TUNING_SEED), None)
        if wrong is not None:
            raise StudyError(
                f"seed {wrong} is one of those that are compared: choose settings on {TUNING_SEED:,} and up"
            )
        self._choosing |= seeds

    def _try(
        self, arms: Sequence[Arm], task: str, rates: Sequence[float], seeds: Sequence[int], limit: Mapping[str, int]
    ) -> None:
        """Run every arm at every rate under every seed."""
        tries = [(arm, rate, seed) for arm in arms for rate in rates for seed in seeds]
        asked = [
            (arm, self._run_config(task, for_choice(at_rates(arm, {task: rate})), seed, limit),
             f", learning rate {rate:g}")
            for arm, rate, seed in tries
        ]  # fmt: skip
        for (arm, rate, seed), run in zip(tries, self._made(asked), strict=True):
            row = run.row()
            self.tuning.add(
                Try(
                    task, arm.name, rate, seed, row["student_steps"], row["dev_divergence"], row["dev"],
                    row["dev_agreement"], row["run"],
                )
            )  # fmt: skip

    def _check_arms(self, arms: Sequence[Arm], tasks: Sequence[str]) -> None:
        names = [arm.name for arm in arms]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise StudyError(f"two arms are called {double!r}: give each a name of its own")
        for task in tasks:  # what an arm lacks is told before the first one is trained
            for arm in arms:
                resolve(self.config(task, **arm.on(task)), self.plugins)

    def _limit(self, task: str, equal_steps: bool, steps: Mapping[str, int] | None) -> dict[str, int]:
        return {"max_steps": (steps or {}).get(task) or self.steps(task)} if equal_steps or steps else {}

    def _run_config(self, task: str, arm: Arm, seed: int, limit: Mapping[str, int]) -> RunConfig:
        """The settings of a run: each seed also draws a transfer set of its own, where there is something to draw."""
        own = {**limit, **arm.on(task), "seed": seed}
        if "transfer_seed" not in own and self.config(task, **arm.on(task)).transfer_rows:
            own["transfer_seed"] = seed
        return self.config(task, **own)

    def _made(self, asked: Sequence[tuple[Arm, RunConfig, str]], keep: Sequence[str] = ()) -> list[ArmRun]:
        """The runs of arms with these settings, and a note for each line, in their order.

        A run that another process is making at the moment is left for later, so that several processes that execute the
        same study share its runs.
        """
        found: dict[int, ArmRun] = {}

        def make(number: int, *, wait: bool) -> None:
            arm, config, note = asked[number]
            found[number] = self.store.run(
                arm.name, config, keep=keep, announce=lambda text: print(f"{text}{note}", flush=True), loop=arm.loop,
                wait=wait,
            )  # fmt: skip

        waiting = list(range(len(asked)))
        while waiting:
            for number in waiting:
                with contextlib.suppress(RunHeldError):
                    make(number, wait=False)
            held = [number for number in waiting if number not in found]
            if len(held) == len(waiting):  # nothing else to do meanwhile
                make(held.pop(0), wait=True)
            waiting = held
        return [found[number] for number in range(len(asked))]

    def vectors(self, task: str, **settings: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The pooled vectors of a task's training examples and of its carved part, as a run sees them.

        Parameters
        ----------
        task : str
        **settings
            Settings that differ from the study's, such as `bypass`.

        Returns
        -------
        train : array of shape (n, dim), float32
        dev : array of shape (m, dim), float32
        """
        from sage_kit.components.records import Costs
        from sage_kit.system.devices import make_accelerator
        from sage_kit.training.preparation import prepare_vectors

        config = self.config(task, **settings)
        there = prepare_vectors(config, self.plugins, make_accelerator(config), Costs(), fine_tune=True)
        return np.array(there.train.pooled), np.array(there.dev.pooled)

    @property
    def all_runs(self) -> Runs:
        """Every run that the study has asked for."""
        return Runs(list(self._all_runs.values()))

    def plan(
        self,
        *,
        split: str | None = None,
        arms: Sequence[Arm] = (),
        tasks: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        tuned: bool = False,
        equal_steps: bool = True,
        steps: Mapping[str, int] | None = None,
    ) -> DataFrame:
        """Print which difference this design can find, and its time; `run` and `tune` do it where a notebook has not.

        Parameters
        ----------
        split : str or None
            Where scores will be compared: "evaluation", "dev", "validation", or the name of a validation split; None
            takes `scored`.
        arms : sequence of Arm
            What will be run; without any, no time is told.
        tasks, seeds, equal_steps, steps
            As in `run`.
        tuned : bool
            Whether the arms will be tuned before: tries and comparison count.

        Returns
        -------
        DataFrame
            As `sage_kit.studies.design.expected_table` returns it.
        """
        split = split or self.scored
        examples = {}
        for task in self.tasks:
            data = self.store.data(self.config(task))
            name = next(iter(data.validation)) if split == VALIDATION else split
            if name not in data.splits:
                names = ["dev", *data.validation, *([EVALUATION] if data.evaluation is not None else [])]
                raise StudyError(f"task {task!r} has no split {name!r}.{did_you_mean(name, names, 'Splits')}")
            examples[task] = len(data.splits[name])
        table = expected_table(self.results_dir, examples, self.seeds, split)
        print(plan_text(table, self.seeds), flush=True)
        if arms:
            planned = [
                run
                for task in tasks or self.tasks
                for arm in arms
                for run in self._planned(arm, task, seeds, tuned, self._limit(task, equal_steps, steps))
            ]
            print(f"Time: {self._effort.text(planned)}", flush=True)
        self._is_planned = True
        return table

    def _planned(
        self, arm: Arm, task: str, seeds: Sequence[int] | None, tuned: bool, limit: Mapping[str, int]
    ) -> list[Planned]:
        """The runs of an arm on a task: tries, and those that are compared, at whichever rate they are found."""
        compared = range(self.seeds) if seeds is None else seeds
        if not tuned or len(self.rates) < 2:
            groups = [[self._run_config(task, arm, seed, limit)] for seed in compared]
        else:
            tuned_arms = [at_rates(arm, {task: rate}) for rate in self.rates]
            tries = range(TUNING_SEED, TUNING_SEED + self.size.tuning_seeds)
            groups = [[self._run_config(task, for_choice(one), seed, limit)] for one in tuned_arms for seed in tries]
            groups += [[self._run_config(task, one, seed, limit) for one in tuned_arms] for seed in compared]
        return [
            Planned(
                configs[0],
                configs[0].max_steps or self.steps(task),
                any(self.store.has(config, arm.loop) for config in configs),
            )
            for configs in groups
        ]

    def compare(
        self,
        runs: Runs,
        baseline: str,
        *,
        split: str | None = None,
        metric: str = "",
        arms: Sequence[str] | None = None,
    ) -> DataFrame:
        """Each arm against a baseline, paired by seed and example.

        Arms that are compared must have been tuned by the same tries, or not at all, and no run of a seed that chose
        something may be among them.

        What is compared is saved with the result (`sage_kit.studies.predictions`).

        Parameters
        ----------
        runs : Runs
        baseline : str
            Name of the arm that the others are compared with.
        split : str or None
            "evaluation", rows held out from train; "dev", carved from train for choices; "validation", the first
            official validation split, for reporting only; or the name of one. None takes `scored`.
        metric : str
            "" for each task's primary metric; "agreement" with the teacher, or "divergence" from it, in the logarithm
            of its mean; or a metric of `sage_kit.data.metrics.METRICS`.
        arms : sequence of str or None
            Arms to compare; None takes all.

        Returns
        -------
        DataFrame
            As `sage_kit.studies.predictions.compare_outputs` returns it.

        Raises
        ------
        StudyError
            For an arm that is not there, arms that are tuned by unlike tries, or runs that something was chosen by.
        """
        split = split or self.scored
        self._check_fair([run for run in runs if arms is None or run.arm in (baseline, *arms)])
        specs = {task: self.store.data(runs.of(task=task)[0].config).spec for task in runs.tasks}
        table = compare_outputs(runs, specs, baseline, split=split, metric=metric, arms=arms)
        shown = {baseline, *table["arm"]}
        for run in runs:
            if run.arm in shown:
                _, splits = self._compared.setdefault((run.task, run.arm, run.seed), (run, set()))
                splits.add(split_name(runs, run.task, split))
        return table

    def _check_fair(self, runs: Sequence[ArmRun]) -> None:
        chosen_by = next((run.seed for run in runs if run.seed in self._choosing), None)
        if chosen_by is not None:
            raise StudyError(f"seed {chosen_by} chose settings in this study: compare runs under other seeds")
        for task in dict.fromkeys(run.task for run in runs):
            self.tuning.check_alike(task, [run.arm for run in runs if run.task == task])

    def equal_flops_steps(self, runs: Runs, arm: str, like: str) -> dict[str, int]:
        """How many student steps of an arm cost as many FLOPs as another arm's whole runs, by task.

        FLOPs are those of costs.json, means over seeds: of the student's training, and of the teacher on synthetic
        examples; evaluation does not count. Reducers and inverters are not models whose FLOPs are counted: see the
        seconds. The result is ``steps(arm) * flops(like) / flops(arm)``, rounded: an arm's FLOPs grow with its steps.

        Parameters
        ----------
        runs : Runs
            Finished ones of both arms.
        arm : str
            Whose steps are asked for, "plain" say.
        like : str
            Whose FLOPs they shall cost.

        Returns
        -------
        dict of str to int
            For `run`'s `steps`.

        Raises
        ------
        StudyError
            When an arm has no run on a task.
        """
        steps = {}
        for task in runs.tasks:
            found = {name: runs.of(task=task, arm=name) for name in (arm, like)}
            lacking = next((name for name, own in found.items() if not own), None)
            if lacking is not None:
                raise StudyError(
                    f"task {task!r} has no run of arm {lacking!r}.{did_you_mean(lacking, runs.arms, 'Arms')}"
                )
            flops = {
                name: np.mean([sum(run.costs["flops"].values()) - run.costs["flops"].get("evaluate", 0) for run in own])
                for name, own in found.items()
            }
            own_steps = np.mean([run.summary["student_steps"] for run in found[arm]])
            steps[task] = max(1, round(own_steps * flops[like] / flops[arm]))
        return steps

    def compute_table(self, runs: Runs) -> DataFrame:
        """Per task and arm, means over seeds of what it cost: steps, teacher tokens, FLOPs, seconds.

        Equal compute means equal student steps and equal teacher tokens; the column `equal` says whether both are those
        of the arm with the most, to within 2 %: a last batch that is not full, and the lengths of other anchors.
        """
        table = runs.table()
        columns = ["student_steps", "teacher_tokens", "student_flops", "teacher_flops", "seconds"]
        means = table.groupby(["task", "arm"], sort=False)[columns].mean().reset_index()
        most = means.groupby("task")[["student_steps", "teacher_tokens"]].transform("max")
        near = [np.isclose(means[name], most[name], rtol=0.02) for name in ("student_steps", "teacher_tokens")]
        means["equal"] = near[0] & near[1]
        return means

    # ---- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Decide the findings, save them with tables, figures and predictions, and show the verdict: see `result`."""
        if self._all_runs and "runs" not in self.tables:
            self.add_table("runs", self.all_runs.table(), show=False)
        difference = fingerprint(self._changed)[:6] if self._changed else ""
        precision = precision_of(self.config(self.tasks[0]))
        folder = self.results_dir / self.name / label_of(self.size.name, self.tasks, difference, precision)
        result = StudyResult(
            study=self.name,
            title=self.title,
            question=self.question,
            label=folder.name,
            profile=self.size.name,
            tasks=self.tasks,
            seeds=self.seeds,
            parameters=self.parameters,
            settings={key: value for key, value in self.settings.items() if COMMON.get(key) != value},
            defaults=default_settings(),
            findings=self.decide(),
            tables=tuple(self.tables),
            figures=tuple((f"{name}.png", caption) for name, (_, caption) in self.figures.items()),
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=time.perf_counter() - self._started,
            machine=_machine(),
            packages=_versions(),
            data={task: self.store.data_fingerprint(self.config(task)) for task in self.tasks},
            runs=tuple(
                {**run.record(self.plugins), "splits": sorted(self._compared.get(place, (run, set[str]()))[1])}
                for place, run in self._all_runs.items()
            ),
            scoring={task: self._scoring(task) for task in dict.fromkeys(task for task, *_ in self._compared)},
            precision=precision,
            commit=commit(),
            code=source_digest([LOOP, __name__]),
            folder=folder,
        )
        with disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RESULT).unlink(missing_ok=True)
            for stale in [*folder.glob("*.parquet"), *folder.glob("*.png"), *folder.glob(PREDICTIONS)]:
                stale.unlink()
            for name, table in self.tables.items():
                table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
            for name, (png, _) in self.figures.items():
                (folder / f"{name}.png").write_bytes(png)
        save_predictions(folder, self._outputs())
        result.save(folder)
        self._verdict.fill(result)
        self.result = result

    def _outputs(self) -> dict[str, NDArray[Any]]:
        """What was compared, as `sage_kit.studies.predictions` names it."""
        arrays: dict[str, NDArray[Any]] = {}
        for run, splits in self._compared.values():
            for split in splits:
                outputs = run.predictions[split]
                arrays.setdefault(f"labels/{run.task}/{split}", outputs["labels"])
                arrays.setdefault(f"teacher/{run.task}/{split}", halved(outputs["teacher"]))
                arrays[f"student/{run.task}/{split}/{run.directory.path.name}"] = halved(outputs["student"])
        # of runs that no table compares, so that they can be verified too
        for place, run in self._all_runs.items():
            if place not in self._compared:
                outputs = run.predictions[DEV]
                arrays[f"student/{run.task}/{DEV}/{run.directory.path.name}"] = halved(outputs["student"])
        return arrays

    def _scoring(self, task: str) -> dict[str, Any]:
        run = next(run for run, _ in self._compared.values() if run.task == task)
        spec = self.store.data(run.config).spec
        return {
            "metrics": list(spec.metrics),
            "classes": len(spec.labels),
            "label_range": list(spec.label_range),
            "splits": run.splits,
        }

    # ---- small parts ------------------------------------------------------------------------------------------------

    def _check_names(self, settings: Mapping[str, Any]) -> None:
        unknown = [key for key in settings if key not in RunConfig.model_fields]
        if unknown:
            hint = did_you_mean(unknown[0], RunConfig.model_fields, elsewhere="`sage-kit config` lists them.")
            raise ConfigError(f"Unknown setting {unknown[0]!r}.{hint}")


def _machine() -> dict[str, Any]:
    from sage_kit.system.machine import describe_machine

    return describe_machine().to_json()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
