"""The statistics of every study: arms compared in pairs, seed by seed and example by example.

Plain functions of arrays, by the question that they answer:

- `intervals`: how far does chance in the seeds reach?
- `resampling`: how far does chance in seeds and evaluation examples together reach?
- `significance`: could a difference be none at all, and how large is it beside its spread?
- `comparisons`: how did each arm do, and how does it stand against the baseline? The tables of the above.
- `association`: do two sets, neighbours or two rankings go together, and how much of that is chance?
- `metrics`: what is a metric on each of many resamples?
"""

from __future__ import annotations

from sage_kit.studies.statistics.association import MoransI, correlation, expected_jaccard, jaccard, morans_i
from sage_kit.studies.statistics.comparisons import AVERAGE, Test, compare_arms, compare_predictions, summarize
from sage_kit.studies.statistics.intervals import Interval, SeedMethod, bootstrap_seeds, interval_of, t_interval
from sage_kit.studies.statistics.metrics import weighted_metric
from sage_kit.studies.statistics.resampling import Over, average_over_tasks, paired_bootstrap, paired_replicates
from sage_kit.studies.statistics.significance import EXACT_SIGN_FLIPS, effect_size, holm, paired_p, sign_flip_p

__all__ = [
    "AVERAGE", "EXACT_SIGN_FLIPS", "Interval", "MoransI", "Over", "SeedMethod", "Test", "average_over_tasks",
    "bootstrap_seeds", "compare_arms", "compare_predictions", "correlation", "effect_size", "expected_jaccard", "holm",
    "interval_of", "jaccard", "morans_i", "paired_bootstrap", "paired_p", "paired_replicates", "sign_flip_p",
    "summarize", "t_interval", "weighted_metric",
]  # fmt: skip
