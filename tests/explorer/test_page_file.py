"""The page as a file, the built front end, and the widget of a notebook."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unpackedpage import Unpacked

import sage_kit
from sage_kit.cli import main
from sage_kit.errors import MissingPackageError
from sage_kit.explorer import notebook_widget
from sage_kit.explorer.page_file import asset, page

FOLDER = Path(sage_kit.__file__).parent / "explorer"
STATIC = FOLDER / "static"
# no part of an installed package
FRONTEND = Path(__file__).parents[2] / "sage_kit" / "explorer" / "frontend"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from generatedrun import generated_run

    return generated_run(tmp_path_factory.mktemp("page"), examples=300)


def test_the_policy_allows_one_script_and_one_style_and_no_request() -> None:
    text = page(b"data", "a <b> & c")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.split(maxsplit=1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    for kind, pattern in (
        ("script-src", r'<script type="module">(.*?)</script>'),
        ("style-src", r"<style>(.*?)</style>"),
    ):
        body = re.search(pattern, text, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules[kind]
        assert "unsafe-inline" not in rules[kind]
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


def test_the_built_files_ask_nobody_for_anything() -> None:
    script, style = asset("explorer.js"), asset("explorer.css")
    assert "</script" not in script
    assert script.isascii()
    for word in ("fetch(", "XMLHttpRequest", "WebSocket(", "sendBeacon", "innerHTML", "document.write", "import("):
        assert word not in script, word
    assert "url(" not in style
    assert "@import" not in style


def test_the_licences_of_what_is_in_the_bundle_are_there() -> None:
    text = (STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    for name in json.loads((FRONTEND / "package.json").read_text(encoding="utf-8"))["dependencies"]:
        assert re.search(rf"^{name} \S+ \(MIT\)$", text, re.MULTILINE), name
    # what the library holds of others, some of it without naming them as dependencies
    for name in ("gl-matrix", "earcut", "dom-2d-camera", "regl-line", "kdbush", "simplify-js"):
        assert re.search(rf"^{name}\b.*\(", text, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.skipif(not (FRONTEND / "node_modules").is_dir(), reason=f"needs `npm ci` in {FRONTEND.name}")
def test_the_built_files_are_those_of_the_sources(tmp_path: Path) -> None:
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=FRONTEND, check=True, capture_output=True)
    built = sorted(path.name for path in tmp_path.iterdir())
    assert built == sorted(path.name for path in STATIC.iterdir())
    for name in built:
        assert (tmp_path / name).read_bytes() == (STATIC / name).read_bytes(), f"{name}: npm run build"


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0


def test_the_command_writes_a_page(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("explore", str(directory), "--out", str(tmp_path / "pages" / "run.html"))
    assert "Page: " in capsys.readouterr().out
    found = Unpacked.of_page(tmp_path / "pages" / "run.html")
    assert found.header["groups"][0]["examples"] == 300
    assert str(directory.parent) not in json.dumps(found.header)


def test_the_page_lies_in_the_run_unless_named(directory: Path) -> None:
    run("explore", str(directory), "--no-texts")
    assert (directory / "explorer.html").stat().st_size > 100_000


def test_a_widget_has_the_same_data(directory: Path) -> None:
    pytest.importorskip("anywidget", reason="needs the extra `explorer`")
    widget = sage_kit.explore(directory, texts=False, height=500)
    assert Unpacked.of(widget.data).header["runs"][0]["name"] == "run"
    assert widget.height == 500
    assert widget._esm == asset("explorer.js")
    assert Unpacked.of(sage_kit.explore([str(directory)], points=50).data).header["groups"][0]["even"] == 50


def test_without_anywidget_the_remedy_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    notebook_widget._widget_class.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pip install 'sage-kit\[explorer\]'"):
        sage_kit.explore(directory)
    notebook_widget._widget_class.cache_clear()


def test_a_missing_bundle_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = importlib.import_module("sage_kit.explorer.page_file")
    monkeypatch.setattr(file, "files", lambda package: tmp_path)
    with pytest.raises(sage_kit.errors.SageError, match="npm run build"):
        asset("explorer.js")
