"""The reducers go through every check that sage-kit has for reducers."""

from __future__ import annotations

from typing import Any

import sage_kit_torchdr
from sage_kit.testing import parametrize_with_checks

UMAP, TSNE = sage_kit_torchdr.sage_reducers()


@parametrize_with_checks(
    [UMAP],
    {"reducer_batch_invariance": "TorchDR places the new vectors of a batch together, by random moves"},
    options={"torchdr_umap": {"n_neighbors": 8, "n_epochs": 60}},
)
def test_conformance_of_umap(spec: Any, check: Any) -> None:
    check(spec)


@parametrize_with_checks(
    [TSNE],
    {"time_grows_slowly": "exact t-SNE looks at every pair of rows, as its summary says"},
    options={"torchdr_tsne": {"perplexity": 8, "early_exaggeration_iter": 20, "n_iter": 40}},
)
def test_conformance_of_tsne(spec: Any, check: Any) -> None:
    check(spec)
