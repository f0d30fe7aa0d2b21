"""The kind of task `embeddings`: alignment, predictions, and the agreement against a loop over scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from sage_kit.builtin.task_kinds import embeddings as module
from sage_kit.components import Compared, EncodedTexts, TokenIds
from sage_kit.components.plugins import Plugins
from sage_kit.components.task_handling import TaskHandling

HANDLING: TaskHandling = Plugins(allow="").handling("embeddings")
DIM = 16


def encoded(rows: int, texts: int = 2, labels: Any = None) -> EncodedTexts:
    count = rows * texts
    tokens = TokenIds(
        np.arange(count, dtype=np.int32), np.zeros(count, np.uint8), np.arange(count + 1, dtype=np.int64),
        np.zeros(count, bool), np.zeros(count, bool),
    )  # fmt: skip
    values = np.full(rows, np.nan, np.float32) if labels is None else np.asarray(labels, np.float32)
    words = ["a"] * rows
    row_of = np.repeat(np.arange(rows), texts)
    return EncodedTexts(words, words if texts == 2 else None, values, (), (0.0, 1.0), tokens, row_of)


def made(rows: int, texts: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    teacher = rng.standard_normal((rows * texts, DIM)).astype(np.float32)
    return (teacher + noise * rng.standard_normal(teacher.shape)).astype(np.float32) * 3, teacher


def by_loop(student: Any, teacher: Any, rows: int, texts: int) -> NDArray[np.float64]:
    """The agreement as its docstring says, one text after the other."""
    count = min(module.COMPARED + (texts == 1), rows)
    chosen = [k * rows // count for k in range(count)]
    found = np.zeros(rows)
    for row in range(rows):
        others = [other for other in chosen if texts > 1 or other != row][: count - (texts == 1)]
        for text in range(texts):
            cosines = []
            for vectors in (student.astype(np.float64), teacher.astype(np.float64)):
                unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                unit = unit.reshape(rows, texts, DIM)
                cosines.append([round(float(unit[row, text] @ unit[o, texts - 1 - text]), 6) for o in others])
            found[row] += max(0.0, spearmanr(*cosines).statistic) / texts
    return found


@pytest.mark.parametrize(("rows", "texts"), [(90, 2), (90, 1), (5, 2), (3, 1), (2, 2)])
def test_agreement_is_a_rank_correlation(rows: int, texts: int) -> None:
    student, teacher = made(rows, texts, 0.8)
    data = encoded(rows, texts)
    found = HANDLING.agreement(student, teacher, data, HANDLING.align(data))
    np.testing.assert_allclose(
        found, by_loop(student, teacher, rows, texts), atol=2e-3
    )  # single precision may change the order of two
    assert (found >= 0).all()
    assert (found <= 1 + 1e-12).all()


def test_agreement_at_its_ends() -> None:
    rng = np.random.default_rng(1)
    data = encoded(200)
    alignment = HANDLING.align(data)
    student, teacher = made(200, 2, 0.0)
    np.testing.assert_allclose(HANDLING.agreement(student, teacher, data, alignment), 1)
    # a rotation leaves all cosines as they are
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
    assert HANDLING.agreement(student @ turn, teacher, data, alignment).min() > 0.99
    other = rng.standard_normal(teacher.shape).astype(np.float32)
    chance = HANDLING.agreement(other, teacher, data, alignment).mean()
    # of a normal variable with the deviation 1 / sqrt(63), the mean of the positive part is 0.4 of that
    assert chance == pytest.approx(0.05, abs=0.01)
    near, far = (HANDLING.agreement(made(200, 2, n)[0], teacher, data, alignment).mean() for n in (0.3, 1.0))
    assert 1 > near > far > 0.4


def test_agreement_where_there_is_no_order() -> None:
    for rows, texts in ((1, 2), (1, 1), (2, 1)):
        data = encoded(rows, texts)
        student, teacher = made(rows, texts, 5.0)
        assert HANDLING.agreement(student, teacher, data, HANDLING.align(data)).tolist() == [1.0] * rows
    data = encoded(9)
    alignment, (student, teacher) = HANDLING.align(data), made(9, 2, 0.5)
    alike = np.ones_like(teacher)
    assert HANDLING.agreement(alike, teacher, data, alignment).tolist() == [0.0] * 9
    assert HANDLING.agreement(alike, 2 * alike, data, alignment).tolist() == [1.0] * 9
    assert HANDLING.agreement(0 * alike, teacher, data, alignment).tolist() == [0.0] * 9


def test_targets_and_predictions() -> None:
    data = encoded(3, labels=[0.5, 4.0, 2.0])
    alignment = HANDLING.align(data)
    assert np.asarray(alignment.targets).tolist() == [0.5, 0.5, 4, 4, 2, 2]
    outputs, _ = made(3, 2, 0.1)
    found = HANDLING.predictions(outputs, data, alignment)
    assert found.shape == (3, 2, DIM)
    assert np.array_equal(found[1, 0], outputs[2])
    single = encoded(4, 1)
    assert HANDLING.predictions(made(4, 1, 0.1)[0], single, HANDLING.align(single)).shape == (4, 1, DIM)
    assert np.isnan(HANDLING.align(single).targets).all()
    logits = torch.randn(5, DIM)
    compared = HANDLING.compared(logits)
    assert isinstance(compared, Compared)
    assert compared.logits is logits
    answers = HANDLING.answers(compared)
    assert answers.shape == (5,)
    assert bool(answers.isnan().all())
