"""The stock model of transformers in float64, one example at a time: what faster passes are held against."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sage_kit.models.encoder_parts import blocks_of
from sage_kit.models.families import family_of

LENGTHS = {
    "equal": [9, 9, 9, 9],
    "little padding": [40, 40, 39, 40],
    "much padding": [17, 1, 40, 6],
    "one token": [1, 1],
    "short": [5, 1, 3, 2, 5],
}
DIM = 32


def make_batch(lengths, dtype=torch.float64, extra=0):
    """Random states with something at padding, and a mask; `extra` columns are padding in every row."""
    generator = torch.Generator().manual_seed(1)
    tokens = max(lengths) + extra
    states = torch.randn(len(lengths), tokens, DIM, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return states, mask


def stock(model, bypass, states):
    """Logits and hidden states of one example without padding, by the stock model with its own eager attention."""
    family = family_of(model.config)
    blocks = blocks_of(model, family)[0 if bypass == "embeddings" else bypass :]
    hidden = []
    relative = {}
    if family.relative_positions:
        relative["position_bias"] = model.get_submodule(family.relative_positions).compute_position_bias(states)
    for block in blocks:
        found = block(states, attention_mask=None, **relative)
        states = found[0] if relative else found
        hidden.append(states)
    dense, output = model.get_submodule(family.head_dense), model.get_submodule(family.head_output)
    dropout = model.get_submodule(family.head.dropout)
    first = states[:, 0]
    if family.head.first_dropout:
        first = dropout(first)
    activate = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[family.head.activation]
    return output(dropout(activate(dense(first)))), hidden


def scalar(logits, hidden):
    """Something that depends on every output, and not evenly."""
    total = (logits * torch.linspace(0.5, 2, logits.shape[-1], dtype=logits.dtype)).sin().sum()
    for layer, states in enumerate(hidden, start=1):
        total = total + (states * torch.linspace(-1, layer, DIM, dtype=states.dtype)).sin().sum()
    return total


def reference(model, bypass, states, lengths, hidden):
    """Logits, hidden states, and gradients by parameter and by state, all in float64, of each example on its own."""
    model = copy.deepcopy(model).double()
    model.set_attn_implementation("eager")
    states = states.clone().requires_grad_()
    total, logits, kept = torch.zeros((), dtype=torch.float64), [], []
    for row, n in enumerate(lengths):
        one, layers = stock(model, bypass, states[row : row + 1, :n])
        total = total + scalar(one, layers if hidden else [])
        logits.append(one[0])
        kept.append([layer[0] for layer in layers])
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return torch.stack(logits), kept, gradients, states.grad


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def distance(found, expected):
    """Of two tensors, as a share of the second."""
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())
