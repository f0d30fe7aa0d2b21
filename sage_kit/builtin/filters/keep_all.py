"""Filter `none`: keeps every synthetic example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, FilterRequest, Options


class KeepAll:
    """Keeps every synthetic example.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return True for each."""
        return np.ones(len(request.vectors), dtype=bool)
