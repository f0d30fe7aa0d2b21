"""Build every distribution and use what was built as somebody does who has no source.

Run as ``python tools/check_distributions.py NEW_FOLDER`` where `build` is installed. Source distributions and wheels of
the core and of each plugin are built, and the wheels hold every file of their package; in a new virtual environment
they are installed, and in an empty folder the command line and the quickstart's smoke run work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def call(command: list[str | Path], cwd: Path = ROOT, **variables: str) -> str:
    """What a command prints, which is printed too; raises SystemExit when it fails."""
    print("$", *command, flush=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**inherited, **variables}, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, flush=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed with {done.returncode}")
    return done.stdout


def require(condition: bool, message: str) -> None:
    """End with the message unless the condition holds."""
    if not condition:
        sys.exit(f"check_distributions: {message}")


def package_files(folder: Path) -> set[str]:
    """Files of a distribution's package, relative to the distribution's folder."""
    (package,) = [path.parent for path in folder.glob("sage_kit*/__init__.py")]
    paths = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def build(folder: Path, built: Path) -> Path:
    """Build a distribution and look into it; gives the wheel."""
    before = set(built.iterdir())
    # the wheel is built from the source distribution, so that this holds all that it takes
    call([sys.executable, "-m", "build", "--outdir", built, folder])
    made = set(built.iterdir()) - before
    (wheel,) = [path for path in made if path.suffix == ".whl"]
    (source,) = [path for path in made if path.name.endswith(".tar.gz")]
    expected = package_files(folder)
    require(any(name.endswith("/py.typed") for name in expected), f"{folder.name} has no py.typed")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    require(held == expected, f"{wheel.name} differs from its package in {sorted(held ^ expected)}")
    with tarfile.open(source) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    require(expected <= names, f"{source.name} lacks {sorted(expected - names)}")
    return wheel


def main(arguments: list[str]) -> None:
    """Build, install, try."""
    folder = Path(arguments[0]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    built, empty = folder / "built", folder / "empty"
    built.mkdir(parents=True)
    empty.mkdir()
    wheels = [build(path, built) for path in FOLDERS]
    templates = [
        name
        for name in package_files(ROOT)
        if name.startswith("sage_kit/components/templates/") and name.endswith(".in")
    ]
    require(bool(templates), "there are no templates to look for in the wheel")

    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, sage_kit = scripts / "python", scripts / "sage-kit"
    # from the root, because PIP_CONSTRAINT names its file from there
    call([python, "-m", "pip", "install", "--quiet", *wheels])
    call([python, "-m", "pip", "check"])
    call([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", ROOT / "requirements" / "data.txt"])

    version = call([sage_kit, "--version"], empty).strip()
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "sage_kit" / "__init__.py").read_text(), flags=re.MULTILINE)
    require(match is not None and version == f"sage-kit {match[1]}", f"unexpected version: {version}")
    where = call([python, "-c", "import sage_kit; print(sage_kit.__file__)"], empty).strip()
    require(Path(where).is_relative_to(folder / "venv"), f"sage_kit was imported from {where}")
    listing = json.loads(call([sage_kit, "plugins", "--json"], empty))
    require(not listing["quarantined"], f"in quarantine: {listing['quarantined']}")
    listed = {component["distribution"] for component in listing["components"]}
    expected = {"sage-kit", *(f"sage-kit-{path.name.replace('_', '-')}" for path in FOLDERS[1:])}
    require(listed == expected, f"components come from {sorted(listed)}, not from {sorted(expected)}")
    call([sage_kit, "new-plugin", "reducer", "mine", "--dest", "."], empty)
    require((empty / "mine" / "pyproject.toml").is_file(), "new-plugin wrote nothing")

    closed = {"HF_HUB_OFFLINE": "1", "SAGE_KIT_CACHE_DIR": str(folder / "cache")}
    said = call([sage_kit, "quickstart", "--smoke", "--runs-dir", "runs"], empty, **closed)
    require("mean nothing" in " ".join(said.split()), "the smoke run does not say that its scores mean nothing")
    summaries = [json.loads(path.read_text()) for path in empty.glob("runs/*/*/summary.json")]
    synthetic = sorted(sum(one["synthetic"] for one in summary["rounds"]) for summary in summaries)
    require(len(synthetic) == 2 and synthetic[0] == 0 < synthetic[1], f"synthetic examples of the arms: {synthetic}")
    print(f"{len(wheels)} distributions were built, installed and tried")


if __name__ == "__main__":
    main(sys.argv[1:])
