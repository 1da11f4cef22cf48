"""CamVid in the SegNet tutorial's 11-class form: lists of stems, `<split>/`, `<split>annot/`."""

from collections.abc import Sequence
from pathlib import Path

from .images import read_image, read_label
from .spec import DataError, EncodedRow, RawRow, Row, duplicates, load_label_space

_SPLITS = ("train", "val", "test")


class CamVid:
    """Reader of the raw layout; images may be JPEG or PNG."""

    needs_source = True

    def __init__(self) -> None:
        self.label_space = load_label_space("camvid")

    def rows(self, source: Path) -> Sequence[RawRow]:
        """Every pair of the three lists.

        Args:
            source: Folder with `train.txt`, `val.txt`, `test.txt` and the six folders.

        Raises:
            DataError: Names a missing folder, list, partner, or an empty or repeated entry.
        """
        if not source.is_dir():
            raise DataError(f"{source}: no such folder")
        rows = []
        for split in _SPLITS:
            listing = source / f"{split}.txt"
            try:
                stems = [
                    Path(line.split()[0]).stem
                    for line in listing.read_text().splitlines()
                    if line.strip()
                ]
            except OSError as error:
                raise DataError(f"{listing}: the list of the split is missing") from error
            if not stems:
                raise DataError(f"{listing}: split {split!r} is empty")
            for stem in duplicates(stems):
                raise DataError(f"{listing}: {stem} is listed twice")
            rows += [_pair(source, split, stem) for stem in stems]
        return rows

    def read(self, row: RawRow) -> EncodedRow:
        """Decode and check one pair.

        Raises:
            DataError: Names the file and the rule it breaks.
        """
        return read_pair(row, self)


def read_pair(row: RawRow, dataset: CamVid) -> EncodedRow:
    """Image and index label of equal size.

    Raises:
        DataError: Where they differ in size, or one of them breaks a rule.
    """
    data, image = read_image(row.image)
    label = read_label(row.label, dataset.label_space)
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{row.label}: the label is {label.shape[1]} x {label.shape[0]}, its image "
            f"{row.image.name} is {image.shape[1]} x {image.shape[0]}: sizes must be equal"
        )
    return EncodedRow(Row(row.id, image, label), data)


def _pair(source: Path, split: str, stem: str) -> RawRow:
    images = [source / split / f"{stem}{suffix}" for suffix in (".jpg", ".png")]
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise DataError(f"{images[0]}: listed in {split}.txt, and there is no such image")
    label = source / f"{split}annot" / f"{stem}.png"
    if not label.is_file():
        raise DataError(f"{label}: listed in {split}.txt, and there is no such label")
    return RawRow(stem, split, image, label)
