"""How long runs will take, from earlier runs and from FLOPs."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sage_kit.config import RunConfig, load_config, to_toml
from sage_kit.studies import effort
from sage_kit.studies.effort import Effort, Planned, checkpoint_sizes, product_rate, read_paces
from sage_kit.system.machine import describe_machine


def leave_run(root: Path, name: str, *, seconds: float, steps: int = 100, flops: float = 1e9, processor: str = "",
              **settings: Any) -> None:  # fmt: skip
    """Leave what a finished run leaves."""
    config = load_config({"task": "sst2", **settings})
    folder = root / config.task / name
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config, comments=False), encoding="utf-8")
    texts = {
        "summary.json": {"student_steps": steps, "seconds": seconds},
        "costs.json": {"flops": {"student": flops}},
        "environment.json": {"processor": processor or describe_machine().processor},
    }
    for file, content in texts.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")


def data_of(config: RunConfig) -> Any:
    split = SimpleNamespace(texts=["one two three four"] * 50, pairs=None)
    sized = type("Sized", (), {"__len__": lambda self: 50, "texts": split.texts, "pairs": None})()
    return SimpleNamespace(train=sized, dev=sized, teacher=sized, evaluation=sized, validation={"validation": sized})


def planned(steps: int = 200, *, found: bool = False, **settings: Any) -> Planned:
    return Planned(load_config({"task": "sst2", **settings}), steps, found)


def test_runs_of_the_same_kind_come_first(tmp_path: Path) -> None:
    for number, seconds in enumerate((30.0, 60.0, 90.0)):
        leave_run(tmp_path, f"a{number}", seconds=seconds)
    leave_run(tmp_path, "plain", seconds=10.0, schedule="none")
    leave_run(tmp_path, "elsewhere", seconds=1e6, processor="abacus")
    leave_run(tmp_path, "longer", seconds=1e6, max_length=512)
    one = Effort(tmp_path, data_of)
    # 0.6 s per step is the median; 200 steps of two runs
    assert one.text([planned(), planned(), planned(found=True)]) == (
        "3 runs: 1 found, 2 to make, about 4 minutes of one core (as earlier runs took)."
    )
    assert "about 20 s of one core" in one.text([planned(schedule="none", lift="shift")])
    # another synthesis takes the time of those that synthesise
    assert "about 2 minutes of one core (as earlier runs took)" in one.text([planned(lift="shift")])


def test_without_runs_of_its_kind_flops_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Effort(tmp_path, data_of)
    monkeypatch.setattr(effort, "product_rate", lambda precision: 2e9)
    text = one.text([planned()])
    assert "(by their FLOPs, at half the rate of matrix products here)" in text
    assert "to fine-tune 1 teacher." in text
    seconds, _ = one._seconds(planned(), [], [])
    leave_run(tmp_path, "other", seconds=10.0, flops=1e10, max_length=512)
    monkeypatch.undo()
    again, source = one._seconds(planned(), [], read_paces(tmp_path / "sst2"))
    assert source == "by their FLOPs, at the rate of earlier runs"
    assert again == pytest.approx(seconds)  # 1e9 per second either way
    plain, _ = one._seconds(planned(schedule="none"), [], read_paces(tmp_path / "sst2"))
    assert plain < again  # no teacher on synthetic examples
    # a block of half the width, inner width included, has a quarter of the linear layers and half of the attention
    narrow, _ = one._seconds(planned(schedule="none", student_width=384), [], read_paces(tmp_path / "sst2"))
    assert plain / 4 < narrow < plain / 2


def test_runs_from_before_a_setting_was_there_count_as_its_default(tmp_path: Path) -> None:
    leave_run(tmp_path, "earlier", seconds=10.0)
    path = tmp_path / "sst2" / "earlier" / "config.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("student_width")), encoding="utf-8")
    one = Effort(tmp_path, data_of)
    assert "as earlier runs took" in one.text([planned()])
    assert "as earlier runs took" not in one.text([planned(student_width=192)])


def test_nothing_to_make_takes_no_time(tmp_path: Path) -> None:
    assert Effort(tmp_path, data_of).text([planned(found=True)]) == "1 run: 1 found, 0 to make."


def test_what_a_run_did_not_finish_or_an_old_one_left_is_passed_over(tmp_path: Path) -> None:
    leave_run(tmp_path, "whole", seconds=10.0)
    leave_run(tmp_path, "torn", seconds=10.0)
    (tmp_path / "sst2" / "torn" / "costs.json").write_text("{", encoding="utf-8")
    leave_run(tmp_path, "none", seconds=10.0, steps=0)
    assert len(read_paces(tmp_path / "sst2")) == 1
    assert read_paces(tmp_path / "nowhere") == []


def test_sizes_of_a_checkpoint(tiny_bert: Path) -> None:
    told = json.loads((tiny_bert / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    assert checkpoint_sizes(str(tiny_bert)) == tuple(told[name] for name in names)
    assert checkpoint_sizes("nobody/knows-this") == (768, 3072, 12)


def test_the_rate_of_products_is_measured() -> None:
    assert 1e8 < product_rate("fp32") < 1e15


def test_an_estimate_of_one_run_says_how_far_off_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "product_rate", lambda precision: 2e9)
    one = Effort(tmp_path, data_of)
    by_flops = one.estimate(planned())
    assert by_flops.teacher > 0
    assert not by_flops.is_measured
    assert by_flops.low == pytest.approx(by_flops.seconds / effort.OFF_BY_FLOPS)
    assert by_flops.high == pytest.approx(by_flops.seconds * effort.OFF_BY_FLOPS)
    leave_run(tmp_path, "a", seconds=30.0)
    by_one = one.estimate(planned())
    assert (by_one.seconds, by_one.low, by_one.high, by_one.teacher) == (60.0, 20.0, 180.0, 0.0)
    assert by_one.source == "as earlier runs took: 1 run of its kind"
    for name, seconds in (("b", 60.0), ("c", 90.0)):
        leave_run(tmp_path, name, seconds=seconds)
    by_three = one.estimate(planned())
    assert (by_three.seconds, by_three.low, by_three.high, by_three.is_measured) == (120.0, 60.0, 180.0, True)


def test_a_run_of_the_command_counts_on_the_machine_that_made_it(tmp_path: Path) -> None:
    for name, system in (("here", platform.platform()), ("elsewhere", "Abacus-1")):
        leave_run(tmp_path, name, seconds=10.0)
        file = tmp_path / "sst2" / name / "environment.json"
        file.write_text(json.dumps({"platform": system, "processors": os.cpu_count()}), encoding="utf-8")
    assert len(read_paces(tmp_path / "sst2")) == 1


def test_parameters_of_a_checkpoint_are_those_of_its_model(tiny_bert: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_bert)
    embeddings, block = effort.parameters_of(str(tiny_bert))
    assert block == sum(p.numel() for p in model.encoder.layer[0].parameters())
    assert embeddings == pytest.approx(sum(p.numel() for p in model.embeddings.parameters()), rel=0.01)
