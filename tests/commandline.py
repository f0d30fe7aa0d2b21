"""Commands called within this process, and what no command may do whatever it is given."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from sage_kit.cli.app import main

LONGEST = 2000
"""Characters of the longest message: a screen of 25 lines."""


@dataclass(frozen=True)
class Answer:
    """What a command answered: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on the error output."""
        return (self.err.strip().splitlines() or [""])[-1]


def call(*arguments: str) -> Answer:
    """Call the command line; whatever it raises but SystemExit is a traceback that a user would see."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.detach().getvalue().decode())  # type: ignore[attr-defined]
    return Answer(code, *texts)


def call_well(*arguments: str) -> Answer:
    """Call the command line, and check that what it says is for people."""
    answer = call(*arguments)
    assert answer.code in (0, 1, 2), (arguments, answer)
    assert "Traceback" not in answer.err, (arguments, answer.err)
    if answer.code:
        assert answer.last or answer.out.strip(), (arguments, answer)
    assert len(answer.last) <= LONGEST, (arguments, answer.last)
    return answer
