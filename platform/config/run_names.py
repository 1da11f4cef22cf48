"""What a run or a sweep may be called, and that its folder lies in the storage: one rule for all.

A name becomes a folder, a run's name in MLflow, an object store's key, a line on a terminal and a
cell of a page: what means something to one of them is no part of a name.
"""

import itertools
import re
from pathlib import Path

from .errors import ConfigError

_NAME = re.compile(r"\w[\w .+=@,~-]*")
_LONGEST = 240
_RULE = (
    f"a name has at most {_LONGEST} bytes, begins with a letter, a digit or _, and goes on with "
    "these, spaces and . + = @ , ~ -"
)
# Of a folder's name on common disks, in bytes.
_LONGEST_PART = 255
_SHOWN = 60


def check_run_name(name: str, option: str) -> str:
    """Return the name of a run or a sweep, which is one folder of the storage.

    Args:
        name: The name.
        option: What errors call it, such as `--resume`.

    Raises:
        ConfigError: Where it is a path, is too long, or holds what no name may hold.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST or name.endswith((".", " ")):
        raise ConfigError(f"{option}: got {shown(name)}: {_RULE}")
    return name


def split_mirrored(address: str) -> tuple[str, str]:
    """Mirror and name of a run that is named by its address there.

    Args:
        address: Such as `s3://bucket/runs/NAME`; options of the file system may follow a `?`.

    Returns:
        The mirror's address, options included, and the name, which need not be a good one.
    """
    path, mark, options = address.partition("?")
    mirror, _, name = path.rstrip("/").rpartition("/")
    return f"{mirror}{mark}{options}", name


def make_folder(storage: Path, name: str) -> Path:
    """Make the folder of a name that this program chose; a number is added where it is taken.

    Names end with the second they were made in, and two may be started in one.

    Args:
        storage: Folder of all runs; made where it is not there.
        name: The name.
    """
    storage.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = storage / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def check_word(word: str) -> str:
    """Return what a user calls a run by: a name or a path that can be looked up and printed.

    Raises:
        ConfigError: Where it holds characters that are no text, or a part too long for any disk.
    """
    if not word.isprintable():
        raise ConfigError(f"got {shown(word)}: the word for a run is one line of plain text")
    if any(len(part.encode(errors="replace")) > _LONGEST_PART for part in word.split("/")):
        raise ConfigError(
            f"got {shown(word)}: no file can have a name of more than {_LONGEST_PART} bytes"
        )
    return word


def require_inside(folder: Path, storage: Path, option: str) -> None:
    """Check that what is to be written lies in the storage, wherever links lead.

    Args:
        folder: Folder of a run or a sweep.
        storage: Folder of all runs.
        option: What errors call it.

    Raises:
        ConfigError: Names both folders.
    """
    if not folder.resolve().is_relative_to(storage.resolve()):
        raise ConfigError(
            f"{option}: {folder} lies outside of the storage {storage}; name the storage that "
            f"holds it: --storage {folder.resolve().parent}"
        )


def shown(text: str) -> str:
    """Text of a user as messages may show it: quoted, on one line, without escapes, cut short."""
    quoted = ascii(text) if not text.isprintable() else repr(text)
    return quoted if len(quoted) <= _SHOWN else f"{quoted[:_SHOWN]}… ({len(text)} characters)"
