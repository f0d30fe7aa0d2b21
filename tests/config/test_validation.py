from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from sage_kit.components import Options
from sage_kit.config import (
    explain,
)


class Inner(Options):
    depth: int = 1


class Example(Options):
    k: int = Field(default=3, ge=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    limit: int | None = None
    size: int | Literal["auto"] | None = None
    inner: Inner = Inner()
    shares: dict[str, float] = Field(default_factory=dict)
    needed: str


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"k": 0}, "option 'k' is 0: input should be greater than or equal to 1"),
        (
            {"kk": 1},
            "Unknown option 'kk'. Did you mean 'k'? Available: inner, k, limit, metric, needed, shares, size.",
        ),
        (
            {"limit": "x"},
            "option 'limit' is 'x': input should be a valid integer, unable to parse string as an integer",
        ),
        ({"size": "x"}, "option 'size' is 'x': input should be a valid integer or 'auto'"),
        ({"inner": {"depth": "x"}}, "option 'inner', 'depth', is 'x': input should be a valid integer, unable to "),
        ({"shares": {"a": "x"}}, "option 'shares', 'a', is 'x': input should be a valid number, unable to "),
        ({"needed": None}, "option 'needed' is None: input should be a valid string"),
    ],
)
def test_explain(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"needed": "", **values})
    assert explain(caught.value, Example, "option").startswith(expected)


def test_explain_missing_option() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({})
    assert explain(caught.value, Example, "option") == "option 'needed' is required"
