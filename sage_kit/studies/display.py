"""What a study shows while it is executed: its verdict, tables and figures; outside a notebook, text."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sage_kit.studies.result import StudyResult

if TYPE_CHECKING:
    from pandas import DataFrame

PENDING = "The verdict stands here once the study is finished."

STYLE = "border:1px solid #8888;border-radius:6px;padding:.2em 1em;max-width:60em"
"""Of the verdict's box; half transparent, so that it suits a light page and a dark one."""


class VerdictBox:
    """A place in the notebook, made before the first run, in which the verdict appears when it is known."""

    def __init__(self) -> None:
        self._handle: Any = None
        if in_notebook():
            from IPython.display import display

            self._handle = display(_contents(f"<p><i>{PENDING}</i></p>", PENDING), raw=True, display_id=True)

    def fill(self, result: StudyResult) -> None:
        """Show findings with their state, sentence and corrected p: as HTML in a notebook, else as text."""
        if self._handle is None:
            print(_verdict_text(result))
        else:
            self._handle.update(_contents(_verdict_html(result), _verdict_text(result)), raw=True)
            print(f"The verdict is {result.verdict[0]!r}; the findings stand at the top of the notebook.")


def show_table(table: DataFrame, title: str = "") -> None:
    """Show a table with numbers of four digits."""
    if not in_notebook():
        if title:
            print(title)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        return
    from IPython.display import display

    page = table.to_html(index=False, float_format="{:.4g}".format, border=0)
    head = f"<p><b>{html.escape(title)}</b></p>" if title else ""
    display({"text/html": head + page, "text/plain": table.to_string(index=False)}, raw=True)


def show_figure(png: bytes, caption: str) -> None:
    """Show a picture and its caption."""
    if not in_notebook():
        print(f"Figure: {caption}")
        return
    from IPython.display import display

    data = base64.b64encode(png).decode("ascii")
    display({"image/png": data, "text/plain": caption}, raw=True)
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _contents(page: str, text: str) -> dict[str, str]:
    return {"text/html": f'<div class="verdict" style="{STYLE}">{page}</div>', "text/plain": text}


def _rows(result: StudyResult) -> Iterator[tuple[str, str, str, str]]:
    for finding in result.findings:
        p = "-" if math.isnan(finding.p_adjusted) else f"{finding.p_adjusted:.2g}"
        yield finding.state, finding.question, finding.sentence, p


def _verdict_text(result: StudyResult) -> str:
    lines = [
        f"{state:<9} {question}\n          {sentence}\n          corrected p: {p}"
        for state, question, sentence, p in _rows(result)
    ]
    return "\n".join([f"{result.title}: {result.verdict[0]}", *_notes(result), *lines])


def _verdict_html(result: StudyResult) -> str:
    rows = "".join(
        f"<tr><td><b>{html.escape(state)}</b></td><td style='text-align:left'>{html.escape(question)}<br>"
        f"{html.escape(sentence)}</td><td>{p}</td></tr>"
        for state, question, sentence, p in _rows(result)
    )
    notes = "".join(f"<p><b>{html.escape(note)}</b></p>" for note in _notes(result))
    head = "<tr><th>verdict</th><th style='text-align:left'>question</th><th>p, corrected</th></tr>"
    return f"{notes}<table>{head}{rows}</table>"


def _notes(result: StudyResult) -> list[str]:
    return ["A smoke run: these numbers are no evidence."] if result.profile == "smoke" else []
