"""A generated data set: textured, overlapping shapes in varying light and noise.

Colours, light, place, size and turn are drawn independently of an object's class: what tells it is
the outline and the pattern on it, never a colour. Three levels differ in how clearly objects stand
out from the background.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import cv2
import numpy as np

from ..encoded_pixels import encode_png
from ..spec import DataError, EncodedRow, RawRow, Row, load_label_space

_KINDS = ("disc", "ring", "square", "triangle", "cross", "star", "crescent", "bar")

Level = Literal["easy", "standard", "hard"]


class _Colours(NamedTuple):
    """How the two colours of a texture are drawn.

    Attributes:
        first: Range of the first colour's channels, in [0, 255].
        spread: Largest distance of the second colour from the first, per channel.
        limits: Range that the second colour is clipped to.
        signs: Which way it lies from the first, one of these drawn per channel.
    """

    first: tuple[float, float]
    spread: float
    limits: tuple[float, float]
    signs: tuple[int, ...] = (-1, 1)


class _Look(NamedTuple):
    """What differs between levels.

    Attributes:
        background: Colours of the background.
        objects: Colours of the objects.
        noise: Range of an image's noise, its standard deviation in steps of 255.
        number: Fewest and most objects in an image.
        radius: Range of an object's radius as a share of the shorter side.
        turn: Largest turn of an object either way, radians.
    """

    background: _Colours
    objects: _Colours
    noise: tuple[float, float]
    number: tuple[int, int] = (2, 4)
    radius: tuple[float, float] = (0.2, 0.36)
    turn: float = 0.4


_LOOKS: dict[Level, _Look] = {
    # Few, large, bright objects whose patterns are dark on bright, on a dark background that is
    # nearly flat; little noise.
    "easy": _Look(
        background=_Colours((10, 60), 12, (0, 70)),
        objects=_Colours((180, 245), 120, (60, 255), signs=(-1,)),
        noise=(1, 3),
        number=(1, 3),
        radius=(0.24, 0.38),
        turn=0.2,
    ),
    # Bright objects on a dark background, textures and noise as in `hard`.
    "standard": _Look(
        background=_Colours((20, 110), 45, (0, 120)),
        objects=_Colours((140, 235), 90, (120, 255)),
        noise=(1, 8),
    ),
    # Objects and background of the same colours: outline and pattern alone tell an object.
    "hard": _Look(
        background=_Colours((30, 225), 45, (0, 255)),
        objects=_Colours((30, 225), 90, (0, 255)),
        noise=(1, 8),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ShapesOptions:
    """Options of the generated data set.

    Attributes:
        size: Height and width in pixels, each at least 16.
        train: Rows of the training split.
        val: Rows of the validation split.
        test: Rows of the test split.
        seed: Decides every pixel.
        objects: Fewest and most objects in an image; None takes the level's, (1, 3) on `easy` and
            (2, 4) on the others.
        level: How objects stand out: `easy` (large, bright ones on a calm, dark background),
            `standard` (bright ones on a textured, noisy one) or `hard` (no brighter than it).
    """

    size: tuple[int, int] = (64, 64)
    train: int = 512
    val: int = 96
    test: int = 96
    seed: int = 0
    objects: tuple[int, int] | None = None
    level: Level = "hard"

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise DataError(f"level must be one of {', '.join(get_args(Level))}, got {self.level}")
        if min(self.size) < 16:
            raise DataError(f"size must be at least 16 x 16, got {self.size}")
        if min(self.train, self.val, self.test) < 1:
            raise DataError(f"every split needs a row, got {self.train}, {self.val}, {self.test}")
        fewest, most = self.number
        if not 1 <= fewest <= most <= 50:
            raise DataError(f"objects must be 1 <= fewest <= most <= 50, got {self.objects}")

    @property
    def number(self) -> tuple[int, int]:
        """Fewest and most objects in an image."""
        return _LOOKS[self.level].number if self.objects is None else self.objects


class Shapes:
    """Generates images and labels; it needs no source.

    Args:
        options: Sizes and seed.
    """

    needs_source = False
    official_rows: Mapping[str, int] = {}

    def __init__(self, options: ShapesOptions | None = None) -> None:
        self.label_space = load_label_space("shapes")
        self._options = options or ShapesOptions()
        recorded = asdict(self._options) | {"objects": self._options.number}
        if recorded["level"] == "hard":
            # The only images before there were levels: data packed then keeps its digest.
            del recorded["level"]
        self.options: Mapping[str, Any] = recorded

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        """Names of all rows; `source` is not looked at."""
        return _ShapesRows({split: self.options[split] for split in ("train", "val", "test")})

    def read(self, row: RawRow) -> EncodedRow:
        """Draw one row."""
        split, _, index = row.id.partition("-")
        number = ("train", "val", "test").index(split)
        generator = np.random.default_rng([self._options.seed, number, int(index)])
        drawn = draw_row(self._options, generator, row.id)
        return EncodedRow(drawn, encode_png(drawn.image), verbatim=False)


class _ShapesRows(Sequence[RawRow]):
    """Names of the rows, made when asked for: any number of them takes no memory.

    Args:
        counts: Split -> rows.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def __len__(self) -> int:
        """Rows of all splits."""
        return sum(self._counts.values())

    @overload
    def __getitem__(self, index: int) -> RawRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[RawRow]: ...
    def __getitem__(self, index: int | slice) -> RawRow | list[RawRow]:
        """Name of one row, counted from the first split's first."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        for split, count in self._counts.items():
            if 0 <= number < count:
                return _name_row(split, Path(f"shapes/{split}"), number)
            number -= count
        raise IndexError(f"there are rows 0..{len(self) - 1}, got {index}")

    def __iter__(self) -> Iterator[RawRow]:
        """Names of all rows."""
        for split, count in self._counts.items():
            path = Path(f"shapes/{split}")
            yield from (_name_row(split, path, number) for number in range(count))


def _name_row(split: str, path: Path, number: int) -> RawRow:
    return RawRow(f"{split}-{number:06d}", split, path, path)


def draw_row(options: ShapesOptions, generator: np.random.Generator, row_id: str) -> Row:
    """Draw one image with labels and instances.

    Args:
        options: Size, number of objects and level; splits and seed are not looked at.
        generator: Decides every pixel.
        row_id: Name of the row.
    """
    look = _LOOKS[options.level]
    size, number = options.size, options.number
    height, width = size
    image = _draw_background(size, look.background, generator)
    label = np.zeros(size, np.uint8)
    instances = np.zeros(size, np.uint16)
    kinds: list[int] = []
    for _ in range(int(generator.integers(number[0], number[1] + 1))):
        kind = int(generator.integers(len(_KINDS)))
        radius = generator.uniform(*look.radius) * min(size)
        centre = (generator.uniform(0.1, 0.9) * height, generator.uniform(0.1, 0.9) * width)
        angle = generator.uniform(-look.turn, look.turn)
        u, v = _map_to_object_frame(size, centre, radius, angle)
        mask = _draw_outline(_KINDS[kind], u, v)
        if not mask.any():
            continue
        kinds.append(kind + 1)
        pattern = _draw_pattern(_KINDS[kind], u, v)
        image[mask] = _mix_two_colours(pattern, look.objects, generator)[mask]
        label[mask] = kind + 1
        instances[mask] = len(kinds)
    light = _draw_light(size, generator)
    noise = generator.normal(0, generator.uniform(*look.noise), (height, width, 3))
    image = np.clip(image * light[..., None] + noise, 0, 255).astype(np.uint8)
    return Row(row_id, image, label, instances, tuple(kinds))


def _draw_background(
    size: tuple[int, int], colours: _Colours, generator: np.random.Generator
) -> np.ndarray:
    """Two random colours mixed by clouds or by a slow wave."""
    height, width = size
    if generator.random() < 0.5:
        coarse = generator.normal(0, 1, (max(2, height // 12), max(2, width // 12)))
        mix = np.tanh(cv2.resize(coarse.astype(np.float32), (width, height)))
    else:
        y, x = np.mgrid[:height, :width] / min(size)
        angle = generator.uniform(0, math.pi)
        mix = np.sin((x * math.cos(angle) + y * math.sin(angle)) * generator.uniform(3, 12))
    return _mix_two_colours(mix, colours, generator)


def _mix_two_colours(
    mix: np.ndarray, colours: _Colours, generator: np.random.Generator
) -> np.ndarray:
    """Two random colours, mixed by -1..1; (H, W, 3) float32."""
    first = generator.uniform(*colours.first, 3)
    away = generator.choice(colours.signs, 3) * generator.uniform(0.4, 1, 3) * colours.spread
    second = np.clip(first + away, *colours.limits)
    share = ((mix + 1) / 2)[..., None]
    return (first * share + second * (1 - share)).astype(np.float32)


def _draw_pattern(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The pattern that a kind carries in its own frame, -1..1."""
    if kind == "disc":
        return np.cos(14 * np.hypot(u, v))
    if kind == "ring":
        return np.sin(9 * np.arctan2(v, u))
    if kind == "square":
        return np.sign(np.sin(8 * u) * np.sin(8 * v))
    if kind == "triangle":
        return np.sin(13 * u)
    if kind == "cross":
        return np.where(np.cos(11 * u) + np.cos(11 * v) > 0.6, 1.0, -1.0)
    if kind == "star":
        return np.clip(2 * np.hypot(u, v) - 1, -1, 1)
    if kind == "crescent":
        return np.clip(1.5 * u, -1, 1)
    return np.sin(13 * u + 13 * v)


def _draw_light(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Light that falls off in one direction, factor 0.5 to 1.3."""
    height, width = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = generator.uniform(0, 2 * math.pi)
    slope = generator.uniform(0, 0.25)
    return generator.uniform(0.75, 1.05) + slope * (x * math.cos(angle) + y * math.sin(angle))


def _map_to_object_frame(
    size: tuple[int, int], centre: tuple[float, float], radius: float, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel in an object's frame, in units of its radius."""
    y, x = np.mgrid[: size[0], : size[1]]
    y, x = (y + 0.5 - centre[0]) / radius, (x + 0.5 - centre[1]) / radius
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _draw_outline(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Pixels inside a shape, (H, W) bool."""
    r = np.hypot(u, v)
    phi = np.arctan2(v, u)
    if kind == "disc":
        return r <= 0.9
    if kind == "ring":
        return (r <= 1.0) & (r >= 0.55)
    if kind == "square":
        return np.maximum(abs(u), abs(v)) <= 0.8
    if kind == "triangle":
        # Distance to the nearest of three sides that stand 120 degrees apart.
        return np.max([u * math.cos(a) + v * math.sin(a) for a in (0, 2.0944, 4.1888)], 0) <= 0.52
    if kind == "cross":
        return (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 1.0)
    if kind == "star":
        return r <= 0.72 + 0.38 * np.cos(5 * phi)
    if kind == "crescent":
        return (r <= 1.0) & (np.hypot(u - 0.5, v) >= 0.75)
    return (abs(u) <= 1.2) & (abs(v) <= 0.28)
