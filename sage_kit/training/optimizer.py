"""The optimizer, and its state in and out of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def make_optimizer(upper: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over the upper layers' trainable parameters; no weight decay for biases and LayerNorms."""
    parameters = [parameter for parameter in upper.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


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
    for name, parameter in _named_parameters(optimizer, upper):
        prefix = f"{name}|"
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {entry: value.to(parameter.device) for entry, value in state.items()}
