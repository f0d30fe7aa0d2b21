"""The scorecard of inversion: what a map and an inverter keep of vectors that neither of them has seen.

>>> from sage_kit.config import load_config
>>> from sage_kit.components.plugins import Plugins
>>> from sage_kit.scorecard import load_vectors, score_pair
>>> config = load_config({"task": "movie_reviews", "reducer": "pca", "inverter": "knn"})  # doctest: +SKIP
>>> vectors = load_vectors(config, Plugins())  # doctest: +SKIP
>>> card = score_pair(config, Plugins(), vectors)  # doctest: +SKIP
>>> card.fidelity["inverter"]["r2"].value  # doctest: +SKIP
"""

from __future__ import annotations

from sage_kit.scorecard.all_pairs import Grid, Row, score_grid
from sage_kit.scorecard.card import Scorecard
from sage_kit.scorecard.held_out import TaskVectors, load_vectors
from sage_kit.scorecard.measures import Figure
from sage_kit.scorecard.placement import Placement, place_vectors, scoring_config
from sage_kit.scorecard.presentation import draw_grid, grid_notes, grid_table, scorecard_tables
from sage_kit.scorecard.score import score_pair

__all__ = [
    "Figure", "Grid", "Placement", "Row", "Scorecard", "TaskVectors", "draw_grid", "grid_notes", "grid_table",
    "load_vectors", "place_vectors", "score_grid", "score_pair", "scorecard_tables", "scoring_config",
]  # fmt: skip
