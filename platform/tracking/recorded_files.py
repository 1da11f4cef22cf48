"""Open a file that a journal names, and nothing else: no link, no folder, no device."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: a pipe that came in a file's place would be waited for until somebody writes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What another try cannot mend. A missing file may come back with its mount, and is no such thing.
_FOR_GOOD = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO)


class UnsendableError(ValueError):
    """A recorded file is damaged, or lies outside of its run's folder: it is never sent."""


@contextlib.contextmanager
def open_recorded_file(root: Path, path: str) -> Iterator[int]:
    """Open a regular file below a folder, following no link below it.

    Every part of the path is opened in the folder before it, so that no part can be exchanged for
    a link between a check and its use. Links above `root` are the user's own.

    Args:
        root: The folder of a journal's files, or of a run.
        path: A relative path, as the journal names it.

    Yields:
        A descriptor of the file, open for reading.

    Raises:
        UnsendableError: Where the path leaves the folder, passes a link, or is no regular file.
        FileNotFoundError: Where it is missing.
    """
    descriptor = _open_below(root, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def named_recorded_file(root: Path, path: str, name: str) -> Iterator[Path]:
    """Open a regular file below a folder under a name of its own, for who takes only paths.

    Args:
        root: The folder of a journal's files, or of a run.
        path: A relative path, as the journal names it.
        name: Last part of the path that is yielded.

    Yields:
        A path in a temporary folder that reads the opened file, whatever `path` becomes.
    """
    with (
        open_recorded_file(root, path) as descriptor,
        tempfile.TemporaryDirectory(prefix="spikeseg-artifact-") as folder,
    ):
        shown = Path(folder) / name
        shown.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield shown


def _open_below(root: Path, path: str) -> int:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise UnsendableError(f"{path!r}: must be a relative path without .. in {root}")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            above, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
            os.close(above)
        # Devices may act when they are opened: they are looked at first, and again afterwards.
        _require_file(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), root, path)
        descriptor = os.open(parts[-1], _FILE, dir_fd=folder)
    except UnicodeEncodeError as error:
        raise UnsendableError(f"{path!r}: no name of a file") from error
    except OSError as error:
        if error.errno not in _FOR_GOOD:
            raise
        raise UnsendableError(
            f"{path!r}: not sent, no file is reached below {root} without a link "
            f"({os.strerror(error.errno)})"
        ) from error
    finally:
        os.close(folder)
    try:
        _require_file(os.fstat(descriptor), root, path)
    except UnsendableError:
        os.close(descriptor)
        raise
    return descriptor


def _require_file(status: os.stat_result, root: Path, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device, pipe or socket")
        raise UnsendableError(f"{path!r}: not sent, it is {kind} in {root}, and no file")
