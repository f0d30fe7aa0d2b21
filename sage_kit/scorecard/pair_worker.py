"""A process that scores pairs for the grid, so that one that hangs or crashes can be ended without harm.

It speaks JSON, a line at a time. The first line it reads holds ``vectors`` (a directory), ``plugin_files`` and ``out``;
each later one a pair's settings. It answers ``{"event": "ready"}`` once, ``{"event": "placed"}`` when the map of a pair
is there, and for each pair ``{"event": "scored", "card": ...}`` or ``{"event": "failed", "reason": ...,
"late": ...}``, late when it passed its own time budget.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import BudgetError, SageError, one_line
from sage_kit.scorecard.held_out import TaskVectors
from sage_kit.scorecard.placement import Placement, place_vectors
from sage_kit.scorecard.score import score_pair
from sage_kit.storage.files import only_finite
from sage_kit.system.child import on_standard_streams

KEPT_BYTES = 2**28
"""Size of the training vectors above which only the latest fitted reducer is kept: many hold a copy of them."""


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""

    def answer(event: str, **more: Any) -> None:
        answers.write(json.dumps(only_finite({"event": event, **more})) + "\n")
        answers.flush()

    setup = json.loads(requests.readline())
    vectors = TaskVectors.load(Path(setup["vectors"]))
    plugins = Plugins(setup["plugin_files"])
    placements: dict[str, Placement] = {}
    answer("ready")
    for line in requests:
        settings = json.loads(line)
        reducer = json.dumps([settings[name] for name in ("reducer", "n_components", "reducer_options")])
        try:
            config = load_config(settings)
            if reducer not in placements:
                if vectors.train.nbytes > KEPT_BYTES:
                    placements.clear()
                placements[reducer] = place_vectors(config, plugins, vectors)
            answer("placed")
            card = score_pair(config, plugins, vectors, placements[reducer])
            card.save(setup["out"])
            answer("scored", card=card.to_json(), directory=card.name)
        except SageError as error:
            answer("failed", reason=one_line(error), late=isinstance(error, BudgetError))
        except Exception as error:  # whatever a component did, the next pair may do better
            answer("failed", reason=f"{type(error).__name__}: {one_line(error)}", late=False)


if __name__ == "__main__":
    on_standard_streams(serve)
