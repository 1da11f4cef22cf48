"""Small sources of images and masks, as users have them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 128, 0))


def draw_pair(seed: int, size: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image, and (H, W) uint8 classes 0 to 2 of it: two boxes on a plain ground."""
    generator = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    image = np.full((*size, 3), 200, np.uint8)
    for value, colour in ((1, (160, 40, 40)), (2, (40, 120, 60))):
        top, left = generator.integers(0, (size[0] - 14, size[1] - 14)).tolist()
        label[top : top + 12, left : left + 12] = value
        image[top : top + 12, left : left + 12] = colour
    noise = generator.integers(0, 20, image.shape).astype(np.uint8)
    return image + noise, label


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write a picture or NumPy file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def to_colours(label: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a label, in `COLOURS`."""
    return np.array(COLOURS, np.uint8)[label]


def write_pairs(root: Path, pairs: Mapping[str, str]) -> None:
    """Write images with RGB masks: path of an image -> path of its mask, below `root`."""
    for seed, (image, mask) in enumerate(pairs.items()):
        pixels, label = draw_pair(seed)
        write_picture(root / image, pixels)
        write_picture(root / mask, to_colours(label))
