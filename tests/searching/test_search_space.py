"""What may be searched, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import ConfigError, SageError
from sage_kit.searching.search_space import (
    Choices,
    Span,
    check_space,
    default_values,
    read_space,
    small_space,
    takes,
    with_values,
)

PLUGINS = Plugins(allow="")


def test_ranges_and_lists_are_read() -> None:
    space = read_space(
        [
            "learning_rate=log:1e-5:5e-4",
            "n_components=2:8",
            "synthetic_ratio=1:3",
            "sampler=high_loss, random",
            "student_init=[0, 1, 2],[3, 4, 5]",
            "lift_options.consistent=true,false",
            "sampler_options.k=4:16",
        ]
    )
    assert space == {
        "learning_rate": Span(1e-5, 5e-4, log=True),
        "n_components": Span(2, 8),
        "synthetic_ratio": Span(1.0, 3.0),
        "sampler": Choices(("high_loss", "random")),
        "student_init": Choices(([0, 1, 2], [3, 4, 5])),
        "lift_options.consistent": Choices((True, False)),
        "sampler_options.k": Span(4, 16),
    }
    # of a number that is no whole one the ends are none either, also where they look like it
    assert not space["synthetic_ratio"].is_whole
    assert space["n_components"].is_whole
    assert space["sampler_options.k"].is_whole


def test_a_file_says_the_same_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        'learning_rate = {low = 1e-5, high = 5e-4, log = true}\nsampler = ["high_loss", "random"]\n'
        'temperature = "0.5:4.0"\n"lift_options.share" = [0.1, 0.3]\n[sampler_options]\nk = {low = 4, high = 16}\n'
    )
    space = read_space(["sampler=random,low_loss"], str(file))
    assert space == {
        "learning_rate": Span(1e-5, 5e-4, log=True),
        "sampler": Choices(("random", "low_loss")),
        "temperature": Span(0.5, 4.0),
        "lift_options.share": Choices((0.1, 0.3)),
        "sampler_options.k": Span(4, 16),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat=1e-5:1e-4", "unknown setting 'learning_rat'. Did you mean 'learning_rate'?"),
        ("learning_rate", "expected NAME=VALUES"),
        ("learning_rate=1e-4", "1.0e-04|0.0001 leaves no choice"),
        ("learning_rate=1e-4:1e-5", "is no range: the first number must be the smaller one"),
        ("learning_rate=log:0:1e-4", "is not above 0"),
        ("learning_rate=1e-5:1e-4:3", "is no range: write LOW:HIGH"),
        ("rounds=1.5:3", "are not whole numbers, which rounds takes"),
        ("sampler=random,random", "random is named twice"),
        ("sampler=", "leaves no choice"),
        ("seed=1:5", "seed cannot be searched: a seed is chance"),
        ("transfer_seed=1:5", "a seed is chance"),
        ("teacher=a,b", "teacher cannot be searched"),
        ("train_rows=100,200", "train_rows cannot be searched: tries|trials on other data"),
        ("device=cpu,cuda", "it is no part of the method"),
        ("learning_rate.low=1,2", "setting 'learning_rate' is no table of options"),
    ],
)
def test_bad_spaces_are_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space([text])
    line = str(caught.value)
    assert any(part in line for part in said.split("|")), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("learning_rate = [1e-4", "is not valid TOML"),
        ("learning_rate = {low = 1e-5, hi = 1}", "unknown key 'hi'. Did you mean 'high'?"),
        ("learning_rate = {low = 1e-5, high = '1'}", "give two numbers"),
        ("learning_rate = {low = 1e-5, high = 1, log = 1}", "write true or false"),
        ("learning_rate = 1e-4", "leaves no choice"),
    ],
)
def test_bad_files_are_one_line(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        read_space([], str(file))
    with pytest.raises(ConfigError, match="No such file"):
        read_space([], str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["sampler=high_loss,randon"],
            "search space, sampler = randon: Unknown sampler 'randon'. Did you mean 'random'?",
        ),
        (["learning_rate=-1:1"], "search space, learning_rate = -1: setting 'learning_rate'"),
        (["sampler_options.q=1,2"], "sampler 'random' has no option 'q'"),
        (["sampler=high_loss,low_loss", "sampler_options.fractoin=0.1:0.5"], "Did you mean 'fraction'?"),
        (["lift_options.share=0.1:1.5"], "search space, lift_options.share = 1.5: lift 'replace'"),
        (["losses.kl=0.5:1.0", "losses.kll=0.5:1.0"], "search space, losses.kll"),
    ],
)
def test_values_are_checked_before_anything_runs(texts: list[str], said: str) -> None:
    with pytest.raises(SageError) as caught:
        check_space(load_config({"reducer": "pca"}), read_space(texts), PLUGINS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_may_need_another_one_that_is_searched() -> None:
    base = load_config({"reducer": "pca", "synthetic_ratio": 2.0})
    with pytest.raises(ConfigError, match="mix = replace"):
        check_space(base, read_space(["mix=add,replace"]), PLUGINS)
    check_space(base, read_space(["mix=add,replace", "synthetic_ratio=0.5:2"]), PLUGINS)


def test_options_leave_with_their_component_and_are_drawn_where_it_has_them() -> None:
    base = load_config({"reducer": "pca", "sampler": "high_loss", "sampler_options": {"fraction": 0.3}})
    assert with_values(base, {"sampler": "random"}).sampler_options == {}
    kept = with_values(base, {"sampler": "high_loss", "sampler_options.k": 4, "learning_rate": 1e-3})
    assert kept.sampler_options == {"fraction": 0.3, "k": 4}
    assert kept.learning_rate == 1e-3
    assert takes(base, PLUGINS, "sampler_options.fraction", {})
    assert not takes(base, PLUGINS, "sampler_options.fraction", {"sampler": "random"})


def test_the_default_is_told_as_far_as_the_space_holds_it() -> None:
    base = load_config({"reducer": "pca", "sampler": "high_loss", "learning_rate": 1e-4})
    space = read_space(
        ["learning_rate=2e-4:1e-3", "sampler=high_loss,random", "sampler_options.fraction=0.1:1.0", "rounds=2,5"]
    )
    fraction = PLUGINS.options("sampler", "high_loss", {}).model_dump()["fraction"]
    assert default_values(base, space, PLUGINS) == {
        "sampler": "high_loss", "rounds": "5", "sampler_options.fraction": fraction,
    }  # fmt: skip


def test_a_small_space_is_listed_without_what_is_not_drawn() -> None:
    base = load_config({"reducer": "pca"})
    space = read_space(["sampler=high_loss,random", "sampler_options.fraction=0.1,0.5"])
    assert small_space(base, space, PLUGINS) == [
        {"sampler": "high_loss", "sampler_options.fraction": "0.1"},
        {"sampler": "high_loss", "sampler_options.fraction": "0.5"},
        {"sampler": "random"},
    ]
    assert small_space(base, read_space(["learning_rate=1e-5:1e-4"]), PLUGINS) is None
