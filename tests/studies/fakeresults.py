"""Made-up results of studies, saved as real ones are."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_kit.config import PRESETS
from sage_kit.studies.result import Finding, StudyResult, decided, label_of
from sage_kit.studies.verdicts import STATES

MACHINE = {"processor": "Test CPU", "cores": 2, "card": ""}


def make_finding(name: str, low: float, high: float, **changes: Any) -> Finding:
    """A finding with an interval around the middle; `save_result` decides it."""
    values: dict[str, Any] = {
        "question": f"Is {name} so?",
        "value": (low + high) / 2,
        "sentence": f"About {name}.",
        "unit": "points",
        "seeds": 5,
        "table": "comparison",
        "row": {"arm": "sage"},
        "claim": "",
        "threshold": 0.0,
        "state": "undecided",
    }
    return Finding(name=name, low=low, high=high, **{**values, **changes})


def decide(*findings: Finding) -> tuple[Finding, ...]:
    """Findings as a study decides them together, with the sentences that they have."""
    found = decided(findings, [dict.fromkeys(STATES, "") for _ in findings])
    return tuple(dataclasses.replace(new, sentence=old.sentence) for new, old in zip(found, findings, strict=True))


def save_result(root: Path, study: str, *findings: Finding, **changes: Any) -> StudyResult:
    """Save a result of profile small on CoLA and SST-2, or as `changes` say."""
    profile, tasks = changes.get("profile", "small"), tuple(changes.get("tasks", ("cola", "sst2")))
    values: dict[str, Any] = {
        "title": f"Title of {study}",
        "question": f"What of {study}?",
        "label": label_of(profile, tasks),
        "profile": profile,
        "tasks": tasks,
        "seeds": 5,
        "parameters": {"profile": profile, "task": None},
        "settings": {},
        "time": "2026-01-01T00:00:00+00:00",
        "seconds": 12.0,
        "machine": MACHINE,
        "packages": {"torch": "2.9"},
        "data": {"cola": "abc"},
    }
    result = StudyResult(study=study, findings=decide(*findings), **{**values, **changes, "tasks": tasks})
    folder = root / study / result.label
    result.save(folder)
    return StudyResult.load(folder)


def runs_of(arms: Sequence[str], tasks: Sequence[str], seeds: int = 5, mark: str = "", **settings: Any) -> Any:
    """Runs as a result records them, made with the settings of the preset paper but for those that are given."""
    return tuple(
        {
            "task": task, "arm": arm, "seed": seed, "run": f"{mark}{task}-{arm}-{seed}+synthetic",
            "key": f"{mark}{task}-{arm}-{seed}", "settings": {**PRESETS["paper"], **settings},
        }
        for task in tasks
        for arm in arms
        for seed in range(seeds)
    )  # fmt: skip


def png(width: int = 2, height: int = 2) -> bytes:
    """A whole PNG file, grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + b"\x80" * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
