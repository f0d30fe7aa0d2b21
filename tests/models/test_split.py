from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import tiny
import torch

from sage_kit.errors import CompatibilityError, ModelError
from sage_kit.models.families import family_of
from sage_kit.models.split import InputLayers, UpperLayers, input_blocks, split_model

TYPES = pytest.mark.parametrize("family", tiny.FAMILIES)
NEW = ["electra", "albert", *tiny.OWN_BLOCKS]
FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", *NEW])
CUTS = pytest.mark.parametrize("bypass", ["embeddings", 1, 2])
PADDINGS = pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])


def make_batch(family, padded, rows=5, longest=12, seed=0):
    """Random token ids, types and mask, as `Tokens.pad` gives them; rows of several lengths if padded."""
    rng = np.random.default_rng(seed)
    start, end, pad = (0, 2, 1) if tiny.is_roberta(family) else (2, 3, 0)
    ids = torch.from_numpy(rng.integers(11, 200, (rows, longest)))
    lengths = torch.from_numpy(rng.integers(3, longest, rows)) if padded else torch.full((rows,), longest)
    lengths[0] = longest
    mask = torch.arange(longest) < lengths[:, None]
    ids[:, 0] = start
    ids[torch.arange(rows), lengths - 1] = end
    ids[~mask] = pad
    types = (torch.arange(longest) >= lengths[:, None] // 2).long() * mask
    return ids, types if family in tiny.WITH_TYPES else torch.zeros_like(ids), mask


def full_output(model, ids, types, mask, **kwargs):
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if family_of(model.config).uses_token_types(model.config):
        inputs["token_type_ids"] = types
    with torch.no_grad():
        return model(**inputs, **kwargs)


@TYPES
@CUTS
@PADDINGS
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=["float32", "float64"])
def test_upper_on_input_layers_equals_full_model(family, bypass, padded, dtype, rtol):
    model = tiny.make_model(family, labels=3).to(dtype)
    ids, types, mask = make_batch(family, padded)
    expected = full_output(model, ids, types, mask, output_hidden_states=True)
    input_layers, upper = split_model(model, bypass)
    given = mask if padded else None
    with torch.no_grad():
        output = upper(input_layers(ids, types, given), given, hidden=True)
    torch.testing.assert_close(output.logits, expected.logits, rtol=rtol, atol=rtol)
    assert expected.logits.std(0).max() > 1e-3
    # transformers lists the embeddings' output first
    for ours, theirs in zip(output.hidden, expected.hidden_states[-len(output.hidden) :], strict=True):
        torch.testing.assert_close(ours[mask], theirs[mask], rtol=rtol, atol=rtol)
    assert len(output.hidden) == upper.n_blocks == 4 - input_blocks(bypass, 4)


@FAMILIES
@CUTS
def test_states_of_an_example_do_not_depend_on_its_batch(family, bypass):
    model = tiny.make_model(family).double()
    input_layers, upper = split_model(model, bypass)
    ids, types, mask = make_batch(family, padded=True)
    states = input_layers(ids, types, mask)
    assert bool((states[~mask] == 0).all())
    assert bool((states[mask] != 0).any(-1).all())
    logits = upper(states, mask).logits
    for row in range(len(ids)):
        n = int(mask[row].sum())
        alone = input_layers(ids[row : row + 1, :n], types[row : row + 1, :n], None)
        torch.testing.assert_close(alone[0], states[row, :n], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(upper(alone).logits[0], logits[row], rtol=1e-11, atol=1e-11)


@FAMILIES
def test_tokens_are_embedded_at_given_places(family):
    input_layers = split_model(tiny.make_model(family).double(), "embeddings")[0]
    ids, types, _ = make_batch(family, padded=False)
    generator = torch.Generator().manual_seed(0)
    places = torch.stack([torch.randperm(ids.shape[1], generator=generator)[:3] for _ in ids])
    found = input_layers.alone(ids.gather(1, places), types.gather(1, places), places)
    expected = input_layers.alone(ids, types).gather(1, places[..., None].expand_as(found))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)  # products round by their shape


@FAMILIES
def test_padding_states_cannot_reach_the_logits(family):
    model = tiny.make_model(family)
    input_layers, upper = split_model(model, "embeddings")
    ids, types, mask = make_batch(family, padded=True)
    states = input_layers(ids, types, mask)
    torch.testing.assert_close(upper(states, mask).logits, upper(states + 7.0 * ~mask[..., None], mask).logits)


@FAMILIES
def test_both_parts_share_the_models_modules(family):
    model = tiny.make_model(family)
    # ALBERT's one block cannot be on both sides
    input_layers, upper = split_model(model, "embeddings" if family == "albert" else 1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = [*input_layers.parameters(), *upper.parameters()]
    # BERT's pooler belongs to the upper layers' head
    assert sorted(names[id(parameter)] for parameter in ours) == sorted(names.values())
    assert not any(parameter.requires_grad for parameter in input_layers.parameters())
    assert all(parameter.requires_grad for parameter in upper.parameters())


@FAMILIES
def test_training_the_upper_trains_the_model_alone(family):
    model = tiny.make_model(family)
    before = copy.deepcopy(model.state_dict())
    input_layers, upper = split_model(model, "embeddings")
    ids, types, mask = make_batch(family, padded=True)
    optimizer = torch.optim.SGD(upper.parameters(), lr=0.1)
    upper.train()
    torch.nn.functional.cross_entropy(
        upper(input_layers(ids, types, mask), mask).logits, torch.arange(5) % 2
    ).backward()
    assert all(parameter.grad is not None for parameter in upper.parameters())
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = {id(parameter) for parameter in input_layers.parameters()}
    shared = {name for name, parameter in model.named_parameters() if id(parameter) in frozen}
    assert not changed & shared
    assert all(
        "embedding" in name or "relative_attention_bias" in name or "encoder.LayerNorm" in name for name in shared
    )
    # the attention's softmax does not see the keys' bias, so its gradient is zero but for rounding
    silent = {name for name in before if name.endswith((".key.bias", ".k_lin.bias", ".k.bias", ".key_proj.bias"))}
    assert changed | silent == set(before) - shared


def test_input_layers_has_no_dropout_whatever_its_owner_does():
    model = tiny.make_model("bert")
    input_layers, upper = split_model(model, 1)
    ids, types, mask = make_batch("bert", padded=True)
    expected = input_layers(ids, types, mask)
    input_layers.train()
    assert not any(module.training for module in input_layers.modules())
    model.train()
    assert torch.equal(input_layers(ids, types, mask), expected)
    assert all(block.training for block in upper.blocks)


@FAMILIES
def test_upper_drops_out_in_training(family):
    input_layers, upper = split_model(tiny.make_model(family), "embeddings")
    states = input_layers(*make_batch(family, padded=False)[:2], None)
    upper.eval()
    assert torch.equal(upper(states).logits, upper(states).logits)
    upper.train()
    assert not torch.equal(upper(states).logits, upper(states).logits)


def test_state_dict_names_are_stable():
    for family in tiny.FAMILIES:
        _, upper = split_model(tiny.make_model(family), 2)
        names = list(upper.state_dict())
        modern = family == "modernbert"
        head = ["head.dense.weight", "head.output.weight", "head.output.bias"]
        head.insert(3 if modern else 1, "head.norm.weight" if modern else "head.dense.bias")
        assert [name for name in names if name.startswith("head.")] == head
        assert {name.split(".")[0] for name in names} == {"blocks", "head", *(["final_norm"] * modern)}
        blocks = {name.split(".")[1] for name in names if name.startswith("blocks.")}
        assert blocks == ({"0"} if family == "albert" else {"0", "1"})


def test_single_vector_sequences():
    """Pooled granularity: one vector per example, no mask."""
    _, upper = split_model(tiny.make_model("bert"), "embeddings")
    assert not any(module.training for module in upper.modules())
    output = upper(torch.randn(7, 1, 32), hidden=True)
    assert output.logits.shape == (7, 2)
    assert output.hidden[-1].shape == (7, 1, 32)


def test_hidden_is_empty_unless_asked_for():
    _, upper = split_model(tiny.make_model("bert"), "embeddings")
    assert upper(torch.randn(2, 3, 32)).hidden == ()


@pytest.mark.parametrize("bypass", [4, 5])
def test_cut_must_leave_a_block(bypass):
    with pytest.raises(CompatibilityError, match=f"bypass is {bypass}, but of the teacher.s 4 blocks.* at most 3"):
        split_model(tiny.make_model("bert"), bypass)


def test_one_block_allows_no_cut_but_the_embeddings():
    with pytest.raises(CompatibilityError, match=r"set bypass to 'embeddings'$"):
        split_model(tiny.make_model("bert", layers=1), 1)


def test_other_families_are_refused():
    from transformers import RoFormerConfig, RoFormerForSequenceClassification

    config = RoFormerConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9
    )
    with pytest.raises(ModelError, match=r"'roformer'.* adds a type with the hook sage_families"):
        split_model(RoFormerForSequenceClassification(config), "embeddings")


def test_eager_attention_is_replaced():
    """Eager attention would add the boolean mask to its scores instead of applying it."""
    model = tiny.make_model("bert")
    ids, types, mask = make_batch("bert", padded=True)
    expected = full_output(model, ids, types, mask).logits
    model.set_attn_implementation("eager")
    input_layers, upper = split_model(model, 1)
    torch.testing.assert_close(upper(input_layers(ids, types, mask), mask).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "electra", "albert"])
def test_flops_equal_a_hand_count_and_torchs(family, monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    d, f, n, rows, labels = 32, 64, 9, 3, 3
    input_layers, upper = split_model(tiny.make_model(family, labels=labels), 1)
    lengths = np.full(rows, n, dtype=np.int32)
    block = rows * n * 2 * (4 * d * d + 2 * d * f) + rows * 4 * d * n * n
    projection = rows * n * 2 * d * (d // 2) if family in ("electra", "albert") else 0
    assert input_layers.flops(lengths) == block + projection
    head = rows * 2 * (d * d + d * labels)
    # keys and values of every token, all else of the last block for the first token alone
    last = rows * n * 2 * 2 * d * d + rows * (2 * (2 * d * d + 2 * d * f) + 4 * d * n)
    assert upper.flops(lengths, hidden=True) == 3 * block + head
    assert upper.flops(lengths) == 2 * block + last + head
    # and queries of every token, in place of the first one's
    assert upper.flops(lengths, projections=(3,)) == upper.flops(lengths) + 2 * rows * (n - 1) * d * d
    assert upper.flops(lengths, hidden=True, projections=(3,)) == upper.flops(lengths, hidden=True)
    states = torch.randn(rows, n, d)
    # the counter knows none of oneDNN's products
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    for hidden, projections in itertools.product((False, True), repeat=2):
        for autocast in (False, True):
            # the math kernel is made of matrix products that the counter sees on every device
            math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
            precision = torch.autocast("cpu", enabled=autocast)  # the padded path
            with torch.no_grad(), math, precision, FlopCounterMode(display=False) as counter:
                asked = (1, upper.n_blocks) if projections else (1,)
                upper(states, hidden=hidden, projections=asked)
            assert counter.get_total_flops() == upper.flops(lengths, hidden, asked)


@pytest.mark.parametrize("family", tiny.OWN_BLOCKS)
def test_flops_of_blocks_of_another_build_are_torchs(family):
    from torch.utils.flop_counter import FlopCounterMode

    d, n, rows = 32, 9, 3
    input_layers, upper = split_model(tiny.make_model(family, labels=3), 1)
    lengths = np.full(rows, n, dtype=np.int32)
    states = torch.randn(rows, n, d)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), math, FlopCounterMode(display=False) as counter:
        upper(states)
    # not counted: once a batch, each block projects its sixteen relative positions as queries and as keys
    positions = 3 * 2 * 2 * 16 * d * d if family == "deberta-v2" else 0
    assert counter.get_total_flops() == upper.flops(lengths) + positions
    assert upper.flops(lengths) == upper.flops(lengths, hidden=True) == upper.training_flops(lengths) // 3
    head = rows * 2 * (d * d + 3 * d)
    assert 3 * input_layers.flops(lengths) == upper.flops(lengths) - head


def test_flops_of_ragged_lengths_add_up():
    _, upper = split_model(tiny.make_model("bert"), "embeddings")
    lengths = np.array([3, 17, 64, 5])
    for hidden in (False, True):
        total = upper.flops(lengths, hidden)
        assert isinstance(total, int)
        assert total == sum(upper.flops(lengths[index : index + 1], hidden) for index in range(4))


def test_compiles_without_graph_breaks():
    input_layers, upper = split_model(tiny.make_model("bert"), "embeddings")
    ids, types, mask = make_batch("bert", padded=True)
    states = input_layers(ids, types, mask)
    compiled = torch.compile(upper, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(states, mask).logits, upper(states, mask).logits)
    torch.testing.assert_close(compiled(states, None, hidden=True).hidden[-1], upper(states, hidden=True).hidden[-1])
    asked = (1, upper.n_blocks)
    plain = upper(states, mask, projections=asked).projections
    for one, two in zip(compiled(states, mask, projections=asked).projections, plain, strict=True):
        torch.testing.assert_close(one[mask], two[mask])


def test_trains_under_ddp(tmp_path):
    """DDP refuses a second step when a parameter got no gradient in the first."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        _, upper = split_model(tiny.make_model("bert"), 1)
        upper.train()
        wrapped = torch.nn.parallel.DistributedDataParallel(upper)
        for hidden in (False, True, False):
            output = wrapped(torch.randn(4, 6, 32), torch.ones(4, 6, dtype=torch.bool), hidden=hidden)
            (output.logits.square().mean() + sum(state.square().mean() for state in output.hidden)).backward()
        assert all(parameter.grad is not None for parameter in upper.parameters())
        # while the group is there: a wrapper that outlives it ends the group's thread with the interpreter's lock held,
        # and waits for ever if that thread is just waiting for the lock
        del wrapped
    finally:
        torch.distributed.destroy_process_group()


def test_parts_can_be_made_alone():
    model = tiny.make_model("bert")
    assert UpperLayers(model).n_blocks == 4
    assert len(InputLayers(model, 3).blocks) == 3
