"""`sage-kit check` and `sage-kit new-plugin`: what they print and how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_kit.cli import main
from sage_kit.plugins import Plugins
from sage_kit.testing import check_component

GOOD = """
from sage_kit import hookimpl
from sage_kit.components import FilterSpec


class Keep:
    def __init__(self, options, context):
        pass

    def keep(self, request):
        import numpy as np

        return np.ones(len(request.vectors), dtype=bool)


@hookimpl
def sage_filters():
    yield FilterSpec(name="keep", summary="Keeps all", factory=Keep)
"""

WATCH = """
from sage_kit import hookimpl


@hookimpl
def sage_round_finished(result):
    pass
"""


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_sound_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "good.py"
    file.write_text(GOOD, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 0
    shown = capsys.readouterr().out
    assert "light_discovery" in shown
    assert "11 checks ran, 0 failed; 0 skipped" in shown


def test_a_broken_file_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import numpy\n" + GOOD.replace("dtype=bool", "dtype=int"), encoding="utf-8")
    assert command("check", "keep", "--plugin", str(file)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "FAILED light_discovery: filter 'keep': importing" in shown
    assert "loads numpy" in shown
    assert "FAILED filter_shapes: filter 'keep': keep returns int64 instead of bool. To fix:" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check: name a component, or a plugin file with --plugin FILE"),
        (["cosin"], "No component is named 'cosin'. Did you mean 'cosine'?"),
        (["cosin", "--kind", "filter"], "Unknown filter 'cosin'. Did you mean 'cosine'?"),
        (["cosine", "--kind", "filtre"], "Unknown kind 'filtre'. Did you mean 'filter'?"),
    ],
)
def test_nothing_to_check_is_an_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    assert command("check", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_without_components_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "watch.py"
    file.write_text(WATCH, encoding="utf-8")
    assert command("check", "--plugin", str(file)) == 2
    assert "contributes no component" in capsys.readouterr().err


def test_new_plugin_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("new-plugin", "lift", "mine", "--dest", str(tmp_path)) == 0
    assert "sage-kit check mine --kind lift" in capsys.readouterr().out
    assert command("new-plugin", "lift", "mine", "--dest", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "exists already" in error
    assert error.count("\n") == 1


def test_discovery_is_checked_for_built_ins() -> None:
    plugins = Plugins(allow="")
    for kind in ("reducer", "task", "lift"):
        item = plugins.components(kind)[0]
        results = {result.name: result for result in check_component(item.spec)}
        assert results["light_discovery"].passed
        assert not results["light_discovery"].skipped
