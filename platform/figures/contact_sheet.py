"""Contact sheets: image, truth, prediction and error side by side, with a legend, as PNG bytes."""

from collections.abc import Sequence

import cv2
import numpy as np

from ...datasets.encoded_pixels import encode_png
from ...datasets.pictures import colour_label, draw_sheet, join_pictures
from ...datasets.spec import LabelSpace

_SHORT_SIDE = 160
_RIGHT = np.array((224, 224, 224), np.uint8)
_WRONG = np.array((200, 30, 45), np.uint8)


def draw_contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    space: LabelSpace,
    spikes: Sequence[np.ndarray] = (),
) -> bytes:
    """Draw image, truth, prediction and error of a few rows, with a legend.

    Args:
        rows: Id, (H, W, 3) uint8 image, (H, W) uint8 truth, (H, W) uint8 prediction.
        space: Names and colours.
        spikes: Per row a (h, w) map of mean spike counts, where one was taken.

    Returns:
        PNG.
    """
    highest = max((float(item.max()) for item in spikes), default=0.0)
    cells = []
    for index, (row_id, image, truth, predicted) in enumerate(rows):
        labelled = truth != space.ignore_label
        wrong = (predicted != truth) & labelled
        error = colour_errors(truth, predicted, space)
        pictures = [image, colour_label(truth, space), colour_label(predicted, space), error]
        pictures += [colour_spikes(item, highest) for item in spikes[index : index + 1]]
        share = 100 * (1 - wrong.sum() / max(1, int(labelled.sum())))
        cells.append((f"{row_id}: {share:.1f} % of labelled pixels right", _join(pictures)))
    titles = ["image", "truth", "prediction", "error (red)"]
    if spikes:
        titles.append(f"spikes, 0 to {highest:.2g}")
    legend = [*zip(space.classes, space.palette, strict=True), ("ignored", (0, 0, 0))]
    return encode_png(np.asarray(draw_sheet(cells, legend, titles=titles)))


def draw_comparison(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, Sequence[np.ndarray]]],
    names: Sequence[str],
    space: LabelSpace,
) -> bytes:
    """Draw image, truth and every run's prediction of the same rows, with a legend.

    Args:
        rows: Title, (H, W, 3) uint8 image, (H, W) uint8 truth, one (H, W) uint8 prediction a run.
        names: Names of the runs.
        space: Names and colours.

    Returns:
        PNG.
    """
    cells = []
    for title, image, truth, predictions in rows:
        pictures = [image, colour_label(truth, space)]
        pictures += [colour_label(predicted, space) for predicted in predictions]
        cells.append((title, _join(pictures)))
    legend = [*zip(space.classes, space.palette, strict=True), ("ignored", (0, 0, 0))]
    return encode_png(np.asarray(draw_sheet(cells, legend, titles=["image", "truth", *names])))


def colour_errors(truth: np.ndarray, predicted: np.ndarray, space: LabelSpace) -> np.ndarray:
    """(H, W, 3) uint8: wrong pixels red, right ones grey, ignored ones black."""
    labelled = truth != space.ignore_label
    wrong = (predicted != truth) & labelled
    error = np.where(wrong[..., None], _WRONG, _RIGHT)
    error[~labelled] = 0
    return error


def colour_spikes(spikes: np.ndarray, highest: float) -> np.ndarray:
    """(h, w) mean spike counts as (h, w, 3) uint8 colours, dark at 0 and bright at `highest`."""
    from matplotlib import colormaps

    scaled = spikes / (highest or 1.0)
    return (colormaps["inferno"](scaled)[..., :3] * 255).astype(np.uint8)


def _join(pictures: list[np.ndarray]) -> np.ndarray:
    """All pictures at the size of the first, whose short side is enlarged to 160 pixels."""
    height, width = pictures[0].shape[:2]
    factor = max(1.0, _SHORT_SIDE / min(height, width))
    size = (round(width * factor), round(height * factor))
    return join_pictures([cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in pictures])
