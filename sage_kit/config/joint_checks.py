"""What settings must not say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.config.loss_weights import check_loss_settings

if TYPE_CHECKING:
    from sage_kit.config.settings import RunConfig


def check_together(config: RunConfig) -> None:
    """Raise ValueError where two settings, each of them fine, contradict each other."""
    if config.mix == "replace" and config.synthetic_ratio > 1:
        raise ValueError(
            f"synthetic_ratio is {config.synthetic_ratio:g}, but with mix='replace' it is a share and at most 1"
        )
    if config.delimiter and config.delimiter == config.quote:
        raise ValueError(f"delimiter and quote are both {config.quote!r}: set one of them to another character")
    if config.evaluation_rows and config.evaluation_file:
        raise ValueError(
            f"evaluation_rows is {config.evaluation_rows:,}, but evaluation_file gives that set: set one only"
        )
    if config.transfer_pool and config.transfer_file:
        raise ValueError(
            f"transfer_pool is {config.transfer_pool:,}, but transfer_rows are drawn from transfer_file: set "
            "transfer_pool to 0, or empty transfer_file"
        )
    if config.transfer_pool and config.transfer_rows > config.transfer_pool:
        raise ValueError(
            f"transfer_rows is {config.transfer_rows:,}, but transfer_pool, from which they are drawn, is "
            f"{config.transfer_pool:,}: lower transfer_rows or raise transfer_pool"
        )
    if config.warmup_epochs and not config.warmup_corpus:
        raise ValueError("warmup_epochs is set, but warmup_corpus names no text; name one or set warmup_epochs to 0")
    for name in ("student_init", "hidden_layers"):
        value = getattr(config, name)
        if isinstance(value, list) and len(value) != config.student_layers:
            raise ValueError(f"{name} lists {len(value)} blocks, but student_layers is {config.student_layers}")
    if config.granularity == "pooled" and config.hidden_layers != "last":
        raise ValueError("hidden_layers other than 'last' needs granularity='token'")
    if config.granularity == "pooled" and config.relation_weight:
        raise ValueError(
            f"relation_weight is {config.relation_weight:g}, but one pooled vector relates to itself alone: set it "
            "to 0, or granularity to 'token'"
        )
    check_loss_settings(config)
