"""Another library's distillation loop in a process of its own, on the same models and examples.

Started as a script, perhaps by the Python of another environment, so it imports nothing of this package. It answers as
`sage_kit.system.child` has it: first to the set-up, then to one line per epoch that is to be trained. The answers go to
what was standard output when it began; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import itertools
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, cast


def main() -> None:
    """Set up one peer, then train an epoch whenever a line comes."""
    # this script's folder holds modules that nobody here means when importing by name
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # what an old library warns of is not what is measured here
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)

    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    setup = json.loads(sys.stdin.readline())
    try:
        epoch, about = PEERS[setup["peer"]](setup)
    except Exception as error:  # a library that does not fit the versions around it may raise anything
        answer(event="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
        return
    answer(event="ready", about=about)
    for _ in sys.stdin:
        try:
            seconds = epoch()
        except Exception as error:  # as above
            answer(event="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
            return
        answer(event="done", seconds=seconds)


class Examples:
    """Tokenised examples as a map-style data set; `collate` pads to the longest of a batch."""

    def __init__(self, path: str, pad_id: int) -> None:
        from safetensors.numpy import load_file

        arrays = load_file(path)
        offsets = arrays["offsets"]
        spans = [slice(int(a), int(b)) for a, b in itertools.pairwise(offsets)]
        self.items = [
            {
                "input_ids": arrays["ids"][span].tolist(),
                "token_type_ids": arrays["types"][span].tolist(),
                "attention_mask": [1] * (span.stop - span.start),
            }
            for span in spans
        ]
        self.pads = {"input_ids": pad_id, "token_type_ids": 0, "attention_mask": 0}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.items[index]

    def collate(self, items: list[dict[str, list[int]]]) -> dict[str, Any]:
        """A batch as tensors."""
        import torch

        longest = max(len(item["input_ids"]) for item in items)
        return {
            name: torch.tensor([item[name] + [pad] * (longest - len(item[name])) for item in items])
            for name, pad in self.pads.items()
        }


def _load(setup: dict[str, Any]) -> tuple[Any, Any, Examples]:
    """Teacher, student (each epoch takes a copy) and examples."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    teacher, student = (
        AutoModelForSequenceClassification.from_pretrained(setup[name]).to(setup["device"])
        for name in ("teacher", "student")
    )
    teacher.eval().requires_grad_(False)
    return teacher, student, Examples(setup["examples"], setup["pad_id"])


def _about(distribution: str) -> str:
    import torch
    import transformers

    version = importlib.metadata.version(distribution)
    return f"{distribution} {version}, torch {torch.__version__}, transformers {transformers.__version__}"


def textbrewer(setup: dict[str, Any]) -> tuple[Callable[[], float], str]:
    """TextBrewer's `GeneralDistiller` as its documentation has it: logits only, padding to the longest of a batch."""
    library = importlib.import_module("textbrewer")
    import torch

    teacher, student, examples = _load(setup)

    def adaptor(batch: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits}

    def epoch() -> float:
        model = copy.deepcopy(student).train()
        distiller = library.GeneralDistiller(
            library.TrainingConfig(output_dir=setup["scratch"], device=torch.device(setup["device"])),
            library.DistillationConfig(temperature=setup["temperature"]),
            teacher, model, adaptor, adaptor,
        )  # fmt: skip
        # an epoch ends with a pickle of the student, which no other contender writes
        distiller.save_and_callback = lambda *arguments: None
        optimizer = torch.optim.AdamW(model.parameters(), lr=setup["learning_rate"], fused=True)
        loader: Any = torch.utils.data.DataLoader(
            cast(Any, examples), batch_size=setup["batch_size"], shuffle=True, collate_fn=examples.collate
        )
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere), distiller:
            model.train()
            started = time.perf_counter()
            distiller.train(optimizer, loader, num_epochs=1, max_grad_norm=1.0)
            return time.perf_counter() - started

    return epoch, _about("textbrewer")


def torchdistill(setup: dict[str, Any]) -> tuple[Callable[[], float], str]:
    """The loop of torchdistill as its text-classification example has it, through `get_distillation_box`."""
    import torch

    get_box = importlib.import_module("torchdistill.core.distillation").get_distillation_box
    register = importlib.import_module("torchdistill.datasets.registry").register_collate_func
    teacher, student, examples = _load(setup)
    register(key="pad_to_longest")(lambda items: examples.collate(items))
    loss = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": "classifier", "student_module_io": "output", "teacher_module_path": "classifier",
            "teacher_module_io": "output", "temperature": setup["temperature"], "alpha": 0.0,
        },
    }  # fmt: skip
    models = {"forward_proc": "forward_batch_only_as_kwargs", "forward_hook": {"input": [], "output": ["classifier"]}}

    def epoch() -> float:
        model = copy.deepcopy(student)
        box = get_box(
            teacher, model, {"train": examples},
            {
                "num_epochs": 1,
                "train_data_loader": {
                    "dataset_id": "train",
                    "requires_supp": False,
                    "sampler": {"class_or_func": torch.utils.data.RandomSampler},
                    "collate_fn": "pad_to_longest",
                    "kwargs": {"batch_size": setup["batch_size"]},
                },
                "teacher": {**models, "requires_grad": False},
                "student": models,
                "optimizer": {
                    "key": "AdamW",
                    "kwargs": {"lr": setup["learning_rate"], "fused": True},
                    "max_grad_norm": 1.0,
                },
                "criterion": {
                    "key": "WeightedSumLoss",
                    "kwargs": {"model_term": {"weight": 0}, "sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}},
                },
            },
            torch.device(setup["device"]), None, False, 1,
        )  # fmt: skip
        started = time.perf_counter()
        box.pre_epoch_process(epoch=0)
        for batch in box.train_data_loader:
            box.pre_forward_process()
            box.post_forward_process(box.forward_process(batch, None, None))
        box.post_epoch_process()
        seconds = time.perf_counter() - started
        box.clean_modules()
        teacher.requires_grad_(False)
        return seconds

    return epoch, _about("torchdistill")


PEERS: dict[str, Callable[[dict[str, Any]], tuple[Callable[[], float], str]]] = {
    "textbrewer": textbrewer,
    "torchdistill": torchdistill,
}

if __name__ == "__main__":
    main()
