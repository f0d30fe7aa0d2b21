"""The page: one HTML file that holds its script, its style and its data, and asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from pathlib import Path

from sage_kit.errors import RunDirectoryError, SageError
from sage_kit.storage.files import disk_errors, write_text

SCRIPT, STYLE = "explorer.js", "explorer.css"

EMPTY = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
"""Of no text: the library that draws the map makes an empty style element, and fills it by script."""

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="sage-page">
<noscript>This page draws its map and tables by a script of its own, which this browser does not run.</noscript>
<div id="sage-explorer"></div>
<script type="text/plain" id="sage-explorer-data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def asset(name: str) -> str:
    """The text of a built file of the front end.

    Raises
    ------
    SageError
        When it is not there, as in a clone whose front end was removed.
    """
    try:
        return files("sage_kit.explorer").joinpath("static", name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SageError(
            f"the explorer's {name} is missing from this installation: install sage-kit again, or build it with "
            "`npm ci && npm run build` in sage_kit/explorer/frontend"
        ) from None


def page(data: bytes, title: str) -> str:
    """The text of the page.

    Its policy allows this one script and this one style and no request at all. `unsafe-eval` is there because the
    library that draws the map (regl) writes its drawing functions itself; nothing of the data reaches them, and texts
    are put in as text only.

    Parameters
    ----------
    data : bytes
        What `sage_kit.explorer.page_data` made.
    title : str
    """
    script, style = asset(SCRIPT), asset(STYLE)
    policy = (
        f"default-src 'none'; script-src 'unsafe-eval' '{_hash(script)}'; style-src '{_hash(style)}' '{EMPTY}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return TEMPLATE.format(
        policy=policy,
        title=html.escape(title),
        style=style,
        script=script,
        data=base64.b64encode(data).decode(),
    )


def write_page(path: Path, data: bytes, title: str) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    RunDirectoryError
        When it cannot be written there.
    DiskFullError
        When the disk is full.
    """
    text = page(data, title)
    if path.is_dir():
        raise RunDirectoryError(f"{path} is a folder: name a file for the page")
    try:
        with disk_errors(str(path)):
            write_text(path, text)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror}): name another file with --out") from None


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
