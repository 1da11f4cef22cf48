"""A file that a journal names is opened where it lies, or not at all."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from spikeseg.platform.tracking.recorded_files import (
    UnsendableError,
    named_recorded_file,
    open_recorded_file,
)


def read(root: Path, path: str) -> bytes:
    with named_recorded_file(root, path, Path(path).name) as file:
        return file.read_bytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run's files, beside what is private."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("private")
    (tmp_path / "files" / "a").mkdir(parents=True)
    (tmp_path / "files" / "a" / "own.txt").write_text("own")
    return tmp_path / "files"


def test_a_file_of_the_run_is_read(root: Path) -> None:
    assert read(root, "a/own.txt") == b"own"
    assert read(root, "a//./own.txt") == b"own"


def test_a_folder_of_runs_that_is_a_link_is_the_users_own(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    assert read(root.parent / "link", "a/own.txt") == b"own"


def test_a_missing_file_may_come_back(root: Path) -> None:
    for path in ("missing", "a/missing", "missing/own.txt"):
        with pytest.raises(FileNotFoundError):
            read(root, path)


def make_link(root: Path) -> str:
    (root / "x").symlink_to(root.parent / "private" / "key.txt")
    return "x"


def make_link_within(root: Path) -> str:
    (root / "x").symlink_to("a/own.txt")
    return "x"


def make_link_to_folder(root: Path) -> str:
    (root / "x").symlink_to(root.parent / "private")
    return "x"


def make_link_in_the_middle(root: Path) -> str:
    (root / "a" / "x").symlink_to(root.parent / "private")
    return "a/x/key.txt"


def make_link_in_a_circle(root: Path) -> str:
    (root / "x").symlink_to("x")
    return "x"


def make_dangling_link(root: Path) -> str:
    (root / "x").symlink_to("nowhere")
    return "x"


def make_folder_of_links(root: Path) -> str:
    (root / "a" / "x").symlink_to(root.parent / "private" / "key.txt")
    return "a"


def make_pipe(root: Path) -> str:
    os.mkfifo(root / "x")
    return "x"


def make_socket(root: Path) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "x"))
    return "x"


def make_file_as_folder(root: Path) -> str:
    return "a/own.txt/key.txt"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make",
    [
        make_link,
        make_link_within,
        make_link_to_folder,
        make_link_in_the_middle,
        make_link_in_a_circle,
        make_dangling_link,
        make_folder_of_links,
        make_pipe,
        make_socket,
        make_file_as_folder,
    ],
)
def test_what_is_no_file_of_the_run_is_refused(root: Path, make: Callable[[Path], str]) -> None:
    with pytest.raises(UnsendableError, match="not sent"):
        read(root, make(root))


@pytest.mark.parametrize(
    "path",
    ["", ".", "/", "..", "../private/key.txt", "a/../../private/key.txt", "/etc/passwd", "a\0b"],
)
def test_a_path_that_leaves_the_folder_is_refused(root: Path, path: str) -> None:
    with pytest.raises(UnsendableError, match="must be a relative path without"):
        read(root, path)


@pytest.mark.parametrize("path", ["a" * 300, "\ud800"])
def test_a_name_that_no_file_can_have_is_refused(root: Path, path: str) -> None:
    with pytest.raises(UnsendableError):
        read(root, path)


def test_a_device_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = os.open

    def remember(path: str, *rest: int, **options: int) -> int:
        opened.append(str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", remember)
    with pytest.raises(UnsendableError, match="a device, pipe or socket"):
        read(Path("/dev"), "zero")
    assert opened == ["/dev"]


def test_a_folder_that_is_exchanged_meanwhile_shows_nothing_else(root: Path) -> None:
    """Another process makes `a` a link and a folder again, as fast as it can."""
    private = root.parent / "private"
    (private / "own.txt").write_text("private")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            (root / "a").rename(root / "b")
            (root / "a").symlink_to(private)
            (root / "a").unlink()
            (root / "b").rename(root / "a")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = set()
    try:
        for _ in range(300):
            try:
                seen.add(read(root, "a/own.txt"))
            except (UnsendableError, FileNotFoundError):
                continue
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"own"}


def test_what_was_opened_is_read_though_its_name_is_another_files_now(root: Path) -> None:
    with named_recorded_file(root, "a/own.txt", "own.txt") as file:
        (root / "a" / "own.txt").unlink()
        (root / "a" / "own.txt").symlink_to(root.parent / "private" / "key.txt")
        assert file.name == "own.txt"
        assert file.read_bytes() == b"own"


def test_no_descriptor_stays_open(root: Path) -> None:
    (root / "x").symlink_to("a")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/own.txt", "a", "x/own.txt", "missing", "a/own.txt/b", "../private"):
        try:
            with open_recorded_file(root, path):
                pass
        except (ValueError, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before
