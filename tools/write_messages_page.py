"""Write `docs/messages.md`: the classes of errors, exit codes and remedies, with messages that are made by mistakes.

Every message on the page is what the command line prints when the mistake is made in a folder of small files.

    python tools/write_messages_page.py           # write the page
    python tools/write_messages_page.py --check   # only say whether it is up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

from written_page import write_or_check

from sage_kit import errors
from sage_kit.cli import main as command_line
from sage_kit.errors import SageError
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import disk_errors, write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "messages.md"
REGENERATE = "python tools/write_messages_page.py"

FILES = {
    "reviews.csv": "text,label\n" + "".join(f"film {n} grips,1\nfilm {n} is dull,0\n" for n in range(20)),
    "gaps.csv": "text,label\na gripping film,1\n,0\n",
    "mine.toml": "runds = 3\n",
    "broken.py": "from sage_kit import hookimpl\n\n\n@hookimpl\ndef sage_reducers():\n    yield undefined\n",
    "wishes.py": "from sage_kit import hookimpl\nfrom sage_kit.components import ReducerSpec\n\n\n"
    "@hookimpl\ndef sage_reducers():\n"
    "    yield ReducerSpec(name='wish', summary='A wish', factory=dict, requires=('wishes>=2',))\n",
    "runs/one/config.toml": "task = 'movie_reviews'\n",
    "notebooks/05_reducers.ipynb": (ROOT / "notebooks" / "05_reducers.ipynb").read_text(encoding="utf-8"),
}
"""The folder in which the mistakes are made."""

OWN = "--task file --train-file reviews.csv --reducer pca"


def lock_twice() -> None:
    """Ask for a run directory that is held already."""
    first = RunDirectory(Path("runs", "one"))
    first.lock()
    try:
        RunDirectory(first.path).lock()
    finally:
        first.unlock()


def lose_a_process() -> None:
    """Wait for another process of a run that is gone."""
    from types import SimpleNamespace
    from typing import Any

    from sage_kit.system.processes import telling_of_lost

    two: Any = SimpleNamespace(num_processes=2, process_index=0)
    with telling_of_lost(
        two, lambda: "the same launcher with `sage-kit resume runs/one` goes on from the last checkpoint"
    ):
        raise RuntimeError("gloo: Connection closed by peer [10.0.0.2]:41234")


def trust_nobody() -> None:
    """Open a directory that names Python files."""
    from sage_kit.rundir.run_record import trusted_plugins

    trusted_plugins("runs/one", ["broken.py"], [], trust=False)


def fill_the_disk() -> None:
    """Write to the device that is always full."""
    with disk_errors("runs/one/checkpoints/003", "free some space, then resume the run"):
        Path("/dev/full").write_text("no room", encoding="utf-8")


def invert_slowly() -> None:
    """Invert more points than the budget allows."""
    import numpy as np

    from sage_kit.builtin.inverters import NativeOptions
    from sage_kit.builtin.inverters.native import NativeInverter
    from sage_kit.components import BuildContext
    from sage_kit.config import load_config

    class Slow:
        def inverse_transform(self, coordinates: np.ndarray) -> np.ndarray:
            return np.zeros((len(coordinates), 4), np.float32)

    inverter = NativeInverter(NativeOptions(budget_seconds=1e-9), BuildContext(load_config()))
    points = np.zeros((5000, 2), np.float32)
    inverter.fit(points[:10], np.zeros((10, 4), np.float32), Slow())
    inverter.invert(points, np.zeros(5000, np.int64))


Mistake = str | tuple[str, Callable[[], None]]

MISTAKES: Mapping[type[SageError], tuple[Mistake, ...]] = {
    errors.ConfigError: (f"run {OWN} --rounds 0", "run --config mine.toml"),
    errors.UnknownComponentError: (f"run {OWN} --sampler high_los", "run --task sst3 --reducer pca"),
    errors.CompatibilityError: (
        "run --task stsb --reducer pca --sampler boundary",
        f"run {OWN} --granularity pooled --lift replace",
    ),
    errors.PluginError: ("run --plugin broken.py --reducer mine",),
    errors.MissingPackageError: ("run --plugin wishes.py --reducer wish",),
    errors.DataError: (
        "run --task file --train-file gaps.csv --reducer pca",
        f"run {OWN} --text-column txt",
        "run --task file --train-file review.csv --reducer pca",
    ),
    errors.ModelError: (f"run {OWN} --teacher package:nosuch/model", f"run {OWN} --teacher bert-base-uncased"),
    errors.HubError: ("push runs/one https://huggingface.co/owner/name",),
    errors.RunDirectoryError: ("show runs/two", "show runs"),
    errors.RunInUseError: (("A second program opens the directory of a run that is being made", lock_twice),),
    errors.RunHeldError: (),
    errors.ProcessLostError: (("Of two processes that make a run, one is killed", lose_a_process),),
    errors.TrustError: (("A run is resumed that began with `--plugin broken.py`", trust_nobody),),
    errors.DiskFullError: (("A checkpoint is written to a disk without space", fill_the_disk),),
    errors.StudyError: ("study run 05 -p seeds=none", "study run 05 -p seed=3"),
    errors.BudgetError: (("The inverter `native` is given `budget_seconds=1e-9`", invert_slowly),),
}
"""What makes an error of each class: a command, or a situation and a function that brings it about."""

ADVICE: Mapping[type[SageError], str] = {
    errors.ConfigError: "[Settings](configuration.md) has every name, its values and its default; `sage-kit config` "
    "prints a file to start from.",
    errors.UnknownComponentError: "`sage-kit plugins` lists what is installed. `SAGE_KIT_PLUGINS` may leave a plugin "
    "out.",
    errors.CompatibilityError: "The message names both choices and often which other goes with which.",
    errors.PluginError: "The line ends with the plugin's file and line; `--traceback` shows the rest. To go on without "
    "the plugin, set `SAGE_KIT_PLUGINS=-NAME`. `sage-kit check` says what else is wrong with it.",
    errors.MissingPackageError: "Where the plugin says how it is installed, the message ends with that command.",
    errors.DataError: "File, row and column are named; rows count from 1, without the head. [Tasks](tasks.md) has the "
    "shapes of files.",
    errors.ModelError: "A local folder, `package:MODULE/PATH` and a name on the hub all work as a teacher; "
    "[Checkpoints from packages](checkpoints.md) has some that need no hub.",
    errors.HubError: "`hf auth login` once, or `HF_TOKEN`. `--dry-run` shows what would go without a network.",
    errors.RunDirectoryError: "A run lies in `runs/TASK/TIME-HASH`; `sage-kit run` prints it at its start and end.",
    errors.RunInUseError: "Where the process that is named has ended, so has the lock: nothing has to be removed.",
    errors.RunHeldError: "Studies that share their runs raise it among themselves and ask again; no command shows it.",
    errors.ProcessLostError: "The process that ended first has said why, on its host; "
    "[Several processes](architecture.md#several-processes) tells what they share.",
    errors.TrustError: "A plugin is a program: read it before you trust it. Files that are named with `--plugin` count "
    "by their name, wherever they lie now.",
    errors.DiskFullError: "Nothing half written is left. `sage-kit cache --clear` frees the caches, which are computed "
    "again when they are needed.",
    errors.StudyError: "`sage-kit study list` has the studies and their parameters.",
    errors.BudgetError: "The message names components that are faster.",
}
"""What helps beside what the message says."""

HEAD = f"""<!-- Written by `{REGENERATE}`; change that file, not this page. -->

# Messages and remedies

A mistake ends a command with one line on the error stream, `sage-kit: ...`, which says what is wrong, where, and what
to do, and leaves nothing half written. From Python the same text is an exception of `sage_kit.errors`; `SageError`
catches them all, and in a notebook it shows as one line. `--traceback`, or `SAGE_KIT_DEBUG=1`, shows where it came from.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the system refused a file (it is named); or the command's own answer is no: a cell of a study failed, `study verify` found a difference, `check` found a fault |
| 2 | a mistake that the user can mend: one of the classes below, or an option that there is not |
| 130 | interrupted; `sage-kit resume DIR` goes on from the last checkpoint |

The messages below are real, of an installation without plugins: `{REGENERATE}` makes each mistake and
writes down what is said.
"""  # noqa: E501


def page() -> str:
    """The text of the page; makes every mistake."""
    parts = [HEAD]
    with folder_of_files():
        for kind, mistakes in MISTAKES.items():
            wrong, _, remedy = (inspect.getdoc(kind) or "").partition("\n")[0].partition(": ")
            base = kind.__mro__[1].__name__
            special = f" It is a `{base}`, too." if base != "SageError" else ""
            parts.append(f"## `{kind.__name__}`\n\n{wrong}. **{remedy[:1].upper()}{remedy[1:]}**{special}\n")
            parts.append(f"{ADVICE[kind]}\n")
            for mistake in mistakes:
                what, said = made(mistake, kind)
                parts.append(f"{what}\n\n```text\nsage-kit: {said}\n```\n")
    return "\n".join(parts).rstrip() + "\n"


@contextlib.contextmanager
def folder_of_files() -> Iterator[None]:
    """A temporary folder with `FILES` as the current one, without a hub and external plugins."""
    before = Path.cwd()
    closed = {"HF_HUB_OFFLINE": "1", "SAGE_KIT_PLUGINS": "", "SAGE_KIT_DATA_DIR": "", "SAGE_KIT_DEBUG": ""}
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, closed):
        del os.environ["SAGE_KIT_DEBUG"]
        os.chdir(folder)
        try:
            for name, text in FILES.items():
                path = Path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, text)
            yield
        finally:
            os.chdir(before)


def made(mistake: Mistake, kind: type[SageError]) -> tuple[str, str]:
    """How a mistake is made, as text of the page, and what is said of it.

    Raises
    ------
    RuntimeError
        Where it raises nothing, or another class.
    """
    seen: list[BaseException] = []
    if isinstance(mistake, str):
        stream = io.StringIO()
        with (
            patch("sage_kit.cli.app.show_traceback", seen.append),
            contextlib.redirect_stderr(stream),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            command_line(shlex.split(mistake))
        said = stream.getvalue().strip().rpartition("\n")[2].removeprefix("sage-kit: ")
        what = f"    sage-kit {mistake}"
    else:
        situation, bring_about = mistake
        try:
            bring_about()
        except SageError as error:
            seen.append(error)
        said, what = str(seen[-1]) if seen else "", f"{situation}:"
    if [type(error) for error in seen] != [kind]:
        raise RuntimeError(f"{mistake!r} ends with {seen!r} and not with one {kind.__name__}")
    here = re.escape(os.getcwd() + os.sep)
    return what, re.sub(r"\(\d+ on [^)]+\)", "(4711 on HOST)", re.sub(here, "", said))


def main() -> int:
    """Write or compare; the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/messages.md by making mistakes.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    text = page()
    return write_or_check(PAGE, text, REGENERATE, only_check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
