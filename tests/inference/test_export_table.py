"""What the table of an exported student says of int8, and how its latencies are paired."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'sage-kit[onnx]'")

from sage_kit.data.splits import Split
from sage_kit.data.tokens import Tokens
from sage_kit.inference import export_table
from sage_kit.inference.export_rows import spread
from sage_kit.inference.export_table import INT8, ONNX, STUDENT, Contender, Line, losses_of_int8, measure_latencies


def lines(own: float, int8: float) -> dict[str, Line]:
    return {
        STUDENT: Line(STUDENT, 1.0, {"validation": {"accuracy": own}}),
        INT8: Line(INT8, 1.0, {"validation": {"accuracy": int8}}),
    }


@pytest.mark.parametrize(("int8", "said"), [(0.895, False), (0.95, False), (0.885, True)])
def test_a_loss_of_more_than_a_point_is_said(int8: float, said: bool) -> None:
    spec = SimpleNamespace(metrics=("accuracy",), measures={}, name="sst2")
    encoded: Any = {"validation": SimpleNamespace(spec=spec)}
    found = losses_of_int8(lines(0.9, int8), encoded)
    assert bool(found) == said
    if said:
        assert "int8 loses 1.5 points of accuracy on validation, from 90.0 to 88.5" in found[0]


def test_pairs_take_turns_on_the_same_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(export_table.time, "process_time", lambda: clock.now)
    ids = np.arange(40, dtype=np.int32)
    tokens = Tokens(ids, np.zeros(40, np.uint8), np.arange(41), np.zeros(40, bool), np.zeros(40, bool), 0)
    seen: list[tuple[str, int, int]] = []

    def of(name: str, seconds: float) -> Contender:
        def compute(inputs: Any) -> None:
            seen.append((name, *cast("tuple[int, int]", (inputs["input_ids"][0, 0], len(inputs["input_ids"])))))
            clock.now += seconds

        return Contender(tokens, ("input_ids",), compute)

    table = {STUDENT: Line(STUDENT, 1.0), ONNX: Line(ONNX, 1.0)}
    measure_latencies(table, {STUDENT: of(STUDENT, 0.03), ONNX: of(ONNX, 0.01)}, 3, (1, 32))
    (one, other) = table[ONNX].latencies
    assert one.milliseconds == pytest.approx(10)
    assert one.speedup == pytest.approx((3, 3, 3))
    assert (one.batch, other.batch, one.pairs) == (1, 32, 3)
    # after the warm-up, the order turns with each pair and the texts are the same for both
    singles = [(name, first) for name, first, size in seen if size == 1][2:]
    order = [singles[place] for place in range(0, len(singles), export_table.REPEATS)]
    assert order == [(ONNX, 0), (STUDENT, 0), (STUDENT, 20), (ONNX, 20), (ONNX, 39), (STUDENT, 39)]


def test_rows_are_spread_over_the_splits() -> None:
    def split(name: str, rows: int) -> Split:
        return Split(name, [str(row) for row in range(rows)], None, np.zeros(rows, np.int64))

    splits = {"a": split("a", 100), "b": split("b", 3), "c": split("c", 50)}
    assert {name: len(one) for name, one in spread(splits, 43).items()} == {"a": 20, "b": 3, "c": 20}
    assert {name: len(one) for name, one in spread(splits, 0).items()} == {"a": 100, "b": 3, "c": 50}
    assert spread(splits, 43)["a"].texts[-1] == "99"
