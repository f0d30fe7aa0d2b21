from __future__ import annotations

import re

import pytest
import tiny
import tinyview
import torch

from sage_kit.errors import CompatibilityError
from sage_kit.models.view import masked_lm

FAMILIES = pytest.mark.parametrize("family", tinyview.FAMILIES)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A tiny random masked language model of each family: its folder and the model."""
    found = {}
    for family in tinyview.FAMILIES:
        path = tmp_path_factory.mktemp(f"mlm-{family}")
        found[family] = path, tinyview.make_masked_lm(path, family)
    return found


def batch(family):
    """Texts of several lengths, padded, the second half of each of type 1 where there are types."""
    texts = ["the movie was good .", "a bad film", "not so funny , but warm and clever", "the story went on and on !"]
    ids, types, mask = tinyview.encode(family, texts)
    if family == "bert":
        types = (torch.arange(ids.shape[1]) > 2).long() * mask
    return ids, types, mask


@FAMILIES
@pytest.mark.parametrize("bypass", ["embeddings", 1, 3])
def test_masked_lm_on_input_layers_equals_the_whole_model(checkpoints, family, bypass):
    path, model = checkpoints[family]
    ids, types, mask = batch(family)
    given = {"token_type_ids": types} if tinyview.uses_types(model) else {}
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask.long(), **given).logits
    found = tinyview.view_of_checkpoint(path, bypass)
    logits = found.masked_lm()(found.input_layers(ids, types, mask), mask)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert expected.std(-1).min() > 0.05
    torch.testing.assert_close(logits[mask], expected[mask], rtol=1e-5, atol=1e-5)
    assert found.masked_lm() is found.masked_lm()


@FAMILIES
def test_a_checkpoint_without_the_head_is_refused_in_one_line(tmp_path, family):
    path = tiny.make_checkpoint(tmp_path / "teacher", family, labels=2)
    state = torch.random.get_rng_state()
    with pytest.raises(CompatibilityError, match="has no masked-language-model head: take decoder") as caught:
        tinyview.view_of_checkpoint(path).masked_lm()
    assert "\n" not in str(caught.value)
    assert re.search(re.escape(repr(str(path))), str(caught.value))
    assert torch.equal(state, torch.random.get_rng_state())


@FAMILIES
@pytest.mark.parametrize("part", [0, -1])
def test_a_head_that_lacks_a_tensor_is_refused(checkpoints, tmp_path, family, part):
    from safetensors.torch import load_file, save_file

    path, model = checkpoints[family]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    weights = load_file(path / "model.safetensors")
    base = {f"{model.base_model_prefix}.{name}" for name in model.base_model.state_dict()}
    head = sorted(set(weights) - base)
    assert len(head) >= (3 if family == "modernbert" else 4)
    del weights[head[part]]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CompatibilityError, match="no masked-language-model head"):
        masked_lm(str(tmp_path), "embeddings", CPU)


def test_the_view_of_a_teacher(checkpoints):
    path, _ = checkpoints["bert"]
    found, other = tinyview.view_of_checkpoint(path), tinyview.view_of_checkpoint(path, 2)
    assert (found.n_types, found.bypass, found.device) == (2, "embeddings", "cpu")
    assert tinyview.view_of_checkpoint(checkpoints["roberta"][0]).n_types == 1
    assert tinyview.view_of_checkpoint(checkpoints["distilbert"][0]).n_types == 1
    assert found.fingerprint != other.fingerprint
    ids, types, mask = batch("bert")
    states = found.input_layers(ids, types, mask)
    assert not states.requires_grad
    assert bool((states[~mask] == 0).all())


def test_a_bypass_of_all_blocks_is_refused(checkpoints):
    with pytest.raises(CompatibilityError, match="at least one must lie behind"):
        masked_lm(str(checkpoints["bert"][0]), 4, CPU)
