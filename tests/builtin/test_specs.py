"""What the built-ins say about themselves."""

from __future__ import annotations

import re

import pytest

from sage_kit.builtin import BUILT_INS
from sage_kit.components import BuildContext, ComponentSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import ConfigError, MissingPackageError, UnknownComponentError
from sage_kit.testing.toy import LOSS_SIZES

SPECS = [
    item.spec
    for item in Plugins(allow="").components()
    if item.spec.kind != "task" and isinstance(item.spec, ComponentSpec)
]


def test_every_kind_of_the_core_has_its_components(plugins: Plugins) -> None:
    expected = {
        "reducer": ["autoencoder", "hybrid", "identity", "pca", "random_projection", "vae"],
        "sampler": [
            "adversarial", "boundary", "cluster", "gaussian", "high_loss", "kl_max", "low_loss", "mixup", "random",
            "shuffled", "smote",
        ],
        "inverter": ["anchored", "decoder", "knn", "local_affine", "native", "rbf"],
        "lift": ["mixup", "pooled", "replace", "replace_random", "scale_shift", "shift"],
        "decoder": ["mlm_head", "nearest_token", "probe"],
        "filter": ["agreement_with_anchor", "choose", "cosine", "density", "none", "teacher_confidence"],
        "loss": [
            "contrastive", "dist", "embedding_cosine", "hard_labels", "hidden_cosine", "hidden_mse", "kl", "logits_mse",
            "minilm_relations", "pkd", "rkd", "tinybert_attention",
        ],
        "metric": [
            "accuracy", "answer_f1", "cosine_pearson", "cosine_spearman", "exact_match", "exact_set", "f1", "hotpot_f1",
            "macro_f1", "matthews", "mean_average_precision", "micro_f1", "pearson", "retrieval_accuracy", "span_f1",
            "spearman", "tag_accuracy",
        ],
        "stop_rule": ["agreement"],
        "observer": ["costs", "jsonl", "limits", "loss_profile", "progress", "tracker"],
    }  # fmt: skip
    assert {kind: plugins.names(kind) for kind in expected} == expected


def test_each_module_contributes(plugins: Plugins) -> None:
    origins = {item.origin.plugin for item in plugins.components()}
    assert origins == {module.__name__.rpartition(".")[2] for module in BUILT_INS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_spec_is_complete(spec: ComponentSpec, plugins: Plugins) -> None:
    assert spec.summary
    assert "\n" not in spec.summary
    for name, field in spec.options.model_fields.items():
        assert field.description, f"option {name} of {spec.name} has no description"
        assert not field.is_required(), f"option {name} of {spec.name} has no default"
    try:
        built = plugins.build(spec.kind, spec.name, {}, BuildContext(config=RunConfig(), sizes=LOSS_SIZES))
    except (MissingPackageError, UnknownComponentError) as reason:  # of what it is built over by default
        pytest.skip(str(reason))
    assert built is not None


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("reducer", "random_projection", {"eps": 0.1}, "Unknown option 'eps'"),
        ("reducer", "identity", {"whiten": True}, "Unknown option 'whiten'"),
        ("sampler", "high_loss", {"fraction": 0}, "option 'fraction' is 0"),
        ("sampler", "high_loss", {"fraction": 1.5}, "option 'fraction' is 1.5"),
        ("sampler", "high_loss", {"temperature": 0}, "option 'temperature' is 0"),
        ("sampler", "random", {"fraction": 0.3}, "Unknown option 'fraction'"),
        ("sampler", "random", {"neighbours": 3}, "Unknown option 'neighbours'"),
        ("sampler", "low_loss", {"temperature": 1}, "Unknown option 'temperature'"),
        ("sampler", "kl_max", {"fraction": 0}, "option 'fraction' is 0"),
        ("sampler", "boundary", {"fraction": 2}, "option 'fraction' is 2"),
        ("sampler", "cluster", {"min_cluster_size": 1}, "option 'min_cluster_size' is 1"),
        ("sampler", "gaussian", {"scale": -1}, "option 'scale' is -1"),
        ("sampler", "smote", {"interpolation": 1.5}, "option 'interpolation' is 1.5"),
        ("sampler", "shuffled", {"k": 0}, "option 'k' is 0"),
        ("inverter", "knn", {"k": 0}, "option 'k' is 0"),
        ("inverter", "local_affine", {"ridge": 0}, "option 'ridge' is 0"),
        ("inverter", "rbf", {"kernel": "gaussian"}, "option 'kernel' is 'gaussian'"),
        ("inverter", "rbf", {"smoothing": -1}, "option 'smoothing' is -1"),
        ("inverter", "native", {"budget_seconds": -1}, "option 'budget_seconds' is -1"),
        ("inverter", "anchored", {"base": "anchored"}, "an inverter cannot be its own base"),
        ("lift", "shift", {"share": 0.3}, "Unknown option 'share'"),
        ("lift", "replace", {"share": 0}, "option 'share' is 0"),
        ("lift", "replace", {"source": "neighbours"}, "option 'source' is 'neighbours'"),
        ("lift", "replace_random", {"examples": 0}, "option 'examples' is 0"),
        ("filter", "cosine", {"minimum": 2}, "option 'minimum' is 2"),
        ("filter", "density", {"k": 0}, "option 'k' is 0"),
        ("filter", "density", {"quantile": 1.1}, "option 'quantile' is 1.1"),
        ("filter", "teacher_confidence", {"minimum": -0.1}, "option 'minimum' is -0.1"),
        ("filter", "agreement_with_anchor", {"minimum": 0.5}, "Unknown option 'minimum'"),
    ],
)
def test_bad_options_are_refused(
    plugins: Plugins, kind: str, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        plugins.options(kind, name, options)
    assert "\n" not in str(caught.value)
