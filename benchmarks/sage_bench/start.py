"""Bench `start`: how long one waits for `--help`, for `plugins`, and for the first training step with warm caches.

Each is a process of its own, timed from its start by the clock of the system. What `import torch` alone takes is
measured the same way and subtracted repeat by repeat.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sage_bench.distill import MINILM, MINILM_MODEL, write_teacher
from sage_bench.measure import Contender, Session, Work, alternate
from sage_bench.real_texts import task_settings
from sage_bench.records import Line, Result, Spread, Target
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import SageError

TORCH, HELP, LISTING, STEP = "import torch", "sage-kit --help", "sage-kit plugins", "first step, warm caches"
BEYOND = "first step, beyond import torch"
PROCESSOR = "processor seconds"
"""Of all threads: what others do on a busy machine weighs on it less than on the wall clock."""

GOAL = 3.0
SLOWEST_MODULES = 20

OBSERVER = '''\
"""Writes the time at which the first training step of round one was done, and ends the process."""

import os
import time

from sage_kit import hookimpl
from sage_kit.components import ObserverSpec, Options


class FirstStep:
    def __init__(self, options, context):
        pass

    @hookimpl
    def sage_step_finished(self, run, activity, done, total, loss):
        if activity == "round 1":
            with open(os.environ["SAGE_KIT_BENCH_FILE"], "w", encoding="utf-8") as file:
                file.write(repr(time.time()))
            os._exit(0)


@hookimpl
def sage_observers():
    yield ObserverSpec(name="first_step", summary="Ends at the first step", factory=FirstStep, options=Options)
'''


def run(session: Session) -> Result:
    """Time the processes alternately, and say which imports the first step waits for."""
    commands = _commands(session)
    first_step = commands.pop(STEP)
    session.announce("filling the caches")
    _process_until_step(first_step, session.scratch)
    contenders = [Contender(name, partial(_process, command)) for name, command in commands.items()]
    contenders.append(Contender(STEP, partial(_process_until_step, first_step, session.scratch)))
    measured = alternate(
        contenders, repeats=4 if session.quick else 9, budget=18.0 if session.quick else 180.0,
        announce=session.announce,
    )  # fmt: skip
    seconds = {name: result.seconds() for name, result in measured.items()}
    processor = {name: result.figure(PROCESSOR) for name, result in measured.items()}
    beyond, processor_beyond = (_less(spreads[STEP], spreads[TORCH]) for spreads in (seconds, processor))
    modules = slowest_imports(first_step, session.scratch)
    work = "from the start of the process"
    notes = {
        STEP: "sage-kit run on sentences, all that is made once per data set cached",
        TORCH: "subtracted from the first step",
    }
    ours = (HELP, LISTING, STEP)
    lines = [
        Line(
            work, name, {"seconds": spread, PROCESSOR: processor[name]}, is_ours=name in ours, note=notes.get(name, "")
        )
        for name, spread in seconds.items()
    ]
    figures = {"seconds": beyond, PROCESSOR: processor_beyond}
    lines.append(Line(work, BEYOND, figures, is_ours=True, note="what the target is about"))
    told = ", ".join(f"{name} {own:.2f} s" for name, own in list(modules.items())[:8])
    return Result(
        "start",
        lines,
        [Target("time to the first step beyond importing torch", beyond, GOAL, at_least=False, unit=" s")],
        [f"Packages whose modules take longest to import on the way to the first step, torch aside: {told}."],
        {"import_seconds_by_package": modules},
    )


def _less(spread: Spread, other: Spread) -> Spread:
    """Differences repeat by repeat."""
    return Spread.of(a - b for a, b in zip(spread.values, other.values, strict=True))


def _commands(session: Session) -> dict[str, list[str]]:
    """The command line of each process."""
    _, settings = task_settings(session, "sentences")
    teacher = session.scratch / "teacher"
    config = load_config({**settings, "teacher": MINILM})
    write_teacher(MINILM_MODEL, teacher, config, Plugins())
    plugin = session.scratch / "first_step.py"
    plugin.write_text(OBSERVER, encoding="utf-8")
    flags: dict[str, Any] = {
        **settings,
        "teacher": teacher,
        "train_rows": 400,
        "validation_rows": 50,
        "student_layers": MINILM_MODEL.layers,
        "observers": "first_step",
        "cache_dir": session.scratch / "cache",
        "runs_dir": session.scratch / "runs",
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    sage_kit = [sys.executable, "-m", "sage_kit"]
    return {
        TORCH: [sys.executable, "-c", "import torch"],
        HELP: [*sage_kit, "--help"],
        LISTING: [*sage_kit, "plugins"],
        STEP: [*sage_kit, "run", "--plugin", str(plugin), *arguments],
    }


def _process(command: list[str]) -> Work:
    """A process from its start to its end."""
    used, started = processor_seconds(), time.perf_counter()
    _call(command, os.environ)
    return Work({}, time.perf_counter() - started, {PROCESSOR: processor_seconds() - used})


def _process_until_step(command: list[str], scratch: Path) -> Work:
    """A process from its start to the time that the observer writes, at which it ends."""
    file = scratch / "first-step.txt"
    file.unlink(missing_ok=True)
    used, started = processor_seconds(), time.time()
    _call(command, {**os.environ, "SAGE_KIT_BENCH_FILE": str(file)})
    if not file.exists():
        raise SageError(f"{' '.join(command)}: ended without a training step")
    seconds = float(file.read_text(encoding="utf-8")) - started
    return Work({}, seconds, {PROCESSOR: processor_seconds() - used})


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _call(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise SageError(f"{' '.join(command)}: exit code {done.returncode}: {lines[-1]}")
    return done.stderr


def slowest_imports(
    command: list[str], scratch: Path, call: Callable[[list[str], Mapping[str, str]], str] = _call
) -> dict[str, float]:
    """Seconds that importing took by package, without what it imports of others, torch left out, the longest first.

    Taken from one run under ``python -X importtime``, which itself slows imports down.
    """
    python, *rest = command
    environment = {**os.environ, "SAGE_KIT_BENCH_FILE": str(scratch / "importtime.txt")}
    return import_seconds(call([python, "-X", "importtime", *rest], environment))


def import_seconds(report: str) -> dict[str, float]:
    """What ``-X importtime`` wrote, summed by top-level package; torch left out, the longest first."""
    sums: dict[str, float] = {}
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", report, flags=re.MULTILINE):
        package = name.partition(".")[0]
        if package != "torch":
            sums[package] = sums.get(package, 0.0) + int(own) / 1e6
    return dict(sorted(sums.items(), key=lambda item: -item[1])[:SLOWEST_MODULES])
