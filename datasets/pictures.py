"""Pictures of labelled images: colours over an image, borders, captioned sheets with a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .spec import LabelSpace

GAP = 6
_LINE = 18
_SWATCH = 14


def view_rgb(image: np.ndarray) -> np.ndarray:
    """What a person is shown of an image of any number of channels.

    Args:
        image: (H, W, C) uint8.

    Returns:
        (H, W, 3) uint8: the first three channels as red, green and blue; of one or two channels
        the first, in grey.
    """
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def colour_label(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Colour (H, W) uint8 train ids, as (H, W, 3) uint8; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(space.palette)] = space.palette
    return table[label]


def overlay(
    image: np.ndarray, label: np.ndarray, space: LabelSpace, *, share: float = 0.5
) -> np.ndarray:
    """Blend the colours of a label over its image; ignored pixels stay as they are.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 train ids.
        space: Its colours.
        share: Share of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return blend(image, colour_label(label, space), label < len(space.palette), share=share)


def blend(
    image: np.ndarray, colours: np.ndarray, shown: np.ndarray, *, share: float = 0.5
) -> np.ndarray:
    """Blend (H, W, 3) colours over an image where the (H, W) mask `shown` is true."""
    image = image.astype(np.float32)
    mixed = np.float32(1 - share) * image + np.float32(share) * colours.astype(np.float32)
    return np.where(shown[..., None], mixed, image).astype(np.uint8)


def find_borders(regions: np.ndarray) -> np.ndarray:
    """Find the pixels whose region differs from that of the pixel above or to the left."""
    borders = np.zeros(regions.shape, bool)
    borders[1:] |= regions[1:] != regions[:-1]
    borders[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    return borders


def join_pictures(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Join pictures of one height side by side, with a white gap between them."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def draw_sheet(
    cells: Sequence[tuple[str, np.ndarray]],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
    *,
    columns: int = 1,
    titles: Sequence[str] = (),
) -> Image.Image:
    """Draw a grid of pictures, each below its caption, with a legend below all.

    Args:
        cells: Caption and (H, W, 3) uint8 picture, line by line.
        legend: Name and colour of each entry.
        columns: Pictures of a line.
        titles: Words above the first line, spread evenly.
    """
    cell_width = max(picture.shape[1] for _, picture in cells)
    width = columns * (cell_width + GAP) + GAP
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(picture.shape[0] for _, picture in line) + _LINE + GAP for line in lines]
    key = _draw_legend(legend, width)
    top = GAP + (_LINE if titles else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) + key.height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, title in enumerate(titles):
        left = GAP + column * (cell_width + GAP) // len(titles)
        pen.text((left, GAP), title, fill="black", font=ImageFont.load_default(13))
    for line, height in zip(lines, heights, strict=True):
        for column, (caption, picture) in enumerate(line):
            left = GAP + column * (cell_width + GAP)
            pen.text((left, top), caption[:90], fill="black", font=font)
            sheet.paste(Image.fromarray(picture), (left, top + _LINE))
        top += height
    sheet.paste(key, (0, top))
    return sheet


def _draw_legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Image.Image:
    font = ImageFont.load_default(12)
    positions = []
    left = top = GAP
    for name, colour in entries:
        needed = _SWATCH + 6 + int(font.getlength(name)) + _SWATCH
        if left + needed > width:
            left, top = GAP, top + _LINE
        positions.append((left, top, name, colour))
        left += needed
    legend = Image.new("RGB", (width, top + _LINE + GAP), "white")
    pen = ImageDraw.Draw(legend)
    for left, top, name, colour in positions:
        pen.rectangle((left, top + 1, left + _SWATCH, top + 13), fill=colour, outline="black")
        pen.text((left + _SWATCH + 5, top), name, fill="black", font=font)
    return legend
