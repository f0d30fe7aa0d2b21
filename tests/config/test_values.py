from __future__ import annotations

from typing import Any

import pytest
from badsettings import message

from sage_kit.config import (
    load_config,
)
from sage_kit.storage.frozen import freeze


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("bypass", "embeddings", "embeddings"),
        ("bypass", "3", 3),
        ("bypass", 2, 2),
        ("rounds", "7", 7),
        ("learning_rate", "3e-4", 3e-4),
        ("compile", "true", True),
        ("student_init", "last", "last"),
        ("student_init", "0,2,4,6,8,10", [0, 2, 4, 6, 8, 10]),
        ("student_init", "[0, 1, 2, 3, 4, 5]", [0, 1, 2, 3, 4, 5]),
        ("hidden_layers", "mapped", "mapped"),
        ("observers", "jsonl, progress", ["jsonl", "progress"]),
        ("observers", "", []),
        ("label_names", ["no", "yes"], ["no", "yes"]),
        ("label_names", "no, yes", ["no", "yes"]),
        ("label_names", '["pos", "pos ", "a, b", "caf\\u00e9"]', ["pos", "pos ", "a, b", "caf\xe9"]),
        ("label_names", [-1, 0, 1.5, True], ["-1", "0", "1.5", "true"]),
        ("label_names", "-1,0,1", ["-1", "0", "1"]),
        ("delimiter", ";", ";"),
        ("delimiter", "tab", "\t"),
        ("delimiter", "\\t", "\t"),
        ("quote", "", ""),
        ("reducer_options", "", {}),
        ("reducer_options", "{}", {}),
        ("reducer_options", {"n_neighbors": 5}, {"n_neighbors": 5}),
        ("reducer_options", {"a": (1, 2), "b": {"c": True}}, {"a": [1, 2], "b": {"c": True}}),
        ("reducer_options", "n_neighbors=5, metric=cosine", {"n_neighbors": 5, "metric": "cosine"}),
        ("reducer_options", 'a="x, y", b=[1, 2], c={d = 1}', {"a": "x, y", "b": [1, 2], "c": {"d": 1}}),
        ("reducer_options", "a.b=1, a.c=two words", {"a": {"b": 1, "c": "two words"}}),
        ("reducer_options", "a=C:\\data, b=", {"a": "C:\\data", "b": ""}),
        ("task_options", "languages=[en, de], n=1", {"languages": ["en", "de"], "n": 1}),
        ("task_options", 'a=[[x, "y, z"], 2], b=[]', {"a": [["x", "y, z"], 2], "b": []}),
        ("observer_options", "jsonl={flush = true}", {"jsonl": {"flush": True}}),
    ],
)
def test_values(name: str, given: Any, expected: Any) -> None:
    value = getattr(load_config({name: given}), name)
    assert value == expected
    assert type(value) is type(freeze(expected))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"bypass": "foo"}, "setting 'bypass' is 'foo': input should be 'embeddings' or a valid integer"),
        ({"bypass": "--5"}, "setting 'bypass' is '--5': input should be 'embeddings' or a valid integer"),
        (
            {"label_names": '["a", "b"'},
            """setting 'label_names' is '["a", "b"': a list is written like ["one", "two"]""",
        ),
        ({"label_names": ["a", ""]}, "setting 'label_names', item 2, is '': String should have at least 1 character"),
        ({"delimiter": ";;"}, "setting 'delimiter' is ';;': expected one character, 'tab', or nothing"),
        ({"delimiter": '"'}, "delimiter and quote are both '\"': set one of them to another character"),
        ({"missing_labels": "keep"}, "setting 'missing_labels' is 'keep': input should be 'refuse' or 'drop'"),
        ({"bypass": 0}, "setting 'bypass' is 0: input should be 'embeddings' or greater than or equal to 1"),
        ({"schedule": "adaptve"}, "setting 'schedule' is 'adaptve': input should be 'adaptive', 'static' or 'none'"),
        (
            {"student_init": "foo"},
            "setting 'student_init' is 'foo': input should be 'uniform', 'spread', 'last' or 'scratch' or a valid list",
        ),
        (
            {"student_init": [1, "x"]},
            "setting 'student_init', item 2, is 'x': input should be a valid integer, unable to parse string as an "
            "integer",
        ),
        ({"student_init": [-1]}, "setting 'student_init', item 1, is -1: input should be greater than or equal to 0"),
        ({"observers": [1]}, "setting 'observers', item 1, is 1: input should be a valid string"),
        ({"rounds": 0}, "setting 'rounds' is 0: input should be greater than or equal to 1"),
        ({"rounds": True}, "setting 'rounds' is True: true and false do not belong here"),
        ({"bypass": True}, "setting 'bypass' is True: true and false do not belong here"),
        ({"learning_rate": float("inf")}, "setting 'learning_rate' is inf: input should be a finite number"),
        ({"temperature": float("nan")}, "setting 'temperature' is nan: input should be a finite number"),
        ({"seed": 2**32}, "setting 'seed' is 4294967296: input should be less than or equal to 4294967295"),
        ({"task": 3}, "setting 'task' is 3: input should be a valid string"),
        ({"reducer_options": 3}, "setting 'reducer_options' is 3: input should be a valid dictionary"),
        ({"reducer_options": "k"}, "setting 'reducer_options' is 'k': expected name=value pairs separated by commas"),
        (
            {"task_options": "languages=en,de"},
            "setting 'task_options' is 'languages=en,de': 'de' has no name; a list stands in brackets, like "
            "languages=[one, two]",
        ),
        (
            {"reducer_options": "a=[1"},
            "setting 'reducer_options' is 'a=[1': 'a=[1' is not a name=value pair; put text in quotes",
        ),
        (
            {"reducer_options": {"a": {"b": None}}},
            "setting 'reducer_options' is {'a': {'b': None}}: 'a.b' is None, which is neither text, number, boolean, "
            "list nor table",
        ),
        ({"lift_options": {1: 2}}, "setting 'lift_options' is {1: 2}: the name 1 is not text"),
    ],
)
def test_bad_value_gives_one_message(overrides: dict[str, Any], expected: str) -> None:
    assert message(overrides) == expected


def test_long_values_are_shortened() -> None:
    assert len(message({"schedule": "x" * 1000})) < 200


def test_unknown_setting_gives_the_closest_name_and_no_long_list() -> None:
    assert message({"rouns": 3}) == (
        "Unknown setting 'rouns'. Did you mean 'rounds'? `sage-kit config` lists all settings."
    )


def test_all_mistakes_are_told_at_once() -> None:
    text = message({"rouns": 3, "bypass": "foo", "rounds": 0})
    assert text.count("; ") == 2
    assert all(word in text for word in ("'rouns'", "'bypass'", "'rounds' is 0"))
