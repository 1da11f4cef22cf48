"""Where packed data lies: a folder on a local path or on any filesystem that pyarrow knows."""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from ..spec import DataError
from .files import WRITING, delete_folder, place_file

_CHUNK = 1 << 20
_SECRET_IN_QUERY = re.compile(
    r"([?&][^=&]*(?:token|secret|pass|pwd|sig|key|credential)[^=&]*=)[^&\s]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Storage:
    """One folder; files in it are addressed by their relative names.

    Attributes:
        filesystem: Where it is.
        root: Its path there.
        location: What messages call it; a URI's user, password and keys are left out.
    """

    filesystem: fs.FileSystem
    root: str
    location: str

    @classmethod
    def at(cls, location: str | Path) -> "Storage":
        """The folder of a local path, or of a URI such as `s3://bucket/camvid`.

        Raises:
            DataError: Where the URI names no filesystem that pyarrow knows.
        """
        text = str(location)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), str(Path(text).absolute()), text)
        shown = without_secrets(text)
        try:
            filesystem, root = fs.FileSystem.from_uri(text)
        except (ValueError, OSError) as error:
            said = str(error).replace(text, shown)
            for piece in re.split(r"[:/@?&=]+", text):
                if piece and piece not in shown:
                    said = said.replace(piece, "[hidden]")
            # Not from the error: its own text would be shown with the keys in it.
            raise DataError(f"{shown}: not a location that can be opened ({said})") from None
        return cls(filesystem, root, shown)

    @property
    def local(self) -> Path | None:
        """The folder's path where it lies on this machine."""
        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is no such file."""
        info = self.filesystem.get_file_info(self.path(name))
        return info.size if info.type == fs.FileType.File else None

    def names(self) -> list[str]:
        """Files and folders directly in the folder; empty where it does not exist."""
        selector = fs.FileSelector(self.root, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """Content of a small file.

        Raises:
            OSError: Where it cannot be read.
        """
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole: a reader sees all of it or nothing."""
        with self.scratch() as scratch:
            scratch.write_bytes(content)
            self.publish(scratch, name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local file to write into; on the folder's own disk where that is local.

        There it has the mode that the umask gives a new file, and keeps it.
        """
        if self.local is None:
            handle, name = tempfile.mkstemp(suffix=WRITING)
            os.close(handle)
            path = Path(name)
        else:
            beside = self.local / ".packing"
            beside.mkdir(parents=True, exist_ok=True)
            path = beside / f"{uuid.uuid4().hex}{WRITING}"
            path.touch(exist_ok=False)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def publish(self, scratch: Path, name: str) -> None:
        """Move or upload a finished local file to its name in the folder."""
        if self.local is not None:
            target = self.local / name
            target.parent.mkdir(parents=True, exist_ok=True)
            place_file(scratch, target, durable=True)
            return
        self.filesystem.create_dir(os.path.dirname(self.path(name)), recursive=True)  # noqa: PTH120
        with (
            scratch.open("rb") as file,
            self.filesystem.open_output_stream(self.path(name)) as stream,
        ):
            shutil.copyfileobj(file, stream, _CHUNK)

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a local one.

        Raises:
            OSError: Where it cannot be read.
        """
        with (
            self.filesystem.open_input_stream(self.path(name)) as stream,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(stream, file, _CHUNK)

    def sha256(self, name: str) -> str:
        """Hash of a file, read in pieces."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            while block := stream.read(_CHUNK):
                digest.update(block)
        return digest.hexdigest()

    def delete(self, name: str) -> None:
        """Remove a file or folder; absent ones are no error."""
        info = self.filesystem.get_file_info(self.path(name))
        if info.type == fs.FileType.Directory and self.local is not None:
            delete_folder(self.local / name)
        elif info.type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(name))
        elif info.type == fs.FileType.File:
            self.filesystem.delete_file(self.path(name))

    def path(self, name: str) -> str:
        """Path of a file on the filesystem."""
        return f"{self.root}/{name}" if self.root else name


def without_secrets(uri: str) -> str:
    """Strip what messages may not show from a URI: without user, password and keys."""
    # Up to the last @, since a secret may hold one, or a slash; a file's path has no user.
    plain = re.sub(r"://(?!/)\S*@", "://", uri)
    return _SECRET_IN_QUERY.sub(r"\1[hidden]", plain)


def sha256_of(path: Path) -> str:
    """Hash of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
