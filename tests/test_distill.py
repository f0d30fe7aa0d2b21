"""The loop end to end on a toy task, with each of its choices."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load_file
from toyrun import toy_config, toy_run

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Options
from sage_kit.components.plugins import Origin, Plugins
from sage_kit.data.metrics import predictions
from sage_kit.distill import run
from sage_kit.errors import BudgetError, CompatibilityError, PluginError, RunDirectoryError
from sage_kit.rundir import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the module, so that runs share the cached teacher and vectors."""
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def sage(folder: Path, tiny_bert: Path):
    return toy_run(folder, tiny_bert)


def plain_logits(checkpoint: Path, texts: list[str]) -> torch.Tensor:
    """Logits of an exported student by plain transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    encoded = AutoTokenizer.from_pretrained(checkpoint)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**encoded).logits


def test_student_learns_from_the_teacher(sage) -> None:
    _, summary = sage
    assert summary["stopped"] == "3 rounds are done"
    assert summary["teacher"]["validation"]["validation"]["accuracy"] > 0.8
    assert summary["validation"]["validation"]["accuracy"] > 0.8
    assert summary["validation"]["validation"]["agreement"] > 0.85


def test_rounds_hold_real_then_real_and_synthetic_examples(sage) -> None:
    _, summary = sage
    first, second, third = summary["rounds"]
    assert first["synthetic"] == 0
    assert first["synthetic_loss"] is None
    assert second["synthetic"] == third["synthetic"] == summary["examples"]["train"]
    assert first["outside_hull"] is None
    assert 0 <= second["outside_hull"] <= 1
    assert second["steps"] > first["steps"]
    assert third["total_steps"] == sum(r["steps"] for r in summary["rounds"]) == summary["student_steps"]
    assert all(r["padding"] < 0.1 for r in summary["rounds"])


def test_run_directory_is_complete(sage) -> None:
    directory, summary = sage
    names = {path.name for path in directory.path.iterdir()}
    assert {"config.toml", "environment.json", "metrics.jsonl", "costs.json", "map.safetensors", "rounds",
            "checkpoints", "student", "summary.json"} <= names  # fmt: skip
    lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert [line["dev"] for line in lines] == [r["dev"] for r in summary["rounds"]]
    costs = json.loads((directory.path / "costs.json").read_text())
    assert {"student", "teacher", "reduce", "sample", "invert", "evaluate", "lift"} <= set(costs["seconds"])
    assert costs["flops"]["student"] > costs["flops"]["teacher"] > 0
    arrays = load_file(directory.synthetic(2))
    assert arrays["logits"].shape == (summary["examples"]["train"], 2)
    environment = json.loads((directory.path / "environment.json").read_text())
    components = environment["components"]
    # what a default was, though the settings do not hold it
    assert environment["options"]["sampler"]["fraction"] == 1.0
    assert set(environment["options"]) == set(components)
    assert components["reducer"].startswith("pca (sage-kit ")


def test_exported_student_is_plain_transformers_with_the_same_scores(sage, folder: Path) -> None:
    directory, summary = sage
    rows = tiny.toy_task_rows(120, seed=2)
    logits = plain_logits(directory.student, [row["text"] for row in rows]).numpy()
    accuracy = float(np.mean(logits.argmax(-1) == np.array([row["label"] for row in rows])))
    assert accuracy == pytest.approx(summary["validation"]["validation"]["accuracy"])


def test_validation_at_the_end_gives_what_validation_in_every_round_ends_with(
    sage, folder: Path, tiny_bert: Path
) -> None:
    directory, expected = sage
    later, summary = toy_run(folder, tiny_bert, evaluate_validation="end")
    assert summary["validation"] == expected["validation"]
    assert [result["validation"] for result in summary["rounds"]] == [{}, {}, {}]
    assert [result["dev"] for result in summary["rounds"]] == [result["dev"] for result in expected["rounds"]]
    np.testing.assert_equal(later.predictions(), directory.predictions())
    tokens = [json.loads((one.path / "costs.json").read_text())["tokens"]["evaluate"] for one in (later, directory)]
    assert tokens[0] < tokens[1]


def test_a_run_that_is_tried_on_dev_alone_trains_alike_and_scores_nothing_else(
    sage, folder: Path, tiny_bert: Path
) -> None:
    directory, expected = sage
    tried, summary = toy_run(folder, tiny_bert, evaluate_validation="never")
    assert summary["validation"] == summary["evaluation"] == {}
    assert [result["dev"] for result in summary["rounds"]] == [result["dev"] for result in expected["rounds"]]
    assert tried.predictions().keys() == {"dev"}
    np.testing.assert_equal(tried.predictions()["dev"], directory.predictions()["dev"])


def test_exported_weights_equal_the_last_checkpoint(sage) -> None:
    from transformers import AutoModelForSequenceClassification

    directory, _ = sage
    checkpoint = directory.latest_checkpoint()
    model = AutoModelForSequenceClassification.from_pretrained(directory.student)
    torch.testing.assert_close(model.classifier.weight.data, checkpoint.student["head.output.weight"], rtol=0, atol=0)


def test_the_same_settings_give_the_same_result(sage, folder: Path, tiny_bert: Path) -> None:
    _, first = sage
    _, second = toy_run(folder, tiny_bert)
    for summary in (first, second):
        for result in summary["rounds"]:
            result.pop("seconds", None)
    assert first["rounds"] == second["rounds"]


def test_another_seed_gives_another_result(sage, folder: Path, tiny_bert: Path) -> None:
    _, other = toy_run(folder, tiny_bert, seed=1, rounds=1)
    assert other["rounds"][0]["train_loss"] != sage[1]["rounds"][0]["train_loss"]


def test_rounds_over_real_data_ask_no_block_of_the_teacher(sage, folder: Path, tiny_bert: Path) -> None:
    from torch.nn.modules.module import register_module_forward_pre_hook

    from sage_kit.models.split import InputLayers, UpperLayers

    blocks: list[int] = []  # of each model's upper layers that ran; the teacher has four, the student two
    input_layers: list[InputLayers] = []

    def count(module: torch.nn.Module, arguments: object) -> None:
        if isinstance(module, UpperLayers):
            blocks.append(module.n_blocks)
        elif isinstance(module, InputLayers):
            input_layers.append(module)

    handle = register_module_forward_pre_hook(count)
    try:
        _, summary = toy_run(folder, tiny_bert, schedule="none", rounds=2, seed=5)
    finally:
        handle.remove()
    assert len(summary["rounds"]) == 2
    assert set(blocks) == {2}
    # embeddings are looked up again
    assert not any(len(module.blocks) for module in input_layers)
    assert summary["teacher_tokens"] > 0  # the tokens that were labelled count, whoever computed them


def test_equal_steps_for_plain_distillation(sage, folder: Path, tiny_bert: Path) -> None:
    _, plain = toy_run(folder, tiny_bert, schedule="none", max_steps=sage[1]["student_steps"])
    assert plain["student_steps"] == sage[1]["student_steps"]
    assert all(r["synthetic"] == 0 for r in plain["rounds"])
    assert plain["stopped"] == f"{plain['student_steps']} student steps are done"
    assert plain["teacher_tokens"] < sage[1]["teacher_tokens"]


def test_static_schedule_synthesises_once(folder: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(folder, tiny_bert, schedule="static")
    assert directory.synthetic(2).exists()
    assert not directory.synthetic(3).exists()
    adaptive, _ = toy_run(folder, tiny_bert)
    assert not np.array_equal(load_file(adaptive.synthetic(2))["anchors"], load_file(adaptive.synthetic(3))["anchors"])
    assert summary["rounds"][2]["synthetic"] == summary["examples"]["train"]


def test_a_component_that_cannot_be_built_ends_the_run_at_its_start(tmp_path: Path, tiny_bert: Path) -> None:
    file = tmp_path / "boom.py"
    file.write_text(
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import LiftSpec\n"
        "@hookimpl\n"
        "def sage_lifts():\n"
        "    yield LiftSpec(name='boom', summary='x', factory=lambda options, context: 1 / 0)\n"
    )
    config = toy_config(tmp_path, tiny_bert, lift="boom")
    with pytest.raises(PluginError, match=r"lift 'boom' .* cannot be built: ZeroDivisionError"):
        run(config, Plugins([file], allow=""))
    assert not (tmp_path / "cache" / "teacher").exists()  # it had not even begun to make a teacher


class Listener:
    """Keeps what it hears of the losses."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, np.ndarray]] = []

    @hookimpl
    def sage_losses_profiled(self, run, round, losses) -> None:
        assert not losses.flags.writeable
        assert run.costs.seconds["student"] > 0
        self.heard.append((round, losses.copy()))


@pytest.mark.parametrize("schedule", ["adaptive", "none"])
def test_losses_are_told_after_each_round(folder: Path, tiny_bert: Path, schedule: str) -> None:
    listener = Listener()
    plugins = Plugins(allow="")
    plugins._register(listener, Origin("listener", "listener", "1"))
    config = toy_config(folder, tiny_bert, schedule=schedule, runs_dir=str(folder / f"listened-{schedule}"))
    directory, summary = run(config, plugins)
    assert [round for round, _ in listener.heard] == [1, 2, 3]
    assert {losses.shape for _, losses in listener.heard} == {(summary["examples"]["train"],)}
    for result, (_, losses) in zip(summary["rounds"], listener.heard, strict=True):
        assert losses.mean() == pytest.approx(result["train_loss"], rel=1e-5)
    np.testing.assert_array_equal(directory.latest_checkpoint().profile["losses"].numpy(), listener.heard[-1][1])


@pytest.mark.parametrize(("ratio", "real"), [(1.0, 0), (0.5, 0.5)])
def test_replace_takes_the_place_of_real_examples(folder: Path, tiny_bert: Path, ratio: float, real: float) -> None:
    directory, summary = toy_run(folder, tiny_bert, mix="replace", synthetic_ratio=ratio)
    n = summary["examples"]["train"]
    last = summary["rounds"][-1]
    assert last["synthetic"] == round(ratio * n)
    assert abs(last["steps"] - summary["rounds"][0]["steps"]) <= 2
    assert (last["train_loss"] is None) == (real == 0)
    # the profile of replaced examples follows their synthetic ones, so nothing stays unknown
    assert torch.isfinite(directory.latest_checkpoint().profile["losses"]).all()


def test_profile_by_a_pass_measures_every_real_example(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, mix="replace", losses_from="pass", stop_on="train", stop_agreement=0.6)
    assert summary["stopped"].startswith("agreement with the teacher on train")


def test_stops_at_the_agreement(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, stop_agreement=0.55)
    assert len(summary["rounds"]) < 3
    assert "agreement" in summary["stopped"]


@pytest.mark.parametrize("hidden_layers", ["last", "mapped", [1, 4]])
@pytest.mark.parametrize("hidden_loss", ["cosine", "mse"])
def test_hidden_states_are_learnt(folder: Path, tiny_bert: Path, hidden_layers, hidden_loss: str) -> None:
    _, without = toy_run(folder, tiny_bert, rounds=2)
    directory, summary = toy_run(
        folder, tiny_bert, rounds=2, hidden_weight=1.0, hidden_layers=hidden_layers, hidden_loss=hidden_loss,
        hard_label_weight=0.3,
    )  # fmt: skip
    assert summary["rounds"][1]["train_loss"] < summary["rounds"][0]["train_loss"]
    assert summary["rounds"][0]["train_loss"] != without["rounds"][0]["train_loss"]
    assert directory.student.is_dir()


def test_regression(tmp_path: Path, tiny_bert: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"] * 4.0 + 0.5} for row in tiny.toy_task_rows(300, seed=1)]
    tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    tiny.write_jsonl(tmp_path / "validation.jsonl", rows[:50])
    _, summary = toy_run(tmp_path, tiny_bert, task_kind="regression", hard_label_weight=0.2)
    assert summary["primary_metric"] == "pearson"
    assert summary["validation"]["validation"]["pearson"] > 0.5
    assert "calibration_error" not in summary["dev"]


@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_families_and_cuts(tmp_path: Path, tiny_roberta: Path, tiny_distilbert: Path, bypass) -> None:
    for teacher in (tiny_roberta, tiny_distilbert, tiny.make_checkpoint(tmp_path / "tiny-mpnet", "mpnet")):
        directory, summary = toy_run(tmp_path, teacher, bypass=bypass, rounds=2, teacher_epochs=1)
        texts = [row["text"] for row in tiny.toy_task_rows(120, seed=2)]
        labels = np.array([row["label"] for row in tiny.toy_task_rows(120, seed=2)])
        logits = plain_logits(directory.student, texts).numpy()
        assert float(np.mean(logits.argmax(-1) == labels)) == pytest.approx(
            summary["validation"]["validation"]["accuracy"]
        )


def test_bf16_learns_as_float32_does(folder: Path, tiny_bert: Path) -> None:
    """The same steps, order and dropout: only rounding is between the two."""
    # one teacher for both
    toy_run(folder, tiny_bert, rounds=1)
    teacher = next((folder / "cache" / "teacher").glob("*/model.safetensors")).parent
    (_, full), (_, short) = (
        toy_run(folder, teacher, rounds=3, schedule="none", precision=precision) for precision in ("fp32", "bf16")
    )
    for exact, rounded in zip(full["rounds"], short["rounds"], strict=True):
        assert rounded["steps"] == exact["steps"]
        assert rounded["train_loss"] == pytest.approx(exact["train_loss"], rel=0.03)
        assert rounded["train_loss"] != exact["train_loss"]
    assert full["rounds"][-1]["train_loss"] < full["rounds"][0]["train_loss"] / 3


@pytest.mark.parametrize("reason", ["", "the processor has neither avx512_bf16 nor amx_bf16"])
def test_bf16_says_where_it_is_slow(folder: Path, tiny_bert: Path, monkeypatch, capfd, reason: str) -> None:
    monkeypatch.setattr("sage_kit.training.preparation_steps.why_no_bf16", lambda device, machine: reason)
    toy_run(folder, tiny_bert, rounds=1, schedule="none", precision="bf16", observers=["progress"])
    told = capfd.readouterr()
    line = f"precision is 'bf16', but {reason}: it is slower here than precision='fp32'"
    assert (told.out + told.err).count(line) == bool(reason)


def test_bf16(folder: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(folder, tiny_bert, rounds=2, precision="bf16", hidden_weight=0.5)
    assert summary["precision"] == "bf16"
    assert summary["validation"]["validation"]["agreement"] > 0.75
    # the weights and the optimizer stay in float32
    assert all(value.dtype == torch.float32 for value in directory.latest_checkpoint().student.values())


def test_half_precision_vectors(folder: Path, tiny_bert: Path) -> None:
    _, half = toy_run(folder, tiny_bert, rounds=1, bypass=1, vector_dtype="float16")
    _, full = toy_run(folder, tiny_bert, rounds=1, bypass=1)
    assert half["rounds"][0]["train_loss"] == pytest.approx(full["rounds"][0]["train_loss"], rel=0.02)


def test_pooled_granularity_says_that_the_checkpoint_differs(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, granularity="pooled", lift="shift", rounds=2)
    assert summary["checkpoint_equals_student"] is False
    assert summary["teacher_tokens"] == 2 * summary["examples"]["train"]


def test_refitting_the_reducer_each_round(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, refit="every_round")
    assert len(summary["rounds"]) == 3


@pytest.mark.parametrize("inverter", ["knn", "native"])
def test_inverters(folder: Path, tiny_bert: Path, inverter: str) -> None:
    directory, _ = toy_run(folder, tiny_bert, inverter=inverter, rounds=2)
    assert np.isfinite(load_file(directory.synthetic(2))["vectors"]).all()


def test_native_inverter_of_a_cached_map_uses_its_stored_state(folder: Path, tiny_bert: Path, monkeypatch) -> None:
    fresh, _ = toy_run(folder, tiny_bert, inverter="native", rounds=2, n_components=3)
    from sage_kit.builtin.reducers.pca import PCAReducer

    def forbidden(*args: object) -> None:
        raise AssertionError("fitted again though its state is cached")

    monkeypatch.setattr(PCAReducer, "fit_transform", forbidden)
    again, _ = toy_run(folder, tiny_bert, inverter="native", rounds=2, n_components=3)
    np.testing.assert_array_equal(load_file(fresh.synthetic(2))["vectors"], load_file(again.synthetic(2))["vectors"])


def test_native_inverter_over_its_budget_stops_with_advice(folder: Path, tiny_bert: Path) -> None:
    with pytest.raises(BudgetError, match="knn"):
        toy_run(folder, tiny_bert, inverter="native", inverter_options={"budget_seconds": 1e-9})


def test_filter_drops_before_labelling(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, filter="cosine", filter_options={"minimum": 1.0}, rounds=2)
    last = summary["rounds"][-1]
    assert last["dropped"] + last["synthetic"] == summary["examples"]["train"]
    assert last["dropped"] > 0


class _Halving:
    """Keeps the examples that the teacher puts into class 1."""

    def keep(self, request):
        return request.logits.argmax(-1) == 1


class _LabelFilterPlugin:
    @hookimpl
    def sage_filters(self):
        yield FilterSpec(
            name="class_one", summary="Keeps class 1", options=Options, needs_labels=True,
            factory=lambda options, context: _Halving(),
        )  # fmt: skip


def test_filter_that_needs_labels_drops_after_labelling(folder: Path, tiny_bert: Path) -> None:
    from sage_kit.components.plugins import Origin

    plugins = Plugins(allow="")
    plugins._register(_LabelFilterPlugin(), Origin("test", "test", "1"))
    directory, summary = run(toy_config(folder, tiny_bert, filter="class_one", rounds=2), plugins)
    arrays = load_file(directory.synthetic(2))
    # of text, what was dropped is left out, so that batches are full
    assert arrays["kept"].all()
    assert (arrays["logits"].argmax(-1) == 1).all()
    last = summary["rounds"][-1]
    assert last["synthetic"] == len(arrays["kept"]) < summary["examples"]["train"]
    assert last["synthetic"] + last["dropped"] == summary["examples"]["train"]


def test_filter_that_needs_labels_leaves_gaps_where_examples_are_no_text(folder: Path, tiny_bert: Path) -> None:
    from sage_kit.components.plugins import Origin

    plugins = Plugins(allow="")
    plugins._register(_LabelFilterPlugin(), Origin("test", "test", "1"))
    config = toy_config(folder, tiny_bert, filter="class_one", rounds=2, lift="shift", lift_options={})
    directory, summary = run(config, plugins)
    arrays = load_file(directory.synthetic(2))
    np.testing.assert_array_equal(arrays["kept"], arrays["logits"].argmax(-1) == 1)
    assert summary["rounds"][-1]["synthetic"] == arrays["kept"].sum()
    assert summary["rounds"][-1]["dropped"] == (~arrays["kept"]).sum()


ANY_TOKENS: dict[str, Any] = {"sampler": "random", "sampler_options": {}, "lift": "replace_random", "lift_options": {}}


def test_no_map_is_fitted_where_nothing_looks_at_it_and_synthesis_begins_in_round_one(
    folder: Path, tiny_bert: Path
) -> None:
    directory, summary = toy_run(folder, tiny_bert, rounds=2, **ANY_TOKENS)
    costs = json.loads((directory.path / "costs.json").read_text())
    assert not costs["seconds"].keys() & {"reduce", "invert"}
    assert not directory.map.exists()
    assert [result["synthetic"] for result in summary["rounds"]] == [summary["examples"]["train"]] * 2
    first, second = (load_file(directory.synthetic(number)) for number in (1, 2))
    assert "coordinates" not in first
    assert len(first["tokens.ids"]) == first["tokens.offsets"][-1]
    assert not np.array_equal(first["tokens.ids"], second["tokens.ids"])


@pytest.mark.parametrize("bypass", ["embeddings", 1])
@pytest.mark.parametrize("schedule", ["adaptive", "static"])
def test_synthetic_text_is_labelled_as_the_teacher_labels_it(
    folder: Path, tmp_path: Path, tiny_bert: Path, bypass: Any, schedule: str
) -> None:
    """The saved ids, read by the whole teacher as stock transformers run it, give the saved labels."""
    from transformers import AutoModelForSequenceClassification

    config = toy_config(
        folder,
        tiny_bert,
        rounds=2,
        bypass=bypass,
        schedule=schedule,
        student_layers=1,
        cache_dir=str(tmp_path),
        **ANY_TOKENS,
    )
    directory, _ = run(config, Plugins(allow=""))
    [teacher] = [path.parent for path in Path(config.cache_dir).glob("teacher/*/config.json")]
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    arrays = load_file(directory.synthetic(1))
    offsets = arrays["tokens.offsets"]
    changed = 0
    for row in range(0, len(offsets) - 1, 5):
        own = slice(offsets[row], offsets[row + 1])
        ids, types = (torch.from_numpy(arrays[f"tokens.{name}"][own].astype(np.int64)) for name in ("ids", "types"))
        with torch.no_grad():
            logits = model(input_ids=ids[None], token_type_ids=types[None]).logits[0].numpy()
        np.testing.assert_allclose(arrays["logits"][row], logits, rtol=1e-4, atol=1e-5)
        changed += 1
    assert changed > 3


@pytest.mark.parametrize("more", [{}, {"hidden_weight": 0.5}, {"schedule": "static"}])
def test_a_filter_that_chooses_gets_more_and_leaves_full_batches(
    folder: Path, tiny_bert: Path, more: dict[str, Any]
) -> None:
    config = toy_config(
        folder, tiny_bert, rounds=2, filter="choose", filter_options={"factor": 3}, **ANY_TOKENS, **more
    )
    directory, summary = run(config, Plugins(allow=""))
    n = summary["examples"]["train"]
    last = summary["rounds"][-1]
    assert last["synthetic"] == n
    assert last["steps"] == 2 * math.ceil(n / config.batch_size)
    arrays = load_file(directory.synthetic(1))
    assert len(arrays["anchors"]) == n == len(arrays["student_logits"])
    assert summary["rounds"][0]["dropped"] == 2 * n
    costs = json.loads((directory.path / "costs.json").read_text())
    assert costs["flops"]["choose"] > 0


def test_a_filter_that_chooses_needs_text(folder: Path, tiny_bert: Path) -> None:
    with pytest.raises(CompatibilityError, match="must be text, and lift 'shift' makes none"):
        toy_run(folder, tiny_bert, filter="choose", lift="shift", lift_options={})


def test_the_map_of_a_deeper_layer(folder: Path, tiny_bert: Path) -> None:
    maps = []
    for layer in (0, 1):
        directory, summary = toy_run(folder / str(layer), tiny_bert, rounds=2, map_layer=layer)
        maps.append(load_file(directory.map)["coordinates"])
        assert summary["rounds"][1]["synthetic"] > 0
    assert maps[0].shape == maps[1].shape
    assert not np.allclose(*maps)
    with pytest.raises(CompatibilityError, match="map_layer is 9, but the teacher has 4 blocks"):
        toy_run(folder / "9", tiny_bert, map_layer=9)
    with pytest.raises(CompatibilityError, match="gives states of layer 1"):
        toy_run(folder / "native", tiny_bert, map_layer=1, inverter="native")


def test_a_filter_that_drops_everything_leaves_a_round_of_real_data(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, filter="cosine", filter_options={"minimum": 1.0}, rounds=2,
                         sampler_options={"k": 8, "jitter": 5.0, "interpolation": 1.0}, inverter="knn")  # fmt: skip
    last = summary["rounds"][-1]
    assert last["steps"] > 0
    assert last["synthetic"] + last["dropped"] == summary["examples"]["train"]


def test_synthetic_vectors_are_what_the_teacher_labelled(folder: Path, tiny_bert: Path) -> None:
    """The saved labels are the teacher's logits of the lifted token states, recomputed here from the saved arrays.

    The lift is one that is written down in a line.
    """
    from sage_kit.data import load_task, tokenize
    from sage_kit.models.split import split_model
    from sage_kit.models.teacher import load_teacher
    from sage_kit.storage.cache import Cache

    config = toy_config(folder, tiny_bert, rounds=2, lift="shift")
    plugins = Plugins(allow="")
    directory, _ = run(config, plugins)
    arrays = load_file(directory.synthetic(2))
    data = load_task(plugins.task("file"), config, lambda text: None)
    teacher = load_teacher(
        config, data, Cache(Path(config.cache_dir)), torch.device("cpu"), lambda text: None, lambda *a: None
    )
    input_layers, upper = split_model(teacher.model, "embeddings")
    tokens = tokenize(data.train, teacher.tokenizer, config.max_length)
    for row in range(0, len(arrays["anchors"]), 37):
        ids, types, mask = tokens.pad(arrays["anchors"][row : row + 1])
        with torch.no_grad():
            states = input_layers(ids, types, mask)
            pooled = states.mean(1)
            lifted = states + (torch.from_numpy(arrays["vectors"][row]) - pooled)[:, None]
            logits = upper(lifted, None).logits[0]
        torch.testing.assert_close(logits, torch.from_numpy(arrays["logits"][row]), rtol=1e-3, atol=1e-4)


def test_component_of_wrong_shape_is_named(tmp_path: Path, folder: Path, tiny_bert: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import ReducerSpec\n"
        "class Broken:\n"
        "    def fit_transform(self, vectors):\n"
        "        return vectors[:, :3]\n"
        "@hookimpl\n"
        "def sage_reducers():\n"
        "    yield ReducerSpec(name='broken', summary='wrong', factory=lambda options, context: Broken())\n"
    )
    with pytest.raises(PluginError, match=r"reducer 'broken' .*broken.py.*shape \(270, 3\) instead of \(270, 2\)"):
        run(toy_config(folder, tiny_bert, reducer="broken"), Plugins([file], allow=""))


def test_observer_that_fails_does_not_end_the_run(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "grumpy.py"
    file.write_text(
        "from sage_kit import hookimpl\n@hookimpl\ndef sage_round_finished(result):\n    raise RuntimeError('no')\n"
    )
    _, summary = run(toy_config(folder, tiny_bert, rounds=2), Plugins([file], allow=""))
    assert len(summary["rounds"]) == 2
    assert any("RuntimeError: no" in cause for cause in summary["disabled_observers"].values())


def test_a_run_that_fails_before_its_first_checkpoint_leaves_no_directory(folder: Path, tiny_bert: Path) -> None:
    target = folder / "nothing"
    with pytest.raises(CompatibilityError, match="max_length"):
        toy_run(folder, tiny_bert, run_dir=str(target), max_length=1000)
    assert not target.exists()


def test_used_run_directory_is_refused(sage, folder: Path, tiny_bert: Path) -> None:
    directory, _ = sage
    before = (directory.path / "summary.json").read_bytes()
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        toy_run(folder, tiny_bert, run_dir=str(directory.path))
    assert (directory.path / "summary.json").read_bytes() == before


def test_summary_predictions_helper_matches_argmax() -> None:
    from sage_kit.components import TaskSpec

    spec = TaskSpec(name="x", summary="x", text_columns=("t",), labels=("a", "b"))
    logits = np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(predictions(logits, spec), [1, 0])


def test_resume_of_a_finished_run_changes_nothing(sage) -> None:
    from sage_kit.distill import resume

    directory, summary = sage
    assert resume(RunDirectory.open(directory.path), Plugins(allow=""))["student_steps"] == summary["student_steps"]
