"""Broken plugins through the command line: one line that names the component and its own line, and never a traceback.

A line of a plugin's source that ends in ``# HERE`` is the one that the message must name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_settings

from sage_kit.cli import main
from sage_kit.components.spec_checks import plural
from sage_kit.rundir import RunDirectory

HEAD = """\
from sage_kit import hookimpl
from sage_kit.components import *
"""

REDUCER = """
class Mine:
    def __init__(self, options, context):
        import numpy as np
        self.np, self.n = np, context.n_components
    def fit_transform(self, vectors):
        {fit}
    def transform(self, vectors):
        {transform}
    def inverse_transform(self, coordinates):
        {inverse}
    def get_state(self):
        {state}
    def set_state(self, state):
        pass

@hookimpl
def sage_reducers():
    yield ReducerSpec(name="mine", summary="Mine", factory=Mine{more})
"""

PLAIN = {
    "fit": "return vectors[:, : self.n].copy()",
    "transform": "return vectors[:, : self.n].copy()",
    "inverse": "return self.np.repeat(coordinates[:, :1], 32, axis=1)",
    "state": "return {}",
    "more": "",
}


def reducer(**parts: str) -> str:
    """A reducer; `parts` replaces bodies of its methods, and `more` adds fields to its spec."""
    return REDUCER.format(**{**PLAIN, **parts})


def component(kind: str, methods: str, more: str = "") -> str:
    """A component of another kind, whose class has these methods."""
    hook, spec = f"sage_{plural(kind)}", "".join(word.title() for word in kind.split("_")) + "Spec"
    body = textwrap.indent(textwrap.dedent(methods).strip(), "    ")
    return (
        f"class Mine:\n    def __init__(self, options, context):\n        pass\n{body}\n\n"
        f"@hookimpl\ndef {hook}():\n    yield {spec}(name='mine', summary='Mine', factory=Mine{more})\n"
    )


ENDS: dict[str, tuple[str, dict[str, Any], str]] = {
    # ---- what a component raises
    "reducer exits": (
        reducer(fit="raise SystemExit(3)  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: SystemExit: 3",
    ),
    "reducer interrupts": (
        reducer(fit="raise KeyboardInterrupt  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: KeyboardInterrupt",
    ),
    "reducer closes": (
        reducer(fit="raise GeneratorExit  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: GeneratorExit",
    ),
    "reducer calls sys.exit": (
        reducer(fit="import sys; sys.exit('bye')  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: SystemExit: bye",
    ),
    "reducer raises what is no Exception": (
        "class Abrupt(BaseException):\n    pass\n" + reducer(fit="raise Abrupt('now')  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: Abrupt: now",
    ),
    "reducer raises what cannot be printed": (
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
        + reducer(fit="raise Mute  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: Mute",
    ),
    "reducer fails deep in numpy": (
        "def work(np, v):\n    return np.linalg.inv(v)  # HERE\n" + reducer(fit="return work(self.np, vectors)"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: LinAlgError: ",
    ),
    "reducer recurses": (
        "def work(v):\n    return work(v)  # HERE\n" + reducer(fit="return work(vectors)"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: RecursionError: ",
    ),
    "reducer takes no vectors": (
        reducer().replace("def fit_transform(self, vectors):", "def fit_transform(self):  # HERE"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: TypeError: ",
    ),
    "reducer places no new vectors": (
        reducer(transform="raise SystemExit  # HERE", more=", has_transform=True"),
        {"reducer": "mine", "landmarks": 50},
        "reducer 'mine' % failed: SystemExit",
    ),
    "reducer has no state": (
        reducer(state="return {'a': vectors}  # HERE", more=", has_state=True"),
        {"reducer": "mine"},
        "reducer 'mine' % failed in get_state: NameError: ",
    ),
    "reducer returns words": (
        reducer(fit="return ['a'] * len(vectors)"),
        {"reducer": "mine"},
        "reducer 'mine' % failed: ValueError: could not",
    ),
    "reducer does not invert": (
        reducer(inverse="return 1 / 0  # HERE", more=", has_inverse=True"),
        {"reducer": "mine", "inverter": "native", "inverter_options": {}},
        "inverter 'native' % failed: ZeroDivisionError: ",
    ),
    "min_rows fails": (
        reducer(more=", min_rows=lambda options, n: options.k)  # HERE\n    ("),
        {"reducer": "mine"},
        "reducer 'mine' % failed in min_rows: AttributeError: ",
    ),
    "min_rows gives text": (
        reducer(more=", min_rows=lambda options, n: 'ten'"),
        {"reducer": "mine"},
        "reducer 'mine' failed in min_rows: it gave 'ten', not an integer",
    ),
    "refine fails": (
        "def refine(options, spec_of):\n    raise SystemExit(2)  # HERE\n" + reducer(more=", refine=refine"),
        {"reducer": "mine"},
        "reducer 'mine' % failed in refine: SystemExit: 2",
    ),
    "refine gives unknown capabilities": (
        "def refine(options, spec_of):\n    return {'colour': 'red'}\n" + reducer(more=", refine=refine"),
        {"reducer": "mine"},
        "reducer 'mine' % failed in refine: TypeError: ",
    ),
    "refine gives wrong types": (
        reducer(more=", refine=lambda options, spec_of: {'max_components': 'two'}"),
        {"reducer": "mine"},
        "reducer 'mine' % by refine: max_components is 'two', not an integer or None",
    ),
    "options fail to be checked": (
        "from pydantic import field_validator\n"
        "class O(Options):\n    k: int = 3\n"
        "    @field_validator('k')\n    def check(cls, value):\n        raise SystemExit(value)  # HERE\n"
        + reducer(more=", options=O"),
        {"reducer": "mine", "reducer_options": {"k": 4}},
        "reducer 'mine' % cannot check its options: SystemExit: 4",
    ),
    "factory exits": (
        "def make(options, context):\n    raise SystemExit  # HERE\n"
        + reducer().replace("factory=Mine", "factory=make"),
        {"reducer": "mine"},
        "reducer 'mine' % cannot be built: SystemExit",
    ),
    "factory changes the settings": (
        "def make(options, context):\n    context.config.sampler_options['k'] = 3  # HERE\n"
        + reducer().replace("factory=Mine", "factory=make"),
        {"reducer": "mine"},
        "reducer 'mine' % cannot be built: TypeError: this table is read-only",
    ),
    "factory of a library that is not there": (
        "def make(options, context):\n    import no_such_package  # HERE\n"
        + reducer().replace("factory=Mine", "factory=make"),
        {"reducer": "mine"},
        "reducer 'mine' % cannot be built: ModuleNotFoundError: ",
    ),
    "object whose methods cannot be looked at": (
        reducer(more=", has_transform=True").replace(
            "    def transform(self, vectors):\n        ",
            "    @property\n    def transform(self):\n        raise SystemExit  # HERE\n        ",
        ),
        {"reducer": "mine"},
        "reducer 'mine' % failed: SystemExit",
    ),
    "sampler exits": (
        component("sampler", "def sample(self, request):\n    raise SystemExit(5)  # HERE"),
        {"sampler": "mine", "sampler_options": {}},
        "sampler 'mine' % failed: SystemExit: 5",
    ),
    "sampler returns nothing": (
        component("sampler", "def sample(self, request):\n    pass"),
        {"sampler": "mine", "sampler_options": {}},
        "sampler 'mine' returned NoneType instead of Samples",
    ),
    "sampler returns coordinates that are words": (
        component(
            "sampler",
            "def sample(self, request):\n    n = request.count\n"
            "    return Samples(anchors=[0] * n, coordinates=[['a', 'b']] * n)",
        ),
        {"sampler": "mine", "sampler_options": {}},
        "sampler 'mine' returned an array of <U1 instead of float32",
    ),
    "sampler writes to the losses": (
        component("sampler", "def sample(self, request):\n    request.losses[:] = 0  # HERE"),
        {"sampler": "mine", "sampler_options": {}},
        "sampler 'mine' % failed: ValueError: assignment destination is read-only",
    ),
    "sampler needs rows it cannot count": (
        component(
            "sampler", "def sample(self, request):\n    pass", ", min_rows=lambda options: 1 / 0)  # HERE\n    ("
        ),
        {"sampler": "mine", "sampler_options": {}},
        "sampler 'mine' % failed in min_rows: ZeroDivisionError: ",
    ),
    "inverter does not fit": (
        component(
            "inverter",
            "def fit(self, coordinates, vectors, reducer):\n    raise KeyboardInterrupt  # HERE\n"
            "def invert(self, coordinates, anchors):\n    pass",
        ),
        {"inverter": "mine"},
        "inverter 'mine' % failed: KeyboardInterrupt",
    ),
    "inverter returns nothing": (
        component(
            "inverter",
            "def fit(self, coordinates, vectors, reducer):\n    return self\n"
            "def invert(self, coordinates, anchors):\n    pass",
        ),
        {"inverter": "mine"},
        "inverter 'mine' returned an array of shape () instead of (",
    ),
    "lift exits": (
        component("lift", "def lift(self, request):\n    raise SystemExit(6)  # HERE"),
        {"lift": "mine"},
        "lift 'mine' % failed: SystemExit: 6",
    ),
    "lift returns nothing": (
        component("lift", "def lift(self, request):\n    pass"),
        {"lift": "mine"},
        "lift 'mine' returned NoneType instead of a TokenBatch",
    ),
    "filter exits": (
        component("filter", "def keep(self, request):\n    raise SystemExit  # HERE"),
        {"filter": "mine"},
        "filter 'mine' % failed: SystemExit",
    ),
    "filter writes to the labels": (
        component("filter", "def keep(self, request):\n    request.logits[:] = 0  # HERE", ", needs_labels=True"),
        {"filter": "mine"},
        "filter 'mine' % failed: ValueError: assignment destination is read-only",
    ),
    "stop rule exits": (
        component("stop_rule", "def reason_to_stop(self, history):\n    raise SystemExit  # HERE"),
        {"stop_rule": "mine"},
        "stop rule 'mine' % failed: SystemExit",
    ),
    "stop rule says yes": (
        component("stop_rule", "def reason_to_stop(self, history):\n    return True"),
        {"stop_rule": "mine"},
        "stop rule 'mine' returned True instead of text or None",
    ),
    "stop rule changes the records": (
        component("stop_rule", "def reason_to_stop(self, history):\n    history[-1].dev['agreement'] = 1.0  # HERE"),
        {"stop_rule": "mine"},
        "stop rule 'mine' % failed: TypeError: this table is read-only",
    ),
    "loader of a task exits": (
        "def load(config):\n    raise SystemExit(1)  # HERE\n"
        "@hookimpl\ndef sage_tasks():\n"
        "    yield TaskSpec(name='mine', summary='', text_columns=('text',), labels=('a', 'b'), loader=load)\n",
        {"task": "mine"},
        "task 'mine': its loader raised SystemExit: 1",
    ),
    "loader of a task returns nothing": (
        "def load(config):\n    pass\n"
        "@hookimpl\ndef sage_tasks():\n"
        "    yield TaskSpec(name='mine', summary='', text_columns=('text',), labels=('a', 'b'), loader=load)\n",
        {"task": "mine"},
        "task 'mine': its loader returned NoneType; expected {split: ",
    ),
    "columns of a task cannot be read": (
        "class Lazy:\n    def tolist(self):\n        raise KeyboardInterrupt  # HERE\n"
        "def load(config):\n    return {s: {'text': Lazy(), 'label': []} for s in ('train', 'validation')}\n"
        "@hookimpl\ndef sage_tasks():\n"
        "    yield TaskSpec(name='mine', summary='', text_columns=('text',), labels=('a', 'b'), loader=load)\n",
        {"task": "mine"},
        "task 'mine': its loader raised KeyboardInterrupt",
    ),
    "observer cannot be built": (
        "class Mine:\n    def __init__(self, options, context):\n        raise SystemExit(8)  # HERE\n"
        "@hookimpl\ndef sage_observers():\n    yield ObserverSpec(name='mine', summary='', factory=Mine)\n",
        {"observers": ["mine"]},
        "observer 'mine' % cannot be built: SystemExit: 8",
    ),
    # ---- files that cannot be loaded
    "file exits": ("import sys\nsys.exit(0)  # HERE\n", {}, "plugin file % cannot be loaded: SystemExit: 0"),
    "file interrupts": ("raise KeyboardInterrupt  # HERE\n", {}, "plugin file % cannot be loaded: KeyboardInterrupt"),
    "file is no Python": ("def broken(:  # HERE\n", {}, "plugin file % cannot be loaded: SyntaxError: "),
    "hook exits": (
        "@hookimpl\ndef sage_reducers():\n    raise SystemExit(3)  # HERE\n",
        {},
        "plugin file %: sage_reducers raised SystemExit: 3",
    ),
    "hook fails behind its first yield": (
        "@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='a', summary='', factory=print)\n"
        "    raise OSError('gone')  # HERE\n",
        {},
        "plugin file %: sage_reducers raised OSError: gone",
    ),
    "hook forgot to yield": (
        "@hookimpl\ndef sage_reducers():\n    ReducerSpec(name='a', summary='', factory=print)\n",
        {},
        "plugin file %: `sage_reducers` returned nothing: yield the spec or return a list",
    ),
    "summary is no text": (
        "@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='a', summary=None, factory=print)\n",
        {},
        "plugin file %: reducer 'a': summary is None, not text",
    ),
}

DISABLED: dict[str, tuple[str, str]] = {
    "exits": (
        "@hookimpl\ndef sage_round_finished(result):\n    raise SystemExit(4)  # HERE\n",
        "sage_round_finished raised SystemExit: 4",
    ),
    "interrupts": (
        "@hookimpl\ndef sage_step_finished(done):\n    raise KeyboardInterrupt  # HERE\n",
        "sage_step_finished raised KeyboardInterrupt",
    ),
    "fails at the end": (
        "@hookimpl\ndef sage_run_finished(summary):\n    raise SystemExit  # HERE\n",
        "sage_run_finished raised SystemExit",
    ),
    "changes a record": (
        "@hookimpl\ndef sage_round_finished(run, result):\n    result.dev['agreement'] = 1.0  # HERE\n",
        "sage_round_finished raised TypeError: this table is read-only",
    ),
    "writes to the losses": (
        "@hookimpl\ndef sage_losses_profiled(losses):\n    losses.flags.writeable = True  # HERE\n",
        "sage_losses_profiled raised ValueError: ",
    ),
    "writes to the synthetic examples": (
        "@hookimpl\ndef sage_synthetic_created(synthetic):\n    synthetic.logits[:] = 0  # HERE\n",
        "sage_synthetic_created raised ValueError: ",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(autouse=True)
def _no_external_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.delenv("SAGE_KIT_DEBUG", raising=False)


def arguments(folder: Path, teacher: Path, plugin: Path, changes: dict[str, Any]) -> list[str]:
    settings = toy_settings(folder, teacher, **{"rounds": 2, **changes})
    words = ["run", "--plugin", str(plugin)]
    for name, value in settings.items():
        text = ",".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            text = ",".join(f"{key}={json.dumps(item)}" for key, item in value.items())
        words += [f"--{name.replace('_', '-')}", str(text)]
    return words


def written(tmp_path: Path, source: str) -> tuple[Path, str]:
    """A plugin's file, and the place that must be named, or ""."""
    path = tmp_path / "mine.py"
    path.write_text(HEAD + source)
    lines = path.read_text().splitlines()
    here = [number for number, line in enumerate(lines, 1) if line.endswith("# HERE")]
    return path, f"{path}:{here[0]}" if here else ""


def ended(words: list[str]) -> Any:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


@pytest.mark.parametrize("name", ENDS)
def test_a_broken_component_ends_the_run_with_its_name_and_line(
    name: str, folder: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, changes, message = ENDS[name]
    path, place = written(tmp_path, source)
    code = ended(arguments(folder, tiny_bert, path, changes))
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("sage-kit: ")]
    head, _, tail = message.partition("%")
    assert line.startswith(f"sage-kit: {head}")
    assert tail in line
    assert str(path) in line or "%" not in message or "sage-kit 0" in line
    if place:
        assert line.endswith(f" (--traceback or SAGE_KIT_DEBUG=1 shows more) at {place}")


@pytest.mark.parametrize("name", DISABLED)
def test_a_broken_observer_ends_no_run_and_is_told_and_recorded(
    name: str, folder: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, message = DISABLED[name]
    path, place = written(tmp_path, source)
    code = ended(arguments(folder, tiny_bert, path, {"run_dir": str(tmp_path / "run")}))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    directory = RunDirectory.open(tmp_path / "run")
    summary = directory.summary()
    assert summary is not None
    ((observer, cause),) = summary["disabled_observers"].items()
    assert observer == f"{path}:mine"
    assert cause.startswith(message)
    assert cause.endswith(f" at {place}")
    for result in summary["rounds"]:
        assert result["dev"]["agreement"] < 1.0
    told = f"Disabled in the run: {observer}: {cause}"
    assert told in captured.out.splitlines()
    assert ended(["show", "--no-figures", str(directory.path)]) == 0
    assert told in capsys.readouterr().out.splitlines()
    # of a run that is not finished, too
    (directory.path / "summary.json").unlink()
    assert ended(["show", "--no-figures", str(directory.path)]) == 0
    assert told in capsys.readouterr().out.splitlines()
    assert ended(["show", "--json", str(directory.path)]) == 0
    assert json.loads(capsys.readouterr().out)["disabled_observers"] == {observer: cause}
    # and after the resume that finishes it, though by then nothing may have failed
    path.write_text(HEAD + "@hookimpl\ndef sage_run_started():\n    pass\n")
    assert ended(["resume", str(directory.path), "--plugin", str(path)]) == 0
    assert (directory.summary() or {})["disabled_observers"] == {observer: cause}


@pytest.mark.parametrize("where", ["before", "behind"])
def test_traceback_shows_more(
    where: str, folder: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SAGE_KIT_DEBUG", "")  # restored behind the test
    path, place = written(tmp_path, reducer(fit="raise ValueError('why')  # HERE"))
    words = arguments(folder, tiny_bert, path, {"reducer": "mine"})
    assert ended(["--traceback", *words] if where == "before" else [*words, "--traceback"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "raise ValueError('why')  # HERE" in error
    assert error.splitlines()[-1] == f"sage-kit: reducer 'mine' ({path}) failed: ValueError: why at {place}"


def test_traceback_of_an_observer_is_shown_too(
    folder: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_DEBUG", "1")
    path, _ = written(tmp_path, DISABLED["exits"][0])
    assert ended(arguments(folder, tiny_bert, path, {})) == 0
    assert "raise SystemExit(4)  # HERE" in capsys.readouterr().err


def test_traceback_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--traceback" in text
    assert "SAGE_KIT_DEBUG" in text


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "try:\n            time.sleep(60)\n        except BaseException:\n            pass",
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="a process on Windows cannot be sent Ctrl-C alone")
def test_ctrl_c_ends_a_run_cleanly_whatever_the_plugin_makes_of_it(
    body: str, folder: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    source = "import sys, time\n" + reducer(fit=f"print('FITTING', flush=True)\n        {body}\n        {PLAIN['fit']}")
    path, _ = written(tmp_path, source)
    words = arguments(folder, tiny_bert, path, {"reducer": "mine", "run_dir": str(tmp_path / "run")})
    process = subprocess.Popen(
        [sys.executable, "-m", "sage_kit", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "FITTING" in line:
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert (
        error.strip().splitlines()[-1].startswith("sage-kit: interrupted; a run goes on from its last checkpoint with")
    )
    # and it does
    path.write_text(HEAD + reducer())
    assert ended(["resume", str(tmp_path / "run"), "--plugin", str(path)]) == 0
    assert RunDirectory.open(tmp_path / "run").summary() is not None


def test_what_stands_in_brackets_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = written(tmp_path, reducer().replace('summary="Mine"', 'summary="[/a] [red]"'))
    assert ended(["plugins", "--plugin", str(path), "--kind", "reducer"]) == 0
    assert "[/a] [red]" in capsys.readouterr().out


# ---- installed plugins

INSTALLED: dict[str, tuple[str, str]] = {
    "import exits": ("raise SystemExit(1)  # HERE\n", "SystemExit: 1"),
    "import interrupts": ("raise KeyboardInterrupt  # HERE\n", "KeyboardInterrupt"),
    "import of what is gone": (
        "from sage_kit.components import UpperLayers  # HERE\n",
        "ImportError: cannot import name",
    ),
    "no Python": ("x = (  # HERE\n", "SyntaxError: "),
    "no hook": ("x = 1\n", "it implements no hook"),
    "misspelt hook": (
        "@hookimpl\ndef sage_reducer():\n    return []\n",
        "it implements an unknown hook 'sage_reducer'",
    ),
    "wrong argument": ("@hookimpl\ndef sage_message(texts):\n    pass\n", "'texts'"),
    "hook wrapper": (
        "@hookimpl(wrapper=True)\ndef sage_message(text):\n    return (yield)\n",
        "it has a hook wrapper, which sage_kit does not call",
    ),
    "forgot yield": ("@hookimpl\ndef sage_lifts():\n    pass\n", "`sage_lifts` returned nothing"),
    "late failure": (
        "@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='late', summary='', factory=print)\n    1 / 0  # HERE\n",
        "sage_lifts raised ZeroDivisionError: division by zero",
    ),
    "bad name": (
        "@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='My-Lift', summary='', factory=print)\n",
        "lift 'My-Lift': a name is lower case letters",
    ),
    "bad requirement": (
        "@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='l', summary='', factory=print, requires=('>>1',))\n",
        "lift 'l': '>>1' is no requirement",
    ),
    "clash with a built-in": (
        "@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='shift', summary='', factory=print)\n",
        "the built-in one keeps the name",
    ),
    "spec of another kind": (
        "@hookimpl\ndef sage_lifts():\n    yield FilterSpec(name='l', summary='', factory=print)\n",
        "which is no LiftSpec",
    ),
}


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_wrong_with_an_installed_plugin_stays_with_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cause = INSTALLED[name]
    module = f"broken_plugin_{list(INSTALLED).index(name)}"
    info = tmp_path / "acme_sage-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sage\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[sage_kit]\nacme = {module}\n")
    path, place = written(tmp_path, source)
    path = path.rename(tmp_path / f"{module}.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "acme")
    assert ended(["plugins"]) == 0
    captured = capsys.readouterr()
    assert "pca" in captured.out
    (line,) = [line for line in captured.out.splitlines() if line.startswith("In quarantine: ")]
    assert "plugin 'acme' (acme-sage 1.2): " in line
    assert cause in line
    if place:
        assert line.endswith(f" at {path}:{place.rpartition(':')[2]}")
    assert ended(["plugins", "--json"]) == 0
    ((bad,),) = [json.loads(capsys.readouterr().out)["quarantined"]]
    assert (bad["plugin"], bad["component"]) == ("acme", "lift 'shift'" if "built-in" in name else "")
    # an error only where the settings name what may have come from it
    assert ended(["run", "--reducer", "pca", "--lift", "acme_lift"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sage-kit: Unknown lift 'acme_lift'.")
    assert ("is in quarantine: " in error and cause in error) or "built-in" in name
    # and one word leaves it out
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "-acme")
    assert ended(["plugins"]) == 0
    assert "acme" not in capsys.readouterr().out


def test_a_run_goes_on_beside_a_plugin_in_quarantine_and_says_so(
    folder: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "acme_sage-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sage\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[sage_kit]\nacme = no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "acme")
    path, _ = written(tmp_path, "@hookimpl\ndef sage_message(text):\n    print('TOLD', text)\n")
    assert ended(arguments(folder, tiny_bert, path, {})) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "quarantine" in line]
    assert told == [
        "TOLD plugin 'acme' (acme-sage 1.2) is in quarantine: ModuleNotFoundError: No module named "
        "'no_such_module_anywhere'"
    ]
