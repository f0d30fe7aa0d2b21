"""Generate a plugin of each kind, install it, run its own tests and `sage-kit check`.

Run as ``python tools/scaffold_each_kind.py NEW_FOLDER [KIND ...]`` where sage-kit, pytest and hatchling are installed.
All kinds are tried, whatever becomes of the first; the exit status is 1 if any failed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from sage_kit.components.scaffold import SCAFFOLD_KINDS

PYTHON = (sys.executable, "-m")
SAGE_KIT = (*PYTHON, "sage_kit")
# hatchling is here already; what the plugins need beyond sage-kit is nothing
INSTALL = (*PYTHON, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall")


def failed_step(kind: str, folder: Path) -> str:
    """The step at which a new plugin of this kind fails; empty when all of them pass."""
    name = f"fresh_{kind}"
    steps = {
        "new-plugin": (*SAGE_KIT, "new-plugin", kind, name, "--dest", str(folder)),
        "install": (*INSTALL, str(folder / name)),
        # its own file of settings, so that no settings of a folder above count; warnings are errors for us
        "tests": (
            *PYTHON,
            "pytest",
            "-q",
            "-W",
            "error",
            "-c",
            str(folder / name / "pyproject.toml"),
            str(folder / name),
        ),
        "check": (*SAGE_KIT, "check", name, "--kind", kind),
    }
    for step, command in steps.items():
        print(f"---- {kind}: {step}", flush=True)
        # pip runs where PIP_CONSTRAINT names its file from, everything else away from the source tree
        if subprocess.run(command, cwd=None if step == "install" else folder).returncode != 0:
            return step
    return ""


def main(arguments: list[str]) -> int:
    """Try the kinds named, or all, and print one line for each."""
    folder, kinds = Path(arguments[0]).resolve(), arguments[1:] or SCAFFOLD_KINDS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = {kind: failed_step(kind, folder) for kind in kinds}
    for kind, step in outcomes.items():
        print(f"{kind}: {f'FAILED at {step}' if step else 'passed'}")
    return 1 if any(outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
