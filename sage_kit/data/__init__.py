"""Tasks, tokens and batches: from text on disk or the hub to length-bucketed batches of token ids."""

from sage_kit.data.batches import plan_batches
from sage_kit.data.corpus import load_corpus
from sage_kit.data.splits import Split, TaskData, load_task
from sage_kit.data.tokens import Tokens, tokenize

__all__ = [
    "Split",
    "TaskData",
    "Tokens",
    "load_corpus",
    "load_task",
    "plan_batches",
    "tokenize",
]
