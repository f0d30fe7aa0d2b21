"""A component that carries something from round to round has it again after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from toyrun import go_back, toy_config, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.distill import resume, run
from sage_kit.errors import PluginError
from sage_kit.rundir import RunDirectory

PLUGIN = '''
"""A sampler, a filter and a stop rule, each of which goes by what it saw in earlier rounds."""
import numpy as np

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Samples, SamplerSpec, StopRuleSpec


class Remembers:
    def __init__(self, options, context):
        self.sum, self.calls = np.zeros(1), 0

    def get_state(self):
        return {"sum": self.sum, "calls": np.array(self.calls)}

    def set_state(self, state):
        self.sum, self.calls = state["sum"], int(state["calls"])


class Sampler(Remembers):
    def sample(self, request):
        self.sum = self.sum + request.losses
        self.calls += 1
        anchors = np.argsort(-self.sum, kind="stable")[np.arange(request.count) % len(self.sum)]
        others = request.rng.integers(0, len(self.sum), request.count)
        ends = request.coordinates[anchors], request.coordinates[others]
        return Samples(anchors=anchors, coordinates=(ends[0] + ends[1]) / 2, neighbors=others[:, None])


class Filter(Remembers):
    def keep(self, request):
        self.calls += 1
        return np.arange(len(request.anchors)) % (self.calls + 1) == 0


class Rule(Remembers):
    def reason_to_stop(self, history):
        self.calls += 1
        return f"asked {self.calls} times" if self.calls == 4 else None


@hookimpl
def sage_samplers():
    yield SamplerSpec(name="remembers", summary="Anchors by the sum of their losses", factory=Sampler)


@hookimpl
def sage_filters():
    yield FilterSpec(name="remembers", summary="Fewer each round", factory=Filter)


@hookimpl
def sage_stop_rules():
    yield StopRuleSpec(name="fourth", summary="Stops when it is asked for the fourth time", factory=Rule)
'''


@pytest.mark.parametrize("to_round", [1, 2, 3])
def test_state_survives_a_resume(tmp_path: Path, tiny_bert: Path, to_round: int) -> None:
    plugin = tmp_path / "remembers.py"
    plugin.write_text(PLUGIN)
    config = toy_config(
        tmp_path, tiny_bert, sampler="remembers", sampler_options={}, filter="remembers", stop_rule="fourth", rounds=9,
        keep_checkpoints=0,
    )  # fmt: skip
    directory, summary = run(config, Plugins([plugin], allow=""))
    expected, weights = without_times(summary), load_file(directory.student / "model.safetensors")
    assert expected["stopped"] == "asked 4 times"
    assert [result["dropped"] > 0 for result in expected["rounds"]] == [False, True, True, True]
    go_back(directory, to_round)
    assert without_times(resume(RunDirectory.open(directory.path), Plugins([plugin], allow=""))) == expected
    again = load_file(directory.student / "model.safetensors")
    assert all(bool((again[name] == weights[name]).all()) for name in weights)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1, 2]", r"sampler 'remembers': get_state returned list, not a mapping"),
        ("{'names': np.array(['a'])}", r"get_state gave <U1 under 'names': a checkpoint holds arrays of numbers"),
        ("{1: np.zeros(2)}", r"get_state gave float64 under 1"),
    ],
)
def test_a_state_that_no_checkpoint_can_hold(tmp_path: Path, tiny_bert: Path, returned: str, message: str) -> None:
    plugin = tmp_path / "remembers.py"
    plugin.write_text(PLUGIN.replace('{"sum": self.sum, "calls": np.array(self.calls)}', returned))
    config = toy_config(tmp_path, tiny_bert, sampler="remembers", sampler_options={}, rounds=2)
    with pytest.raises(PluginError, match=message):
        run(config, Plugins([plugin], allow=""))


REQUESTS = """
import numpy as np

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Samples, SamplerSpec

SEEN = []


class Sampler:
    def __init__(self, options, context):
        pass

    def sample(self, request):
        SEEN.append(request)
        some = np.arange(request.count) % len(request.losses)
        SEEN.append(request.student_hidden(np.array([3, 0, 3])))
        return Samples(anchors=some, coordinates=request.coordinates[some])


class Filter:
    def __init__(self, options, context):
        pass

    def keep(self, request):
        SEEN.append(request)
        return np.ones(len(request.anchors), bool)


@hookimpl
def sage_samplers():
    yield SamplerSpec(name="looks", summary="Keeps what it is given", factory=Sampler, needs_hidden=True)


@hookimpl
def sage_filters():
    yield FilterSpec(name="looks", summary="Keeps what it is given", factory=Filter)
"""


def test_requests_carry_labels_tokens_and_the_history_of_losses(tmp_path: Path, tiny_bert: Path) -> None:
    plugin = tmp_path / "looks.py"
    plugin.write_text(REQUESTS)
    config = toy_config(tmp_path, tiny_bert, sampler="looks", sampler_options={}, filter="looks", rounds=3)
    plugins = Plugins([plugin], allow="")
    run(config, plugins)
    import sys

    first, hidden, judged, second, *_ = sys.modules["sage_kit_plugin_looks"].SEEN
    rows = len(first.losses)
    assert first.labels.shape == (rows,)
    assert set(np.unique(first.labels)) == {0, 1}
    assert first.tokens.offsets.shape == (rows + 1,)
    assert len(first.tokens.ids) == first.tokens.offsets[-1]
    assert [request.loss_history.shape for request in (first, second)] == [(1, rows), (2, rows)]
    np.testing.assert_array_equal(second.loss_history[0], first.losses)
    np.testing.assert_array_equal(second.loss_history[1], second.losses)
    # two blocks of the student; the same example twice gives the same numbers
    assert hidden.shape == (3, 2, first.vectors.shape[1])
    np.testing.assert_array_equal(hidden[0], hidden[2])
    assert not np.allclose(hidden[0], hidden[1])
    np.testing.assert_array_equal(judged.real_labels, first.labels)
    assert judged.round == first.round == 2
    for array in (first.labels, first.tokens.ids, first.loss_history, judged.real_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
