"""Synthesis: anchors -> coordinates -> vectors -> (filter) -> token states -> teacher labels.

`Synthesizer` builds the components and holds the map; each round it makes a `SyntheticSet`. Token states are not kept:
they are lifted from the anchors batch by batch, when the teacher labels them and again when the student trains on them,
which costs next to nothing and keeps memory flat. Where a lift makes text, its token ids are kept and embedded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import (
    BuildContext,
    FilterRequest,
    LiftRequest,
    SampleRequest,
    Samples,
    TextBatch,
    TokenBatch,
    TokenIds,
)
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.batches import plan_batches
from sage_kit.data.tokens import Tokens, tokens_of
from sage_kit.errors import PluginError
from sage_kit.models.split import InputLayers, UpperLayers
from sage_kit.models.vectors import Pooled, TeacherOutputs, VectorStore
from sage_kit.models.vocabulary import TeacherVocabulary
from sage_kit.recipe import inverter_needs_inverse, needed_kinds
from sage_kit.storage.cache import Cache
from sage_kit.storage.files import atomic_directory, disk_errors
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.frozen import frozen_copy
from sage_kit.synthesis.hull import Hull
from sage_kit.synthesis.maps import fit_map

EMBED = "embed"
"""The activity under which the costs of running the input layers on synthetic text are counted."""

OfExamples = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Gives numbers for the real examples at some indices."""

PER_EXAMPLE = ("anchors", "vectors", "coordinates", "neighbors", "shares", "logits", "student_logits")
"""Arrays of a synthetic set that have a row per example, beside `kept`."""

FLAT = ("ids", "types", "offsets", "special", "second")
"""Arrays of its tokens."""

TOKENS = "tokens."
"""In front of their names on disk."""

CHECKED_AT_ONCE = 8192
"""Rows that are looked through for NaN at once: the answers of all would take a quarter of the array's memory."""


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits for one purpose: the same parts give the same seed, others an unrelated one."""
    return int(fingerprint("seed", *parts)[:16], 16) >> 1


@dataclass
class SyntheticSet:
    """A round's synthetic examples, before or after the teacher labels them.

    Attributes
    ----------
    round : int
        The round they were made for.
    anchors : array of shape (m,), int64
        Real examples that they start from.
    vectors : array of shape (m, dim), float32
        Synthetic pooled vectors; where no map was needed, those of the anchors.
    coordinates : array of shape (m, n_components), float32, or None
        Their place in the map.
    neighbors : array of shape (m, k), int64, or None
        The real examples that each was drawn between.
    shares : array of shape (m,), float32, or None
        How far each lies on the way from its anchor to its partner.
    outside_hull : float
        Share of the points, dropped ones included, outside the convex hull of the map; NaN without a map.
    dropped : int
        How many the filter dropped before labelling.
    kept : array of shape (m,), bool
        False for those that a filter dropped after labelling.
    logits : array of shape (m, n_outputs), float32, or None
        The teacher's labels.
    student_logits : array of shape (m, n_outputs), float32, or None
        The student's outputs before it trains on them, where the filter looks at these.
    tokens : Tokens or None
        The examples as text, once they are labelled; None where the lift makes none.
    hidden : list of Tensor
        Per batch of the plan, the teacher's hidden states in half precision; empty unless the loss needs them.
    """

    round: int
    anchors: NDArray[np.int64]
    vectors: NDArray[np.float32]
    coordinates: NDArray[np.float32] | None = None
    neighbors: NDArray[np.int64] | None = None
    shares: NDArray[np.float32] | None = None
    outside_hull: float = float("nan")
    dropped: int = 0
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    logits: NDArray[np.float32] | None = None
    student_logits: NDArray[np.float32] | None = None
    tokens: Tokens | None = None
    hidden: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.kept) != len(self.anchors):
            self.kept = np.ones(len(self.anchors), bool)

    def __len__(self) -> int:
        return int(self.kept.sum())

    def frozen(self) -> SyntheticSet:
        """A copy whose arrays never change, without the teacher's hidden states: what observers get."""
        arrays = {name: getattr(self, name) for name in (*PER_EXAMPLE, "kept")}
        copies: dict[str, Any] = {name: None if array is None else frozen_copy(array) for name, array in arrays.items()}
        if self.tokens is not None:
            own: dict[str, Any] = {name: frozen_copy(getattr(self.tokens, name)) for name in FLAT}
            copies["tokens"] = replace(self.tokens, **own)
        return replace(self, **copies, hidden=[])

    def take(self, rows: NDArray[np.int64]) -> SyntheticSet:
        """Some of the examples, in that order, without the teacher's hidden states; the others count as dropped."""
        arrays = {name: getattr(self, name) for name in PER_EXAMPLE}
        taken: dict[str, Any] = {name: None if array is None else array[rows] for name, array in arrays.items()}
        return replace(
            self,
            **taken,
            kept=self.kept[rows],
            tokens=None if self.tokens is None else self.tokens.take(rows),
            dropped=self.dropped + len(self.anchors) - len(rows),
            hidden=[],
        )

    def save(self, path: Path) -> None:
        """Write the arrays as safetensors.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {"kept": self.kept}
        for name in PER_EXAMPLE:
            if getattr(self, name) is not None:
                arrays[name] = np.ascontiguousarray(getattr(self, name))
        metadata = {name: str(getattr(self, name)) for name in ("round", "dropped", "outside_hull")}
        if self.tokens is not None:
            arrays |= {f"{TOKENS}{name}": getattr(self.tokens, name) for name in FLAT}
            metadata[f"{TOKENS}pad_id"] = str(self.tokens.pad_id)
        with disk_errors(str(path)), atomic_directory(path.parent) as temporary:
            save_file(arrays, temporary / path.name, metadata)

    @classmethod
    def load(cls, path: Path) -> SyntheticSet:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        flat = {name: arrays.pop(f"{TOKENS}{name}") for name in FLAT if f"{TOKENS}{name}" in arrays}
        return cls(
            round=int(metadata["round"]),
            dropped=int(metadata["dropped"]),
            outside_hull=float(metadata.get("outside_hull", "nan")),
            tokens=Tokens(**flat, pad_id=int(metadata[f"{TOKENS}pad_id"])) if flat else None,
            **arrays,
        )


class Synthesizer:
    """Makes a round's synthetic examples.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    store : VectorStore
        The real training examples.
    outputs : TeacherOutputs
        The teacher's outputs on them.
    cache : Cache
        Holds the map.
    device : torch.device
        Where token states are lifted.
    announce : callable
        Shows one line to the user.
    costs : Costs
        Takes the time of "reduce", "sample", "invert", "filter" and "lift".
    labels : array of shape (n,), int64 or float32, or None
        Gold labels of the real examples, for the components that ask for them.
    tokens : Tokens or None
        Their token ids.
    input_layers : InputLayers or None
        The input layers, for lifts that make text; None where nothing is lifted.
    mapped : Pooled or None
        What the reducer maps; None for the pooled vectors of `store`.
    vocabulary : TeacherVocabulary or None
        What lifts may ask about tokens.
    """

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        store: VectorStore,
        outputs: TeacherOutputs,
        cache: Cache,
        device: torch.device,
        announce: Callable[[str], None],
        costs: Costs,
        labels: NDArray[Any] | None = None,
        tokens: Tokens | None = None,
        input_layers: InputLayers | None = None,
        mapped: Pooled | None = None,
        vocabulary: TeacherVocabulary | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.outputs = outputs
        self.costs = costs
        self._labels = None if labels is None else read_only(labels)
        self._text = tokens
        self._tokens = None if tokens is None else TokenIds(*(read_only(getattr(tokens, name)) for name in FLAT))
        self._input_layers = input_layers
        self._mapped = Pooled(store.pooled, store.key) if mapped is None else mapped
        self._vocabulary = vocabulary
        self.coordinates: NDArray[np.float32] | None = None
        self._plugins = plugins
        self._cache = cache
        self._device = device
        self._announce = announce
        self._inverter: Any = None
        self._hull: Hull | None = None
        self._loss_history: NDArray[np.float32] | None = None
        self._wanted = 0
        kinds = needed_kinds(config, plugins)
        self._uses_map = "reducer" in kinds
        self._context = BuildContext(
            config=config,
            seed=config.reducer_seed,
            device=str(device),
            n_components=config.n_components,
            announce=announce,
            cached=cache.arrays,
        )
        self._filter_spec = plugins.filter(config.filter)
        self._lift_spec = plugins.lift(config.lift, config.lift_options)
        self._surplus = plugins.surplus(config.filter, plugins.options("filter", config.filter, config.filter_options))

    @property
    def makes_text(self) -> bool:
        """Whether the synthetic examples are text."""
        return self._lift_spec.makes_text and self._text is not None

    # built when they are first used: of several processes only one draws and filters

    @cached_property
    def sampler(self) -> Any:
        """The sampler."""
        return self._build("sampler")

    @cached_property
    def filter(self) -> Any:
        """The filter."""
        return self._build("filter")

    @cached_property
    def _lift(self) -> Any:
        return self._build("lift")

    def _build(self, kind: str) -> Any:
        name, options = self.config.component_choice(kind)
        return self._plugins.build(kind, name, options, self._context)

    # ---- the map

    def fit_map(self, round: int) -> None:
        """Fit the reducer and the inverter, or find the map in the cache: once, or each round if `refit` says so."""
        if not self._uses_map or (self.coordinates is not None and self.config.refit == "never"):
            return
        started = time.perf_counter()
        config = self.config
        seed = config.reducer_seed if config.refit == "never" else config.reducer_seed + round
        fitted = fit_map(
            self._mapped,
            self._plugins,
            self._cache,
            replace(self._context, seed=seed),
            needs_reducer=inverter_needs_inverse(config, self._plugins),
            labels=self._labels,
        )
        self.coordinates = fitted.coordinates
        self._hull = Hull(fitted.coordinates)
        self.costs.add("reduce", time.perf_counter() - started)

        started = time.perf_counter()
        self._inverter = self._build("inverter")
        self._call("inverter", self._inverter.fit, self.coordinates, self.store.pooled, fitted.reducer)
        self.costs.add("invert", time.perf_counter() - started)

    # ---- a round's examples

    def create(
        self,
        round: int,
        count: int,
        losses: NDArray[np.float32],
        student_logits: NDArray[np.float32],
        divergence_gradient: OfExamples | None = None,
        student_hidden: OfExamples | None = None,
        loss_history: NDArray[np.float32] | None = None,
    ) -> SyntheticSet:
        """Choose anchors and new points, invert them, and drop what the filter refuses.

        Parameters
        ----------
        round : int
            The round that will train on them.
        count : int
            How many are wanted; a filter that keeps the best of more gets more.
        losses : array of shape (n,), float32
            Per-instance losses of the real examples; NaN where they are not known.
        student_logits : array of shape (n, n_outputs), float32
            The student's outputs of the same pass.
        divergence_gradient, student_hidden : callable or None
            What samplers get that need it.
        loss_history : array of shape (rounds, n), float32, or None
            Losses of every round so far, the latest last; None takes `losses` alone.

        Returns
        -------
        SyntheticSet
            Without labels.

        Raises
        ------
        PluginError
            When a component returns something of the wrong shape or not finite.
        """
        self.fit_map(round)
        wanted, count = count, count * self._surplus
        pooled = read_only(self.store.pooled)
        spec = self._plugins.sampler(self.config.sampler)
        self._loss_history = read_only(losses[None] if loss_history is None else loss_history)
        request = SampleRequest(
            count=count,
            # a sampler may keep these from round to round, while the run goes on writing to its own
            losses=frozen_copy(losses),
            rng=np.random.default_rng(derive_seed(self.config.seed, round, "sample")),
            vectors=pooled,
            teacher_logits=read_only(self.outputs.logits),
            student_logits=frozen_copy(student_logits),
            coordinates=None if self.coordinates is None else read_only(self.coordinates),
            round=round,
            divergence_gradient=divergence_gradient if spec.needs_gradient else None,
            labels=self._labels,
            loss_history=self._loss_history,
            tokens=self._tokens,
            student_hidden=student_hidden if spec.needs_hidden else None,
        )
        started = time.perf_counter()
        samples = self._checked_samples(self._call("sampler", self.sampler.sample, request), count)
        self.costs.add("sample", time.perf_counter() - started)

        anchors = np.asarray(samples.anchors, dtype=np.int64)
        if samples.vectors is not None:
            vectors = self._checked("sampler", samples.vectors, (count, pooled.shape[1]))
        elif self._uses_map:
            started = time.perf_counter()
            found = self._call("inverter", self._inverter.invert, samples.coordinates, anchors)
            vectors = self._checked("inverter", found, (count, pooled.shape[1]))
            self.costs.add("invert", time.perf_counter() - started)
        else:
            vectors = pooled[anchors]
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)

        synthetic = SyntheticSet(
            round, anchors, vectors, samples.coordinates, samples.neighbors, samples.shares, self._outside(samples)
        )
        self._wanted = wanted
        if not self._filter_spec.needs_labels:
            keep = self._keep(synthetic)
            if not keep.all():
                synthetic = synthetic.take(np.flatnonzero(keep))
        return synthetic

    def _outside(self, samples: Samples) -> float:
        """Share of the new points outside the hull of the map."""
        if self._hull is None or samples.coordinates is None:
            return float("nan")
        return self._hull.outside_share(np.asarray(samples.coordinates, dtype=np.float32))

    def filter_labelled(self, synthetic: SyntheticSet) -> None:
        """Let a filter that needs the teacher's labels drop examples, once they are there."""
        if self._filter_spec.needs_labels and synthetic.logits is not None:
            synthetic.kept = self._keep(synthetic)

    @property
    def needs_student(self) -> bool:
        """Whether the filter looks at the student's outputs on the synthetic examples."""
        return self._filter_spec.needs_student

    def _keep(self, synthetic: SyntheticSet) -> NDArray[np.bool_]:
        logits, student = synthetic.logits, synthetic.student_logits
        started = time.perf_counter()
        request = FilterRequest(
            vectors=read_only(synthetic.vectors),
            anchors=read_only(synthetic.anchors),
            coordinates=None if synthetic.coordinates is None else read_only(synthetic.coordinates),
            real_vectors=read_only(self.store.pooled),
            real_logits=read_only(self.outputs.logits),
            logits=None if logits is None else read_only(logits),
            real_labels=self._labels,
            loss_history=self._loss_history,
            tokens=self._tokens,
            round=synthetic.round,
            wanted=self._wanted,
            student_logits=None if student is None else read_only(student),
        )
        keep: NDArray[np.bool_] = self._call("filter", np.asarray, self._call("filter", self.filter.keep, request))
        if keep.shape != (len(synthetic.anchors),) or keep.dtype != bool:
            raise PluginError(
                f"filter {self.config.filter!r} returned {keep.dtype} of shape {keep.shape} instead of bool of shape "
                f"{(len(synthetic.anchors),)}"
            )
        self.costs.add("filter", time.perf_counter() - started)
        return keep

    def lift(self, synthetic: SyntheticSet, rows: NDArray[np.int64], number: int) -> TokenBatch:
        """Token states of some rows of a set; `number` is the batch's, which seeds the lift's randomness."""
        if synthetic.tokens is not None and self._input_layers is not None:
            return self._embed(synthetic.tokens.batch(rows, self._device), synthetic.tokens.lengths[rows])
        started = time.perf_counter()
        anchors = synthetic.anchors[rows]
        vectors = torch.from_numpy(synthetic.vectors[rows]).to(self._device, non_blocking=True)
        pooled = torch.from_numpy(self.store.pooled[anchors]).to(self._device, non_blocking=True)
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, synthetic.round, "lift", number))
        request = LiftRequest(
            anchor=self.store.batch(anchors, self._device),
            vectors=vectors,
            displacement=vectors - pooled,
            anchors=anchors,
            neighbors=None if synthetic.neighbors is None else synthetic.neighbors[rows],
            states=lambda indices: self.store.batch(indices, self._device),
            generator=generator,
            n_real=len(self.store),
            shares=None if synthetic.shares is None else synthetic.shares[rows],
            **self._text_of(anchors),
        )
        embedded = self.costs.seconds.get(EMBED, 0.0)
        asked = 0 if self._vocabulary is None else self._vocabulary.flops
        batch: Any = self._call("lift", self._lift.lift, request)
        if not isinstance(batch, TokenBatch):
            raise PluginError(f"lift {self.config.lift!r} returned {type(batch).__name__} instead of a TokenBatch")
        dim = self.store.pooled.shape[1]
        if batch.states.ndim != 3 or batch.states.shape[0] != len(rows) or batch.states.shape[2] != dim:
            raise PluginError(
                f"lift {self.config.lift!r} returned token states of shape {tuple(batch.states.shape)} instead of "
                f"({len(rows)}, tokens, {dim})"
            )
        if batch.mask.shape != batch.states.shape[:2] or batch.mask.dtype != torch.bool:
            raise PluginError(
                f"lift {self.config.lift!r} returned a mask of {batch.mask.dtype} and shape {tuple(batch.mask.shape)} "
                f"instead of bool and {tuple(batch.states.shape[:2])}"
            )
        if self.makes_text and batch.text is None:
            raise PluginError(f"lift {self.config.lift!r} returned no text, though it says that it makes text")
        seconds = time.perf_counter() - started - (self.costs.seconds.get(EMBED, 0.0) - embedded)
        flops = 0 if self._vocabulary is None else self._vocabulary.flops - asked
        self.costs.add("lift", seconds, flops=flops)
        checked: TokenBatch = batch
        return checked

    def _text_of(self, anchors: NDArray[np.int64]) -> dict[str, Any]:
        """What a lift gets that makes text; nothing where the examples are vectors."""
        input_layers = self._input_layers
        if input_layers is None or self._text is None or self.config.granularity == "pooled":
            return {}
        return {
            "text": self._text.batch(anchors, self._device),
            "embed": lambda text: self._embed(text, self.store.lengths[anchors]),
            "embed_alone": lambda text: input_layers.alone(self._padded(text), text.types),
            "tokens": self._tokens,
            "teacher_logits": read_only(self.outputs.logits),
            "vocabulary": self._vocabulary,
        }

    def _embed(self, text: TextBatch, lengths: NDArray[np.int64]) -> TokenBatch:
        """The input layers' token states of a text; `lengths`, its tokens, are known without asking the device."""
        if self._input_layers is None:
            raise ValueError("there are no input layers to run")
        started = time.perf_counter()
        with torch.no_grad():
            states = self._input_layers(self._padded(text), text.types, text.mask)
        self.costs.add(EMBED, time.perf_counter() - started, flops=self._input_layers.flops(lengths))
        return TokenBatch(states, text.mask, text)

    @property
    def pad_id(self) -> int:
        """Id that fills padding."""
        return 0 if self._text is None else self._text.pad_id

    def _padded(self, text: TextBatch) -> torch.Tensor:
        """Ids with the padding's id at padding, by which some models count positions."""
        return text.ids.masked_fill(~text.mask, self.pad_id)

    def without_dropped(self, synthetic: SyntheticSet) -> SyntheticSet:
        """A labelled set of text without what the filter dropped, so that its batches are full; others as they are.

        What a lift that makes no text draws goes by its batch, which must stay what it was.
        """
        if synthetic.tokens is None or synthetic.kept.all():
            return synthetic
        taken = synthetic.take(np.flatnonzero(synthetic.kept))
        if synthetic.hidden:
            of_row = {
                int(row): batch[place]
                for rows, batch in zip(self.plan(synthetic), synthetic.hidden, strict=True)
                for place, row in enumerate(rows)
            }
            own = [of_row[int(row)] for row in np.flatnonzero(synthetic.kept)]
            lengths = taken.tokens.lengths if taken.tokens is not None else np.zeros(0, np.int64)
            taken.hidden = [
                torch.nn.utils.rnn.pad_sequence([own[row][: lengths[row]] for row in rows], batch_first=True)
                for rows in self.plan(taken)
            ]
        return taken

    def plan(self, synthetic: SyntheticSet) -> list[NDArray[np.int64]]:
        """Batches of a set's rows, by the anchors' lengths; the same at every call, so that labels and lifts match."""
        rng = np.random.default_rng(derive_seed(self.config.seed, synthetic.round, "plan"))
        return plan_batches(
            self.store.lengths[synthetic.anchors],
            batch_size=self.config.batch_size,
            batch_tokens=self.config.batch_tokens,
            rng=rng,
        )

    # ---- what components return

    def _call(self, kind: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a component; whatever it raises of its own is reported under its name."""
        return self._plugins.call(kind, self.config.component_choice(kind)[0], function, *arguments)

    def _checked_samples(self, samples: Any, count: int) -> Samples:
        """What a sampler returned, its fields as arrays of the right shapes."""
        name = f"sampler {self.config.sampler!r}"
        if not isinstance(samples, Samples):
            raise PluginError(f"{name} returned {type(samples).__name__} instead of Samples")
        anchors = self._call("sampler", np.asarray, samples.anchors)
        if anchors.shape != (count,) or anchors.dtype.kind not in "iu":
            raise PluginError(
                f"{name} returned anchors of {anchors.dtype} and shape {anchors.shape} instead of integers of shape "
                f"{(count,)}"
            )
        if len(anchors) and (anchors.min() < 0 or anchors.max() >= len(self.store)):
            raise PluginError(f"{name} returned an anchor outside 0 to {len(self.store) - 1}")
        if self._plugins.sampler(self.config.sampler).gives_shares and (
            samples.shares is None or samples.neighbors is None
        ):
            raise PluginError(f"{name} returned no shares or no neighbors, though it says that it gives them")
        if self._uses_map and samples.coordinates is None:
            raise PluginError(f"{name} returned no coordinates, though its space is 'map'")
        if self._plugins.sampler(self.config.sampler).space == "full" and samples.vectors is None:
            raise PluginError(f"{name} returned no vectors, though its space is 'full'")
        arrays: dict[str, NDArray[Any]] = {"anchors": anchors}
        if samples.shares is not None:
            arrays["shares"] = self._checked("sampler", samples.shares, (count,))
        if samples.neighbors is not None:
            arrays["neighbors"] = self._call("sampler", np.asarray, samples.neighbors)
        if self._uses_map:
            arrays["coordinates"] = self._checked("sampler", samples.coordinates, (count, self.config.n_components))
        return replace(samples, **arrays)

    def _checked(self, kind: str, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """What a component returned as an array of finite numbers of that shape."""
        name = self.config.component_choice(kind)[0]
        array: NDArray[Any] = self._call(kind, np.asarray, values)
        if array.shape != shape:
            raise PluginError(f"{kind} {name!r} returned an array of shape {array.shape} instead of {shape}")
        if array.dtype.kind not in "fiu":
            raise PluginError(f"{kind} {name!r} returned an array of {array.dtype} instead of float32")
        blocks = (array[start : start + CHECKED_AT_ONCE] for start in range(0, len(array), CHECKED_AT_ONCE))
        if not all(np.isfinite(block).all() for block in blocks):
            raise PluginError(f"{kind} {name!r} returned NaN or infinity")
        return array


def build_ahead(config: RunConfig, plugins: Plugins, device: torch.device) -> None:
    """Build the components that the rounds will use once, so that one that cannot be built ends the run at its start.

    The reducer is left out: its library may take seconds to import, and a map in the cache may do without.

    Raises
    ------
    SageError
        What building them raises.
    """
    context = BuildContext(config=config, device=str(device), n_components=config.n_components)
    for kind in needed_kinds(config, plugins):
        if kind != "reducer":
            name, options = config.component_choice(kind)
            plugins.build(kind, name, options, context)


def label_synthetic(
    synthesizer: Synthesizer,
    synthetic: SyntheticSet,
    teacher: UpperLayers,
    *,
    hidden_layers: Sequence[int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    on_step: Callable[[int, int], None],
    mine: Callable[[int], bool] = lambda number: True,
    student: UpperLayers | None = None,
) -> int:
    """Give a set the teacher's labels, and its text where it is text, batch by batch of its plan.

    Parameters
    ----------
    synthesizer : Synthesizer
    synthetic : SyntheticSet
        Gets its `logits`, `tokens` if it is text, `student_logits` if there is a student, and `hidden` if layers are
        asked for.
    teacher : UpperLayers
    hidden_layers : sequence of int
        Blocks (from 1) whose output the loss needs.
    device : torch.device
    autocast : callable
        Gives the context in which the teacher runs.
    on_step : callable
        Told the number of batches done and in all.
    mine : callable
        Whether this process labels the batch of that number.
    student : UpperLayers or None
        The student, where the filter asks what it makes of the examples.

    Returns
    -------
    int
        Tokens that were labelled.
    """
    plan = synthesizer.plan(synthetic)
    n_outputs = synthesizer.outputs.logits.shape[1]
    logits = torch.zeros(len(synthetic.anchors), n_outputs, device=device)
    of_student = torch.zeros_like(logits)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    synthetic.hidden = [torch.empty(0)] * len(plan) if hidden_layers else []
    texts: list[TextBatch] = []
    keeps_text = synthesizer.makes_text and synthetic.tokens is None
    if student is not None:
        student.eval()
    with torch.no_grad():
        for number, rows in enumerate(plan):
            if not mine(number) and not keeps_text:
                continue
            batch = synthesizer.lift(synthetic, rows, number)
            if keeps_text and batch.text is not None:
                texts.append(batch.text)
            if not mine(number):  # every process keeps the text of all
                continue
            index = torch.from_numpy(rows).to(device)
            with autocast():
                output = teacher(batch.states, batch.mask, hidden=bool(hidden_layers))
                if student is not None:
                    of_student[index] = student(batch.states, batch.mask).logits.float()
            logits[index] = output.logits.float()
            tokens += batch.mask.sum()
            if hidden_layers:
                chosen = torch.stack([output.hidden[layer - 1] for layer in hidden_layers], dim=2)
                synthetic.hidden[number] = chosen.to(torch.float16)
            on_step(number + 1, len(plan))
    synthetic.logits = logits.cpu().numpy()
    synthetic.student_logits = None if student is None else of_student.cpu().numpy()
    if texts:
        synthetic.tokens = tokens_of(texts, np.concatenate(plan), synthesizer.pad_id)
    return int(tokens)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that a component cannot write to."""
    view = array.view()
    view.flags.writeable = False
    return view
