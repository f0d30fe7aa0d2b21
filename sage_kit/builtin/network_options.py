"""Options that the components share that train a network in torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sage_kit.components import Options


class NetworkOptions(Options):
    """How a network is built and trained."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(256, 128, 64),
        description="Widths of the hidden layers, from the vectors' side to the map's; none for a linear map [units].",
    )
    epochs: int = Field(
        default=200, ge=1, description="Most passes over the data; early stopping ends sooner [epochs]."
    )
    patience: int = Field(
        default=10,
        ge=1,
        description="Training ends after so many passes without a better held-out loss, and the best weights are kept "
        "[epochs].",
    )
    held_out: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the rows that is not trained on but decides when to stop. With 0, and with fewer than 10 "
        "rows, all rows are trained on for all epochs [share of rows].",
    )
    batch_size: int = Field(
        default=256,
        ge=1,
        description="Most rows in a step; with few rows fewer, so that an epoch has about 8 steps [rows].",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Step size of AdamW [1].")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decoupled weight decay of AdamW [1 / step size].")
