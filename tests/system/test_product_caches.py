"""What oneDNN keeps of products is bounded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sage_kit.config import load_config
from sage_kit.system.devices import make_accelerator
from sage_kit.system.product_caches import VARIABLES

GROWTH = """
import torch
from sage_bench.memory import resident
from sage_kit.config import load_config
from sage_kit.system.devices import make_accelerator

make_accelerator(load_config({"device": "cpu"}))
torch.set_num_threads(1)
weight = torch.randn(256, 64)
for rows in range(40, 540):
    torch.ops.mkldnn._linear_pointwise(torch.randn(rows, 64), weight, None, "none", [], "")
    if rows == 140:
        before = resident()["RssAnon"]
print((resident()["RssAnon"] - before) / 2**20)
"""


def test_the_environment_bounds_it_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "7")
    monkeypatch.delenv(VARIABLES[1], raising=False)
    make_accelerator(load_config({"device": "cpu"}))
    assert os.environ[VARIABLES[0]] == "7"
    assert int(os.environ[VARIABLES[1]]) < 1024
    monkeypatch.delenv(VARIABLES[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process as Linux tells it")
def test_memory_does_not_grow_with_the_sizes_of_products() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < 50  # 254 MB where nothing bounds it, on a processor with AVX-512
