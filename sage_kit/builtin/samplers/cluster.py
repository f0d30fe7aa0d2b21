"""Sampler `cluster`: new points in the regions of the map where hard examples gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex
from sage_kit.builtin.samplers.draws import draw_anchors, points_near
from sage_kit.builtin.samplers.high_loss import hardest, log_losses
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import ClusterOptions
    from sage_kit.components import BuildContext, Floats, Integers


class ClusterSampler:
    """Clusters the hard examples by their place in the map, and draws anchors by cluster.

    A cluster is drawn in proportion to its number of examples times their mean loss, an example within it as often as
    any other of the cluster. So a region counts by how hard it is as a whole, and no single example takes over. The
    examples that HDBSCAN leaves out as noise form one more cluster.

    Parameters
    ----------
    options : ClusterOptions
    context : BuildContext
    """

    def __init__(self, options: ClusterOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            Without a map, or with too few examples.
        """
        if request.coordinates is None:
            raise CompatibilityError("sampler 'cluster' works in the map, and there is none: name a reducer")
        hard = hardest(request.losses, self.options.fraction, request.rng)
        labels = self._cluster(request.coordinates[hard], request.rng)
        masses = np.bincount(labels)
        means = np.bincount(labels, weights=request.losses[hard]) / masses
        # a cluster's weight is the sum of its examples' weights, so its mass is in it already
        log_weights = log_losses(means.astype(np.float32))[labels] / self.options.temperature
        anchors = draw_anchors(hard, log_weights, request.count, request.rng)
        return points_near(anchors, request, self.options, "cluster")

    def _cluster(self, points: Floats, rng: np.random.Generator) -> Integers:
        """Number of each point's cluster, of shape (n,), from 0 without gaps; the noise has a number of its own.

        Where there are more than ``sample`` points, so many of them are clustered, and each of the others joins the
        cluster of the one nearest to it.
        """
        size, most = self.options.min_cluster_size, self.options.sample
        chosen = np.arange(len(points))
        if len(points) > most:
            chosen = np.sort(rng.choice(len(points), most, replace=False))
        if len(chosen) < 2 * size:  # no two clusters can be told apart
            return np.zeros(len(points), dtype=np.int64)
        from sklearn.cluster import HDBSCAN

        labels = HDBSCAN(min_cluster_size=size, copy=True).fit(points[chosen].astype(np.float64)).labels_
        if len(chosen) < len(points):
            labels = labels[NeighborIndex(points[chosen]).query(points, 1)[1][:, 0]]
        return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)
