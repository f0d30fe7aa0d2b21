"""What a study finds: its tables and figures, and the questions that rows of these tables answer."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies import statistics
from sage_kit.studies.display import show_figure, show_table
from sage_kit.studies.predictions import DIVERGENCE
from sage_kit.studies.result import Finding, decided, pick_row
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS, Direction, Margin, State, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Findings:
    """Tables, figures and questions of a study; `sage_kit.studies.Study` decides the questions together, at its end."""

    tasks: tuple[str, ...]
    seeds: int

    def __init__(self) -> None:
        self.tables: dict[str, DataFrame] = {}
        self.figures: dict[str, tuple[bytes, str]] = {}
        self._asked: list[tuple[Finding, dict[State, str]]] = []

    def add_table(self, name: str, table: DataFrame, *, show: bool = True) -> None:
        """Keep a table, and show it: it is saved, and findings may point into it."""
        self.tables[name] = table
        if show:
            show_table(table, name.replace("_", " "))

    def add_figure(self, name: str, figure: Figure, caption: str) -> None:
        """Keep a figure, and show it: it is saved as ``<name>.png``."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        self.figures[name] = buffer.getvalue(), caption
        show_figure(buffer.getvalue(), caption)

    def find(
        self,
        name: str,
        question: str,
        *,
        table: str,
        row: Mapping[str, Any],
        yes: str,
        no: str,
        undecided: str = "",
        unit: str | None = None,
        threshold: float = 0.0,
        margin: Margin | None = None,
        direction: Direction = "above",
        columns: tuple[str, str, str] = ("difference", "low", "high"),
        claim: str = "",
    ) -> None:
        """Ask a question whose answer is in one row of a table; `finish` decides all of them together.

        Where the row is an average over tasks of which some lie above the threshold and others below, each with its
        whole interval, the average would hide that: the question is then asked of every task, as ``<name>_<task>``.

        Parameters
        ----------
        name, question, direction, claim
            As in `Finding`.
        table : str
            Name of a table that was added. Columns of it that are read where they are there: "n_seeds" (0 where no seed
            enters; without it, the study's seeds count), "n_examples", "df" (without it, n_seeds - 1, as Student's
            interval over seeds has it; without both, the interval counts as normal), "identical", and "k" and "n" of a
            share of runs with its exact interval (`statistics.reached_table`).
        row : mapping
            Columns and values that pick one row.
        yes, no, undecided : str
            The answers in words, without their numbers, which are put behind them: value, interval and, of an undecided
            one, the difference that could have been found. ``{column}`` is filled in from the row. `undecided` is "No
            significant difference" unless given.
        unit : str or None
            As in `Finding`; None takes "points" for scores and agreement, and "percent change" for divergence.
        threshold : float
            As in `Finding`.
        margin : Margin or None
            By how much a value may fall short of 0 and still suffice; stands for a threshold.
        columns : tuple of str
            Columns of value, low and high.

        Raises
        ------
        StudyError
            When the table or the row is not there, or a threshold and a margin are given.
        """
        if table not in self.tables:
            raise StudyError(f"finding {name!r}: there is no table {table!r}.{did_you_mean(table, self.tables)}")
        if margin is not None and threshold:
            raise StudyError(f"finding {name!r} has a threshold and a margin: give one of them")
        if margin is not None:
            threshold = -margin.value if direction == "above" else margin.value
        opposed = self._opposed(table, row, columns, threshold)
        for task in opposed:
            self.find(
                f"{name}_{task}", f"{question} ({task})", table=table, row={**row, "task": task}, yes=f"{task}: {yes}",
                no=f"{task}: {no}", undecided=f"{task}: {undecided or 'No significant difference'}", unit=unit,
                threshold=0.0 if margin else threshold, margin=margin, direction=direction, columns=columns,
                claim=claim,
            )  # fmt: skip
        if opposed:
            return
        there = pick_row(self.tables[table], row, table)
        value, low, high = (float(there[column]) for column in columns)
        # a comparison may rest on fewer seeds than the study has
        seeds = int(there.get("n_seeds", self.seeds))
        df = float(there.get("df", seeds - 1 if "n_seeds" in there and seeds > 1 else math.inf))
        if unit is None:
            unit = "" if "metric" not in there else PERCENT_CHANGE if there["metric"] == DIVERGENCE else POINTS
        usual = "No significant difference" if columns[0] == "difference" and margin is None else "Undecided"
        texts: dict[State, str] = {"yes": yes, "no": no, "undecided": undecided or usual}
        numbers = {"value": value, "low": low, "high": high, "threshold": threshold}
        shown = {key: number_text(number, unit, signed=columns[0] == "difference") for key, number in numbers.items()}
        finding = Finding(
            name, question, value, low, high, threshold, "undecided", "", unit, seeds, table, dict(row), columns,
            direction, claim, examples=int(there.get("n_examples", 0)), df=df,
            identical=bool(there.get("identical", False)),
            counts=(int(there["k"]), int(there["n"])) if {"k", "n"} <= there.keys() else None,
            margin_reason="" if margin is None else margin.reason,
            margin_effect=math.nan if margin is None else margin.effect,
        )  # fmt: skip
        self._asked.append(
            (finding, {state: text.format(**{**there, **shown, "unit": unit}) for state, text in texts.items()})
        )

    def decide(self) -> tuple[Finding, ...]:
        """The findings, decided together."""
        return decided([finding for finding, _ in self._asked], [texts for _, texts in self._asked])

    def _opposed(
        self, table: str, row: Mapping[str, Any], columns: tuple[str, str, str], threshold: float
    ) -> list[str]:
        """The tasks that a row averages over, where some lie above the threshold and others below; else none."""
        if row.get("task") != statistics.AVERAGE:
            return []
        _, low, high = columns
        rows = self.tables[table]
        names = [name for name in row if name != "task" and name in rows.columns]
        rows = rows[(rows[names] == [row[name] for name in names]).all(axis=1) & rows["task"].isin(self.tasks)]
        is_mixed = (rows[low] > threshold).any() and (rows[high] < threshold).any()
        return [str(task) for task in rows["task"]] if is_mixed else []
