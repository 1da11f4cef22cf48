"""Pictures of rows: images beside their labels, with a legend of the classes that occur."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..packed.reader import PackedDataset
from ..spec import DataError, LabelSpace, Row
from ..transforms import TransformConfig, row_generator, train_transform

_WIDTH = 320
_GAP = 6
_LINE = 18


def contact_sheet(dataset: PackedDataset, *, rows_per_split: int) -> Image.Image:
    """A few rows of every split, spread evenly: image beside image with label.

    Args:
        dataset: The packed data.
        rows_per_split: Rows of each split, at least 1.
    """
    space = dataset.label_space
    cells: list[tuple[str, np.ndarray]] = []
    seen: set[int] = set()
    for split, count in dataset.splits.items():
        chosen = np.unique(np.linspace(0, count - 1, min(rows_per_split, count)).astype(int))
        for index in chosen.tolist():
            row = dataset.row(split, index)
            seen |= set(np.unique(row.label).tolist())
            both = np.concatenate([_fitted(row.image), _fitted(overlay(row, space))], axis=1)
            cells.append((f"{split} {index}  {row.id}", both))
    return _page(cells, space, seen, columns=2)


def augmented_sheet(
    dataset: PackedDataset, config: TransformConfig, *, seed: int, count: int
) -> Image.Image:
    """Augmented training rows with their labels, as training would see them.

    Args:
        dataset: The packed data.
        config: The augmentation.
        seed: Decides rows and augmentation.
        count: Number of rows.

    Raises:
        DataError: Where there is no training split.
    """
    if "train" not in dataset.splits:
        raise DataError(
            f"{dataset.path}: augmented rows are those of the split train, it has "
            f"{', '.join(dataset.splits)}"
        )
    space = dataset.label_space
    cells: list[tuple[str, np.ndarray]] = []
    seen: set[int] = set()
    chosen = np.random.default_rng(seed).integers(dataset.splits["train"], size=count)
    for epoch, index in enumerate(chosen.tolist()):
        row = dataset.row("train", index)
        pixels, label = train_transform(config, row, row_generator(seed, epoch, row.id))
        mean, std = np.array(config.mean)[:, None, None], np.array(config.std)[:, None, None]
        image = np.clip(pixels * std + mean, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        seen |= set(np.unique(label).tolist())
        shown = overlay(Row(row.id, image, label), space)
        cells.append((row.id, np.concatenate([_fitted(image), _fitted(shown)], axis=1)))
    return _page(cells, space, seen, columns=2)


def overlay(row: Row, space: LabelSpace) -> np.ndarray:
    """The image with its label's colours over it; ignored pixels stay as they are.

    Args:
        row: The row; borders between its segments are drawn where it has some.
        space: Its colours.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(space.palette)] = space.palette
    known = (row.label < len(space.palette))[..., None]
    image = row.image.astype(np.float32)
    mixed = np.where(known, 0.4 * image + 0.6 * table[row.label], image).astype(np.uint8)
    borders = row.label if row.instances is None else row.instances
    edge = np.zeros(borders.shape, bool)
    edge[:, 1:] |= borders[:, 1:] != borders[:, :-1]
    edge[1:] |= borders[1:] != borders[:-1]
    mixed[edge] = 255 if row.instances is not None else mixed[edge] // 2
    return mixed


def _fitted(image: np.ndarray) -> np.ndarray:
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    flag = cv2.INTER_AREA if image.shape[1] > _WIDTH else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(image), (_WIDTH, height), interpolation=flag)


def _page(
    cells: Sequence[tuple[str, np.ndarray]], space: LabelSpace, seen: set[int], *, columns: int
) -> Image.Image:
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = columns * (2 * _WIDTH + _GAP) + _GAP
    heights = [max(cell.shape[0] for _, cell in line) + _LINE + _GAP for line in lines]
    legend = _legend(space, seen, width)
    page = Image.new("RGB", (width, sum(heights) + legend.height + _GAP), "white")
    pen = ImageDraw.Draw(page)
    top = _GAP
    for line, height in zip(lines, heights, strict=True):
        for column, (caption, cell) in enumerate(line):
            left = _GAP + column * (2 * _WIDTH + _GAP)
            pen.text((left, top), caption[:90], fill="black")
            page.paste(Image.fromarray(cell), (left, top + _LINE))
        top += height
    page.paste(legend, (0, top))
    return page


def _legend(space: LabelSpace, seen: set[int], width: int) -> Image.Image:
    """Colour and name of the classes that occur, and what ignored pixels look like."""
    entries = [
        (space.palette[index], name) for index, name in enumerate(space.classes) if index in seen
    ]
    if space.ignore_label in seen:
        entries.append(((255, 255, 255), "ignored (image unchanged)"))
    columns = max(1, width // 210)
    height = -(-len(entries) // columns) * _LINE + _GAP
    legend = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(legend)
    for index, (colour, name) in enumerate(entries):
        left, top = _GAP + index % columns * 210, index // columns * _LINE
        pen.rectangle((left, top + 2, left + 14, top + 14), fill=colour, outline="black")
        pen.text((left + 20, top + 2), name[:30], fill="black")
    return legend
