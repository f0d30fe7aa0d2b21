from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch

from sage_kit.errors import DiskFullError, ModelError
from sage_kit.models.checkpoints import load_classifier, load_model_config, load_tokenizer


@pytest.fixture
def checkpoint(tiny_bert, tmp_path):
    """A copy of the tiny BERT, to be damaged."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "checkpoint"))


def edit_config(directory, **settings):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


# ---- hub names


@pytest.mark.parametrize("load", [load_model_config, load_classifier, load_tokenizer])
def test_hub_out_of_reach(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=r"'no-such/model' is not on this machine and the hub cannot be reached"
    ) as caught:
        load("no-such/model")
    assert "local directory or package:MODULE/PATH" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "neither a local directory nor on the hub"),
        ("GatedRepoError", "is gated on the hub"),
    ],
)
def test_hub_refuses(kind, message, tmp_path, monkeypatch):
    """The hub's answers, as its client raises them."""
    import transformers
    from huggingface_hub import errors

    def answer(name):
        # made without the response that its constructor wants, whose class depends on the client's version
        raise OSError("long text\nin lines") from getattr(errors, kind).__new__(getattr(errors, kind))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.PretrainedConfig, "get_config_dict", answer)
    with pytest.raises(ModelError, match=f"model 'some/model' .*{message}"):
        load_model_config("some/model")


# ---- loading


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_encoder_alone_loads_with_its_head_missing(family, tmp_path):
    loaded = load_classifier(str(tiny.make_checkpoint(tmp_path, family)))
    heads = {
        **{name: {"classifier"} for name in ("bert", "ernie", "albert", "nomic_bert")},
        "distilbert": {"pre_classifier", "classifier"},
        "deberta-v2": {"pooler.dense", "classifier"},
        "modernbert": {"head.dense", "head.norm", "classifier"},
    }
    expected = heads.get(family, {"classifier.dense", "classifier.out_proj"})
    assert {name.rpartition(".")[0] for name in loaded.missing} == expected
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config._attn_implementation == ("eager" if family in tiny.EAGER else "sdpa")
    assert not loaded.model.training


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_trained_classifier_loads_whole(family, tmp_path):
    loaded = load_classifier(str(tiny.make_checkpoint(tmp_path, family, labels=3)))
    assert not loaded.missing
    original = tiny.make_model(family, labels=3)
    ids = torch.arange(11, 19)[None]
    assert torch.equal(loaded.model(ids).logits, original(ids).logits)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("head", ["MaskedLM", "TokenClassification", "MultipleChoice"])
def test_checkpoints_of_other_heads_have_no_trained_head(family, head, tmp_path):
    import transformers

    config = tiny.make_config(family, labels=5)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    model.save_pretrained(tmp_path)
    loaded = load_classifier(str(tmp_path))
    output = f"{loaded.family.head_output}.weight"
    assert output in loaded.missing
    # BERT's multiple choice has the same pooler
    dense = f"{loaded.family.head_dense}.weight"
    assert (dense in loaded.missing) == (dense not in model.state_dict())
    encoder = {name: tensor for name, tensor in loaded.model.state_dict().items() if name not in loaded.missing}
    theirs = model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in encoder.items())


def test_half_precision_checkpoint_loads_in_float32(checkpoint):
    from transformers import AutoModel

    AutoModel.from_pretrained(checkpoint, dtype=torch.float16).save_pretrained(checkpoint)
    assert json.loads((checkpoint / "config.json").read_text())["dtype"] == "float16"
    assert load_classifier(str(checkpoint)).model.dtype == torch.float32


def test_loading_draws_no_random_numbers_and_says_nothing(tiny_bert, capfd):
    from transformers.utils import logging

    before, verbosity, bars = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_classifier(str(tiny_bert))
    load_tokenizer(str(tiny_bert))
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, bars)


@pytest.mark.parametrize("model_type", ["roformer", "no_such_type", None])
def test_other_types_are_refused(checkpoint, model_type):
    edit_config(checkpoint, model_type=model_type)
    with pytest.raises(ModelError, match=rf"of type '{model_type or 'unknown'}': supported are bert, "):
        load_classifier(str(checkpoint))


def test_code_in_a_checkpoint_is_not_run(checkpoint):
    (checkpoint / "mine.py").write_text("raise RuntimeError('run')")
    edit_config(checkpoint, auto_map={"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"})
    assert type(load_classifier(str(checkpoint)).model).__module__.startswith("transformers.")
    edit_config(checkpoint, model_type="mine")
    with pytest.raises(ModelError, match="of type 'mine'"):
        load_classifier(str(checkpoint))


def test_configuration_that_is_no_json(checkpoint):
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"its config.json cannot be read: .*not a valid JSON"):
        load_model_config(str(checkpoint))


def test_no_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors: choose a checkpoint with safetensors"):
        load_classifier(str(checkpoint))


def test_pickled_weights_are_not_read(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model.safetensors \(pytorch_model.bin is not read: it is a pickle\)"):
        load_classifier(str(checkpoint))


def test_truncated_weights(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="its weights cannot be read"):
        load_classifier(str(checkpoint))


def test_weights_of_another_size(checkpoint):
    edit_config(checkpoint, vocab_size=100)
    with pytest.raises(ModelError, match=r"word_embeddings.weight is \(\d+, 32\) in the weights and \(100, 32\)"):
        load_classifier(str(checkpoint))


def test_head_of_another_size(tmp_path):
    tiny.make_checkpoint(tmp_path, labels=4)
    edit_config(tmp_path, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(ModelError, match=r"classifier.* is \(4.*\) in the weights and \(2"):
        load_classifier(str(tmp_path))


def test_missing_blocks(checkpoint):
    edit_config(checkpoint, num_hidden_layers=6)
    with pytest.raises(ModelError, match=r"lack 32 parameters of the encoder, among them bert.encoder.layer.4"):
        load_classifier(str(checkpoint))


def test_full_disk_while_reading_from_the_hub(tiny_bert, monkeypatch):
    import errno

    import transformers

    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", fill)
    with pytest.raises(DiskFullError):
        load_classifier(str(tiny_bert))


# ---- tokenizers


def test_no_tokenizer(checkpoint):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer: name one that fits with the setting tokenizer"):
        load_tokenizer(str(checkpoint))


@pytest.mark.parametrize("content", ["{", "{}", '{"model": 3}'])
def test_damaged_tokenizer(checkpoint, content):
    (checkpoint / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="its tokenizer cannot be read"):
        load_tokenizer(str(checkpoint))
