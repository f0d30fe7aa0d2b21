"""What is kept of a teacher, against the same in float64 from the stock model's own outputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch

from sage_kit.components import TokenBatch
from sage_kit.models.block_parts import parts_of
from sage_kit.models.families import family_of
from sage_kit.models.narrow import Shape, build_narrow, projection_of
from sage_kit.models.narrowing import largest_dimensions, most_important, narrowing_of, principal_directions, walk
from sage_kit.models.split import UpperLayers, split_model

LENGTHS = [(5, 9, 3), (7, 2)]


def given(family: str = "bert", seed: int = 0) -> tuple[Any, UpperLayers, list[TokenBatch]]:
    """A teacher in float64, its upper layers, and two padded batches of token states."""
    model = tiny.make_model(family, layers=3, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for lengths in LENGTHS:
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        states = torch.randn(*mask.shape, 32, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 3, 32)
        batches.append(TokenBatch(states * mask[..., None], mask))
    return model, split_model(model, "embeddings")[1], batches


def of_stock(model: Any, upper: UpperLayers, batches: list[TokenBatch]) -> dict[str, list[torch.Tensor]]:
    """What enters and leaves the stock blocks' modules at the real tokens, by forward hooks, batches one after another.

    Each example alone and without padding, so that nothing here knows of masks.
    """
    found: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for number, block in enumerate(upper.blocks):
        parts = parts_of(block)
        for name in ("query", "key", "out", "norm", "inner", "outer", "last_norm"):

            def note(module: Any, inputs: Any, output: Any, key: str = f"{number}.{name}") -> None:
                found.setdefault(f"{key}.in", []).append(inputs[0][0])
                found.setdefault(f"{key}.out", []).append(output[0])

            hooks.append(getattr(parts, name).register_forward_hook(note))
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
        for batch in batches:
            for states, mask in zip(batch.states, batch.mask, strict=True):
                found.setdefault("states", []).append(states[mask])
                output = upper(states[mask][None], None, hidden=True)
                found.setdefault("final", []).append(output.hidden[-1][0, :1])
    for hook in hooks:
        hook.remove()
    return {name: [torch.cat(rows)] for name, rows in found.items()}


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_traces_are_what_the_stock_blocks_make(family: str) -> None:
    model, upper, batches = given(family)
    stock = of_stock(model, upper, batches)
    with torch.no_grad():
        walked = list(walk(upper, lambda: batches))
    for number in range(3):
        for which, name in enumerate(("norm", "last_norm")):
            for side, end in enumerate(("in", "out")):
                mine = torch.cat([traces[number].norms[which][side] for _, traces, _ in walked])
                torch.testing.assert_close(mine, stock[f"{number}.{name}.{end}"][0])
        attended = torch.cat([traces[number].attended.flatten(1) for _, traces, _ in walked])
        torch.testing.assert_close(attended, stock[f"{number}.out.in"][0])
        neurons = torch.cat([traces[number].neurons for _, traces, _ in walked])
        torch.testing.assert_close(neurons, stock[f"{number}.outer.in"][0])


def test_importance_is_that_of_the_papers() -> None:
    model, upper, batches = given()
    stock = of_stock(model, upper, batches)
    narrowing = narrowing_of(upper, lambda: batches, 16, "pca")
    assert narrowing is not None
    for number, found in enumerate(narrowing.blocks):
        parts = parts_of(upper.blocks[number])
        attended = stock[f"{number}.out.in"][0].unflatten(1, (4, 8))
        for head in range(4):
            weight = parts.out.weight[:, 8 * head : 8 * head + 8]
            added = attended[:, head] @ weight.T
            torch.testing.assert_close(found.heads[head], added.norm(dim=1).mean())
            sizes = attended[:, head].abs().mean(0) * weight.norm(dim=0)
            torch.testing.assert_close(found.values[head], sizes)
            query, key = (stock[f"{number}.{name}.out"][0].unflatten(1, (4, 8))[:, head] for name in ("query", "key"))
            roots = query.square().mean(0).sqrt() * key.square().mean(0).sqrt()
            torch.testing.assert_close(found.scores[head], roots)
        inner = stock[f"{number}.outer.in"][0].abs().mean(0) * parts.outer.weight.norm(dim=0)
        torch.testing.assert_close(found.neurons, inner)
    units = torch.tanh(upper.head.dense(stock["final"][0])).abs().sum(0) * upper.head.output.weight.norm(dim=0)
    torch.testing.assert_close(narrowing.head, units.detach())


def test_bases_are_of_the_mean_of_second_moments() -> None:
    model, upper, batches = given()
    stock = of_stock(model, upper, batches)
    places = [stock["states"][0], *(stock[f"{n}.{name}.out"][0] for n in range(3) for name in ("norm", "last_norm"))]
    moments = torch.stack([place.T @ place / place.square().sum() for place in places]).mean(0)
    values = torch.linalg.eigvalsh(moments)
    pca, prune = (narrowing_of(upper, lambda: batches, 16, init) for init in ("pca", "prune"))
    assert pca is not None
    assert prune is not None
    basis = pca.basis.double()
    torch.testing.assert_close(basis.T @ basis, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(basis.T @ moments @ basis, values.flip(0)[:16].diag(), rtol=1e-5, atol=1e-8)
    kept = moments.diagonal().argsort(descending=True)[:16].sort().values
    assert torch.equal(prune.basis, torch.eye(32, dtype=torch.float64)[:, kept])
    assert narrowing_of(upper, lambda: batches, 16, "random") is None


@pytest.mark.parametrize("init", ["pca", "prune"])
def test_norms_are_the_least_squares_ones(init: Any) -> None:
    model, upper, batches = given()
    stock = of_stock(model, upper, batches)
    narrowing = narrowing_of(upper, lambda: batches, 16, init)
    assert narrowing is not None
    basis = narrowing.basis.double()
    for number, norms in enumerate(narrowing.norms):
        for name, (gain, bias) in zip(("norm", "last_norm"), norms, strict=True):
            x, y = (stock[f"{number}.{name}.{end}"][0] @ basis for end in ("in", "out"))
            z = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-12).sqrt()
            for place in range(16):
                design = torch.stack([z[:, place], torch.ones(len(z), dtype=torch.float64)], 1)
                wanted = torch.linalg.lstsq(design, y[:, place : place + 1]).solution[:, 0]
                torch.testing.assert_close(torch.stack([gain, bias])[:, place].double(), wanted, rtol=1e-9, atol=1e-9)


def test_signs_of_directions_are_settled() -> None:
    moments = torch.randn(12, 12, dtype=torch.float64)
    moments = moments @ moments.T
    found = principal_directions(moments, 5)
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()
    assert torch.equal(most_important(torch.tensor([3.0, 9, 1, 7]), 2), torch.tensor([1, 3]))
    assert most_important(torch.ones(3), 9).tolist() == [0, 1, 2]
    assert largest_dimensions(torch.diag(torch.tensor([1.0, 5, 3])), 2).argmax(0).tolist() == [1, 2]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_blocks_of_a_pruned_student_are_the_teachers_rows_and_columns(family: str) -> None:
    model, upper, batches = given(family)
    model.float()
    shaped = [TokenBatch(batch.states.float(), batch.mask) for batch in batches]
    narrowing = narrowing_of(upper, lambda: shaped, 16, "prune")
    assert narrowing is not None
    student = build_narrow(model, Shape(16, 2, 20), layers=1, init=[2], narrowing=narrowing)
    dims = narrowing.basis.argmax(0)
    source, target = parts_of(upper.blocks[2]), parts_of(student.electra.encoder.layer[0])
    importance = narrowing.blocks[2]
    heads, neurons = most_important(importance.heads, 2), most_important(importance.neurons, 20)
    rows = torch.cat([torch.arange(8 * head, 8 * head + 8) for head in heads.tolist()])
    for name in ("query", "key", "value"):
        mine, theirs = getattr(target, name), getattr(source, name)
        torch.testing.assert_close(mine.weight, theirs.weight[rows][:, dims])
        torch.testing.assert_close(mine.bias, theirs.bias[rows])
    torch.testing.assert_close(target.out.weight, source.out.weight[dims][:, rows])
    torch.testing.assert_close(target.out.bias, source.out.bias[dims])
    torch.testing.assert_close(target.inner.weight, source.inner.weight[neurons][:, dims])
    torch.testing.assert_close(target.outer.weight, source.outer.weight[dims][:, neurons])
    torch.testing.assert_close(projection_of(student, model).weight, torch.eye(32)[dims])
    units = most_important(narrowing.head, 16)
    head = family_of(model.config)
    torch.testing.assert_close(
        student.classifier.dense.weight, model.get_submodule(head.head_dense).weight[units][:, dims]
    )
    torch.testing.assert_close(
        student.classifier.out_proj.weight, model.get_submodule(head.head_output).weight[:, units]
    )


@pytest.mark.parametrize(("heads", "inner"), [(8, 64), (2, 64), (4, 90), (1, 100)])
def test_what_a_student_has_more_of_adds_nothing_at_first(heads: int, inner: int) -> None:
    """At the teacher's width: more neurons, or wider heads of which only a part is filled."""
    model, upper, batches = given()
    model.float()
    shaped = [TokenBatch(batch.states.float(), batch.mask) for batch in batches]
    narrowing = narrowing_of(upper, lambda: shaped, 32, "pca")
    student = build_narrow(model, Shape(32, heads, inner), layers=3, narrowing=narrowing)
    mine = split_model(student, "embeddings")[1].blocks[0]
    parts, source = parts_of(mine), parts_of(upper.blocks[0])
    states, mask = shaped[0].states, shaped[0].mask
    kept = most_important(narrowing.blocks[0].heads, heads)
    with torch.no_grad():
        queries, keys, values = (
            layer(states).unflatten(-1, (4, 8))[:, :, kept] for layer in (source.query, source.key, source.value)
        )
        for place, head in enumerate(kept.tolist()):
            width = 32 // heads
            scores = most_important(narrowing.blocks[0].scores[head], width)
            carried = most_important(narrowing.blocks[0].values[head], width)
            wanted = queries[:, :, place, scores] @ keys[:, :, place, scores].transpose(1, 2) / math.sqrt(8)
            query, key = (layer(states).unflatten(-1, (heads, -1))[:, :, place] for layer in (parts.query, parts.key))
            torch.testing.assert_close(query @ key.transpose(1, 2) * parts.scale, wanted, rtol=1e-4, atol=1e-5)
            added = values[:, :, place, carried] @ source.out.weight.unflatten(1, (4, 8))[:, head, carried].T
            value = parts.value(states).unflatten(-1, (heads, -1))[:, :, place]
            found = value @ parts.out.weight.unflatten(1, (heads, -1))[:, place].T
            torch.testing.assert_close(found, added, rtol=1e-4, atol=1e-5)
        assert not parts.out.weight.unflatten(1, (heads, -1))[:, len(kept) :].any()
        if inner >= 64:
            wanted = source.outer(source.activation(source.inner(states)))
            torch.testing.assert_close(parts.outer(parts.activation(parts.inner(states))), wanted, rtol=1e-4, atol=1e-5)
    assert mask.any()
