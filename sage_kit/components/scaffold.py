"""A new plugin distribution from the templates in `sage_kit/components/templates`.

A template is a file whose name ends in ``.in``; ``$name`` and the like are replaced in it. ``common`` holds what every
kind of plugin has, and a folder for each kind its hook and its implementation.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

import sage_kit
from sage_kit.components.spec_checks import plural
from sage_kit.errors import ConfigError, RunDirectoryError, did_you_mean
from sage_kit.storage.files import atomic_directory, disk_errors

TEMPLATES = Path(__file__).parent / "templates"

SCAFFOLD_KINDS = (
    "reducer", "sampler", "inverter", "lift", "filter", "loss", "decoder", "task", "metric", "observer", "stop_rule",
    "family", "task_kind",
)  # fmt: skip
"""The kinds of component that there is a template for: all."""

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

LONGEST_NAME = 30
"""Characters of a name with which the lines of every template stay within 120."""

USES = {
    "task": "sage-kit run --task $name --reducer pca",
    "metric": "sage-kit run --task sst2 --reducer pca --metrics $name,accuracy",
    "decoder": "sage-kit decode RUN_DIRECTORY --decoder $name",
    "observer": "sage-kit run --task sst2 --reducer pca --observers jsonl,progress,$name",
    "loss": "sage-kit run --task sst2 --reducer pca --losses kl=1,$name=0.5",
    "family": "sage-kit run --task sst2 --teacher CHECKPOINT",
    "task_kind": "sage-kit run --task file --task-kind $name --train-file FILE.csv --reducer pca",
    "reducer": "sage-kit run --task sst2 --reducer $name",
}
"""How a component is chosen, for its README; the other kinds have a setting of their name."""

HOLDS = {
    "task": "hook, with the task's columns, labels and metrics",
    "family": "hook, with model types and paths of their parts",
}
IMPORTED = {
    "task": "reads the data when a run loads the task",
    "family": "computes the blocks and is imported when a run has such a teacher",
}
"""What the modules of a plugin do, for its README, where it is something else than for the other kinds."""


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
        The distribution's folder, complete.

    Raises
    ------
    ConfigError
        For an unknown kind or a bad name.
    RunDirectoryError
        When the folder exists already.
    DiskFullError
        When the disk is full.
    """
    check_name(kind, name)
    folder = Path(dest) / name
    if folder.exists():
        raise RunDirectoryError(f"{folder} exists already: choose another name, or another folder with --dest")
    values = template_values(kind, name)
    with disk_errors(str(folder)), atomic_directory(folder) as unfinished:
        for source, relative in _files(kind):
            path = unfinished / Template(relative).substitute(values)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(source.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return folder


def check_name(kind: str, name: str) -> None:
    """Raise ConfigError unless there is a template for the kind, and the name can be a component's and a package's."""
    if kind not in SCAFFOLD_KINDS:
        raise ConfigError(f"There is no template for kind {kind!r}.{did_you_mean(kind, SCAFFOLD_KINDS)}")
    is_pythons = keyword.iskeyword(name) or name in sys.stdlib_module_names
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME or is_pythons:
        raise ConfigError(
            f"the name {name!r} cannot be a plugin's: take lower case letters, digits and single underscores between "
            f"them, {LONGEST_NAME} characters at most, a letter first, and no name of Python's own"
        )


def distribution_name(name: str) -> str:
    """The distribution of a plugin's folder."""
    return f"sage-kit-{name.replace('_', '-')}"


def template_values(kind: str, name: str) -> dict[str, str]:
    """What the templates' placeholders stand for."""
    major, minor = sage_kit.__version__.split(".")[:2]
    words = kind.replace("_", " ")
    use = USES.get(kind, f"sage-kit run --task sst2 --reducer pca --{kind.replace('_', '-')} $name")
    return {
        "name": name,
        "kind": kind,
        "kinds": plural(kind),
        "words": words,
        "words_plural": plural(words),
        "use": Template(use).substitute(name=name),
        "holds": HOLDS.get(kind, "options and the hook"),
        "imported": IMPORTED.get(kind, f"holds the {words} and is imported when a run builds it"),
        "distribution": distribution_name(name),
        "package": f"sage_kit_{name}",
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "version": sage_kit.__version__,
        "oldest": f"{major}.{minor}",
        "first_breaking": f"{major}.{int(minor) + 1}",
    }


def next_steps(folder: Path, kind: str, name: str, changed: Sequence[str] = (), is_registered: bool = False) -> str:
    """What to do with a new distribution, as lines of text.

    Parameters
    ----------
    folder : Path
        The distribution's folder.
    kind, name : str
        As `new_plugin` took them.
    changed : sequence of str
        Files of the repository that its registration changed.
    is_registered : bool
        Whether it is part of sage-kit's repository.
    """
    lines = [
        f"Plugin: {folder}",
        "Try it:",
        f"  pip install -e {folder}",
        f"  sage-kit check {name} --kind {kind}",
        f"  pytest {folder}",
        f"Then write your own {kind.replace('_', ' ')} in {folder / f'sage_kit_{name}' / f'{kind}.py'}.",
    ]
    if not is_registered:
        return "\n".join([*lines, "In a clone of sage-kit's repository, --register makes it one of its plugins."])
    lines += [
        f"Registered in: {', '.join(changed)}" if changed else "It was registered already; no file is changed.",
        "Once it is installed: python -m sage_kit.reports.reference docs",
        "By hand, for each package that nothing needed before: its lowest version to requirements/min.txt, its newest",
        "to requirements/versions/packages.txt and, if it has no types, its name to [[tool.mypy.overrides]] in",
        "pyproject.toml.",
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
