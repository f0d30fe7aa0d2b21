"""What the frozen input layers and the teacher say about a split, computed once and found again by content fingerprint.

`VectorStore` holds the pooled vectors and, memory-mapped, the token states that encoder blocks made. What the
embeddings alone make of a token is computed from its id whenever it is asked for: that takes about as long as reading
it (0.4 and 0.3 % of a step), and an id takes a few hundredths of the memory. `TeacherOutputs` holds the teacher's
logits and, when the hidden-state loss needs them, its hidden states in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import TokenBatch
from sage_kit.data.batches import plan_batches
from sage_kit.data.tokens import Tokens, padded_rows
from sage_kit.errors import DataError
from sage_kit.models.split import InputLayers, UpperLayers, UpperOutput
from sage_kit.storage import tensorfile
from sage_kit.storage.cache import ARRAYS, Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.system.transfer import Placing, pinned, to_device

INFERENCE_BATCH_SIZE = 256
INFERENCE_BATCH_TOKENS = 8192
"""Sizes of batches that are only computed forward, on a CPU."""

CARD_BATCH_SIZE = 2048
CARD_BATCH_TOKENS = 32_768
"""The same on a card, which so few tokens as above leave idle. Of a teacher of 12 blocks 768 wide, the outputs of all
blocks for so many tokens take 1.2 GB."""

OnStep = Callable[[int, int], None]


def forward_batches(lengths: NDArray[np.int64], device: torch.device) -> list[NDArray[np.int64]]:
    """Batches for a pass without gradients over examples of these lengths, as large as suits the device."""
    on_card = device.type == "cuda"
    size = CARD_BATCH_SIZE if on_card else INFERENCE_BATCH_SIZE
    tokens = CARD_BATCH_TOKENS if on_card else INFERENCE_BATCH_TOKENS
    return plan_batches(lengths, batch_size=size, batch_tokens=tokens)


@dataclass(frozen=True, eq=False)
class VectorStore:
    """Token states and pooled vectors of a split.

    Attributes
    ----------
    states : array of shape (total_tokens, dim), float32 or float16, or None
        Input-layer output of the real tokens of all examples, one after the other; a memory map. None where `tokens`
        and `input_layers` give it.
    offsets : array of shape (n + 1,), int64
        Example i has the rows ``offsets[i]`` to ``offsets[i + 1]``.
    pooled : array of shape (n, dim), float32
        One vector per example.
    key : str
        Fingerprint of what all this was computed from.
    tokens : Tokens or None
    input_layers : InputLayers or None
        On the device that batches are asked for.
    """

    states: NDArray[Any] | None
    offsets: NDArray[np.int64]
    pooled: NDArray[np.float32]
    key: str
    tokens: Tokens | None = None
    input_layers: InputLayers | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example, of shape (n,)."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some examples, of shape (batch,)."""
        found: NDArray[np.int64] = self.offsets[indices + 1] - self.offsets[indices]
        return found

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> TokenBatch:
        """The token states of some examples, float32, padded with zeros to the longest, on a device."""
        return self.gather(indices, device)()

    def gather(self, indices: NDArray[np.int64], device: torch.device) -> Placing[TokenBatch]:
        """The same in two steps: gathers on the host what they are, or are made of, and returns the second step."""
        if self.states is None:
            return self._gather_ids(indices, device)
        rows, mask = padded_rows(self.offsets, indices)
        is_padded = not mask.all()
        lengths = self.lengths_of(indices)
        stored, real = pinned(torch.from_numpy(self.states[rows]), device), pinned(torch.from_numpy(mask), device)

        def place() -> TokenBatch:
            states, mask = to_device(stored, device).float(), to_device(real, device)
            return TokenBatch(states * mask[..., None] if is_padded else states, mask, lengths=lengths)

        return place

    def _gather_ids(self, indices: NDArray[np.int64], device: torch.device) -> Placing[TokenBatch]:
        tokens, input_layers = self.tokens, self.input_layers
        if tokens is None or input_layers is None:
            raise ValueError("the store holds neither token states nor what they are made of")
        lengths = self.lengths_of(indices)
        is_padded = bool(lengths.min() != lengths.max())
        gathered = [pinned(tensor, device) for tensor in tokens.pad(indices)]

        def place() -> TokenBatch:
            ids, types, mask = (to_device(tensor, device) for tensor in gathered)
            with torch.no_grad():
                states = input_layers(ids, types, mask if is_padded else None).float()
            return TokenBatch(states, mask, lengths=lengths)

        return place


@dataclass(frozen=True, eq=False)
class Pooled:
    """What a reducer maps.

    Attributes
    ----------
    vectors : array of shape (n, dim), float32
        One vector per example; may be a memory map.
    key : str
        Fingerprint of what they were computed from.
    """

    vectors: NDArray[np.float32]
    key: str


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """The teacher's outputs on a split.

    Attributes
    ----------
    logits : array of shape (n, n_outputs), float32
        With an output per token of shape (total_tokens, n_outputs), aligned with the store's rows.
    hidden : array of shape (total_tokens, n_layers, dim), float16, or None
        Outputs of the teacher's blocks that the losses use, block 0 being its token states, aligned with the store's
        rows; a memory map.
    per_token : bool
        Whether there is an output per token.
    key : str
        Fingerprint of what they were computed from.
    """

    logits: NDArray[np.float32]
    hidden: NDArray[np.float16] | None
    per_token: bool = False
    key: str = ""

    def of_examples(self, count: int) -> NDArray[np.float32]:
        """The outputs that so many examples have by themselves, of shape (n, n_outputs); (n, 0) with one per token."""
        return np.zeros((count, 0), np.float32) if self.per_token else self.logits

    def batch(self, offsets: NDArray[np.int64], indices: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """The outputs on some examples, of shape (batch, n_outputs) or (batch, tokens, n_outputs).

        What stands at padding positions is arbitrary.
        """
        return self.gather(offsets, indices, device)()

    def gather(
        self, offsets: NDArray[np.int64], indices: NDArray[np.int64], device: torch.device
    ) -> Placing[torch.Tensor]:
        """The same in two steps: gathers them on the host, and returns what puts them on the device."""
        rows = padded_rows(offsets, indices)[0] if self.per_token else indices
        outputs = pinned(torch.from_numpy(self.logits[rows]), device)
        return lambda: to_device(outputs, device)

    def gather_hidden(
        self, offsets: NDArray[np.int64], indices: NDArray[np.int64], device: torch.device
    ) -> Placing[torch.Tensor | None]:
        """Hidden states of some examples, of shape (batch, tokens, n_layers, dim), float32; None when none are held.

        Gathers them on the host, and returns what puts them on the device; they travel in half precision. What stands
        at padding positions is arbitrary.
        """
        if self.hidden is None:
            return lambda: None
        rows, _ = padded_rows(offsets, indices)
        states = pinned(torch.from_numpy(self.hidden[rows]), device)
        return lambda: to_device(states, device).float()


def embed_split(
    input_layers: InputLayers,
    input_layers_fingerprint: str,
    tokens: Tokens,
    *,
    name: str,
    granularity: str,
    pooling: str,
    dtype: str,
    cache: Cache,
    device: torch.device,
    on_step: OnStep = lambda done, total: None,
) -> VectorStore:
    """Pooled vectors of a split, and its token states where blocks make them, from the cache or computed.

    Parameters
    ----------
    input_layers : InputLayers
        On `device`.
    input_layers_fingerprint : str
        Of its weights and bypass.
    tokens : Tokens
        The split's token ids.
    name : str
        The split's name, for messages.
    granularity : "token" or "pooled"
        With "pooled", each example is the one pooled vector.
    pooling : "mean" or "cls"
        Mean of the real tokens, or the first.
    dtype : "float32" or "float16"
        Of the stored token states.
    cache : Cache
    device : torch.device
    on_step : callable
        Told the number of batches done and in all.

    Returns
    -------
    VectorStore

    Raises
    ------
    DataError
        When the input layers give a value that is not finite, or too large for `dtype`; names the example.
    """
    code = artifact_digest("sage_kit.models.vectors")
    is_looked_up = granularity == "token" and not input_layers.blocks
    dtype = "" if is_looked_up else dtype
    key = fingerprint("vectors-3", code, input_layers_fingerprint, tokens.fingerprint, granularity, pooling, dtype)
    offsets = tokens.offsets if granularity == "token" else np.arange(len(tokens) + 1, dtype=np.int64)

    def build(directory: Path) -> None:
        layout: dict[str, Any] = {"pooled": ("float32", (len(tokens), input_layers.dim))}
        if not is_looked_up:
            layout["states"] = (dtype, (int(offsets[-1]), input_layers.dim))
        arrays = tensorfile.create(directory / ARRAYS, layout)
        batches = forward_batches(tokens.lengths, device)
        with torch.no_grad():
            for done, indices in enumerate(batches, start=1):
                ids, types, mask = (tensor.to(device) for tensor in tokens.pad(indices))
                states = input_layers(ids, types, mask).float()
                _check_finite(states, indices, name)
                pooled = pool(states, mask, pooling)
                if dtype == "float16":
                    _check_float16(states, indices, name)
                arrays["pooled"][indices] = pooled.cpu().numpy()
                if granularity == "pooled":
                    arrays["states"][indices] = pooled.cpu().numpy()
                elif not is_looked_up:
                    rows, real = padded_rows(offsets, indices)
                    arrays["states"][rows[real]] = states[mask].cpu().numpy()
                on_step(done, len(batches))

    about = {"split": name, "examples": len(tokens), "tokens": int(offsets[-1]), "dim": input_layers.dim}
    arrays = cache.mapped("vectors", key, build, about)
    return VectorStore(arrays.get("states"), offsets, arrays["pooled"], key, tokens, input_layers)


def flat_states(store: VectorStore, cache: Cache, device: torch.device) -> NDArray[Any]:
    """Token states of a whole split, of shape (total_tokens, dim), as a memory map; made first if none are stored."""
    if store.states is not None:
        return store.states

    def build(directory: Path) -> None:
        shape = int(store.offsets[-1]), store.pooled.shape[1]
        states = tensorfile.create(directory / ARRAYS, {"states": ("float32", shape)})["states"]
        for indices in forward_batches(store.lengths, device):
            batch = store.batch(indices, device)
            rows, real = padded_rows(store.offsets, indices)
            states[rows[real]] = batch.states[batch.mask].cpu().numpy()

    key = fingerprint("states-1", artifact_digest("sage_kit.models.vectors"), store.key)
    about = {"examples": len(store), "tokens": int(store.offsets[-1])}
    return cache.mapped("states", key, build, about)["states"]


def label_split(
    teacher: UpperLayers,
    teacher_fingerprint: str,
    store: VectorStore,
    *,
    name: str,
    hidden_layers: Sequence[int],
    cache: Cache,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    precision: str,
    on_step: OnStep = lambda done, total: None,
) -> TeacherOutputs:
    """The teacher's outputs on a split, from the cache or computed.

    Parameters
    ----------
    teacher : UpperLayers
        On `device`.
    teacher_fingerprint : str
        Of its weights.
    store : VectorStore
        The split.
    name : str
        The split's name, for messages.
    hidden_layers : sequence of int
        Blocks (from 1) whose output to keep, 0 for the token states; empty for logits only.
    cache : Cache
    device : torch.device
    autocast : callable
        Gives the context in which the teacher runs.
    precision : str
        Name of that precision; results of different precision are cached apart.
    on_step : callable
        Told the number of batches done and in all.

    Returns
    -------
    TeacherOutputs

    Raises
    ------
    DataError
        When the teacher gives a logit that is not finite; names the example.
    """
    layers, per_token = list(hidden_layers), teacher.head.per_token
    code = artifact_digest("sage_kit.models.vectors")
    key = fingerprint("labels-2", code, teacher_fingerprint, store.key, layers, precision)

    def build(directory: Path) -> None:
        outputs = int(store.offsets[-1]) if per_token else len(store)
        layout: dict[str, Any] = {"logits": ("float32", (outputs, teacher.n_outputs))}
        if layers:
            layout["hidden"] = ("float16", (int(store.offsets[-1]), len(layers), store.pooled.shape[1]))
        arrays = tensorfile.create(directory / ARRAYS, layout)
        batches = forward_batches(store.lengths, device)
        with torch.no_grad():
            for done, indices in enumerate(batches, start=1):
                batch = store.batch(indices, device)
                with autocast():
                    output = teacher(batch.states, batch.mask, hidden=bool(layers), lengths=batch.lengths)
                logits = output.logits.float()
                _check_finite(logits * batch.mask[..., None] if per_token else logits, indices, name)
                if per_token or layers:
                    rows, real = padded_rows(store.offsets, indices)
                if per_token:
                    arrays["logits"][rows[real]] = logits[batch.mask].cpu().numpy()
                else:
                    arrays["logits"][indices] = logits.cpu().numpy()
                if layers:
                    chosen = chosen_states(output, batch.states, layers)
                    arrays["hidden"][rows[real]] = chosen[batch.mask].to(torch.float16).cpu().numpy()
                on_step(done, len(batches))

    about = {"split": name, "examples": len(store), "hidden_layers": layers}
    arrays = cache.mapped("labels", key, build, about)
    return TeacherOutputs(np.asarray(arrays["logits"]), arrays.get("hidden"), per_token, key)


def chosen_states(output: UpperOutput, states: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """Outputs of some blocks, from 1, and for 0 the token states: (batch, tokens, layers, dim)."""
    return torch.stack([output.hidden[layer - 1] if layer else states for layer in layers], dim=2)


def pool_layer(
    teacher: UpperLayers,
    teacher_fingerprint: str,
    store: VectorStore,
    layer: int,
    *,
    name: str,
    pooling: str,
    cache: Cache,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    precision: str,
    on_step: OnStep = lambda done, total: None,
) -> Pooled:
    """What a block of the teacher puts out on a split, pooled, from the cache or computed.

    Parameters
    ----------
    teacher, teacher_fingerprint, store, name, cache, device, autocast, precision, on_step
        As in `label_split`.
    layer : int
        The block, from 1.
    pooling : "mean" or "cls"
        Mean of the real tokens, or the first.

    Returns
    -------
    Pooled

    Raises
    ------
    DataError
        When the teacher gives a value that is not finite; names the example.
    """
    code = artifact_digest("sage_kit.models.vectors")
    key = fingerprint("layer-1", code, teacher_fingerprint, store.key, layer, pooling, precision)

    def build(directory: Path) -> None:
        layout = {"pooled": ("float32", (len(store), store.pooled.shape[1]))}
        arrays = tensorfile.create(directory / ARRAYS, layout)
        batches = forward_batches(store.lengths, device)
        with torch.no_grad():
            for done, indices in enumerate(batches, start=1):
                batch = store.batch(indices, device)
                with autocast():
                    output = teacher(batch.states, batch.mask, hidden=True, lengths=batch.lengths)
                states = output.hidden[layer - 1].float()
                pooled = pool(states, batch.mask, pooling)
                _check_finite(pooled, indices, name)
                arrays["pooled"][indices] = pooled.cpu().numpy()
                on_step(done, len(batches))

    about = {"split": name, "examples": len(store), "layer": layer}
    arrays = cache.mapped("layer", key, build, about)
    return Pooled(arrays["pooled"], key)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per example, of shape (batch, dim): the mean over the real tokens, or with "cls" the first."""
    return states[:, 0] if pooling == "cls" else masked_mean(states, mask)


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real tokens: (batch, tokens, dim) and (batch, tokens) to (batch, dim)."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _check_finite(values: torch.Tensor, indices: NDArray[np.int64], name: str) -> None:
    _check(
        torch.isfinite(values),
        indices,
        name,
        "the teacher gives a value that is not finite (NaN or infinity); the checkpoint is damaged or the precision "
        "too low (try precision='fp32')",
    )


def _check_float16(values: torch.Tensor, indices: NDArray[np.int64], name: str) -> None:
    _check(
        values.abs() <= torch.finfo(torch.float16).max,
        indices,
        name,
        "the input layers give a value too large for vector_dtype='float16': set it to 'float32'",
    )


def _check(fine: torch.Tensor, indices: NDArray[np.int64], name: str, problem: str) -> None:
    """Raise DataError for the first example of a batch that is not fine in every value."""
    fine = fine.flatten(1).all(1)
    if not bool(fine.all()):
        row = int(indices[int((~fine).nonzero()[0, 0])]) + 1
        raise DataError(f"{name}, row {row}: {problem}")
