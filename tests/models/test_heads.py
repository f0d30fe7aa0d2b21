"""The head of each family's models: what the upper layers give is what the whole model of transformers gives."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from sage_kit.errors import ModelError
from sage_kit.models.architectures import architecture_of, auto_class, has_class
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.families import family_of
from sage_kit.models.split import split_model


def make_model(family: str, architecture: Any) -> Any:
    """A tiny random model with such a head, no parameter of which is the same as another or zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tiny.make_config(family, labels=2 if architecture == "span" else 5)
        model = auto_class(architecture).from_config(
            config, attn_implementation="eager" if family in tiny.EAGER else "sdpa"
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval().double()


@pytest.mark.parametrize("architecture", ["token", "span"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_upper_on_input_layers_equals_the_whole_model(family: str, architecture: Any, bypass: Any) -> None:
    config = tiny.make_config(family)
    if (family, architecture) == ("nomic_bert", "span"):
        assert not has_class(config, architecture)
        pytest.skip("transformers has no such model")
    if family == "albert" and bypass == 1:
        pytest.skip("its one block cannot be parted")
    model = make_model(family, architecture)
    assert architecture_of(model) == architecture
    texts = [" ".join(tiny.NEUTRAL[start : start + count]) for start, count in ((0, 12), (20, 3), (40, 7))]
    inputs = tiny.make_tokenizer(family)(texts, texts[::-1], padding=True, return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    types = inputs.get("token_type_ids", torch.zeros_like(ids))
    with torch.no_grad():
        whole = model(**inputs)
    expected = whole.logits if architecture == "token" else torch.stack([whole.start_logits, whole.end_logits], -1)
    input_layers, upper = split_model(model, bypass)
    with torch.no_grad():
        found = upper(input_layers(ids, types, mask), mask).logits
    assert upper.head.per_token
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-11, atol=1e-11)
    assert expected[mask].std(0).min() > 1e-3
    # a token's output is its own
    assert not torch.allclose(found[0, 1], found[0, 2])


@pytest.mark.parametrize("architecture", ["token", "span"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_checkpoints_load_with_their_heads_and_without(tmp_path, family: str, architecture: Any) -> None:
    if (family, architecture) == ("nomic_bert", "span"):
        teacher = tiny.make_checkpoint(tmp_path, family)
        with pytest.raises(ModelError, match="transformers has no ForQuestionAnswering model of that type"):
            load_classifier(str(teacher), architecture)
        return
    model = make_model(family, architecture).float()
    model.save_pretrained(tmp_path / "trained")
    loaded = load_classifier(str(tmp_path / "trained"), architecture)
    assert not loaded.missing
    head = family_of(model.config).head_for(architecture)
    own, stored = (one.get_submodule(head.output).weight for one in (loaded.model, model))
    assert torch.equal(own, stored)
    model.base_model.save_pretrained(tmp_path / "bare")
    bare = load_classifier(str(tmp_path / "bare"), architecture)
    assert {f"{head.output}.weight", f"{head.output}.bias"} <= bare.missing
