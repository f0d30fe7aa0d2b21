"""A card's pass over packed rows, on a CPU: only the attention is not the card's, but plain torch of the same call."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from stockmodel import DIM, LENGTHS, distance, make_batch, reference, scalar, without_dropout
from varlenreference import Reference

from sage_kit.models import packed, varlen
from sage_kit.models.packed import pack, pack_lengths, unpack
from sage_kit.models.split import split_model

FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert"])
HIDDEN = pytest.mark.parametrize("hidden", [False, True], ids=["logits", "hidden"])
BATCHES = pytest.mark.parametrize("lengths", list(LENGTHS.values()), ids=list(LENGTHS))


@pytest.fixture
def attend(monkeypatch):
    """The attention that a card's pass then takes here."""
    found = Reference()
    monkeypatch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
    monkeypatch.setattr("sage_kit.models.split.varlen_attention", lambda states, width: found)
    return found


def known(lengths):
    return np.array(lengths, np.int64)


@FAMILIES
@BATCHES
@HIDDEN
@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_outputs_and_gradients_are_the_stock_models(family, bypass, lengths, hidden, attend):
    model = without_dropout(tiny.make_model(family, layers=3, labels=3))
    given, mask = make_batch(lengths, extra=2 if min(lengths) != max(lengths) else 0)
    logits, kept, gradients, by_state = reference(model, bypass, given, lengths, hidden)
    _, upper = split_model(model.double(), bypass)
    for training in (True, False):
        model.requires_grad_(True).zero_grad()
        upper.train(training)
        states = given.clone().requires_grad_()
        attend.calls.clear()
        output = upper(states, None if bool(mask.all()) else mask, hidden=hidden, lengths=known(lengths))
        assert [call["most_queries"] == 1 for call in attend.calls[:-1]] == [max(lengths) == 1] * (upper.n_blocks - 1)
        assert attend.calls[-1]["most_queries"] == (max(lengths) if hidden else 1)
        torch.testing.assert_close(output.logits, logits, rtol=1e-10, atol=1e-10)
        assert len(output.hidden) == (upper.n_blocks if hidden else 0)
        for layer, found in enumerate(output.hidden):
            assert found.shape == states.shape
            assert bool(found.isfinite().all())
            for row, n in enumerate(lengths):
                torch.testing.assert_close(found[row, :n], kept[row][layer], rtol=1e-10, atol=1e-10)
        scalar(output.logits, [found[mask] for found in output.hidden]).backward()
        for name, parameter in model.named_parameters():
            if name in gradients:
                torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(states.grad, by_state, rtol=1e-10, atol=1e-10)


@FAMILIES
@BATCHES
@HIDDEN
def test_in_bf16_outputs_and_gradients_are_off_by_rounding_alone(family, lengths, hidden, attend):
    """Attention included, which a CPU's own pass computes in float32."""
    model = without_dropout(tiny.make_model(family, layers=3, labels=3))
    given, mask = make_batch(lengths)
    logits, kept, gradients, by_state = reference(model, 1, given, lengths, hidden)
    _, upper = split_model(model.float(), 1)
    model.requires_grad_(True).zero_grad()
    states = given.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = upper.train()(states, mask, hidden=hidden, lengths=known(lengths))
    assert [call["dtype"] for call in attend.calls] == [torch.bfloat16] * upper.n_blocks
    assert output.logits.dtype == torch.float32
    assert 0 < distance(output.logits, logits) < 0.01
    for layer, found in enumerate(output.hidden):
        assert found.dtype == torch.float32
        for row, n in enumerate(lengths):
            assert distance(found[row, :n], kept[row][layer]) < 0.01
    scalar(output.logits, [found[mask] for found in output.hidden]).backward()
    assert distance(states.grad, by_state) < 0.015
    pairs = [(model.get_parameter(name).grad, gradient) for name, gradient in gradients.items()]
    found, expected = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in zip(*pairs, strict=True))
    assert found.dtype == torch.float32
    assert distance(found, expected) < 0.015


@HIDDEN
@BATCHES
def test_queries_keys_and_values_that_are_asked_for(lengths, hidden, attend):
    """They are those of the CPU's pass, and nothing else changes by them."""
    _, upper = split_model(without_dropout(tiny.make_model("bert", layers=2)).double(), "embeddings")
    states, mask = make_batch(lengths)
    upper.train()
    found = []
    for given in (None, known(lengths)):
        upper.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            if given is None:
                patch.setattr("sage_kit.models.split.runs_packed", lambda states: True)
            output = upper(states, mask, hidden=hidden, projections=(1, 2), lengths=given)
        scalar(output.logits, [one[mask].sum(-2) for one in output.projections]).backward()
        gradients = [parameter.grad.clone() for parameter in upper.parameters()]
        found.append([output.logits, *(one[mask] for one in output.projections), *gradients])
    assert len(attend.calls) == 2
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


def test_dropout_of_attention_is_handed_to_the_kernel(attend):
    _, upper = split_model(tiny.make_model("bert", layers=2), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    for training, p in ((True, 0.1), (False, 0.0)):
        attend.calls.clear()
        upper.train(training)(states, mask, lengths=known([7, 2, 4]))
        assert [call["p"] for call in attend.calls] == [p, p]


def test_dropout_of_rows_is_the_stock_modules_where_the_device_is_no_cpu():
    dropout = torch.nn.Dropout(0.5)
    rows, residual = torch.ones(3, 4, device="meta", dtype=torch.bfloat16), torch.ones(3, 4, device="meta")
    calls = []
    dropout.register_forward_hook(lambda module, given, output: calls.append(output))
    for given in (dropout, None):
        found = packed._drop_and_add(rows, residual, given)
        assert (found.shape, found.dtype) == ((3, 4), torch.float32)
    assert [one.dtype for one in calls] == [torch.bfloat16]


@BATCHES
@HIDDEN
def test_blocks_that_are_computed_again_give_the_same_gradients(lengths, hidden, attend):
    _, upper = split_model(tiny.make_model("bert", layers=2), "embeddings")
    states, mask = make_batch(lengths, torch.float32)
    found = []
    for recomputes in (False, True):
        upper.recomputes = recomputes
        upper.zero_grad()
        torch.manual_seed(3)
        output = upper.train()(states, mask, hidden=hidden, lengths=known(lengths))
        scalar(output.logits, [one[mask] for one in output.hidden]).backward()
        found.append([parameter.grad.clone() for parameter in upper.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_families_that_add_something_to_the_scores_take_the_padded_pass(family, attend):
    _, upper = split_model(tiny.make_model(family, layers=2), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    assert torch.equal(upper(states, mask, lengths=known([7, 2, 4])).logits, upper(states, mask).logits)
    assert not attend.calls


def test_without_lengths_the_padded_pass_is_taken(attend):
    _, upper = split_model(tiny.make_model("bert", layers=2), "embeddings")
    states, mask = make_batch([7, 2, 4], torch.float32)
    upper(states, mask)
    assert not attend.calls


@pytest.mark.parametrize("lengths", [[5, 1, 3], [4, 4, 4], [1], [6, 6, 2, 6]])
@pytest.mark.parametrize("extra", [0, 3])
def test_rows_are_those_that_a_cpu_packs(lengths, extra, monkeypatch):
    monkeypatch.setattr(packed, "PADDING", 0.0)
    states, mask = make_batch(lengths, extra=extra)
    rows, layout = pack_lengths(states, known(lengths), Reference())
    expected, other = pack(states, mask)
    assert torch.equal(rows, expected)
    assert (layout.batch, layout.tokens) == (other.batch, other.tokens) == (len(lengths), max(lengths))
    assert layout.bounds.tolist() == [0, *np.cumsum(lengths).tolist()]
    assert layout.each.tolist() == list(range(len(lengths) + 1))
    assert torch.equal(layout.take_first(rows), states[:, 0])
    back = unpack(rows, layout, states.shape[1])
    assert torch.equal(back, states * mask[..., None])


def on_card(dtype=torch.float32):
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)


@pytest.fixture
def card(monkeypatch):
    """A card that can do it, under autocast to bf16."""
    monkeypatch.setattr(varlen, "_is_known", lambda device, dtype: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    return monkeypatch


def test_a_card_takes_flash_attention_in_half_precision(card):
    assert varlen.varlen_attention(on_card(), 64) is varlen.flash_attention
    card.setattr(torch, "get_autocast_dtype", lambda device: torch.float16)
    assert varlen.varlen_attention(on_card(), 64) is varlen.flash_attention


def test_where_the_kernel_does_not_fit_the_padded_blocks_are_taken(card):
    assert varlen.varlen_attention(on_card(), 12) is None
    assert varlen.varlen_attention(on_card(), 264) is None
    assert varlen.varlen_attention(on_card(torch.float64), 64) is None
    assert varlen.varlen_attention(torch.zeros(1, 1, 8), 64) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert varlen.varlen_attention(on_card(), 64) is None
    card.setattr(varlen, "_is_known", lambda device, dtype: False)
    assert varlen.varlen_attention(on_card(), 64) is None
    card.setattr(varlen, "_is_known", lambda device, dtype: True)
    card.setattr(torch, "is_autocast_enabled", lambda device: False)
    assert varlen.varlen_attention(on_card(), 64) is None


def raising(*arguments):
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    ("kernel", "is_known"),
    [(Reference(), True), (lambda *given: given[2], False), (raising, False)],
    ids=["right", "wrong", "raising"],
)
def test_the_kernel_is_tried_before_it_is_taken(kernel, is_known, monkeypatch):
    tried = varlen._is_known.__wrapped__
    monkeypatch.setattr(varlen, "flash_attention", kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert tried(torch.device("cpu"), torch.bfloat16) is is_known
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not tried(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("queries", [10, 2])
def test_the_operator_takes_what_it_is_handed_and_has_gradients(queries):
    """On the device "meta", which computes shapes alone: this torch's own operator."""
    rows = torch.zeros(10, 3 * DIM, device="meta", dtype=torch.bfloat16, requires_grad=True)
    query, key, value = rows.view(10, 3, 4, 8).unbind(1)
    bounds, each = (torch.zeros(3, device="meta", dtype=torch.int32) for _ in range(2))
    found = varlen.flash_attention(query[:queries], key, value, each, bounds, 1, 6, 0.1, 0.35)
    assert found.shape == (queries, 4, 8)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert rows.grad.shape == rows.shape


def test_the_reference_is_torchs_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 7, 4, 8, dtype=torch.float64, generator=generator).unbind(0)
    bounds = torch.tensor([0, 2, 7], dtype=torch.int32)
    found = Reference()(query, key, value, bounds, bounds, 5, 5, 0.0, 0.3)
    for start, end in ((0, 2), (2, 7)):
        one = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        expected = F.scaled_dot_product_attention(*one, scale=0.3)[0].transpose(0, 1)
        torch.testing.assert_close(found[start:end], expected, rtol=1e-12, atol=1e-12)
