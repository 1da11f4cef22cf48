"""What is in a packed data set: counts, sizes, class shares, and what looks wrong."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ..packed.reader import PackedDataset

_FEW_SHARE = 3.0


@dataclass(frozen=True)
class SplitReport:
    """Statistics of one split.

    Attributes:
        rows: Rows.
        digest: Over the content of its rows.
        sizes: The most frequent image sizes, `width x height` -> rows, ten at most.
        other_sizes: Rows of any other size.
        smallest: Smallest width and height.
        largest: Largest width and height.
        labelled: Share of pixels that are not ignored, in [0, 1].
        shares: Class -> share of the labelled pixels, in [0, 1].
        segments: Segments of all rows; 0 where the data set has none.
        crowds: Segments that are crowds.
        things: Segments of things; 0 where things and stuff are not told apart.
    """

    rows: int
    digest: str
    sizes: dict[str, int]
    other_sizes: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    labelled: float
    shares: dict[str, float]
    segments: int
    crowds: int
    things: int


@dataclass(frozen=True)
class Report:
    """Inspection report of a packed data set.

    Attributes:
        name: Name of the data set.
        path: Where it is.
        digest: Over the content of all rows.
        classes: Names of the classes.
        options: What was chosen when it was packed.
        quarantined: Rows left out when it was packed.
        splits: Name -> report.
        warnings: Sentences about what looks wrong.
    """

    name: str
    path: str
    digest: str
    classes: tuple[str, ...]
    options: dict[str, Any]
    quarantined: int
    splits: dict[str, SplitReport]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def inspect_packed(dataset: PackedDataset) -> Report:
    """Inspect a packed data set by its manifest and small columns, without decoding images.

    Args:
        dataset: The packed data.
    """
    splits: dict[str, SplitReport] = {}
    hashes: dict[str, dict[bytes, str]] = {}
    warnings: list[str] = []
    for split in dataset.splits:
        splits[split], hashes[split], repeated = _inspect_split(dataset, split)
        if repeated:
            warnings.append(
                f"{split}: {len(repeated)} images occur more than once ({', '.join(repeated[:3])})"
            )
    warnings += _find_overlaps(hashes)
    warnings += _find_uneven_classes(dataset, splits)
    if dataset.quarantined:
        warnings.append(f"{dataset.quarantined} bad rows were left out (quarantine.csv)")
    return Report(
        name=dataset.name,
        path=dataset.path,
        digest=dataset.digest,
        classes=dataset.label_space.classes,
        options=dataset.options,
        quarantined=dataset.quarantined,
        splits=splits,
        warnings=tuple(warnings),
    )


def format_report(report: Report) -> str:
    """Format a report as lines for a terminal."""
    lines = [
        f"{report.path}: {report.name}, {len(report.classes)} classes",
        f"digest {report.digest}",
    ]
    lines += [f"{key}: {value}" for key, value in report.options.items()]
    lines.append("")
    lines.append("split    rows  labelled  segments (crowds)  sizes")
    for split, part in report.splits.items():
        sizes = ", ".join(f"{size}: {rows}" for size, rows in list(part.sizes.items())[:3])
        rest = part.rows - sum(list(part.sizes.values())[:3])
        sizes += f", other: {rest}" if rest else ""
        segments = f"{part.segments} ({part.crowds})" if part.segments else "-"
        labelled = f"{100 * part.labelled:.1f} %"
        lines.append(f"{split:6} {part.rows:6}  {labelled:>8}  {segments:>17}  {sizes}")
    lines += ["", *(f"{split} digest {part.digest}" for split, part in report.splits.items()), ""]
    width = max(len(name) for name in report.classes)
    heads = "  ".join(f"{split:>7}" for split in report.splits)
    lines.append(f"{'% of labelled pixels'.ljust(width)}  {heads}")
    width = max(width, len("% of labelled pixels"))
    for name in report.classes:
        cells = "  ".join(f"{100 * part.shares[name]:7.3f}" for part in report.splits.values())
        lines.append(f"{name.ljust(width)}  {cells}")
    if report.warnings:
        lines += ["", *(f"warning: {warning}" for warning in report.warnings)]
    return "\n".join(lines)


def _inspect_split(
    dataset: PackedDataset, split: str
) -> tuple[SplitReport, dict[bytes, str], list[str]]:
    """Inspect one split; returns report, image hash -> row id, ids of repeated images."""
    sizes: Counter[tuple[int, int]] = Counter()
    seen: dict[bytes, str] = {}
    repeated, segments, crowds, things = [], 0, 0, 0
    is_thing = dataset.label_space.is_thing or ()
    names = ["id", "height", "width", "image_hash", "segments", "crowd"]
    for row in dataset.columns(split, names):
        sizes[row["width"], row["height"]] += 1
        if row["image_hash"] in seen:
            repeated.append(row["id"])
        seen[row["image_hash"]] = row["id"]
        segments += len(row["segments"] or ())
        crowds += sum(row["crowd"] or ())
        things += sum(is_thing[number] for number in (row["segments"] or ()) if is_thing)
    pixels = dataset.class_pixels(split)
    labelled = sum(pixels)
    total = sum(width * height * rows for (width, height), rows in sizes.items())
    classes = dataset.label_space.classes
    common = sizes.most_common(10)
    report = SplitReport(
        rows=dataset.splits[split],
        digest=dataset.split_digests[split],
        sizes={f"{width} x {height}": rows for (width, height), rows in common},
        other_sizes=sizes.total() - sum(rows for _, rows in common),
        smallest=(min(w for w, _ in sizes), min(h for _, h in sizes)),
        largest=(max(w for w, _ in sizes), max(h for _, h in sizes)),
        labelled=labelled / total,
        shares={
            name: count / max(1, labelled) for name, count in zip(classes, pixels, strict=True)
        },
        segments=segments,
        crowds=crowds,
        things=things,
    )
    return report, seen, repeated


def _find_overlaps(hashes: dict[str, dict[bytes, str]]) -> list[str]:
    warnings = []
    names = list(hashes)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            both = hashes[first].keys() & hashes[second].keys()
            if both:
                ids = sorted(hashes[second][key] for key in both)
                warnings.append(
                    f"{len(both)} images are both in {first} and {second} ({', '.join(ids[:3])})"
                )
    return warnings


def _find_uneven_classes(dataset: PackedDataset, splits: dict[str, SplitReport]) -> list[str]:
    warnings = []
    for split, part in splits.items():
        never = [name for name, share in part.shares.items() if share == 0]
        if never:
            more = f" and {len(never) - 5} more" if len(never) > 5 else ""
            warnings.append(f"{split}: classes never seen: {', '.join(never[:5])}{more}")
        if part.labelled < 0.5:
            warnings.append(f"{split}: only {100 * part.labelled:.1f} % of its pixels are labelled")
        if part.things and part.crowds == part.things:
            warnings.append(
                f"{split}: all {part.things} segments of things are crowds: labels without "
                "instances?"
            )
    train = splits.get("train")
    for split, part in splits.items():
        if train is None or split == "train":
            continue
        uneven = [
            name
            for name, share in part.shares.items()
            if max(share, train.shares[name]) > 0.005
            and min(share, train.shares[name]) * _FEW_SHARE < max(share, train.shares[name])
            and min(share, train.shares[name]) > 0
        ]
        if uneven:
            more = f" and {len(uneven) - 5} more" if len(uneven) > 5 else ""
            warnings.append(
                f"{split}: class shares differ {_FEW_SHARE:g} times or more from train: "
                f"{', '.join(uneven[:5])}{more}"
            )
    return warnings
