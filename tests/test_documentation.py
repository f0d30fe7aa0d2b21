"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_config, toy_settings

from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.testing import check_component

ROOT = Path(__file__).parent.parent


def examples() -> dict[str, str]:
    """The files of the tutorial, by name."""
    text = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", text, flags=re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


def test_the_tutorial_has_its_files() -> None:
    plugins = "kernel_map one_line easy_pairs other_half centred_states more_metrics watch plateau rembert pre_norm"
    plugins += " ordinal_kind"
    assert set(examples()) == {f"{name}.py" for name in [*plugins.split(), "study"]}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("kernel_map.py", {"reducer": "kernel_map", "reducer_options": {"gamma": 0.1}, "inverter": "native"}),
        ("one_line.py", {"reducer": "kernel_map", "inverter": "native"}),
        ("easy_pairs.py", {"sampler": "easy_pairs", "sampler_options": {}}),
        ("other_half.py", {"lift": "other_half", "lift_options": {}}),
        ("ordinal_kind.py", {"task_kind": "ordinal"}),
        ("centred_states.py", {"losses": {"kl": 1.0, "centred_states": {"start": 1.0, "end": 0.0}}}),
        ("more_metrics.py", {"metrics": ["kappa", "accuracy"]}),
        ("watch.py", {}),
        ("plateau.py", {}),
    ],
)
def test_examples_run(name: str, settings, folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / name
    file.write_text(examples()[name], encoding="utf-8")
    config = toy_config(folder, tiny_bert, rounds=2, **settings)
    _, summary = run(config, Plugins([file], allow=""))
    assert summary["rounds"][1]["synthetic"] == summary["examples"]["train"]
    assert summary["disabled_observers"] == {}
    if name == "watch.py":
        assert "round 2: agreement" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "kernel_map.py",
        "one_line.py",
        "easy_pairs.py",
        "other_half.py",
        "centred_states.py",
        "more_metrics.py",
        "ordinal_kind.py",
        "rembert.py",
        "pre_norm.py",
    ],
)
def test_examples_pass_their_checks(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(examples()[name], encoding="utf-8")
    plugins = Plugins([file], allow="")
    items = [item for item in plugins.components() if item.origin.distribution == str(file)]
    assert items
    for item in items:
        results = check_component(item.spec, plugins=plugins)
        assert len(results) > 8
        assert {result.name: result.message for result in results if not result.passed} == {}


def test_the_tutorial_ends_in_a_study(folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = folder / "kernel_map.py"
    plugin.write_text(examples()["kernel_map.py"], encoding="utf-8")
    module: dict[str, Any] = {}
    exec(compile(examples()["study.py"], "study.py", "exec"), module)
    settings = toy_settings(folder, tiny_bert, rounds=2, runs_dir=str(folder / "study"))
    found = module["study"](settings, [0, 1], str(plugin))
    assert {arm: len(values) for arm, values in found.items()} == {"kernel_map": 2, "pca": 2, "plain": 2}
    assert len(list((folder / "study").glob("*/*/summary.json"))) == 6
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["kernel_map over pca", "kernel_map over plain"]


def test_the_file_in_readme_is_a_plugin(folder: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# mine.py.*?)```", readme, flags=re.DOTALL)
    file = folder / "mine.py"
    file.write_text(code, encoding="utf-8")
    assert Plugins([file], allow="").reducer("kernel_pca").has_inverse


def test_the_reducer_of_the_newcomers_tutorial_passes_its_checks(folder: Path) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- file: my_reducer.py -->\n```python\n(.*?)```", page, flags=re.DOTALL)
    file = folder / "my_reducer.py"
    file.write_text(code, encoding="utf-8")
    plugins = Plugins([file], allow="")
    results = check_component(plugins.spec("reducer", "mixed_components"), plugins=plugins)
    assert {result.name: result.message for result in results if not result.passed} == {}


def test_every_command_and_component_has_its_place() -> None:
    from sage_kit.cli import app

    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"`sage-kit {name}" in commands
    kinds = (ROOT / "docs" / "component-kinds.md").read_text(encoding="utf-8")
    for item in Plugins(allow="").components():
        if item.spec.kind != "task":
            assert f"`{item.spec.name}`" in kinds
