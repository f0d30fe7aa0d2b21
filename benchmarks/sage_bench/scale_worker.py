"""A process that makes rounds' synthetic examples at one size, so that its memory is its own.

It answers as `sage_kit.system.child` has it. The first line it reads is the set-up of `Rounds`; it answers with the
cost of the map. For every further line it makes one round and answers with what that took, and after the line
``"memory"`` with the most memory that it took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from sage_bench.generated import open_store
from sage_bench.memory import PeakMemory, most_resident, resident
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import load_config
from sage_kit.errors import SageError
from sage_kit.models.vectors import TeacherOutputs
from sage_kit.recipe import resolve
from sage_kit.storage.cache import Cache
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.system.child import on_standard_streams

LEAST_SECONDS = 1.0
"""Small rounds are made several times, since single ones are too short to time."""

STEPS = ("sample", "invert", "filter", "lift")

# the vectors have no text, so tokens keep the states that they have
MEASURED = {"sampler": "high_loss", "lift": "replace", "lift_options": {"positions": "carried"}}
"""Settings of what is measured: every step of the map."""


class Rounds:
    """Rounds of synthesis on a store of generated vectors, with generated losses.

    Parameters
    ----------
    setup : mapping
        "vectors" (a file of `write_vectors`), "settings" of the run, "count" of synthetic examples and "batches" to
        lift.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._count = int(setup["count"])
        self._batches = int(setup["batches"])
        config = load_config({**MEASURED, **setup["settings"]})
        store = open_store(Path(setup["vectors"]))
        rng = np.random.default_rng(0)
        n = len(store)
        self._losses = rng.lognormal(sigma=1.0, size=n).astype(np.float32)
        self._logits = rng.standard_normal((n, 2), dtype=np.float32)
        outputs = TeacherOutputs(rng.standard_normal((n, 2), dtype=np.float32), None)
        self._costs = Costs()
        cache = Cache(Path(config.cache_dir))
        self._synthesizer = Synthesizer(
            resolve(config, Plugins()), store, outputs, cache, torch.device("cpu"), lambda text: None, self._costs
        )
        self._number = 0

    def fit_map(self) -> dict[str, Any]:
        """Fit reducer and inverter; what that took [s]."""
        started = time.perf_counter()
        self._synthesizer.fit_map(1)
        return {"seconds": time.perf_counter() - started, "steps": dict(self._costs.seconds)}

    def round(self) -> dict[str, Any]:
        """Make synthetic examples and lift some batches of them, until enough time has passed.

        Returns
        -------
        dict
            "created" and "lifted" examples, and the seconds of each: "create_seconds" and "lift_seconds"; "steps", the
            seconds by step; "dropped" examples.
        """
        before = dict(self._costs.seconds)
        created = lifted = dropped = 0
        create_seconds = lift_seconds = 0.0
        while not created or create_seconds < LEAST_SECONDS:
            self._number += 1
            started = time.perf_counter()
            synthetic = self._synthesizer.create(self._number, self._count, self._losses, self._logits)
            plan = self._synthesizer.plan(synthetic)
            planned = time.perf_counter()
            chosen = plan[: self._batches]
            for number, rows in enumerate(chosen):
                self._synthesizer.lift(synthetic, rows, number)
            # the plan is one of all batches
            create_seconds += planned - started
            lift_seconds += time.perf_counter() - planned
            created += self._count
            dropped += synthetic.dropped
            lifted += sum(len(rows) for rows in chosen)
            del synthetic, plan
        steps = {name: self._costs.seconds.get(name, 0.0) - before.get(name, 0.0) for name in STEPS}
        return {
            "created": created, "lifted": lifted, "dropped": dropped, "create_seconds": create_seconds,
            "lift_seconds": lift_seconds, "steps": steps,
        }  # fmt: skip


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""

    def answer(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    with PeakMemory() as memory:
        rounds: Rounds | None = None
        for line in requests:
            message = json.loads(line)
            try:
                if message == "memory":
                    answer({
                        "before": memory.before, "peak": memory.peak, "most_resident": most_resident(),
                        "now": resident(),
                    })  # fmt: skip
                elif rounds is None:
                    rounds = Rounds(message)
                    answer(rounds.fit_map())
                else:
                    answer(rounds.round())
            except SageError as error:
                answer({"event": "failed", "reason": " ".join(str(error).split())})
            except MemoryError:
                answer({"event": "failed", "reason": "out of memory"})


if __name__ == "__main__":
    on_standard_streams(serve)
