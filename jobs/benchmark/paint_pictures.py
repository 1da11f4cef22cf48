"""Pictures and masks as a person draws them in a paint program, for trainings of recipe `own`."""

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Edges = Literal["hard", "smooth"]
Colour = tuple[int, int, int]
_SIZES = ((160, 120), (176, 128), (168, 120))
_FOLDERS = ("front street", "Höfe/back yard", "hill")
# Drawn this many times as large and shrunk: what a smoothing brush makes of an edge.
_FINENESS = 4
_SPECKS = 40
BACKGROUND: Colour = (0, 0, 0)
HOUSE: Colour = (255, 0, 0)
TREE: Colour = (0, 128, 0)
SUN: Colour = (255, 255, 0)


class _Canvas(NamedTuple):
    """A picture and its mask, drawn on alike."""

    picture: ImageDraw.ImageDraw
    mask: ImageDraw.ImageDraw
    scale: int

    def draw(self, shape: str, corners: list[float], colour: Colour, mark: Colour) -> None:
        points = [corner * self.scale for corner in corners]
        for target, fill in ((self.picture, colour), (self.mask, mark)):
            getattr(target, shape)(points, fill=fill)


def paint_pair(generator: np.random.Generator, edges: Edges) -> tuple[Image.Image, Image.Image]:
    """Draw houses, trees and a sun before sky and ground, and the mask of the three.

    Args:
        generator: The randomness.
        edges: `hard`, or `smooth` where both are drawn with a brush that smooths its edges: the
            mask then has colours between two classes.

    Returns:
        An RGB picture and an RGB mask of its size.
    """
    width, height = _SIZES[int(generator.integers(len(_SIZES)))]
    scale = 1 if edges == "hard" else _FINENESS
    size = (width * scale, height * scale)
    picture, mask = Image.new("RGB", size), Image.new("RGB", size, BACKGROUND)
    canvas = _Canvas(ImageDraw.Draw(picture), ImageDraw.Draw(mask), scale)

    def shade(*colour: int) -> Colour:
        red, green, blue = (int(np.clip(c + generator.integers(-25, 26), 0, 255)) for c in colour)
        return red, green, blue

    horizon = height * float(generator.uniform(0.5, 0.7))
    canvas.draw("rectangle", [0, 0, width, height], shade(130, 180, 225), BACKGROUND)
    canvas.draw("rectangle", [0, horizon, width, height], shade(150, 130, 90), BACKGROUND)
    across, down, radius = generator.uniform((15, 12, 7), (width - 15, 30, 12)).tolist()
    disc = [across - radius, down - radius, across + radius, down + radius]
    canvas.draw("ellipse", disc, shade(240, 215, 70), SUN)
    for _ in range(int(generator.integers(1, 3))):
        left, wide, tall = generator.uniform((2, 24, 22), (width - 40, 38, 40)).tolist()
        foot = horizon + float(generator.uniform(2, 12))
        walls, roof = shade(190, 70, 60), shade(120, 40, 40)
        canvas.draw("rectangle", [left, foot - tall, left + wide, foot], walls, HOUSE)
        top = [left - 3, foot - tall, left + wide + 3, foot - tall]
        canvas.draw("polygon", [*top, left + wide / 2, foot - tall - 14], roof, HOUSE)
    for _ in range(int(generator.integers(1, 4))):
        middle, tall, radius = generator.uniform((8, 16, 8), (width - 8, 26, 14)).tolist()
        foot = horizon + float(generator.uniform(4, 20))
        trunk = [middle - 2, foot - tall, middle + 2, foot]
        canvas.draw("rectangle", trunk, shade(90, 60, 35), TREE)
        crown = [middle - radius, foot - tall - radius, middle + radius, foot - tall + radius]
        canvas.draw("ellipse", crown, shade(50, 130, 55), TREE)
    if scale > 1:
        picture, mask = (p.resize((width, height), Image.Resampling.BOX) for p in (picture, mask))
    pencil = ImageDraw.Draw(picture)
    for x, y in generator.integers(0, (width, height), (_SPECKS, 2)).tolist():
        pencil.point((x, y), fill=shade(128, 128, 128))
    return picture, mask


def paint_pictures(output: Path, *, count: int, seed: int, edges: Edges) -> None:
    """Write pictures below `images/` and masks with the suffix `_mask` below `masks/`.

    Args:
        output: Folder to write into.
        count: Pairs to draw.
        seed: Decides all of them.
        edges: As `paint_pair`.
    """
    generator = np.random.default_rng(seed)
    for number in range(1, count + 1):
        name = f"{_FOLDERS[number % len(_FOLDERS)]}/Drawing {number:02d}"
        picture, mask = paint_pair(generator, edges)
        for path, drawn in (
            (output / "images" / f"{name}.png", picture),
            (output / "masks" / f"{name}_mask.png", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--edges", choices=["hard", "smooth"], default="hard")
    options = parser.parse_args()
    paint_pictures(options.output, count=options.count, seed=options.seed, edges=options.edges)
