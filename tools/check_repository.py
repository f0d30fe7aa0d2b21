"""Hold what is around the code against the tools that know how it should be: `tox run -e repo`.

Run as ``python tools/check_repository.py NEW_FOLDER`` where the dependency group ``repo`` is installed. Every tool
runs, and the last line names those that found something. Exceptions stand here and in `pyproject.toml`, each with its
reason.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from check_distributions import FOLDERS, ROOT

NOT_RATED = "AuthorEmail"
"""Of pyroma's tests: the authors give no address; SECURITY.md says how they are reached."""

MODULES = "faiss-cpu=faiss,openTSNE=openTSNE,umap-learn=umap"
"""Modules of what the plugins need, where deptry would guess another name."""

OFFERED = "DEP003=pydantic"
"""What plugins import through sage-kit: the options of a component are a pydantic model."""


def passes(command: list[str | Path], folder: Path = ROOT) -> bool:
    """Run a command in a folder; tells whether it found nothing."""
    print(f"$ cd {folder.relative_to(ROOT.parent)};", *command, flush=True)
    return subprocess.run([str(part) for part in command], cwd=folder, check=False).returncode == 0


def faults_of(folder: Path, built: Path) -> list[str]:
    """The tools that find something in a distribution, core or plugin, whose archives are built into a new folder."""
    deptry: list[str | Path] = ["deptry", "."]
    if folder != ROOT:
        (package,) = [path.parent.name for path in folder.glob("sage_kit_*/__init__.py")]
        deptry += ["--known-first-party", package]
        deptry += ["--package-module-name-map", MODULES, "--per-rule-ignores", OFFERED]
    commands: list[list[str | Path]] = [
        ["validate-pyproject", "pyproject.toml"],
        deptry,
        # the wheel is built from the source distribution
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, "."],
    ]
    faults = [str(command[0]) for command in commands if not passes(command, folder)]
    (source,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    on_built: list[list[str | Path]] = [
        ["pyroma", "--min", "10", "--skip-tests", NOT_RATED, source],
        ["check-wheel-contents", wheel],
    ]
    return faults + [str(command[0]) for command in on_built if not passes(command)]


def main(arguments: list[str]) -> None:
    """Check the repository and each of its distributions."""
    target = Path(arguments[0]).resolve()
    if target.exists() and any(target.iterdir()):
        sys.exit(f"check_repository: {target} is not empty: name a new folder")
    commands: list[list[str | Path]] = [
        ["repo-review", ".", "--show", "err"],
        ["codespell"],
        ["cffconvert", "--validate"],
        ["zizmor", "--offline", "--persona", "pedantic", ".github"],
    ]
    faults = [str(command[0]) for command in commands if not passes(command)]
    for folder in FOLDERS:
        faults += faults_of(folder, target / folder.name)
    if faults:
        sys.exit(f"check_repository: {', '.join(dict.fromkeys(faults))} found something")
    print(f"check_repository: nothing is wrong with the repository and its {len(FOLDERS)} distributions")


if __name__ == "__main__":
    main(sys.argv[1:])
