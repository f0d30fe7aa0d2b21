"""A child process that answers questions: a line of JSON in, a line of JSON out.

No pool of loky's does: a child may be of another interpreter, answers several times within a time limit, and is ended
alone with whatever it has started.

An answer is an object; ``{"event": "failed", "reason": ...}`` is one that says why there is no other. What the child
writes to its error output is kept, since the last line of it tells why a process ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from sage_kit.system.parent import end_itself, end_session, end_with

GRACE = 60.0
"""Most seconds that an ended process's output may take to be closed."""


def on_standard_streams(serve: Callable[[TextIO, TextIO], None]) -> None:
    """In the child: let a function answer on the standard streams; what else is printed goes to the error output.

    The child, and whatever it has started, end with the process that started it.

    Parameters
    ----------
    serve : callable
        Gets the requests and the stream for the answers.
    """
    end_with(os.getppid(), end_session if os.getpgrp() == os.getpid() else end_itself)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(sys.stdin, answers)


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


class ChildSilent(Exception):
    """The process did not answer in time."""


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
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                cwd=directory,
                # it may start processes of its own, which must end with it
                start_new_session=os.name != "nt",
            )
        except OSError:
            self._errors.close()
            raise
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def send(self, message: Any) -> None:
        """Hand a message to the process, which `receive` tells if it has ended.

        Parameters
        ----------
        message
            Anything that JSON can hold.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next answer, whatever it says.

        Parameters
        ----------
        seconds : float or None
            How long to wait for it; None waits until it comes.

        Returns
        -------
        dict

        Raises
        ------
        ChildSilent
            When it does not come in time.
        ChildEnded
            When the process ended, now or before.
        """
        try:
            line = self._answers.get(timeout=None if seconds is None else max(0.0, seconds))
        except queue.Empty:
            raise ChildSilent(f"no answer in {seconds:.0f} s") from None
        if line is None:
            self._answers.put(None)  # for whoever asks again
            raise ChildEnded(self._process.wait(), self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

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
        self.send(message)
        answer = self.receive()
        if answer.get("event") == "failed":
            raise ChildFailed(answer["reason"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """End the process and whatever it has started; further calls do nothing."""
        if self._process.poll() is None:
            if os.name == "nt":
                self._process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=GRACE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended before it had read everything
                    stream.close()
        self._errors.close()
