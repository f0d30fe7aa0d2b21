"""The vector store and the teacher's outputs, with tiny real models; `seen` counts what the models are asked."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from sage_kit.data.splits import Split
from sage_kit.data.tokens import Tokens, padded_rows, tokenize
from sage_kit.errors import DataError, DiskFullError
from sage_kit.models import vectors
from sage_kit.models.split import InputLayers, UpperLayers, split_model
from sage_kit.models.vectors import (
    TeacherOutputs,
    VectorStore,
    embed_split,
    flat_states,
    label_split,
    masked_mean,
)
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint

CPU = torch.device("cpu")
ROWS = 37


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches, some of them padded, from few examples."""
    monkeypatch.setattr(vectors, "INFERENCE_BATCH_SIZE", 8)
    monkeypatch.setattr(vectors, "INFERENCE_BATCH_TOKENS", 100)


@dataclass
class Setting:
    """A model in two parts, the tokens of a split, and a cache; what is done with them is counted."""

    model: Any
    input_layers: InputLayers
    upper: UpperLayers
    tokens: Tokens
    cache: Cache
    front_calls: list[int] = field(default_factory=list)
    upper_calls: list[int] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def embed(self, **changes: Any) -> VectorStore:
        arguments: dict[str, Any] = {
            "input_layers": self.input_layers, "input_layers_fingerprint": weights_of(self.input_layers),
            "tokens": self.tokens,
            "name": "train", "granularity": "token", "pooling": "mean", "dtype": "float32", "cache": self.cache,
            "device": CPU, "on_step": lambda done, total: self.steps.append((done, total)),
        }  # fmt: skip
        return embed_split(**{**arguments, **changes})

    def label(self, store: VectorStore, **changes: Any) -> TeacherOutputs:
        arguments: dict[str, Any] = {
            "teacher": self.upper, "teacher_fingerprint": weights_of(self.model), "store": store, "name": "train",
            "hidden_layers": [], "cache": self.cache, "device": CPU,
            "autocast": contextlib.nullcontext, "precision": "fp32",
            "on_step": lambda done, total: self.steps.append((done, total)),
        }  # fmt: skip
        return label_split(**{**arguments, **changes})

    def expected_states(self) -> list[NDArray[np.float32]]:
        """Token states, one example at a time and without padding."""
        states = []
        with torch.no_grad():
            for row in range(len(self.tokens)):
                ids, types, _ = self.tokens.pad(np.array([row]))
                states.append(self.input_layers(ids, types, None)[0].numpy())
        self.front_calls.clear()
        return states

    def entries(self) -> list[str]:
        return [entry.kind for entry in self.cache.entries()]


def weights_of(module: torch.nn.Module) -> str:
    return fingerprint(dict(module.state_dict()))


def make(tmp_path: Path, family: str = "bert", bypass: Any = "embeddings", seed: int = 0) -> Setting:
    model = tiny.make_model(family, labels=3, layers=3, seed=seed)
    input_layers, upper = split_model(model, bypass)
    rows = tiny.toy_task_rows(ROWS, seed=1)
    split = Split("train", [row["text"] for row in rows], None, np.array([row["label"] for row in rows]))
    tokens = tokenize(split, tiny.make_tokenizer(family), 24)
    setting = Setting(model, input_layers, upper, tokens, Cache(tmp_path / "cache"))
    input_layers.register_forward_hook(lambda *_: setting.front_calls.append(1))
    upper.register_forward_hook(lambda *_: setting.upper_calls.append(1))
    return setting


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return make(tmp_path, bypass=1)


def close(found: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


# ---- the vectors of a split


@pytest.mark.parametrize(
    ("family", "bypass"),
    [("bert", 1), ("bert", 2), ("roberta", 1), ("distilbert", 1), ("mpnet", 1)],
)
def test_the_store_holds_the_input_layers_output_example_by_example(tmp_path: Path, family: str, bypass: Any) -> None:
    setting = make(tmp_path, family, bypass)
    expected = setting.expected_states()
    store = setting.embed()
    assert len(store) == ROWS
    assert (store.states.dtype, store.offsets.dtype, store.pooled.dtype) == (np.float32, np.int64, np.float32)
    np.testing.assert_array_equal(store.lengths, setting.tokens.lengths)
    assert len(setting.front_calls) > 4
    for row, states in enumerate(expected):
        close(store.states[store.offsets[row] : store.offsets[row + 1]], states)
        close(store.pooled[row], states.mean(0))
    assert isinstance(store.states, np.memmap)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_what_embeddings_alone_give_is_computed_when_it_is_asked_for(tmp_path: Path, family: str) -> None:
    setting = make(tmp_path, family)
    expected = setting.expected_states()
    store = setting.embed(dtype="float16")
    assert store.states is None
    for row, states in enumerate(expected):
        close(store.pooled[row], states.mean(0))
    indices = np.array([5, 0, 36, 5])
    batch = store.batch(indices, CPU)
    assert not batch.states.requires_grad
    assert batch.states.dtype == torch.float32
    for row, index in enumerate(indices):
        length = int(store.lengths[index])
        assert batch.mask[row].tolist() == [True] * length + [False] * (batch.mask.shape[1] - length)
        close(batch.states[row, :length], expected[index])
        assert not batch.states[row, length:].any()
    # the type of what is not stored does not count
    assert setting.embed().key == store.key


@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_all_token_states_of_a_split_are_a_memory_map(tmp_path: Path, bypass: Any) -> None:
    setting = make(tmp_path, bypass=bypass)
    expected = np.concatenate(setting.expected_states())
    store = setting.embed()
    for _ in range(2):
        states = flat_states(store, setting.cache, CPU)
        assert isinstance(states, np.memmap)
        close(states, expected)
    assert setting.entries() == (["states", "vectors"] if bypass == "embeddings" else ["vectors"])


def test_steps_are_told(setting: Setting) -> None:
    setting.embed()
    total = len(setting.front_calls)
    assert setting.steps == [(done, total) for done in range(1, total + 1)]


def test_pooled_by_the_first_token(setting: Setting) -> None:
    expected = setting.expected_states()
    store = setting.embed(pooling="cls")
    close(store.pooled, np.stack([states[0] for states in expected]))
    close(store.states, np.concatenate(expected))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_granularity_pooled_makes_each_example_one_vector(setting: Setting, pooling: str) -> None:
    expected = setting.expected_states()
    store = setting.embed(granularity="pooled", pooling=pooling)
    assert store.lengths.tolist() == [1] * ROWS
    pooled = np.stack([states.mean(0) if pooling == "mean" else states[0] for states in expected])
    close(store.states, pooled)
    close(store.pooled, pooled)
    batch = store.batch(np.array([3, 1]), CPU)
    assert batch.states.shape == (2, 1, 32)
    assert batch.mask.all()


def test_float16_halves_the_states_and_keeps_the_pooled_vectors(setting: Setting) -> None:
    expected = setting.expected_states()
    store = setting.embed(dtype="float16")
    assert store.states.dtype == np.float16
    close(store.states, np.concatenate(expected), rtol=1e-3, atol=1e-4)
    close(store.pooled, np.stack([states.mean(0) for states in expected]))
    batch = store.batch(np.arange(5), CPU)
    assert batch.states.dtype == torch.float32


# ---- batches of it


def test_a_batch_is_padded_on_the_right_with_zeros(setting: Setting) -> None:
    store = setting.embed()
    indices = np.array([5, 0, 36, 5])
    batch = store.batch(indices, CPU)
    lengths = store.lengths[indices]
    assert batch.states.shape == (4, lengths.max(), 32)
    assert batch.mask.dtype == torch.bool
    assert len(set(lengths.tolist())) > 1
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        assert batch.mask[row].tolist() == [True] * length + [False] * (int(lengths.max()) - length)
        close(batch.states[row, :length], store.states[store.offsets[index] : store.offsets[index + 1]], rtol=0, atol=0)
        assert not batch.states[row, length:].any()


def test_changing_a_batch_changes_neither_the_store_nor_the_cache(setting: Setting) -> None:
    store = setting.embed()
    before = np.array(store.states)
    store.batch(np.array([0]), CPU).states.zero_()
    np.testing.assert_array_equal(store.states, before)
    store.states[:] = 0  # private to this process
    np.testing.assert_array_equal(setting.embed().states, before)


def test_padded_rows_stay_inside_the_storage() -> None:
    offsets = np.array([0, 2, 3, 7])
    rows, mask = padded_rows(offsets, np.array([2, 0, 1]))
    assert rows.tolist() == [[3, 4, 5, 6], [0, 1, 1, 1], [2, 2, 2, 2]]
    assert mask.astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_masked_mean_leaves_out_padding() -> None:
    states = torch.tensor([[[2.0], [4.0], [100.0]], [[7.0], [100.0], [100.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(states, mask).tolist() == [[3.0], [7.0]]


# ---- found in the cache, or not


def test_a_second_call_asks_the_cache_and_not_the_input_layers(setting: Setting) -> None:
    first = setting.embed()
    setting.front_calls.clear()
    setting.steps.clear()
    second = setting.embed()
    assert setting.front_calls == []
    assert setting.steps == []
    assert second.key == first.key
    for name in ("states", "offsets", "pooled"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    # the name of a split is for messages: equal text has equal vectors
    assert setting.embed(name="dev").key == first.key
    assert setting.entries() == ["vectors"]


def other_weights(setting: Setting) -> dict[str, Any]:
    with torch.no_grad():
        next(setting.input_layers.parameters())[7, 3] += 1e-6
    return {"input_layers_fingerprint": weights_of(setting.input_layers)}


def other_text(setting: Setting) -> dict[str, Any]:
    ids = setting.tokens.ids.copy()
    ids[11] += 1
    return {"tokens": replace(setting.tokens, ids=ids)}


def other_bounds(setting: Setting) -> dict[str, Any]:
    offsets = setting.tokens.offsets.copy()
    offsets[4] += 1
    return {"tokens": replace(setting.tokens, offsets=offsets)}


CHANGES: list[Any] = [
    other_weights,
    other_text,
    other_bounds,
    lambda setting: {"pooling": "cls"},
    lambda setting: {"granularity": "pooled"},
    lambda setting: {"dtype": "float16"},
]


@pytest.mark.parametrize("change", CHANGES, ids=["weights", "text", "bounds", "pooling", "granularity", "dtype"])
def test_changed_weights_text_or_settings_are_computed_anew(setting: Setting, change: Any) -> None:
    first = setting.embed()
    setting.front_calls.clear()
    second = setting.embed(**change(setting))
    assert setting.front_calls
    assert second.key != first.key
    assert setting.entries() == ["vectors", "vectors"]


def test_damaged_vectors_are_computed_again(setting: Setting) -> None:
    messages: list[str] = []
    setting.cache = Cache(setting.cache.directory, damage=messages.append)
    before = np.array(setting.embed().states)
    (file,) = setting.cache.directory.rglob("arrays.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    np.testing.assert_array_equal(setting.embed().states, before)
    assert len(messages) == 1
    assert "arrays.safetensors does not have its checksum" in messages[0]


# ---- damaged checkpoints and full disks


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_vectors_that_are_not_finite_name_split_and_row(setting: Setting, value: float) -> None:
    # a word that occurs in this row only
    mask = tiny.make_tokenizer().mask_token_id
    setting.tokens.ids[setting.tokens.offsets[23] + 1] = mask
    assert (setting.tokens.ids == mask).sum() == 1
    with torch.no_grad():
        setting.input_layers.embeddings.word_embeddings.weight[mask, 5] = value
    message = r"^train, row 24: the teacher gives a value that is not finite .* \(try precision='fp32'\)$"
    with pytest.raises(DataError, match=message):
        setting.embed()
    assert setting.entries() == []


def test_states_too_large_for_float16_name_split_and_row(setting: Setting) -> None:
    with torch.no_grad():
        setting.input_layers.blocks[0].output.LayerNorm.weight[5] = 1e6
    setting.embed(dtype="float32")
    with pytest.raises(
        DataError, match=r"^train, row \d+: .* too large for vector_dtype='float16': set it to 'float32'$"
    ):
        setting.embed(dtype="float16")


def test_logits_that_are_not_finite_name_split_and_row(setting: Setting) -> None:
    store = setting.embed()
    with torch.no_grad():
        setting.upper.head.output.bias[1] = math.inf
    with pytest.raises(DataError, match=r"^dev, row \d+: the teacher gives a value that is not finite"):
        setting.label(store, name="dev")


def test_a_full_disk_leaves_no_entry(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(DiskFullError):
        setting.embed()
    assert setting.entries() == []


# ---- the teacher's outputs


def reference_outputs(setting: Setting) -> tuple[NDArray[Any], list[list[NDArray[Any]]]]:
    """Logits and every block's output of the whole model, one example at a time."""
    logits, hidden = [], []
    with torch.no_grad():
        for row in range(ROWS):
            ids, types, _ = setting.tokens.pad(np.array([row]))
            arguments = {} if setting.model.config.model_type in ("distilbert", "mpnet") else {"token_type_ids": types}
            output = setting.model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **arguments)
            logits.append(output.logits[0].numpy())
            hidden.append([states[0].numpy() for states in output.hidden_states[1:]])
    return np.stack(logits), hidden


@pytest.mark.parametrize(
    ("family", "bypass"),
    [("bert", "embeddings"), ("bert", 1), ("roberta", 2), ("distilbert", "embeddings"), ("mpnet", 1)],
)
def test_logits_are_those_of_the_whole_model(tmp_path: Path, family: str, bypass: Any) -> None:
    setting = make(tmp_path, family, bypass)
    expected, hidden = reference_outputs(setting)
    store = setting.embed()
    outputs = setting.label(store, hidden_layers=[1, setting.upper.n_blocks])
    assert outputs.logits.dtype == np.float32
    close(outputs.logits, expected)
    assert outputs.hidden is not None
    assert (outputs.hidden.dtype, outputs.hidden.shape) == (np.float16, (store.offsets[-1], 2, 32))
    first, last = 3 - setting.upper.n_blocks, 2
    flat = np.concatenate([np.stack([blocks[first], blocks[last]], axis=1) for blocks in hidden])
    np.testing.assert_allclose(outputs.hidden, flat, rtol=1e-3, atol=2e-3)


def test_hidden_states_are_aligned_with_the_batches_of_the_store(setting: Setting) -> None:
    _, hidden = reference_outputs(setting)
    store = setting.embed()
    outputs = setting.label(store, hidden_layers=[1])
    indices = np.array([30, 2, 17])
    batch, states = store.batch(indices, CPU), outputs.gather_hidden(store.offsets, indices, CPU)()
    assert states is not None
    assert states.dtype == torch.float32
    assert states.shape == (*batch.states.shape[:2], 1, 32)
    assert torch.isfinite(states).all()
    for row, index in enumerate(indices):
        np.testing.assert_allclose(states[row, batch.mask[row], 0], hidden[index][1], rtol=1e-3, atol=2e-3)


def test_without_layers_there_are_no_hidden_states(setting: Setting) -> None:
    store = setting.embed()
    outputs = setting.label(store)
    assert outputs.hidden is None
    assert outputs.gather_hidden(store.offsets, np.array([0]), CPU)() is None


def test_labels_of_pooled_vectors(setting: Setting) -> None:
    store = setting.embed(granularity="pooled")
    outputs = setting.label(store, hidden_layers=[2])
    with torch.no_grad():
        expected = setting.upper(torch.from_numpy(np.array(store.pooled))[:, None], None, hidden=True)
    close(outputs.logits, expected.logits)
    assert outputs.hidden is not None
    np.testing.assert_allclose(outputs.hidden[:, 0], expected.hidden[-1][:, 0], rtol=1e-3, atol=2e-3)


def test_labels_are_found_again_and_never_for_anything_else(setting: Setting) -> None:
    store = setting.embed()
    first = setting.label(store)
    setting.upper_calls.clear()
    np.testing.assert_array_equal(setting.label(store, name="dev").logits, first.logits)
    assert setting.upper_calls == []
    for number, changes in enumerate(
        [
            {"hidden_layers": [1]},
            {"hidden_layers": [2]},
            {"hidden_layers": [1, 2]},
            {"precision": "bf16"},
            {"teacher_fingerprint": "another"},
            {"store": setting.embed(pooling="cls")},
        ],
        start=2,
    ):
        setting.upper_calls.clear()
        setting.label(**{"store": store, **changes})
        assert setting.upper_calls
        assert setting.entries().count("labels") == number


def test_the_teacher_runs_in_the_precision_it_is_given(setting: Setting) -> None:
    store = setting.embed()
    exact = setting.label(store).logits
    rounded = setting.label(
        store, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16), precision="bf16"
    ).logits
    assert rounded.dtype == np.float32
    assert (rounded != exact).any()
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_a_card_gets_larger_batches_of_a_pass_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the small batches of this module
    lengths = np.full(5000, 64)
    on_cpu, on_card = (vectors.forward_batches(lengths, torch.device(name)) for name in ("cpu", "cuda"))
    assert max(map(len, on_cpu)) == 128
    assert max(map(len, on_card)) == 512
    assert max(map(len, vectors.forward_batches(np.ones(5000), torch.device("cuda")))) == 2048
    for plan in (on_cpu, on_card):
        assert sorted(np.concatenate(plan).tolist()) == list(range(5000))
