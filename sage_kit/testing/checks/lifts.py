"""Checks of lifts."""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np

from sage_kit.components import LiftRequest, LiftSpec, TextBatch, TokenBatch, TokenIds
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed

BATCH = 6
LARGE = 256


@functools.cache
def _real(rows: int) -> TokenIds:
    """The text of the real examples, one object for all requests, as in a run."""
    return toy.token_ids(rows)


def _request(subject: Subject, **fields: Any) -> LiftRequest:
    """A request as the core makes it: shares are there for lifts that ask for them."""
    import torch

    anchors = np.arange(BATCH, dtype=np.int64) * 3
    neighbors = (anchors[:, None] + np.arange(1, 4)) % toy.ROWS
    pooled = torch.from_numpy(toy.train()[anchors])
    displacement = torch.from_numpy(toy.train()[neighbors[:, 0]]) * 0.5 - pooled * 0.5
    given = {
        "anchor": toy.tokens(anchors),
        "vectors": pooled + displacement,
        "displacement": displacement,
        "anchors": anchors,
        "neighbors": neighbors,
        "states": toy.tokens,
        "generator": torch.Generator().manual_seed(5),
        "n_real": toy.ROWS,
        "embed": toy.embed,
        "embed_alone": toy.embed_alone,
        "vocabulary": toy.ToyVocabulary(),
        **fields,
    }
    rows = int(given["n_real"])
    real = _real(rows)
    given.setdefault("text", toy.text(given["anchors"], real))
    given.setdefault("tokens", real)
    given.setdefault("teacher_logits", toy.logits(rows))
    if cast(LiftSpec, subject.spec).needs_shares:
        given["shares"] = np.linspace(0.1, 0.5, len(given["anchors"]), dtype=np.float32)
    return LiftRequest(**given)


def _lift(subject: Subject, request: LiftRequest, lift: Any = None) -> TokenBatch:
    import torch

    batch = (lift or subject.build()).lift(request)
    require(isinstance(batch, TokenBatch), f"lift returns {type(batch).__name__} instead of a TokenBatch")
    states, mask = batch.states, batch.mask
    rows, dim = len(request.anchors), request.vectors.shape[1]
    require(isinstance(states, torch.Tensor) and isinstance(mask, torch.Tensor), "states or mask is no tensor")
    is_right = states.ndim == 3 and states.shape[0] == rows and states.shape[2] == dim
    require(is_right, f"states have shape {tuple(states.shape)} instead of ({rows}, tokens, {dim})")
    require(states.dtype == request.anchor.states.dtype, f"states are {states.dtype}, unlike the anchors'")
    require(states.device == request.anchor.states.device, "states lie on another device than the anchors'")
    require(mask.dtype == torch.bool, f"the mask is {mask.dtype} instead of bool")
    require(mask.shape == states.shape[:2], f"the mask has shape {tuple(mask.shape)}, unlike its states")
    require(bool(mask.any(1).all()), "a row has no real token")
    require(bool(torch.isfinite(states).all()), "states hold NaN or infinity")
    require(bool((states[~mask] == 0).all()), "padding positions are not zero")
    if subject.plugins.lift(subject.spec.name, subject.options).makes_text:
        require(batch.text is not None, "the spec says that it makes text, and the batch has none: return embed(text)")
    return cast(TokenBatch, batch)


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    """A batch of at most `LARGE` anchors among as many real examples as there are rows."""
    import torch

    vectors = toy.many(rows)
    anchors = np.random.default_rng(round).permutation(rows)[:LARGE].astype(np.int64)
    neighbors = (anchors[:, None] + np.arange(1, 4)) % rows
    pooled = torch.from_numpy(vectors[anchors])
    displacement = torch.from_numpy(vectors[neighbors[:, 0]]) * 0.5 - pooled * 0.5
    request = _request(
        subject,
        anchor=toy.tokens(anchors, vectors),
        vectors=pooled + displacement,
        displacement=displacement,
        anchors=anchors,
        neighbors=neighbors,
        states=lambda indices: toy.tokens(indices, vectors),
        generator=torch.Generator().manual_seed(round),
        n_real=rows,
    )
    return {"request": request}


def _use(subject: Subject, lift: Any, inputs: Inputs) -> Outputs:
    batch = _lift(subject, inputs["request"], lift)
    return {"states": batch.states, "mask": batch.mask}


EXERCISES["lift"] = Exercise(_make, _use)


@check("lift")
def lift_shapes(subject: Subject) -> None:
    """A TokenBatch with a row for each anchor: finite states of the anchors' type and device, zero at padding.

    To fix: return ``TokenBatch(states, mask)`` and end with ``states.masked_fill(~mask.unsqueeze(2), 0)``.
    """
    _lift(subject, _request(subject))


@check("lift")
def lift_keeps_its_input(subject: Subject) -> None:
    """The request's tensors are left as they were.

    To fix: avoid methods that end in an underscore and ``+=`` on the request's tensors.
    """
    request = _request(subject)
    with unchanged(
        states=request.anchor.states,
        mask=request.anchor.mask,
        vectors=request.vectors,
        displacement=request.displacement,
        anchors=request.anchors,
        neighbors=request.neighbors,
        shares=request.shares,
    ):
        subject.build().lift(request)


@check("lift")
def lift_is_repeatable(subject: Subject) -> None:
    """The same batch lifted twice comes out the same: the teacher labels the first, the student learns the second.

    To fix: draw everything random from ``request.generator``, and keep no generator of your own.
    """
    import torch

    lift = subject.build()
    with disturbed(41):
        first = _lift(subject, _request(subject), lift)
    with disturbed(42):
        for found in (_lift(subject, _request(subject), lift), _lift(subject, _request(subject))):
            same = first.states.shape == found.states.shape and torch.equal(first.states, found.states)
            require(same and torch.equal(first.mask, found.mask), "the same batch lifted twice comes out differently")


@check("lift")
def lift_takes_hard_data(subject: Subject) -> None:
    """No neighbours, no displacement, one row and texts of one token work or give a SageError of one line.

    To fix: handle ``request.neighbors is None``, which samplers may return, and raise
    sage_kit.errors.CompatibilityError for what cannot work.
    """
    import torch

    one = np.zeros(1, dtype=np.int64)
    vectors = torch.from_numpy(toy.train()[:BATCH])
    single = TokenBatch(vectors.unsqueeze(1).clone(), torch.ones(BATCH, 1, dtype=torch.bool))
    first = toy.text(np.arange(BATCH), _real(toy.ROWS))
    alone = TextBatch(*(values[:, :1] for values in (first.ids, first.types, first.mask, first.special, first.second)))
    still = torch.zeros(BATCH, toy.DIM)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no neighbours", {"neighbors": None}),
        ("no displacement", {"displacement": still, "vectors": torch.from_numpy(toy.train()[::3][:BATCH].copy())}),
        ("texts of one token", {"anchor": single, "text": alone}),
        (
            "one row",
            {
                "anchor": toy.tokens(one),
                "anchors": one,
                "neighbors": one[:, None] + 1,
                "vectors": vectors[:1] * 1.1,
                "displacement": vectors[:1] * 0.1,
            },
        ),
    ]
    for what, fields in cases:
        works_or_explains(what, lambda fields=fields: _lift(subject, _request(subject, **fields)))  # type: ignore[misc]
