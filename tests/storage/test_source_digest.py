"""The digest of the code behind a result: it moves with every line that computes, and with nothing else.

A copy of the package is changed one line at a time, in a process that takes its keys from the copy.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny

import sage_kit
from sage_kit.storage.source_digest import (
    COMPUTING,
    LEAVES,
    artifact_digest,
    find_module,
    modules_of,
    read_source,
    source_digest,
    text_source,
    walk,
)

PACKAGE = Path(sage_kit.__file__).parent

EVERY_RUN = (
    "builtin/families/__init__", "builtin/losses/kl", "builtin/stop_rules/agreement", "components/__init__",
    "components/hooks", "components/loader", "components/loss_messages", "components/messages", "components/plugins",
    "components/protocols", "components/records", "components/spec_checks", "components/specs",
    "components/task_specs", "config/loss_weights", "data/batches", "data/corpus", "data/metrics", "data/scoring",
    "data/splits", "data/tokens", "distill", "models/block_parts", "models/checkpoints",
    "models/cpu_kernels", "models/encoder_parts", "models/export", "models/families", "models/flops", "models/heads",
    "models/loss_inputs", "models/narrow", "models/narrowing", "models/recomputation", "training/best_round",
    "training/rate_schedules", "training/run_control",
    "models/architectures", "models/sentence_encoder", "models/sentence_folders",
    "models/packed", "models/split", "models/student", "models/teacher", "models/vectors", "recipe",
    "rundir/checkpoint", "rundir/directory", "storage/tensorfile", "synthesis/answers",
    "synthesis/labelling", "synthesis/synthesizer", "synthesis/synthetic_set", "system/devices",
    "training/feedback", "training/labelled_batches", "training/learner", "training/losses", "training/objective",
    "training/optimizer", "training/preparation", "training/profile", "training/round_synthesis",
    "training/run_events", "training/steps", "training/summary", "training/warmup",
)  # fmt: skip
"""Modules that every run depends on."""

SYNTHESIS = (
    "builtin/filters/keep_all", "builtin/inverters/anchored", "builtin/inverters/knn", "builtin/lifts/replace",
    "builtin/lifts/token_replacement", "builtin/neighbors", "builtin/reducers/pca", "builtin/samplers/draws",
    "builtin/samplers/high_loss", "synthesis/hull", "synthesis/landmarks", "synthesis/maps",
)  # fmt: skip
"""Those of a run with reducer pca, sampler high_loss and the default components besides."""

OTHER_COMPONENTS = (
    "builtin/networks", "builtin/reducers/vae", "builtin/reducers/autoencoder", "builtin/samplers/any_anchor",
    "builtin/samplers/full_space", "builtin/losses/rkd", "builtin/lifts/shift", "builtin/inverters/rbf",
    "builtin/filters/labels",
)  # fmt: skip

NO_RUN = (
    "builtin/observers/progress", "builtin/observers/lines", "builtin/observers/tracker", "cli/app", "errors",
    "cli/study_commands", "components/hookspecs", "components/run_hookspecs", "components/scaffold", "quickstart",
    "reports/figures", "reports/reference", "studies/claims", "studies/display", "studies/gallery", "studies/plots",
    "studies/runner", "testing/registry", "training/tracing",
    "config/__init__", "config/joint_checks", "config/loading", "config/paths", "config/presets", "config/settings",
    "config/validation", "config/values", "data/row_checks", "data/sources", "data/user_files", "storage/cache",
    "storage/files", "storage/manifest",
)  # fmt: skip
"""Modules that no run depends on: they show, draw, report and check, or read what keys hold by value."""

ANALYSES = ("studies/statistics/comparisons", "studies/statistics/intervals", "studies/study", "studies/result",
            "studies/runs", "studies/sizes", "studies/analyses/contrasts")  # fmt: skip
"""What a notebook computes with."""

PROGRAM = """
    import json, os, sys
    from pathlib import Path

    import sage_kit
    from sage_kit.config import load_config
    from sage_kit.models.teacher import artifact_digest
    from sage_kit.components.plugins import Plugins
    from sage_kit.studies.run_store import RunStore

    package, settings, changes = Path(sage_kit.__file__).parent, *json.load(sys.stdin)
    assert str(package) == os.environ["COPY"]
    store = RunStore(Path("runs"), Plugins(allow=""))

    def keys():
        adaptive = load_config(settings)
        return {
            "adaptive": store.key(adaptive),
            "plain": store.key(load_config({**settings, "schedule": "none"})),
            "autoencoder": store.key(load_config({**settings, "reducer": "autoencoder"})),
            "teacher": artifact_digest("sage_kit.models.teacher"),
            "vectors": artifact_digest("sage_kit.models.vectors"),
            "map": artifact_digest("sage_kit.synthesis.maps"),
        }

    before = keys()
    moved = {}
    for name, edits in changes.items():
        kept = {path: (package / path).read_text(encoding="utf-8") for path, _ in edits}
        for path, text in edits:
            (package / path).write_text(text, encoding="utf-8")
        moved[name] = sorted(kind for kind, key in keys().items() if key != before[kind])
        for path, text in kept.items():
            (package / path).write_text(text, encoding="utf-8")
    assert keys() == before
    print(json.dumps(moved))
"""


def one_line_changed(path: Path) -> str:
    """The module with one line of code changed: what its first function returns on a line of its own."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    tree = ast.parse("".join(lines))
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None and node.lineno == node.end_lineno:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = f"{line[: node.end_col_offset].rstrip()} or None{line[node.end_col_offset :]}"
            changed = "".join(lines)
            ast.parse(changed)
            return changed
    return "".join(lines) + "\nchanged = 1\n"


def same_code(path: Path) -> str:
    """The module with comments, layout and docstrings changed."""
    text = path.read_text(encoding="utf-8")
    first = text.index('"""')
    end = text.index('"""', first + 3)
    text = text[:first] + '"""Told in other words.' + text[end:]
    return "# A comment.\n\n" + text.replace("\n\n\n", "\n\n\n\n# Another.\n") + "\n# The end.\n"


def edited(path: str, old: str, new: str) -> list[tuple[str, str]]:
    """A module's path and its text with one passage replaced."""
    text = (PACKAGE / path).read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    return [(path, text.replace(old, new, 1))]


def all_changes() -> dict[str, list[tuple[str, str]]]:
    names = (*EVERY_RUN, *SYNTHESIS, *OTHER_COMPONENTS, *NO_RUN, *ANALYSES)
    lines = {name: [(f"{name}.py", one_line_changed(PACKAGE / f"{name}.py"))] for name in names}
    texts = [(f"{name}.py", same_code(PACKAGE / f"{name}.py")) for name in (*EVERY_RUN, *SYNTHESIS, *ANALYSES)]
    return {
        **lines,
        "comments, docstrings and layout": texts,
        "help of a setting": edited(
            "config/settings.py", '"Peak learning rate of the student."', '"How fast it learns."'
        ),
        "help of an option": edited(
            "builtin/samplers/__init__.py", 'description="Nearest neighbours', 'description="The nearest neighbours'
        ),
        "message of an error": edited(
            "models/student.py", "raise CompatibilityError(", 'raise CompatibilityError("Oh: " + '
        ),
        "no step": edited("training/steps.py", "optimizer.step()", "pass"),
        "easy examples first": edited("builtin/samplers/high_loss.py", "-losses[known]", "losses[known]"),
        "softer teacher": edited("training/losses.py", "/ temperature", "/ temperature / 2"),
        "another default": edited("config/settings.py", "_setting(1.0,", "_setting(3.0,"),
        "another default of an option": edited("builtin/lifts/__init__.py", "default=0.3,", "default=0.4,"),
    }


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """By change, the keys that move with it."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "sage_kit", ignore=shutil.ignore_patterns("__pycache__"))
    tiny.write_jsonl(root / "train.jsonl", tiny.toy_task_rows(60, seed=1))
    settings = {
        "task": "file", "train_file": str(root / "train.jsonl"), "teacher": "none/here", "reducer": "pca",
        "sampler": "high_loss", "device": "cpu",
    }  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(root), "COPY": str(root / "sage_kit"), "SAGE_KIT_PLUGINS": "",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], input=json.dumps([settings, all_changes()]),
        capture_output=True, text=True, cwd=root, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: set(kinds) for name, kinds in json.loads(done.stdout).items()}


RUNS = {"adaptive", "plain", "autoencoder"}


@pytest.mark.parametrize("name", EVERY_RUN)
def test_a_line_that_every_run_depends_on(moved: dict[str, set[str]], name: str) -> None:
    assert moved[name] >= RUNS


@pytest.mark.parametrize("name", SYNTHESIS)
def test_a_line_that_a_run_with_these_components_depends_on(moved: dict[str, set[str]], name: str) -> None:
    assert "adaptive" in moved[name]
    if name.startswith("builtin/"):
        assert "plain" not in moved[name], "plain distillation is the same whatever it would synthesise by"


@pytest.mark.parametrize("name", OTHER_COMPONENTS)
def test_a_line_of_a_component_that_a_run_does_not_use(moved: dict[str, set[str]], name: str) -> None:
    assert not moved[name] & {"adaptive", "plain"}


@pytest.mark.parametrize("name", [*NO_RUN, *ANALYSES])
def test_a_line_that_only_shows_checks_or_analyses(moved: dict[str, set[str]], name: str) -> None:
    assert not moved[name] & RUNS


def test_a_component_counts_for_the_runs_that_use_it(moved: dict[str, set[str]]) -> None:
    assert "autoencoder" in moved["builtin/networks"] & moved["builtin/reducers/autoencoder"]
    assert "autoencoder" not in moved["builtin/reducers/pca"]


def test_entries_of_the_cache_count_what_computes_them(moved: dict[str, set[str]]) -> None:
    for name in (
        "models/block_parts",
        "models/cpu_kernels",
        "models/packed",
        "models/split",
        "models/families",
        "data/batches",
    ):
        assert {"teacher", "vectors"} <= moved[name], name
    assert "teacher" in moved["models/teacher"] & moved["models/checkpoints"]
    assert "vectors" in moved["models/vectors"]
    assert "map" in moved["synthesis/maps"] & moved["synthesis/landmarks"]
    # settings and data are in their keys by value
    for name in (
        *NO_RUN,
        "training/steps",
        "synthesis/synthesizer",
        "training/losses",
        "rundir/checkpoint",
        "rundir/directory",
        "data/splits",
    ):
        assert not moved[name] & {"teacher", "vectors", "map"}, name


def test_comments_docstrings_and_prose_move_nothing(moved: dict[str, set[str]]) -> None:
    assert moved["comments, docstrings and layout"] == set()
    assert moved["help of a setting"] == moved["help of an option"] == moved["message of an error"] == set()


def test_a_default_is_no_code_since_keys_hold_its_value(moved: dict[str, set[str]]) -> None:
    assert moved["another default"] == moved["another default of an option"] == set()


def test_lines_that_decide_move_the_keys(moved: dict[str, set[str]]) -> None:
    assert moved["no step"] & moved["softer teacher"] >= RUNS
    assert moved["easy examples first"] == {"adaptive", "autoencoder"}


# ---- one file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1  # one"),
        ("def f():\n    'a'\n    return 1", "def f():\n    '''b'''\n\n    return 1"),
        ("class A:\n    x: int = 1\n    'doc'", "class A:\n    x: int = 1"),
        ("f(1,\n  2)", "f(1, 2)"),
        ("x = 'a'", 'x = "a"'),
        ("Field(default=1, description='a')", "Field(default=1, description=f'b {c}')"),
        ("raise ConfigError('a')", "raise ConfigError(f'b {c}') from None"),
        ("raise errors.DataError('a')", "raise errors.DataError('b')"),
        ("if TYPE_CHECKING:\n    import a", "if TYPE_CHECKING:\n    import b"),
    ],
)
def test_what_is_the_same_code(one: str, other: str) -> None:
    assert text_source(one).digest == text_source(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = None", "x = ''"),
        ("return_(a - b)", "return_(b - a)"),
        ("sorted(x)", "sorted(x, reverse=True)"),
        ("a < b", "a <= b"),
        ("a()\nb()", "b()\na()"),
        ("x = -loss", "x = loss"),
        ("Field(default=1, description='a')", "Field(default=2, description='a')"),
        ("f(description=g())", "f(description=h())"),
        ("raise KeyError('a')", "raise KeyError('b')"),
        ("raise ConfigError('a')", "raise DataError('a')"),
        ("from a import b", "from a import c"),
        ("def f(a, b): pass", "def f(b, a): pass"),
        ("f(*a)", "f(**a)"),
        ("x = f'{a}'", "x = f'{b}'"),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    x = 2", "if TYPE_CHECKING:\n    x = 1\nelse:\n    x = 3"),
    ],
)
def test_what_is_other_code(one: str, other: str) -> None:
    assert text_source(one).digest != text_source(other).digest


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    before = read_source(path)
    os.utime(path, ns=(1, 1))
    assert read_source(path) == before
    path.write_text("x = 2")
    os.utime(path, ns=(2, 2))
    assert read_source(path) != before


def test_what_is_no_python_counts_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"\xff\x00 no python")
    before = read_source(path)
    path.write_bytes(b"\xff\x01 no python")
    assert read_source(path).digest != before.digest
    assert before.imports == ()


# ---- what is followed -----------------------------------------------------------------------------------------------


def test_imports_inside_functions_are_followed_and_those_for_types_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("late_keys", "typed_keys"):
        (tmp_path / f"{name}.py").write_text("x = 1")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import typed_keys\ndef f():\n    import late_keys\n"
    )
    assert set(walk([], [plugin])) == {"plugin.py", "late_keys"}


def test_the_walk_from_the_loop() -> None:
    found = set(walk(["sage_kit.distill"]))
    # `sage_kit.distill` imports it at the top, `sage_kit.training.warmup` reads its corpus
    assert {"sage_kit.training.warmup", "sage_kit.data.corpus"} <= found
    # the components that are chosen count by themselves
    assert not any(name.startswith("sage_kit.builtin") for name in found)


def test_each_leaf_is_there_and_says_why() -> None:
    for name, reason in LEAVES.items():
        assert find_module(name) is not None, f"{name} is no module: take it off the list"
        assert reason


def test_packages_and_the_standard_library_are_not_followed() -> None:
    for name in ("json", "numpy", "torch", "pydantic", "sklearn.decomposition", "no_such_module"):
        assert find_module(name) is None


def test_local_modules_and_relative_imports_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_local_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from . import b\nfrom .inner import c\nimport json")
    (package / "b.py").write_text("import my_local_package.inner.d")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "c.py").write_text("from ..b import x")
    (package / "inner" / "d.py").write_text("def f():\n    from my_local_package import e")
    (package / "e.py").write_text("y = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = tmp_path / "plugin.py"
    plugin.write_text("from my_local_package.a import b")
    names = {"", ".a", ".b", ".inner", ".inner.c", ".inner.d", ".e"}
    assert set(walk([], [plugin])) == {"plugin.py", *(f"my_local_package{name}" for name in names)}
    before = source_digest([], [plugin])
    (package / "e.py").write_text("y = 23")
    assert source_digest([], [plugin]) != before


def test_the_digest_is_the_same_wherever_the_files_lie(tmp_path: Path) -> None:
    digests = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text("import os\nx = 1")
        digests.append(source_digest(["sage_kit.training.losses"], [tmp_path / place / "mine.py"]))
    assert digests[0] == digests[1]


def test_versions_of_computing_packages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_kit.storage import source_digest as module

    before = source_digest(["sage_kit.training.losses"])
    assert set(module.computing_versions()) == set(COMPUTING)
    monkeypatch.setattr(module, "computing_versions", lambda: {"torch": "0.0"})
    assert source_digest(["sage_kit.training.losses"]) != before


def test_what_is_held_by_value_is_left_out_of_an_entry_of_the_cache() -> None:
    assert artifact_digest("sage_kit.models.vectors") != source_digest(["sage_kit.models.vectors"])


def test_a_factory_leads_to_what_it_closes_over() -> None:
    import functools

    from sage_kit.components import lazy

    assert "acme.inner" in modules_of(lazy("acme.inner:Thing"))
    assert {"sage_kit.storage.cache", "functools"} & modules_of(functools.partial(walk, 1)) == set()
    assert "sage_kit.storage.source_digest" in modules_of(functools.partial(walk, 1))
    assert modules_of(dict) == set()
