"""The run directory: what a run writes, and what `resume` and `show` read.

A directory becomes a run with config.toml, which is written last of what begins one. Paths below the home folder are
written from ``~`` on, and addresses without passwords.

::

    config.toml            the settings, complete
    environment.json       versions, machine, components, where they came from and all their options; the settings and
                           the plugins that the run began with
    metrics.jsonl          one line per round (written by the observer `jsonl`)
    costs.json             seconds, tokens and FLOPs by activity
    costs.jsonl            the same of each round (observer `costs`)
    map.safetensors        coordinates of the real examples
    rounds/NNN/            the round's synthetic examples, synthetic.safetensors, and losses.parquet (observer
                           `loss_profile`)
    checkpoints/round-NNN/ student, optimizer, loss profile, components' state and history; 000 is of the warm-up
    student/               the student as a plain transformers checkpoint
    figures/               what `sage-kit show` draws
    profile/               a round's traces, and where it went: where_it_went.txt (setting `trace`)
    disabled_observers.json  observers that failed, and why; only where one did
    trackers.json          the run's names in trackers, with tensorboard/ and wandb/ (observer `tracker`)
    predictions.safetensors  the student's last outputs on dev and the validation splits, the teacher's and the labels
    manifest.json          size and checksum of the files of a finished run
    summary.json           the outcome; written last, so a run without it is not finished
"""

from __future__ import annotations

from sage_kit.rundir.checkpoint import Checkpoint
from sage_kit.rundir.directory import PREDICTIONS, RunDirectory
from sage_kit.rundir.run_record import settings_hash

__all__ = ["PREDICTIONS", "Checkpoint", "RunDirectory", "settings_hash"]
