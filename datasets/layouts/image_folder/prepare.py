"""A user's folder to a checked data set: find, look at everything, name classes, split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...spec import MOST_CHANNELS, DataError
from .arrow_files import ArrowFiles
from .bands import find_channels
from .class_file import CLASS_FILE, DRAFT, read_class_file, write_class_file
from .class_table import ClassDefinition, ClassTable
from .coco import read_coco
from .cvat import read_cvat
from .dataset import ImageFolder, format_problem
from .labelme import read_labelme
from .pairing import Pairing, pair_by_convention, pair_by_globs
from .proposal import ClassShare, list_shares, propose_classes
from .source_files import SourceFiles, open_source
from .split_rows import draw_splits, name_shared_pictures, parse_shares, split_by_lists
from .survey import Item, Survey, find_unknown, survey_items

Format = Literal["masks", "coco", "labelme", "cvat", "voc", "arrow"]
_READERS: Mapping[str, Callable[[SourceFiles, Sequence[str]], list[Item]]] = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
}


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """What a user chose.

    Attributes:
        format: Where labels are: `masks`, or annotation files of a tool.
        images: Pattern of the images' paths; None looks for known folder names.
        masks: Pattern of the masks' paths; given exactly where `images` is.
        split: Shares to draw, as text; None where folders or lists say the splits.
        seed: Decides a drawn split.
        group_by: Keeps the images of a folder in one split.
        classes: A class file outside of the source; None looks for one beside the data.
        channels: Channels of every image; None takes those of the first that can be read, 3 where
            it is grey.
    """

    format: Format = "masks"
    images: str | None = None
    masks: str | None = None
    split: str | None = None
    seed: int = 0
    group_by: Literal["folder"] | None = None
    classes: Path | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if (self.images is None) != (self.masks is None):
            raise DataError("--images and --masks are given together, or none of them")
        if self.images is not None and self.format != "masks":
            raise DataError(f"--images and --masks are of --format masks, got {self.format}")
        if self.group_by is not None and self.split is None:
            raise DataError("--group-by needs --split: it says what stays together when drawing")


@dataclass(frozen=True)
class Prepared:
    """A source that was looked at whole.

    Attributes:
        dataset: What is packed.
        table: The classes.
        class_file: Where the classes are, or would be written.
        proposed: Whether the classes were made from what the labels hold, and not read.
        shares: Share of each class.
        notes: What was found, for a person.
        problems: Sentence of each pair that cannot be packed.
    """

    dataset: ImageFolder
    table: ClassTable
    class_file: Path
    proposed: bool
    shares: tuple[ClassShare, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def total(self) -> int:
        """Pairs, those with a problem included."""
        return len(self.dataset.rows(Path(), partial=True))

    def require_few_problems(self, most: float) -> None:
        """Stop before work starts where too many pairs are bad.

        Args:
            most: Largest share of pairs that may be, in [0, 1].

        Raises:
            DataError: Gives the count and the first reasons.
        """
        total = self.total
        if len(self.problems) > int(most * total):
            shown = "".join(f"\n  {problem}" for problem in self.problems[:5])
            more = f"\n  and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
            raise DataError(
                f"{len(self.problems)} of {total} pairs cannot be packed, {100 * most:g} % may be "
                f"left out (--on-bad-row quarantine, --max-bad):{shown}{more}"
            )

    def class_text(self) -> str:
        """The classes as text of a class file, with each one's share."""
        by_name = {share.name: share for share in self.shares}
        remarks = [
            f"{100 * by_name[item.name].share:.3f} % of pixels" for item in self.table.classes
        ]
        return write_class_file(self.table, remarks)


def prepare_folder(path: Path, options: FolderOptions) -> Prepared:
    """Find images and labels, look at all of them, name the classes, and split.

    Args:
        path: A folder, a zip or a tar.
        options: What the user chose.

    Raises:
        DataError: Names the file, folder or option and the rule; nothing has been written.
    """
    source = ArrowFiles(path) if options.format == "arrow" else open_source(path)
    names = source.names()
    items, notes = _find_items(source, names, options)
    listed = [] if options.split or _have_splits(items) else split_by_lists(items, source, names)
    if listed:
        left = len(items) - len(listed)
        notes += [f"{left} images are in no list and were left out"] if left else []
        items = listed
    elif options.split is None:
        _require_splits(items, source)
    elif _have_splits(items):
        raise DataError(f"--split: folders or files of {path} say the splits already; leave it out")
    channels = _find_channels(items, source, options, notes)
    surveys = survey_items(items, source, channels)
    class_file, table, proposed = _find_classes(source, names, surveys, options, notes)
    surveys = find_unknown(surveys, table, source)
    if options.split is not None:
        surveys = _draw_splits(surveys, options.split, options)
    notes += _describe_shared(surveys) + _describe_overlap(surveys)
    notes += [] if options.split else _describe_splits(surveys)
    final = [survey.item for survey in surveys]
    return Prepared(
        dataset=ImageFolder(source, table, final, _list_options(options, table, channels)),
        table=table,
        class_file=class_file,
        proposed=proposed,
        shares=tuple(list_shares(surveys, table)),
        notes=tuple(notes),
        problems=tuple(format_problem(item, path) for item in final if item.problem),
    )


def _find_items(
    source: SourceFiles, names: Sequence[str], options: FolderOptions
) -> tuple[list[Item], list[str]]:
    if options.format in _READERS:
        return _READERS[options.format](source, names), []
    pairing: Pairing
    if options.images is not None and options.masks is not None:
        pairing = pair_by_globs(names, options.images, options.masks, source.root)
    else:
        pairing = pair_by_convention(names, source.root)
    items = [Item(p.key, p.split, p.image, p.mask, problem=p.problem) for p in pairing.pairs]
    return items, pairing.notes


def _find_channels(
    items: Sequence[Item], source: SourceFiles, options: FolderOptions, notes: list[str]
) -> int:
    """Channels of all images: those asked for, else those of the first; noted where not RGB."""
    channels = options.channels or 3
    names = [item.image for item in items if item.image and not item.problem]
    for name in names if options.channels is None else []:
        try:
            channels = find_channels(source.read(name), source.root / name)
        except DataError:
            # One that cannot be read is a problem of its row, and the next one tells.
            continue
        if channels > MOST_CHANNELS:
            raise DataError(
                f"{source.root / name}: {channels} channels, at most {MOST_CHANNELS} are packed"
            )
        break
    if channels != 3:
        notes.append(f"images have {channels} channels: train with a model.in_channels of as many")
    return channels


def _draw_splits(surveys: Sequence[Survey], text: str, options: FolderOptions) -> list[Survey]:
    """Draw splits of what can be packed: the rest takes no place in one that it would not fill."""
    shares = parse_shares(text)
    good = [survey for survey in surveys if not survey.item.problem]
    bad = [survey for survey in surveys if survey.item.problem]
    if bad and len(good) < len(shares):
        # Their problems are what has to be said, and not that too few are left.
        return list(surveys)
    drawn = draw_splits(good, shares, options.seed, by_folder=options.group_by == "folder")
    return [*drawn, *bad]


def _have_splits(items: Sequence[Item]) -> bool:
    return any(item.split for item in items)


def _require_splits(items: Sequence[Item], source: SourceFiles) -> None:
    without = [item for item in items if item.split is None]
    if len(without) == len(items):
        raise DataError(
            f"{source.root}: nothing says which images train and which validate: draw it with "
            "--split 0.8,0.1,0.1, or make folders or lists train, val and test"
        )
    if without:
        raise DataError(
            f"{source.root}: {without[0].name()} is in no split, and {len(items) - len(without)} "
            "others are: every image needs one"
        )


def _find_classes(
    source: SourceFiles,
    names: Sequence[str],
    surveys: Sequence[Survey],
    options: FolderOptions,
    notes: list[str],
) -> tuple[Path, ClassTable, bool]:
    """Where classes are or would be written, the classes, and whether they are proposed."""
    if options.classes is not None:
        return options.classes, _read_outside(options.classes), False
    inside = [name for name in names if name.rpartition("/")[2] == CLASS_FILE]
    if inside:
        where = source.root / inside[0]
        return where, read_class_file(source.read(inside[0]), where), False
    beside = _class_file_of(source)
    if beside.is_file():
        return beside, _read_outside(beside), False
    maps = [name for name in names if name.rpartition("/")[2] == "labelmap.txt"]
    if options.format == "voc" and maps:
        where = source.root / maps[0]
        return where, _read_label_map(source.read(maps[0]), where), False
    if draft_of(beside).is_file():
        # A person may have edited it: it is shown again, and not written anew.
        return beside, _read_outside(draft_of(beside)), True
    table, strays = propose_classes(surveys, source.root)
    if strays is not None:
        notes.append(
            f"{strays.colours} rare colours ({strays.pixels} pixels in {strays.files} masks, such "
            f"as {strays.example}) were taken for no class: smoothed or compressed edges; save "
            "masks as PNG without smoothing, or give classes.yaml "
            "a tolerance or unknown: ignore"
        )
    return beside, table, True


def draft_of(class_file: Path) -> Path:
    """Where classes are written to be confirmed, beside the class file that they would become."""
    return class_file.with_name(class_file.name.removesuffix(CLASS_FILE) + DRAFT)


def _class_file_of(source: SourceFiles) -> Path:
    """Where the classes of a source are written: in a folder, beside an archive."""
    root = source.root
    return root / CLASS_FILE if root.is_dir() else root.with_name(f"{root.stem}.{CLASS_FILE}")


def _read_outside(path: Path) -> ClassTable:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return read_class_file(text, path)


def _read_label_map(text: bytes, where: Path) -> ClassTable:
    """Read `labelmap.txt` as CVAT writes it beside VOC masks: `name:r,g,b:parts:actions`."""
    classes = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.partition(":")[0].split(","))
        except ValueError as error:
            raise DataError(
                f"{where}:{number}: {line!r}: a line is name:r,g,b:parts:actions"
            ) from error
        code = (red << 16) | (green << 8) | blue
        classes.append(ClassDefinition(name.strip(), (code,), (), (red, green, blue)))
    if not classes:
        raise DataError(f"{where}: names no class")
    table = ClassTable("classes", "colour", tuple(classes))
    # What holds for a class file holds for this one.
    return read_class_file(write_class_file(table).encode(), where)


def _describe_shared(surveys: Sequence[Survey]) -> list[str]:
    sentences = name_shared_pictures(surveys)
    more = [f"and {len(sentences) - 5} more pictures in two splits"] if len(sentences) > 5 else []
    return sentences[:5] + more


def _describe_overlap(surveys: Sequence[Survey]) -> list[str]:
    contested = sum(survey.contested for survey in surveys)
    covered = sum(survey.covered for survey in surveys)
    if not contested:
        return []
    return [
        f"{100 * contested / covered:.2f} % of the annotated pixels are covered by regions of more "
        "than one class; which one lies on top: docs/own_images.md"
    ]


def _describe_splits(surveys: Sequence[Survey]) -> list[str]:
    splits = {survey.item.split for survey in surveys}
    if "train" not in splits or "val" not in splits:
        return ["a training needs the splits train and val; --split can draw them"]
    return []


def _list_options(options: FolderOptions, table: ClassTable, channels: int) -> dict[str, Any]:
    """What is recorded with the packed data; paths of this machine are not."""
    # Three channels are what data without a word on them has.
    recorded = replace(options, classes=None, channels=None if channels == 3 else channels)
    chosen = {
        key: value
        for key, value in vars(recorded).items()
        if value is not None and (key != "seed" or options.split is not None)
    }
    return {**chosen, "classes_by": table.by, "classes": table.describe()}
