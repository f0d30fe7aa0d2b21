"""Saving a model as a plain transformers checkpoint that needs none of this package to be loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from sage_kit.components import handling_of
from sage_kit.models.architectures import architecture_of
from sage_kit.models.checkpoints import quiet
from sage_kit.models.families import family_of
from sage_kit.models.sentence_encoder import without_pooler
from sage_kit.models.sentence_folders import SentenceSettings, write_sentence_folder
from sage_kit.models.tokenizer_state import set_as_used

CHECKPOINT_FILES = ("config.json", "model.safetensors")
"""Files without which a folder is no checkpoint."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage_kit.components import TaskSpec


def set_task(config: Any, spec: TaskSpec) -> None:
    """Make a transformers configuration that of a model for the task.

    Parameters
    ----------
    config : PreTrainedConfig
        Changed in place: number and names of the outputs, and kind of problem.
    spec : TaskSpec
    """
    kind = handling_of(spec).spec
    if kind.problem_type:
        config.problem_type = kind.problem_type
    if kind.needs_names:
        config.id2label = dict(enumerate(spec.labels))
        config.label2id = {label: index for index, label in enumerate(spec.labels)}
    else:
        config.num_labels = spec.n_outputs


def export_student(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, spec: TaskSpec) -> None:
    """Write a whole model (input layers, blocks and head) and its tokenizer as a plain transformers checkpoint.

    ``AutoModelForSequenceClassification.from_pretrained(directory)``, or the like for another architecture, loads it
    without any code of this package, and ``pipeline("text-classification", directory, truncation=True)`` gives the
    run's own scores at any batch size. The argument is needed where a text may be longer than the run's `max_length`:
    transformers cuts nothing unless it is asked to, whatever is saved, and what it is asked to cut to is saved here.

    A sentence encoder becomes a folder of sentence-transformers, from which ``AutoModel`` loads the encoder.

    Parameters
    ----------
    model : PreTrainedModel
        With the head of the task's kind, on any device; not changed.
    tokenizer : PreTrainedTokenizerBase
        Saved beside it, in the state in which runs use it; not changed. Its `model_max_length` is the length limit, or
        the model's positions if these are fewer.
    directory : Path
        Made if absent. Files are written one by one: give a temporary directory where that matters.
    spec : TaskSpec
        Names the outputs.

    Raises
    ------
    OSError, SafetensorError
        When the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.config)
    stock, options, sentence = model, dict[str, Any](), None
    if architecture_of(model) == "embedding":
        whole: Any = model
        stock, sentence = whole.encoder, cast(SentenceSettings, whole.settings)
        options = without_pooler(type(stock))
    else:
        set_task(config, spec)
    config.dtype = torch.float32
    family = family_of(config)
    tokenizer = copy.deepcopy(tokenizer)
    max_length = min(tokenizer.model_max_length, family.max_tokens(config))
    set_as_used(tokenizer, max_length, token_types=family.uses_token_types(config))
    # a shell without memory takes the weights over as they are: no second initialisation, no random numbers drawn
    with torch.device("meta"):
        shell = type(stock)(config, **options)
    weights = {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in stock.state_dict().items()
    }
    shell.load_state_dict(weights, assign=True)
    with quiet():
        shell.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    if sentence is not None:
        write_sentence_folder(directory, sentence, dim=int(config.hidden_size), max_length=max_length)
