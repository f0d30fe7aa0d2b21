"""What a key of cached results holds of the code."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from sage_kit import provenance
from sage_kit.provenance import code_parts


def test_origin_sources_and_versions_count(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1")
    origin, sources, versions = code_parts("mine 1.0", str(plugin), ("numpy>=1",), code_parts)
    assert origin == "mine 1.0"
    assert set(sources) == {b"x = 1", Path(provenance.__file__).read_bytes()}
    assert versions == {"numpy": importlib.metadata.version("numpy")}


def test_the_folder_of_a_plugin_does_not_count(tmp_path: Path) -> None:
    found = []
    for name in ("here", "there"):
        plugin = tmp_path / name / "mine.py"
        plugin.parent.mkdir()
        plugin.write_text("x = 1")
        found.append(code_parts(f"{plugin} 1.0", str(plugin), ()))
    assert found[0] == found[1] == ["mine.py 1.0", [b"x = 1"], {}]


def test_what_has_no_source_is_left_out() -> None:
    assert code_parts("a", "a distribution", (), dict, len) == ["a", [], {}]
