"""Sampler `adversarial`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samplerequest import request_of
from toyrun import toy_run

from sage_kit.errors import CompatibilityError


def test_moves_along_the_gradient_by_the_length(build: Any, vectors: Any) -> None:
    asked = []

    def gradient(indices: Any) -> Any:
        asked.append(indices)
        rising = np.cos(vectors[indices])
        rising[indices == int(indices[0])] = 0  # its divergence does not change at all
        return rising.astype(np.float32)

    request = request_of(vectors, 200, divergence_gradient=gradient)
    samples = build("sampler", "adversarial", {"length": 0.7}).sample(request)
    still = samples.anchors == samples.anchors[0]
    moved = samples.vectors.astype(np.float64) - vectors[samples.anchors]
    np.testing.assert_array_equal(asked[0], samples.anchors)
    np.testing.assert_allclose(moved[still], 0, atol=1e-7)
    direction = np.cos(vectors[samples.anchors].astype(np.float64))[~still]
    expected = 0.7 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    np.testing.assert_allclose(moved[~still], expected, atol=1e-5)


def test_as_long_as_gaussian_noise(build: Any, vectors: Any) -> None:
    lengths = []
    for name in ("adversarial", "gaussian"):
        request = request_of(vectors, 300, divergence_gradient=lambda indices: vectors[indices])
        samples = build("sampler", name, {"k": 7, "scale": 0.4}).sample(request)
        lengths.append(np.linalg.norm(samples.vectors - vectors[samples.anchors], axis=1))
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-3)


def test_without_a_gradient_it_is_refused(build: Any, vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match="only a run can give it"):
        build("sampler", "adversarial").sample(request_of(vectors, 5))


def test_in_a_run_student_and_teacher_differ_more_where_it_moves_to(tmp_path: Path, tiny_bert: Path) -> None:
    """The synthetic loss of the first round with synthetic examples, beside random directions of the same length.

    The step is short: a gradient says how the divergence rises nearby.
    """
    losses = {}
    for name in ("adversarial", "gaussian"):
        choices = {"sampler": name, "sampler_options": {"k": 8, "length": 0.2}, "lift": "shift"}
        choices |= {"rounds": 2, "learning_rate": 1e-7}
        _, summary = toy_run(tmp_path, tiny_bert, **choices)
        losses[name] = summary["rounds"][1]["synthetic_loss"]
    assert losses["adversarial"] > losses["gaussian"]
