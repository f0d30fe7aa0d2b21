from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_kit.errors import DiskFullError, RunDirectoryError
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint

KEY = fingerprint("key")


class Worker:
    """A cache whose messages and builds are counted."""

    def __init__(self, directory: Path) -> None:
        self.messages: list[str] = []
        self.builds = 0
        self.cache = Cache(directory, self.messages.append, self.messages.append)

    def build(self, directory: Path) -> None:
        self.builds += 1
        (directory / "data.bin").write_bytes(b"content" * 1000)
        (directory / "deep").mkdir()
        (directory / "deep" / "more.txt").write_text(f"build {self.builds}", encoding="utf-8")

    def entry(self, key: str = KEY, kind: str = "vectors") -> Path:
        return self.cache.entry(kind, key, self.build, {"examples": 3})


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path / "cache")


# ---- dictionaries of arrays


def test_arrays_are_computed_once_for_the_same_parts(worker: Worker) -> None:
    computed = []

    def compute() -> dict[str, Any]:
        computed.append(1)
        return {"weights": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 4), np.float32)}

    parts = ["decoder", 3, np.arange(4)]
    first = worker.cache.arrays("decoder", parts, compute)
    again = Worker(worker.cache.directory).cache.arrays("decoder", ["decoder", 3, np.arange(4)], compute)
    assert len(computed) == 1
    for found in (first, again):
        np.testing.assert_array_equal(found["weights"], [[0, 1, 2], [3, 4, 5]])
        assert found["empty"].shape == (0, 4)
    first["weights"][0, 0] = 9  # a copy: the cache is not touched
    assert worker.cache.arrays("decoder", parts, compute)["weights"][0, 0] == 0
    worker.cache.arrays("decoder", ["decoder", 3, np.arange(5)], compute)
    assert len(computed) == 2
    assert [entry.about for entry in worker.cache.entries()] == [{"what": "decoder"}] * 2


# ---- found or computed


def test_an_entry_is_computed_once_and_found_by_any_later_cache(worker: Worker) -> None:
    path = worker.entry()
    assert worker.messages == []
    later = Worker(worker.cache.directory)
    assert later.entry() == path
    assert (worker.builds, later.builds) == (1, 0)
    assert later.messages == [f"vectors: found in the cache ({KEY[:8]})"]
    assert (path / "data.bin").read_bytes() == b"content" * 1000


@pytest.mark.parametrize(("kind", "key"), [("vectors", fingerprint("other")), ("labels", KEY)])
def test_another_key_or_kind_never_meets_what_is_there(worker: Worker, kind: str, key: str) -> None:
    first = worker.entry()
    second = worker.entry(key, kind)
    assert first != second
    assert worker.builds == 2
    assert (second / "deep" / "more.txt").read_text(encoding="utf-8") == "build 2"


def flip_one_bit(path: Path) -> None:
    data = bytearray((path / "data.bin").read_bytes())
    data[3500] ^= 4
    (path / "data.bin").write_bytes(data)


def truncate(path: Path) -> None:
    (path / "data.bin").write_bytes((path / "data.bin").read_bytes()[:5000])


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (truncate, "data.bin has 5000 bytes instead of 7000"),
    (flip_one_bit, "data.bin does not have its checksum"),
    (lambda path: (path / "deep" / "more.txt").unlink(), "deep/more.txt is missing"),
    (lambda path: (path / "entry.json").write_text("{", encoding="utf-8"), "entry.json is missing or not readable"),
    (lambda path: (path / "entry.json").unlink(), "entry.json is missing or not readable"),
]


@pytest.mark.parametrize(
    ("damage", "named"), DAMAGES, ids=["truncated", "flipped", "missing", "manifest", "no manifest"]
)
def test_damage_is_named_and_the_entry_computed_again(
    worker: Worker, damage: Callable[[Path], object], named: str
) -> None:
    path = worker.entry()
    damage(path)
    assert worker.entry() == path
    assert worker.messages == [f"vectors: cache entry {path} is damaged ({named}); computing it again"]
    assert worker.builds == 2
    assert (path / "data.bin").read_bytes() == b"content" * 1000
    worker.entry()
    assert worker.builds == 2


def test_an_entry_without_a_file_that_it_must_hold_is_none_whatever_its_manifest_says(worker: Worker) -> None:
    path = worker.entry()
    holds = ("data.bin", "config.json")

    def build(directory: Path) -> None:
        worker.build(directory)
        (directory / "config.json").write_text("{}")

    assert worker.cache.entry("vectors", KEY, build, holds=holds) == path
    assert worker.messages == [f"vectors: cache entry {path} is damaged (config.json is missing); computing it again"]
    assert (path / "config.json").read_text() == "{}"
    # what does not write it makes no entry
    other = fingerprint("other")
    with pytest.raises(RuntimeError, match=r"has written no config\.json"):
        worker.cache.entry("vectors", other, worker.build, holds=holds)
    assert not (worker.cache.directory / "vectors" / other).exists()


def test_an_entry_that_cannot_be_loaded_is_named_and_computed_again(worker: Worker) -> None:
    path = worker.entry()
    Worker(worker.cache.directory).entry()
    seen = []

    def load(folder: Path) -> str:
        seen.append((folder / "deep" / "more.txt").read_text())
        if seen[-1] == "build 1":
            raise ValueError("of another version")
        return seen[-1]

    assert worker.cache.read("vectors", KEY, worker.build, load) == "build 2"
    assert seen == ["build 1", "build 2"]
    assert worker.messages[-1] == (
        f"vectors: cache entry {path} cannot be loaded (of another version); computing it again"
    )
    # one that cannot be loaded when it is new is a fault of whoever made it
    with pytest.raises(ValueError, match="never"):
        worker.cache.read("vectors", KEY, worker.build, lambda folder: int("never"))


def test_a_build_that_fails_leaves_nothing(worker: Worker) -> None:
    def fail(directory: Path) -> None:
        worker.build(directory)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        worker.cache.entry("vectors", KEY, fail)
    assert [path for path in worker.cache.directory.rglob("*") if not path.name.startswith(".lock-")] == [
        worker.cache.directory / "vectors"
    ]
    assert worker.entry().is_dir()


def test_what_a_killed_process_left_is_removed_before_the_entry_is_computed(worker: Worker) -> None:
    program = f"""
        import os
        from pathlib import Path
        from sage_kit.storage.cache import Cache
        def build(directory):
            (directory / "half").write_text("1")
            os.kill(os.getpid(), 9)
        Cache(Path({str(worker.cache.directory)!r})).entry("vectors", {KEY!r}, build)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert list(worker.cache.directory.glob("vectors/.tmp-*"))
    path = worker.entry()
    assert worker.builds == 1
    assert not list(worker.cache.directory.glob("vectors/.tmp-*"))
    assert not (path / "half").exists()


# ---- several processes


def test_of_two_that_need_an_entry_one_computes_it_and_the_other_waits(worker: Worker) -> None:
    other = Worker(worker.cache.directory)
    started, go_on = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        started.set()
        assert go_on.wait(timeout=60)
        worker.build(directory)

    first = threading.Thread(target=lambda: worker.cache.entry("vectors", KEY, slow))
    second = threading.Thread(target=other.entry)
    first.start()
    assert started.wait(timeout=60)
    other.messages = WakeUp(go_on)
    other.cache = Cache(worker.cache.directory, other.messages.append)
    second.start()
    for thread in (first, second):
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert (worker.builds, other.builds) == (1, 0)
    assert other.messages == [
        "vectors: waiting for another process that is computing it",
        f"vectors: another process has computed it ({KEY[:8]})",
    ]


class WakeUp(list[str]):
    """Messages; the first one sets an event."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def append(self, message: str) -> None:
        super().append(message)
        self.event.set()


# ---- directories that cannot be written, full disks


def test_a_cache_directory_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    worker = Worker(tmp_path / "file")
    with pytest.raises(RunDirectoryError) as caught:
        worker.entry()
    message = str(caught.value)
    assert message.startswith(f"cache directory {tmp_path / 'file'} cannot be written (")
    assert message.endswith("set cache_dir or SAGE_KIT_CACHE_DIR to one that can")
    assert "\n" not in message


def test_a_kind_that_is_a_file_is_one_line(worker: Worker) -> None:
    worker.cache.directory.mkdir()
    (worker.cache.directory / "vectors").write_text("", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        worker.entry()


def test_a_read_only_cache_still_gives_what_it_has(worker: Worker, read_only: Callable[[Path], None]) -> None:
    path = worker.entry()
    for directory in (worker.cache.directory, path.parent):
        read_only(directory)
    assert worker.entry() == path
    with pytest.raises(RunDirectoryError, match=r"cannot be written \(Permission denied\): set cache_dir"):
        worker.entry(fingerprint("other"))


@pytest.fixture
def read_only(tmp_path: Path) -> Callable[[Path], None]:
    probe = tmp_path / "probe"
    probe.mkdir(mode=0o555)
    try:
        (probe / "x").mkdir()
    except PermissionError:
        return lambda directory: directory.chmod(0o555)
    pytest.skip("this user may write into read-only directories (root)")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs a system that limits the size of files")
    program = f"""
        import resource
        from pathlib import Path
        from sage_kit.storage import tensorfile
        from sage_kit.storage.cache import Cache
        from sage_kit.errors import DiskFullError
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        def build(directory):
            tensorfile.create(directory / "data", {{"a": ("float32", (100_000,))}})
        try:
            Cache(Path({str(tmp_path)!r})).entry("vectors", {KEY!r}, build)
        except DiskFullError as error:
            print(error)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    entry = tmp_path / "vectors" / KEY
    assert process.stderr == ""
    assert process.stdout == f"disk full while writing the cache entry {entry}: free some space and try again\n"
    assert [path for path in entry.parent.iterdir() if not path.name.startswith(".lock-")] == []


def test_an_error_of_the_build_is_not_blamed_on_the_cache_directory(worker: Worker) -> None:
    def build(directory: Path) -> None:
        raise PermissionError(13, "Permission denied", "/elsewhere")

    with pytest.raises(PermissionError, match="/elsewhere"):
        worker.cache.entry("vectors", KEY, build)


# ---- list and clear


def test_entries_are_listed_with_what_they_are(worker: Worker) -> None:
    worker.entry(kind="vectors")
    worker.entry(kind="labels")
    labels, vectors = worker.cache.entries()
    assert (labels.kind, vectors.kind) == ("labels", "vectors")
    assert vectors.key == KEY
    assert vectors.about == {"examples": 3}
    assert vectors.bytes == 7000 + len("build 1")
    assert vectors.created.endswith("Z")
    assert vectors.path == worker.cache.directory / "vectors" / KEY


def test_an_entry_with_an_unreadable_manifest_is_listed_and_cleared(worker: Worker) -> None:
    path = worker.entry()
    (path / "entry.json").write_text('{"files": []}', encoding="utf-8")
    (entry,) = worker.cache.entries()
    assert (entry.kind, entry.key, entry.path) == ("vectors", KEY, path)
    assert entry.about == {"fault": "entry.json is not readable"}
    assert worker.cache.clear() > 7000
    assert not path.exists()


def test_clear_removes_one_kind_or_all_and_tells_how_much(worker: Worker) -> None:
    vectors, labels = worker.entry(kind="vectors"), worker.entry(kind="labels")
    size = sum(file.stat().st_size for file in labels.rglob("*") if file.is_file())
    assert worker.cache.clear("labels") == size
    assert vectors.is_dir()
    assert not labels.exists()
    assert worker.cache.clear() > 7000
    assert worker.cache.entries() == []
    assert [path for path in worker.cache.directory.rglob("*") if path.is_file()] == []
    assert worker.cache.clear() == 0


def test_clear_removes_what_killed_processes_left_and_nothing_of_others(worker: Worker) -> None:
    worker.entry()
    left = worker.cache.directory / "vectors" / f".tmp-{fingerprint('x')}-0123abcd"
    foreign = [worker.cache.directory / "vectors" / "mine", worker.cache.directory / "vectors" / ".tmp-mine"]
    for directory in (left, *foreign):
        directory.mkdir()
        (directory / "file").write_bytes(bytes(100_000))
    assert worker.cache.clear() > 100_000
    assert not left.exists()
    assert all((directory / "file").is_file() for directory in foreign)


@pytest.mark.parametrize(
    ("place", "manifest"),
    [
        (f"notes/{KEY}", '{"files": {}}'),  # no kind of ours
        ("vectors/mine", '{"files": {}}'),  # no key
        (f"vectors/{KEY[:31]}", "{}"),
        (f"vectors/{KEY.upper()}", "{}"),
        (f"vectors/{KEY}", '{"created": "", "about": {"kind": "labels", "key": "x"}, "files": {}}'),  # of another entry
        (f"vectors/{KEY}", '{"files": {"a": {"bytes": 1, "crc32": 1}}}'),
    ],
)
def test_clear_leaves_folders_that_only_look_like_entries(worker: Worker, place: str, manifest: str) -> None:
    folder = worker.cache.directory / place
    folder.mkdir(parents=True)
    (folder / "entry.json").write_text(manifest, encoding="utf-8")
    (folder / "thesis.tex").write_text("years of work", encoding="utf-8")
    (folder.parent / f".lock-{folder.name}").touch()
    assert worker.cache.entries() == []
    assert worker.cache.clear() == 0
    assert (folder / "thesis.tex").is_file()


def test_a_link_to_a_folder_is_not_followed(worker: Worker, tmp_path: Path) -> None:
    path = worker.entry()
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere, target_is_directory=True)
    assert worker.cache.clear() == 0
    assert (elsewhere / "data.bin").is_file()


def test_a_kind_that_clear_would_not_find_is_refused(worker: Worker) -> None:
    with pytest.raises(ValueError, match="'novel' are not known: add it to KINDS"):
        worker.entry(kind="novel")


USE = """
import sys
from pathlib import Path
from sage_kit.storage.cache import Cache
cache = Cache(Path(sys.argv[1]))
def build(directory):
    (directory / "data.bin").write_bytes(b"x")
    if sys.argv[3] == "computing":
        print("at work", flush=True)
        sys.stdin.read()
cache.entry("vectors", sys.argv[2], build)
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open")
@pytest.mark.parametrize("what", ["computing", "using"])
def test_clear_leaves_what_another_process_uses(worker: Worker, what: str) -> None:
    used = fingerprint("used")
    free = worker.entry()
    command = [sys.executable, "-c", USE, str(worker.cache.directory), used, what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        before = sorted((worker.cache.directory / "vectors").glob(f"*{used}*"))
        assert worker.cache.clear() > 7000
        assert not free.exists()
        assert sorted((worker.cache.directory / "vectors").glob(f"*{used}*")) == before
        assert worker.messages[-1] == f"vectors {used[:8]} is in use by another process, and is left"
        process.kill()
        process.wait()
    assert worker.cache.clear() > 0
    assert [path for path in worker.cache.directory.rglob("*") if path.is_file()] == []


def test_an_entry_that_was_cleared_meanwhile_is_computed_again(worker: Worker) -> None:
    worker.entry()
    Worker(worker.cache.directory).cache.clear()
    assert worker.entry().is_dir()
    assert worker.builds == 2


def test_an_absent_cache_is_empty(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "absent")
    assert cache.entries() == []
    assert cache.clear() == 0
    assert not (tmp_path / "absent").exists()


def test_a_disk_that_fills_while_the_lock_is_made_is_told_as_such(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskFullError, match="disk full while writing the cache entry"):
        worker.entry()
