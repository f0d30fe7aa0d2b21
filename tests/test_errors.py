from __future__ import annotations

import pytest

from sage_kit import errors
from sage_kit.errors import LONGEST_LIST, DataError, SageError, did_you_mean


def test_close_name_and_list() -> None:
    assert did_you_mean("umpa", ["umap", "pca"]) == " Did you mean 'umap'? Available: pca, umap."


def test_far_name_gets_the_list_only() -> None:
    assert did_you_mean("zzz", ["umap", "pca"], "Reducers") == " Reducers: pca, umap."


def test_nothing_known() -> None:
    assert did_you_mean("x", []) == " Available: none."


def test_long_list_gives_way_to_another_place() -> None:
    names = [f"name_{number}" for number in range(LONGEST_LIST + 1)]
    assert did_you_mean("name_x", names, elsewhere="Look there.").endswith(" Look there.")
    assert "name_7" not in did_you_mean("zzz", names, elsewhere="Look there.")
    # Without another place to look, or when it is short, the list is shown.
    assert "name_7" in did_you_mean("zzz", names)
    assert did_you_mean("zzz", names[:-1], elsewhere="Look there.").startswith(" Available: name_0, ")


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_every_error_is_a_sage_error_with_a_remedy(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, SageError)
    assert error.exit_code == 2
    # "What is wrong: what to do"; the base class has no remedy of its own.
    assert error is SageError or ":" in error.__doc__


def test_a_notebook_shows_one_line_and_the_traceback_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_KIT_DEBUG", raising=False)
    error = DataError("row 3 of a.csv has no text: fill it in")
    assert error._render_traceback_() == ["DataError: row 3 of a.csv has no text: fill it in"]
    monkeypatch.setenv("SAGE_KIT_DEBUG", "1")
    with pytest.raises(DataError) as caught:
        raise error
    assert "Traceback" in caught.value._render_traceback_()[0]
