"""The packed forward pass against the stock transformers model in float64, one example at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from stockmodel import DIM, LENGTHS, distance, make_batch, reference, scalar, stock, without_dropout
from torch import nn

from sage_kit.models import block_parts, cpu_kernels, packed
from sage_kit.models.block_parts import parts_of
from sage_kit.models.cpu_kernels import keep_mask
from sage_kit.models.packed import pack, unpack
from sage_kit.models.split import UpperLayers, split_model

FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "electra", "albert"])
HIDDEN = pytest.mark.parametrize("hidden", [False, True], ids=["logits", "hidden"])
BATCHES = pytest.mark.parametrize("lengths", list(LENGTHS.values()), ids=list(LENGTHS))


@FAMILIES
@BATCHES
@HIDDEN
@pytest.mark.parametrize(
    ("bypass", "dtype", "tolerance"),
    [("embeddings", torch.float64, 1e-10), (1, torch.float64, 1e-10), (1, torch.float32, 2e-4)],
    ids=["embeddings", "1", "1-float32"],
)
def test_outputs_and_gradients_are_the_stock_models(family, bypass, lengths, hidden, dtype, tolerance):
    model = without_dropout(tiny.make_model(family, layers=3, labels=3))
    given, mask = make_batch(lengths, extra=2 if min(lengths) != max(lengths) else 0)
    logits, kept, gradients, by_state = reference(model, bypass, given, lengths, hidden)
    _, upper = split_model(model.to(dtype), bypass)
    assert any("relative" in name for name in gradients) == (family == "mpnet")
    for training in (True, False):
        model.requires_grad_(True).zero_grad()  # relative positions too, as when a teacher is fine-tuned
        upper.train(training)
        states = given.to(dtype, copy=True).requires_grad_()
        output = upper(states, None if bool(mask.all()) else mask, hidden=hidden)
        torch.testing.assert_close(output.logits.double(), logits, rtol=tolerance, atol=tolerance)
        assert len(output.hidden) == (upper.n_blocks if hidden else 0)
        for layer, found in enumerate(output.hidden):
            assert found.shape == states.shape
            assert bool(found.isfinite().all())
            for row, n in enumerate(lengths):
                torch.testing.assert_close(found[row, :n].double(), kept[row][layer], rtol=tolerance, atol=tolerance)
        scalar(output.logits, [found[mask] for found in output.hidden]).backward()
        for name, parameter in model.named_parameters():
            if name in gradients:
                assert parameter.grad is not None, name
                torch.testing.assert_close(parameter.grad.double(), gradients[name], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(states.grad.double(), by_state, rtol=tolerance, atol=tolerance)


@FAMILIES
@BATCHES
@HIDDEN
def test_outputs_and_gradients_in_bf16_are_off_by_rounding_alone(family, lengths, hidden):
    """Under autocast: rounding to 8 bits, not errors that grow with the number of rows."""
    model = without_dropout(tiny.make_model(family, layers=3, labels=3))
    given, mask = make_batch(lengths, extra=2 if min(lengths) != max(lengths) else 0)
    logits, kept, gradients, by_state = reference(model, 1, given, lengths, hidden)
    _, upper = split_model(model.float(), 1)
    for training in (True, False):
        model.requires_grad_(True).zero_grad()
        upper.train(training)
        states = given.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = upper(states, None if bool(mask.all()) else mask, hidden=hidden)
        assert output.logits.dtype == torch.float32
        assert not torch.equal(output.logits.double(), logits)
        assert distance(output.logits, logits) < 0.01
        for layer, found in enumerate(output.hidden):
            for row, n in enumerate(lengths):
                assert distance(found[row, :n], kept[row][layer]) < 0.01
        scalar(output.logits, [found[mask] for found in output.hidden]).backward()
        assert distance(states.grad, by_state) < 0.01
        whole = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in zip(
            *((model.get_parameter(name).grad, gradient) for name, gradient in gradients.items()), strict=True
        )]  # fmt: skip
        assert whole[0].dtype == torch.float32
        assert distance(*whole) < 0.01
        for name, gradient in gradients.items():
            # a key's bias changes no attention: what is left of its gradient is rounding
            if float(gradient.norm()) > 1e-6:
                assert distance(model.get_parameter(name).grad, gradient) < 0.02, name


@BATCHES
@HIDDEN
def test_bf16_draws_the_dropout_of_float32(lengths, hidden):
    """The same seed, hence the same masks, so that only rounding is between the two."""
    _, upper = split_model(tiny.make_model("bert", layers=2), "embeddings")
    upper.train()
    states, mask = make_batch(lengths, torch.float32)
    found = []
    for autocast in (False, True):
        upper.zero_grad()
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = upper(states, mask, hidden=hidden)
        scalar(output.logits, [layer[mask] for layer in output.hidden]).backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in upper.parameters()])
        found.append([output.logits.detach(), gradients])
    for exact, rounded in zip(*found, strict=True):
        assert 0 < distance(rounded, exact.double()) < 0.01


@HIDDEN
@BATCHES
def test_queries_keys_and_values_in_bf16(lengths, hidden):
    """They go the same way as without them, and nothing else changes by them."""
    _, upper = split_model(without_dropout(tiny.make_model("bert", layers=2)), "embeddings")
    states, mask = make_batch(lengths, torch.float32)
    upper.train()
    found, logits, gradients = [], [], []
    for autocast in (False, True):
        upper.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = upper(states, mask, hidden=hidden, projections=(upper.n_blocks,))
            without = upper(states, mask, hidden=hidden)
        torch.testing.assert_close(output.logits, without.logits, rtol=0.02, atol=0.002)
        (projections,) = output.projections
        assert projections.dtype == torch.float32
        scalar(output.logits, [projections[mask].sum(-2)]).backward()
        found.append(projections[mask].detach())
        logits.append(output.logits.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in upper.parameters()]))
    for exact, rounded in (found, logits, gradients):
        assert 0 < distance(rounded, exact.double()) < 0.01


def test_a_copy_of_frozen_weights_is_kept_until_they_change(monkeypatch):
    _, upper = split_model(tiny.make_model("bert", layers=2), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    casts = []
    cast = block_parts._cast
    monkeypatch.setattr(block_parts, "_cast", lambda layers, dtype: casts.append(layers) or cast(layers, dtype))

    def logits():
        casts.clear()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return upper(states, mask).logits

    upper.requires_grad_(False)
    first = logits()
    assert len(casts) == 4 + 5
    assert torch.equal(logits(), first)
    assert not casts
    with torch.no_grad():
        upper.blocks[0].attention.self.key.bias.add_(0)
    assert torch.equal(logits(), first)
    assert len(casts) == 1
    inner = upper.blocks[1].intermediate.dense.weight
    inner.data = inner.data * 2
    assert not torch.equal(logits(), first)
    assert len(casts) == 1
    # those that are trained are cast each time
    upper.requires_grad_(True)
    for _ in range(2):
        logits()
        assert len(casts) == 4 + 5


def test_weights_that_an_optimizer_updates_stay_float32():
    """Steps far below the rounding of bf16 add up, and what is computed follows them."""
    _, upper = split_model(tiny.make_model("bert", layers=1), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    weight = upper.blocks[0].intermediate.dense.weight
    before, optimizer = weight.detach().clone(), torch.optim.SGD(upper.parameters(), lr=1e-7)
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = upper.train()(states, mask).logits
        logits.square().sum().backward()
        weight.grad.fill_(-1e3)
        optimizer.step()
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, torch.full_like(before, 1 + 3e-4), rtol=1e-6, atol=0)


def test_autocast_to_another_type_and_a_compiler_take_the_stock_blocks(monkeypatch):
    states, _ = make_batch([7, 2, 4], torch.float32)
    assert packed.runs_packed(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed.runs_packed(states)
        assert not packed.runs_packed(states.bfloat16())
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not packed.runs_packed(states)
    monkeypatch.undo()
    with torch.autocast("cpu", dtype=torch.float16):
        assert not packed.runs_packed(states)


@FAMILIES
@BATCHES
def test_padded_path_of_other_devices_computes_the_same(family, lengths, monkeypatch):
    """What runs on a GPU and under a compiler: stock blocks, and the last one for the first token alone."""
    model = without_dropout(tiny.make_model(family, layers=2, labels=3)).double()
    states, mask = make_batch(lengths)
    logits, _, gradients, _ = reference(model, "embeddings", states, lengths, hidden=False)
    _, upper = split_model(model, "embeddings")
    monkeypatch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
    model.requires_grad_(True)
    output = upper.train()(states, mask)
    torch.testing.assert_close(output.logits, logits, rtol=1e-10, atol=1e-10)
    scalar(output.logits, []).backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-10)


@FAMILIES
@BATCHES
@HIDDEN
@pytest.mark.parametrize(
    ("bypass", "padded"), [("embeddings", False), (1, False), (1, True)], ids=["all", "1", "1-padded"]
)
def test_queries_keys_and_values_of_the_last_block(family, bypass, padded, lengths, hidden, monkeypatch):
    """Against the stock layers, on what enters the block; all the rest stays as it is without them."""
    model = without_dropout(tiny.make_model(family, layers=2, labels=3)).double()
    given, mask = make_batch(lengths, extra=2 if min(lengths) != max(lengths) else 0)
    logits, kept, _, _ = reference(model, bypass, given, lengths, hidden=True)
    _, upper = split_model(model, bypass)
    upper.requires_grad_(True)  # ALBERT's one block belongs to the input layers, too
    if padded:
        monkeypatch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
    factors = torch.linspace(-1, 2, 3 * DIM, dtype=torch.float64).view(3, DIM)
    found, gradients = {}, {}
    for asked in (False, True):
        upper.zero_grad()
        projections = (upper.n_blocks,) if asked else ()
        output = upper.train()(given, None if bool(mask.all()) else mask, hidden=hidden, projections=projections)
        torch.testing.assert_close(output.logits, logits, rtol=1e-10, atol=1e-10)
        for layer, states in enumerate(output.hidden):
            for row, n in enumerate(lengths):
                torch.testing.assert_close(states[row, :n], kept[row][layer], rtol=1e-10, atol=1e-10)
        assert len(output.hidden) == (upper.n_blocks if hidden else 0)
        total = scalar(output.logits, [states[mask] for states in output.hidden])
        if asked:
            total = total + (output.projections[0][mask] * factors).sin().sum()
        total.backward()
        found[asked] = output.projections[0] if asked else output.projections
        gradients[asked] = {name: parameter.grad.clone() for name, parameter in upper.named_parameters()}
    assert found[False] == ()
    assert found[True].shape == (*given.shape[:2], 3, DIM)
    assert bool(found[True].isfinite().all())

    # the stock layers, on each example alone, and the gradients which these products add to the others
    layers = [parts_of(upper.blocks[-1]).query, parts_of(upper.blocks[-1]).key, parts_of(upper.blocks[-1]).value]
    upper.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for row, n in enumerate(lengths):
        _, blocks = stock(model, bypass, given[row : row + 1, :n])
        entering = blocks[-2][0] if len(blocks) > 1 else given[row, :n]
        expected = torch.stack([layer(entering) for layer in layers], dim=1)
        torch.testing.assert_close(found[True][row, :n], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(upper.project(upper.n_blocks, entering[None])[0], expected, rtol=1e-10, atol=1e-10)
        total = total + (expected * factors).sin().sum()
    total.backward()
    for name, parameter in upper.named_parameters():
        added = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradients[True][name], gradients[False][name] + added, rtol=1e-9, atol=1e-9)


@BATCHES
@HIDDEN
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_fused_attention_computes_the_same(family, lengths, hidden, monkeypatch):
    """Long sequences without dropout go through torch's fused kernel."""
    _, upper = split_model(tiny.make_model(family, layers=2).double(), "embeddings")
    states, mask = make_batch(lengths)
    expected = upper(states, mask, hidden=hidden)
    calls = []
    fused = packed._attend_fused
    monkeypatch.setattr(packed, "FUSED_FROM", 0)
    monkeypatch.setattr(packed, "_attend_fused", lambda *given: calls.append(1) or fused(*given))
    found = upper(states, mask, hidden=hidden)
    assert len(calls) == 2
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-11, atol=1e-11)
    for ours, theirs in zip(found.hidden, expected.hidden, strict=True):
        torch.testing.assert_close(ours[mask], theirs[mask], rtol=1e-11, atol=1e-11)


@FAMILIES
@HIDDEN
@BATCHES
def test_dropout_is_where_the_full_model_has_it(family, hidden, lengths, monkeypatch):
    """The stock model gives the same when it is handed the masks that were drawn here, in the order of its dropouts."""
    model = tiny.make_model(family, layers=2, labels=3).double().train()
    states, mask = make_batch(lengths)
    _, upper = split_model(model, "embeddings")
    upper.train()
    drawn, shapes = [], []

    def spy(like, p):
        drawn.append(keep_mask(like, p))
        shapes.append(p)
        return drawn[-1]

    monkeypatch.setattr(cpu_kernels, "keep_mask", spy)
    for module in upper.head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # torch's own, on the logits' side of the head
    output = upper(states, mask, hidden=hidden)
    _, layout = pack(states, mask)
    assert set(shapes) == {0.1}
    per_block = 2 if family in ("distilbert", "albert") else 3
    assert len(drawn) == 2 * per_block

    def of_example(index, row, n):
        """The mask of a dropout for one example, ones where the last block was left out."""
        kept, whole = drawn[index], hidden or index < per_block
        if index % per_block == 0:  # on probabilities
            heads = kept.view(len(lengths), 4, -1, layout.tokens)[row, :, :, :n]
            return heads[:, :n] if whole else torch.cat([heads, torch.ones(4, n - 1, n, dtype=kept.dtype)], 1)
        if whole:
            return unpack(kept, layout, layout.tokens)[row, :n]
        return torch.cat([kept[row : row + 1], torch.ones(n - 1, DIM, dtype=kept.dtype)])

    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    for row, n in enumerate(lengths):
        order = iter(range(len(drawn)))
        monkeypatch.setattr(
            F,
            "dropout",
            lambda values, p=0.5, training=True, inplace=False, row=row, n=n, order=order: (
                values * of_example(next(order), row, n) if p else values
            ),
        )
        logits, kept = stock(twin, "embeddings", states[row : row + 1, :n])
        assert next(order, None) is None
        torch.testing.assert_close(output.logits[row : row + 1], logits, rtol=1e-10, atol=1e-10)
        for ours, theirs in zip(output.hidden, kept, strict=False):
            torch.testing.assert_close(ours[row, :n], theirs[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lengths", [[6, 6, 6], [7, 2, 4]])
@HIDDEN
def test_gradients_with_dropout_equal_finite_differences(lengths, hidden):
    """The same seed draws the same masks, so the pass is a smooth function of the states."""
    _, upper = split_model(tiny.make_model("bert", layers=2).double(), "embeddings")
    upper.train()
    states, mask = make_batch(lengths)

    def value(states):
        torch.manual_seed(5)
        output = upper(states, mask, hidden=hidden)
        return scalar(output.logits, [found[mask] for found in output.hidden])

    states.requires_grad_()
    gradient = torch.autograd.grad(value(states), states)[0]
    with torch.no_grad():
        for seed in range(3):
            direction = torch.randn(states.shape, generator=torch.Generator().manual_seed(seed), dtype=states.dtype)
            change = (value(states + 1e-5 * direction) - value(states - 1e-5 * direction)) / 2e-5
            torch.testing.assert_close((gradient * direction).sum(), change, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.02, 0.5, 0.9])
def test_masks_rate_scale_and_independence(p):
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1000, 401), p)
    values = mask.unique()
    assert values.tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    dropped = (mask == 0).double()
    sigma = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs(float(dropped.mean()) - p) < 5 * sigma + 1 / cpu_kernels.RESOLUTION
    assert abs(float(mask.double().mean()) - 1) < 6 * sigma / (1 - p)
    # four neighbours share a word of random bits
    flat = (dropped - p).flatten()
    for lag in (1, 2, 3, 4, 8, 401):
        correlation = float((flat[lag:] * flat[:-lag]).mean()) / (p * (1 - p))
        assert abs(correlation) < 5 / mask.numel() ** 0.5


def test_mask_is_unbiased_for_a_probability_between_two_steps():
    """The factor belongs to the rounded probability, whose expectation is then 1 exactly."""
    step = 1 / cpu_kernels.RESOLUTION
    factor = float(keep_mask(torch.empty(64, dtype=torch.float64), 0.1).max())
    assert factor == 1 / (1 - round(0.1 / step) * step)


def test_extreme_probabilities():
    assert bool((keep_mask(torch.empty(50), 0.0) == 1).all())
    assert bool((keep_mask(torch.empty(50), 1.0) == 0).all())


def test_masks_come_from_torchs_generator():
    like = torch.empty(33)
    torch.manual_seed(7)
    first, second = keep_mask(like, 0.5), keep_mask(like, 0.5)
    torch.manual_seed(7)
    assert torch.equal(keep_mask(like, 0.5), first)
    assert torch.equal(keep_mask(like, 0.5), second)
    assert not torch.equal(first, second)


def test_training_repeats_under_a_seed_and_eval_draws_nothing():
    _, upper = split_model(tiny.make_model("bert"), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    upper.train()
    torch.manual_seed(1)
    first = upper(states, mask).logits
    torch.manual_seed(1)
    assert torch.equal(upper(states, mask).logits, first)
    upper.eval()
    state = torch.get_rng_state()
    upper(states, mask)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_copy_is_kept_of_weights_whose_changes_torch_does_not_count():
    with torch.inference_mode():
        _, upper = split_model(tiny.make_model("bert"), "embeddings")
        upper.requires_grad_(False)
        states, mask = make_batch([7, 2, 4], torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            first = upper(states, mask).logits
            upper.blocks[0].intermediate.dense.weight.mul_(2)
            assert not torch.equal(upper(states, mask).logits, first)


def test_onednn_computes_what_torch_does(monkeypatch):
    _, upper = split_model(tiny.make_model("bert"), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    upper.train()
    found = []
    for enabled in (True, False):
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
        assert cpu_kernels._has_onednn(states) == (enabled and cpu_kernels._onednn_operator() is not None)
        upper.zero_grad()
        torch.manual_seed(1)
        logits = upper(states, mask).logits
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in upper.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture
def fresh_operator():
    cpu_kernels._onednn_operator.cache_clear()
    yield
    cpu_kernels._onednn_operator.cache_clear()


class Operators:
    """Stands for `torch.ops.mkldnn` of another torch."""

    def __init__(self, **operators):
        self.__dict__.update(operators)


def raising(*arguments):
    raise RuntimeError("_linear_pointwise() expected at most 5 arguments")


@pytest.mark.parametrize(
    "others",
    [
        Operators(),
        Operators(_linear_pointwise=raising),
        Operators(_linear_pointwise=lambda rows, weight, bias, *rest: torch.nn.functional.linear(rows, weight)),
    ],
    ids=["gone", "other arguments", "other product"],
)
@pytest.mark.usefixtures("fresh_operator")
def test_a_torch_with_another_operator_is_left_to_its_own_product(others, monkeypatch):
    states, _ = make_batch([7, 2, 4], torch.float32)
    weight, bias = torch.randn(5, states.shape[-1]), torch.randn(5)
    with torch.no_grad():
        expected = cpu_kernels.linear(states, weight, bias, True)
        cpu_kernels._onednn_operator.cache_clear()
        monkeypatch.setattr(torch.ops, "mkldnn", others)
        assert not cpu_kernels._has_onednn(states)
        found = cpu_kernels.linear(states, weight, bias, True)
    assert torch.equal(found, torch.nn.functional.linear(states, weight, bias))
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("fresh_operator")
def test_an_operator_that_computes_the_product_is_taken(monkeypatch):
    """Whatever this machine has, this is the way that it takes where the operator is there."""
    called = []

    def product(rows, weight, bias, *rest):
        called.append(rest)
        return torch.nn.functional.linear(rows, weight, bias)

    monkeypatch.setattr(torch.ops, "mkldnn", Operators(_linear_pointwise=product))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    states, _ = make_batch([7, 2, 4], torch.float32)
    with torch.no_grad():
        cpu_kernels.linear(states, torch.randn(5, states.shape[-1]), torch.randn(5), True)
    assert called == [("none", [], "")] * 2  # tried once, called once


def test_pack_and_unpack_are_inverse():
    states, mask = make_batch([5, 1, 3], extra=2)
    rows, layout = pack(states, mask)
    assert len(rows) == 9
    assert layout.tokens == 5
    torch.testing.assert_close(rows, states[mask], rtol=0, atol=0)
    torch.testing.assert_close(unpack(rows, layout, 7), states * mask[..., None], rtol=0, atol=0)
    torch.testing.assert_close(layout.take_first(rows), states[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(layout.join(layout.split(rows, 2, 4)), rows, rtol=0, atol=0)


def test_full_batches_are_not_copied():
    states, mask = make_batch([5, 5, 5])
    for given in (None, mask):
        rows, layout = pack(states, given)
        assert rows.data_ptr() == states.data_ptr()
        assert layout.bias is None
        assert layout.rows is None


def test_large_scores_neither_overflow_nor_vanish():
    """A row whose scores are all far below another's, with padding beside it."""
    scores = torch.tensor([[[-500.0, -501.0, 300.0], [400.0, 399.0, 0.0]]])
    layout = packed.Layout(1, 3, bias=torch.tensor([0.0, 0.0, float("-inf")]).view(1, 1, 1, 3))
    expected = torch.tensor([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.0], dtype=torch.float32)
    torch.testing.assert_close(cpu_kernels._softmax(scores, layout, 1), expected.expand(1, 2, 3))


def test_a_copied_upper_uses_its_own_parameters():
    upper = UpperLayers(tiny.make_model("bert"))
    other = copy.deepcopy(upper)
    states, mask = make_batch([4, 2], torch.float32)
    before = upper(states, mask).logits
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(upper(states, mask).logits, before)
    assert bool((other(states, mask).logits == 0).all())
