"""A child process that answers questions: a line of JSON in, a line of JSON out. Light.

An answer is an object; ``{"event": "failed", "reason": ...}`` is one that says why there is no other. What the child
writes to its error output is kept, since the last line of it tells why a process ended.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ChildEnded(Exception):
    """The process ended without an answer.

    Attributes
    ----------
    code : int
        Its exit code.
    last_words : str
        The last line that it wrote to its error output; "" where it wrote none.
    """

    def __init__(self, code: int, last_words: str) -> None:
        super().__init__(f"its process ended: {last_words or f'exit code {code}'}")
        self.code = code
        self.last_words = last_words


class ChildFailed(Exception):
    """The process answered that it failed; the text is the reason that it gave."""


class Child:
    """A process that answers on its standard streams.

    Parameters
    ----------
    command : sequence of str
    directory : Path, optional
        Where it runs; here when left out.

    Raises
    ------
    OSError
        When the command cannot be started.
    """

    def __init__(self, command: Sequence[str], directory: Path | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
                encoding="utf-8", cwd=directory,
            )  # fmt: skip
        except OSError:
            self._errors.close()
            raise

    def ask(self, message: Any) -> dict[str, Any]:
        """Send a message, and wait for the answer to it.

        Parameters
        ----------
        message
            Anything that JSON can hold.

        Returns
        -------
        dict

        Raises
        ------
        ChildFailed
            When the process says that it failed.
        ChildEnded
            When it ended, now or before.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildEnded(self._process.wait(), self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if answer.get("event") == "failed":
            raise ChildFailed(answer["reason"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """End the process, if it has not ended; further calls do nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # it ended before it had read everything
            self._process.stdin.close()
        self._errors.close()
