"""What came out of a search: its best, what mattered, and the files that say so."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sage_kit.config import to_toml
from sage_kit.errors import StudyError
from sage_kit.reports.figures import DOTS_PER_INCH
from sage_kit.reports.markdown import table
from sage_kit.searching.search_finals import Check, Finals, check_best, choose
from sage_kit.searching.search_loop import Search, duration, passed_over, values_text
from sage_kit.searching.search_plan import AGREEMENT, DIVERGENCE, Ending
from sage_kit.searching.search_space import label_of
from sage_kit.searching.search_trials import DEFAULT, WHY
from sage_kit.storage.files import disk_errors, write_bytes, write_text
from sage_kit.studies.plots import bars

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST = "best.toml"
TABLE = "trials.csv"
REPORT = "report.md"
IMPORTANCE = "importance.png"
FILES = (BEST, TABLE, REPORT, IMPORTANCE)

LEAST_FOR_IMPORTANCE = 4


def finish(search: Search, ending: Ending, say: Callable[[str], None]) -> str:
    """Choose the best, check it, and write the files of the search; importance.png where there is enough to tell.

    Parameters
    ----------
    search : Search
        Its trials are made.
    ending : Ending
        What is run beside the trials.
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
    finals = choose(search, ending, say)
    best = finals.winner
    if best is None:
        reasons = [str(one.user_attrs.get(WHY, "no result")) for one in trials.finished()]
        raise StudyError(
            f"{folder}: no trial has a result ({reasons[0] if reasons else 'none ended'}): search other values"
        )
    check = check_best(search, best, ending, say)
    shares, why_none = importance(search)
    report = _report(search, finals, best, check, ending, shares, why_none)
    with disk_errors(str(folder)):
        write_text(folder / BEST, _best_toml(search, finals, best))
        write_text(folder / TABLE, _table(search))
        write_text(folder / REPORT, report)
        if shares:
            write_bytes(folder / IMPORTANCE, _picture(search, shares))
        else:
            (folder / IMPORTANCE).unlink(missing_ok=True)
    return report


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


def _best_toml(search: Search, finals: Finals, best: FrozenTrial) -> str:
    values = search.trials.values(best)
    config = search.plan.best_config(values)
    under = " under new seeds" if finals.standing else ""
    result = finals.standing[0].mean if finals.standing else best.value
    head = f"# Trial {best.number} of a search, the best by {_measure(search)} on dev{under} ({result:.4g})"
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
    finals: Finals,
    best: FrozenTrial,
    check: Check | None,
    ending: Ending,
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
    if finals.standing:
        lines.append(f"- **Finals**: {_finals_text(finals, ending, name)}")
    if default is not None and default.number != best.number:
        lines.append(f"- **Default**: trial {default.number}, {name} {default.value:.4g}.")
    lines.append(f"- **Check**: {_check_text(finals, best, check, name)}")
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


def _finals_text(finals: Finals, ending: Ending, name: str) -> str:
    means = ", ".join(
        f"trial {one.trial.number}{' (default)' if one.trial.user_attrs.get(DEFAULT) else ''} {one.mean:.4g}"
        for one in finals.standing
    )
    head = f"mean {name} on dev under {ending.final_seeds} new seeds, by which the best was chosen: {means}."
    first, won = finals.best, finals.winner
    if first is None or won is None or first.number == won.number:
        return head
    return f"{head} Trial {first.number}, the best of the search with {first.value:.4g}, fell behind."


def _check_text(finals: Finals, best: FrozenTrial, check: Check | None, name: str) -> str:
    if best.user_attrs.get(DEFAULT):
        where = " under the seeds of the finals" if finals.standing else ""
        return f"no trial was better than the default{where}, so there is nothing to hold against it."
    if check is None:
        return "none was asked for (`--check-seeds 0`), so the best may owe its place to chance."
    return (
        f"{check.verdict(name)} Seeds {', '.join(map(str, check.seeds))}, which neither a trial nor the finals had; "
        "the rows of dev are those that chose, so on other rows the difference may be smaller."
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
