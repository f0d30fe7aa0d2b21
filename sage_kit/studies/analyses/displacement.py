"""How far synthetic examples lie from their anchors, and options that make samplers in full space go as far.

A comparison of regions that also differ in distance says little, so controls are matched: the mean displacement of
each is set to a target. A lift may go another way than the vectors say, so `lifted` measures what the tokens do.

Every one of these samplers is scaled by one option, in which its mean displacement is linear
(`gaussian`, `smote`, `adversarial`, `shuffled`) or rises strictly (`mixup`), so one look at the neighbours is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sage_kit.builtin.samplers import FullSpaceOptions
from sage_kit.builtin.samplers.full_space import CHUNK, neighborhood
from sage_kit.components import SampleRequest, TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.recipe import resolve
from sage_kit.studies.analyses.run_data import synthetic_sets
from sage_kit.studies.runs import ArmRun
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.training.prepared import Prepared

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

SCALED_BY: Mapping[str, str] = {"gaussian": "scale", "adversarial": "scale", "smote": "interpolation",
                                "shuffled": "interpolation", "mixup": "alpha"}  # fmt: skip
"""Samplers in full space, and the option that says how far they go."""

PAIRS = 20_000  # random pairs from which the mean distance of two examples is estimated
TOLERANCE = 0.1  # mean displacements count as matched when they differ by at most this share
LEAST_ALPHA, MOST_ALPHA = 1e-3, 1e3  # between these, mixup's mean share of the way goes from 0.0007 to 0.49


class Match(NamedTuple):
    """Options of a sampler that bring its mean displacement to a target."""

    options: Mapping[str, float]  # three digits each, so that the same target gives the same run again
    expected: float  # mean displacement under them [vector units]
    reached: bool  # whether that is the target; an option that may not go farther falls short of it


def lifted(run: ArmRun, prepared: Prepared, plugins: Plugins, *, most: int = 1024) -> NDArray[np.float64]:
    """Distances of lifted examples' mean token from their anchors' mean token: what the student sees of a displacement.
    Of each round `most` examples at least, in whole batches of its plan; (m,), float64.
    """
    synthesizer = _synthesizer(run.config, prepared, plugins)
    return np.concatenate([_lifted(one, synthesizer, prepared, most) for one in synthetic_sets(run)])


def lift_ratio(
    config: RunConfig, prepared: Prepared, plugins: Plugins, anchors: Indices, *, count: int = 4096
) -> float:
    """How far a lift moves the mean token, in the mean, when vectors move by one: 1 for lift `shift`.

    `config` names the lift and a sampler in full space that needs no gradient; `anchors`, (m,) int64, are moved,
    repeated ones more often.
    """
    store = prepared.train.store
    synthesizer = _synthesizer(config, prepared, plugins)
    losses = np.bincount(anchors, minlength=len(store)).astype(np.float32)
    tried = synthesizer.create(2, count, losses, np.zeros_like(prepared.train.outputs.logits))
    vectors = np.linalg.norm(tried.vectors - store.pooled[tried.anchors], axis=1).mean()
    return float(_lifted(tried, synthesizer, prepared, count).mean() / vectors)


def _synthesizer(config: RunConfig, prepared: Prepared, plugins: Plugins) -> Synthesizer:
    return prepared.synthesizer(resolve(config, plugins), lambda text: None, Costs())


def _lifted(one: SyntheticSet, synthesizer: Synthesizer, prepared: Prepared, most: int) -> NDArray[np.float64]:
    distances: list[NDArray[np.float64]] = []
    for number, rows in enumerate(synthesizer.plan(one)):
        if sum(map(len, distances)) >= most:
            break
        new = synthesizer.lift(one, rows, number)
        old = prepared.train.store.batch(one.anchors[rows], prepared.device)
        distances.append((_mean_token(new) - _mean_token(old)).norm(dim=1).double().cpu().numpy())
    return np.concatenate(distances)


def _mean_token(batch: TokenBatch) -> Tensor:
    mask = batch.mask.unsqueeze(2).to(batch.states.dtype)
    return (batch.states * mask).sum(dim=1) / mask.sum(dim=1)


def measure(run: ArmRun, vectors: Floats) -> NDArray[np.float64]:
    """Distances (m,), float64, of a run's synthetic vectors from their anchors' among `vectors`, over all rounds."""
    moves = [one.vectors - vectors[one.anchors] for one in synthetic_sets(run)]
    return np.concatenate([np.linalg.norm(move, axis=1).astype(np.float64) for move in moves])


def anchors_of(run: ArmRun) -> Indices:
    """Anchors of a run's synthetic examples, over all its rounds, of shape (m,); `measure` says what may be raised."""
    return np.concatenate([one.anchors for one in synthetic_sets(run)])


def check_samplers(samplers: Sequence[str]) -> None:
    """Refuse samplers whose displacement `match` cannot set, before anything is run."""
    for sampler in samplers:
        if sampler not in SCALED_BY:
            raise StudyError(f"displacement of sampler {sampler!r} cannot be set.{did_you_mean(sampler, SCALED_BY)}")


def match(sampler: str, vectors: Floats, anchors: Indices, target: float, *, seed: int = 0) -> Match:
    """Options under which a sampler in full space moves anchors by `target` in the mean.

    With d the mean distance of the anchors to their neighbours, `gaussian` and `adversarial` move by scale * d, `smote`
    and `shuffled` by interpolation / 2 * d. `mixup` goes a share min(b, 1 - b) of the way, where b has the distribution
    Beta(a, a): 1/2 - E|b - 1/2| = 1/2 - 1 / (a * 4 ** a * B(a, a)) in the mean, with the beta function B. Anchors, (m,)
    int64, that repeat count as often; vectors are (n, dim).
    """
    check_samplers([sampler])
    option = SCALED_BY[sampler]
    rng = np.random.default_rng(seed)
    if option == "alpha":
        distance = _mean_of_pairs(vectors, anchors, rng)
        alpha = _digits(_alpha_of(target / distance if distance > 0 else 0.0))
        expected = distance * mean_share(alpha)
        return Match({option: alpha}, expected, near(expected, target))
    request = SampleRequest(
        count=len(anchors),
        losses=np.zeros(len(vectors), np.float32),
        vectors=vectors,
        teacher_logits=np.zeros((len(vectors), 1), np.float32),
        student_logits=np.zeros((len(vectors), 1), np.float32),
        rng=rng,
    )
    distance = float(neighborhood(anchors, request, FullSpaceOptions(), sampler)[0].mean())
    per_unit = distance if option == "scale" else distance / 2
    value = _digits(target / per_unit) if per_unit > 0 else 0.0  # among duplicates there is nowhere to go
    if option == "interpolation":
        value = min(value, 1.0)
    return Match({option: value}, value * per_unit, near(value * per_unit, target))


def near(displacement: float, target: float) -> bool:
    """Whether a mean displacement counts as the target's."""
    return abs(displacement - target) <= TOLERANCE * target


def mean_share(alpha: float) -> float:
    """Mean of min(b, 1 - b) for b of the distribution Beta(alpha, alpha): what mixup goes of the way (see `match`)."""
    from scipy.special import betaln

    return float(0.5 - np.exp(-np.log(alpha) - alpha * np.log(4) - betaln(alpha, alpha)))


def _alpha_of(share: float) -> float:
    from scipy.optimize import brentq

    if share <= mean_share(LEAST_ALPHA):
        return LEAST_ALPHA
    if share >= mean_share(MOST_ALPHA):
        return MOST_ALPHA
    return float(np.exp(brentq(lambda x: mean_share(np.exp(x)) - share, np.log(LEAST_ALPHA), np.log(MOST_ALPHA))))


def _mean_of_pairs(vectors: Floats, anchors: Indices, rng: np.random.Generator) -> float:
    """Mean distance of the anchors from other examples, drawn as mixup draws its partners."""
    first = np.resize(rng.permutation(anchors), max(len(anchors), PAIRS))
    second = (first + rng.integers(1, len(vectors), size=len(first))) % len(vectors)
    total = 0.0
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        total += float(np.linalg.norm(vectors[first[part]] - vectors[second[part]], axis=1).sum(dtype=np.float64))
    return total / len(first)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
