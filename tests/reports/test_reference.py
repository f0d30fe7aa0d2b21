from __future__ import annotations

from pathlib import Path

import pytest

from sage_kit.components.hooks import HOOKS
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import MissingPackageError
from sage_kit.reports.page_text import REGENERATE
from sage_kit.reports.reference import components_page, configuration_page, hooks_page, main, pages

DOCS = Path(__file__).parents[2] / "docs"


def check(name: str, text: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is out of date: run `{REGENERATE}`"


def test_configuration_page_is_up_to_date() -> None:
    check("configuration.md", configuration_page())


def test_hooks_page_is_up_to_date() -> None:
    check("hooks.md", hooks_page())


@pytest.mark.plugins
def test_components_page_is_up_to_date() -> None:
    check("components.md", pages()["components.md"])


def test_every_setting_stands_on_the_page_once() -> None:
    page = configuration_page()
    for name in RunConfig.model_fields:
        assert page.count(f"\n| `{name}` |") == 1


def test_page_shows_values_bounds_and_presets() -> None:
    page = configuration_page()
    assert '| `bypass` | `embeddings` or integer ≥ 1 | `"embeddings"` |' in page
    assert "| `dev_fraction` | number > 0, ≤ 0.5 | `0.1` |" in page
    assert '| `mix` | `add`, `replace` | `"add"` | `"replace"` |' in page
    assert "&lt;group>" in page


def test_page_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    page = configuration_page()
    for name in ("SAGE_KIT_DATA_DIR", "SAGE_KIT_CACHE_DIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/somewhere/else")
    assert configuration_page() == page


def test_every_hook_has_its_heading() -> None:
    page = hooks_page()
    for name in HOOKS:
        assert page.count(f"\n### `{name}(") == 1
    assert "- `done`, `total` (int): Steps done and steps in all.\n" in page


def test_tables_have_as_many_cells_in_every_row() -> None:
    for page in (configuration_page(), components_page(Plugins(allow=""))):
        width = 0
        for line in page.splitlines():
            cells = line.replace("\\|", "").count("|")
            assert cells in (0, width) or width == 0, line
            width = cells


def test_components_page_lists_every_component_and_its_options() -> None:
    plugins = Plugins(allow="")
    page = components_page(plugins)
    for item in plugins.components():
        assert f"\n| `{item.spec.name}` | sage-kit |" in page
    assert "### Options of `pca`" in page
    assert "| `whiten` | `true`, `false` | `false` |" in page


@pytest.mark.plugins
def test_main_writes_all_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(tmp_path / "docs"))
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "docs").iterdir()} == pages()
    assert capsys.readouterr().out.count("\n") == len(pages())


def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(
        MissingPackageError, match=r"pacmap, .* are not installed: pip install ./plugins/pacmap"
    ) as caught:
        main(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
