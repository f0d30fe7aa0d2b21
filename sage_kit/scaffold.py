"""A new plugin distribution from the templates in `sage_kit/templates`. Light.

A template is a file whose name ends in ``.in``; ``$name`` and the like are replaced in it. ``common`` holds what every
kind of plugin has, and a folder for each kind its hook and its implementation.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template

import sage_kit
from sage_kit.errors import ConfigError, RunDirectoryError, did_you_mean
from sage_kit.files import disk_errors

TEMPLATES = Path(__file__).parent / "templates"

SCAFFOLD_KINDS = ("reducer", "sampler", "inverter", "lift", "filter", "decoder", "observer")
"""The kinds of component that there is a template for."""

NAME = re.compile(r"[a-z][a-z0-9_]*")


def new_plugin(kind: str, name: str, dest: str | Path = "plugins") -> Path:
    """Write an installable distribution with one component that passes its conformance checks.

    Parameters
    ----------
    kind : str
        One of `SCAFFOLD_KINDS`.
    name : str
        The component's name; the distribution becomes ``sage-kit-<name>`` and the package ``sage_kit_<name>``.
    dest : path
        The folder that gets the distribution's folder, `name`; made if absent.

    Returns
    -------
    Path
        The distribution's folder.

    Raises
    ------
    ConfigError
        For an unknown kind or a bad name.
    RunDirectoryError
        When the folder exists already.
    DiskFullError
        When the disk is full.
    """
    if kind not in SCAFFOLD_KINDS:
        raise ConfigError(f"There is no template for kind {kind!r}.{did_you_mean(kind, SCAFFOLD_KINDS)}")
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise ConfigError(
            f"the name {name!r} cannot be a plugin's: take lower case letters, digits and underscores, a letter first, "
            "and no name of Python's own"
        )
    folder = Path(dest) / name
    if folder.exists():
        raise RunDirectoryError(f"{folder} exists already: choose another name, or another folder with --dest")
    values = template_values(kind, name)
    with disk_errors(str(folder)):
        for source, relative in _files(kind):
            path = folder / Template(relative).substitute(values)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(source.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return folder


def template_values(kind: str, name: str) -> dict[str, str]:
    """What the templates' placeholders stand for."""
    major, minor = sage_kit.__version__.split(".")[:2]
    return {
        "name": name,
        "kind": kind,
        "kinds": f"{kind}s",
        "article": "an" if kind[0] in "aeio" else "a",
        "distribution": f"sage-kit-{name.replace('_', '-')}",
        "package": f"sage_kit_{name}",
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "version": sage_kit.__version__,
        "oldest": f"{major}.{minor}",
        "first_breaking": f"{major}.{int(minor) + 1}",
    }


def next_steps(folder: Path, kind: str, name: str) -> str:
    """What to do with a new distribution, as lines of text."""
    lines = [
        f"Written: {folder}",
        "Try it:",
        f"  pip install -e {folder}",
        f"  sage-kit check {name} --kind {kind}",
        f"  pytest {folder}",
        f"Then write your own {kind} in {folder / f'sage_kit_{name}' / f'{kind}.py'}.",
        "In the repository of sage-kit, add",
        f"  to tox.ini: the word {name} to the braces of [testenv:{{...}}]",
        f"  to requirements/plugins.txt: ./plugins/{name}",
        f"  to requirements/dev.txt: -e ./plugins/{name}",
        "  to requirements/min.txt: the lowest version of each package that nothing needed before",
        f"  to pyproject.toml, [tool.ruff.lint.isort]: sage_kit_{name} to known-first-party",
    ]
    return "\n".join(lines)


def _files(kind: str) -> list[tuple[Path, str]]:
    """Template files of a kind, each with the path of what it becomes, placeholders included."""
    found = []
    for part in ("common", kind):
        base = TEMPLATES / part
        for source in sorted(base.rglob("*.in")):
            relative = source.relative_to(base).as_posix().removesuffix(".in")
            found.append((source, relative.replace("PACKAGE", "${package}")))
    return found
