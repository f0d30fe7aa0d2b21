"""Every built-in loss against its formula in float64, written with numpy and scipy, one example or pair at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial import distance
from scipy.special import log_softmax, softmax
from scipy.stats import entropy, pearsonr

from sage_kit.components import BuildContext, LossBatch, ModelOutputs, ModelSizes
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError

Array = NDArray[Any]

RNG = np.random.default_rng(0)
ROWS, TOKENS, DIM, WIDE, LAYERS, HEADS, CLASSES = 7, 6, 8, 12, 3, 4, 5
LENGTHS = np.array([1, 2, 6, 6, 3, 5, 4])
MASK = np.arange(TOKENS) < LENGTHS[:, None]
LABELS = RNG.integers(0, CLASSES, ROWS)


def draw(*shape: int) -> Array:
    return RNG.normal(0.2, 1.5, shape)


STUDENT, TEACHER = (
    {
        "logits": draw(ROWS, CLASSES),
        "hidden": draw(ROWS, TOKENS, LAYERS, DIM),
        "projections": draw(ROWS, TOKENS, 1, 3, DIM),
        "scores": draw(ROWS, LAYERS, HEADS, TOKENS, TOKENS),
        "embeddings": draw(ROWS, DIM),
    }
    for _ in range(2)
)


def sizes(**changes: Any) -> ModelSizes:
    plain = {"teacher_blocks": 6, "student_blocks": 3, "teacher_dim": DIM, "student_dim": DIM, "teacher_heads": HEADS,
             "student_heads": HEADS, "n_outputs": CLASSES}  # fmt: skip
    return ModelSizes(**{**plain, **changes})


def outputs(values: Mapping[str, Array]) -> ModelOutputs:
    return ModelOutputs(**{name: torch.from_numpy(array.astype(np.float32)) for name, array in values.items()})


def make_batch(student: Mapping[str, Array] = STUDENT, teacher: Mapping[str, Array] = TEACHER, **fields: Any) -> Any:
    given = {"labels": torch.from_numpy(LABELS), "mask": torch.from_numpy(MASK), **fields}
    return LossBatch(outputs(student), outputs(teacher), **given)


def build(name: str, models: ModelSizes | None = None, softness: float = 2.0, seed: int = 3, **options: Any) -> Any:
    context = BuildContext(RunConfig(temperature=softness), seed=seed, sizes=models or sizes())
    return Plugins(allow="").build("loss", name, options, context)


def check(found: torch.Tensor, expected: Any, rtol: float = 2e-5) -> None:
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=rtol, atol=2e-6)


# ---- outputs


def kl(student: Array, teacher: Array, temperature: float) -> Any:
    return temperature**2 * entropy(softmax(teacher / temperature, -1), softmax(student / temperature, -1), axis=-1)


def test_kl() -> None:
    student, teacher = STUDENT["logits"], TEACHER["logits"]
    check(build("kl").per_example(make_batch()), kl(student, teacher, 2.0))
    check(build("kl", softness=3.0).per_example(make_batch()), kl(student, teacher, 3.0))
    by_option = build("kl", temperature=1.0).per_example(make_batch())
    check(by_option, kl(student, teacher, 1.0))


def test_logits_mse() -> None:
    expected = ((STUDENT["logits"] - TEACHER["logits"]) ** 2).mean(-1)
    check(build("logits_mse").per_example(make_batch()), expected)


def test_hard_labels() -> None:
    expected = -log_softmax(STUDENT["logits"], -1)[np.arange(ROWS), LABELS]
    check(build("hard_labels").per_example(make_batch()), expected)


def test_regression_has_squared_errors() -> None:
    student, teacher = ({"logits": side["logits"][:, :1]} for side in (STUDENT, TEACHER))
    gold = RNG.uniform(0, 5, ROWS).astype(np.float32)
    batch = make_batch(student, teacher, labels=torch.from_numpy(gold), regression=True)
    check(build("kl").per_example(batch), ((student["logits"] - teacher["logits"]) ** 2)[:, 0])
    check(build("hard_labels").per_example(batch), (student["logits"][:, 0] - gold) ** 2)


@pytest.mark.parametrize(("inter", "intra", "temperature"), [(1.0, 1.0, 1.0), (2.0, 0.0, 3.0), (0.0, 0.7, 2.0)])
def test_dist(inter: float, intra: float, temperature: float) -> None:
    found = build("dist", inter=inter, intra=intra, temperature=temperature).per_example(make_batch())
    one, two = (softmax(side["logits"] / temperature, -1) for side in (STUDENT, TEACHER))
    of_rows = [1 - pearsonr(a, b).statistic for a, b in zip(one, two, strict=True)]
    of_classes = [1 - pearsonr(a, b).statistic for a, b in zip(one.T, two.T, strict=True)]
    expected = temperature**2 * (inter * np.mean(of_rows) + intra * np.mean(of_classes))
    check(found.mean(), expected)
    if not intra:
        check(found, temperature**2 * inter * np.array(of_rows))


def test_dist_of_equal_or_constant_outputs_is_finite() -> None:
    same = {"logits": np.zeros((4, 3))}
    student = torch.zeros(4, 3, requires_grad=True)
    batch = LossBatch(ModelOutputs(student), outputs(same), torch.zeros(4, dtype=torch.int64))
    found = build("dist").per_example(batch)
    found.sum().backward()
    assert found.tolist() == [0.0] * 4
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("name", ["kl", "logits_mse", "hard_labels"])
def test_outputs_per_token_are_averaged_where_they_count(name: str) -> None:
    student, teacher = {"logits": draw(ROWS, TOKENS, CLASSES)}, {"logits": draw(ROWS, TOKENS, CLASSES)}
    labels = RNG.integers(0, CLASSES, (ROWS, TOKENS))
    positions = MASK.copy()
    positions[2, :3] = False
    per_token = {
        "kl": kl(student["logits"], teacher["logits"], 2.0),
        "logits_mse": ((student["logits"] - teacher["logits"]) ** 2).mean(-1),
        "hard_labels": -np.take_along_axis(log_softmax(student["logits"], -1), labels[..., None], -1)[..., 0],
    }[name]
    expected = [row[counts].mean() for row, counts in zip(per_token, positions, strict=True)]
    ignored = torch.from_numpy(np.where(positions, labels, -100))
    batch = make_batch(student, teacher, labels=ignored, positions=torch.from_numpy(positions))
    check(build(name).per_example(batch), expected)


def test_dist_per_token_correlates_all_outputs_that_count() -> None:
    student, teacher = {"logits": draw(ROWS, TOKENS, CLASSES)}, {"logits": draw(ROWS, TOKENS, CLASSES)}
    found = build("dist", inter=1.0, intra=0.0).per_example(
        make_batch(student, teacher, positions=torch.from_numpy(MASK))
    )
    one, two = softmax(student["logits"], -1), softmax(teacher["logits"], -1)
    expected = [
        np.mean([1 - pearsonr(one[i, t], two[i, t]).statistic for t in range(n)]) for i, n in enumerate(LENGTHS)
    ]
    check(found, expected)


# ---- hidden states and attention


def test_hidden_states() -> None:
    for name, measure in (
        ("hidden_cosine", distance.cosine),
        ("hidden_mse", lambda a, b: float(((a - b) ** 2).mean())),
    ):
        expected = [
            np.mean([measure(STUDENT["hidden"][i, t, k], TEACHER["hidden"][i, t, k])
                     for t in range(n) for k in range(LAYERS)])
            for i, n in enumerate(LENGTHS)
        ]  # fmt: skip
        check(build(name).per_example(make_batch()), expected)


def test_tinybert_attention() -> None:
    expected = [
        ((STUDENT["scores"][i, :, :, :n, :n] - TEACHER["scores"][i, :, :, :n, :n]) ** 2).mean()
        for i, n in enumerate(LENGTHS)
    ]
    check(build("tinybert_attention").per_example(make_batch()), expected)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_minilm_relations_of_models_of_different_widths(heads: int) -> None:
    wide = {**TEACHER, "projections": draw(ROWS, TOKENS, 1, 3, 2 * DIM)}
    models = sizes(teacher_dim=2 * DIM)
    found = build("minilm_relations", models, heads=heads).per_example(make_batch(teacher=wide))
    expected = np.zeros(ROWS)
    for i, kind, head in itertools.product(range(ROWS), range(3), range(heads)):
        n, relations = LENGTHS[i], []
        for side in (wide, STUDENT):
            part = np.split(side["projections"][i, :n, 0, kind], heads, axis=1)[head]
            relations.append(softmax(part @ part.T / np.sqrt(part.shape[1]), axis=-1))
        expected[i] += sum(entropy(p, q) for p, q in zip(*relations, strict=True)) / (3 * heads * n)
    check(found, expected)


def test_pkd() -> None:
    one, two = STUDENT["hidden"][:, 0], TEACHER["hidden"][:, 0]
    one, two = (states / np.linalg.norm(states, axis=-1, keepdims=True) for states in (one, two))
    check(build("pkd").per_example(make_batch()), ((one - two) ** 2).sum((1, 2)))


# ---- embeddings


def test_embedding_cosine() -> None:
    expected = [distance.cosine(a, b) for a, b in zip(STUDENT["embeddings"], TEACHER["embeddings"], strict=True)]
    check(build("embedding_cosine").per_example(make_batch()), expected)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_contrastive(temperature: float) -> None:
    cosines = 1 - distance.cdist(STUDENT["embeddings"], TEACHER["embeddings"], "cosine")
    expected = -np.diag(log_softmax(cosines / temperature, axis=1))
    check(build("contrastive", temperature=temperature).per_example(make_batch()), expected, rtol=1e-4)


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def reference_rkd(student: Array, teacher: Array) -> tuple[Array, Array]:
    """The shares of distances and of angles, pair by pair and triplet by triplet."""
    n = len(student)
    pairs = list(itertools.permutations(range(n), 2))
    means = [np.mean([np.linalg.norm(x[i] - x[j]) for i, j in pairs]) for x in (student, teacher)]
    distances, angles = np.zeros(n), np.zeros(n)
    for j, i in pairs:
        one, two = (np.linalg.norm(x[i] - x[j]) / mean for x, mean in zip((student, teacher), means, strict=True))
        distances[j] += n * huber(one - two) / len(pairs)
    triplets = list(itertools.permutations(range(n), 3))
    for j, i, k in triplets:
        one, two = (1 - distance.cosine(x[i] - x[j], x[k] - x[j]) for x in (student, teacher))
        angles[j] += n * huber(one - two) / len(triplets)
    return distances, angles


def test_rkd_of_models_of_different_widths() -> None:
    wide = {**TEACHER, "embeddings": 3 * draw(ROWS, WIDE)}
    distances, angles = reference_rkd(STUDENT["embeddings"], wide["embeddings"])
    loss = build("rkd", sizes(teacher_dim=WIDE), distance=0.5, angle=3.0)
    check(loss.per_example(make_batch(teacher=wide)), 0.5 * distances + 3 * angles, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rkd_of_few_or_equal_examples_is_finite(rows: int) -> None:
    embeddings = torch.ones(rows, DIM, requires_grad=True)
    teacher = ModelOutputs(torch.zeros(rows, 2), embeddings=torch.from_numpy(draw(rows, DIM).astype(np.float32)))
    batch = LossBatch(ModelOutputs(torch.zeros(rows, 2), embeddings=embeddings), teacher, torch.zeros(rows))
    found = build("rkd").per_example(batch)
    found.sum().backward()
    assert found.tolist() == [0.0] * rows
    assert embeddings.grad is not None
    assert bool(embeddings.grad.isfinite().all())


# ---- widths that differ


@pytest.mark.parametrize("name", ["hidden_cosine", "hidden_mse", "pkd", "embedding_cosine", "contrastive"])
def test_a_learned_map_meets_the_teachers_width(name: str) -> None:
    assert list(build(name).parameters()) == []
    wide = {**TEACHER, "hidden": draw(ROWS, TOKENS, LAYERS, WIDE), "embeddings": draw(ROWS, WIDE)}
    batch, state = make_batch(teacher=wide), torch.random.get_rng_state()
    loss = build(name, sizes(teacher_dim=WIDE))
    assert torch.equal(torch.random.get_rng_state(), state)
    (weight,) = loss.parameters()
    assert weight.shape == (WIDE, DIM)
    # the same as of states that are mapped already
    mapped = {
        **STUDENT,
        **{part: STUDENT[part] @ weight.detach().double().numpy().T for part in ("hidden", "embeddings")},
    }
    expected = build(name, sizes(teacher_dim=WIDE, student_dim=WIDE)).per_example(make_batch(mapped, wide))
    torch.testing.assert_close(loss.per_example(batch), expected, rtol=1e-4, atol=1e-5)
    loss.per_example(batch).mean().backward()
    assert float(weight.grad.abs().sum()) > 0
    assert torch.equal(next(build(name, sizes(teacher_dim=WIDE)).parameters()), weight)
    assert not torch.equal(next(build(name, sizes(teacher_dim=WIDE), seed=4).parameters()), weight)


# ---- which blocks


def layers_of(name: str, models: ModelSizes, **options: Any) -> Any:
    plugins = Plugins(allow="")
    spec: Any = plugins.spec("loss", name)
    return spec.layers(plugins.options("loss", name, options), models)


def test_blocks() -> None:
    found = layers_of("hidden_mse", sizes(), layers="mapped")
    assert (found.teacher_hidden, found.student_hidden) == ((2, 4, 6), (1, 2, 3))
    assert layers_of("hidden_mse", sizes()).teacher_hidden == (6,)
    assert layers_of("hidden_mse", sizes(), layers=[1, 1, 5]).teacher_hidden == (1, 1, 5)
    # as PKD has it for BERT of 12 blocks and 6 (Sun et al. 2019, section 3.2)
    deep = sizes(teacher_blocks=12, student_blocks=6)
    assert layers_of("pkd", deep).teacher_hidden == (2, 4, 6, 8, 10)
    assert layers_of("pkd", deep, strategy="last").teacher_hidden == (7, 8, 9, 10, 11)
    assert layers_of("pkd", deep).student_hidden == (1, 2, 3, 4, 5)
    assert layers_of("minilm_relations", sizes(), layer=2).teacher_projections == (2,)
    assert layers_of("tinybert_attention", sizes()).student_scores == (1, 2, 3)


@pytest.mark.parametrize(
    ("name", "models", "options", "words"),
    [
        ("pkd", {"student_blocks": 1}, {}, "set student_layers to 2 or more"),
        ("hidden_mse", {}, {"layers": [1]}, "layers lists 1 blocks, but the student has 3"),
        ("minilm_relations", {}, {"heads": 3}, "heads is 3, but must divide the width of the teacher's states, 8"),
        ("minilm_relations", {"student_dim": 6}, {}, "must divide the width of the student's states, 6: set it to one"),
        ("tinybert_attention", {"student_heads": 2}, {}, "the teacher has 4 and the student 2: take loss"),
    ],
)
def test_models_that_do_not_fit(name: str, models: dict[str, int], options: dict[str, Any], words: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        layers_of(name, sizes(**models), **options)
    assert words in str(caught.value)
