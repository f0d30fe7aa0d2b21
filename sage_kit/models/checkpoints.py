"""Loading checkpoints: classifiers, sentence encoders and tokenizers.

Only safetensors weights are read: nothing is unpickled, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sage_kit.data.tokens import panics_told
from sage_kit.errors import ModelError, SageError, causes_of, one_line
from sage_kit.models.architectures import SUFFIXES, auto_class, has_class, is_trained_as
from sage_kit.models.families import family_of, model_types, unsupported
from sage_kit.models.layouts import (
    has_weights,
    instead_of_weights,
    pickled,
    settings_of_checkpoint_below,
    tokenizer_near,
)
from sage_kit.models.locations import resolve
from sage_kit.models.sentence_encoder import load_sentence_encoder
from sage_kit.storage.files import disk_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage_kit.components import FamilySpec
    from sage_kit.components.task_kinds import Architecture
    from sage_kit.models.sentence_folders import SentenceSettings


@dataclass(frozen=True)
class Checkpoint:
    """A loaded classifier of sequences, tokens or spans, or a sentence encoder.

    Attributes
    ----------
    model : PreTrainedModel
        On the CPU, float32, SDPA attention, eval mode.
    family : FamilySpec
        Its family.
    missing : frozenset of str
        Parameters, all of the head, that the checkpoint does not hold: they are random. Empty for a trained classifier.
    """

    model: PreTrainedModel
    family: FamilySpec
    missing: frozenset[str]


def load_model_config(name: str) -> Any:
    """The transformers configuration of a checkpoint, its model type checked to be a supported one.

    Raises
    ------
    ModelError
        When it cannot be found or read, or is of another type.
    """
    from transformers import AutoConfig, PretrainedConfig

    source = resolve(name)
    with readable("config.json", name, source):
        settings, _ = PretrainedConfig.get_config_dict(source)
        # asked before transformers builds the configuration, so that types unknown to it get the same answer
        if settings.get("model_type") not in model_types():
            below = "" if settings.get("model_type") else settings_of_checkpoint_below(Path(source), name)
            hint = f"; a folder in it holds a checkpoint: set {below}" if below else ""
            raise ModelError(unsupported(str(settings.get("model_type") or "unknown"), name) + hint)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    family_of(config, name)
    return config


def load_classifier(
    name: str, architecture: Architecture = "sequence", sentence: SentenceSettings | None = None
) -> Checkpoint:
    """A checkpoint as a classifier of sequences, tokens or spans, with the outputs that its own configuration asks for.

    With `sentence` it becomes a sentence encoder, which has no head.

    Checkpoints of encoders alone and of other heads (masked language models and the like) load, too; their classifier's
    head is new and its parameters are listed as missing. The global random state stays as it was.

    Raises
    ------
    ModelError
        When the checkpoint cannot be found or read, has no safetensors weights, is of no supported family, or when its
        weights do not fit its configuration.
    """
    config = load_model_config(name)
    family = family_of(config, name)
    if not has_class(config, architecture):
        raise ModelError(
            f"model {name!r} is of type {config.model_type!r}, and transformers has no {SUFFIXES[architecture]} model "
            "of that type, which the task needs: choose a teacher of another family"
        )
    source = resolve(name)
    with readable("weights", name, source), quiet(), torch.random.fork_rng(devices=[]):
        load = (
            partial(load_sentence_encoder, settings=sentence) if sentence else auto_class(architecture).from_pretrained
        )
        model, info = load(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=family.attention,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            # reported below in one line; transformers would print a table instead
            ignore_mismatched_sizes=True,
        )
    for key, stored, expected in sorted(info["mismatched_keys"]):
        # an output layer of another kind of head may bear the same name
        if not (family.in_head(key, architecture) and not is_trained_as(config, architecture)):
            raise ModelError(
                f"model {name!r}: the weights do not fit its config.json: {key} is {tuple(stored)} in the weights and "
                f"{tuple(expected)} by the configuration"
            )
    absent = sorted(key for key in info["missing_keys"] if not family.in_head(key, architecture))
    if absent:
        raise ModelError(
            f"model {name!r}: its weights lack {len(absent)} parameters of the encoder, among them {absent[0]}: the "
            "checkpoint is incomplete, or its config.json belongs to another"
        )
    missing = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    if not is_trained_as(config, architecture):
        # e.g. a multiple-choice model, whose output layer has the same name and another meaning
        missing |= {key for key in model.state_dict() if key.startswith(f"{family.head_for(architecture).output}.")}
    # The weights lie in the mapped file, at whatever offset: the same product then differs in its last bits, and is
    # slower, than from memory of torch's own alignment. A copy is also safe from changes to the file.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    model.eval()
    return Checkpoint(model, family, frozenset(missing))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises
    ------
    ModelError
        When it cannot be found or read.
    """
    from transformers import AutoTokenizer

    source = resolve(name, needs="")  # a tokenizer may stand alone
    with readable("tokenizer", name, source), quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # without any file of a tokenizer, transformers makes one that knows its special tokens only
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        near = tokenizer_near(Path(source), name) if Path(source).is_dir() else ""
        raise ModelError(
            f"model {name!r} has no tokenizer: name one that fits with the setting tokenizer{near and f', {near}'}"
        )
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' load reports and progress bars from the terminal; errors still raise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def readable(part: str, name: str, source: str) -> Iterator[None]:
    """Turn what transformers, the hub's client and safetensors raise into one line that says what to do."""
    try:
        with disk_errors(f"the files of model {name!r}"), panics_told():
            yield
    except SageError:
        raise
    except Exception as error:  # each library has its own classes, and the tokenizers raise Exception itself
        raise ModelError(_explain(error, part, name, source)) from error


def _no_weights(directory: Path, name: str) -> str:
    """What a checkpoint without safetensors has instead, and what to do."""
    if directory.is_dir():
        found = instead_of_weights(directory, name) or "choose a checkpoint with safetensors weights"
        if found.startswith("has no"):
            return found
        return f"has no model.safetensors{' ' if found.startswith('(') else ': '}{found}"
    from transformers import PretrainedConfig

    settings, _ = PretrainedConfig.get_config_dict(name)  # read before, so it is in the cache
    target = name.rpartition("/")[2]
    remedy = pickled("pytorch_model.bin", name, settings.get("architectures"), target)
    return f'has no model.safetensors {remedy}, and set teacher = "./{target}" and tokenizer = "{name}"'


def _explain(error: BaseException, part: str, name: str, source: str) -> str:
    from huggingface_hub import errors as hub

    chain = causes_of(error)

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(item, kinds) for item in chain)

    called = f"model {name!r}"
    directory = Path(source)
    is_local = directory.is_dir()
    if not is_local:
        if is_any(hub.GatedRepoError):
            return f"{called} is gated on the hub: ask for access there and log in with `hf auth login`"
        if is_any(hub.RevisionNotFoundError):
            return f"{called}: the hub has no such revision of it: name a commit, a tag or a branch behind the @"
        if is_any(hub.RepositoryNotFoundError):
            return f"{called} is neither a local directory nor on the hub (or it is private): check its name"
        if is_any(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError, TimeoutError):
            return (
                f"{called} is not on this machine and the hub cannot be reached: give a local directory or "
                "package:MODULE/PATH as its name, or connect"
            )
    no_file = isinstance(error, OSError) and "model.safetensors" in str(error)
    if part == "weights" and no_file and not has_weights(directory):
        return f"{called} {_no_weights(directory, name)}"
    return f"{called}: its {part} cannot be read: {one_line(error)[:200]} ({type(error).__name__})"
