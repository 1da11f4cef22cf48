"""Shards of remote storage on the local disk: fetched once, checked, oldest removed first."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .spec import DataError
from .storage import Storage, sha256_of


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where shards are kept, and how much of them.

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
    is whole. One removed while another process reads it stays readable there until it is closed.

    Args:
        storage: Where the shards come from.
        config: Where they go.

    Raises:
        DataError: Where the folder cannot be written.
    """

    def __init__(self, storage: Storage, config: CacheConfig) -> None:
        self._storage = storage
        self._config = config
        try:
            config.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{config.folder}: cannot be written ({error.strerror})") from error

    def path(self, name: str, sha256: str, size: int) -> Path:
        """Local file of a shard, fetched if it is not there.

        Args:
            name: File name of the shard.
            sha256: What it must hash to.
            size: Its bytes.

        Raises:
            DataError: Where it cannot be fetched, or hashes to something else.
        """
        target = self._config.folder / f"{sha256}.parquet"
        if self._touch(target):
            return target
        # One process fetches; the others wait for it.
        with self._locked(sha256):
            if self._touch(target):
                return target
            handle, writing = tempfile.mkstemp(suffix=".fetching", dir=self._config.folder)
            os.close(handle)
            try:
                self._make_room(size)
                self._storage.fetch(name, Path(writing))
                found = sha256_of(Path(writing))
                if found != sha256:
                    raise DataError(
                        f"{self._storage.location}/{name}: SHA-256 {found}, expected {sha256}"
                    )
                Path(writing).replace(target)
            except OSError as error:
                raise DataError(
                    f"{self._storage.location}/{name}: cannot be fetched ({error})"
                ) from error
            finally:
                Path(writing).unlink(missing_ok=True)
        return target

    def _touch(self, target: Path) -> bool:
        try:
            os.utime(target)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size: int) -> None:
        with self._locked("room"):
            kept = []
            for path in self._config.folder.glob("*.parquet"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                kept.append((status.st_mtime_ns, status.st_size, path))
            total = size + sum(bytes_ for _, bytes_, _ in kept)
            for _, bytes_, path in sorted(kept):
                if total <= self._config.limit:
                    break
                path.unlink(missing_ok=True)
                total -= bytes_

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        # 64 lock files serve all shards: a shared one only makes two fetches wait for each other.
        number = int(name[:8], 16) % 64 if name != "room" else "room"
        with (self._config.folder / f".lock-{number}").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
