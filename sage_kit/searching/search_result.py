"""What came out of a search: the best against the default under new seeds, what mattered, and the files that say so."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_kit.config import to_toml
from sage_kit.errors import StudyError
from sage_kit.reports.figures import DOTS_PER_INCH
from sage_kit.reports.markdown import table
from sage_kit.searching.search_loop import Search, duration, passed_over, values_text
from sage_kit.searching.search_plan import AGREEMENT, DIVERGENCE
from sage_kit.searching.search_space import label_of
from sage_kit.searching.search_trials import DEFAULT, WHY
from sage_kit.storage.files import disk_errors, write_bytes, write_text
from sage_kit.studies.arms import Arm, make_runs
from sage_kit.studies.plots import bars
from sage_kit.studies.predictions import compare_outputs
from sage_kit.studies.runs import Runs
from sage_kit.studies.verdicts import (
    ALPHA,
    PERCENT_CHANGE,
    POINTS,
    Direction,
    can_decide,
    number_text,
    state_of,
    unit_text,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST = "best.toml"
TABLE = "trials.csv"
REPORT = "report.md"
IMPORTANCE = "importance.png"
FILES = (BEST, TABLE, REPORT, IMPORTANCE)

BASELINE, CHOSEN = "default", "best"
LEAST_FOR_IMPORTANCE = 4


@dataclass(frozen=True)
class Check:
    """The best against the default, on dev, under seeds that the search did not use.

    Attributes
    ----------
    seeds : list of int
    default, best : float
        Means over the seeds of what was searched for.
    difference, low, high, p : float
        Of best less default, with its 95 % interval over seeds and rows; of divergence in its logarithm.
    unit : str
        As in `sage_kit.studies.verdicts`.
    steps : list of int
        The student steps of the runs, each number once.
    """

    seeds: list[int]
    default: float
    best: float
    difference: float
    low: float
    high: float
    p: float
    unit: str
    steps: list[int]

    @property
    def interval_text(self) -> str:
        """The difference and its interval in words."""
        value, low, high = (number_text(x, self.unit, signed=True) for x in (self.difference, self.low, self.high))
        return f"{value} {unit_text(self.unit)} (95 % interval {low} to {high})".replace("  ", " ")

    def verdict(self, name: str) -> str:
        """By rule one sentence: better or worse where the interval leaves zero out, with five seeds or more."""
        if not math.isfinite(self.difference):
            return f"Under {len(self.seeds)} new seeds, outputs of a run are no numbers: there is no comparison."
        direction: Direction = "below" if self.unit == PERCENT_CHANGE else "above"
        state = state_of(self.difference, 0.0, direction, self.p if can_decide(len(self.seeds)) else math.nan)
        head = (
            f"Under {len(self.seeds)} new seeds, on dev, the best settings have {name} {self.best:.4g} and the default "
        )
        head += f"{self.default:.4g}: {self.interval_text}. "
        if state == "yes":
            return f"{head}The best beat the default."
        if state == "no":
            return f"{head}The best are worse than the default: the search took chance for a gain; try more --seeds."
        if not can_decide(len(self.seeds)) and self.p < ALPHA:
            return f"{head}That points one way, but fewer than 5 seeds decide nothing (`--check-seeds 5`)."
        return f"{head}That shows no difference."


def finish(search: Search, check_seeds: int, say: Callable[[str], None]) -> str:
    """Check the best, and write best.toml, trials.csv, report.md and, where there is enough to tell, importance.png.

    Parameters
    ----------
    search : Search
        Its trials are made.
    check_seeds : int
        Seeds of the check; 0 for none.
    say : callable
        Shows one line to the user.

    Returns
    -------
    str
        The report, in Markdown.

    Raises
    ------
    StudyError
        When no trial has a result.
    """
    folder, trials = search.folder, search.trials
    best = trials.best()
    if best is None:
        reasons = [str(one.user_attrs.get(WHY, "no result")) for one in trials.finished()]
        raise StudyError(
            f"{folder}: no trial has a result ({reasons[0] if reasons else 'none ended'}): search other values"
        )
    found = check_best(search, check_seeds, say)
    shares, why_none = importance(search)
    report = _report(search, best, found, check_seeds, shares, why_none)
    with disk_errors(str(folder)):
        write_text(folder / BEST, _best_toml(search, best))
        write_text(folder / TABLE, _table(search))
        write_text(folder / REPORT, report)
        if shares:
            write_bytes(folder / IMPORTANCE, _picture(search, shares))
        else:
            (folder / IMPORTANCE).unlink(missing_ok=True)
    return report


def check_best(search: Search, seeds: int, say: Callable[[str], None] = lambda line: None) -> Check | None:
    """Run the best and the default under seeds that no trial had, and compare them on dev, paired by seed and row.

    Processes that do this at once share the runs. None where no seeds are asked for, or nothing beat the default.
    """
    plan, store, best = search.plan, search.store, search.trials.best()
    if not seeds or best is None or best.user_attrs.get(DEFAULT):
        return None
    say(f"the best, trial {best.number}, is held against the default under {seeds} new seeds")
    values = {BASELINE: {}, CHOSEN: search.trials.values(best)}
    numbers = range(plan.seeds, plan.seeds + seeds)
    asked = [(Arm(name), plan.run_config(own, number), "") for number in numbers for name, own in values.items()]
    runs = Runs(make_runs(store, asked))
    task = plan.base.task
    metric = plan.measure if plan.measure in (AGREEMENT, DIVERGENCE) else ""
    specs = {task: store.data(plan.base).spec}
    row = compare_outputs(runs, specs, BASELINE, split="dev", metric=metric).iloc[0]
    means = [row["baseline_mean"], row["mean"]]
    if metric == DIVERGENCE:  # compared in its logarithm
        means = [
            sum(run.divergence("dev") for run in runs.of(arm=name)) / seeds for name in (BASELINE, CHOSEN)
        ]  # fmt: skip
    return Check(
        seeds=sorted({run.seed for run in runs}),
        default=float(means[0]),
        best=float(means[1]),
        difference=float(row["difference"]),
        low=float(row["low"]),
        high=float(row["high"]),
        p=float(row["p"]),
        unit=PERCENT_CHANGE if metric == DIVERGENCE else POINTS,
        steps=sorted({run.summary["student_steps"] for run in runs}),
    )


# ---- what mattered --------------------------------------------------------------------------------------------------


def importance(search: Search) -> tuple[dict[str, float], str]:
    """How much of the spread of results each setting explains, by fANOVA, the largest first; or {} and why not.

    Hutter, Hoos and Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, as Optuna has it:
    over complete trials alone, and settings that all of them have.
    """
    import optuna

    always = [name for name in search.plan.space if all(name in one.params for one in _drawn(search))]
    if len(always) < 2:
        return {}, "a picture of what mattered needs two settings that every trial has"
    known = [one for one in search.trials.complete() if set(always) <= set(one.params)]
    if len(known) < LEAST_FOR_IMPORTANCE:
        few = "1 is" if len(known) == 1 else f"{len(known)} are"
        return {}, f"a picture of what mattered needs {LEAST_FOR_IMPORTANCE} complete trials, and {few} there"
    if len({one.value for one in known}) < 2:
        return {}, "all trials came out alike, so nothing mattered"
    study = optuna.create_study(direction=search.plan.direction)
    study.add_trials(known)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=search.plan.search_seed)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=always)
    except (RuntimeError, ValueError):  # trees that split nothing
        return {}, "the results do not go by any of the settings"
    return dict(sorted(found.items(), key=lambda item: -item[1])), ""


def _drawn(search: Search) -> list[FrozenTrial]:
    return [one for one in search.trials.complete() if not one.user_attrs.get(DEFAULT)]


def _picture(search: Search, shares: Mapping[str, float]) -> bytes:
    known = sum(shares.keys() <= one.params.keys() for one in search.trials.complete())
    rows = [{"setting": name, "share": share} for name, share in shares.items()]
    name = _measure(search)
    figure = bars(
        rows, title=f"What mattered for {name} on dev", unit=f"share of the spread over {known} trials, by fANOVA",
        label="setting", value="share", form=".2f",
    )  # fmt: skip
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DOTS_PER_INCH, format="png")
    return picture.getvalue()


# ---- files ----------------------------------------------------------------------------------------------------------


def _measure(search: Search) -> str:
    if search.plan.measure in (AGREEMENT, DIVERGENCE):
        return search.plan.measure
    return next(str(one.user_attrs["metric"]) for one in search.trials.complete())


def _command(search: Search, file: str) -> str:
    """The command that runs the best."""
    plugins = [word for path in search.plan.plugin_files for word in ("--plugin", path)]
    return shlex.join(["sage-kit", "run", "--config", file, *plugins])


def _best_toml(search: Search, best: FrozenTrial) -> str:
    values = search.trials.values(best)
    config = search.plan.best_config(values)
    head = f"# Try {best.number} of a search, the best by {_measure(search)} on dev ({best.value:.4g})"
    found = f": {values_text(values)}" if values else ", which is the default"
    return f"{head}{found}.\n# Run it: {_command(search, BEST)}\n\n{to_toml(config)}"


def _table(search: Search) -> str:
    """All trials that count, a row each."""
    names = list(search.plan.space)
    text = io.StringIO()
    columns = [
        "trial",
        "default",
        *names,
        "state",
        _measure(search),
        "agreement",
        "score",
        "steps",
        "seconds",
        "why",
        "runs",
    ]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for one in search.trials.finished():
        told, is_default = one.user_attrs, bool(one.user_attrs.get(DEFAULT))
        values = {name: one.params.get(name, "") for name in names}
        result = one.value if one.state.name == "COMPLETE" else ""
        writer.writerow([
            one.number, is_default, *values.values(), one.state.name.lower(), result,
            *(_joined(told.get(name)) for name in ("agreements", "scores", "steps")), told.get("seconds", ""),
            told.get(WHY, ""), _joined(told.get("runs")),
        ])  # fmt: skip
    return text.getvalue()


def _joined(values: Any) -> str:
    return " ".join("" if value is None else str(value) for value in values or ())


def _report(
    search: Search,
    best: FrozenTrial,
    check: Check | None,
    check_seeds: int,
    shares: Mapping[str, float],
    why_none: str,
) -> str:
    plan, trials, name = search.plan, search.trials, _measure(search)
    finished, complete = trials.finished(), trials.complete()
    seconds = sum(float(one.user_attrs.get("seconds", 0)) for one in finished)
    values = trials.values(best)
    counts = [f"{len(finished)} trials", f"{len(complete)} complete"]
    for state, words in (("PRUNED", "ended early or without a result"), ("FAIL", "failed")):
        count = sum(one.state.name == state for one in finished)
        counts += [f"{count} {words}"] if count else []
    default = next((one for one in complete if one.user_attrs.get(DEFAULT)), None)
    lines = [
        f"# Search on {plan.base.task}",
        "",
        f"{', '.join(counts)}; by {name} on dev, mean over {plan.seeds} seed{'s' if plan.seeds > 1 else ''} "
        f"from {plan.base.seed}. Together they took {duration(seconds)}, and scored no validation split.",
        "",
        f"- **Best**: trial {best.number}, {name} {best.value:.4g}: {values_text(values) or 'the default'}.",
    ]
    if default is not None and default.number != best.number:
        lines.append(f"- **Default**: trial {default.number}, {name} {default.value:.4g}.")
    lines.append(f"- **Check**: {_check_text(best, check, check_seeds, name)}")
    lines.append(f"- **Steps**: {_steps_text(search, check)}")
    for why, count in passed_over(trials).items():
        lines.append(f"- {count} draw{'s' if count > 1 else ''} passed over: {why}")
    lines += ["", "## Trials", "", _ranking(search, name), "", "## What mattered", ""]
    if shares:
        rows = [[f"`{setting}`", f"{share:.2f}"] for setting, share in shares.items()]
        lines.append(table(["setting", "share of the spread"], rows))
        left = [setting for setting in plan.space if setting not in shares]
        lines += ["", f"By fANOVA over {len(complete)} complete trials: a pointer, and no finding."]
        lines += [f"Without {', '.join(left)}, which some trials do not have."] if left else []
    else:
        lines.append(f"{why_none[0].upper()}{why_none[1:]}.")
    lines += ["", f"Run the best: `{_command(search, str(search.folder / BEST))}`"]
    return "\n".join(lines) + "\n"


def _check_text(best: FrozenTrial, check: Check | None, check_seeds: int, name: str) -> str:
    if best.user_attrs.get(DEFAULT):
        return "no trial was better than the default, so there is nothing to hold against it."
    if check is None:
        return f"none was asked for (`--check-seeds {check_seeds}`), so the best may owe its place to chance."
    return (
        f"{check.verdict(name)} Seeds {', '.join(map(str, check.seeds))}, which no trial had; the rows of dev are "
        "those that chose, so on other rows the difference may be smaller."
    )


def _steps_text(search: Search, check: Check | None) -> str:
    ended = [one for one in search.trials.complete() if one.user_attrs.get("steps")]
    counts = sorted({count for one in ended for count in one.user_attrs["steps"]} | set(check.steps if check else ()))
    if len(counts) == 1:
        return f"every complete run took {counts[0]:,} student steps."
    if not search.plan.has_equal_steps:
        return (
            f"from {counts[0]:,} to {counts[-1]:,}, since they were searched: a longer run is no better for its length."
        )
    return f"from {counts[0]:,} to {counts[-1]:,}: the stop rule has ended some runs early."


def _ranking(search: Search, name: str) -> str:
    names = list(search.plan.space)
    sign = 1.0 if search.plan.direction == "minimize" else -1.0
    complete = sorted(search.trials.complete(), key=lambda one: sign * float(one.value or 0.0))
    others = [one for one in search.trials.finished() if one.state.name != "COMPLETE"]
    rows = []
    for one in [*complete, *others]:
        told = one.user_attrs
        is_default = bool(told.get(DEFAULT))
        cells = [f"{one.number}{' (default)' if is_default else ''}"]
        cells += [_cell(one.params.get(setting)) for setting in names]
        cells.append(f"{one.value:.4g}" if one.state.name == "COMPLETE" else str(told.get(WHY, "")))
        cells += [_mean(told.get("agreements")), _mean(told.get("scores"))]
        rows.append(cells)
    return table(["trial", *(f"`{setting}`" for setting in names), name, "agreement", "score"], rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else label_of(value).replace("|", "\\|")


def _mean(values: Any) -> str:
    known = [value for value in values or () if value is not None]
    return f"{sum(known) / len(known):.4f}" if known else ""
