"""CamVid in the SegNet tutorial's 11-class form: lists of stems, `<split>/`, `<split>annot/`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..spec import DataError, EncodedRow, RawRow, find_duplicates, load_label_space
from .image_label_pairs import read_lines, read_pair


class CamVid:
    """Reader of the raw layout; images may be JPEG or PNG, lists may hold the tutorial's paths."""

    needs_source = True
    official_rows: Mapping[str, int] = {"train": 367, "val": 101, "test": 233}
    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.label_space = load_label_space("camvid")

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Every pair of the three lists.

        Args:
            source: Folder with `train.txt`, `val.txt`, `test.txt` and the six folders.
            partial: Accept missing lists.

        Raises:
            DataError: Names a missing folder or list, an empty or repeated entry, or a line whose
                paths are not a pair.
        """
        if not source.is_dir():
            raise DataError(f"{source}: no such folder")
        rows = []
        for split in self.official_rows:
            listing = source / f"{split}.txt"
            if partial and not listing.is_file():
                continue
            rows += [_make_row(source, split, stem) for stem in _read_stems(listing, split)]
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair."""
        return read_pair(row, self.label_space)


def _read_stems(listing: Path, split: str) -> list[str]:
    stems = []
    for number, line in enumerate(read_lines(listing), start=1):
        # The tutorial's own lists have two paths a line: image and label.
        paths = [Path(word) for word in line.split()]
        folders = (split, f"{split}annot")
        if len(paths) > 2 or any(
            path.stem != paths[0].stem or path.parent.name not in ("", folder)
            for path, folder in zip(paths, folders, strict=False)
        ):
            raise DataError(
                f"{listing}:{number}: {line.strip()!r}: a line must be one file stem, or "
                f"{folders[0]}/STEM.png and {folders[1]}/STEM.png of the same stem"
            )
        stems += [path.stem for path in paths[:1]]
    if not stems:
        raise DataError(f"{listing}: the list of the split is empty")
    for stem in find_duplicates(stems):
        raise DataError(f"{listing}: {stem} is listed twice")
    return stems


def _make_row(source: Path, split: str, stem: str) -> RawRow:
    images = [source / split / f"{stem}{suffix}" for suffix in (".jpg", ".png")]
    image = next((path for path in images if path.is_file()), images[0])
    return RawRow(stem, split, image, source / f"{split}annot" / f"{stem}.png")
