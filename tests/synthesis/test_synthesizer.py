"""Synthesis: what components may and may not return, and what is kept of a round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toyrun import toy_config

from sage_kit import hookimpl
from sage_kit.components import InverterSpec, LiftSpec, ReducerSpec, SamplerSpec, Samples, TokenBatch
from sage_kit.components.plugins import Origin, Plugins
from sage_kit.components.records import Costs
from sage_kit.errors import PluginError
from sage_kit.models.vectors import TeacherOutputs, VectorStore
from sage_kit.recipe import resolve
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.synthesis.synthetic_set import SyntheticSet

N, DIM = 60, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store() -> VectorStore:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, N)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    states = rng.normal(size=(offsets[-1], DIM)).astype(np.float32)
    pooled = np.add.reduceat(states, offsets[:-1]) / lengths[:, None]
    return VectorStore(states, offsets, pooled.astype(np.float32), key="test")


OUTPUTS = TeacherOutputs(np.zeros((N, 2), np.float32), None)
LOSSES = np.linspace(0, 1, N).astype(np.float32)
LOGITS = np.zeros((N, 2), np.float32)


@dataclass
class Contributed:
    """A plugin of one component, called `mine`, whose one method is a function."""

    kind: str
    method: str
    function: Any

    def spec(self) -> Any:
        component = type("Mine", (), {self.method: lambda _, *arguments: self.function(*arguments)})()
        if self.kind == "inverter":
            type(component).fit = lambda self_, *arguments: self_
        spec = {"reducer": ReducerSpec, "sampler": SamplerSpec, "inverter": InverterSpec, "lift": LiftSpec}[self.kind]
        return spec(name="mine", summary="test", factory=lambda options, context: component)

    @hookimpl
    def sage_reducers(self):
        return [self.spec()] if self.kind == "reducer" else []

    @hookimpl
    def sage_samplers(self):
        return [self.spec()] if self.kind == "sampler" else []

    @hookimpl
    def sage_inverters(self):
        return [self.spec()] if self.kind == "inverter" else []

    @hookimpl
    def sage_lifts(self):
        return [self.spec()] if self.kind == "lift" else []


def synthesizer(
    store: VectorStore,
    tmp_path: Path,
    plugin: Contributed | None = None,
    messages: list[str] | None = None,
    **settings: Any,
) -> Synthesizer:
    plugins = Plugins(allow="")
    if plugin is not None:
        plugins._register(plugin, Origin("mine", "my-distribution", "1"))
        settings.setdefault(plugin.kind, "mine")
        if plugin.kind == "sampler":
            settings.setdefault("sampler_options", {})
    config = toy_config(tmp_path, tmp_path, **settings)
    announce = (messages if messages is not None else []).append
    return Synthesizer(
        resolve(config, plugins), store, OUTPUTS, Cache(tmp_path / "cache", announce), CPU, announce, Costs()
    )


@pytest.mark.parametrize(
    ("kind", "method", "function", "expected"),
    [
        ("reducer", "fit_transform", lambda v: v[:, :3], r"reducer 'mine' .*shape \(60, 3\) instead of \(60, 2\)"),
        ("reducer", "fit_transform", lambda v: np.where(v[:, :2] > 9, 0, np.nan), "reducer 'mine' .*NaN.*vector 1"),
        ("reducer", "fit_transform", lambda v: 1 / 0, "reducer 'mine' .*failed: ZeroDivisionError"),
        ("sampler", "sample", lambda r: Samples(np.zeros(3, int), r.coordinates[:3]), r"sampler 'mine'.*\(3,\)"),
        ("sampler", "sample", lambda r: Samples(np.zeros(r.count), r.coordinates[: r.count]), "float64"),
        ("sampler", "sample", lambda r: Samples(np.full(r.count, 99), r.coordinates[: r.count]), "outside 0 to 59"),
        ("sampler", "sample", lambda r: Samples(np.zeros(r.count, int)), "no coordinates"),
        ("sampler", "sample", lambda r: Samples(np.zeros(r.count, int), r.coordinates[: r.count, :1]), r"\(20, 1\)"),
        ("sampler", "sample", lambda r: r.losses.sort(), "sampler 'mine' .*failed: ValueError.*read-only"),
        ("inverter", "invert", lambda c, a: np.zeros((len(c), 3), np.float32), r"inverter 'mine'.*\(20, 3\)"),
        ("inverter", "invert", lambda c, a: np.full((len(c), DIM), np.inf), "inverter 'mine' returned NaN or infinity"),
    ],
)  # fmt: skip
def test_what_a_component_may_not_return(
    store, tmp_path: Path, kind: str, method: str, function, expected: str
) -> None:
    maker = synthesizer(store, tmp_path, Contributed(kind, method, function))
    with pytest.raises(PluginError, match=expected):
        maker.create(2, 20, LOSSES, LOGITS)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda r: TokenBatch(r.anchor.states[:1], r.anchor.mask[:1]), "token states of shape"),
        (lambda r: TokenBatch(r.anchor.states, r.anchor.mask.float()), "mask of torch.float32"),
        (lambda r: TokenBatch(r.anchor.states, r.anchor.mask[:, :1]), "mask of torch.bool and shape"),
    ],
)
def test_what_a_lift_may_not_return(store, tmp_path: Path, function, expected: str) -> None:
    maker = synthesizer(store, tmp_path, Contributed("lift", "lift", function))
    synthetic = maker.create(2, 20, LOSSES, LOGITS)
    with pytest.raises(PluginError, match=f"lift 'mine' .*{expected}"):
        maker.lift(synthetic, np.arange(5), 0)


def test_lifted_batch_has_the_synthetic_vector_as_its_mean(store, tmp_path: Path) -> None:
    maker = synthesizer(store, tmp_path, lift="shift")
    synthetic = maker.create(2, 20, LOSSES, LOGITS)
    batch = maker.lift(synthetic, np.arange(20), 0)
    weights = batch.mask[..., None].double()
    mean = (batch.states.double() * weights).sum(1) / weights.sum(1)
    np.testing.assert_allclose(mean.numpy(), synthetic.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(batch.mask.sum(1).numpy(), store.lengths[synthetic.anchors])


def test_lift_of_a_batch_is_the_same_each_time(store, tmp_path: Path) -> None:
    def noisy(request):
        noise = torch.randn(request.anchor.states.shape, generator=request.generator)
        return replace(request.anchor, states=request.anchor.states + noise * request.anchor.mask[..., None])

    maker = synthesizer(store, tmp_path, Contributed("lift", "lift", noisy))
    synthetic = maker.create(2, 20, LOSSES, LOGITS)
    rows = np.arange(6)
    first, second, other = (maker.lift(synthetic, rows, number).states for number in (3, 3, 4))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_plan_is_the_same_each_time_and_covers_all(store, tmp_path: Path) -> None:
    maker = synthesizer(store, tmp_path)
    synthetic = maker.create(2, 50, LOSSES, LOGITS)
    first, second = maker.plan(synthetic), maker.plan(synthetic)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(np.concatenate(first).tolist()) == list(range(50))


def test_rounds_and_seeds_draw_differently_and_repeatably(store, tmp_path: Path) -> None:
    def anchors(seed: int, round: int) -> list[int]:
        maker = synthesizer(store, tmp_path, seed=seed, sampler="random")
        return maker.create(round, 30, LOSSES, LOGITS).anchors.tolist()

    assert anchors(0, 2) == anchors(0, 2)
    assert anchors(0, 2) != anchors(0, 3)
    assert anchors(0, 2) != anchors(1, 2)


def test_map_is_fitted_once_and_found_by_other_seeds(store, tmp_path: Path) -> None:
    messages: list[str] = []
    synthesizer(store, tmp_path, messages=messages).fit_map(2)
    synthesizer(store, tmp_path, messages=messages, seed=7, sampler="random").fit_map(2)
    assert sum("fitting" in message for message in messages) == 1
    assert "found in the cache" in messages[-1]


@pytest.mark.parametrize(
    "change",
    [{"n_components": 3}, {"reducer_seed": 1}, {"reducer_options": {"whiten": True}}, {"landmarks": 20}],
)
def test_another_map_is_not_met_by_a_stale_one(store, tmp_path: Path, change) -> None:
    messages: list[str] = []
    synthesizer(store, tmp_path, messages=messages).fit_map(2)
    synthesizer(store, tmp_path, messages=messages, **change).fit_map(2)
    assert sum("fitting" in message for message in messages) == 2


def test_an_edited_plugin_file_is_fitted_again(store, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    code = (
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import ReducerSpec\n"
        "class Mine:\n"
        "    def fit_transform(self, vectors):\n"
        "        return vectors[:, :2] * {factor}\n"
        "@hookimpl\n"
        "def sage_reducers():\n"
        "    yield ReducerSpec(name='mine', summary='x', factory=lambda options, context: Mine())\n"
    )

    def fitted(factor: int) -> np.ndarray:
        file.write_text(code.format(factor=factor))
        config = toy_config(tmp_path, tmp_path, reducer="mine")
        recipe, cache = resolve(config, Plugins([file], allow="")), Cache(tmp_path / "cache")
        maker = Synthesizer(recipe, store, OUTPUTS, cache, CPU, lambda text: None, Costs())
        maker.fit_map(2)
        assert maker.coordinates is not None
        return maker.coordinates

    np.testing.assert_allclose(fitted(3), 3 * store.pooled[:, :2])
    np.testing.assert_allclose(fitted(5), 5 * store.pooled[:, :2])


def test_sampler_of_the_full_space_needs_no_map(store, tmp_path: Path) -> None:
    class Noise:
        @hookimpl
        def sage_samplers(self):
            def sample(self, request):
                anchors = request.rng.integers(0, len(request.vectors), request.count)
                return Samples(anchors, vectors=request.vectors[anchors] + 0.1)

            component = type("Sampler", (), {"sample": sample})()
            yield SamplerSpec(name="noise", summary="x", space="full", factory=lambda options, context: component)

    plugins = Plugins(allow="")
    plugins._register(Noise(), Origin("noise", "noise", "1"))
    config = toy_config(tmp_path, tmp_path, sampler="noise", sampler_options={}, reducer="umap")
    maker = Synthesizer(
        resolve(config, plugins), store, OUTPUTS, Cache(tmp_path / "c"), CPU, lambda text: None, Costs()
    )
    synthetic = maker.create(2, 10, LOSSES, LOGITS)
    np.testing.assert_allclose(synthetic.vectors, store.pooled[synthetic.anchors] + 0.1, rtol=1e-6)
    assert synthetic.coordinates is None


def test_saved_set_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    saved = SyntheticSet(
        round=4, anchors=np.arange(5), vectors=rng.normal(size=(5, 3)).astype(np.float32),
        coordinates=rng.normal(size=(5, 2)).astype(np.float32), dropped=2, kept=np.array([1, 0, 1, 1, 0], bool),
        logits=rng.normal(size=(5, 2)).astype(np.float32), shares=np.linspace(0, 1, 5, dtype=np.float32),
        outside_hull=0.123,
    )  # fmt: skip
    saved.save(tmp_path / "rounds" / "004" / "synthetic.safetensors")
    loaded = SyntheticSet.load(tmp_path / "rounds" / "004" / "synthetic.safetensors")
    assert (loaded.round, loaded.dropped, len(loaded), loaded.outside_hull) == (4, 2, 3, 0.123)
    assert loaded.neighbors is None
    for name in ("anchors", "vectors", "coordinates", "shares", "kept", "logits"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))


def sampled(coordinates: Any, **fields: Any) -> Any:
    """A sampler that returns these coordinates, from anchors 0, 1, 2, ..."""

    def sample(request: Any) -> Samples:
        count = len(coordinates)
        return Samples(np.arange(count), np.asarray(coordinates, np.float32), **fields)

    return Contributed("sampler", "sample", sample)


def test_the_share_of_points_outside_the_map_is_told(store, tmp_path: Path) -> None:
    inside = synthesizer(store, tmp_path)
    inside.fit_map(2)
    assert inside.coordinates is not None
    centre, reach = inside.coordinates.mean(0), np.abs(inside.coordinates).max()
    points = np.stack([centre, centre + 3 * reach, centre, centre - 3 * reach])
    made = synthesizer(store, tmp_path, sampled(points), inverter="knn").create(2, 4, LOSSES, LOGITS)
    assert made.outside_hull == 0.5


def test_shares_reach_the_lift_with_their_rows(store, tmp_path: Path) -> None:
    shares = np.linspace(0, 0.5, 6).astype(np.float32)
    neighbors = np.arange(6)[:, None] + 1
    maker = synthesizer(store, tmp_path, sampled(np.zeros((6, 2)), shares=shares, neighbors=neighbors))
    synthetic = maker.create(2, 6, LOSSES, LOGITS)
    seen: list[Any] = []

    def lift(request: Any) -> Any:
        seen.append(request)
        return request.anchor

    maker._lift = type("Lift", (), {"lift": staticmethod(lift)})()
    rows = np.array([4, 1])
    maker.lift(synthetic, rows, 0)
    np.testing.assert_array_equal(seen[0].shares, shares[rows])
    np.testing.assert_array_equal(seen[0].neighbors, neighbors[rows])


def test_shares_that_are_promised_must_be_given(store, tmp_path: Path) -> None:
    plugin = sampled(np.zeros((3, 2)))
    promising = replace(plugin.spec(), gives_shares=True)
    plugin.spec = lambda: promising  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="no shares or no neighbors"):
        synthesizer(store, tmp_path, plugin).create(2, 3, LOSSES, LOGITS)


def test_a_sampler_gets_the_gradient_only_if_it_asks_for_it(store, tmp_path: Path) -> None:
    seen = []

    def sample(request: Any) -> Samples:
        seen.append(request.divergence_gradient)
        return Samples(np.arange(3), np.zeros((3, 2), np.float32))

    def gradient(indices: Any) -> Any:
        return np.zeros((len(indices), DIM), np.float32)

    for asks in (False, True):
        plugin = Contributed("sampler", "sample", sample)
        spec = replace(plugin.spec(), needs_gradient=asks)
        plugin.spec = lambda spec=spec: spec  # type: ignore[method-assign]
        synthesizer(store, tmp_path, plugin).create(2, 3, LOSSES, LOGITS, gradient)
    assert seen == [None, gradient]


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(0, 1, "a"), derive_seed(0, 1, "b"), derive_seed(0, 2, "a"), derive_seed(1, 1, "a")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
