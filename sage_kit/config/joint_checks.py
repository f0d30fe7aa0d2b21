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
        if isinstance(value, list) and len(value) != config.student_layers and not config.student:
            raise ValueError(f"{name} lists {len(value)} blocks, but student_layers is {config.student_layers}")
    if config.granularity == "pooled" and config.hidden_layers != "last":
        raise ValueError("hidden_layers other than 'last' needs granularity='token'")
    if config.granularity == "pooled" and config.relation_weight:
        raise ValueError(
            f"relation_weight is {config.relation_weight:g}, but one pooled vector relates to itself alone: set it "
            "to 0, or granularity to 'token'"
        )
    _check_models(config)
    check_loss_settings(config)


def _check_models(config: RunConfig) -> None:
    """The same of several teachers, and of a student that is a checkpoint."""
    if config.teacher_weights and len(config.teacher_weights) != 1 + len(config.other_teachers):
        raise ValueError(
            f"teacher_weights has {len(config.teacher_weights)} weights for {1 + len(config.other_teachers)} "
            "teacher(s): set one for each, teacher's first, or empty it"
        )
    for name in ("teacher_labels", "tokenizer") if config.other_teachers else ():
        if getattr(config, name):
            raise ValueError(
                f"{name} is set, and says nothing of the teachers in other_teachers: empty it, or teach with one"
            )
    if config.student and config.warmup_epochs:
        raise ValueError(
            f"warmup_epochs is {config.warmup_epochs}, but the warm-up teaches hidden states to blocks of the teacher, "
            "and student names a checkpoint: set one of them only"
        )
    if config.student and config.granularity == "pooled":
        raise ValueError(
            "granularity is 'pooled', which leaves one vector of the teacher's input layers, and student names a "
            "checkpoint with its own: set granularity to 'token'"
        )
