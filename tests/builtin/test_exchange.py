"""Lifts `replace` and `replace_random`: tokens exchanged in text, embedded as any other text."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sage_kit.builtin.lifts import ReplaceOptions, ReplaceRandomOptions
from sage_kit.builtin.lifts.token_sources import Examples, candidates_of, draw_examples
from sage_kit.components import LiftRequest, TextBatch, TokenBatch, TokenIds, Vocabulary
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError

CLS, SEP, PAD, FIRST = 1, 2, 0, 10
DIM = 6
VOCABULARY = 60
TABLE = torch.from_numpy(np.random.default_rng(0).standard_normal((VOCABULARY, DIM)))
PLACES = torch.from_numpy(np.random.default_rng(1).standard_normal((64, DIM)))


def text_of(rows: list[tuple[list[int], list[int] | None]]) -> TextBatch:
    """Texts, or pairs of texts, as a batch."""
    parts = []
    for first, second in rows:
        ids = [CLS, *first, SEP] + ([] if second is None else [*second, SEP])
        kinds = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
        special = [token in (CLS, SEP) for token in ids]
        is_second = [kind == 1 and not mark for kind, mark in zip(kinds, special, strict=True)]
        parts.append((ids, kinds, [True] * len(ids), special, is_second))
    columns = zip(*parts, strict=True)
    types = (torch.int64, torch.int64, torch.bool, torch.bool, torch.bool)
    return TextBatch(
        *(
            torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=kind) for row in column], batch_first=True)
            for column, kind in zip(columns, types, strict=True)
        )
    )


def flat(batch: TextBatch) -> TokenIds:
    lengths = batch.mask.sum(1).numpy()
    names = (("ids", np.int32), ("types", np.uint8))
    ids, types = (getattr(batch, name)[batch.mask].numpy().astype(kind) for name, kind in names)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenIds(ids, types, offsets, batch.special[batch.mask].numpy(), batch.second[batch.mask].numpy())


def embed_alone(ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return TABLE[ids] + PLACES[places] + types.unsqueeze(-1)


def embed(batch: TextBatch) -> TokenBatch:
    states = embed_alone(batch.ids, batch.types, torch.arange(batch.ids.shape[1])) * batch.mask.unsqueeze(-1)
    return TokenBatch(states, batch.mask, batch)


class Table(Vocabulary):
    """Answers that can be foretold: tokens behind each in the vocabulary."""

    def nearest(self, ids: torch.Tensor, k: int) -> torch.Tensor:
        return FIRST + (ids.unsqueeze(-1) - FIRST + 1 + torch.arange(k)) % (VOCABULARY - FIRST)

    def between(self, first: torch.Tensor, second: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return torch.where(shares < 0.5, FIRST + (first - FIRST + 1) % (VOCABULARY - FIRST), second)

    def likely(self, text: TextBatch, places: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked = places
        ids = self.nearest(text.ids[places], k)
        # the first is all but certain
        weights = torch.full(ids.shape, -50.0)
        weights[..., 0] = 0
        return ids, weights


def examples_of_pairs(n: int = 40, seed: int = 3) -> TextBatch:
    """Pairs whose texts share tokens, of 2 to 9 tokens each."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[list[int], list[int] | None]] = []
    for _ in range(n):
        first = rng.integers(FIRST, VOCABULARY, rng.integers(2, 10)).tolist()
        second = [*first[: len(first) // 2], *rng.integers(FIRST, VOCABULARY, rng.integers(1, 5)).tolist()]
        rows.append((first, second))
    return text_of(rows)


REAL = examples_of_pairs()
TOKENS = flat(REAL)


def request(
    anchors: Any, *, neighbors: Any = None, displacement: Any = None, seed: int = 0, **more: Any
) -> LiftRequest:
    anchors = np.asarray(anchors, np.int64)
    own = TextBatch(*(getattr(REAL, name)[anchors] for name in ("ids", "types", "mask", "special", "second")))
    moved = torch.zeros(len(anchors), DIM) if displacement is None else torch.as_tensor(displacement)
    given: dict[str, Any] = {
        "anchor": embed(own),
        "vectors": moved,
        "displacement": moved,
        "anchors": anchors,
        "neighbors": None if neighbors is None else np.asarray(neighbors, np.int64),
        "states": lambda indices: None,
        "generator": torch.Generator().manual_seed(seed),
        "n_real": len(REAL.ids),
        "text": own,
        "embed": embed,
        "embed_alone": embed_alone,
        "tokens": TOKENS,
        "teacher_logits": np.random.default_rng(5).standard_normal((len(REAL.ids), 2)).astype(np.float32),
        "vocabulary": Table(),
    }
    return LiftRequest(**{**given, **more})


ANY: dict[str, Any] = {"source": "any", "temperature": math.inf}


@functools.cache
def words_of(example: int) -> tuple[int, ...]:
    return tuple(REAL.ids[example][REAL.words[example]].tolist())


def lifted(build: Any, name: str, options: dict[str, Any], asked: LiftRequest) -> TextBatch:
    batch = build("lift", name, options).lift(asked)
    assert batch.text is not None
    return batch.text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("replace_random", {}),
        ("replace_random", {"consistent": True}),
        ("replace_random", {"span": 3}),
        ("replace", ANY),
        ("replace", ANY | {"source": "same_class"}),
        ("replace", ANY | {"source": "frequency"}),
        ("replace", ANY | {"source": "nearest"}),
        ("replace", ANY | {"source": "between"}),
        ("replace", ANY | {"source": "masked_lm"}),
        ("replace", {"source": "any", "temperature": 0.5}),
        ("replace", {"source": "any", "consistent": True}),
    ],
)
def test_the_new_text_is_embedded_like_any_other(build: Any, name: str, options: dict[str, Any]) -> None:
    asked = request(range(30), displacement=np.random.default_rng(2).standard_normal((30, DIM)))
    before = asked.text.ids.clone()
    batch = build("lift", name, options).lift(asked)
    new = batch.text
    assert torch.equal(asked.text.ids, before)
    # what stands at a place is that token at that place, with its type
    assert torch.equal(batch.states, embed(new).states)
    assert not torch.equal(new.ids, before)
    for field in ("types", "mask", "special", "second"):
        assert torch.equal(getattr(new, field), getattr(asked.text, field))
    kept = asked.text.special | ~asked.text.mask
    assert torch.equal(new.ids[kept], before[kept])
    assert ((new.ids >= FIRST) == asked.text.words).all()
    assert (new.ids != before).any(1).float().mean() > 0.9


def test_as_many_tokens_give_way_as_the_share_says(build: Any) -> None:
    # 40 tokens, all different
    row = text_of([(list(range(FIRST, FIRST + 40)), None)] * 64)
    for share, expected in ((0.3, 12), (0.01, 1), (1.0, 40), (0.49, 20)):
        asked = replace(request([0] * 64), text=row)
        new = lifted(build, "replace", ANY | {"source": "nearest", "candidates": 1, "share": share}, asked)
        assert ((new.ids != row.ids).sum(1) == expected).all()
    asked = replace(request([0] * 64), text=row)
    new = lifted(build, "replace", ANY | {"source": "nearest", "share": [0.1, 0.5]}, asked)
    changed = (new.ids != row.ids).sum(1)
    assert changed.min() >= 4
    assert changed.max() <= 20
    assert changed.float().std() > 3
    # everywhere alike: each of 40 places is expected 64 * 12 / 40 times
    places = (new.ids != row.ids).sum(0)[1:-1]
    assert places.min() > 5


@pytest.mark.parametrize("name", ["replace", "replace_random"])
def test_a_token_gives_way_to_the_same_one_wherever_it_stands(build: Any, name: str) -> None:
    options = {"consistent": True, "share": 0.5} | (ANY if name == "replace" else {})
    asked = request(list(range(40)) * 4)
    new = lifted(build, name, options, asked)
    together = 0
    for before, after, words in zip(asked.text.ids, new.ids, asked.text.words, strict=True):
        found: dict[int, set[int]] = {}
        for old, fresh in zip(before[words].tolist(), after[words].tolist(), strict=True):
            found.setdefault(old, set()).add(fresh)
        assert all(len(newcomers) == 1 for newcomers in found.values())
        counts = Counter(before[words].tolist())
        together += sum(counts[old] > 1 and newcomers != {old} for old, newcomers in found.items())
    assert together > 50
    # and of different tokens, half give way; some for themselves, by chance
    shares = [
        len(set(words_of(i)) - set(new.ids[i][REAL.words[i]].tolist())) / len(set(words_of(i))) for i in range(40)
    ]
    assert 0.3 < np.mean(shares) < 0.6


def test_a_span_stands_together_and_comes_from_one_text(build: Any) -> None:
    width = 3
    asked = request(list(range(40)) * 3)
    new = lifted(build, "replace_random", {"span": width, "share": 0.2, "examples": 1}, asked)
    texts = set()
    for example in range(40):
        for part in (REAL.second[example], REAL.words[example] & ~REAL.second[example]):
            ids = REAL.ids[example][part].tolist()
            texts |= {tuple(ids[i : i + size]) for size in (1, 2, 3) for i in range(len(ids))}
    runs = 0
    for before, after in zip(asked.text.ids, new.ids, strict=True):
        changed = (before != after).nonzero().flatten().tolist()
        if changed and changed[-1] - changed[0] < width:  # one span
            # its first tokens may be unchanged, by chance
            assert tuple(after[changed[0] : changed[-1] + 1].tolist()) in texts
            runs += 1
    assert runs > 20


def test_the_greedy_choice_moves_the_text_as_far_as_its_candidates_can(build: Any) -> None:
    """At temperature 0: the places of lowest score, and at each the best of its candidates, if it is better."""
    rng = np.random.default_rng(7)
    displacement = torch.from_numpy(rng.standard_normal((30, DIM)))
    asked = request(range(30), displacement=displacement)
    options = {"source": "nearest", "temperature": 0, "candidates": 6, "share": 0.4, "consistent": False}
    new = lifted(build, "replace", options, asked)
    kept = 0
    for row in range(30):
        old = asked.text.ids[row]
        places = asked.text.words[row].nonzero().flatten()

        def score(token: int, place: int, row: int = row) -> float:
            state = TABLE[token] + PLACES[place] + asked.text.types[row, place]
            return float(state @ displacement[row])

        scores = [score(int(old[place]), int(place)) for place in places]
        count = max(1, math.floor(0.4 * len(places) + 0.5))
        expected = old.clone()
        for index in np.argsort(scores)[:count]:
            place = int(places[index])
            tried = Table().nearest(old[place], 6).tolist()
            best = max(tried, key=lambda token: score(token, place))
            if score(best, place) > scores[index]:
                expected[place] = best
            else:
                kept += 1
        assert new.ids[row].tolist() == expected.tolist()
    assert kept > 0


def test_the_temperature_leads_from_the_greedy_choice_to_a_random_one(build: Any) -> None:
    displacement = torch.from_numpy(np.random.default_rng(8).standard_normal((40, DIM)))

    def gain(temperature: float, source: str = "any") -> float:
        asked = request(range(40), displacement=displacement, seed=4)
        options = {"source": source, "temperature": temperature, "candidates": 8}
        batch = build("lift", "replace", options).lift(asked)
        moved = (batch.states - asked.anchor.states).sum(1)
        return float((moved * displacement).sum(1).mean())

    greedy, warm, hot, chance = (gain(temperature) for temperature in (0, 0.3, 3, math.inf))
    assert greedy > warm > hot > chance
    assert abs(chance) < 0.2 * greedy


@pytest.mark.parametrize("source", ["neighbors", "any", "same_class", "frequency"])
def test_where_the_tokens_of_examples_come_from(source: str) -> None:
    neighbors = np.random.default_rng(6).integers(0, 40, (40, 7))
    asked = request(range(40), neighbors=neighbors)
    real = Examples(TOKENS)
    places = asked.text.words.to(torch.uint8).argmax(1, keepdim=True)
    found = candidates_of(source, asked, asked.text, real, places, asked.text.words, examples_each=2, count=300)
    assert found.valid.all()
    assert found.log_weights is None
    classes = asked.teacher_logits.argmax(1)
    for row in range(40):
        drawn = set(found.ids[row, 0].tolist())
        if source == "neighbors":
            assert drawn == set(words_of(neighbors[row, 0])) | set(words_of(neighbors[row, 1]))
        elif source == "same_class":
            alike = np.flatnonzero(classes == classes[row])
            assert drawn <= set().union(*(words_of(int(example)) for example in alike))
    if source == "frequency":
        counts = torch.bincount(found.ids.flatten(), minlength=VOCABULARY).numpy() / found.ids.numel()
        expected = np.bincount(TOKENS.ids[~TOKENS.special], minlength=VOCABULARY) / (~TOKENS.special).sum()
        assert np.abs(counts - expected).max() < 0.005
    if source == "any":
        assert len(set(found.ids.flatten().tolist())) > 45


def test_examples_of_the_same_class_are_drawn_alike_and_numbers_by_tenths() -> None:
    asked = request(range(40))
    drawn = draw_examples(asked, "same_class", 200)
    classes = asked.teacher_logits.argmax(1)
    assert (classes[drawn] == classes[:, None]).all()
    counts = np.bincount(drawn[classes == 0].ravel(), minlength=40)[classes == 0]
    assert counts.min() > 0.5 * counts.mean()
    values = np.random.default_rng(2).standard_normal((40, 1)).astype(np.float32)
    drawn = draw_examples(request(range(40), teacher_logits=values), "same_class", 200)
    order = np.argsort(np.argsort(values[:, 0]))
    assert (order[drawn] // 4 == (order // 4)[:, None]).all()


def test_the_language_models_probabilities_count(build: Any) -> None:
    asked = request(range(40))
    options = ANY | {"source": "masked_lm", "candidates": 5, "consistent": True}
    new = lifted(build, "replace", options, asked)
    changed = new.ids != asked.text.ids
    # the model sees nothing of what gives way
    assert torch.equal(asked.vocabulary.asked, changed)
    assert torch.equal(new.ids[changed], Table().nearest(asked.text.ids, 1).squeeze(-1)[changed])


@pytest.mark.parametrize(
    ("name", "options"), [("replace_random", {}), ("replace_random", {"span": 2}), ("replace", {"source": "any"})]
)
def test_the_same_generator_gives_the_same_text(build: Any, name: str, options: dict[str, Any]) -> None:
    displacement = np.random.default_rng(2).standard_normal((30, DIM))
    lift = build("lift", name, options)
    first, again, other = (
        lift.lift(request(range(30), displacement=displacement, seed=seed)).text.ids for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("options", [ANY, ANY | {"consistent": True}, ANY | {"span": 3}, {"source": "any"}])
def test_texts_without_words_and_sources_without_tokens(build: Any, options: dict[str, Any]) -> None:
    empty = text_of([([], None), ([FIRST], None)])
    asked = replace(request([0, 1]), text=empty)
    new = lifted(build, "replace", options, asked)
    assert torch.equal(new.special, empty.special)
    assert torch.equal(new.ids[empty.special], empty.ids[empty.special])
    nothing = text_of([([], None)] * 3)
    asked = replace(request([0, 1]), tokens=flat(nothing), n_real=3)
    assert torch.equal(lifted(build, "replace", options, asked).ids, asked.text.ids)


def test_auto_takes_neighbours_where_the_sampler_names_some(build: Any) -> None:
    for neighbors, source in ((np.full((30, 4), 7), "neighbors"), (None, "any")):
        ids = [
            lifted(
                build, "replace", {"source": one, "temperature": math.inf}, request(range(30), neighbors=neighbors)
            ).ids
            for one in ("auto", source)
        ]
        assert torch.equal(*ids)
    with pytest.raises(CompatibilityError, match="source='any'"):
        build("lift", "replace", {"source": "neighbors"}).lift(request([0, 1]))


@pytest.mark.parametrize("name", ["replace", "replace_random"])
def test_what_has_no_text_is_refused_in_one_line(build: Any, name: str) -> None:
    with pytest.raises(CompatibilityError, match="granularity='pooled'"):
        build("lift", name, config=RunConfig(granularity="pooled"))
    with pytest.raises(CompatibilityError, match="there is no text here") as caught:
        build("lift", name).lift(replace(request([0, 1]), text=None))
    assert "\n" not in str(caught.value)
    if name == "replace":
        for source in ("nearest", "between", "masked_lm"):
            with pytest.raises(CompatibilityError, match="vocabulary"):
                build("lift", name, {"source": source}).lift(request([0, 1], vocabulary=None))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"share": [0.5, 0.1]}, "lower share first"),
        ({"share": 0}, "greater than 0"),
        ({"share": [0.1, 1.1]}, "less than or equal to 1"),
        ({"span": 2, "consistent": True}, "choose one of them"),
        ({"positions": "carried", "consistent": True}, "positions='carried'"),
        ({"positions": "carried", "share": [0.1, 0.2]}, "positions='carried'"),
        ({"positions": "carried", "source": "nearest"}, "positions='carried'"),
        ({"span": 2, "temperature": 0.0}, "temperature to inf"),
        ({"span": 2, "source": "nearest", "temperature": math.inf}, "set source to"),
        ({"temperature": math.nan}, "greater than or equal to 0"),
        ({"temperature": -1}, "greater than or equal to 0"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        ReplaceOptions(**options)


def test_infinity_is_written_as_text_and_read_back() -> None:
    options = ReplaceOptions(temperature=math.inf)
    assert options.model_dump(mode="json")["temperature"] == "inf"
    assert ReplaceOptions(**options.model_dump(mode="json")) == options
    assert ReplaceRandomOptions(share=[0.1, 0.4]).share == (0.1, 0.4)


def test_replace_is_consistent_unless_something_else_is_asked_for(build: Any) -> None:
    asked = request([20, 3, 9, 31])
    usual, asked_for = (lifted(build, "replace", {"source": "any", **own}, asked) for own in ({}, {"consistent": True}))
    assert torch.equal(usual.ids, asked_for.ids)
    assert ReplaceOptions().consistent
    assert not ReplaceOptions(consistent=False).consistent
    for options in ({"positions": "carried"}, {"span": 3, "source": "any", "temperature": math.inf}):
        assert not ReplaceOptions(**options).consistent
    with pytest.raises(ValidationError, match="choose one of them"):
        ReplaceOptions(span=3, source="any", temperature=math.inf, consistent=True)
    assert not ReplaceRandomOptions().consistent
