"""Built-in decoders: `nearest_token`, `mlm_head` and `probe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.builtin.network_options import NetworkOptions
from sage_kit.components import DecoderSpec, Options, lazy


class NearestTokenOptions(Options):
    """Options of `nearest_token`."""

    special_tokens: Literal["anywhere", "ends"] = Field(
        default="anywhere",
        description="Where special tokens may be found: anywhere, as the separator between the texts of a pair stands, "
        "or only at the first and the last position. Padding is never found.",
    )
    unused: bool = Field(
        default=False, description="Whether rows of the vocabulary that stand for no text, [unused1], may be found."
    )


class MLMHeadOptions(Options):
    """Options of `mlm_head`: it has none."""


class ProbeOptions(NetworkOptions):
    """Options of `probe`."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Widths of hidden layers; none for a linear classifier [units]."
    )
    epochs: int = Field(
        default=10, ge=1, description="Most passes over the tokens; early stopping ends sooner [epochs]."
    )
    patience: int = Field(
        default=2,
        ge=1,
        description="Training ends after so many passes without a better loss on the tokens held out of training, and "
        "the best weights are kept [epochs].",
    )
    batch_size: int = Field(default=1024, ge=1, description="Most tokens in a step [tokens].")
    max_tokens: int = Field(
        default=100_000,
        ge=1,
        description="Most token states of the training text that are learnt from. Of a longer text they are drawn at "
        "random, after one of each id [tokens].",
    )


@hookimpl
def sage_decoders() -> Iterable[DecoderSpec]:
    yield DecoderSpec(
        name="nearest_token",
        summary="The token whose input-layer state at that position is nearest by cosine; needs bypass='embeddings'",
        factory=lazy("sage_kit.builtin.decoders.nearest_token:NearestTokenDecoder"),
        options=NearestTokenOptions,
        has_guesses=True,
    )
    yield DecoderSpec(
        name="mlm_head",
        summary="The likeliest token by the teacher's masked language model, where its checkpoint has one",
        factory=lazy("sage_kit.builtin.decoders.mlm_head:MLMHeadDecoder"),
        options=MLMHeadOptions,
        has_guesses=True,
    )
    yield DecoderSpec(
        name="probe",
        summary="A classifier trained from the training text's token states back to its ids; works at any bypass",
        factory=lazy("sage_kit.builtin.decoders.probe:ProbeDecoder"),
        options=ProbeOptions,
        has_guesses=True,
    )
