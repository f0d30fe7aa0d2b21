"""The optimizer, by its name in torch, and its state in and out of a checkpoint."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from sage_kit.errors import ConfigError, did_you_mean, one_line

DEFAULT = "adamw"

REFUSED: Mapping[str, str] = {
    "lbfgs": "computes the loss several times a step, while a step here is one pass over a batch",
    "sparseadam": "takes sparse gradients, and the student's are dense",
    "muon": "takes matrices only, and the student has biases and LayerNorms",
}
"""Optimizers of torch that do not fit, and why."""

BY_SETTING: Mapping[str, str] = {"lr": "learning_rate", "weight_decay": "weight_decay"}
"""Arguments of an optimizer that have a setting."""


@functools.cache
def optimizers() -> Mapping[str, type[torch.optim.Optimizer]]:
    """Optimizers of torch that a student can be trained with, by their names in lower case."""
    found = {
        name.lower(): item
        for name, item in vars(torch.optim).items()
        if isinstance(item, type) and issubclass(item, torch.optim.Optimizer) and item is not torch.optim.Optimizer
    }
    return {name: item for name, item in sorted(found.items()) if name not in REFUSED}


def check_optimizer(name: str, options: Mapping[str, Any]) -> None:
    """Take a step with an optimizer, so that a mistake in its name or options is told before anything is computed.

    Raises
    ------
    ConfigError
        For an unknown name, one of `REFUSED`, an unknown option, or a value that torch refuses.
    """
    if name in REFUSED:
        raise ConfigError(f"optimizer {name!r} {REFUSED[name]}: take one of {', '.join(optimizers())}")
    if name not in optimizers():
        raise ConfigError(f"Unknown optimizer {name!r}.{did_you_mean(name, optimizers())}")
    taken = inspect.signature(optimizers()[name]).parameters
    known = [option for option in taken if option != "params" and option not in BY_SETTING]
    for option in options:
        if option in BY_SETTING and option in taken:
            raise ConfigError(f"optimizer_options: {option!r} is the setting {BY_SETTING[option]}: set that")
        if option not in known:
            raise ConfigError(f"optimizer_options of {name!r}: unknown option {option!r}.{did_you_mean(option, known)}")
    idle = torch.nn.ParameterList([torch.zeros(2, 2), torch.zeros(2)])  # nothing is drawn for it
    try:
        optimizer = make_optimizer(idle, 1e-3, 0.0, name, options)
        for parameter in idle.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"optimizer_options of {name!r}: torch refuses them: {one_line(error)}") from error


def make_optimizer(
    upper: torch.nn.Module,
    learning_rate: float,
    weight_decay: float,
    name: str = DEFAULT,
    options: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """An optimizer over the upper layers' trainable parameters; no weight decay for biases and LayerNorms.

    Parameters
    ----------
    upper : Module
    learning_rate, weight_decay : float
        The decay is left out for a class that has none.
    name : str
        Of `optimizers`. AdamW is fused unless the options say otherwise.
    options : mapping or None
        Further arguments of the class.
    """
    made = optimizers()[name]
    parameters = [parameter for parameter in upper.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # a list of a configuration file stands for torch's tuple
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}
    if name == DEFAULT:
        given = {"fused": True, **given}
    taken: Any = inspect.signature(made).parameters
    if "weight_decay" not in taken:
        for group in groups:
            del group["weight_decay"]
    maker: Any = made
    optimizer: torch.optim.Optimizer = maker(groups, lr=learning_rate, **given)
    return optimizer


def _named_parameters(
    optimizer: torch.optim.Optimizer, upper: torch.nn.Module
) -> Iterable[tuple[str, torch.nn.Parameter]]:
    """Names and parameters of upper layers that the optimizer updates."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [(name, parameter) for name, parameter in upper.named_parameters() if id(parameter) in known]


def optimizer_tensors(optimizer: torch.optim.Optimizer, upper: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors on the CPU: ``<parameter>|<entry>``."""
    tensors = {}
    for name, parameter in _named_parameters(optimizer, upper):
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{entry}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, upper: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    """Take over what `optimizer_tensors` returned."""
    if not tensors:
        return
    names = {id(parameter): name for name, parameter in _named_parameters(optimizer, upper)}
    saved = optimizer.state_dict()
    numbered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(numbered):
        prefix = f"{names[id(parameter)]}|"
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            saved["state"][number] = state
    optimizer.load_state_dict(saved)  # which knows where each entry belongs: the counter of steps may stay on the CPU
