"""Whole-file writes and locks: a kill leaves old or new content, a lock ends with its holder."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeseg.datasets.packed.files import hold_lock, write_file

HOLDER = """
import sys, time
from pathlib import Path
from spikeseg.datasets.packed.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=[True, False], ids=["flock", "no flock"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not request.param:
        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_file(path, "first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, "second", durable=True)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_of_one_number_write_into_different_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in two containers on one storage: both are process 1."""
    path = tmp_path / "result.json"
    monkeypatch.setattr(os, "getpid", lambda: 1)
    write = Path.write_bytes

    def interrupted(self: Path, content: bytes) -> int:
        written = write(self, content)
        if content == b"first":
            write_file(path, b"second")
        return written

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    write_file(path, b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_has_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_file(path, b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_replaces_the_content_and_leaves_no_other_file(
    tmp_path: Path, durable: bool
) -> None:
    path = tmp_path / "result.json"
    write_file(path, b"first", durable=durable)
    write_file(path, "naïve", durable=durable)
    assert path.read_text(encoding="utf-8") == "naïve"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_that_is_held_is_refused_and_free_afterwards(tmp_path: Path, flock: bool) -> None:
    path = tmp_path / ".lock"
    held = "another process holds this lock"
    with hold_lock(path), pytest.raises(BlockingIOError, match=held), hold_lock(path, wait=False):
        pass
    with hold_lock(path, wait=False):
        assert path.exists()


def test_a_file_system_without_flock_is_named_with_what_stands_for_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "driver.lock"
    with caplog.at_level(logging.WARNING), hold_lock(path):
        assert path.with_name("driver.lock.soft").exists()
    assert not path.with_name("driver.lock.soft").exists()
    assert f"{path}: its file system has no flock (No locks available)" in caplog.text


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.ESTALE, errno.ENOSPC])
def test_a_file_system_that_fails_is_named_and_is_no_other_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, wait: bool
) -> None:
    def fail(file: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    path = tmp_path / "driver.lock"
    said = rf"cannot be locked: {os.strerror(code)}: '{path}'"
    with pytest.raises(OSError, match=said) as raised, hold_lock(path, wait=wait):
        pass
    assert raised.value.errno == code
    assert not isinstance(raised.value, BlockingIOError)


def test_a_folder_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "driver.lock", os.open

    def refuse(file: object, *rest: object, **options: object) -> int:
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(file, *rest, **options)  # pyright: ignore[reportArgumentType,reportCallIssue]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=f"Permission denied: '{path}'"):
        hold_lock(path, wait=False).__enter__()


@pytest.mark.parametrize("soft", [False, True], ids=["flock", "no flock"])
def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path, soft: bool) -> None:
    path = tmp_path / "driver.lock"
    without = "import fcntl, errno\ndef refuse(*_): raise OSError(errno.ENOSYS, 'none')\n"
    program = (without + "fcntl.flock = refuse\n" if soft else "") + HOLDER
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        waiting = program.replace("time.sleep(60)", "pass")
        again = [sys.executable, "-c", waiting.replace("sys.argv[1])", "sys.argv[1]), wait=False")]
        taken = subprocess.run([*again, str(path)], capture_output=True, text=True)
        assert "another process holds this lock" in taken.stderr
        holder.kill()
    free = subprocess.run([*again, str(path)], capture_output=True, text=True)
    assert free.stdout == "held\n", free.stderr
