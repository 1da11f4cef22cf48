"""Which mask belongs to which image: known folder names, globs, and what names end with."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...spec import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentationclass")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy")
_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Found(NamedTuple):
    """A file that is an image or a mask.

    Attributes:
        name: Path relative to the source.
        key: Path below its folder of images or masks, without suffix; composed letters.
        split: What a folder says; None where none does.
    """

    name: str
    key: str
    split: str | None


class Pair(NamedTuple):
    """An image and its mask, or what is wrong with them.

    Attributes:
        key: Path below the folder of images, without suffix; the id of the row.
        split: What a folder says; None where none does.
        image: Path of the image relative to the source; empty where there is none.
        mask: Path of the mask; empty where there is none.
        problem: Why the two are no pair; empty where they are.
    """

    key: str
    split: str | None
    image: str
    mask: str
    problem: str = ""


class Affixes(NamedTuple):
    """What the names of images and masks have besides what they share."""

    image_prefix: str = ""
    image_suffix: str = ""
    mask_prefix: str = ""
    mask_suffix: str = ""

    def describe(self) -> str:
        """What was found, for a person; empty where names are equal."""
        parts = []
        for what, prefix, suffix in (
            ("image", self.image_prefix, self.image_suffix),
            ("mask", self.mask_prefix, self.mask_suffix),
        ):
            if prefix:
                parts.append(f"{what} names begin with {prefix!r}")
            if suffix:
                parts.append(f"{what} names end with {suffix!r}")
        return ", ".join(parts)


@dataclass
class Pairing:
    """What was found in a source.

    Attributes:
        pairs: Every image and every mask once, sorted by split and key.
        notes: Sentences about what was found and what was left out.
    """

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)


def pair_by_convention(names: Sequence[str], root: Path) -> Pairing:
    """Pair the files of a folder of images and a folder of masks.

    `images/` beside `masks/`, `labels/` or `annotations/`, in any letter case; a split may be a
    folder below both (`images/train/`) or above both (`train/images/`).

    Args:
        names: Paths of all files, relative to the source.
        root: Named in errors.

    Raises:
        DataError: Where there are no such folders, or two that could be either.
    """
    images: list[Found] = []
    masks: list[Found] = []
    folders: dict[str, set[str]] = {"image": set(), "mask": set()}
    others = 0
    for name in _without_single_folder(names):
        place = _find_place(name)
        if place is None:
            others += _is_picture(name)
            continue
        kind, folder, found = place
        if not _is_picture(name):
            others += 1
        else:
            folders[kind].add(folder.lower())
            (images if kind == "image" else masks).append(found)
    for kind, several in folders.items():
        if len(several) > 1:
            raise DataError(
                f"{root}: folders {' and '.join(sorted(several))} could both hold the {kind}s; "
                "say which with --images GLOB --masks GLOB"
            )
    if not images or not masks:
        raise DataError(
            f"{root}: no {'images' if not images else 'masks'} found: pictures are looked for in "
            f"images/, and masks in masks/, labels/ or annotations/, at its top or below train/, "
            "val/ and test/; say where they are with --images GLOB --masks GLOB"
        )
    top = _single_folder(names)
    if top:
        images = [found._replace(name=f"{top}/{found.name}") for found in images]
        masks = [found._replace(name=f"{top}/{found.name}") for found in masks]
    pairing = pair_files(images, masks, root)
    if others:
        pairing.notes.append(f"{others} other files in or beside these folders were left out")
    return pairing


def pair_by_globs(names: Sequence[str], images: str, masks: str, root: Path) -> Pairing:
    """Pair the files that two patterns match; `**/` stands for folders of any depth.

    Args:
        names: Paths of all files, relative to the source.
        images: Pattern of the images' paths, for example `photos/**/*.jpg`.
        masks: Pattern of the masks' paths.
        root: Named in errors.

    Raises:
        DataError: Where a pattern matches no file, or both match one.
    """
    found = {}
    for kind, pattern in (("images", images), ("masks", masks)):
        matches = compile_glob(pattern)
        above = _fixed_folder(pattern)
        found[kind] = [
            Found(name, _make_key(name[len(above) :]), None) for name in names if matches(name)
        ]
        if not found[kind]:
            raise DataError(f"{root}: --{kind} {pattern!r} matches no file")
    both = {item.name for item in found["images"]} & {item.name for item in found["masks"]}
    if both:
        raise DataError(f"{root}: {min(both)} matches --images and --masks; a file is one of them")
    return pair_files(found["images"], found["masks"], root)


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Make a test of relative paths: `*` and `?` stay in a folder, `**/` is any folders."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./"))
    expression = re.compile("".join(_WILDCARDS.get(token, re.escape(token)) for token in pieces))
    return lambda name: expression.fullmatch(name) is not None


def pair_files(images: Sequence[Found], masks: Sequence[Found], root: Path) -> Pairing:
    """Pair images and masks by their keys, or by what is left of these without an affix."""
    affixes = find_affixes([item.key for item in images], [item.key for item in masks])
    by_image = _group(images, affixes.image_prefix, affixes.image_suffix)
    by_mask = _group(masks, affixes.mask_prefix, affixes.mask_suffix)
    pairs = []
    for slot in by_image.keys() | by_mask.keys():
        pairs.append(_make_pair(by_image.get(slot, []), by_mask.get(slot, [])))
    if not any(pair.image and pair.mask for pair in pairs):
        raise DataError(
            f"{root}: no mask fits an image by its name: the first image is {images[0].name}, the "
            f"first mask {masks[0].name}"
        )
    pairs.sort(key=lambda pair: (pair.split or "", pair.key))
    notes = [affixes.describe()] if affixes.describe() else []
    return Pairing(pairs, notes)


def find_affixes(images: Sequence[str], masks: Sequence[str]) -> Affixes:
    """Find what has to be taken off the names so that most masks have an image.

    Args:
        images: Keys of the images.
        masks: Keys of the masks.
    """
    known = set(images)
    equal = sum(key in known for key in masks)
    if equal * 2 >= min(len(masks), len(images)):
        return Affixes()
    best, most = Affixes(), equal
    heads = _most_common_rests(images, masks)
    # The same from the other end: only the file's own name is turned, not the folders'.
    tails = _most_common_rests([_turn(key) for key in images], [_turn(key) for key in masks])
    candidates = []
    if heads is not None:
        candidates.append(Affixes(image_suffix=heads[0], mask_suffix=heads[1]))
    if tails is not None:
        candidates.append(Affixes(image_prefix=tails[0][::-1], mask_prefix=tails[1][::-1]))
    for candidate in candidates:
        stems = {_strip(key, candidate.image_prefix, candidate.image_suffix) for key in images}
        count = sum(
            _strip(key, candidate.mask_prefix, candidate.mask_suffix) in stems for key in masks
        )
        if count > most:
            best, most = candidate, count
    return best


def _most_common_rests(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str] | None:
    """What most often follows the longest beginning that a mask shares with one image alone."""
    owners: dict[str, str | None] = {}
    for key in images:
        for cut in range(key.rfind("/") + 2, len(key) + 1):
            head = key[:cut]
            # A whole name is its own image's, whatever else begins like it.
            owners[head] = key if cut == len(key) or head not in owners else None
    rests: Counter[tuple[str, str]] = Counter()
    for key in masks:
        for cut in range(len(key), key.rfind("/") + 1, -1):
            if key[:cut] in owners:
                owner = owners[key[:cut]]
                if owner is not None:
                    rests[owner[cut:], key[cut:]] += 1
                break
    return rests.most_common(1)[0][0] if rests else None


def _turn(key: str) -> str:
    """A key with its file's name written backwards."""
    folder, separator, name = key.rpartition("/")
    return folder + separator + name[::-1]


def _strip(key: str, prefix: str, suffix: str) -> str:
    folder, separator, name = key.rpartition("/")
    if not name.startswith(prefix) or not name.endswith(suffix):
        return key
    return folder + separator + name.removeprefix(prefix).removesuffix(suffix)


def _group(
    items: Iterable[Found], prefix: str, suffix: str
) -> Mapping[tuple[str | None, str], list[Found]]:
    groups: dict[tuple[str | None, str], list[Found]] = {}
    for item in items:
        groups.setdefault((item.split, _strip(item.key, prefix, suffix)), []).append(item)
    return groups


def _make_pair(images: Sequence[Found], masks: Sequence[Found]) -> Pair:
    first = (images or masks)[0]
    image, mask = (images[0].name if images else ""), (masks[0].name if masks else "")
    problem = ""
    if len(images) > 1:
        problem = f"{images[1].name} and {image} are two images of one name"
    elif len(masks) > 1:
        problem = f"{masks[1].name} and {mask} are two masks of one image"
    elif not masks:
        problem = "the image has no mask"
    elif not images:
        problem = "the mask has no image"
    return Pair(first.key, first.split, image, mask, problem)


def _find_place(name: str) -> tuple[str, str, Found] | None:
    """Whether a path is an image's or a mask's, its folder, and what it is."""
    parts = name.split("/")
    split, rest = None, parts[:-1]
    if rest and rest[0].lower() in SPLIT_NAMES:
        split, rest = SPLIT_NAMES[rest[0].lower()], rest[1:]
    if not rest:
        return None
    folder = rest[0]
    if folder.lower() in IMAGE_FOLDERS:
        kind = "image"
    elif folder.lower() in MASK_FOLDERS:
        kind = "mask"
    else:
        return None
    below = [*rest[1:], parts[-1]]
    if split is None and len(below) > 1 and below[0].lower() in SPLIT_NAMES:
        split, below = SPLIT_NAMES[below[0].lower()], below[1:]
    return kind, folder, Found(name, _make_key("/".join(below)), split)


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _make_key(path: str) -> str:
    stem = path[: -len(PurePosixPath(path).suffix)] if PurePosixPath(path).suffix else path
    # Some systems write an accent as a character of its own.
    return unicodedata.normalize("NFC", stem)


def _fixed_folder(pattern: str) -> str:
    """The folders of a pattern before its first wildcard, with their last slash."""
    fixed = re.split(r"[*?]", pattern.removeprefix("./"), maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]


def _single_folder(names: Sequence[str]) -> str:
    """The one folder that holds everything, where its name means nothing here; else empty."""
    tops = {name.partition("/")[0] for name in names if _is_picture(name)}
    if len(tops) != 1 or any("/" not in name for name in names if _is_picture(name)):
        return ""
    top = tops.pop()
    known = (*IMAGE_FOLDERS, *MASK_FOLDERS, *SPLIT_NAMES)
    return "" if top.lower() in known else top


def _without_single_folder(names: Sequence[str]) -> list[str]:
    top = _single_folder(names)
    return [name.removeprefix(f"{top}/") for name in names] if top else list(names)
