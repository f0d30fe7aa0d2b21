"""What components answer, checked before anything is made of it: types, shapes, finite numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import Samples, TokenBatch
from sage_kit.errors import PluginError
from sage_kit.recipe import Choice, Recipe

CHECKED_AT_ONCE = 8192
"""Rows that are looked through for NaN at once: the answers of all would take a quarter of the array's memory."""


def checked_array(choice: Choice, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """What a component returned as an array of finite numbers of that shape; PluginError for anything else."""
    array: NDArray[Any] = choice.call(np.asarray, values)
    if array.shape != shape:
        raise PluginError(f"{choice} returned an array of shape {array.shape} instead of {shape}")
    if array.dtype.kind not in "fiu":
        raise PluginError(f"{choice} returned an array of {array.dtype} instead of float32")
    blocks = (array[start : start + CHECKED_AT_ONCE] for start in range(0, len(array), CHECKED_AT_ONCE))
    if not all(np.isfinite(block).all() for block in blocks):
        raise PluginError(f"{choice} returned NaN or infinity")
    return array


def checked_samples(recipe: Recipe, samples: Any, count: int, rows: int) -> Samples:
    """What a sampler returned for `count` points of `rows` examples, its fields as arrays of the right shapes."""
    choice, spec = recipe["sampler"], recipe.sampler
    if not isinstance(samples, Samples):
        raise PluginError(f"{choice} returned {type(samples).__name__} instead of Samples")
    anchors = choice.call(np.asarray, samples.anchors)
    if anchors.shape != (count,) or anchors.dtype.kind not in "iu":
        raise PluginError(
            f"{choice} returned anchors of {anchors.dtype} and shape {anchors.shape} instead of integers of shape "
            f"{(count,)}"
        )
    if len(anchors) and (anchors.min() < 0 or anchors.max() >= rows):
        raise PluginError(f"{choice} returned an anchor outside 0 to {rows - 1}")
    if spec.gives_shares and (samples.shares is None or samples.neighbors is None):
        raise PluginError(f"{choice} returned no shares or no neighbors, though it says that it gives them")
    if recipe.uses_map and samples.coordinates is None:
        raise PluginError(f"{choice} returned no coordinates, though its space is 'map'")
    if spec.space == "full" and samples.vectors is None:
        raise PluginError(f"{choice} returned no vectors, though its space is 'full'")
    arrays: dict[str, NDArray[Any]] = {"anchors": anchors}
    if samples.shares is not None:
        arrays["shares"] = checked_array(choice, samples.shares, (count,))
    if samples.neighbors is not None:
        arrays["neighbors"] = choice.call(np.asarray, samples.neighbors)
    if recipe.uses_map:
        arrays["coordinates"] = checked_array(choice, samples.coordinates, (count, recipe.config.n_components))
    return replace(samples, **arrays)


def checked_kept(choice: Choice, keep: Any, rows: int) -> NDArray[np.bool_]:
    """What a filter returned for `rows` examples."""
    kept: NDArray[np.bool_] = choice.call(np.asarray, keep)
    if kept.shape != (rows,) or kept.dtype != bool:
        raise PluginError(f"{choice} returned {kept.dtype} of shape {kept.shape} instead of bool of shape {(rows,)}")
    return kept


def checked_batch(choice: Choice, batch: Any, rows: int, dim: int, *, is_text: bool) -> TokenBatch:
    """What a lift returned for `rows` examples with token states of `dim` numbers; `is_text`: with their text."""
    if not isinstance(batch, TokenBatch):
        raise PluginError(f"{choice} returned {type(batch).__name__} instead of a TokenBatch")
    if batch.states.ndim != 3 or batch.states.shape[0] != rows or batch.states.shape[2] != dim:
        raise PluginError(
            f"{choice} returned token states of shape {tuple(batch.states.shape)} instead of ({rows}, tokens, {dim})"
        )
    if batch.mask.shape != batch.states.shape[:2] or batch.mask.dtype != torch.bool:
        raise PluginError(
            f"{choice} returned a mask of {batch.mask.dtype} and shape {tuple(batch.mask.shape)} instead of bool and "
            f"{tuple(batch.states.shape[:2])}"
        )
    if is_text and batch.text is None:
        raise PluginError(f"{choice} returned no text, though it says that it makes text")
    return batch
