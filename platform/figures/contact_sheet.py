"""Contact sheets: image, truth, prediction and error side by side, with a legend, as PNG bytes."""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...datasets.spec import LabelSpace

_MARGIN = 6
_CAPTION = 18
_SHORT_SIDE = 160
_RIGHT = (224, 224, 224)
_WRONG = (200, 30, 45)


def png(array: np.ndarray) -> bytes:
    """PNG of (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def colour_labels(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """(H, W) uint8 train ids as (H, W, 3) uint8 colours; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(space.palette)] = np.array(space.palette, np.uint8)
    table[space.ignore_label] = 0
    return table[label]


def overlay(image: np.ndarray, label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Image and label colours in equal parts, (H, W, 3) uint8."""
    return ((image.astype(np.uint16) + colour_labels(label, space)) // 2).astype(np.uint8)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    space: LabelSpace,
    spikes: Sequence[np.ndarray] = (),
) -> bytes:
    """Image, truth, prediction and error of a few rows, with a legend.

    Args:
        rows: Id, (H, W, 3) uint8 image, (H, W) uint8 truth, (H, W) uint8 prediction.
        space: Names and colours.
        spikes: Per row a (h, w) map of mean spike counts, where one was taken.

    Returns:
        PNG.
    """
    highest = max((float(item.max()) for item in spikes), default=0.0)
    strips = [
        _strip(*row, space, [spike_colours(item, highest) for item in spikes[index : index + 1]])
        for index, row in enumerate(rows)
    ]
    width = max(strip.width for strip in strips)
    legend = _legend(space, width)
    height = sum(strip.height for strip in strips) + legend.height + _CAPTION
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    titles = ["image", "truth", "prediction", "error (red)"]
    if spikes:
        titles.append(f"spikes, 0 to {highest:.2g}")
    cell = width // len(titles)
    for column, title in enumerate(titles):
        pen.text((column * cell + _MARGIN, 3), title, fill="black", font=_font(13))
    top = _CAPTION
    for strip in (*strips, legend):
        sheet.paste(strip, (0, top))
        top += strip.height
    return png(np.asarray(sheet))


def spike_colours(spikes: np.ndarray, highest: float) -> np.ndarray:
    """(h, w) mean spike counts as (h, w, 3) uint8 colours, dark at 0 and bright at `highest`."""
    from matplotlib import colormaps

    scaled = spikes / (highest or 1.0)
    return (colormaps["inferno"](scaled)[..., :3] * 255).astype(np.uint8)


def _strip(
    row_id: str,
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    space: LabelSpace,
    further: Sequence[np.ndarray],
) -> Image.Image:
    wrong = (predicted != truth) & (truth != space.ignore_label)
    error = np.where(wrong[..., None], np.uint8(_WRONG), np.uint8(_RIGHT))  # pyright: ignore[reportArgumentType]
    error[truth == space.ignore_label] = 0
    cells = [image, colour_labels(truth, space), colour_labels(predicted, space), error, *further]
    factor = max(1.0, _SHORT_SIDE / min(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    strip = Image.new(
        "RGB", (len(cells) * (size[0] + _MARGIN) + _MARGIN, size[1] + _CAPTION + _MARGIN), "white"
    )
    for column, cell in enumerate(cells):
        enlarged = cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST)
        strip.paste(Image.fromarray(enlarged), (_MARGIN + column * (size[0] + _MARGIN), 0))
    counted = max(1, int((truth != space.ignore_label).sum()))
    text = f"{row_id}: {100 * (1 - wrong.sum() / counted):.1f} % of labelled pixels right"
    ImageDraw.Draw(strip).text((_MARGIN, size[1] + 2), text, fill="black", font=_font(12))
    return strip


def _legend(space: LabelSpace, width: int) -> Image.Image:
    font = _font(12)
    entries = [*zip(space.classes, space.palette, strict=True), ("ignored", (0, 0, 0))]
    places = []
    x = y = _MARGIN
    for name, colour in entries:
        needed = 22 + int(font.getlength(name)) + 14
        if x + needed > width:
            x, y = _MARGIN, y + 18
        places.append((x, y, name, colour))
        x += needed
    legend = Image.new("RGB", (width, y + 24), "white")
    pen = ImageDraw.Draw(legend)
    for left, top, name, colour in places:
        pen.rectangle((left, top + 1, left + 14, top + 13), fill=tuple(colour), outline="black")
        pen.text((left + 19, top), name, fill="black", font=font)
    return legend


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font
