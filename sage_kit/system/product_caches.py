"""What oneDNN keeps of the matrix products that it has computed."""

from __future__ import annotations

import os

VARIABLES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""How many products torch's layer above oneDNN keeps, and how many oneDNN itself."""

KEPT = 64
"""More than a batch has products of different sizes, so that what is kept is found again within it."""


def bound_product_caches() -> None:
    """Keep memory from growing with the batches that are computed, unless the environment says how many are kept.

    Both keep 1,024 products, each with what it computes in. Batches of packed rows have nearly all sizes, so that a
    process of 150 MB had 900 MB after 600 batches of a block of width 384, and found hardly any product again. Both
    read the variables at the first product, so this comes before it.
    """
    for name in VARIABLES:
        os.environ.setdefault(name, str(KEPT))
