"""Which rows train, validate and test: by folder, by lists, or drawn in given shares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from ...spec import DataError
from .pairing import SPLIT_NAMES
from .source_files import SourceFiles
from .survey import Item, Survey, find_equal_pictures

SPLITS = ("train", "val", "test")


def parse_shares(text: str) -> tuple[float, ...]:
    """Read `0.8,0.1,0.1`: shares of train and val, and of test where there is a third.

    Raises:
        DataError: Where these are not two or three positive numbers that come to 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) not in (2, 3) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(
            f"--split: {text!r} must be two or three positive shares that come to 1, of train, val "
            "and test, such as 0.8,0.1,0.1"
        )
    return shares


def split_by_lists(items: Sequence[Item], source: SourceFiles, names: Sequence[str]) -> list[Item]:
    """Split by text files of image names, one a line: `train.txt`, `val.txt`, `test.txt`.

    A line is a path relative to the source or below the folder of images, with or without suffix.

    Args:
        items: All images.
        source: Where the files are.
        names: Paths of all files of the source.

    Returns:
        The listed images, in the lists' order; empty where the source has no list.

    Raises:
        DataError: Where a line names no image, two, or one that is listed already.
    """
    lists = _find_lists(names)
    if not lists:
        return []
    by_name: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        path = PurePosixPath(item.image or item.label)
        forms = {str(path), str(path.with_suffix("")), item.key, item.key + path.suffix}
        for form in forms | {path.name, path.stem}:
            by_name.setdefault(form, []).append(index)
    taken: dict[int, str] = {}
    listed = []
    for split, name in lists.items():
        where = source.root / name
        try:
            lines = source.read(name).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 text ({error})") from error
        for number, line in enumerate(lines, start=1):
            entry = line.strip().removeprefix("./")
            if not entry:
                continue
            # Two paths a line are image and mask.
            found = by_name.get(entry) or by_name.get(entry.split()[0], [])
            if len(found) != 1:
                what = "no image" if not found else f"{len(found)} images"
                raise DataError(f"{where}:{number}: {entry!r} is the name of {what}")
            if found[0] in taken:
                raise DataError(f"{where}:{number}: {entry} is in {taken[found[0]]} already")
            taken[found[0]] = name
            listed.append(replace(items[found[0]], split=split))
    return listed


def draw_splits(
    surveys: Sequence[Survey], shares: Sequence[float], seed: int, *, by_folder: bool
) -> list[Survey]:
    """Draw splits of given shares; equal pictures always come into the same one.

    The result depends on names, content and seed, and not on the order of files.

    Args:
        surveys: All images.
        shares: Shares of train, val and test, coming to 1.
        seed: Decides who comes where.
        by_folder: Keep the images of a folder together.

    Raises:
        DataError: Where there are fewer groups than splits.
    """
    groups = _group_items(surveys, by_folder=by_folder)
    if len(groups) < len(shares):
        raise DataError(
            f"--split: {len(groups)} groups of images that stay together cannot fill {len(shares)} "
            "splits"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted = np.array(shares) * len(surveys)
    counts = np.zeros(len(shares), np.int64)
    split_of: dict[str, str] = {}
    for place, number in enumerate(order.tolist()):
        missing = len(order) - place
        empty = np.flatnonzero(counts == 0)
        # The last groups go where none has gone yet.
        lack = wanted - counts
        choice = int(empty[0]) if missing <= len(empty) else int(np.argmax(lack))
        counts[choice] += len(groups[number])
        for index in groups[number]:
            split_of[surveys[index].item.key] = SPLITS[choice]
    return [s._replace(item=replace(s.item, split=split_of[s.item.key])) for s in surveys]


def name_shared_pictures(surveys: Sequence[Survey]) -> list[str]:
    """Sentences that name both files of a picture that is in two splits."""
    split_of = {survey.item.image: survey.item.split for survey in surveys}
    sentences = []
    for names in find_equal_pictures(surveys):
        splits = {split_of[name]: name for name in reversed(names)}
        if len(splits) > 1:
            shown = " and ".join(f"{name} ({split})" for split, name in sorted(splits.items()))  # type: ignore[type-var]
            sentences.append(f"the same picture is in two splits: {shown}")
    return sentences


def _find_lists(names: Sequence[str]) -> Mapping[str, str]:
    """Split -> list; VOC's lists of segmentation count first, then those nearest to the root."""
    lists: dict[str, str] = {}
    for name in sorted(
        names, key=lambda n: ("/Segmentation/" not in n, n.count("/")), reverse=True
    ):
        path = PurePosixPath(name)
        if path.suffix.lower() in (".txt", ".lst") and path.stem.lower() in SPLIT_NAMES:
            lists[SPLIT_NAMES[path.stem.lower()]] = name
    return {split: lists[split] for split in SPLITS if split in lists}


def _group_items(surveys: Sequence[Survey], *, by_folder: bool) -> list[list[int]]:
    """Indices of images that must stay together, in an order that names decide."""
    parent = list(range(len(surveys)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[object, int] = {}
    for index, survey in enumerate(surveys):
        marks: list[object] = [survey.picture] if survey.picture else []
        if by_folder:
            marks.append(str(PurePosixPath(survey.item.image or survey.item.label).parent))
        for mark in marks:
            parent[find(index)] = find(first.setdefault(mark, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(surveys)):
        groups.setdefault(find(index), []).append(index)
    return sorted(groups.values(), key=lambda group: min(surveys[i].item.key for i in group))
