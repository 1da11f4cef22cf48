"""Finds the image that an annotation file names, whatever folder it was written for."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...spec import DataError
from .pairing import IMAGE_SUFFIXES, SPLIT_NAMES

_WORDS = re.compile(r"[^A-Za-z]+")


class ImageNames:
    """The images of a source, to be found by the end of their path.

    Args:
        names: Paths of all files, relative to the source.
        root: Named in errors.
    """

    def __init__(self, names: Sequence[str], root: Path) -> None:
        self._root = root
        self._by_file: dict[str, list[str]] = {}
        self.images = [n for n in names if PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
        for name in self.images:
            self._by_file.setdefault(PurePosixPath(name).name, []).append(name)

    def find(self, wanted: str, near: str, split: str | None) -> str:
        """Path of an image relative to the source.

        Args:
            wanted: What the annotation file calls it, with whatever folders.
            near: Path of the annotation file.
            split: Where several fit, that of this split is taken.

        Returns:
            The path; empty where there is no such image.

        Raises:
            DataError: Where several fit.
        """
        path = wanted.replace("\\", "/").removeprefix("./")
        found = self._by_file.get(PurePosixPath(path).name, [])
        # As much of the named path as fits decides; folders of another machine do not.
        parts = path.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            fitting = [name for name in found if name == tail or name.endswith(f"/{tail}")]
            if len(fitting) > 1:
                folder = near.rpartition("/")[0]
                beside = [name for name in fitting if name == f"{folder}/{tail}".lstrip("/")]
                same = [name for name in fitting if split and find_split(name) == split]
                fitting = beside or same or fitting
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise DataError(
                    f"{self._root / near}: {wanted!r} could be {fitting[0]} or {fitting[1]}"
                )
        return ""


def find_split(name: str) -> str | None:
    """Split that a path speaks of: `train`, `val` or `test` as a word of its file or folders."""
    for part in reversed(name.split("/")):
        for word in _WORDS.split(PurePosixPath(part).stem):
            if word.lower() in SPLIT_NAMES:
                return SPLIT_NAMES[word.lower()]
    return None


def make_key(image: str) -> str:
    """Id of a row: the image's path without suffix."""
    return str(PurePosixPath(image).with_suffix(""))
