from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from sage_kit.builtin.families import FAMILIES
from sage_kit.components.plugins import Plugins
from sage_kit.errors import ModelError
from sage_kit.models.encoder_parts import blocks_of
from sage_kit.models.families import family_of, model_types

MODEL_TYPES = [model_type for family in FAMILIES for model_type in family.model_types]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_paths_name_modules_of_the_stock_model(model_type):
    model = tiny.make_model(model_type)
    family = family_of(model.config)
    assert len(blocks_of(model, family)) == 4
    assert model.get_submodule(family.embeddings) is model.base_model.embeddings
    assert model.get_submodule(family.head_output).out_features == 2
    assert model.get_submodule(family.head_dense).out_features == 32
    head = [name for name, _ in model.named_parameters() if family.in_head(name)]
    rest = [name for name, _ in model.named_parameters() if not family.in_head(name)]
    assert len(head) == 4
    places = (
        "embedding", ".layer.", ".layers.", ".albert_layers.", ".relative_attention_bias.", "encoder.LayerNorm",
        "final_norm",
    )  # fmt: skip
    assert all(any(place in name for place in places) for name in rest)


def test_every_family_is_reached_by_its_types():
    assert [family_of(tiny.make_config(family.model_types[0])) for family in FAMILIES] == list(FAMILIES)


def test_all_types_are_listed():
    Plugins(allow="")
    assert list(model_types()) == MODEL_TYPES
    assert set(MODEL_TYPES) == set(tiny.FAMILIES)


def test_other_model_types_are_refused_with_the_list():
    from transformers import AutoConfig

    with pytest.raises(
        ModelError,
        match=r"model 'x/y' is of type 'roformer': supported are bert, roberta, .*distilbert.* the hook sage_families$",
    ):
        family_of(AutoConfig.for_model("roformer"), "x/y")


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("albert", {"num_hidden_groups": 2}, "has 2 groups of 1 blocks .* choose an ALBERT of one block"),
        ("albert", {"inner_group_num": 3}, "has 1 groups of 3 blocks"),
        ("deberta-v2", {"conv_kernel_size": 3}, "has a convolution .* such as deberta-v3-base"),
    ],
)
def test_what_a_family_cannot_do_is_refused(model_type, changes, message):
    config = tiny.make_config(model_type)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ModelError, match=rf"^model 'x' {message}"):
        family_of(config, "x")


def test_decoders_are_refused():
    config = tiny.make_config("bert")
    config.is_decoder = True
    with pytest.raises(ModelError, match="is a decoder"):
        family_of(config)


def test_relative_positions_are_refused():
    config = tiny.make_config("bert")
    config.position_embedding_type = "relative_key"
    with pytest.raises(ModelError, match="'relative_key' positions"):
        family_of(config)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_longest_text(model_type):
    import torch

    model = tiny.make_model(model_type)
    longest = family_of(model.config).max_tokens(model.config)
    assert longest == tiny.MAX_POSITIONS
    model(torch.full((1, longest), 9))
    if model_type in tiny.OWN_BLOCKS:
        return  # positions are relative: the limit is what the model was made for
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 9))


def test_token_types():
    used = {
        name: family_of(config).uses_token_types(config) for name in MODEL_TYPES for config in [tiny.make_config(name)]
    }
    assert {name for name, uses in used.items() if uses} == set(tiny.WITH_TYPES)


def test_module_is_light():
    code = "import sys, sage_kit.models.families; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
