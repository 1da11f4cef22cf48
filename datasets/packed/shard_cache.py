"""Shards of remote storage on the local disk: fetched once, checked, oldest removed first."""

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec import DataError, StorageAwayError
from .files import hold_lock, place_file
from .storage import Storage, sha256_of

log = logging.getLogger(__name__)

_SHA256 = "[0-9a-f]" * 64


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where copies of shards are kept, and how many bytes of them.

    Attributes:
        folder: Local folder; any number of processes and data sets may share it.
        limit: Largest number of bytes in it; the newest shard is kept even where it is larger.
    """

    folder: Path
    limit: int

    @classmethod
    def default(cls) -> "CacheConfig":
        """`$XDG_CACHE_HOME/spikeseg` (or `~/.cache/spikeseg`), 16 GiB."""
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        return cls(folder=base / "spikeseg", limit=16 << 30)


class ShardCache:
    """Local copies of one data set's shards.

    A shard is named by its hash, written under another name and renamed, so that what has a name
    was whole once. Each process hashes a copy before it hands it out first, and fetches a damaged
    one anew. One removed while another process reads it stays readable there until it is closed.

    Args:
        storage: Where the shards come from.
        config: Where they go.

    Raises:
        DataError: Where the folder cannot be written.
    """

    def __init__(self, storage: Storage, config: CacheConfig) -> None:
        self._storage = storage
        self._config = config
        self._hashed: set[str] = set()
        try:
            config.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{config.folder}: cannot be written ({error.strerror})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle storage and configuration: another machine makes its folder and hashes anew."""
        return ShardCache, (self._storage, self._config)

    def path(self, name: str, sha256: str, size: int) -> Path:
        """Local file of a shard, fetched if it is not there or is damaged.

        Args:
            name: File name of the shard.
            sha256: What it must hash to.
            size: Its bytes.

        Raises:
            DataError: Where it is not there, or what is fetched hashes to something else.
            StorageAwayError: Where it cannot be fetched now.
        """
        target = self._config.folder / f"{sha256}.parquet"
        if sha256 in self._hashed and self._touch(target, size):
            return target
        # One process fetches; the others wait for it.
        with self._lock(_name_lock(sha256)):
            if not self._has_copy(target, sha256, size):
                self._fetch(name, target, sha256, size)
            self._hashed.add(sha256)
        return target

    def _fetch(self, name: str, target: Path, sha256: str, size: int) -> None:
        # A name of its own, held by the lock of the shard: what a killed process left under it is
        # written over, and known as left over wherever that lock is free.
        writing = target.with_suffix(".fetching")
        try:
            self._make_room(size)
            self._storage.fetch(name, writing)
            digest = sha256_of(writing)
            if digest != sha256:
                raise DataError(
                    f"{self._storage.location}/{name}: SHA-256 {digest}, expected {sha256}"
                )
            place_file(writing, target)
        except FileNotFoundError as error:
            raise DataError(f"{self._storage.location}/{name}: is not there ({error})") from error
        except OSError as error:
            raise StorageAwayError(
                f"{self._storage.location}/{name}: cannot be fetched ({error})"
            ) from error
        finally:
            writing.unlink(missing_ok=True)

    def _has_copy(self, target: Path, sha256: str, size: int) -> bool:
        """Whether the copy is there and whole."""
        try:
            whole = self._touch(target, size)
            whole = whole and (sha256 in self._hashed or sha256_of(target) == sha256)
        except OSError:
            whole = False
        if not whole and target.exists():
            log.warning("%s: the copy is damaged, it is fetched anew", target)
        return whole

    def _touch(self, target: Path, size: int) -> bool:
        """Mark a copy as used now; False where there is none of this size."""
        try:
            os.utime(target)
            return target.stat().st_size == size
        except FileNotFoundError:
            return False

    def _make_room(self, size: int) -> None:
        with self._lock("room"):
            copies, total = [], size
            for path in self._config.folder.glob(f"{_SHA256}.fetching"):
                if not self._remove_leftover(path):
                    total += _size(path)
            for path in self._config.folder.glob(f"{_SHA256}.parquet"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                copies.append((status.st_mtime_ns, status.st_size, path))
            total += sum(copy_size for _, copy_size, _ in copies)
            for _, copy_size, path in sorted(copies):
                if total <= self._config.limit:
                    break
                path.unlink(missing_ok=True)
                total -= copy_size

    def _remove_leftover(self, writing: Path) -> bool:
        """Remove the file of a process that was killed while it fetched; False where it lives."""
        try:
            with self._lock(_name_lock(writing.stem), wait=False):
                writing.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        return True

    def _lock(self, name: str, *, wait: bool = True) -> AbstractContextManager[None]:
        return hold_lock(self._config.folder / f".lock-{name}", wait=wait)


def _name_lock(sha256: str) -> str:
    """64 lock files serve all shards: a shared one only makes two fetches wait for each other."""
    return str(int(sha256[:8], 16) % 64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
