"""Shared by readers of image and label files: split lists, folders, the checks of one pair."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..images import read_image, read_label
from ..spec import DataError, EncodedRow, LabelSpace, RawRow, Row, find_duplicates


def find_root(source: Path, folders: Iterable[str], needed: str) -> Path:
    """Find the folder below `source` at which a layout starts.

    Args:
        source: What the user named.
        folders: Relative folders to look into, in this order.
        needed: Folder or file that must be in it.

    Raises:
        DataError: Names what was looked for.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    folders = list(folders)
    for folder in folders:
        if (source / folder / needed).exists():
            return source / folder
    raise DataError(f"{source / folders[0] / needed}: not found; it is where the layout starts")


def read_lines(listing: Path) -> list[str]:
    """Read the lines of a split list; a byte order mark before the first is no part of it.

    Raises:
        DataError: Where the list is missing, or not UTF-8 text.
    """
    try:
        return listing.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{listing}: the list of the split is missing") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: the list of the split is not UTF-8 text ({error})") from error


def read_stems(listing: Path) -> list[str]:
    """Read the stems of a split list, one bare stem a line.

    Raises:
        DataError: Where the list is missing, empty, repeats a stem or has lines of another form.
    """
    stems = []
    for number, line in enumerate(read_lines(listing), start=1):
        entry = line.strip()
        if not entry:
            continue
        if len(entry.split()) > 1 or "/" in entry or Path(entry).suffix:
            raise DataError(
                f"{listing}:{number}: {entry!r}: a line must be one file stem, without folder or "
                "suffix"
            )
        stems.append(entry)
    if not stems:
        raise DataError(f"{listing}: the list of the split is empty")
    for stem in find_duplicates(stems):
        raise DataError(f"{listing}: {stem} is listed twice")
    return stems


def list_stems(folder: Path, suffix: str, *, deep: bool = False) -> list[str]:
    """List the file names of a folder that end with a suffix, sorted and without it.

    Args:
        folder: Where to look; a missing folder has none.
        suffix: End of the file names, for example `.jpg`.
        deep: Look one folder deeper, and return `folder/stem`.
    """
    pattern = f"*/*{suffix}" if deep else f"*{suffix}"
    names = [path.relative_to(folder).as_posix() for path in list_visible(folder, pattern)]
    return sorted(name.removesuffix(suffix) for name in names)


def list_visible(folder: Path, pattern: str) -> Iterator[Path]:
    """Files that match a pattern, without hidden ones: macOS puts a `._NAME` beside every file."""
    for path in folder.glob(pattern):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def read_pair(row: RawRow, space: LabelSpace) -> EncodedRow:
    """Read an image and its index label, which must have equal sizes.

    Raises:
        DataError: Where they differ in size, or one of them breaks a rule.
    """
    data, image, verbatim = read_image(row.image)
    label = read_label(row.label, space)
    require_equal_size(row.image, image.shape, row.label, label.shape)
    return EncodedRow(Row(row.id, image, label), data, verbatim)


def require_equal_size(
    image: Path, image_shape: tuple[int, ...], label: Path, label_shape: tuple[int, ...]
) -> None:
    """Check that a label fits its image.

    Raises:
        DataError: Where height or width differ.
    """
    if image_shape[:2] != label_shape[:2]:
        raise DataError(
            f"{label}: the label is {label_shape[1]} x {label_shape[0]}, its image {image.name} "
            f"is {image_shape[1]} x {image_shape[0]}: sizes must be equal"
        )
