"""Built-in reducers: `pca`, `autoencoder`, `vae`, `hybrid`, and the controls `random_projection` and `identity`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import Field, model_validator

from sage_kit import hookimpl
from sage_kit.builtin.network_options import NetworkOptions
from sage_kit.components import Options, ReducerSpec, lazy
from sage_kit.errors import CompatibilityError


class PCAOptions(Options):
    """Options of `pca`."""

    whiten: bool = Field(
        default=False, description="Scale each coordinate to unit variance, so that no direction of the map dominates."
    )


class AutoencoderOptions(NetworkOptions):
    """Options of `autoencoder`."""

    noise: float = Field(
        default=0.6,
        ge=0,
        description="Standard deviation of the Gaussian noise that is added to the vectors in training and that the "
        "network learns to take away [root of the vectors' mean variance].",
    )


class VAEOptions(NetworkOptions):
    """Options of `vae`."""

    beta: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the divergence from the prior; 1 is the evidence lower bound, larger values give a map "
        "that is smoother and holds less [1].",
    )


class Step(Options):
    """One step of `hybrid`."""

    reducer: str = Field(description="Name of the reducer.")
    n_components: int = Field(
        default=0,
        ge=0,
        description="Dimensions after the step, at most; 0 for the last step, which has those of the map [dimensions].",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the reducer.")


class HybridOptions(Options):
    """Options of `hybrid`."""

    steps: tuple[Step, ...] = Field(
        default=(Step(reducer="pca", n_components=50), Step(reducer="umap")),
        min_length=2,
        description="Reducers in order, each with its reducer, n_components and options.",
    )

    @model_validator(mode="after")
    def _only_the_last_takes_the_width_of_the_map(self) -> HybridOptions:
        for number, step in enumerate(self.steps, start=1):
            is_last = number == len(self.steps)
            if is_last and step.n_components:
                raise ValueError("the last step has the n_components of the run: leave its own out")
            if not is_last and not step.n_components:
                raise ValueError(f"step {number} ({step.reducer}) needs n_components, the dimensions after it")
        return self


def refine_hybrid(
    options: HybridOptions, spec_of: Callable[[str, Mapping[str, Any]], ReducerSpec]
) -> Mapping[str, Any]:
    """What a chain can do: what all of its steps can.

    Raises
    ------
    CompatibilityError
        When a step is asked for more components than its reducer takes, or learns from labels.
    """
    specs = [spec_of(step.reducer, step.options) for step in options.steps]
    for number, (step, spec) in enumerate(zip(options.steps, specs, strict=True), start=1):
        if spec.max_components is not None and step.n_components > spec.max_components:
            raise CompatibilityError(
                f"step {number} of reducer 'hybrid' has n_components {step.n_components}, but reducer {spec.name!r} "
                f"takes at most {spec.max_components}"
            )
        if spec.needs_labels:
            raise CompatibilityError(
                f"step {number} of reducer 'hybrid' is reducer {spec.name!r}, which learns from labels: a chain hands "
                "none on; take it alone"
            )
    inner = list(zip(options.steps, specs, strict=True))[:-1]

    def min_rows(options: HybridOptions, n_components: int) -> int:
        least = n_components + 1
        for step, spec in zip(options.steps, specs, strict=True):
            if spec.min_rows is not None:
                # a step before the last keeps fewer dimensions where there are few rows
                width = 1 if step.n_components else n_components
                least = max(least, spec.min_rows(spec.options.model_validate(step.options), width))
        return least

    return {
        "has_transform": all(spec.has_transform for spec in specs),
        "has_inverse": all(spec.has_inverse for spec in specs)
        and all(step.n_components >= spec.inverse_min_components for step, spec in inner),
        "inverse_min_components": specs[-1].inverse_min_components,
        "has_state": all(spec.has_state for spec in specs),
        "repeatable": all(spec.repeatable for spec in specs),
        "uses_gpu": any(spec.uses_gpu for spec in specs),
        "max_components": specs[-1].max_components,
        "min_rows": min_rows,
    }


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    yield ReducerSpec(
        name="pca",
        summary="Principal components (scikit-learn); linear, with an exact inverse of the part it keeps",
        factory=lazy("sage_kit.builtin.reducers.pca:PCAReducer"),
        options=PCAOptions,
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="random_projection",
        summary="Gaussian random directions (scikit-learn): a map that has not looked at the data, a control",
        factory=lazy("sage_kit.builtin.reducers.random_projection:RandomProjectionReducer"),
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="identity",
        summary="No reduction, a control: the vectors are the map, and n_components must be their width",
        factory=lazy("sage_kit.builtin.reducers.identity:IdentityReducer"),
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="autoencoder",
        summary="Network trained to reproduce the vectors through a layer as narrow as the map (torch)",
        factory=lazy("sage_kit.builtin.reducers.autoencoder:AutoencoderReducer"),
        options=AutoencoderOptions,
        has_transform=True,
        has_inverse=True,
        uses_gpu=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="vae",
        summary="Variational autoencoder; coordinates are posterior means, in standard deviations of the prior (torch)",
        factory=lazy("sage_kit.builtin.reducers.vae:VAEReducer"),
        options=VAEOptions,
        has_transform=True,
        has_inverse=True,
        uses_gpu=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="hybrid",
        summary="A chain of reducers, PCA and then UMAP unless told otherwise; it can do what all of its steps can",
        factory=lazy("sage_kit.builtin.reducers.hybrid:HybridReducer"),
        options=HybridOptions,
        refine=refine_hybrid,
    )
