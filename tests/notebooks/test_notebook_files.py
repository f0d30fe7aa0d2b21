"""The notebooks as they lie in git: like their scripts, without outputs, with parameters that are known and used."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sage_kit.config import RunConfig
from sage_kit.errors import SageError, StudyError, UnknownComponentError
from sage_kit.studies.claims import CLAIMS
from sage_kit.studies.parameters import (
    NAMING,
    PARAMETERS_TAG,
    SEVERAL,
    cell_source,
    describe_notebook,
    load_notebook,
    read_parameters,
)
from sage_kit.studies.study import OWN_PARAMETERS

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
COMMON = ("profile", "task", "seeds", "plugin", "data_dir", "runs_dir", "results_dir")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_after_parameters(path: Path) -> str:
    cells = [cell for cell in load_notebook(path)["cells"] if cell["cell_type"] == "code"]
    own = next(i for i, cell in enumerate(cells) if PARAMETERS_TAG in cell["metadata"].get("tags", []))
    assert own == 0, "the parameters come first"
    return "\n".join(cell_source(cell) for cell in cells[1:])


def test_all_are_there_in_order() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(18)]


def test_notebooks_and_scripts_are_alike() -> None:
    pytest.importorskip("jupytext")
    import repository_address
    from sync_notebooks import as_notebook

    address = repository_address.address()
    for path in NOTEBOOKS:
        notebook = as_notebook(path.with_suffix(".py").read_text(encoding="utf-8"), path.stem, address)
        assert path.read_text(encoding="utf-8") == notebook, "run: python tools/sync_notebooks.py"


def test_the_first_cell_says_where_a_notebook_can_be_opened() -> None:
    pytest.importorskip("jupytext")
    from repository_address import Address
    from sync_notebooks import as_notebook, as_script

    script = NOTEBOOKS[0].with_suffix(".py").read_text(encoding="utf-8")
    notebook = as_notebook(script, NOTEBOOKS[0].stem, Address("owner", "name"))
    first = "".join(json.loads(notebook)["cells"][0]["source"])
    assert "(https://colab.research.google.com/github/owner/name/blob/main/notebooks/00_tour.ipynb)" in first
    assert "(https://mybinder.org/v2/gh/owner/name/main?labpath=notebooks/00_tour.ipynb)" in first
    assert "sage-kit[notebooks] @ git+https://github.com/owner/name@main" in first
    # the scripts, which are edited, stay free of them
    assert as_script(notebook) == as_script(as_notebook(script))


@each
def test_outputs_are_empty(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each
def test_every_parameter_is_known_and_used(path: Path) -> None:
    parameters = read_parameters(path)
    names = [parameter.name for parameter in parameters]
    assert set(COMMON) <= set(names)
    assert all(parameter.help for parameter in parameters)
    nodes = list(ast.walk(ast.parse(code_after_parameters(path))))
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    given = [ast.literal_eval(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "own"]
    # the study itself takes the others
    left = {*names} - {parameter.name for parameter in OWN_PARAMETERS} - {"rates"} - {*RunConfig.model_fields}
    assert not left.union(*given) - loaded, "a parameter is not used"


@each
def test_a_result_is_that_of_the_profile_unless_a_parameter_changes_it(path: Path) -> None:
    """Whatever is not None makes a label of its own."""
    defaults = {parameter.name: parameter.default for parameter in read_parameters(path)}
    assert {name for name, value in defaults.items() if value is not None} == {"profile", "plugin"}


@each
def test_profile_is_smoke_unless_given(path: Path) -> None:
    assert {p.name: p.default for p in read_parameters(path)}["profile"] == "smoke"


@each
def test_texts_state_question_method_and_what_would_change_our_mind(path: Path) -> None:
    text = "\n".join(cell_source(c) for c in load_notebook(path)["cells"] if c["cell_type"] == "markdown")
    for words in ("**Question.**", "**Method.**", "**What would change our mind.**"):
        assert words in text
    # outcomes are read out from the numbers
    assert not re.search(r"\b(we find|we found|results show|significantly)\b", text, re.IGNORECASE)


def up_to_its_study(path: Path, **given: Any) -> dict[str, Any]:
    """What a notebook holds once its study is made, with parameters as papermill injects them."""
    cells = [cell_source(cell) for cell in load_notebook(path)["cells"] if cell["cell_type"] == "code"]
    own = next(number for number, source in enumerate(cells) if "study = Study." in source)
    namespace: dict[str, Any] = {"__name__": "notebook"}
    for number, source in enumerate(cells[: own + 1]):
        exec(compile(source, f"{path.name}, cell {number}", "exec"), namespace)
        if number == 0:
            namespace.update(given)
    return namespace


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of no project, where a notebook that is refused must leave nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGE_KIT_DATA_DIR", raising=False)
    return tmp_path


NAMES = [
    pytest.param(path, parameter.name, id=f"{path.stem}-{parameter.name}")
    for path in NOTEBOOKS
    for parameter in read_parameters(path)
    if parameter.name in NAMING
]


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_an_unknown_component_is_refused_before_the_first_arm(path: Path, name: str, elsewhere: Path) -> None:
    given = "no_such_thing"
    if name in SEVERAL and name != "task":
        known = {"reducer": "pca", "inverter": "knn", "sampler": "smote", "filter": "cosine", "lift": "shift",
                 "decoder": "nearest_token", "loss": "rkd"}[NAMING[name]]  # fmt: skip
        given = f"{known},{given}"
    with pytest.raises(UnknownComponentError, match=f"Unknown {NAMING[name]} 'no_such_thing'"):
        up_to_its_study(path, **{name: given})
    assert not list(elsewhere.iterdir())


WRONG = {
    "seeds": ["five", 2.5, True, "[2]"],
    "rounds": ["many", 2.5, False],
    "transfer_rows": [0.5, [100]],
    "rates": ["fast", [], [1e-4, 0.0], 1e-4],
    "task": [True, ["sst2"], 3.5],
    "profile": ["smal", None, 3],
    "n_components": ["[2]", 2.5],
    "most_rounds": ["ten", 0],
    "margin": ["wide", 0.0, 0.02],
    "maps": [1, "two"],
    "clusters": [1, 2.5],
    "examples": [1, "few"],
    "let_through": [1.5, "most"],
    "search_seeds": [0, "two"],
    "least": [3, "much"],
    "runs_dir": [5.5, True],
}
TYPES = [
    pytest.param(path, parameter.name, value, id=f"{path.stem}-{parameter.name}-{value}")
    for path in NOTEBOOKS
    for parameter in read_parameters(path)
    for value in WRONG.get(parameter.name, ())
    # a number where text is wanted is that text, as papermill makes numbers of whatever looks like one
    if not (parameter.name in ("task", "runs_dir") and isinstance(value, float))
]


@pytest.mark.parametrize(("path", "name", "value"), TYPES)
def test_a_value_of_a_wrong_type_is_one_line_before_the_first_arm(
    path: Path, name: str, value: Any, elsewhere: Path
) -> None:
    with pytest.raises(SageError) as caught:
        up_to_its_study(path, **{name: value})
    assert len(str(caught.value).splitlines()) == 1
    assert name in str(caught.value)
    assert not list(elsewhere.iterdir())


@each
def test_study_is_called_like_its_notebook_and_takes_its_own_defaults(path: Path, elsewhere: Path) -> None:
    study = up_to_its_study(path)["study"]
    title, question = describe_notebook(path)
    assert (study.name, study.title) == (path.stem, title)
    assert question
    assert study.results_dir == elsewhere / "runs" / "results"
    assert study.store.root == elsewhere / "runs" / "studies"
    assert not list(elsewhere.iterdir())


@each
def test_findings_that_claims_rest_on_are_made(path: Path) -> None:
    source = code_after_parameters(path)
    for claim in CLAIMS:
        if claim.study == path.stem and not claim.finding.startswith("score_"):
            for finding in (claim.finding, *claim.also):
                made = re.search(rf"""["']{finding}(["']|_\{{)""", source)  # itself, or by task
                assert made, f"claim {claim.id} rests on finding {finding}, which is not made"


def test_a_sampler_that_cannot_be_matched_is_refused_before_the_first_arm(elsewhere: Path) -> None:
    with pytest.raises(StudyError, match="displacement of sampler 'high_loss' cannot be set"):
        up_to_its_study(FOLDER / "10_is_it_the_region.ipynb", samplers="smote,high_loss")
    assert not list(elsewhere.iterdir())
