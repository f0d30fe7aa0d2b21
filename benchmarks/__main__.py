"""`python benchmarks [NAME]`: measure this project beside its peers."""

from __future__ import annotations

from sage_bench.command import app
from sage_kit.cli import main

main(command=app)
