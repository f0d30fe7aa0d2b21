"""Every grid that is shown as an example is one: in the documentation, and in the module that reads them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from sage_kit.config import toml_loads
from sage_kit.errors import StudyError
from sage_kit.studies import grid
from sage_kit.studies.grid import grid_cells
from sage_kit.studies.parameters import notebooks_folder

DOCS = Path(__file__).parents[2] / "docs"


def examples() -> list[str]:
    """The indented and fenced blocks that set `study`, of all pages and of the module's own text."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))] + [grid.__doc__ or ""]
    blocks = [block for text in texts for block in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE)]
    fenced = [block for text in texts for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    found = [textwrap.dedent(block) for block in blocks] + fenced
    return [block for block in found if re.search(r"^study = ", block, re.MULTILINE)]


EXAMPLES = examples()


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_are_grids(tmp_path: Path, text: str) -> None:
    if "Study(" in text:
        pytest.skip("a study in Python")
    content = toml_loads(text)
    file = tmp_path / "grid.toml"
    file.write_text(text, encoding="utf-8")
    cells = grid_cells(notebooks_folder(), tmp_path / "cells", "", file)
    studies = [content["study"]] if isinstance(content["study"], str) else list(content["study"])
    studies += [cell["study"] for cell in content.get("cells", ()) if "study" in cell]
    assert {cell.study for cell in cells} == set(studies)


def test_there_are_examples() -> None:
    assert sum("[[cells]]" in text for text in EXAMPLES) >= 2


def test_cells_with_a_study_of_their_own(tmp_path: Path) -> None:
    def cells(text: str, name: str = "") -> list[tuple[str, object]]:
        file = tmp_path / "grid.toml"
        file.write_text(text, encoding="utf-8")
        found = grid_cells(notebooks_folder(), tmp_path / "cells", name, file)
        return [(cell.study[:2], cell.parameters["task"]) for cell in found]

    text = 'study = "04"\ntask = ["cola", "sst2"]\n[[cells]]\ntask = "rte"\n[[cells]]\nstudy = "10"\ntask = "mrpc"\n'
    assert cells(text) == [("04", "cola"), ("04", "sst2"), ("04", "rte"), ("10", "mrpc")]
    assert cells('[[cells]]\nstudy = "04"\ntask = "rte"\n') == [("04", "rte")]
    for wrong, told in (
        ('task = ["rte"]\n[[cells]]\nstudy = "04"\n', "has no key 'study'"),
        ('[[cells]]\nstudy = "04"\n[[cells]]\ntask = "rte"\n', "has no key 'study'"),
        ('[[cells]]\nstudy = ["04"]\n', r"number 1 with a study: 'study' is \['04'\]"),
        ('[[cells]]\nstudy = "99"\n', "Unknown study '99'"),
        ('study = "04"\n[[cells]]\nstudy = "10"\nno_such = 1\n', r"with a study: Unknown parameter 'no_such'"),
    ):
        with pytest.raises(StudyError, match=told):
            cells(wrong)
