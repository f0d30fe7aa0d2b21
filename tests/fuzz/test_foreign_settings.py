"""Settings, grids, spaces and notebooks' parameters of any content are taken, or refused in one line."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from commandline import LONGEST, call_well
from damage import FOREIGN, damaged
from hypothesis import given
from hypothesis import strategies as st

from sage_kit.config import RunConfig, load_config, to_toml
from sage_kit.errors import SageError
from sage_kit.searching.search_space import read_space
from sage_kit.studies.grid import grid_cells
from sage_kit.studies.parameters import check, list_notebooks, notebooks_folder, read_parameters

SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(sorted(RunConfig.model_fields))
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["1e308", "1e300", "nan", "-inf", "9" * 5000, "[", "a=1,b", "{a=}", "a=[[[["]),
    st.text(alphabet="[]{}=,.\"'0123456789eE-+\n\udcff\x00a", max_size=20),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.sampled_from(FOREIGN), st.floats(), st.integers(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def one_line(error: SageError) -> None:
    from sage_kit.errors import printable

    assert "\n" not in printable(str(error))
    assert len(printable(str(error))) <= LONGEST


@given(st.dictionaries(NAMES, st.one_of(TEXTS, VALUES), max_size=4))
def test_settings(values: dict[str, Any]) -> None:
    try:
        config = load_config(values)
    except SageError as error:
        one_line(error)
        return
    with tempfile.TemporaryDirectory() as folder:  # and what is taken can be written and read back
        path = Path(folder) / "config.toml"
        path.write_text(to_toml(config), encoding="utf-8")
        assert load_config(file=path) == config


@given(SEEDS)
def test_files_of_settings(seed: int) -> None:
    data = damaged(to_toml(load_config({"sampler_options": {"k": 3}})).encode(), "config.toml", random.Random(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(data)
        call_well("config", "--config", str(path))


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=3))
def test_spaces_of_a_search(values: list[tuple[str, str]]) -> None:
    try:
        read_space([f"{name}={text}" for name, text in values])
    except SageError as error:
        one_line(error)


@given(SEEDS, st.sampled_from(["toml", "json", "yaml"]))
def test_grids(seed: int, ending: str) -> None:
    if ending == "yaml":
        pytest.importorskip("yaml", reason="needs the extra `notebooks`")
    grid = {"study": "05", "profile": "smoke", "seeds": [1, 2], "cells": [{"study": "04", "task": "rte"}, {"seeds": 3}]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"grid.{ending}"
        path.write_bytes(damaged(written(grid, ending), path.name, random.Random(seed)))
        try:
            grid_cells(notebooks_folder(), Path(folder) / "cells", "", path)
        except SageError as error:
            one_line(error)


def written(grid: dict[str, Any], ending: str) -> bytes:
    if ending == "json":
        return json.dumps(grid).encode()
    if ending == "toml":
        import tomlkit

        return tomlkit.dumps(grid).encode()
    import yaml

    return str(yaml.safe_dump(grid)).encode()


@given(st.data())
def test_parameters_of_notebooks(data: st.DataObject) -> None:
    notebook = data.draw(st.sampled_from(list_notebooks(notebooks_folder())), "notebook")
    parameters = read_parameters(notebook)
    names = st.sampled_from([parameter.name for parameter in parameters])
    values = data.draw(st.dictionaries(names, st.one_of(TEXTS, VALUES), max_size=3), "values")
    try:
        check(parameters, values, study=notebook.stem)
    except SageError as error:
        one_line(error)


@given(SEEDS)
def test_notebooks(seed: int) -> None:
    data = list_notebooks(notebooks_folder())[0].read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "01_x.ipynb"
        path.write_bytes(damaged(data, path.name, random.Random(seed)))
        call_well("study", "list", "--notebooks", folder)
        try:
            read_parameters(path)
        except SageError as error:
            one_line(error)
