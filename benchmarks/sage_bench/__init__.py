"""The benchmark behind `python benchmarks`: this project and its peers on the same work, alternately in one run. Light.

A bench is a module of this package with a function ``run(session)`` that returns a `records.Result`; `BENCHES` names
it. What benches share: `measure` (alternating repeats), `ceilings` (matrix products and copies), `child` (processes
that answer), `records` (what comes out), `report` (table, picture, JSON), `runner` (runs them).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sage_kit.errors import ConfigError, did_you_mean

BENCHES: Mapping[str, str] = MappingProxyType(
    {
        "start": "sage_bench.start",
        "distill": "sage_bench.distill",
        "synthesis": "sage_bench.synthesis",
        "scale": "sage_bench.scale",
        "rows": "sage_bench.rows",
        "predict": "sage_bench.predict",
        "explorer": "sage_bench.explorer",
    }
)
"""Module of each bench, in the order in which they run."""


def chosen_benches(name: str) -> list[str]:
    """The bench of that name, or all for "".

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name and name not in BENCHES:
        raise ConfigError(f"Unknown bench {name!r}.{did_you_mean(name, BENCHES)}")
    return [name] if name else list(BENCHES)
