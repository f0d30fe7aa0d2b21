"""The public address of the repository: the one setting that links to it are made of.

It is `Source` in `[project.urls]` of `pyproject.toml`. Where there is none, pages and notebooks hold no such links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.config import toml_loads
from sage_kit.errors import ConfigError

if TYPE_CHECKING:
    from docutils import nodes

ROOT = Path(__file__).parents[1]
NAME = "Source"
BRANCH = "main"
GITHUB = re.compile(r"https://github\.com/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(\.git|/)?")


@dataclass(frozen=True)
class Address:
    """A repository on GitHub, which is where Binder and Colab fetch notebooks from."""

    owner: str
    name: str

    @property
    def web(self) -> str:
        """The page of the repository."""
        return f"https://github.com/{self.owner}/{self.name}"

    def folder(self, path: str) -> str:
        """The page of a folder, whose path is relative to the root."""
        return f"{self.web}/tree/{BRANCH}/{path}"

    def binder(self, path: str) -> str:
        """Where Binder opens a notebook."""
        return f"https://mybinder.org/v2/gh/{self.owner}/{self.name}/{BRANCH}?labpath={path}"

    def colab(self, path: str) -> str:
        """Where Colab opens a notebook."""
        return f"https://colab.research.google.com/github/{self.owner}/{self.name}/blob/{BRANCH}/{path}"


def address(file: Path = ROOT / "pyproject.toml") -> Address | None:
    """The address that a `pyproject.toml` names; None where it names none.

    Raises
    ------
    ConfigError
        Where it is not that of a repository on GitHub.
    """
    written = toml_loads(file.read_text(encoding="utf-8"))["project"].get("urls", {}).get(NAME)
    if written is None:
        return None
    match = GITHUB.fullmatch(written)
    if match is None:
        raise ConfigError(
            f"{file}: [project.urls] {NAME} is {written!r}: write https://github.com/OWNER/NAME, from which the links "
            f"to Binder and Colab are made"
        )
    return Address(match["owner"], match["name"])


def furo_options() -> dict[str, Any]:
    """Options of the theme: links to the source of a page, where the address is known."""
    found = address()
    if found is None:
        return {}
    return {"source_repository": found.web, "source_branch": BRANCH, "source_directory": ""}


def folder_node(folder: Path, text: nodes.Element) -> nodes.Element:
    """A link to a folder of the repository as docutils has it; its text alone where the address is not known."""
    from docutils import nodes

    found = address()
    if found is None:
        return text
    path = folder.resolve().relative_to(ROOT).as_posix()
    return nodes.reference("", "", text, refuri=found.folder(path), internal=False)
