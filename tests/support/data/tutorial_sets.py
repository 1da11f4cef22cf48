"""The three sources that the tutorial of own images speaks of, drawn."""

import json
from pathlib import Path

import numpy as np
from own_images import draw_pair, to_colours, write_picture

NAMES = [f"{'back yard' if n % 2 else 'straße'}/Picture {n:02d} (new)" for n in range(1, 21)]
SIZE = (48, 64)


def write_garden(root: Path) -> None:
    """RGB masks with a suffix, nested folders, odd letters."""
    for number, name in enumerate(NAMES):
        image, label = draw_pair(number, SIZE)
        write_picture(root / "images" / f"{name}.png", image)
        write_picture(root / "masks" / f"{name}_mask.png", to_colours(label))


def write_boats(root: Path) -> None:
    """One COCO file with a polygon for each row of a class's pixels."""
    images, annotations = [], []
    for number, name in enumerate(NAMES):
        image, label = draw_pair(number, SIZE)
        write_picture(root / "photos" / f"{name}.png", image)
        images.append({"id": number, "file_name": f"{name}.png", "height": 48, "width": 64})
        for value in (1, 2):
            rows = [(y, np.flatnonzero(label[y] == value)) for y in range(SIZE[0])]
            polygons = [
                [int(x[0]), y, int(x[-1]) + 1, y, int(x[-1]) + 1, y + 1, int(x[0]), y + 1]
                for y, x in rows
                if x.size
            ]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": value, "iscrowd": 0,
                 "segmentation": polygons}
            )  # fmt: skip
    categories = [{"id": 1, "name": "boat"}, {"id": 2, "name": "buoy"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "boats.json").write_text(json.dumps(content))


def write_cells(root: Path) -> None:
    """Single-channel TIFF pictures, 16-bit TIFF masks."""
    for number in range(20):
        image, label = draw_pair(number, SIZE)
        write_picture(root / "images" / f"slide{number}.tif", image.mean(2).astype(np.uint8))
        write_picture(root / "labels" / f"slide{number}.tif", label.astype(np.uint16))
