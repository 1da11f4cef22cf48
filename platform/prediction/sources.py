"""What a person names to `predict`: files, folders, patterns, lists, pipes, splits, videos."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ...datasets.layouts.image_folder.bands import read_input
from ...datasets.packed.manifest import MANIFEST
from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import DataError
from ..config.errors import ConfigError

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
PIPE = "-"


class Source(NamedTuple):
    """One image or video.

    Attributes:
        name: Its results are called `<name>_label.png` and so on; may have folders in it.
        origin: What a person calls it: a path, or `DATA:split/row id`.
        kind: What it is read as.
        path: The file, or the folder of the packed data.
        split: Split of a packed row.
        row: Number of a packed row within its split.
    """

    name: str
    origin: str
    kind: Literal["image", "video", "row"]
    path: str
    split: str = ""
    row: int = 0

    def stamp(self) -> str:
        """What tells one content of the source from the next: bytes and time of change."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return ""
        return f"{status.st_size}-{status.st_mtime_ns}"


class SourceList:
    """Every source that the words of a command name, in their order, found while it is read.

    Args:
        words: Files, folders, patterns, folders of packed data, or `-`.
        lists: Files with one name a line.
        split: Split that is taken of packed data.
        pipe: Lines of names that `-` stands for.

    Raises:
        ConfigError: Where a word names nothing.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        lists: Sequence[Path] = (),
        split: str | None = None,
        pipe: Iterable[str] = (),
    ) -> None:
        self._split = split
        self._pipe = pipe
        self._parts: list[tuple[str, str]] = []
        for word in words:
            self._add(word)
        for file in lists:
            self._add_list(file)
        if not self._parts:
            raise ConfigError("no image: name files, folders, patterns, --list FILE or -")
        files = [Path(path) for kind, path in self._parts if kind == "file"]
        self._shared = _find_shared_folder(files)

    def count(self) -> int | None:
        """Number of sources; None where a pipe is among them."""
        if any(kind == "pipe" for kind, _ in self._parts):
            return None
        return sum(self._count_part(kind, path) for kind, path in self._parts)

    def __iter__(self) -> Iterator[Source]:
        names = _Names()
        for kind, path in self._parts:
            if kind == "packed":
                yield from self._list_rows(Path(path), names)
            elif kind == "folder":
                folder = Path(path)
                for file in _walk(folder):
                    yield _file_source(file, file.relative_to(folder), names)
            elif kind == "pipe":
                for line in self._pipe:
                    if line.strip("\r\n"):
                        file = Path(line.strip("\r\n"))
                        yield _file_source(file, Path(file.name), names)
            else:
                file = Path(path)
                relative = Path(file.name)
                if self._shared is not None:
                    relative = _normalize(file).relative_to(self._shared)
                yield _file_source(file, relative, names)

    def _add(self, word: str) -> None:
        path = Path(word)
        if word == PIPE:
            self._parts.append(("pipe", word))
        elif path.is_dir():
            packed = (path / MANIFEST).is_file()
            if packed:
                self._check_split(path)
            elif not any(True for _ in _walk(path)):
                raise ConfigError(f"{word}: the folder has no image ({', '.join(IMAGES)}) or video")
            self._parts.append(("packed" if packed else "folder", word))
        elif path.exists():
            self._parts.append(("file", word))
        elif glob.has_magic(word):
            found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207
            files = [name for name in found if _is_wanted(Path(name))]
            if not files:
                raise ConfigError(f"{word}: no image or video fits the pattern")
            self._parts.extend(("file", name) for name in files)
        else:
            raise ConfigError(f"{word}: no such file or folder")

    def _add_list(self, file: Path) -> None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--list: {file}: cannot be read ({error})") from error
        # Names in a list are of the list's folder, so that both travel together.
        names = [str(file.parent / line) for line in lines if line.strip()]
        if not names:
            raise ConfigError(f"--list: {file}: names no image")
        self._parts.extend(("file", name) for name in names)

    def _check_split(self, path: Path) -> None:
        splits = PackedDataset.open(path).splits
        if self._split is None or not splits.get(self._split):
            raise ConfigError(
                f"{path}: packed data: --split must name one of its splits with rows, got "
                f"{self._split}; there are: {', '.join(splits)}"
            )

    def _count_part(self, kind: str, path: str) -> int:
        if kind == "packed":
            assert self._split is not None
            return PackedDataset.open(path).splits[self._split]
        return sum(1 for _ in _walk(Path(path))) if kind == "folder" else 1

    def _list_rows(self, path: Path, names: "_Names") -> Iterator[Source]:
        assert self._split is not None
        dataset = PackedDataset.open(path)
        for number, row in enumerate(dataset.columns(self._split, ["id"])):
            relative = Path(*[part for part in Path(row["id"]).parts if part not in ("/", "..")])
            name = names.take(f"{self._split}/{relative}", f"{self._split}/{number}")
            origin = f"{path}:{self._split}/{row['id']}"
            yield Source(name, origin, "row", str(path), self._split, number)


class _Names:
    """Gives every source a name of its own; the first of two alike keeps the shorter one."""

    def __init__(self) -> None:
        # Hashes, so that a million names take little memory.
        self._taken: set[bytes] = set()

    def take(self, name: str, other: str) -> str:
        digest = hashlib.sha256(other.encode()).hexdigest()[:8]
        for candidate in (name, other, f"{name}-{digest}"):
            key = hashlib.sha256(candidate.encode()).digest()[:8]
            if key not in self._taken:
                self._taken.add(key)
                return candidate
        return f"{name}-{digest}"


def _file_source(file: Path, relative: Path, names: _Names) -> Source:
    kind = "video" if file.suffix.lower() in VIDEOS else "image"
    plain = str(relative.with_suffix(""))
    absolute = file.absolute()
    name = names.take(plain, f"{plain}-{hashlib.sha256(str(absolute).encode()).hexdigest()[:8]}")
    return Source(name, str(file), kind, str(absolute))


def _find_shared_folder(files: Sequence[Path]) -> Path | None:
    """Folder that all files lie below, where two of them have the same name; else None."""
    stems = {file.stem for file in files}
    if len(stems) == len(files):
        return None
    return Path(os.path.commonpath([_normalize(file).parent for file in files]))


def _normalize(file: Path) -> Path:
    """Absolute path without `..`: results stay below the folder that they are written to."""
    return Path(os.path.abspath(file))  # noqa: PTH100


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGES, *VIDEOS) and path.is_file()


def _walk(folder: Path) -> Iterator[Path]:
    """Images and videos below a folder in the order of their names; hidden ones are left out."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and _is_wanted(path):
                yield path


class SourceReader:
    """Reads the pixels of sources; packed data stays open.

    Args:
        channels: Channels that the network takes.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._open: dict[str, PackedDataset] = {}

    def read(self, source: Source) -> np.ndarray:
        """Pixels of an image or row, (H, W, C) uint8.

        Raises:
            DataError: Where it cannot be read, or has another number of channels.
        """
        if source.kind == "row":
            dataset = self._open.get(source.path)
            if dataset is None:
                dataset = self._open[source.path] = PackedDataset.open(source.path)
            image = dataset.row(source.split, source.row).image
        elif source.path.lower().endswith(".npy") and self._channels == 3:
            image = _read_array(source.path)
        else:
            image = read_input(Path(source.path), self._channels)
        if image.shape[2] != self._channels:
            raise DataError(
                f"{source.origin}: the image has {image.shape[2]} channels, the network takes "
                f"{self._channels}"
            )
        return image


def _read_array(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error})") from error
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.dtype != np.uint8:
        raise DataError(
            f"{path}: an image must be an array (H, W, C) of uint8, got {array.shape} of "
            f"{array.dtype}"
        )
    return array
