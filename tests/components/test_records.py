from __future__ import annotations

import json
import math

from sage_kit.components.records import Costs, RoundResult

NAN = float("nan")


def result(**changes: object) -> RoundResult:
    values: dict[str, object] = {
        "round": 2,
        "steps": 10,
        "total_steps": 20,
        "train_loss": 0.5,
        "train_agreement": 0.75,
        "synthetic_loss": 0.25,
        "synthetic": 7,
        "dropped": 1,
        "dev": {"accuracy": 0.5, "agreement": 0.625},
        "validation": {"matched": {"accuracy": 0.5}, "mismatched": {"accuracy": 0.25}},
        "seconds": 1.5,
        "padding": 0.03125,
        "outside_hull": 0.125,
    }
    return RoundResult(**{**values, **changes})  # type: ignore[arg-type]


def through_json(record: RoundResult) -> RoundResult:
    return RoundResult.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))


def test_round_result_survives_json() -> None:
    assert through_json(result()) == result()


def test_nan_becomes_null_and_comes_back_at_any_depth() -> None:
    record = result(synthetic_loss=NAN, dev={"pearson": NAN, "agreement": 0.5}, validation={"v": {"pearson": NAN}})
    assert record.to_json()["dev"] == {"pearson": None, "agreement": 0.5}
    back = through_json(record)
    assert math.isnan(back.synthetic_loss)
    assert math.isnan(back.dev["pearson"])
    assert math.isnan(back.validation["v"]["pearson"])
    assert back.dev["agreement"] == 0.5


def test_a_record_of_an_earlier_version_has_no_hull() -> None:
    data = result().to_json()
    del data["outside_hull"]
    assert math.isnan(RoundResult.from_json(data).outside_hull)


def test_infinite_loss_does_not_break_json() -> None:
    assert result(train_loss=float("inf")).to_json()["train_loss"] is None


def test_costs_add_up_and_survive_json() -> None:
    costs = Costs()
    costs.add("teacher", seconds=1.5, tokens=10, flops=100)
    costs.add("teacher", seconds=0.5, tokens=5)
    costs.add("reduce", seconds=2.0)
    assert costs.seconds == {"teacher": 2.0, "reduce": 2.0}
    assert costs.tokens == {"teacher": 15, "reduce": 0}
    assert costs.flops == {"teacher": 100, "reduce": 0}
    assert Costs.from_json(json.loads(json.dumps(costs.to_json()))) == costs


def test_costs_read_from_json_are_independent() -> None:
    data = {"seconds": {"teacher": 1.0}, "tokens": {}, "flops": {}}
    Costs.from_json(data).add("teacher", seconds=1.0)
    assert data["seconds"] == {"teacher": 1.0}
