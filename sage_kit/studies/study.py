"""A study as a notebook writes it: arms, their runs, tables, findings, figures, and the result that is saved.

::

    study = Study.from_parameters(globals(), "04_static_or_adaptive", title="Static or adaptive",
                                  question="Is the curriculum worth it?")
    runs = study.run([Arm("plain", schedule="none"), Arm("adaptive", schedule="adaptive")])
    study.add_table("comparison", study.compare(runs, baseline="plain"))
    study.find("gain", "Is adaptive synthesis ahead of plain distillation?", table="comparison",
               row={"task": study.overall, "arm": "adaptive"}, yes="Adaptive synthesis is ahead",
               no="Adaptive synthesis is behind")
    study.finish()

Findings are decided together, in `finish`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import ConfigError, StudyError, did_you_mean
from sage_kit.studies import equal_compute, statistics
from sage_kit.studies.arms import Arm, check_arms, make_runs, run_config, step_limits
from sage_kit.studies.design import compared_rows, expected_table, plan_text, planned_runs
from sage_kit.studies.display import VerdictBox
from sage_kit.studies.effort import Effort
from sage_kit.studies.findings import Findings
from sage_kit.studies.parameters import Parameter, check, check_components, check_parameters, listed
from sage_kit.studies.places import RESULTS, RUNS, in_project, result_folders
from sage_kit.studies.plan_only import end_of_plan
from sage_kit.studies.predictions import DEV, compare_outputs, split_name, without_contributions
from sage_kit.studies.result import StudyResult
from sage_kit.studies.run_count import tell
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.studies.saving import Compared, save_study
from sage_kit.studies.sizes import size
from sage_kit.studies.tuning import TUNING_SEED, Tuning, tune_arms

if TYPE_CHECKING:
    from pandas import DataFrame

OWN_PARAMETERS = [
    Parameter("profile", "str", "smoke", ""),
    Parameter("plugin", "str", "", ""),
    Parameter("seeds", "int | None", None, ""),
    *(Parameter(name, "str | None", None, "") for name in ("task", "preset", "runs_dir", "results_dir")),
]
"""Parameters of every study beside the settings of its runs."""

PLACES = ("data_dir", "cache_dir", "device")  # settings that say where things are


class Study(Findings):
    """A study: what it asks, its size, and all that it finds.

    Parameters
    ----------
    name, title, question : str
        The notebook's name without its ending, its heading, and what it asks.
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
    tuning_seeds : int or None
        Seeds under which an arm is tried at each rate; None takes as many as the size says.
    base : mapping
        Settings of every run of this study, over the size's.
    base_by_task : mapping of str to mapping
        Settings of the runs on a task, over these.
    structured : bool
        Whether the study takes tasks whose labels are neither classes nor numbers: it then compares scores, agreement
        and divergence, and looks at no outputs.
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
        tuning_seeds: int | None = None,
        base: Mapping[str, Any] | None = None,
        base_by_task: Mapping[str, Mapping[str, Any]] | None = None,
        structured: bool = False,
        more: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._started = time.perf_counter()
        own = {"profile": profile, "task": task, "seeds": seeds, "plugin": plugin, "preset": preset}
        check(OWN_PARAMETERS, {**own, "runs_dir": runs_dir, "results_dir": results_dir}, study=name)
        self.name, self.title, self.question = name, title, question
        self.size = size(profile)
        if tuning_seeds is not None:
            self.size = replace(self.size, tuning_seeds=tuning_seeds)
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
        self.results_dir = in_project(results_dir, RESULTS)
        self.store = RunStore(
            in_project(runs_dir, RUNS), self.plugins, files, structured=structured,
            results=[self.results_dir, *result_folders()],
        )  # fmt: skip
        given = {key: value for key, value in settings.items() if value is not None}
        self.preset = preset or "default"
        is_cold = preset is not None and profile != "full"
        cold = {"warmup_epochs": 0, "warmup_corpus": "", "warmup_rows": 0} if is_cold else {}
        self._base, self._given = {**cold, **(base or {})}, given
        self._by_task = base_by_task or {}
        self.settings: dict[str, Any] = {**self.size.settings, **self._base, **given}
        self._takes_passes = self.size.passes > 0 and "rounds" not in given
        unknown = next((key for key in settings if key not in RunConfig.model_fields), None)
        if unknown is not None:
            hint = did_you_mean(unknown, RunConfig.model_fields, elsewhere="`sage-kit config` lists them.")
            raise ConfigError(f"Unknown setting {unknown!r}.{hint}")
        lacking = next((name for name in self.size.needs if not self.settings.get(name)), None)
        if lacking is not None:
            raise StudyError(f"profile {profile} needs the parameter {lacking!r}: {self.size.needs[lacking]}")
        self.config(self.tasks[0])  # a bad value is told before anything is computed
        told = {"rates": None if rates is None else list(self.rates), **(more or {})}
        self.parameters = {**own, **settings, **told}
        # what tells this result from that of the profile as it stands; where things lie does not, and the precision
        # stands in the label, whoever chose it
        self._changed = {
            key: value
            for key, value in {**given, "preset": preset, **told}.items()
            if value is not None and key not in (*PLACES, "precision")
        }
        if self.seeds != self.size.seeds:
            self._changed["seeds"] = seeds
        self.result: StudyResult | None = None
        self.tuning = Tuning()
        self._all_runs: dict[tuple[str, str, int], ArmRun] = {}
        self.tries: dict[str, ArmRun] = {}  # of the tuning, by the name of the run
        self._compared = Compared()
        self.is_planned = False
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

        Raises
        ------
        StudyError
            For a parameter that the notebook does not take, and as the class does.
        """
        values = check_parameters(namespace, name)
        of_study = {parameter.name for parameter in OWN_PARAMETERS} | {"rates"}
        taken = of_study | (RunConfig.model_fields.keys() - set(own))
        settings = {name: value for name, value in values.items() if name in taken}
        more = {name: value for name, value in values.items() if name not in taken}
        plugin = ",".join(filter(None, [companion, settings.get("plugin")]))
        return cls(name, **{**settings, "plugin": plugin}, more=more, **given)

    @property
    def overall(self) -> str:
        """What the column `task` of a comparison holds in the row about all tasks: the task if there is one only."""
        return statistics.AVERAGE if len(self.tasks) > 1 else self.tasks[0]

    def config(self, task: str, **settings: Any) -> RunConfig:
        """The settings of a run of this study on a task, with some changed."""
        own, over = self.size.by_task.get(task, {}), self._by_task.get(task, {})
        chosen = {**self.size.settings, **own, **self._base, **over, **self._given}
        return load_config({**chosen, "task": task, **settings}, preset=self.preset)

    @property
    def scored(self) -> str:
        """The split that arms are compared on: "evaluation" where the settings hold rows out for it, else "dev"."""
        config = self.config(self.tasks[0])
        return EVALUATION if config.evaluation_rows or config.evaluation_file else DEV

    def steps(self, task: str, rounds: float | None = None) -> int:
        """Student steps of a run on a task: those of the size's passes, or of `rounds` rounds of synthesis.

        The first round counts as one pass, each later one as one and its synthetic examples. All arms take as many
        steps, whatever a round, or a transfer set, is to them.

        `rounds` None takes the size's passes or, where it has none or `rounds` is given to the study, the setting.
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
        tasks, seeds : sequence or None
            None takes the study's. Each seed is that of the run and, unless the arm sets another, of its transfer set.
        equal_steps : bool
            Whether each run takes `steps(task)` student steps; if not, `rounds` and the stop rule decide.
        steps : mapping of task to int, or None
            Student steps instead of these, as `equal_flops_steps` returns them.
        keep : sequence of str
            Of `sage_kit.studies.run_store.PARTS`, what of the runs is looked at later.

        Raises
        ------
        StudyError
            When two arms have the same name.
        ConfigError, UnknownComponentError, MissingPackageError, CompatibilityError
            For settings of any of the arms, before the first run is made.
        """
        chosen = tuple(tasks or self.tasks)
        open_one = next((arm for arm in arms if arm.choices), None)
        if open_one is not None:
            raise StudyError(f"arm {open_one.name!r} has choices: hand it to Study.tune, and run what that returns")
        check_arms(self, arms, chosen)
        if not self.is_planned:
            self.plan(arms=arms, tasks=chosen, seeds=seeds, equal_steps=equal_steps, steps=steps)
        asked = [
            (arm, run_config(self, task, arm, seed, limit), "")
            for task, limit in step_limits(self, chosen, equal_steps, steps).items()
            for arm in arms
            for seed in (range(self.seeds) if seeds is None else seeds)
        ]
        runs = make_runs(self.store, asked, keep)
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

        An arm with choices is run with each of them at each rate. Arms without any then try more rates, so that all
        have as many tries (`sage_kit.studies.tuning.widened`), and no list goes on.

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

        Raises
        ------
        StudyError
            For an arm that sets a learning rate of its own, seeds that a comparison may take, or an arm that no rate
            trains.
        """
        tried = self.rates if rates is None else rates
        return tune_arms(self, arms, tried, seeds, tuple(tasks or self.tasks), equal_steps, steps, extensions)

    def choose_on(self, seeds: Iterable[int]) -> None:
        """Keep seeds for choices: what is run under them is never compared.

        StudyError for one below `TUNING_SEED`, which a comparison may take.
        """
        self.tuning.choose_on(seeds)

    def vectors(self, task: str, **settings: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The pooled vectors, (n, dim) and (m, dim), of a task's training examples and dev split, as a run sees them.

        `settings` differ from the study's, such as `bypass`.
        """
        from sage_kit.components.records import Costs
        from sage_kit.system.devices import make_accelerator
        from sage_kit.training.preparation import prepare_vectors

        end_of_plan()
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
        arms: Sequence[Arm] | Mapping[str, Sequence[Arm]] = (),
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
        arms : sequence of Arm, or mapping of task to these
            What will be run; without any, no time is told.
        tasks, seeds, equal_steps, steps
            As in `run`.
        tuned : bool
            Whether the arms will be tuned before: tries and comparison count.

        Returns what `sage_kit.studies.design.expected_table` does.
        """
        split = split or self.scored
        examples = {task: compared_rows(self, task, split) for task in self.tasks}
        table = expected_table(self.results_dir, examples, self.seeds, split)
        tell(plan_text(table, self.seeds))
        if arms:
            planned = planned_runs(self, arms, tasks or self.tasks, seeds, tuned, equal_steps, steps)
            self.store.count.plan(planned)
            tell(f"Time: {self._effort.text(planned)}")
        self.is_planned = True
        return table

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
        something may be among them. What is compared is saved with the result (`sage_kit.studies.predictions`).

        Parameters
        ----------
        baseline : str
            Name of the arm that the others are compared with.
        split : str or None
            "evaluation", rows held out from train; "dev", carved from train for choices; "validation", the first
            official validation split, for reporting only; or the name of one. None takes `scored`.
        metric : str
            "" for each task's primary metric; "agreement" with the teacher, or "divergence" from it, in the logarithm
            of its mean; or a metric that the tasks are scored by, or a built-in. Where nobody knows what an example
            contributes to it, a line says that its intervals are over seeds alone.
        arms : sequence of str or None
            Arms to compare; None takes all.

        Returns what `sage_kit.studies.predictions.compare_outputs` does.

        Raises
        ------
        StudyError
            For an arm that is not there, arms that are tuned by unlike tries, or runs that something was chosen by.
        """
        split = split or self.scored
        self.tuning.check_fair([run for run in runs if arms is None or run.arm in (baseline, *arms)])
        specs = {task: self.store.data(runs.of(task=task)[0].config).spec for task in runs.tasks}
        for name in without_contributions(specs, metric):
            print(f"Metric {name!r} does not say what each example contributes: its intervals are over seeds alone.")
        table = compare_outputs(runs, specs, baseline, split=split, metric=metric, arms=arms)
        shown = {baseline, *table["arm"]}
        for run in runs:
            if run.arm in shown:
                self._compared.add(run, split_name(runs, run.task, split))
        return table

    equal_flops_steps = staticmethod(equal_compute.equal_flops_steps)
    compute_table = staticmethod(equal_compute.compute_table)

    def finish(self) -> None:
        """Decide the findings, save them with tables, figures and predictions, and show the verdict: see `result`."""
        end_of_plan()
        if self._all_runs and "runs" not in self.tables:
            self.add_table("runs", self.all_runs.table(), show=False)
        seconds = time.perf_counter() - self._started
        self.result = save_study(self, self._compared, self._changed, seconds)
        self._verdict.fill(self.result)
