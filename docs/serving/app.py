"""A service that says the class of texts, from a student that `sage-kit export` has written; torch is not needed.

pip install fastapi 'uvicorn[standard]' onnxruntime tokenizers numpy
STUDENT=runs/sst2/<run>/onnx uvicorn app:app --app-dir docs/serving --workers 2
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

FOLDER = Path(os.environ["STUDENT"])
LABELS = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["id2label"]
PAD = json.loads((FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]

tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # one worker a core answers more requests than one that takes all cores
session = onnxruntime.InferenceSession(str(FOLDER / os.environ.get("MODEL", "model.onnx")), options)
inputs = [one.name for one in session.get_inputs()]

app = FastAPI(title="Student")


class Asked(BaseModel):
    """Texts to be classified."""

    texts: list[Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(min_length=1, max_length=128)


class Answer(BaseModel):
    """The class of a text, and how likely it is by the student."""

    label: str
    probability: float


@app.post("/classify")
def classify(asked: Asked) -> list[Answer]:
    """The class of each text, in order."""
    encoded = tokenizer.encode_batch(asked.texts)
    values = {
        "input_ids": [one.ids for one in encoded],
        "attention_mask": [one.attention_mask for one in encoded],
        "token_type_ids": [one.type_ids for one in encoded],
    }
    (logits,) = session.run(None, {name: np.array(values[name], np.int64) for name in inputs})
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return [Answer(label=LABELS[str(row.argmax())], probability=float(row.max())) for row in shares]
