"""How much is tried: `ci` is quick and always the same; `fuzz` (`tox run -e fuzz`) tries more, and other things."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# an example copies a folder and calls a command, which takes longer than hypothesis expects of one
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}

settings.register_profile("ci", **COMMON, max_examples=8, derandomize=True, database=None)
settings.register_profile("fuzz", **COMMON, max_examples=150, print_blob=True)
settings.load_profile("ci")  # unless --hypothesis-profile says otherwise


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path):
    """Everything that a command reads, whole."""
    from materials import make_materials

    return make_materials(tmp_path_factory.mktemp("materials"), tiny_bert)
