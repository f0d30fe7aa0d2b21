"""Several processes, started by a launcher, make one run together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from toyrun import toy_config, toy_run

from sage_kit.config import to_toml
from sage_kit.rundir import RunDirectory


def test_two_processes_on_the_cpu(tmp_path: Path, tiny_bert: Path) -> None:
    target = tmp_path / "run"
    config = tmp_path / "config.toml"
    config.write_text(to_toml(toy_config(tmp_path, tiny_bert, run_dir=str(target), rounds=2)))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "sage_kit",
         "run", "--config", str(config)],
        env={**os.environ, "SAGE_KIT_PLUGINS": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    summary = RunDirectory.open(target).summary()
    assert summary["processes"] == 2
    first, second = summary["rounds"]
    # each process takes half of the batches
    _, alone = toy_run(tmp_path, tiny_bert, rounds=1)
    assert first["steps"] == -(-alone["rounds"][0]["steps"] // 2)
    assert second["synthetic"] == 270
    assert second["train_loss"] < first["train_loss"]
    assert summary["validation"]["validation"]["agreement"] > 0.7
    assert RunDirectory.open(target).latest_checkpoint().profile["losses"].isfinite().all()
