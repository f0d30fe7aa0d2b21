"""Displacements: measured on the sets of a run, and matched by options, against what the samplers then really do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from samplerequest import request_of
from scipy import integrate, stats
from toyrun import toy_config, toy_run

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import load_config
from sage_kit.errors import StudyError
from sage_kit.recipe import resolve
from sage_kit.rundir import RunDirectory
from sage_kit.studies.analyses import displacement
from sage_kit.studies.analyses.displacement import anchors_of, lifted, match, mean_share, measure, near
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare

COUNT = 6000


@pytest.fixture(scope="module")
def vectors() -> Any:
    """Clusters of unequal density, so that a hard example's neighbours may be far or near."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.3, 2.0, size=(400, 1))
    return (rng.standard_normal((8, 24))[rng.integers(8, size=400)] + spread * rng.standard_normal((400, 24))).astype(
        np.float32
    )


def drawn(vectors: Any, sampler: str, options: Any) -> Any:
    """What a sampler makes of hard examples; the gradient, where one is asked for, is any direction."""
    plugins = Plugins(allow="")
    built = plugins.build("sampler", sampler, dict(options), BuildContext(config=load_config()))
    request = request_of(
        vectors, COUNT, divergence_gradient=lambda rows: np.ones((len(rows), vectors.shape[1]), np.float32)
    )
    return built.sample(request)


@pytest.mark.parametrize("target", [0.2, 1.0])
@pytest.mark.parametrize("sampler", sorted(displacement.SCALED_BY))
def test_matched_options_move_hard_examples_as_far_as_asked(vectors: Any, sampler: str, target: float) -> None:
    # hard anchors, of another draw than those that are moved in the end
    hard = {"fraction": 0.3}
    anchors = drawn(vectors, "gaussian", hard).anchors
    found = match(sampler, vectors, anchors, target, seed=3)
    samples = drawn(vectors, sampler, {**found.options, **hard})
    mean = np.linalg.norm(samples.vectors - vectors[samples.anchors], axis=1).mean()
    assert found.reached
    assert found.expected == pytest.approx(target, rel=0.01)
    assert mean == pytest.approx(target, rel=0.04)


@pytest.mark.parametrize("sampler", ["smote", "mixup"])
def test_a_target_out_of_reach_is_told(vectors: Any, sampler: str) -> None:
    found = match(sampler, vectors, np.arange(400), 100.0)
    assert not found.reached
    assert found.expected < 50
    if sampler == "smote":
        assert found.options == {"interpolation": 1.0}


def test_duplicates_cannot_be_moved() -> None:
    same = np.ones((40, 6), np.float32)
    for sampler in displacement.SCALED_BY:
        assert not match(sampler, same, np.arange(40), 1.0).reached


def test_options_have_three_digits(vectors: Any) -> None:
    (value,) = match("gaussian", vectors, np.arange(400), 0.123456).options.values()
    assert value == float(f"{value:.3g}")


def test_unknown_sampler(vectors: Any) -> None:
    with pytest.raises(StudyError, match=r"'smoot' cannot be set.*'smote'"):
        match("smoot", vectors, np.arange(4), 1.0)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 3.0, 60.0])
def test_mean_share_is_the_integral(alpha: float) -> None:
    density = stats.beta(alpha, alpha).cdf
    # E min(b, 1 - b) = 2 * integral over b < 1/2 of b f(b) = F(1/2) - 2 * integral of F over [0, 1/2], by parts
    area, _ = integrate.quad(density, 0, 0.5)
    assert mean_share(alpha) == pytest.approx(2 * (0.5 * density(0.5) - area), rel=1e-6)


def test_near() -> None:
    assert near(1.09, 1.0)
    assert not near(1.11, 1.0)
    assert not near(0.0, 1.0)


def test_measure_reads_every_round(tmp_path: Path) -> None:
    vectors = np.zeros((5, 3), np.float32)
    directory = RunDirectory(tmp_path)
    for number, length in ((2, 1.0), (3, 3.0)):
        path = directory.synthetic(number)
        path.parent.mkdir(parents=True)
        moved = np.zeros((2, 3), np.float32)
        moved[:, 1] = length
        SyntheticSet(number, np.array([number, 0]), moved).save(path)
    run: Any = SimpleNamespace(directory=directory, arm="high loss")
    np.testing.assert_array_equal(measure(run, vectors), [1, 1, 3, 3])
    np.testing.assert_array_equal(anchors_of(run), [2, 0, 3, 0])
    empty: Any = SimpleNamespace(directory=RunDirectory(tmp_path / "none"), arm="plain")
    with pytest.raises(StudyError, match=r"'plain' has kept no synthetic"):
        measure(empty, vectors)


def test_what_tokens_do_is_what_the_vectors_say_under_shift_and_not_under_replacement(
    tmp_path: Path, tiny_bert: Path
) -> None:
    config = toy_config(tmp_path, tiny_bert)
    prepared = prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())
    pooled = prepared.train.store.pooled
    for lift in ("shift", "replace_random"):
        directory, _ = toy_run(tmp_path, tiny_bert, lift=lift, rounds=2)
        run: Any = SimpleNamespace(directory=directory, config=directory.config(), arm=lift)
        wished = measure(run, pooled)
        done = lifted(run, prepared, Plugins(allow=""), most=10_000)
        assert done.shape == wished.shape
        alike = np.allclose(np.sort(done), np.sort(wished), rtol=1e-4, atol=1e-5)
        assert alike == (lift == "shift")
    assert len(lifted(run, prepared, Plugins(allow=""), most=5)) < len(wished)


def test_mixup_meets_a_target_of_tokens_by_the_lifts_ratio(tmp_path: Path, tiny_bert: Path) -> None:
    choices: dict[str, Any] = {"sampler": "mixup", "sampler_options": {}, "lift": "mixup", "rounds": 3}
    config = toy_config(tmp_path, tiny_bert, **choices)
    plugins = Plugins(allow="")
    prepared = prepare(resolve(config, plugins), make_accelerator(config), Costs())
    anchors = np.arange(len(prepared.train.store))
    ratio = displacement.lift_ratio(config, prepared, plugins, anchors)
    shifted = toy_config(tmp_path, tiny_bert, **{**choices, "lift": "shift"})
    assert displacement.lift_ratio(shifted, prepared, plugins, anchors) == pytest.approx(1, rel=1e-4)
    target = 0.2 * float(
        np.linalg.norm(prepared.train.store.pooled - prepared.train.store.pooled.mean(0), axis=1).mean()
    )
    options = dict(match("mixup", prepared.train.store.pooled, anchors, target / ratio).options)
    directory, _ = toy_run(tmp_path, tiny_bert, **{**choices, "sampler_options": options})
    run: Any = SimpleNamespace(directory=directory, config=directory.config(), arm="mixup")
    assert lifted(run, prepared, plugins).mean() == pytest.approx(target, rel=0.2)
    assert abs(ratio - 1) > 0.03


def test_hard_examples_again_are_the_anchors_themselves(vectors: Any) -> None:
    samples = drawn(vectors, "smote", {"interpolation": 0.0})
    np.testing.assert_array_equal(samples.vectors, vectors[samples.anchors])
    # the anchors that high_loss draws
    np.testing.assert_array_equal(samples.anchors, drawn(vectors, "gaussian", {}).anchors)
