"""One low strip of a run's pictures, for the top of its page: a row, classes, the curve."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...datasets.pictures import colour_label
from ...datasets.spec import LabelSpace
from .charts import render_png
from .contact_sheet import colour_errors

WIDTH, HEIGHT = 760, 50
"""Pixels: MLflow's page shows so much below two lines of text, without scrolling sideways."""
_DPI = 100


def fit_page(png: bytes) -> bytes:
    """Shrink a PNG to the strip's width: one that is wider would widen the whole page."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.width > WIDTH:
        picture.thumbnail((WIDTH, picture.height))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def draw_strip(
    row: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    space: LabelSpace,
    classes: Sequence[Mapping[str, float | str | None]],
    curve: Sequence[tuple[int, float]],
) -> bytes:
    """Draw image, truth, prediction and error of one row, IoU per class, and mIoU over steps.

    Args:
        row: (H, W, 3) uint8 image, (H, W) uint8 truth, (H, W) uint8 prediction; None draws none.
        space: Names and colours.
        classes: Per-class table with `class` and `IoU` in percent; None where it never occurs.
        curve: (step, val/mIoU) of every evaluation.

    Returns:
        PNG of `WIDTH` x `HEIGHT` pixels.
    """
    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI)
    if row is not None:
        image, truth, predicted = row
        pictures = [image, colour_label(truth, space), colour_label(predicted, space)]
        pictures.append(colour_errors(truth, predicted, space))
        for index, picture in enumerate(pictures):
            axes = figure.add_axes((0.002 + 0.125 * index, 0.02, 0.122, 0.96))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
    known = [(str(item["class"]), item["IoU"]) for item in classes if item["IoU"] is not None]
    bars = figure.add_axes((0.525, 0.1, 0.22, 0.62))
    heights = [float(value or 0.0) for _, value in known]
    bars.bar(range(len(known)), heights, color="#3b6ea8", width=0.8)
    bars.set_ylim(0, 100)
    bars.set_xticks([])
    bars.set_yticks([0, 100])
    bars.set_title("IoU per class, %", fontsize=6, pad=2)
    line = figure.add_axes((0.79, 0.1, 0.2, 0.62))
    line.plot([step for step, _ in curve], [value for _, value in curve], marker="o", markersize=2)
    line.set_title("val mIoU over steps, %", fontsize=6, pad=2)
    line.set_xticks([])
    for axes in (bars, line):
        axes.tick_params(labelsize=5, length=2, pad=1)
    return render_png(figure)
