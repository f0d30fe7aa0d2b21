"""What the core hands to components and gets back: requests, batches of tokens, and the context of a build.

This module is light: numpy and torch appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sage_kit.components.loss_messages import ModelSizes
    from sage_kit.components.protocols import Vocabulary
    from sage_kit.config import RunConfig

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]


@dataclass(frozen=True)
class BuildContext:
    """What a factory may know about the run it builds for.

    Attributes
    ----------
    config : RunConfig
        The run's settings, read-only.
    seed : int
        The seed this component must draw all its randomness from.
    device : str
        Torch device of the run, for components that compute in torch ("cpu", "cuda:0").
    n_components : int
        Dimensions of the map (reducers).
    announce : callable
        Shows one line of text to the user.
    component : callable
        ``component(kind, name, options, **changes)`` builds another component in the same context, e.g. an inverter's
        base; `changes` replaces fields of the context, e.g. ``n_components=50`` for the first step of a chain.
    cached : callable
        ``cached(name, parts, compute)`` returns what ``compute()`` gives, a dictionary of arrays: from the cache, if
        the same component computed it before for the same `parts` (text, numbers, arrays). Options, seed, version and
        source of the component count by themselves. Where a run has no cache, it computes.
    sizes : ModelSizes or None
        Blocks, widths and heads of teacher and student (losses).
    """

    config: RunConfig
    seed: int = 0
    device: str = "cpu"
    n_components: int = 2
    announce: Callable[[str], None] = lambda text: None
    component: Callable[..., Any] = lambda kind, name, options, **changes: None
    cached: Callable[[str, Sequence[Any], Callable[[], Mapping[str, NDArray[Any]]]], dict[str, NDArray[Any]]] = (
        lambda name, parts, compute: dict(compute())
    )
    sizes: ModelSizes | None = None


@dataclass(frozen=True)
class Control:
    """What an implementation of `sage_control` wants of a run.

    Attributes
    ----------
    stop : str
        Why to stop now, in one line; "" to go on.
    evaluate : bool
        Score the student on dev now; `sage_evaluated` is told the scores.
    save : bool
        Keep a checkpoint for good, whatever `keep_checkpoints` says: that of the round that is under way, written at
        its end, or before a round that of the one before it. A resume goes on from the ends of rounds, to the same
        bits, so none is written between steps.
    """

    stop: str = ""
    evaluate: bool = False
    save: bool = False

    def __or__(self, other: Control) -> Control:
        """Both answers in one; of two reasons to stop, the first."""
        return Control(self.stop or other.stop, self.evaluate or other.evaluate, self.save or other.save)

    def problem(self) -> str:
        """What is wrong with its fields, or ""."""
        if not isinstance(self.stop, str) or len(self.stop.splitlines()) > 1:
            return f"stop is {self.stop!r}, not a line of text"
        for name in ("evaluate", "save"):
            if not isinstance(getattr(self, name), bool):
                return f"{name} is {getattr(self, name)!r}, not True or False"
        return ""


@dataclass(frozen=True)
class TokenBatch:
    """Token states of some examples, padded to the longest.

    Attributes
    ----------
    states : Tensor of shape (batch, tokens, dim)
        Input-layer output; padding positions are zero.
    mask : Tensor of shape (batch, tokens), bool
        True at real tokens.
    text : TextBatch or None
        The text that these are the token states of, where they are those of text.
    lengths : array of shape (batch,), int64, or None
        What the mask says, where the host knows it without asking the device. The run sets it; what a lift sets is not
        looked at.
    """

    states: torch.Tensor
    mask: torch.Tensor
    text: TextBatch | None = None
    lengths: Integers | None = None


@dataclass(frozen=True)
class TextBatch:
    """Some texts, or pairs of texts, as token ids, padded to the longest. All of shape (batch, tokens).

    Attributes
    ----------
    ids : Tensor, int64
        Token ids; the padding's at padding positions.
    types : Tensor, int64
        Token type ids, all 0 where the tokenizer has none.
    mask : Tensor, bool
        True at real tokens.
    special : Tensor, bool
        True at the tokens that the tokenizer adds around and between texts.
    second : Tensor, bool
        True at the tokens of the second text of a pair.
    """

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    special: torch.Tensor
    second: torch.Tensor

    @property
    def words(self) -> torch.Tensor:
        """True at the tokens of the texts themselves: real ones that are not special."""
        return self.mask & ~self.special


@dataclass(frozen=True)
class TokenIds:
    """Text as the teacher reads it: token ids, flat, one example after the other.

    Attributes
    ----------
    ids : array of shape (total_tokens,), int32
    types : array of shape (total_tokens,), uint8
        Token type ids, all 0 where the tokenizer has none.
    offsets : array of shape (n + 1,), int64
        Example i has the rows ``offsets[i]`` to ``offsets[i + 1]``.
    special : array of shape (total_tokens,), bool
        True at the tokens that the tokenizer adds around and between texts.
    second : array of shape (total_tokens,), bool
        True at the tokens of the second text of a pair.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    offsets: Integers
    special: NDArray[np.bool_]
    second: NDArray[np.bool_]


@dataclass(frozen=True)
class SampleRequest:
    """What a sampler chooses from. Arrays are read-only and aligned with the real examples.

    Attributes
    ----------
    count : int
        How many synthetic examples to return.
    losses : array of shape (n,), float32
        Per-instance student-teacher loss of the latest pass; NaN before the first, where the spec says `needs_losses`
        is false.
    rng : numpy Generator
        Source of all randomness; a fresh one, derived from the seed and the round, at every call.
    coordinates : array of shape (n, n_components), float32, or None
        The map; None for samplers whose space is "full", and where nothing else needs a map (`anchors_alone`).
    vectors : array of shape (n, dim), float32
        Pooled vectors.
    teacher_logits, student_logits : array of shape (n, n_outputs), float32
        Outputs on the real examples; the student's are of the same pass as the losses.
    round : int
        Number of the round that will train on the result, from 1.
    divergence_gradient : callable or None
        ``divergence_gradient(indices)`` gives, of shape (m, dim), float32, the gradient of each example's divergence of
        student from teacher by a rigid shift of its token states; None unless the spec says `needs_gradient`.
    labels : array of shape (n,), int64 or float32, or None
        Gold labels: class indices, or numbers for regression.
    loss_history : array of shape (rounds, n), float32, or None
        The losses of every round so far, the latest last, which is `losses`; NaN for an example not seen by then.
    tokens : TokenIds or None
        Token ids of the real examples.
    student_hidden : callable or None
        ``student_hidden(indices)`` gives, of shape (m, student_layers, width), float32, the mean over an example's
        tokens of what each block of the student puts out, dropout off; None unless the spec says `needs_hidden`. The
        width is the student's own, which `student_width` may make less than that of the vectors.
    """

    count: int
    losses: Floats
    rng: np.random.Generator
    vectors: Floats
    teacher_logits: Floats
    student_logits: Floats
    coordinates: Floats | None = None
    round: int = 1
    divergence_gradient: Callable[[Integers], Floats] | None = None
    labels: NDArray[Any] | None = None
    loss_history: Floats | None = None
    tokens: TokenIds | None = None
    student_hidden: Callable[[Integers], Floats] | None = None


@dataclass(frozen=True)
class Samples:
    """What a sampler returns: `count` anchors, and for each a new point.

    Attributes
    ----------
    anchors : array of shape (count,), int64
        Real examples that synthesis starts from.
    coordinates : array of shape (count, n_components), float32, or None
        New points of the map, from samplers whose space is "map" where there is one.
    vectors : array of shape (count, dim), float32, or None
        New pooled vectors, from samplers whose space is "full".
    neighbors : array of shape (count, k), int64, or None
        The real examples each new point was drawn between, when the sampler has such.
    shares : array of shape (count,), float32, or None
        How far each new point lies on the way from its anchor, 0, to its partner ``neighbors[:, 0]``, 1.
    """

    anchors: Integers
    coordinates: Floats | None = None
    vectors: Floats | None = None
    neighbors: Integers | None = None
    shares: Floats | None = None


@dataclass(frozen=True)
class LiftRequest:
    """What a lift turns into token states. All tensors are on the run's device.

    Attributes
    ----------
    anchor : TokenBatch
        The anchors' token states, one row per synthetic example; not to be changed in place.
    vectors : Tensor of shape (batch, dim)
        The synthetic pooled vectors; where no map was needed, the anchors' own.
    displacement : Tensor of shape (batch, dim)
        Synthetic minus anchor's pooled vector.
    anchors : array of shape (batch,), int64
        The anchors' indices among the real examples.
    neighbors : array of shape (batch, k), int64, or None
        As the sampler returned them.
    states : callable
        ``states(indices)`` gives the token states of any real examples as a TokenBatch.
    generator : torch Generator
        Source of all randomness, on the CPU, seeded for this batch: the same batch lifted twice must come out the same.
    n_real : int
        How many real examples there are.
    shares : array of shape (batch,), float32, or None
        As the sampler returned them; an array for lifts whose spec says `needs_shares`.
    text : TextBatch or None
        The anchors' text; None with ``granularity="pooled"``, whose examples are one vector each.
    embed : callable or None
        ``embed(text)`` runs the input layers on a TextBatch and returns its TokenBatch: each token gets the position
        and the type of its place, and behind encoder blocks its context. What stands at padding does not count.
    embed_alone : callable or None
        ``embed_alone(ids, types, places)`` gives, of shape (batch, m, dim), what the embeddings alone make of tokens at
        some places of their texts, without any block: what `embed` gives there at ``bypass="embeddings"``. All three
        are int64, of shape (batch, m); places count from 0.
    tokens : TokenIds or None
        Token ids of the real examples, read-only.
    teacher_logits : array of shape (n, n_outputs), float32, or None
        The teacher's outputs on the real examples, read-only.
    vocabulary : Vocabulary or None
        Tokens that are alike, and proposals of a language model.
    """

    anchor: TokenBatch
    vectors: torch.Tensor
    displacement: torch.Tensor
    anchors: Integers
    neighbors: Integers | None
    states: Callable[[Integers], TokenBatch]
    generator: torch.Generator
    n_real: int
    shares: Floats | None = None
    text: TextBatch | None = None
    embed: Callable[[TextBatch], TokenBatch] | None = None
    embed_alone: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    tokens: TokenIds | None = None
    teacher_logits: Floats | None = None
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True)
class FilterRequest:
    """What a filter judges. Arrays are read-only.

    Attributes
    ----------
    vectors : array of shape (m, dim), float32
        Synthetic pooled vectors.
    anchors : array of shape (m,), int64
        Their anchors.
    coordinates : array of shape (m, n_components), float32, or None
        Their place in the map.
    real_vectors : array of shape (n, dim), float32
        Pooled vectors of the real examples.
    real_logits : array of shape (n, n_outputs), float32
        The teacher's logits of the real examples; (n, 0) where there is an output per token.
    logits : array of shape (m, n_outputs), float32, or None
        The teacher's logits of the synthetic examples; None unless the spec says `needs_labels`.
    real_labels : array of shape (n,), int64 or float32, or None
        Gold labels of the real examples: class indices, or numbers for regression.
    loss_history : array of shape (rounds, n), float32, or None
        Losses of the real examples in every round so far, the latest last; NaN for an example not seen by then.
    tokens : TokenIds or None
        Token ids of the real examples.
    round : int
        Number of the round that will train on what is kept, from 1.
    wanted : int
        How many examples the settings ask for; there are `surplus` times as many.
    student_logits : array of shape (m, n_outputs), float32, or None
        The student's outputs on the synthetic examples, dropout off; None unless the spec says `needs_student`.
    divergences : array of shape (m,), float64, or None
        How far these are from the teacher's; for every kind of task, while outputs of one token each are not given.
    of_classes : bool
        Whether `logits` are those of one class an example.
    """

    vectors: Floats
    anchors: Integers
    coordinates: Floats | None
    real_vectors: Floats
    real_logits: Floats
    logits: Floats | None = None
    real_labels: NDArray[Any] | None = None
    loss_history: Floats | None = None
    tokens: TokenIds | None = None
    round: int = 1
    wanted: int = 0
    student_logits: Floats | None = None
    divergences: NDArray[np.float64] | None = None
    of_classes: bool = True


@dataclass(frozen=True)
class TokenText(TokenIds):
    """Token ids of real text and their input-layer output.

    Attributes
    ----------
    ids, types, offsets
        As in :class:`TokenIds`.
    states : array of shape (total_tokens, dim), float32 or float16
        Token states; may be a memory map.
    """

    states: NDArray[Any]


@dataclass(frozen=True)
class TeacherView:
    """What a decoder may use of the teacher. Modules are frozen and in evaluation mode.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    input_layers : callable
        ``input_layers(input_ids, token_type_ids, mask)``, each of shape (batch, tokens), gives token states of shape
        (batch, tokens, dim).
    masked_lm : callable
        ``masked_lm()`` loads the teacher's checkpoint with its masked-language-model head and returns a function of
        ``(states, mask)`` that gives logits of shape (batch, tokens, vocabulary). It raises CompatibilityError when the
        checkpoint has no such head.
    bypass : "embeddings" or int
        Where the input layers end.
    n_types : int
        Token types that the input layers know, at least 1.
    fingerprint : str
        Of the teacher's weights and the bypass.
    device : str
        Torch device of the modules.
    train, held_out : TokenText
        Real text: to learn from, and to be scored on.
    """

    tokenizer: Any
    input_layers: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    masked_lm: Callable[[], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
    bypass: str | int
    n_types: int
    fingerprint: str
    device: str
    train: TokenText
    held_out: TokenText


@dataclass(frozen=True)
class Guesses:
    """The likeliest tokens at each position of a batch.

    Attributes
    ----------
    ids : array of shape (batch, tokens, k), int64
        Token ids, the best first; what stands at padding positions is arbitrary.
    scores : array of shape (batch, tokens, k), float32
        Their scores, in the decoder's unit, falling along the last axis.
    """

    ids: Integers
    scores: Floats

    @property
    def margin(self) -> Floats:
        """Score of the best less that of the second best, of shape (batch, tokens); needs k of at least 2."""
        return self.scores[..., 0] - self.scores[..., 1]
