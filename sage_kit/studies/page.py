"""An executed notebook as a page: self-contained, with its code folded. Light until it is written."""

from __future__ import annotations

from pathlib import Path

from sage_kit.storage.files import write_text

_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block input_group -%}<details><summary>code</summary>{{ super() }}</details>{%- endblock input_group -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
"""
# the blocks that are left empty would fetch scripts from elsewhere


def write_page(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=_TEMPLATE, mathjax_url="", require_js_url="")
    text, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(page, text)
