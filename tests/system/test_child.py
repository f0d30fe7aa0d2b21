"""A child process answers, fails or ends, and each is told apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_kit.system.child import Child, ChildEnded, ChildFailed, ChildSilent

ECHO = """
import json, os, sys
for line in sys.stdin:
    print(json.dumps({"event": "done", "heard": json.loads(line), "id": os.getpid(), "at": os.getcwd()}), flush=True)
"""
FAIL = """
import sys
for line in sys.stdin:
    print('{"event": "failed", "reason": "no room for ' + line.strip() + '"}', flush=True)
"""
DIE = "import sys; input(); sys.exit('it began\\n  it broke\\n')"
DIE_SILENTLY = "import sys; input(); sys.exit(3)"

Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def start(program: str, directory: Path | None = None) -> Child:
        children.append(Child([sys.executable, "-c", program], directory))
        return children[-1]

    yield start
    for child in children:
        child.end()


def test_each_message_has_its_answer(start: Start, tmp_path: Path) -> None:
    child = start(ECHO, tmp_path)
    for message in ("round", {"size": 3, "name": "größer\n"}, None):
        answer = child.ask(message)
        assert answer["heard"] == message
    assert Path(answer["at"]).samefile(tmp_path)


def test_a_child_that_fails_gives_its_reason_and_may_go_on(start: Start) -> None:
    child = start(FAIL)
    for number in (1, 2):
        with pytest.raises(ChildFailed, match=f"^no room for {number}$"):
            child.ask(number)


def test_a_child_that_dies_leaves_its_last_words(start: Start) -> None:
    child = start(DIE)
    for _ in range(2):  # the second question finds nobody
        with pytest.raises(ChildEnded, match=r"^its process ended: it broke$") as caught:
            child.ask("round")
        assert (caught.value.code, caught.value.last_words) == (1, "it broke")


def test_a_child_that_dies_without_words_leaves_its_code(start: Start) -> None:
    with pytest.raises(ChildEnded, match=r"^its process ended: exit code 3$") as caught:
        start(DIE_SILENTLY).ask("round")
    assert (caught.value.code, caught.value.last_words) == (3, "")


def test_an_answer_that_is_late_is_not_lost(start: Start) -> None:
    child = start("import sys, time\nfor line in sys.stdin:\n    time.sleep(1)\n    print('{\"late\": 1}', flush=True)")
    child.send("round")
    with pytest.raises(ChildSilent, match=r"^no answer in 0 s$"):
        child.receive(0.01)
    assert child.receive() == {"late": 1}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux, which tells what became of a process")
def test_what_a_child_has_started_ends_with_it(start: Start) -> None:
    child = start(
        "import json, subprocess, sys; input()\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(json.dumps({'id': other.pid}), flush=True); input()"
    )
    number = child.ask("")["id"]
    child.end()
    status = Path(f"/proc/{number}/status")
    for _ in range(200):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail("it goes on")


def test_a_child_that_waits_is_ended_once(start: Start) -> None:
    child = start(ECHO)
    number = child.ask("")["id"]
    os.kill(number, 0)
    child.end()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    child.end()


def test_a_child_that_ended_with_messages_unread_can_be_ended(start: Start) -> None:
    child = start(DIE)
    for _ in range(2):  # what is asked the second time is still to be written when the pipe is closed
        with pytest.raises(ChildEnded):
            child.ask("round")
    child.end()
    child.end()


def test_what_cannot_be_started_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child([str(tmp_path / "nothing")])


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell a process that its parent is gone")
def test_a_child_and_what_it_started_end_with_the_process_that_started_it() -> None:
    serve = (
        "import json, subprocess, sys\n"
        "from sage_kit.system.child import on_standard_streams\n"
        "def serve(requests, answers):\n"
        "    own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "    answers.write(json.dumps({'own': own.pid}) + '\\n')\n"
        "    answers.flush()\n"
        "    own.wait()\n"
        "on_standard_streams(serve)\n"
    )
    start = (
        "import sys, time\n"
        "from sage_kit.system.child import Child\n"
        f"child = Child([sys.executable, '-c', {serve!r}])\n"
        "print(child._process.pid, child.receive()['own'], flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    processes = [int(word) for word in parent.stdout.readline().split()]
    assert len(processes) == 2
    assert all(map(is_running, processes))
    parent.send_signal(signal.SIGTERM)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(is_running, processes)):
        time.sleep(0.2)
    assert not any(map(is_running, processes))


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended; one that has may wait for somebody to ask how."""
    asked = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return bool(asked.stdout.strip()) and not asked.stdout.startswith("Z")
