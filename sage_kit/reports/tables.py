"""Tables of results for people: rich tables on a terminal, the same numbers everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from sage_kit.components.records import RoundResult
    from sage_kit.reports.decoding import Decoding


COMPARED = {"agreement": "agreement with teacher", "divergence": "divergence from teacher"}
"""What a student's outputs are compared with the teacher's by, and the heading of each."""


SIDE_BY_SIDE = 4
"""Most scores of several validation splits that stand in columns beside each other; of more, each split has a row."""


def outcome_tables(arms: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The tables of finished runs: what they cost and how they score.

    Parameters
    ----------
    arms : mapping of str to mapping
        As for `comparison_table`.
    """
    return [
        table for table in (comparison_table(arms), splits_table(arms), evaluation_table(arms)) if table is not None
    ]


def comparison_table(arms: Mapping[str, Mapping[str, Any]]) -> Table:
    """The teacher and one row per arm: metrics and agreement on the validation splits, size, steps, tokens, seconds.

    Where several splits have more than `SIDE_BY_SIDE` scores, the first is shown, and `splits_table` has them all.

    Parameters
    ----------
    arms : mapping of str to mapping
        Summaries of runs (``summary.json``) by the arm's name; all with the same task and teacher.
    """
    from rich.table import Table

    first = next(iter(arms.values()))
    # summaries of earlier versions do not say
    source = first.get("validation_source") or f"{'official ' if first['task'] != 'file' else ''}validation data"
    table = Table(title=f"{first['task']}: {source}, used for reporting only", title_justify="left")
    table.add_column("model")
    columns = _score_columns(first["validation"], _side_by_side(first["validation"]))
    for split, name in columns:
        heading = "agreement with teacher" if name == "agreement" else name
        table.add_column(f"{split}\n{heading}" if len(first["validation"]) > 1 else heading, justify="right")
    for heading in ("deployable parameters", "student steps", "teacher tokens", "seconds"):
        table.add_column(heading, justify="right")
    teacher = first["teacher"]["validation"]
    cells = ["-" if name == "agreement" else _number(teacher[split][name]) for split, name in columns]
    seconds = max(summary["teacher"]["seconds"] for summary in arms.values())
    made = f"{seconds:.0f}" if first["teacher"]["finetuned_here"] else "-"
    table.add_row(_teachers(first), *cells, f"{first['parameters']['teacher']:,}", "-", "-", made)
    for arm, summary in arms.items():
        cells = [_number(summary["validation"][split][name]) for split, name in columns]
        table.add_row(
            arm,
            *cells,
            f"{summary['parameters']['student']:,}",
            f"{summary['student_steps']:,}",
            f"{summary['teacher_tokens']:,}",
            f"{summary['seconds']:.0f}",
        )
    return table


def splits_table(arms: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """One row per validation split: the teacher's score in the primary metric, each arm's, and its agreement.

    None where `comparison_table` shows all splits.

    Parameters
    ----------
    arms : mapping of str to mapping
        As for `comparison_table`.
    """
    from rich.table import Table

    first = next(iter(arms.values()))
    if len(_side_by_side(first["validation"])) == len(first["validation"]):
        return None
    metric = first["primary_metric"]
    table = Table(title=f"{first['task']}: every validation split", title_justify="left")
    table.add_column("split")
    for heading in (f"teacher\n{metric}", *(f"{arm}\n{name}" for arm in arms for name in (metric, "agreement"))):
        table.add_column(heading, justify="right")
    for split in first["validation"]:
        found = [summary["validation"][split][name] for summary in arms.values() for name in (metric, "agreement")]
        table.add_row(split, *map(_number, [first["teacher"]["validation"][split].get(metric), *found]))
    return table


def evaluation_table(arms: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The teacher and one row per arm: scores on the evaluation set; None where there is none.

    Parameters
    ----------
    arms : mapping of str to mapping
        As for `comparison_table`.
    """
    from rich.table import Table

    first = next(iter(arms.values()))
    if not first.get("evaluation"):
        return None
    table = Table(title=f"evaluation set: {first['examples']['evaluation']:,} rows", title_justify="left")
    table.add_column("model")
    names = [name for name in first["evaluation"] if name not in (*COMPARED, "calibration_error")] + list(COMPARED)
    for name in names:
        table.add_column(COMPARED.get(name, name), justify="right")
    own_teacher = {_teachers(first): first["teacher"]["evaluation"]}
    scores = own_teacher | {arm: found["evaluation"] for arm, found in arms.items()}
    for model, own in scores.items():
        table.add_row(model, *(_number(own.get(name)) for name in names))
    return table


def rounds_table(history: Sequence[RoundResult], primary_metric: str) -> Table:
    """One row per round: steps, losses, agreement, the primary metric on the dev split and on validation."""
    from rich.table import Table

    table = Table(title="rounds", title_justify="left")
    splits = _side_by_side(history[-1].validation) if history else []
    parts = ["dev", *splits]
    headings = ["round", "steps", "loss", "synthetic loss", "synthetic", "outside\nhull", "dropped", "agreement\ntrain"]
    for heading in [*headings, "agreement\ndev", *(f"{primary_metric}\n{part}" for part in parts), "seconds"]:
        table.add_column(heading, justify="right")
    for result in history:
        table.add_row(
            str(result.round),
            str(result.steps),
            _number(result.train_loss),
            _number(result.synthetic_loss),
            str(result.synthetic),
            _number(result.outside_hull),
            str(result.dropped),
            _number(result.train_agreement),
            _number(result.dev["agreement"]),
            _number(result.dev[primary_metric]),
            *(_number(result.validation[split][primary_metric]) for split in splits),
            f"{result.seconds:.1f}",
        )
    return table


def primary_of(summary: Mapping[str, Any] | None, history: Sequence[RoundResult]) -> str:
    """The primary metric: as a finished run says, else the first of a round's scores."""
    return summary["primary_metric"] if summary is not None else next(iter(history[-1].dev), "agreement")


def costs_table(costs: Mapping[str, Mapping[str, float]]) -> Table:
    """Seconds, tokens and FLOPs by activity, the longest first."""
    from rich.table import Table

    table = Table(title="costs", title_justify="left")
    for heading in ("activity", "seconds", "tokens", "GFLOP"):
        table.add_column(heading, justify="left" if heading == "activity" else "right")
    for activity, seconds in sorted(costs["seconds"].items(), key=lambda item: -item[1]):
        tokens, flops = costs["tokens"].get(activity, 0), costs["flops"].get(activity, 0)
        gigaflops = f"{flops / 1e9:,.0f}" if flops else "-"
        table.add_row(activity, f"{seconds:.1f}", f"{tokens:,}" if tokens else "-", gigaflops)
    return table


def decoding_table(decoding: Decoding) -> Table:
    """One row per synthetic example: its anchor's text, both as decoded, the share of changes, and the margin."""
    from rich.table import Table
    from rich.text import Text

    title = (
        f"round {decoding.round}: {len(decoding.examples)} of {decoding.synthetic} synthetic examples by decoder "
        f"{decoding.decoder!r}"
    )
    table = Table(title=title, title_justify="left", show_lines=True)
    # of a lift that makes text, no decoder has to say what it is
    has_text = any(example.synthetic_text for example in decoding.examples)
    own = ["synthetic text"] if has_text else []
    for heading in ("anchor", "anchor's text", *own, "anchor decoded", "synthetic decoded"):
        table.add_column(heading, justify="right" if heading == "anchor" else "left")
    has_margin = any(not math.isnan(example.margin) for example in decoding.examples)
    for heading in ("changed", *(["margin"] if has_margin else [])):
        table.add_column(heading, justify="right")
    for example in decoding.examples:
        written = [example.synthetic_text] if has_text else []
        texts = (example.text, *written, example.anchor_decoded, example.synthetic_decoded)
        changed = "-" if math.isnan(example.changed) else f"{example.changed:.0%}"
        # as Text: what stands in brackets must not be taken for markup
        table.add_row(
            str(example.anchor), *map(Text, texts), changed, *([_number(example.margin)] if has_margin else [])
        )
    return table


def _side_by_side(validation: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The splits whose scores fit into columns beside each other: all, or the first."""
    splits = list(validation)
    return splits if len(_score_columns(validation, splits)) <= SIDE_BY_SIDE else splits[:1]


def _score_columns(validation: Mapping[str, Mapping[str, float]], splits: Sequence[str]) -> list[tuple[str, str]]:
    columns = []
    for split in splits:
        columns += [(split, name) for name in validation[split] if name not in ("agreement", "calibration_error")]
        columns.append((split, "agreement"))
    return columns


def _teachers(summary: Mapping[str, Any]) -> str:
    """What the row of the teacher is called."""
    others = summary["teacher"].get("others", ())
    return f"mean of {1 + len(others)} teachers" if others else "teacher"


def _number(value: float | None) -> str:
    """A score or a loss; NaN, which JSON holds as None, is a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
