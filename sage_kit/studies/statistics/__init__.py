"""The statistics of every study: arms compared in pairs, seed by seed and example by example.

Plain functions of arrays, by the question that they answer:

- `cells`: what does each example contribute to a metric?
- `intervals`: how far does chance in seeds and examples reach? The one rule for intervals.
- `significance`: could a number be its threshold after all, and which difference would a design find?
- `comparisons`: how did each arm do, and how does it stand against the baseline? The tables of the above.
- `association`: do two sets, neighbours or two rankings go together, and how much of that is chance?

What is decided, and in which words, is in `sage_kit.studies.verdicts`.
"""

from __future__ import annotations

from sage_kit.studies.statistics.association import MoransI, correlation, expected_jaccard, jaccard, morans_i
from sage_kit.studies.statistics.cells import contributions, has_contributions, log_mean
from sage_kit.studies.statistics.comparisons import (
    AVERAGE,
    COLUMNS,
    compare_arms,
    compare_cells,
    reached_table,
    summarize,
)
from sage_kit.studies.statistics.intervals import LEVEL, Interval, around, average, of_scores, t_interval, two_way
from sage_kit.studies.statistics.significance import (
    count_detectable,
    count_interval,
    count_p,
    detectable,
    p_value,
    standard_error,
)
from sage_kit.studies.verdicts import holm

__all__ = [
    "AVERAGE", "COLUMNS", "LEVEL", "Interval", "MoransI", "around", "average", "compare_arms", "compare_cells",
    "contributions", "correlation", "count_detectable", "count_interval", "count_p", "detectable", "expected_jaccard",
    "has_contributions", "holm", "jaccard", "log_mean", "morans_i", "of_scores", "p_value", "reached_table",
    "standard_error", "summarize", "t_interval", "two_way",
]  # fmt: skip
