from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from sage_kit.components import Options
from sage_kit.config import RunConfig, load_config, to_toml
from sage_kit.storage.frozen import FrozenList, FrozenTable, freeze, frozen_copy

STEPS = [{"name": "pca", "options": {"whiten": True}}, {"name": "umap", "list": [1, [2, 3]]}]

CHANGES: list[Callable[[Any], Any]] = [
    lambda c: c.reducer_options.__setitem__("k", 3),
    lambda c: c.reducer_options.__delitem__("steps"),
    lambda c: c.reducer_options.update(k=3),
    lambda c: c.reducer_options.__ior__({"k": 3}),
    lambda c: c.reducer_options.pop("steps"),
    lambda c: c.reducer_options.popitem(),
    lambda c: c.reducer_options.clear(),
    lambda c: c.reducer_options.setdefault("k", 3),
    lambda c: c.reducer_options["steps"].append({}),
    lambda c: c.reducer_options["steps"].__setitem__(0, {}),
    lambda c: c.reducer_options["steps"].__iadd__([{}]),
    lambda c: c.reducer_options["steps"].__imul__(2),
    lambda c: c.reducer_options["steps"].pop(),
    lambda c: c.reducer_options["steps"].remove({}),
    lambda c: c.reducer_options["steps"].insert(0, {}),
    lambda c: c.reducer_options["steps"].extend([{}]),
    lambda c: c.reducer_options["steps"].clear(),
    lambda c: c.reducer_options["steps"].reverse(),
    lambda c: c.reducer_options["steps"].sort(),
    lambda c: c.reducer_options["steps"].__delitem__(0),
    lambda c: c.reducer_options["steps"][0]["options"].__setitem__("whiten", False),
    lambda c: c.reducer_options["steps"][1]["list"][1].append(4),
    lambda c: c.sampler_options.__setitem__("k", 3),  # a default
    lambda c: c.observers.append("tracker"),
    lambda c: c.label_names.append("more"),
    lambda c: c.student_init.append(5),
    lambda c: c.hidden_layers.append(5),
]


def config() -> RunConfig:
    lists = {"student_init": [0, 1], "hidden_layers": [1, 2], "student_layers": 2}
    return load_config({"reducer": "hybrid", "reducer_options": {"steps": STEPS}, **lists})


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_a_configuration_can_be_changed(change: Callable[[Any], Any]) -> None:
    chosen = config()
    before = chosen.model_dump()
    with pytest.raises(TypeError, match=r"this (table|list) is read-only: change a copy of it, (dict|list)\(\.\.\.\)"):
        change(chosen)
    assert chosen.model_dump() == before == config().model_dump()


def test_frozen_tables_are_equal_to_plain_ones_and_are_written_as_such() -> None:
    chosen = config()
    assert chosen.reducer_options == {"steps": STEPS}
    assert chosen.student_init == [0, 1]
    assert json.loads(chosen.model_dump_json()) == chosen.model_dump(mode="json")
    assert json.loads(json.dumps(chosen.reducer_options)) == {"steps": STEPS}
    assert type(chosen.model_dump()["reducer_options"]["steps"][0]["options"]) is dict


def test_frozen_settings_come_back_from_toml(tmp_path: Any) -> None:
    chosen = config()
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(chosen))
    assert load_config(file=file) == chosen


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_a_configuration_is_equal_and_frozen(made: Callable[[Any], Any]) -> None:
    chosen = made(config())
    assert chosen == config()
    with pytest.raises(TypeError):
        chosen.reducer_options["steps"].append({})


def test_a_plain_copy_of_a_table_can_be_changed() -> None:
    options = {**config().reducer_options, "k": 3}
    options["k"] = 4
    steps = list(config().reducer_options["steps"])
    steps.append({})
    assert (options["k"], len(steps)) == (4, 3)


def test_tuples_are_looked_into() -> None:
    frozen = freeze(([1], {"a": [2]}, "text"))
    assert frozen == ([1], {"a": [2]}, "text")
    assert isinstance(frozen[0], FrozenList)
    assert isinstance(frozen[1], FrozenTable)
    assert isinstance(frozen[1]["a"], FrozenList)


def test_options_of_a_component_are_frozen_too() -> None:
    class Mine(Options):
        names: list[str] = Field(default=["a"])
        table: dict[str, Any] = Field(default={})

    for options in (Mine(), Mine(names=["b"], table={"k": [1]})):
        with pytest.raises(TypeError):
            options.names.append("c")
        with pytest.raises(TypeError):
            options.table["k"] = 3
    # the class's own defaults are nobody's to change either
    assert Mine().model_dump() == {"names": ["a"], "table": {}}


@pytest.mark.parametrize("values", [np.arange(6.0, dtype=np.float32).reshape(2, 3).T, np.zeros((0, 2)), [True, False]])
def test_a_frozen_copy_is_an_equal_copy_that_no_flag_makes_writable(values: Any) -> None:
    frozen = frozen_copy(values)
    np.testing.assert_array_equal(frozen, values)
    assert frozen.dtype == np.asarray(values).dtype
    with pytest.raises(ValueError, match="WRITEABLE"):
        frozen.flags.writeable = True
    base = frozen
    while base is not None:
        assert not getattr(getattr(base, "flags", None), "writeable", False)
        base = getattr(base, "base", None)


def test_a_frozen_copy_does_not_follow_what_it_was_made_from() -> None:
    values = np.zeros(3)
    frozen = frozen_copy(values)
    values[:] = 1
    assert frozen.sum() == 0


def test_what_a_frozen_copy_holds_is_not_copied_again() -> None:
    values = np.arange(6.0).reshape(2, 3)
    once = frozen_copy(values)
    assert frozen_copy(once) is once
    assert np.shares_memory(frozen_copy(once[1]), once)
    view = values.view()
    view.flags.writeable = False  # its owner can still write
    assert not np.shares_memory(frozen_copy(view), values)
