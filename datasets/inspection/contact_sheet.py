"""Contact sheets of packed rows: images beside their labels, with a legend of the classes seen."""

import cv2
import numpy as np
from PIL import Image

from ..packed.reader import PackedDataset
from ..pictures import draw_sheet, find_borders, overlay, view_rgb
from ..spec import DataError, LabelSpace, Row
from ..transforms import TransformConfig, row_generator, train_transform

_WIDTH = 320


def draw_contact_sheet(dataset: PackedDataset, *, rows_per_split: int) -> Image.Image:
    """Draw a few rows of every split, spread evenly: image beside image with label.

    Args:
        dataset: The packed data.
        rows_per_split: Rows of each split, at least 1.
    """
    rows: list[tuple[str, Row]] = []
    for split, count in dataset.splits.items():
        chosen = np.unique(np.linspace(0, count - 1, min(rows_per_split, count)).astype(int))
        for index in chosen.tolist():
            row = dataset.row(split, index)
            rows.append((f"{split} {index}  {row.id}", row))
    return _draw_rows(rows, dataset.label_space)


def draw_augmented_sheet(
    dataset: PackedDataset, config: TransformConfig, *, seed: int, count: int
) -> Image.Image:
    """Draw augmented training rows with their labels, as training would see them.

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
    rows: list[tuple[str, Row]] = []
    chosen = np.random.default_rng(seed).integers(dataset.splits["train"], size=count)
    mean, std = (np.array(values)[:, None, None] for values in (config.mean, config.std))
    for epoch, index in enumerate(chosen.tolist()):
        row = dataset.row("train", index)
        pixels, label = train_transform(config, row, row_generator(seed, epoch, row.id))
        image = np.clip(pixels * std + mean, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        rows.append((row.id, Row(row.id, image, label)))
    return _draw_rows(rows, dataset.label_space)


def _draw_rows(rows: list[tuple[str, Row]], space: LabelSpace) -> Image.Image:
    cells, seen = [], set()
    for caption, row in rows:
        seen |= set(np.unique(row.label).tolist())
        pictures = [_fit_width(view_rgb(row.image)), _fit_width(_draw_label(row, space))]
        cells.append((caption, np.concatenate(pictures, axis=1)))
    legend = [
        entry
        for index, entry in enumerate(zip(space.classes, space.palette, strict=True))
        if index in seen
    ]
    if space.ignore_label in seen:
        legend.append(("ignored (image unchanged)", (255, 255, 255)))
    return draw_sheet(cells, legend, columns=2)


def _draw_label(row: Row, space: LabelSpace) -> np.ndarray:
    """Draw a label over its image, with borders between segments or, without any, classes."""
    picture = overlay(view_rgb(row.image), row.label, space, share=0.6)
    if row.instances is not None:
        picture[find_borders(row.instances)] = 255
    else:
        picture[find_borders(row.label)] //= 2
    return picture


def _fit_width(image: np.ndarray) -> np.ndarray:
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    flag = cv2.INTER_AREA if image.shape[1] > _WIDTH else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(image), (_WIDTH, height), interpolation=flag)
