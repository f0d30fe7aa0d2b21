"""How Sphinx makes the documentation's site: `tox run -e docs`.

The source folder is the root of the repository, and this file lies in ``docs`` (``sphinx-build -c docs . OUT``), so
that the links between pages are the same on the site as where the repository is read.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from docutils import nodes  # noqa: E402
from repository_address import folder_node, furo_options  # noqa: E402
from sphinx import addnodes  # noqa: E402

import sage_kit  # noqa: E402

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project, author, copyright = "sage_kit", "the sage_kit authors", "the sage_kit authors"
version = release = sage_kit.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "notebooks/*.ipynb",
    "plugins/*/README.md",
    "benchmarks/README.md",
    "changelog.d/README.md",
    "results/README.md",
    *(f"{name}.md" for name in ("README", "CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "SECURITY")),
]
exclude_patterns = ["**/.*", ".*", "dist", "docs/_build", "runs", "venv"]
nitpicky = True
nitpick_ignore_regex = [
    # what other projects document; nothing is fetched from their sites while this one is built
    (r"py:.*", r"(?!sage_kit\b).*"),
    # classes of its own that a public signature names and no program makes
    (
        r"py:class",
        r"sage_kit\.(components\.(hooks|loader)|data\.(encoding|sources|splits)|rundir\.checkpoint|storage\.reading)\..*",
    ),
]

# ---- Markdown and notebooks: read, not executed; `tests/test_documentation.py` runs the code of the pages

nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_exclude = ".linenos, .gp, .go"

# ---- docstrings

default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init, options"}
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False

# ---- appearance

html_theme = "furo"
html_title = f"sage_kit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = furo_options()
html_copy_source = False

SECTION = re.compile(r"^## (.+)$", flags=re.MULTILINE)
PAGE_LINK = re.compile(r"^- \[[^]]+\]\(([^)#:]+\.md)\)", flags=re.MULTILINE)


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Make the sidebar of the lists on the front page, so that they stand once, and the notebooks part of the studies.

    Pages hold no directives for that, which would show where the repository is read.
    """
    if docname == root_doc:
        _, *parts = SECTION.split(source[0])
        for title, text in zip(parts[::2], parts[1::2], strict=True):
            source[0] += contents(PAGE_LINK.findall(text), f":caption: {title}")
    elif docname == "docs/studies":
        source[0] += contents(["../notebooks/*"], ":glob:")


def contents(entries: list[str], option: str) -> str:
    """A hidden table of contents; nothing without entries."""
    lines = ["", "```{toctree}", ":hidden:", option, "", *entries, "```", ""]
    return "\n".join(lines) if entries else ""


def resolve_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to folders, which have no page on the site, lead to the repository, where its address is known."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        folder = Path(app.env.doc2path(doctree.settings.env.docname)).parent / node["reftarget"]
        if node["reftype"] == "myst" and folder.is_dir():
            text = node.next_node(nodes.Text)
            node.replace_self(folder_node(folder, nodes.inline("", text)))


def find_public(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    """The public name of a class that a signature names by the module it is defined in."""
    target = node["reftarget"]
    domain: Any = env.domains["py"]
    found = [full for full in domain.objects if full.rpartition(".")[2] == target.rpartition(".")[2]]
    if node.get("refdomain") != "py" or not target.startswith("sage_kit.") or len(found) != 1:
        return None
    kind = domain.objects[found[0]].objtype
    return domain.resolve_xref(env, node["refdoc"], app.builder, kind, found[0], node, text)


def leave_out_fields(app: Sphinx, what: str, name: str, thing: Any, *rest: Any) -> tuple[str, None] | None:
    """No signature for a dataclass: its fields stand below, with their meaning."""
    return ("", None) if what == "class" and dataclasses.is_dataclass(thing) else None


def write_entrance(app: Sphinx, failed: Exception | None) -> None:
    """Let the site's root lead to its front page."""
    if failed is None and app.builder.format == "html":
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={root_doc}.html">'
        page += f'<title>sage_kit</title><a href="{root_doc}.html">The documentation of sage_kit</a>\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-signature", leave_out_fields)
    app.connect("doctree-read", resolve_folders)
    app.connect("missing-reference", find_public)
    app.connect("build-finished", write_entrance)
