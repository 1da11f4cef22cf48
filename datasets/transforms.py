"""Augmentation and test-time resizing: pure functions of a row and a generator.

Order and constants are those of the published recipe (DATASETS section 3): resize, crop, flip,
photometric distortion, normalize, pad. Version 2 resizes only what the crop is made of.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import cv2
import numpy as np

from .colour_jitter import JitterConfig, jitter_colours, map_bytes, photometric_distortion
from .images import count_values
from .resize import ResizedLabel, Window, resize_image, resize_image_window, resize_label
from .spec import MOST_CHANNELS, Row

# Divisors at which a JPEG is decoded from fewer of its coefficients.
_REDUCTIONS = (8, 4, 2)


def _require(rule: bool, message: str) -> None:
    if not rule:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Resizing, cropping, augmentation and normalization of images.

    Attributes:
        crop: Height and width of a training input.
        resize: `none`; `short_edge` draws from `short_edges`; `range` fits the image into `box`
            times a factor drawn from `ratio_range`, aspect kept.
        short_edges: Lengths of the short edge to draw from.
        max_long_edge: Longest long edge after a `short_edge` resize; None for no limit.
        box: Height and width that `range` fits into.
        ratio_range: Smallest and largest factor of `range`.
        max_category_ratio: Largest share of one class in a crop, ten draws at most; 1 accepts any.
        flip: Probability of a horizontal flip.
        photometric: Brightness, contrast, saturation and hue as published.
        brightness: Largest relative change of brightness where `photometric` is off.
        jitter: Changes of the cropped image's colours, in place of `photometric` and `brightness`;
            None for none.
        mean: Mean of each channel (RGB, or the bands of the data) on the 0..255 scale.
        std: Standard deviation of each on that scale.
        test_box: Height and width that a test image is fitted into, aspect kept; None keeps it.
        interpolation: `bilinear` (published) or `area`, which does not alias when it shrinks.
        ignore_label: Train id that padding gets.
        version: 1 resizes the whole image, then crops; 2 finds the crop first and resizes only its
            part: the same draws and labels, the image within one grey level, in less time.
        decode: `reduced` has a training decode a JPEG at 1/2, 1/4 or 1/8 of its size where no draw
            needs more: other pixels by some grey levels, less time. Needs version 2.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    crop: tuple[int, int]
    resize: Literal["none", "short_edge", "range"] = "none"
    short_edges: tuple[int, ...] = ()
    max_long_edge: int | None = None
    box: tuple[int, int] | None = None
    ratio_range: tuple[float, float] = (1.0, 1.0)
    max_category_ratio: float = 0.75
    flip: float = 0.5
    photometric: bool = True
    brightness: float = 0.0
    jitter: JitterConfig | None = None
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    test_box: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "area"] = "bilinear"
    ignore_label: int = 255
    version: Literal[1, 2] = 1
    decode: Literal["full", "reduced"] = "full"

    def __post_init__(self) -> None:
        _require(min(self.crop) >= 16, f"crop must be at least 16 x 16, got {self.crop}")
        _require(
            (self.resize == "short_edge") == bool(self.short_edges),
            f"short_edges are given exactly when resize is 'short_edge', got {self.short_edges}",
        )
        _require(
            (self.resize == "range") == (self.box is not None),
            f"box is given exactly when resize is 'range', got {self.box}",
        )
        for name, lengths in (
            ("short_edges", self.short_edges),
            ("max_long_edge", (self.max_long_edge,)),
            ("box", self.box or ()),
            ("test_box", self.test_box or ()),
        ):
            _require(
                all(length is None or length >= 1 for length in lengths),
                f"{name} must be lengths of at least 1 pixel, got {getattr(self, name)}",
            )
        _require(
            0 < self.ratio_range[0] <= self.ratio_range[1] < math.inf,
            f"ratio_range must be 0 < smallest <= largest, finite, got {self.ratio_range}",
        )
        _require(
            0 < self.max_category_ratio <= 1,
            f"max_category_ratio must be in (0, 1], got {self.max_category_ratio}",
        )
        _require(0 <= self.flip <= 1, f"flip must be in [0, 1], got {self.flip}")
        _require(0 <= self.brightness < 1, f"brightness must be in [0, 1), got {self.brightness}")
        _require(
            self.jitter is None or not (self.photometric or self.brightness),
            "jitter takes the place of photometric and brightness, which must be false and 0 "
            f"beside it, got {self.photometric} and {self.brightness}",
        )
        _require(
            len(self.mean) == len(self.std) and 1 <= len(self.mean) <= MOST_CHANNELS,
            f"mean and std must be one number a channel, of 1 to {MOST_CHANNELS} channels, got "
            f"{len(self.mean)} and {len(self.std)}",
        )
        _require(
            len(self.mean) == 3 or not (self.photometric or self.jitter is not None),
            "photometric and jitter change RGB colours: with another number of channels they must "
            f"be false and null, got {len(self.mean)} channels",
        )
        _require(
            all(map(math.isfinite, self.mean)), f"mean must be finite numbers, got {self.mean}"
        )
        _require(
            all(0 < value < math.inf for value in self.std),
            f"std must be positive and finite, got {self.std}",
        )
        _require(
            0 <= self.ignore_label <= 255, f"ignore_label must be 0..255, got {self.ignore_label}"
        )
        _require(
            self.decode == "full" or self.version == 2,
            f"decode must be full in version 1, which resizes whole images, got {self.decode}",
        )


def row_generator(seed: int, epoch: int, row_id: str) -> np.random.Generator:
    """The randomness of one row in one epoch; nothing else decides its augmentation."""
    name = int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "little")
    return np.random.default_rng([seed, epoch, name])


class Augmented(NamedTuple):
    """One augmented row, all of the crop's size.

    Attributes:
        image: (C, h, w) float32, normalized; 0 where padded.
        target: (h, w) uint8 train ids; the ignore label where padded.
        instances: (h, w) uint16 as in `Row`, 0 where padded; None where the row has none.
    """

    image: np.ndarray
    target: np.ndarray
    instances: np.ndarray | None


def train_transform(
    config: TransformConfig, row: Row, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one row for semantic training.

    Args:
        config: What to do.
        row: The row.
        generator: Its randomness.

    Returns:
        (C, h, w) float32 normalized image, (h, w) uint8 train ids, both of the crop's size.
    """
    augmented = augment(config, row, generator)
    return augmented.image, augmented.target


def augment(
    config: TransformConfig,
    row: Row,
    generator: np.random.Generator,
    image_out: np.ndarray | None = None,
) -> Augmented:
    """Augment one row, its instances together with image and label.

    Args:
        config: What to do.
        row: The row; decoded at a smaller scale only as `find_reduction` says.
        generator: Its randomness.
        image_out: (C, h, w) float32 of the crop's size that the image is written to; a new array
            if not given.
    """
    image, maps = _resize_and_crop(config, row, generator)
    if generator.random() < config.flip:
        image, maps = _flip(image), [m[:, ::-1] for m in maps]
    if config.jitter is not None:
        image = jitter_colours(config.jitter, image, generator)
    elif config.photometric:
        image = photometric_distortion(image, generator)
    elif config.brightness:
        factor = 1 + generator.uniform(-config.brightness, config.brightness)
        image = map_bytes(image, np.clip(np.arange(256, dtype=np.float32) * factor, 0, 255))
    if image_out is None:
        image_out = np.empty((image.shape[2], *config.crop), np.float32)
    height, width = image.shape[0], image.shape[1]
    normalize(config, image, image_out[:, :height, :width])
    image_out[:, height:] = 0
    image_out[:, :height, width:] = 0
    target = _pad(maps[0], config.crop, config.ignore_label)
    instances = _pad(maps[1], config.crop, 0) if len(maps) > 1 else None
    return Augmented(image_out, target, instances)


def find_reduction(config: TransformConfig, size: tuple[int, int]) -> int:
    """Find the divisor at which a JPEG may be decoded for training: 1, 2, 4 or 8.

    Args:
        config: Its `decode` and the largest size that it draws count.
        size: Height and width of the image.
    """
    if config.decode == "full" or config.resize == "none":
        return 1
    if config.resize == "short_edge":
        largest = fit_short_edge(size, max(config.short_edges), config.max_long_edge)
    else:
        largest = _fit_box(config, size, config.ratio_range[1])
    return next(
        (d for d in _REDUCTIONS if largest[0] * d <= size[0] and largest[1] * d <= size[1]), 1
    )


def test_transform(config: TransformConfig, row: Row) -> np.ndarray:
    """Resize and normalize a test image; its label keeps its own size.

    Returns:
        (C, h, w) float32.
    """
    return normalize(config, resize_for_test(config, row.image))


def resize_for_test(config: TransformConfig, image: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Resize a test image to the size at which the network sees it.

    Args:
        config: Its `test_box` and `interpolation` count.
        image: (H, W, 3) uint8.
        scale: Factor on the sides of the box, or of the image where there is no box.

    Returns:
        (h, w, 3) uint8.
    """
    size = find_test_size(config, (image.shape[0], image.shape[1]), scale)
    return resize_image(image, size, config.interpolation)


def find_test_size(
    config: TransformConfig, size: tuple[int, int], scale: float = 1.0
) -> tuple[int, int]:
    """Height and width at which the network sees a test image; as `resize_for_test`."""
    if config.test_box is not None:
        return fit_size(size, (config.test_box[0] * scale, config.test_box[1] * scale))
    if scale == 1:
        return size
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def fit_size(size: tuple[int, int], box: tuple[float, float]) -> tuple[int, int]:
    """Fit height and width into a box, aspect kept, rounded half up, at least 1.

    The box's long side limits the image's long side, its short side the short one.

    Args:
        size: Height and width.
        box: Height and width of the box; which is which does not matter.
    """
    factor = min(max(box) / max(size), min(box) / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def fit_short_edge(
    size: tuple[int, int], short_edge: int, max_long_edge: int | None
) -> tuple[int, int]:
    """Scale height and width to a short edge, less where the long edge would be too long.

    Aspect kept, rounded half up, at least 1.
    """
    factor = short_edge / min(size)
    if max_long_edge is not None:
        factor = min(factor, max_long_edge / max(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def normalize(
    config: TransformConfig, image: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Normalize (H, W, C) on 0..255 to (C, H, W) float32, (x - mean) / std.

    Args:
        config: Mean and standard deviation.
        image: uint8 or float32.
        out: (C, H, W) float32 that is written to; a new array if not given.
    """
    if out is None:
        out = np.empty((image.shape[2], *image.shape[:2]), np.float32)
    # Channel by channel, since numpy is several times as slow with the channel as innermost axis.
    for number, plane in enumerate(cv2.split(image)):
        np.subtract(plane, np.float32(config.mean[number]), out=out[number])
        np.divide(out[number], np.float32(config.std[number]), out=out[number])
    return out


def _resize_and_crop(
    config: TransformConfig, row: Row, generator: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw size and window; returns the image, label and any instances of the window."""
    source = (row.label.shape[0], row.label.shape[1])
    maps = [row.label] if row.instances is None else [row.label, row.instances]
    size = _draw_size(config, source, generator)
    if config.version == 1:
        whole = [resize_label(m, size) for m in maps]
        window = _draw_window(config, size, lambda part: whole[0][part.slices], generator)
        image = resize_image(row.image, size, config.interpolation)
        return image[window.slices], [m[window.slices] for m in whole]
    lazy = [ResizedLabel(m, size) for m in maps]
    window = _draw_window(config, size, lazy[0].cut, generator)
    image = resize_image_window(
        row.image, size, window, config.interpolation, source=source, reduction=row.reduction
    )
    return image, [m.cut(window) for m in lazy]


def _draw_size(
    config: TransformConfig, size: tuple[int, int], generator: np.random.Generator
) -> tuple[int, int]:
    if config.resize == "short_edge":
        edge = config.short_edges[int(generator.integers(len(config.short_edges)))]
        return fit_short_edge(size, edge, config.max_long_edge)
    if config.resize == "range":
        return _fit_box(config, size, generator.uniform(*config.ratio_range))
    return size


def _fit_box(config: TransformConfig, size: tuple[int, int], ratio: float) -> tuple[int, int]:
    assert config.box is not None
    return fit_size(size, (config.box[0] * ratio, config.box[1] * ratio))


def _draw_window(
    config: TransformConfig,
    size: tuple[int, int],
    read_label: Callable[[Window], np.ndarray],
    generator: np.random.Generator,
) -> Window:
    """Draw a random window; redrawn up to ten times while one class fills too much of it.

    Args:
        config: What to do.
        size: Height and width of the resized row.
        read_label: The resized label of a window.
        generator: The randomness.
    """
    height, width = min(size[0], config.crop[0]), min(size[1], config.crop[1])

    def draw() -> Window:
        top = int(generator.integers(size[0] - height + 1))
        left = int(generator.integers(size[1] - width + 1))
        return Window(top, left, height, width)

    window = draw()
    if config.max_category_ratio >= 1:
        return window
    for _ in range(10):
        counts = count_values(read_label(window))
        counts[config.ignore_label] = 0
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < config.max_category_ratio:
            break
        window = draw()
    return window


def _flip(image: np.ndarray) -> np.ndarray:
    """Mirror (H, W, C) left to right; OpenCV drops a single channel's axis."""
    return cv2.flip(image, 1).reshape(image.shape)


def _pad(values: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    padded = np.full(size, fill, values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded
