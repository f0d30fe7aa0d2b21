"""Built-in samplers.

In the map: `high_loss`, `random`, `low_loss`, `kl_max`, `boundary` and `cluster`. In full space, without a map:
`gaussian`, `smote`, `shuffled`, `mixup` and `adversarial`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, SamplerSpec, lazy


class NeighborOptions(Options):
    """How a new point is placed between an anchor and one of its neighbours in the map."""

    k: int = Field(default=15, ge=1, description="Nearest neighbours of an anchor that may be chosen [examples].")
    interpolation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Upper end of the share, drawn uniformly from 0, of the way from the anchor to the chosen "
        "neighbour [share].",
    )
    jitter: float = Field(
        default=0.1,
        ge=0,
        description="Standard deviation of Gaussian noise on the new point [anchor's mean distance to its neighbours].",
    )


class HardOptions(Options):
    """Which examples are anchors because the student finds them hard."""

    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Examples with the highest loss that may be anchors [share of all]: 1 leaves it to their weights.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="A hard example's weight is loss ** (1 / temperature): 1 draws in proportion to the loss, large "
        "values weigh all alike.",
    )


class HighLossOptions(HardOptions, NeighborOptions):
    """Options of `high_loss` and `kl_max`."""


class LowLossOptions(NeighborOptions):
    """Options of `low_loss`."""

    fraction: float = Field(
        default=0.3, gt=0, le=1, description="Examples with the lowest loss that count as easy [share of all]."
    )


class BoundaryOptions(NeighborOptions):
    """Options of `boundary`."""

    fraction: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="Examples of smallest margin, the probability the teacher gives the first class less that of the "
        "second, that anchors are drawn from [share of all].",
    )


class ClusterOptions(HighLossOptions):
    """Options of `cluster`."""

    # where hard examples gather is seen only apart from the others
    fraction: float = Field(
        default=0.3, gt=0, le=1, description="Examples with the highest loss that are clustered [share of all]."
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="A cluster's weight is its number of examples times their mean loss ** (1 / temperature); large "
        "values leave the number alone.",
    )
    min_cluster_size: int = Field(
        default=15, ge=2, description="Hard examples that make a cluster, at least [examples]."
    )
    sample: int = Field(
        default=20_000,
        ge=100,
        description="Hard examples that are clustered, at most; each further one joins its nearest [examples].",
    )


class FullSpaceOptions(HardOptions):
    """What the samplers in full space share."""

    k: int = Field(default=15, ge=1, description="Nearest neighbours of an example in full space [examples].")
    candidates: int = Field(
        default=10_000,
        ge=100,
        description="Examples, at most, among which these are looked for; of more, so many are drawn anew each round, "
        "so that the search does not take ever longer per vector [examples].",
    )


class SmoteOptions(FullSpaceOptions):
    """Options of `smote` and `shuffled`."""

    interpolation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Upper end of the share, drawn uniformly from 0, of the way from an example to the chosen "
        "neighbour [share].",
    )


class LengthOptions(FullSpaceOptions):
    """Options of `gaussian` and `adversarial`: how far they move an example."""

    scale: float = Field(
        default=0.25,
        ge=0,
        description="Length of the move [anchor's mean distance to its k neighbours in full space].",
    )
    length: float = Field(
        default=0.0, ge=0, description="Length of the move in place of what scale gives; 0 for that [vector units]."
    )


class MixupOptions(HardOptions):
    """Options of `mixup`."""

    alpha: float = Field(
        default=1.0,
        gt=0,
        description="Both parameters of the Beta distribution that the share of the way is drawn from, and turned over "
        "where it passes one half; small values stay near the anchor.",
    )


def _min_rows(options: NeighborOptions | FullSpaceOptions) -> int:
    return options.k + 1


@hookimpl
def sage_samplers() -> Iterable[SamplerSpec]:
    yield SamplerSpec(
        name="high_loss",
        summary="Anchors among the examples of highest loss, new points towards their neighbours in the map",
        factory=lazy("sage_kit.builtin.samplers.high_loss:HighLossSampler"),
        options=HighLossOptions,
        min_rows=_min_rows,
        anchors_alone=True,
    )
    yield SamplerSpec(
        name="random",
        summary="Any example is an anchor, new points as in high_loss: its control",
        factory=lazy("sage_kit.builtin.samplers.any_anchor:AnyAnchorSampler"),
        options=NeighborOptions,
        min_rows=_min_rows,
        anchors_alone=True,
        needs_losses=False,
    )
    yield SamplerSpec(
        name="low_loss",
        summary="Anchors among the examples of lowest loss, new points as in high_loss: its control",
        factory=lazy("sage_kit.builtin.samplers.low_loss:LowLossSampler"),
        options=LowLossOptions,
        min_rows=_min_rows,
        anchors_alone=True,
    )
    yield SamplerSpec(
        name="kl_max",
        summary="Anchors as in high_loss, new points towards the neighbour on which student and teacher differ most",
        factory=lazy("sage_kit.builtin.samplers.kl_max:KLMaxSampler"),
        options=HighLossOptions,
        min_rows=_min_rows,
        needs_outputs=True,
    )
    yield SamplerSpec(
        name="boundary",
        summary="Anchors among the examples of smallest teacher margin, new points as in high_loss",
        factory=lazy("sage_kit.builtin.samplers.boundary:BoundarySampler"),
        options=BoundaryOptions,
        min_rows=_min_rows,
        anchors_alone=True,
        needs_losses=False,
        needs_classes=True,
    )
    yield SamplerSpec(
        name="cluster",
        summary="Anchors by clusters of hard examples (HDBSCAN of scikit-learn), new points as in high_loss",
        factory=lazy("sage_kit.builtin.samplers.cluster:ClusterSampler"),
        options=ClusterOptions,
        min_rows=_min_rows,
    )
    yield SamplerSpec(
        name="gaussian",
        summary="Anchors as in high_loss, moved in random directions of full space: a control",
        factory=lazy("sage_kit.builtin.samplers.full_space:GaussianSampler"),
        options=LengthOptions,
        space="full",
        min_rows=_min_rows,
    )
    yield SamplerSpec(
        name="smote",
        summary="Anchors as in high_loss, moved towards their neighbours in full space: a control",
        factory=lazy("sage_kit.builtin.samplers.full_space:SmoteSampler"),
        options=SmoteOptions,
        space="full",
        min_rows=_min_rows,
    )
    yield SamplerSpec(
        name="mixup",
        summary="Anchors as in high_loss, moved towards random examples; lift mixup mixes their tokens: a control",
        factory=lazy("sage_kit.builtin.samplers.mixup:MixupSampler"),
        options=MixupOptions,
        space="full",
        min_rows=lambda options: 2,
        gives_shares=True,
    )
    yield SamplerSpec(
        name="adversarial",
        summary="Anchors as in high_loss, moved by one gradient step that raises the divergence of student and teacher",
        factory=lazy("sage_kit.builtin.samplers.adversarial:AdversarialSampler"),
        options=LengthOptions,
        space="full",
        min_rows=_min_rows,
        needs_gradient=True,
    )
    yield SamplerSpec(
        name="shuffled",
        summary="Anchors as in high_loss, moved by the displacements of smote that belong to others: a control",
        factory=lazy("sage_kit.builtin.samplers.full_space:ShuffledSampler"),
        options=SmoteOptions,
        space="full",
        min_rows=_min_rows,
    )
