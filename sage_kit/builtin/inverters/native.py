"""Inverter `native`: the reducer's own inverse, under a time budget."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import BudgetError, CompatibilityError, PluginError

if TYPE_CHECKING:
    from sage_kit.builtin.inverters import NativeOptions
    from sage_kit.components import BuildContext, Floats, Integers

WARM_UP, SHORT, LONG = 1, 2, 16
"""Sizes of the first calls: one to compile, two to time. Fixed, as are the chunks: where the results depend on how the
points are divided, they must not depend on the machine's speed."""


class NativeInverter:
    """Calls the reducer's ``inverse_transform`` in chunks.

    A reducer's inverse may cost seconds before its first vector (UMAP builds a triangulation at each call), so two
    calls of different size are timed, and the estimate is a straight line through them.

    Parameters
    ----------
    options : NativeOptions
    context : BuildContext
        Announces the estimate.
    """

    def __init__(self, options: NativeOptions, context: BuildContext) -> None:
        self.options = options
        self.context = context
        self._reducer: Any = None
        self._dim = 0

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> NativeInverter:
        """Keep the fitted reducer; return self.

        Raises
        ------
        CompatibilityError
            For a reducer without an inverse.
        """
        if not hasattr(reducer, "inverse_transform"):
            raise CompatibilityError(
                "inverter 'native' needs a reducer that has an inverse: take inverter 'knn' or 'anchored'"
            )
        self._reducer = reducer
        self._dim = vectors.shape[1]
        return self

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32.

        Raises
        ------
        BudgetError
            When the estimate or the time spent passes ``budget_seconds``.
        PluginError
            When the reducer returns an array of another shape.
        """
        total, chunk = len(coordinates), self.options.chunk
        result = np.empty((total, self._dim), dtype=np.float32)
        started = perf_counter()
        done = 0

        def advance(count: int) -> float:
            """Invert the next `count` points; return the seconds that it took."""
            nonlocal done
            before = perf_counter()
            stop = min(done + count, total)
            vectors = np.asarray(self._reducer.inverse_transform(coordinates[done:stop]))
            if vectors.shape != (stop - done, self._dim):
                raise PluginError(
                    f"the reducer's inverse returned an array of shape {vectors.shape} instead of "
                    f"{(stop - done, self._dim)}"
                )
            result[done:stop] = vectors
            done = stop
            return perf_counter() - before

        timings = [advance(min(size, chunk)) for size in (WARM_UP, SHORT, LONG) if done < total]
        rest = total - done
        if rest:
            seconds = perf_counter() - started + estimate(timings[1], timings[2], rest, chunk)
            rate = total / max(seconds, 1e-9)
            self.context.announce(f"native inverse of {total} points: about {seconds:.1f} s ({rate:.3g} vectors/s)")
            if seconds > self.options.budget_seconds:
                raise BudgetError(
                    f"native inverse of {total} points would take about {seconds:.0f} s and {self._over_budget()}"
                )
        while done < total:
            advance(chunk)
            spent = perf_counter() - started
            if spent > self.options.budget_seconds and done < total:
                raise BudgetError(
                    f"native inverse has taken {spent:.0f} s for {done} of {total} points and {self._over_budget()}"
                )
        return result

    def _over_budget(self) -> str:
        return (
            f"budget_seconds is {self.options.budget_seconds:g}: take inverter 'knn' or 'anchored', which need a "
            "fraction of it, or raise budget_seconds in inverter_options"
        )


def estimate(short_seconds: float, long_seconds: float, rest: int, chunk: int) -> float:
    """Seconds for `rest` points in chunks, from the times of a call of `SHORT` and one of `LONG` points.

    Parameters
    ----------
    short_seconds, long_seconds : float
    rest : int
        Points still to be inverted.
    chunk : int
        Points in a call.
    """
    short, long = min(SHORT, chunk), min(LONG, chunk)
    each = max(long_seconds - short_seconds, 0.0) / (long - short) if long > short else 0.0
    # a call that was slower for fewer points was disturbed: what it shows is a cost per call
    per_call = max(short_seconds - short * each, 0.0)
    return -(-rest // chunk) * per_call + rest * each
