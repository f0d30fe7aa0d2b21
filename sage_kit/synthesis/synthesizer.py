"""Synthesis: anchors -> coordinates -> vectors -> (filter) -> token states -> teacher labels.

`Synthesizer` builds the components and holds the map; each round it makes a `SyntheticSet`. Token states are not kept:
they are lifted from the anchors batch by batch, when the teacher labels them and again when the student trains on them,
which costs next to nothing and keeps memory flat. Where a lift makes text, its token ids are kept and embedded again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from sage_kit.components.records import Costs
from sage_kit.data.batches import plan_batches
from sage_kit.data.encoding import EncodedSplit
from sage_kit.errors import CompatibilityError
from sage_kit.models.split import InputLayers
from sage_kit.models.vectors import Pooled, TeacherOutputs, VectorStore
from sage_kit.models.vocabulary import TeacherVocabulary
from sage_kit.recipe import Recipe
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import derive_seed
from sage_kit.storage.frozen import frozen_copy, read_only
from sage_kit.storage.spool import Spool
from sage_kit.synthesis.answers import checked_array, checked_batch, checked_kept, checked_samples
from sage_kit.synthesis.hull import Hull
from sage_kit.synthesis.maps import fit_map, map_key
from sage_kit.synthesis.synthetic_set import FLAT, SyntheticSet
from sage_kit.system.transfer import Placing, to_device

BLOCK_ROWS = 8192
"""Vectors that are put aside at a time."""

OfExamples = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Gives numbers for the real examples at some indices."""


class Synthesizer:
    """Makes a round's synthetic examples.

    Parameters
    ----------
    recipe : Recipe
        Of a run that synthesises.
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
        Takes the time of "reduce", "sample", "invert", "filter", "lift", and "embed": the input layers on new text.
    encoded : EncodedSplit or None
        The real examples: their tokens, and, where these are classes or numbers, their labels for the components that
        ask for them.
    input_layers : InputLayers or None
        For lifts that make text; None where nothing is lifted.
    mapped : Pooled or None
        What the reducer maps; None for the pooled vectors of `store`.
    vocabulary : TeacherVocabulary or None
        What lifts may ask about tokens.

    Attributes
    ----------
    coordinates : array of shape (n, n_components), float32, or None
        The map of the real examples, once there is one.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: VectorStore,
        outputs: TeacherOutputs,
        cache: Cache,
        device: torch.device,
        announce: Callable[[str], None],
        costs: Costs,
        encoded: EncodedSplit | None = None,
        input_layers: InputLayers | None = None,
        mapped: Pooled | None = None,
        vocabulary: TeacherVocabulary | None = None,
    ) -> None:
        config = recipe.config
        self.recipe = recipe
        self.config = config
        self.store = store
        self.outputs = outputs
        self.costs = costs
        self.coordinates: NDArray[np.float32] | None = None
        self.encoded = encoded
        self._is_plain = encoded is None or not encoded.spec.is_structured
        labels = encoded.gold if encoded is not None and self._is_plain else None
        self._labels = None if labels is None else read_only(labels)
        self._text = tokens = None if encoded is None else encoded.tokens
        self._tokens = None if tokens is None else TokenIds(*(read_only(getattr(tokens, name)) for name in FLAT))
        self._input_layers = input_layers
        self._mapped = Pooled(store.pooled, store.key) if mapped is None else mapped
        self._vocabulary = vocabulary
        self._cache = cache
        self._device = device
        self._inverter: Any = None
        self._hull: Hull | None = None
        self._loss_history: NDArray[np.float32] | None = None
        self._wanted = 0
        self._context = BuildContext(
            config=config,
            seed=config.reducer_seed,
            device=str(device),
            n_components=config.n_components,
            announce=announce,
            cached=cache.arrays,
        )
        self._surplus = recipe.plugins.surplus(config.filter, recipe["filter"].options)

    @property
    def makes_text(self) -> bool:
        """Whether the synthetic examples are text."""
        return self.recipe.lift.makes_text and self._text is not None

    @property
    def scratch(self) -> Path:
        """Where what is too large for memory lies."""
        return self._cache.directory

    @property
    def needs_student(self) -> bool:
        """Whether the filter looks at the student's outputs on the synthetic examples."""
        return self.recipe.filter.needs_student

    @property
    def pad_id(self) -> int:
        """Id that fills padding."""
        return 0 if self._text is None else self._text.pad_id

    # built when they are first used: of several processes only one draws and filters

    @cached_property
    def sampler(self) -> Any:
        """The sampler."""
        return self.recipe["sampler"].build(self._context)

    @cached_property
    def filter(self) -> Any:
        """The filter."""
        return self.recipe["filter"].build(self._context)

    @cached_property
    def _lift(self) -> Any:
        return self.recipe["lift"].build(self._context)

    # ---- the map

    @property
    def labels(self) -> NDArray[Any] | None:
        """Gold labels of the real examples, where these are classes or numbers."""
        return self._labels

    @property
    def has_map(self) -> bool:
        """Whether the map is there, or in the cache."""
        if self.coordinates is not None:
            return True
        key = map_key(self._mapped, self.recipe["reducer"], self._context, self._labels)
        return self._cache.has("map", key)

    def fit_map(self, round: int) -> None:
        """Fit the reducer and the inverter, or find the map in the cache: once, or each round if `refit` says so."""
        config = self.config
        if not self.recipe.uses_map or (self.coordinates is not None and config.refit == "never"):
            return
        with self.costs.timed("reduce"):
            fitted = fit_map(
                self._mapped,
                self.recipe["reducer"],
                self._cache,
                replace(self._context, seed=config.reducer_seed + (0 if config.refit == "never" else round)),
                needs_reducer=self.recipe.needs_inverse,
                labels=self._labels,
            )
            self.coordinates = fitted.coordinates
            self._hull = Hull(fitted.coordinates)
        with self.costs.timed("invert"):
            inverter = self.recipe["inverter"]
            self._inverter = inverter.build(self._context)
            inverter.call(self._inverter.fit, self.coordinates, self.store.pooled, fitted.reducer)

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
        self._wanted, count = count, count * self._surplus
        pooled, sampler = read_only(self.store.pooled), self.recipe["sampler"]
        self._loss_history = read_only(losses[None] if loss_history is None else loss_history)
        request = SampleRequest(
            count=count,
            # a sampler may keep these from round to round, while the run goes on writing to its own
            losses=frozen_copy(losses),
            rng=np.random.default_rng(derive_seed(self.config.seed, round, "sample")),
            vectors=pooled,
            teacher_logits=read_only(self.outputs.of_examples(len(self.store))),
            student_logits=frozen_copy(student_logits),
            coordinates=None if self.coordinates is None else read_only(self.coordinates),
            round=round,
            divergence_gradient=divergence_gradient if self.recipe.sampler.needs_gradient else None,
            labels=self._labels,
            loss_history=self._loss_history,
            tokens=self._tokens,
            student_hidden=student_hidden if self.recipe.sampler.needs_hidden else None,
        )
        with self.costs.timed("sample"):
            drawn = sampler.call(self.sampler.sample, request)
            samples = checked_samples(self.recipe, drawn, count, len(self.store))
        anchors = np.asarray(samples.anchors, dtype=np.int64)
        vectors, outside = self._vectors(samples, anchors), self._outside(samples)
        synthetic = SyntheticSet(
            round, anchors, vectors, samples.coordinates, samples.neighbors, samples.shares, outside
        )
        if not self.recipe.filter.needs_labels:
            keep = self._keep(synthetic)
            if not keep.all():
                synthetic = synthetic.take(np.flatnonzero(keep))
        return synthetic

    def _vectors(self, samples: Samples, anchors: NDArray[np.int64]) -> NDArray[np.float32]:
        """The pooled vectors of the new points: the sampler's, those that the map leads to, or the anchors'."""
        shape = len(anchors), self.store.pooled.shape[1]
        if samples.vectors is not None:
            return self._put_aside(checked_array(self.recipe["sampler"], samples.vectors, shape))
        if not self.recipe.uses_map:
            return self._put_aside(self.store.pooled, anchors)
        with self.costs.timed("invert"):
            inverter = self.recipe["inverter"]
            found = inverter.call(self._inverter.invert, samples.coordinates, anchors)
            return self._put_aside(checked_array(inverter, found, shape))

    def _put_aside(self, vectors: NDArray[Any], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Vectors, or some rows of them, in float32 and, where they are many, in a file that is mapped."""
        spool = Spool(np.float32, self.scratch, vectors.shape[1:])
        count = len(vectors) if rows is None else len(rows)
        for start in range(0, count, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            spool.append(vectors[block] if rows is None else vectors[rows[block]])
        return spool.finish()

    def _outside(self, samples: Samples) -> float:
        """Share of the new points outside the hull of the map."""
        if self._hull is None or samples.coordinates is None:
            return float("nan")
        return self._hull.outside_share(np.asarray(samples.coordinates, dtype=np.float32))

    def filter_labelled(self, synthetic: SyntheticSet) -> None:
        """Let a filter that needs the teacher's labels drop examples, once they are there."""
        if self.recipe.filter.needs_labels and synthetic.logits is not None:
            synthetic.kept = self._keep(synthetic)

    def _keep(self, synthetic: SyntheticSet) -> NDArray[np.bool_]:
        logits, student, divergences = synthetic.logits, synthetic.student_logits, synthetic.divergences
        with self.costs.timed("filter"):
            request = FilterRequest(
                vectors=read_only(synthetic.vectors),
                anchors=read_only(synthetic.anchors),
                coordinates=None if synthetic.coordinates is None else read_only(synthetic.coordinates),
                real_vectors=read_only(self.store.pooled),
                real_logits=read_only(self.outputs.of_examples(len(self.store))),
                logits=None if logits is None else read_only(logits),
                real_labels=self._labels,
                loss_history=self._loss_history,
                tokens=self._tokens,
                round=synthetic.round,
                wanted=self._wanted,
                student_logits=None if student is None else read_only(student),
                divergences=None if divergences is None else read_only(divergences),
                of_classes=self.encoded is None or self.encoded.spec.has_classes,
            )
            choice = self.recipe["filter"]
            return checked_kept(choice, choice.call(self.filter.keep, request), len(synthetic.anchors))

    # ---- token states

    def lift(self, synthetic: SyntheticSet, rows: NDArray[np.int64], number: int) -> TokenBatch:
        """Token states of some rows of a set; `number` is the batch's, which seeds the lift's randomness."""
        if synthetic.tokens is not None and self._input_layers is not None:
            return self.gather(synthetic, rows, number)()
        asked = 0 if self._vocabulary is None else self._vocabulary.flops
        with self.costs.timed("lift"):
            anchors = synthetic.anchors[rows]
            vectors = to_device(torch.from_numpy(synthetic.vectors[rows]), self._device)
            pooled = to_device(torch.from_numpy(self.store.pooled[anchors]), self._device)
            seed = derive_seed(self.config.seed, synthetic.round, "lift", number)
            request = LiftRequest(
                anchor=self.store.batch(anchors, self._device),
                vectors=vectors,
                displacement=vectors - pooled,
                anchors=anchors,
                neighbors=None if synthetic.neighbors is None else synthetic.neighbors[rows],
                states=lambda indices: self.store.batch(indices, self._device),
                generator=torch.Generator().manual_seed(seed),
                n_real=len(self.store),
                shares=None if synthetic.shares is None else synthetic.shares[rows],
                **self._text_of(anchors),
            )
            choice, dim = self.recipe["lift"], self.store.pooled.shape[1]
            masks = [one.mask for one in (request.anchor, request.text) if one is not None]
            versions = [mask._version for mask in masks]
            batch = choice.call(self._lift.lift, request)
            checked = checked_batch(choice, batch, len(rows), dim, is_text=self.makes_text)
            # of a lift that hands on a mask that it was given, the device need not be asked
            is_known = any(
                checked.mask is mask and mask._version == version for mask, version in zip(masks, versions, strict=True)
            )
            checked = replace(checked, lengths=request.anchor.lengths if is_known else None)
            if self.outputs.per_token and not torch.equal(checked.mask, request.anchor.mask):
                raise CompatibilityError(
                    f"{choice} returned other tokens than the anchors have, and task {self.config.task!r} has an "
                    "output per token: take a lift that exchanges tokens one for one, such as 'replace_random'"
                )
        if self._vocabulary is not None:
            self.costs.add("lift", flops=self._vocabulary.flops - asked)
        return checked

    def states_by(self, input_layers: InputLayers, batch: TokenBatch) -> torch.Tensor:
        """What the input layers of another model, which reads the same tokens, make of lifted text."""
        if batch.text is None:
            raise ValueError("the lift makes no text, which is all that another model can read")
        return self._embed(batch.text, batch.text.mask.sum(1).cpu().numpy(), input_layers).states

    def read(self, synthetic: SyntheticSet, rows: NDArray[np.int64], input_layers: InputLayers) -> TokenBatch:
        """Some rows of a labelled set of text by the input layers of another model, which reads the same tokens."""
        return self._gather_text(synthetic, rows, input_layers)()

    def gather(
        self, synthetic: SyntheticSet, rows: NDArray[np.int64], number: int, own_input: InputLayers | None = None
    ) -> Placing[TokenBatch]:
        """What `lift`, or with the input layers of another model `read`, does in two steps.

        Text is gathered on the host, and the second step embeds it; of what is no text all is done there.
        """
        if own_input is not None:
            return self._gather_text(synthetic, rows, own_input)
        if synthetic.tokens is not None and self._input_layers is not None:
            return self._gather_text(synthetic, rows, self._input_layers)
        return lambda: self.lift(synthetic, rows, number)

    def _gather_text(
        self, synthetic: SyntheticSet, rows: NDArray[np.int64], input_layers: InputLayers
    ) -> Placing[TokenBatch]:
        if synthetic.tokens is None:
            raise ValueError("the set holds no text")
        text, lengths = synthetic.tokens.gather(rows, self._device), synthetic.tokens.lengths[rows]
        return lambda: self._embed(text(), lengths, input_layers)

    def _text_of(self, anchors: NDArray[np.int64]) -> dict[str, Any]:
        """What a lift gets that makes text; nothing where the examples are vectors."""
        input_layers = self._input_layers
        if input_layers is None or self._text is None or self.config.granularity == "pooled":
            return {}
        return {
            "text": self._text.batch(anchors, self._device),
            "embed": lambda text: self._embed(text, self.store.lengths[anchors]),
            "embed_alone": input_layers.alone,
            "tokens": self._tokens,
            "teacher_logits": read_only(self.outputs.logits) if self._is_plain else None,
            "vocabulary": self._vocabulary,
        }

    def _embed(
        self, text: TextBatch, lengths: NDArray[np.int64], input_layers: InputLayers | None = None
    ) -> TokenBatch:
        """The input layers' token states of a text; `lengths`, its tokens, are known without asking the device."""
        input_layers = input_layers or self._input_layers
        if input_layers is None:
            raise ValueError("there are no input layers to run")
        with self.costs.timed("embed"), torch.no_grad():
            # some models count positions by the padding's id
            ids = text.ids.masked_fill(~text.mask, self.pad_id)
            states = input_layers(ids, text.types, text.mask)
        self.costs.add("embed", flops=input_layers.flops(lengths))
        return TokenBatch(states, text.mask, text, lengths)

    # ---- batches

    def plan(self, synthetic: SyntheticSet) -> list[NDArray[np.int64]]:
        """Batches of a set's rows, by the anchors' lengths; the same at every call, so that labels and lifts match."""
        return plan_batches(
            self.store.lengths[synthetic.anchors],
            batch_size=self.config.batch_size,
            batch_tokens=self.config.batch_tokens,
            rng=np.random.default_rng(derive_seed(self.config.seed, synthetic.round, "plan")),
        )

    def without_dropped(self, synthetic: SyntheticSet) -> SyntheticSet:
        """A labelled set of text without what the filter dropped, so that its batches are full; others as they are.

        What a lift that makes no text draws goes by its batch, which must stay what it was.
        """
        if synthetic.tokens is None or synthetic.kept.all():
            return synthetic
        kept = np.flatnonzero(synthetic.kept)
        taken = synthetic.take(kept)
        for name in ("hidden", "token_logits"):
            if getattr(synthetic, name):
                setattr(taken, name, self._planned_anew(getattr(synthetic, name), synthetic, taken, kept))
        return taken

    def _planned_anew(
        self, batches: list[torch.Tensor], old: SyntheticSet, new: SyntheticSet, kept: NDArray[np.int64]
    ) -> list[torch.Tensor]:
        """What each batch of a set has per token, in the batches of the set that keeps some of its examples."""
        assert new.tokens is not None
        lengths = new.tokens.lengths
        of_row = {
            int(row): batch[place]
            for rows, batch in zip(self.plan(old), batches, strict=True)
            for place, row in enumerate(rows)
        }
        own = [of_row[int(row)] for row in kept]
        return [
            torch.nn.utils.rnn.pad_sequence([own[row][: lengths[row]] for row in rows], batch_first=True)
            for rows in self.plan(new)
        ]


def build_ahead(recipe: Recipe, device: torch.device) -> None:
    """Build the components that the rounds will use once, so that one that cannot be built ends the run at its start.

    The reducer is left out: its library may take seconds to import, and a map in the cache may do without.

    Raises
    ------
    SageError
        What building them raises.
    """
    config = recipe.config
    context = BuildContext(config=config, device=str(device), n_components=config.n_components)
    for kind in recipe:
        if kind != "reducer":
            recipe[kind].build(context)
