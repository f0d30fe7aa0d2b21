"""`python benchmarks [NAME]`: measure this project beside its peers."""

from __future__ import annotations

from sage_kit.cli import main
from sage_kit_bench.command import app

main(command=app)
