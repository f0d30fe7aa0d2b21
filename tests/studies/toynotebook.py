"""Hand-made notebooks for the tests of the studies."""

from __future__ import annotations

import json
from pathlib import Path

PARAMETERS = """profile: str = "smoke"  # size of the study
seeds: int = None  # seeds of each arm
learning_rate: float | None = None  # peak learning rate of the student
dims: list[int] = [2, 8]  # dimensions of the map
verbose: bool = False  # print more
results_dir: str = "results"  # where the results go
"""

KERNEL = {"name": "no_such_kernel", "display_name": "Nobody has it", "language": "python"}


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS, text: str = "# A title") -> Path:
    """A notebook with a text, a cell of parameters and code cells; its file names a kernel that does not exist."""
    items = [{"cell_type": "markdown", "id": "text", "metadata": {}, "source": text.splitlines(keepends=True)}]
    sources = [] if parameters is None else [(parameters, ["parameters"])]
    sources += [(source, []) for source in cells]
    for number, (source, tags) in enumerate(sources):
        items.append(
            {
                "cell_type": "code", "id": f"cell{number}", "metadata": {"tags": tags}, "source": source,
                "outputs": [], "execution_count": None,
            }
        )  # fmt: skip
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": KERNEL}, "cells": items}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
