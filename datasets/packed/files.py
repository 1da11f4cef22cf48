"""Whole-file writes, and locks between processes; on local and on shared file systems."""

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

log = logging.getLogger(__name__)

WRITING = ".writing"
"""Last part of temporary names: readers pass such files over."""
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def write_file(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a file whole: readers, and a start after a kill, see the old content or the new.

    Args:
        path: The file; its folder exists.
        content: Its bytes, or text that is stored as UTF-8.
        durable: Survive a power cut too, as `place_file` does.
    """
    writing = temporary_beside(path)
    try:
        with named_in_errors(path):
            writing.write_bytes(content.encode() if isinstance(content, str) else content)
            place_file(writing, path, durable=durable)
    except BaseException:
        writing.unlink(missing_ok=True)
        raise


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Give the system's errors in the block, which name no file, the file's name.

    Writing to a full disk fails so: `No space left on device`, and nothing else.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def temporary_beside(path: Path) -> Path:
    """Name a temporary file in a file's folder, unlike any that another process of any host names.

    A process id does not do: containers on one storage have the same ones.

    Args:
        path: The file that is to be written; a very long name is shortened.
    """
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}{WRITING}")


def place_file(written: Path, target: Path, *, durable: bool = False) -> None:
    """Give a finished file of the same file system its name; a file of that name is replaced.

    Args:
        written: The file.
        target: Its new path.
        durable: Flush the file before the rename and the folder after it.
    """
    if durable:
        flush_to_disk(written)
    written.replace(target)
    if durable:
        flush_to_disk(target.parent)


def flush_to_disk(path: Path) -> None:
    """Fsync a file's content, or a folder's entries where the file system can do that.

    Raises:
        OSError: Where a file's content cannot be flushed: then it is not kept.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # SMB, FUSE and others know no fsync of folders (EINVAL, EBADF, EPERM, ...).
        if not is_folder or error.errno == errno.EIO:
            raise
        log.debug("%s: the folder cannot be flushed: %s", path, error.strerror)


def delete_folder(path: Path) -> bool:
    """Delete what is not needed any more, as far as the file system lets it.

    NFS keeps a file that somebody has open under another name (`.nfs…`), so that its folder is not
    empty; that is no reason to end any work.

    Returns:
        Whether nothing of it is left.
    """
    shutil.rmtree(path, ignore_errors=True)
    left = path.exists()
    if left:
        log.debug("%s: not all of it could be deleted yet", path)
    return not left


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; the system frees it with its process, however that ends.

    Where the file system has no flock, the lock is a file `<name>.soft` beside it, and a warning
    says so: one left by a killed process of this machine is taken over, one of another machine
    must be deleted by hand.

    Args:
        path: The lock's file, which is made where missing and stays.
        wait: Wait until it is free.

    Raises:
        BlockingIOError: Where another holds it and `wait` is false.
        OSError: Where the file system fails; names the file and its reason (input/output error,
            permission denied, ...), which is no word about another holder.
    """
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=wait)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            lock = SoftFileLock(path.with_name(f"{path.name}.soft"), thread_local=False)
            log.warning(
                "%s: its file system has no flock (%s); %s is created and removed instead. Delete "
                "it where a machine that held it is gone",
                path,
                error.strerror,
                lock.lock_file,
            )
            lock.acquire(blocking=wait)
    except Timeout as error:
        raise BlockingIOError(errno.EAGAIN, "another process holds this lock", str(path)) from error
    except OSError as error:
        reason = f"cannot be locked: {error.strerror or error}"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error
    try:
        yield
    finally:
        lock.release()
