"""What a page holds of runs of every kind, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentences
import toyspans
import toytags
from generatedrun import generated_run
from toyrun import go_back, toy_run
from unpackedpage import Unpacked

from sage_kit.cli import main
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.distill import run
from sage_kit.errors import DataError, RunDirectoryError
from sage_kit.explorer.binary_blocks import Blocks, harmless
from sage_kit.explorer.page_data import UNKNOWN, page_data, quantised
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.synthesis.synthetic_set import SyntheticSet

HALF = {"synthetic_ratio": 0.3, "rounds": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(scope="module")
def sage(folder: Path, tiny_bert: Path) -> RunDirectory:
    return toy_run(folder, tiny_bert, synthetic_ratio=0.3, observers=["loss_profile"], run_dir=str(folder / "sage"))[0]


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_bert: Path) -> RunDirectory:
    return toy_run(folder, tiny_bert, schedule="none", rounds=2, run_dir=str(folder / "plain"))[0]


def packed(*directories: RunDirectory | Path, **settings: Any) -> Unpacked:
    paths = [str(getattr(one, "path", one)) for one in directories]
    return Unpacked.of(page_data(paths, plugins=lambda files: Plugins(files, allow=""), **settings))


def test_a_page_says_what_the_run_says(sage: RunDirectory) -> None:
    page = packed(sage)
    (facts,), (group,) = page.header["runs"], page.header["groups"]
    summary = sage.summary() or {}
    assert facts["kind"] == "SAGE"
    assert [one["dev"] for one in facts["rounds"]] == [one["dev"] for one in summary["rounds"]]
    assert facts["splits"][0]["student"]["accuracy"] == summary["validation"]["validation"]["accuracy"]
    assert f"{summary['validation']['validation']['accuracy']:.3f}" in facts["headline"]

    rows, (_, losses) = page.get(group["rows"]), read_loss_profiles(sage.path)
    assert sorted(rows.tolist()) == list(range(losses.shape[1]))
    scale = page.header["scale"]
    for name, expected in zip(facts["losses"], losses, strict=True):
        share = page.get(name).astype(float) / (UNKNOWN - 1)
        found = scale["low"] * (scale["high"] / scale["low"]) ** share
        np.testing.assert_allclose(found, np.maximum(expected[rows], scale["low"]), rtol=1e-3)
    # all teachers and students of the toy task say one of its two labels, which the texts bear out
    teacher, gold = page.coded(facts["teacher_outputs"]), page.coded(group["gold"])
    assert np.mean([one == other for one, other in zip(teacher, gold, strict=True)]) > 0.9


def test_changed_tokens_are_those_that_differ_from_the_anchor(sage: RunDirectory) -> None:
    page = packed(sage)
    facts, group = page.header["runs"][0], page.header["groups"][0]
    texts = page.get(group["texts"])
    one = facts["synthetic"]["rounds"][0]
    anchors = page.get(one["anchors"])
    made = page.synthetic_texts(0, one["round"])
    known = SyntheticSet.load(sage.synthetic(one["round"]))
    np.testing.assert_array_equal(page.get(group["rows"])[anchors], known.anchors)
    some_changed = 0
    for pieces, anchor in zip(made, anchors, strict=True):
        words = re.findall(r"\w+|[^\w\s]", texts[anchor].lower())
        assert len(words) == len(pieces)
        for word, (piece, flag) in zip(words, pieces, strict=True):
            assert (piece.strip() != word) == bool(flag)
            some_changed += flag
    assert some_changed


def test_plain_distillation_is_shown_on_the_map_of_another_run(sage: RunDirectory, plain: RunDirectory) -> None:
    page = packed(sage, plain)
    first, second = page.header["runs"]
    assert [group["runs"] for group in page.header["groups"]] == [[0, 1]]
    assert "xy" in first
    assert "xy" not in second
    assert "plain distillation 0." in first["headline"]
    assert second["loss_rounds"] == [1, 2]  # from its checkpoint, since no observer wrote them
    alone = packed(plain).header["runs"][0]
    assert not alone["has_map"]
    assert any("no map" in note for note in alone["notes"])


def test_a_run_that_was_interrupted(folder: Path, tiny_bert: Path) -> None:
    directory, _ = toy_run(folder, tiny_bert, **HALF, keep_checkpoints=0, run_dir=str(folder / "killed"))
    go_back(directory, to_round=1)
    facts = packed(directory).header["runs"][0]
    assert not facts["finished"]
    assert len(facts["rounds"]) == 1
    assert facts["synthetic"]["rounds"] == []  # those of round 2, which was not finished, do not count
    assert any("not finished" in note for note in facts["notes"])


def kinds(folder: Path, teacher: Path) -> dict[str, dict[str, Any]]:
    return {
        "tags": toytags.settings(folder, "tags"),
        "label_sets": toytags.settings(folder, "label_sets"),
        "spans": toyspans.settings(folder),
        "regression": {"task_kind": "regression"},
        "static": {"schedule": "static", "rounds": 3},
        "line": {"n_components": 1},
        "space": {"n_components": 3},
        "shift": {"lift": "shift"},
        "refitted": {"refit": "every_round", "rounds": 3},
        "no_map": {"sampler": "random", "sampler_options": {}, "lift": "replace_random"},
    }


@pytest.mark.parametrize("name", kinds(Path(), Path()))
def test_every_kind_of_run(name: str, folder: Path, tiny_bert: Path) -> None:
    own = folder / name
    own.mkdir()
    directory, _ = toy_run(own, tiny_bert, **{**HALF, **kinds(own, tiny_bert)[name]})
    page = packed(directory)
    facts, group = page.header["runs"][0], page.header["groups"][0]
    assert group["examples"] == len(page.get(group["texts"])) > 100
    made = facts["synthetic"]["rounds"]
    assert made
    assert facts["has_map"] == (name != "no_map")
    assert ("pieces" in made[0]) == (name != "shift")
    words = [set(page.coded(facts[f"{whose}_outputs"])) for whose in ("teacher", "student")]
    # so tiny a model may have learnt one set of labels only
    assert all(len(one) > (name != "label_sets") for one in words)
    told = " ".join(facts["notes"])
    assert ("three" in told or "3 dimensions" in told) == (name == "space")
    assert ("one dimension" in told) == (name == "line")
    assert ("made once" in told) == (name == "static")
    assert ["xy" in one for one in made] == {"refitted": [False, True]}.get(name, [name != "no_map"] * len(made))


def test_embeddings_have_no_outputs_in_words(folder: Path, tmp_path: Path) -> None:
    teacher = sentences.make_folder(tmp_path / "teacher")
    config = load_config(sentences.settings(tmp_path, teacher, rounds=2, run_dir=str(tmp_path / "run")))
    directory, _ = run(config, Plugins(allow=""))
    page = packed(directory)
    facts, group = page.header["runs"][0], page.header["groups"][0]
    assert "teacher_outputs" not in facts
    assert len(page.get(facts["agreement"])) == group["examples"]


def test_texts_can_be_left_out(sage: RunDirectory) -> None:
    page = packed(sage, texts=False)
    assert "texts" not in page.header["groups"][0]
    assert "teacher_outputs" not in page.header["runs"][0]
    assert "pieces" not in page.header["runs"][0]["synthetic"]["rounds"][0]


def test_data_that_are_gone_are_told_of(folder: Path, tiny_bert: Path) -> None:
    own = folder / "gone"
    own.mkdir()
    directory, _ = toy_run(own, tiny_bert, **HALF)
    (own / "train.jsonl").unlink()
    page = packed(directory)
    assert any(note.startswith("No texts") for note in page.header["runs"][0]["notes"])
    assert str(own) not in str(page.header)  # a page may be shared
    assert page.get(page.header["runs"][0]["xy"]).size


def test_a_large_run_is_drawn_evenly(tmp_path: Path) -> None:
    path = generated_run(tmp_path, examples=2000, share=0.5)
    page = packed(path, points=200)
    group, made = page.header["groups"][0], page.header["runs"][0]["synthetic"]["rounds"]
    assert (group["even"], group["examples"]) == (200, 2000)
    assert sum(one["held"] for one in made) == 200
    assert all(one["total"] == 1000 for one in made)
    assert len(page.get(group["texts"])) == len(page.get(group["rows"])) >= 200
    places = page.get(made[0]["anchors"])
    assert places.max() < len(page.get(group["rows"]))


def test_losses_that_are_not_known_stay_so() -> None:
    scale = {"kind": "log", "low": 0.01, "high": 1.0}
    found = quantised(np.array([np.nan, np.inf, 0.0, 0.01, 1.0, 5.0], np.float32), scale)
    assert found.tolist() == [UNKNOWN, UNKNOWN, 0, 0, UNKNOWN - 1, UNKNOWN - 1]


def test_blocks_come_back() -> None:
    blocks = Blocks()
    numbers = np.array([0, 1, 70_000, 2**32 - 1], np.uint32)
    named = {"a": blocks.array(numbers), "b": blocks.strings(["", "ä\u202eb", "</script>"])}
    page = Unpacked.of(blocks.pack({**named, "odd": float("nan")}))
    np.testing.assert_array_equal(page.get(page.header["a"]), numbers)
    assert page.get(page.header["b"]) == ["", "ä\ufffdb", "</script>"]
    assert page.header["odd"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a\u2400b"),
        ("a\nb", "a b"),
        ("\u2066x", "\ufffdx"),
        ("\ud800", "\ufffd"),
        ("y" * 700, "y" * 599 + "…"),
    ],
)
def test_text_is_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


# ---- mistakes


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["explore", *map(str, arguments)])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    last = [line for line in error.strip().splitlines() if not line.startswith("sage-kit: reading ")]
    assert len(last) == 1 or "Usage" in error
    assert "Traceback" not in error
    return last[-1]


def test_bad_input_is_one_line(
    sage: RunDirectory, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert "does not exist" in refused(capsys, tmp_path / "nothing", "--out", out)
    assert "is not a run" in refused(capsys, tmp_path, "--out", out)
    assert "is a folder" in refused(capsys, sage.path, "--out", tmp_path)
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert "cannot be written" in refused(capsys, sage.path, "--no-texts", "--out", file / "page.html")
    assert "is no scorecard" in refused(capsys, sage.path, "--scorecard", tmp_path, "--out", out)
    copies = [tmp_path / f"copy{number}" for number in range(7)]
    for copy in copies:
        copy.mkdir()
        shutil.copy(sage.path / "config.toml", copy)
    assert "more than a page compares" in refused(capsys, *copies, "--out", out)
    assert "no finished round" in refused(capsys, copies[0], "--out", out)
    assert not out.exists()


DAMAGE = {
    "summary.json": b"{", "map.safetensors": b"x" * 40, "rounds/002/synthetic.safetensors": b"",
    "rounds/001/losses.parquet": b"PAR1", "costs.json": b"[]", "config.toml": b"rounds = 'many'\n",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_named(
    name: str, sage: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sage.path, copy)
    (copy / name).write_bytes(DAMAGE[name])
    told = refused(capsys, copy, "--no-texts", "--out", tmp_path / "page.html")
    assert Path(name).name in told or "settings" in told
    assert not (tmp_path / "page.html").exists()


def test_a_map_of_another_run_is_refused(sage: RunDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sage.path, copy)
    from safetensors.numpy import save_file

    save_file({"coordinates": np.zeros((7, 2), np.float32)}, copy / "map.safetensors")
    with pytest.raises(RunDirectoryError, match="not of one run"):
        packed(copy)
    with pytest.raises(DataError, match="no scorecard"):
        packed(sage, scorecards=[tmp_path / "none"])


def test_a_run_without_rounds_is_told_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('task = "sst2"\n', encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="sage-kit resume"):
        packed(tmp_path)


def test_settings_of_the_machine_are_left_out(sage: RunDirectory) -> None:
    header = packed(sage).header
    names = [name for name, _ in header["runs"][0]["settings"]]
    assert "sampler" in names
    assert not {"cache_dir", "runs_dir", "run_dir", "device"} & set(names)
    assert str(sage.path.parent) not in str({key: value for key, value in header.items() if key != "blocks"})
