"""Runs that distil embeddings: of pairs with labels and without, of single texts, and what a user may do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from sentences import by_hand, make_folder, pairs, settings, write
from toyrun import go_back, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.distill import resume, run
from sage_kit.errors import CompatibilityError, ConfigError, DataError, ModelError, SageError
from sage_kit.recipe import resolve
from sage_kit.rundir import RunDirectory

BUILT_INS = Plugins(allow="")
PROMPT = "very good : "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Path:
    return make_folder(folder / "teacher", prompts={"query": PROMPT}, default="query")


def config_of(folder: Path, teacher: Path, **overrides: Any) -> RunConfig:
    return load_config(settings(folder, teacher, **overrides))


def run_of(folder: Path, teacher: Path, **overrides: Any) -> tuple[RunDirectory, dict[str, Any]]:
    return run(config_of(folder, teacher, **overrides), BUILT_INS)


@pytest.fixture(scope="module")
def finished(folder: Path, teacher: Path) -> tuple[RunDirectory, dict[str, Any]]:
    return run_of(folder, teacher)


def test_a_run_on_pairs_with_labels(finished: tuple[RunDirectory, dict[str, Any]], teacher: Path) -> None:
    from scipy.stats import spearmanr

    directory, summary = finished
    first, second = summary["rounds"]
    assert summary["examples"]["train"] == 108
    assert second["synthetic"] == summary["sequences"]["train"] == 2 * 108
    assert second["train_loss"] < first["train_loss"] / 2
    assert second["train_agreement"] > 0.95
    assert not summary["teacher"]["finetuned_here"]
    rows = pairs(40, seed=2)
    texts = [text for row in rows for text in (row["one"], row["two"])]
    # plain transformers, and the pooling and the prompt that the folder names, give what was scored
    mine, theirs = (by_hand(path, texts) for path in (directory.student, teacher))
    found = directory.predictions()["validation"]
    np.testing.assert_allclose(found["student"] / 4, mine, atol=3e-6)
    np.testing.assert_allclose(found["teacher"] / 4, theirs, atol=3e-6)
    assert (mine * theirs).sum(1).mean() > 0.95
    cosines = (mine[0::2] * mine[1::2]).sum(1)
    expected = spearmanr(cosines, [row["score"] for row in rows]).statistic
    assert summary["validation"]["validation"]["cosine_spearman"] == pytest.approx(expected, abs=1e-3)
    assert 0.5 < summary["validation"]["validation"]["agreement"] < 1
    # no parameter that no vector is made by
    assert summary["parameters"]["student"] == sum(
        value.numel() for value in load_file(directory.student / "model.safetensors").values()
    )


def test_synthesis_keeps_the_prompt(finished: tuple[RunDirectory, dict[str, Any]], teacher: Path) -> None:
    from transformers import AutoTokenizer

    from sage_kit.synthesis.synthetic_set import SyntheticSet

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    made = SyntheticSet.load(finished[0].synthetic(2))
    assert made.tokens is not None
    prompt = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    starts = made.tokens.offsets[:-1]
    begins = np.stack([made.tokens.ids[starts + 1 + place] for place in range(len(prompt))], axis=1)
    assert (begins == prompt).all()
    changed = {tuple(made.tokens.ids[a:b]) for a, b in zip(starts, made.tokens.offsets[1:], strict=True)}
    texts = [PROMPT + text for row in pairs(120, seed=1) for text in (row["one"], row["two"])]
    assert len(changed - {tuple(ids) for ids in tokenizer(texts)["input_ids"]}) > 100


def test_a_run_that_was_killed_ends_the_same(
    finished: tuple[RunDirectory, dict[str, Any]], folder: Path, teacher: Path
) -> None:
    directory, summary = run_of(folder, teacher, keep_checkpoints=0)
    weights = load_file(directory.student / "model.safetensors")
    assert without_times(summary)["rounds"] == without_times(finished[1])["rounds"]
    go_back(directory, 1)
    repeated = resume(directory, BUILT_INS)
    assert without_times(repeated) == without_times(summary)
    found = load_file(directory.student / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


def test_the_prefix_of_the_settings_goes_before_the_folders(folder: Path, teacher: Path) -> None:
    few = {"schedule": "none", "rounds": 1}
    default, other = (run_of(folder, teacher, **few, **more)[0] for more in ({}, {"text_prefix": "awful : "}))
    outputs = [one.predictions()["validation"]["teacher"] for one in (default, other)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    texts = [text for row in pairs(40, seed=2) for text in (row["one"], row["two"])]
    np.testing.assert_allclose(
        other.predictions()["validation"]["student"] / 4, by_hand(other.student, texts), atol=3e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"bypass": 1, "precision": "bf16"},
        {"filter": "choose", "sampler": "random", "sampler_options": {}, "losses_from": "pass", "rounds": 1},
        {"losses": {"kl": 1.0, "rkd": 0.5, "contrastive": 0.1, "embedding_cosine": 0.5, "hidden_cosine": 0.2}},
        {"relation_weight": 0.2, "hidden_weight": 0.3, "student_heads": 2, "student_ffn": 32, "keep_best": "metric"},
        {"sampler": "adversarial", "sampler_options": {}, "lift": "shift"},
    ],
)
def test_what_else_a_run_may_have(folder: Path, teacher: Path, settings: dict[str, Any]) -> None:
    _, summary = run_of(folder, teacher, **settings)
    last = summary["rounds"][-1]
    assert last["synthetic"] > 0
    assert last["train_agreement"] > 0.9
    assert np.isfinite(list(summary["validation"]["validation"].values())).all()


def test_pairs_without_labels_and_single_texts(folder: Path, teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = {"schedule": "none", "rounds": 1, "observers": ["progress"]}
    _, summary = run_of(folder, teacher, label_column="", **few)
    assert set(summary["validation"]["validation"]) == {"retrieval_accuracy", "agreement"}
    assert summary["primary_metric"] == "retrieval_accuracy"
    assert "without a label" not in capfd.readouterr().err
    # the usual name of the label column says nothing of single texts
    directory, summary = run_of(folder, teacher, text_pair_column="", label_column="label", keep_best="metric", **few)
    assert summary["examples"]["train"] == 108
    assert (set(summary["validation"]["validation"]), summary["primary_metric"]) == ({"agreement"}, "agreement")
    shown = capfd.readouterr().err
    assert "embeddings of texts, without labels" in shown
    from sage_kit.reports.figures import draw_run
    from sage_kit.reports.tables import outcome_tables, rounds_table

    assert rounds_table(directory.history(), "agreement")
    assert outcome_tables({"one": summary})
    assert draw_run(directory)


def test_a_transfer_set_of_single_texts(folder: Path, teacher: Path) -> None:
    rows = [{"one": row["text"]} for row in tiny.toy_task_rows(60, seed=5)]
    known = [{"one": pairs(120, seed=1)[row]["two"]} for row in range(120)]
    file = tiny.write_jsonl(folder / "texts.jsonl", rows + known)
    _, summary = run_of(folder, teacher, transfer_file=str(file), schedule="none", rounds=1)
    # a text that stands in a pair of dev is left out
    assert summary["examples"]["train"] == 60 + 108
    assert set(summary["dev"]) == {"cosine_spearman", "cosine_pearson", "retrieval_accuracy", "agreement"}


PROGRAM = """
import sys
from pathlib import Path
from sentences import settings
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.distill import run
folder, teacher, target = map(Path, sys.argv[1:])
run(load_config(settings(folder, teacher, run_dir=str(target))), Plugins(allow=""))
"""


def test_two_processes(folder: Path, teacher: Path, tmp_path: Path) -> None:
    program, target = tmp_path / "two.py", tmp_path / "run"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(program)]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, *map(str, (folder, teacher, target))],
        capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    summary = RunDirectory.open(target).summary()
    assert summary["processes"] == 2
    assert summary["rounds"][1]["synthetic"] == 216
    assert summary["rounds"][1]["train_agreement"] > 0.9


# ---- what is refused, each in one line


def refused(config: RunConfig, kind: type[SageError], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        run(config, BUILT_INS)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 450


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student_width": 16}, "student_width is 16, but the vectors of a task of kind 'embeddings' are as wide"),
        ({"granularity": "pooled"}, "set granularity to 'token'"),
        ({"hard_label_weight": 0.5}, "loss 'hard_labels' looks at labels, and a text of task 'file' has none"),
        ({"losses": {"hard_labels": 1.0}}, "loss 'hard_labels' looks at labels, and a text of task 'file' has none"),
        ({"losses": {"dist": 1.0}}, "loss 'dist' looks at classes, and task 'file' has embeddings: leave it out"),
        ({"metrics": ["accuracy"]}, "metric 'accuracy' is for classes, and task 'file' has embeddings"),
        ({"sampler": "kl_max", "sampler_options": {}}, "compares classes or numbers, and task 'file' has embeddings"),
        ({"sampler": "boundary", "sampler_options": {}}, "looks at classes, and task 'file' has embeddings"),
    ],
)
def test_settings_that_do_not_go_with_embeddings(
    folder: Path, teacher: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompatibilityError, match=message) as error:
        resolve(config_of(folder, teacher, **settings), BUILT_INS)
    assert "\n" not in str(error.value)


def test_a_prefix_is_for_embeddings_alone(folder: Path, teacher: Path) -> None:
    with pytest.raises(CompatibilityError, match="text_prefix is 'query: ', and only a task whose outputs are embed"):
        resolve(config_of(folder, teacher, task_kind="regression", text_prefix="query: "), BUILT_INS)


def test_metrics_that_the_data_cannot_be_scored_by(folder: Path, teacher: Path) -> None:
    named = {"metrics": ["cosine_pearson"]}
    refused(config_of(folder, teacher, label_column="", **named), CompatibilityError, "'cosine_pearson' needs labels")
    single = config_of(folder, teacher, text_pair_column="", metrics=["retrieval_accuracy"])
    refused(single, CompatibilityError, "metric 'retrieval_accuracy' needs pairs of texts, which task 'file' lacks")


def test_mistakes_in_the_users_files(folder: Path, teacher: Path, tmp_path: Path) -> None:
    refused(
        config_of(folder, teacher, label_column="scor"), DataError,
        r"has no column 'scor', which says how alike the two texts are: set label_column to '' for pairs without "
        r"labels\. Did you mean 'score'\?",
    )  # fmt: skip
    rows = pairs(20)
    rows[4]["score"] = "much"
    wrong = config_of(folder, teacher, train_file=str(tiny.write_jsonl(tmp_path / "wrong.jsonl", rows)))
    refused(wrong, DataError, "row 5, column 'score': label 'much' .* is not a number; the label of a pair says how")
    rows[4]["score"] = None
    missing = {"train_file": str(tiny.write_jsonl(tmp_path / "missing.jsonl", rows))}
    refused(config_of(folder, teacher, **missing), DataError, "row 5, column 'score': there is no label; .*'drop'")
    refused(config_of(folder, teacher, label_names=["a", "b"]), ConfigError, "task_kind is 'embeddings', which has no")
    refused(config_of(folder, teacher, teacher_labels=["a", "b"]), CompatibilityError, "teacher_labels names classes")


def test_a_teacher_with_another_module(folder: Path, tmp_path: Path) -> None:
    odd = make_folder(tmp_path / "odd", modules=["Transformer", "Pooling", "Dense"])
    refused(config_of(folder, odd), ModelError, "its modules.json lists Transformer, Pooling, Dense, and read are")


def test_a_teacher_whose_encoder_lies_in_a_folder(folder: Path, tmp_path: Path) -> None:
    nested = make_folder(tmp_path / "nested", folder="0_Transformer", pooling="cls", modules=["Transformer", "Pooling"])
    _, summary = run_of(folder, nested, schedule="none", rounds=1)
    assert np.isfinite(summary["rounds"][0]["train_loss"])
    write(tmp_path / "nested" / "1_Pooling" / "config.json", {"pooling_mode_max_tokens": True})
    refused(config_of(folder, nested), ModelError, "pools by max, and known are mean and cls")


def test_the_warm_up_reads_texts_with_the_prefix(
    folder: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sage_kit.training.warmup as module

    seen: list[str] = []
    tokenize = module.tokenize

    def listening(split: Any, *arguments: Any) -> Any:
        seen.extend(split.texts)
        return tokenize(split, *arguments)

    monkeypatch.setattr(module, "tokenize", listening)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(row["text"] for row in tiny.toy_task_rows(40, seed=7)), encoding="utf-8")
    warm = {"warmup_corpus": str(corpus), "warmup_epochs": 1, "schedule": "none", "rounds": 1}
    _, summary = run_of(folder, teacher, **warm)
    assert len(seen) == 40
    assert all(text.startswith(PROMPT) for text in seen)
    assert summary["rounds"][0]["train_agreement"] > 0.9


def test_the_map_of_a_task_is_made_of_the_same_texts(folder: Path, teacher: Path) -> None:
    from sage_kit.components.records import Costs
    from sage_kit.system.devices import make_accelerator
    from sage_kit.training.preparation import TRAINED, prepare_vectors

    config = config_of(folder, teacher)
    made = [
        prepare_vectors(config, BUILT_INS, make_accelerator(config), Costs(), fine_tune=fine_tune)
        for fine_tune in (True, False)
    ]
    assert made[0].input_layers == made[1].input_layers == TRAINED
    assert np.array_equal(made[0].dev.pooled, made[1].dev.pooled)
    assert made[0].train.pooled.shape == (216, 32)
