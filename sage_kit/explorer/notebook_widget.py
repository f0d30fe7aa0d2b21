"""The explorer in a notebook: the same front end as the page, as an anywidget."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from sage_kit.errors import MissingPackageError
from sage_kit.explorer.page_data import page_data
from sage_kit.explorer.page_file import SCRIPT, STYLE, asset

Path = str | os.PathLike[str]


def explore(
    runs: Path | Sequence[Path],
    *,
    points: int | None = None,
    texts: bool = True,
    compute: bool = False,
    scorecards: Sequence[Path] = (),
    height: int = 0,
) -> Any:
    """Look at one or more runs in a notebook: maps, texts, curves, costs.

    Parameters
    ----------
    runs : path or sequence of path
        Run directories, at most six. What `sage_kit.run` returns first has the path as `path`.
    points : int or None
        Most training examples that are held; None for 100,000.
    texts : bool
        Whether to read the data again and show texts.
    compute : bool
        Make the teacher's outputs again where the cache no longer has them, which may take long.
    scorecards : sequence of path
        Folders that `sage-kit scorecard --out` wrote.
    height : int
        Height of the widget in pixels, which then scrolls; 0 for as high as it needs.

    Returns
    -------
    anywidget.AnyWidget
        Its attribute `data` is the packed block, `height` as given.

    Raises
    ------
    MissingPackageError
        When anywidget is not installed.
    RunDirectoryError
        When a directory is no run, has no finished round, or is damaged.

    Examples
    --------
    >>> import sage_kit
    >>> sage_kit.explore("runs/sst2/20260101T000000Z-0a1b2c3d")  # doctest: +SKIP
    """
    widget = _widget_class()
    one = isinstance(runs, str | os.PathLike) or not isinstance(runs, Sequence)
    named = [runs] if one else list(runs)  # type: ignore[arg-type]
    paths = [str(getattr(run, "path", run)) for run in named]
    cards = [os.fspath(card) for card in scorecards]
    return widget(data=page_data(paths, points=points, texts=texts, compute=compute, scorecards=cards), height=height)


@cache
def _widget_class() -> Any:
    """The widget, made when first asked for: its base class comes from an optional package."""
    try:
        anywidget, traitlets = importlib.import_module("anywidget"), importlib.import_module("traitlets")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"the explorer in a notebook needs {error.name}: pip install 'sage-kit[explorer]'; `sage-kit explore` "
            "writes a page without it"
        ) from None

    class Explorer(anywidget.AnyWidget):  # type: ignore[misc, name-defined]
        """Runs to look at."""

        _esm = asset(SCRIPT)
        _css = asset(STYLE)
        data = traitlets.Bytes().tag(sync=True)
        height = traitlets.Int(0).tag(sync=True)

    return Explorer
