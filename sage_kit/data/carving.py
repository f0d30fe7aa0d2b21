"""Carving: which rows of a split go into a part of it, under a seed.

Rows of one text are a group and stay together, so that no text stands on two sides; so do rows that belong together,
such as the turns of a dialogue. Groups are taken by class, in
proportion, and each class keeps one.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.data.text_columns import numbered

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def random_order(n: int, seed: int, purpose: str) -> Indices:
    """A random permutation of ``range(n)``.

    It sorts the raw output of PCG64: numpy guarantees that this stream never changes, which it does not for
    ``Generator.permutation``. So a seed draws the same rows under every version of numpy.
    """
    stream = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]))
    return np.argsort(stream.random_raw(n), kind="stable")


@dataclass(frozen=True, eq=False)
class Groups:
    """The rows of a split by text.

    Attributes
    ----------
    of_row : array of shape (n_rows,), int64
        Number of each row's group, from 0 in the order of the rows.
    stratum : array of shape (n_groups,), int64
        The class of each group; where its rows disagree, their rarest. All 0 for regression.
    """

    of_row: Indices
    stratum: Indices

    @classmethod
    def find(
        cls,
        columns: Sequence[Sequence[Hashable]],
        labels: NDArray[Any],
        *,
        regression: bool,
        belongs_to: Sequence[Hashable] | None = None,
    ) -> Groups:
        """The groups of rows with these columns of texts, one or two, and labels, and what each row belongs to."""
        of_row = numbered(columns)
        if belongs_to is not None:
            of_row = _joined(of_row, numbered([belongs_to]))
        stratum = np.zeros(int(of_row.max(initial=-1)) + 1, np.int64)
        if not regression:
            rows_of_class = np.bincount(labels)
            common_first = np.argsort(-rows_of_class[labels], kind="stable")
            stratum[of_row[common_first]] = labels[common_first]  # the last one written, the rarest, stays
        return cls(of_row, stratum)

    def __len__(self) -> int:
        return len(self.stratum)


def _joined(one: Indices, other: Indices) -> Indices:
    """The finest grouping of rows that parts no group of two groupings."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sizes = int(one.max(initial=-1)) + 1, int(other.max(initial=-1)) + 1
    edges = coo_matrix((np.ones(len(one)), (one, sizes[0] + other)), shape=(sum(sizes), sum(sizes)))
    _, component = connected_components(edges, directed=False)
    return numbered([component[one].tolist()])


def carve_share(groups: Groups, fraction: float, seed: int, purpose: str) -> Mask:
    """Rows of a part that holds a share of the groups: at least one group, unless no class has two.

    Returns
    -------
    array of shape (n_rows,), bool
    """
    quotas = _group_quotas(np.bincount(groups.stratum), fraction)
    order, rank = _by_stratum(groups, seed, purpose)
    carved = np.zeros(len(groups), bool)
    carved[order[rank < quotas[groups.stratum[order]]]] = True
    return carved[groups.of_row]


def carve_rows(groups: Groups, rows: int, seed: int, purpose: str) -> Mask:
    """Rows of a part that holds so many rows; fewer where groups and the classes' last texts leave no more.

    Returns
    -------
    array of shape (n_rows,), bool
    """
    sizes = np.bincount(groups.of_row, minlength=len(groups))
    order, rank = _by_stratum(groups, seed, purpose)
    stratum, size = groups.stratum[order], sizes[order]
    may = rank < np.bincount(groups.stratum)[stratum] - 1
    wanted = _row_quotas(np.bincount(groups.stratum, weights=sizes).astype(np.int64), rows)
    # the first groups of each class whose rows fit its share
    total = np.cumsum(size)
    before = np.concatenate([[0], total])[np.searchsorted(stratum, stratum)]
    taken = may & (total - before <= wanted[stratum])
    # a group that would be too large is passed over, for smaller ones of its class and then of any
    left = wanted - np.bincount(stratum[taken], weights=size[taken], minlength=len(wanted)).astype(np.int64)
    for place in np.flatnonzero(may & ~taken & (size <= left[stratum])).tolist():
        if size[place] <= left[stratum[place]]:
            taken[place] = True
            left[stratum[place]] -= size[place]
    missing = rows - int(size[taken].sum())
    others = np.flatnonzero(may & ~taken & (size <= missing))
    for place in others[random_order(len(others), seed, f"rest of {purpose}")].tolist():
        if size[place] <= missing:
            taken[place] = True
            missing -= int(size[place])
    carved = np.zeros(len(groups), bool)
    carved[order[taken]] = True
    return carved[groups.of_row]


def cut_group(groups: Groups, carved: Mask, rows: int) -> tuple[Mask, Mask]:
    """Take the rows that a part still lacks from one more group, whose other rows then belong to no part.

    Parameters
    ----------
    groups : Groups
    carved : array of shape (n_rows,), bool
        The rows of the part.
    rows : int
        How many it lacks.

    Returns
    -------
    carved, left_out : array of shape (n_rows,), bool
        As they were, and none, where no group that may be taken has so many rows.
    """
    sizes = np.bincount(groups.of_row, minlength=len(groups))
    free = np.ones(len(groups), bool)
    free[groups.of_row[carved]] = False
    may = free & (np.bincount(groups.stratum[free], minlength=int(groups.stratum.max()) + 1)[groups.stratum] > 1)
    found = np.flatnonzero(may & (sizes >= rows))
    if not len(found):
        return carved, np.zeros_like(carved)
    own = np.flatnonzero(groups.of_row == found[np.argmin(sizes[found])])
    more, left_out = carved.copy(), np.zeros_like(carved)
    more[own[:rows]] = True
    left_out[own[rows:]] = True
    return more, left_out


def _by_stratum(groups: Groups, seed: int, purpose: str) -> tuple[Indices, Indices]:
    """The groups by stratum, in random order within each, and the rank of each in its own."""
    order = random_order(len(groups), seed, purpose)
    order = order[np.argsort(groups.stratum[order], kind="stable")]
    sizes = np.bincount(groups.stratum)
    return order, np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _group_quotas(sizes: Indices, fraction: float) -> Indices:
    """How many groups to take of each stratum: the fraction, by largest remainders.

    At least one in all, and never a whole stratum.
    """
    spare = np.maximum(sizes - 1, 0)
    exact = sizes * fraction
    quotas: Indices = np.minimum(np.floor(exact).astype(np.int64), spare)
    wanted = max(1, int(fraction * sizes.sum() + 0.5)) - int(quotas.sum())
    may_take_more = (quotas < exact) & (quotas < spare)
    by_remainder = np.argsort(quotas - exact, kind="stable")
    quotas[by_remainder[may_take_more[by_remainder]][: max(0, wanted)]] += 1
    return quotas


def _row_quotas(sizes: Indices, rows: int) -> Indices:
    """How many rows to take of each stratum, by largest remainders; all of them sum to `rows`."""
    exact = sizes * (rows / sizes.sum())
    quotas: Indices = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: rows - int(quotas.sum())]] += 1
    return quotas
