from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from toyrun import toy_config, toy_run

from sage_kit.cli import main
from sage_kit.components import DecoderSpec, Guesses, TokenBatch
from sage_kit.components.loader import Origin
from sage_kit.components.plugins import Plugins, Registered
from sage_kit.components.records import Costs
from sage_kit.errors import CompatibilityError, PluginError, RunDirectoryError, UnknownComponentError
from sage_kit.recipe import resolve
from sage_kit.reports.decoding import DecodedExample, Decoding, decode_run
from sage_kit.reports.lifted_round import _lift, view_of
from sage_kit.reports.tables import decoding_table
from sage_kit.rundir import RunDirectory
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare

CHOICES = {"inverter": "knn", "synthetic_ratio": 0.3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_bert):
    """Finished runs by lift: one replaces tokens at random, one shifts them."""
    folder = tmp_path_factory.mktemp("decoding")
    return {
        "replace": toy_run(folder, tiny_bert, **CHOICES, lift="replace_random", rounds=3)[0],
        "shift": toy_run(folder, tiny_bert, **CHOICES, lift="shift", schedule="static", rounds=2)[0],
    }


@pytest.fixture
def plugins():
    return Plugins(allow="")


@pytest.fixture
def copy(runs, tmp_path):
    """A run directory to be spoilt."""
    shutil.copytree(runs["replace"].path, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


def prepared(directory, plugins):
    config = directory.config()
    return config, prepare(resolve(config, plugins), make_accelerator(config), Costs())


@pytest.mark.parametrize(("name", "round"), [("replace", 2), ("replace", 3), ("shift", 2)])
def test_rows_are_lifted_as_in_training(runs, plugins, name, round):
    directory = runs[name]
    config, parts = prepared(directory, plugins)
    synthetic = SyntheticSet.load(directory.synthetic(round))
    rows = np.array([0, 7, 50, 80])
    batch = _lift(resolve(config, plugins), parts, synthetic, rows, directory)
    assert (batch.states[~batch.mask] == 0).all()
    # the labels that the round was trained with are what the teacher says of these very token states
    with torch.no_grad():
        labels = parts.teacher_upper(batch.states, batch.mask).logits.numpy()
    np.testing.assert_allclose(labels, synthetic.logits[rows], atol=1e-5)
    anchors = parts.train.store.batch(synthetic.anchors[rows], parts.device)
    assert np.abs(parts.teacher_upper(anchors.states, anchors.mask).logits.detach().numpy() - labels).max() > 1e-3


def test_a_run_whose_lift_replaces_tokens(runs, plugins):
    found = decode_run(runs["replace"], plugins, "nearest_token", {}, limit=6)
    assert (found.decoder, found.round, found.unit) == ("nearest_token", 3, "tokens")
    assert found.accuracy == 1
    assert found.counted == sum(len(re.findall(r"\w+|[.!?,]", example.text)) for example in found.examples)
    synthetic = SyntheticSet.load(runs["replace"].synthetic(3))
    assert found.synthetic == len(synthetic) == 81
    assert [example.row for example in found.examples] == [0, 16, 32, 48, 64, 80]
    _, parts = prepared(runs["replace"], plugins)
    for example in found.examples:
        assert example.anchor == synthetic.anchors[example.row]
        assert example.text == example.anchor_decoded
        assert example.text.split() == re.findall(r"\w+|[.!?,]", parts.data.train.texts[example.anchor])
        # a share of the inner tokens is exchanged; each of them that is read anew counts
        words, read = example.anchor_decoded.split(), example.synthetic_decoded.split()
        assert len(words) == len(read)
        assert example.changed == pytest.approx(np.mean([a != b for a, b in zip(words, read, strict=True)]))
        assert example.margin > 0
        # every token of it is a real one at its own place, so the decoder reads just what was written
        assert example.synthetic_text == example.synthetic_decoded
    assert 0.1 < np.mean([example.changed for example in found.examples]) < 0.6
    assert decode_run(runs["replace"], plugins, "nearest_token", {}, limit=6) == found


def test_the_round_and_the_number_of_rows(runs, plugins):
    found = decode_run(runs["replace"], plugins, "nearest_token", {}, round=2, limit=1000)
    assert found.round == 2
    assert [example.row for example in found.examples] == list(range(81))
    assert len(decode_run(runs["replace"], plugins, "nearest_token", {}, limit=1).examples) == 1


def test_dropped_examples_are_not_shown(copy, plugins):
    synthetic = SyntheticSet.load(copy.synthetic(3))
    synthetic.kept[:] = False
    synthetic.kept[[3, 40, 41, 70]] = True
    shutil.rmtree(copy.synthetic(3).parent)
    synthetic.save(copy.synthetic(3))
    found = decode_run(copy, plugins, "nearest_token", {})
    assert found.synthetic == 4
    assert [example.row for example in found.examples] == [3, 40, 41, 70]
    synthetic.kept[:] = False
    shutil.rmtree(copy.synthetic(3).parent)
    synthetic.save(copy.synthetic(3))
    with pytest.raises(RunDirectoryError, match="dropped every synthetic example of round 3"):
        decode_run(copy, plugins, "nearest_token", {})


def test_the_probe_is_cached_beside_the_runs_other_results(runs, plugins):
    lines = []
    for _ in range(2):
        found = decode_run(runs["shift"], plugins, "probe", {"epochs": 1}, limit=3, announce=lines.append)
        assert found.accuracy > 0.9
    assert len(lines) == 2
    assert lines[0] == lines[1]
    cache = prepared(runs["shift"], plugins)[1].cache
    assert [entry.about["what"] for entry in cache.entries() if entry.kind == "component"].count("decoder 'probe'") == 1


def test_a_view_has_the_splits_and_is_read_only(runs, plugins):
    config, parts = prepared(runs["shift"], plugins)
    view = view_of(config, parts)
    assert len(view.train.offsets) - 1 == len(parts.train.store)
    assert len(view.held_out.offsets) - 1 == len(parts.dev.store)
    ids, types, mask = parts.dev.tokens.pad(np.arange(3))
    np.testing.assert_allclose(
        view.input_layers(ids, types, mask)[mask].numpy(), view.held_out.states[: int(mask.sum())], atol=1e-6
    )
    for text in (view.train, view.held_out):
        assert not any(getattr(text, field.name).flags.writeable for field in dataclasses.fields(text))
    assert parts.train.tokens.ids.flags.writeable


# ---- what is refused


def test_a_run_of_pooled_vectors_is_refused(tmp_path, tiny_bert, plugins):
    config = toy_config(tmp_path, tiny_bert, granularity="pooled")
    with pytest.raises(CompatibilityError, match="granularity is 'pooled'") as caught:
        decode_run(RunDirectory.create(config), plugins, "probe", {})
    assert "\n" not in str(caught.value)


def test_runs_and_rounds_without_synthetic_examples(runs, tmp_path, tiny_bert, plugins):
    empty = RunDirectory.create(toy_config(tmp_path, tiny_bert, schedule="none"))
    with pytest.raises(RunDirectoryError, match="has no synthetic examples: they are made from round 2 on"):
        decode_run(empty, plugins, "nearest_token", {})
    for round in (1, 4):
        with pytest.raises(RunDirectoryError, match=f"no synthetic examples of round {round}; it has those of 2, 3"):
            decode_run(runs["replace"], plugins, "nearest_token", {}, round=round)


def test_an_unknown_decoder_is_named_before_anything_is_loaded(tmp_path, tiny_bert, plugins):
    empty = RunDirectory.create(toy_config(tmp_path, tiny_bert))
    with pytest.raises(UnknownComponentError, match="Did you mean 'nearest_token'"):
        decode_run(empty, plugins, "nearest", {})


def test_a_teacher_without_a_language_model(runs, plugins):
    with pytest.raises(CompatibilityError, match="has no masked-language-model head"):
        decode_run(runs["shift"], plugins, "mlm_head", {})


@pytest.mark.parametrize("what", ["anchors", "labels"])
def test_synthetic_examples_that_cannot_be_made_again_are_refused(copy, plugins, what):
    synthetic = SyntheticSet.load(copy.synthetic(3))
    if what == "anchors":
        synthetic.anchors[0] = 10_000
    else:
        synthetic.logits = synthetic.logits[::-1].copy()
    shutil.rmtree(copy.synthetic(3).parent)
    synthetic.save(copy.synthetic(3))
    with pytest.raises(RunDirectoryError, match="has changed since the run"):
        decode_run(copy, plugins, "nearest_token", {})


# ---- other people's decoders


class Words:
    """Reads every row as the same words."""

    def __init__(self, options, context):
        pass

    def fit(self, teacher):
        return self

    def decode(self, batch: TokenBatch) -> list[str]:
        return ["the movie"] * len(batch.states)


class Raises(Words):
    def decode(self, batch):
        raise ValueError("no\nidea")


class TooFew(Words):
    def decode(self, batch):
        return ["one"]


class Forgets(Words):
    def fit(self, teacher):
        return None


class Narrow(Words):
    def guess(self, batch, k):
        zeros = np.zeros((*batch.mask.shape, 1))
        return Guesses(zeros.astype(np.int64), zeros.astype(np.float32))


class Lists(Words):
    def guess(self, batch, k):
        return Guesses([[1]], [[1.0]])


class Leaves(Words):
    def guess(self, batch, k):
        raise SystemExit(5)


def with_decoder(plugins, factory, **fields):
    spec = DecoderSpec(name="mine", summary="Mine", factory=factory, **fields)
    plugins._components["decoder", "mine"] = Registered(spec, Origin("mine", "mine.py", ""))
    return plugins


def test_a_decoder_without_guesses_is_measured_by_words(runs, plugins):
    found = decode_run(runs["shift"], with_decoder(plugins, Words), "mine", {}, limit=3)
    assert found.unit == "words"
    for example in found.examples:
        assert (example.anchor_decoded, example.synthetic_decoded, example.changed) == ("the movie", "the movie", 0)
        assert math.isnan(example.margin)
    words = [example.text.split() for example in found.examples]
    assert found.counted == sum(map(len, words))
    assert found.accuracy <= sum(("the" in text) + ("movie" in text) for text in words) / found.counted


@pytest.mark.parametrize(
    ("factory", "fields", "message"),
    [
        (Raises, {}, "decoder 'mine' (mine.py) failed in decode: ValueError: no idea"),
        (TooFew, {}, "decode returned no list of 4 texts"),
        (Forgets, {}, "fit returned NoneType, not the decoder itself"),
        (Narrow, {"has_guesses": True}, "guess returned no Guesses of shape (4, "),
        (Lists, {"has_guesses": True}, "guess returned no Guesses of shape (4, "),
        (Leaves, {"has_guesses": True}, "decoder 'mine' (mine.py) failed in guess: SystemExit: 5"),
    ],
)
def test_faults_of_a_decoder_are_reported_under_its_name(runs, plugins, factory, fields, message):
    with pytest.raises(PluginError, match=re.escape(message)) as caught:
        decode_run(runs["shift"], with_decoder(plugins, factory, **fields), "mine", {}, limit=2)
    assert "decoder 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- the command


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["decode", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_the_command_prints_a_table(runs, capsys):
    code, out, err = command(capsys, runs["replace"].path, "--limit", 2)
    assert (code, err) == (0, "")
    assert "Decoder 'nearest_token' finds 100.0% of the" in out
    assert "round 3: 2 of 81 synthetic examples by decoder 'nearest_token'" in out
    assert "anchor decoded" in out
    assert "margin" in out


def test_the_command_prints_json(runs, capsys):
    arguments = (runs["replace"].path, "--limit", 2, "--round", 2, "--json")
    code, out, _ = command(capsys, *arguments, "--options", "special_tokens=ends")
    assert code == 0
    data = json.loads(out)
    assert (data["round"], data["decoder"], len(data["examples"])) == (2, "nearest_token", 2)
    assert set(data["examples"][0]) == {field.name for field in dataclasses.fields(DecodedExample)}
    code, out, err = command(capsys, *arguments, "--decoder", "probe", "--options", "epochs=1, hidden=[8]")
    assert code == 0
    assert json.loads(out)["decoder"] == "probe"
    assert err.startswith("decoder 'probe': finds ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "prob"], "Did you mean 'probe'?"),
        (["--options", "special=ends"], "Unknown option 'special'"),
        (["--options", "ends"], "options is 'ends': expected name=value pairs separated by commas"),
        (["--round", "9"], "no synthetic examples of round 9"),
        (["--limit", "0"], "limit"),
        (["--decoder", "mlm_head"], "take decoder 'nearest_token' or 'probe'"),
    ],
)
def test_mistakes_are_answered_in_one_line(runs, capsys, arguments, message):
    code, out, err = command(capsys, runs["replace"].path, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_table_takes_brackets_as_text_and_unknown_numbers_as_dashes():
    from rich.console import Console

    example = DecodedExample(0, 5, "a [bold] text", "b [i]", "[UNK]", "[/x]", float("nan"), float("nan"))
    decoding = Decoding("mine", 2, 1, float("nan"), "words", 0, [example])
    stream = io.StringIO()
    Console(width=120, file=stream).print(decoding_table(decoding))
    text = stream.getvalue()
    assert "a [bold] text" in text
    assert "[/x]" in text
    assert " - " in text
    assert "margin" not in text
    assert decoding.to_json()["accuracy"] is None
    assert decoding.to_json()["examples"][0]["margin"] is None
