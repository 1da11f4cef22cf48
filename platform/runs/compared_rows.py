"""Pictures of the same validation rows by several runs, side by side, the worst rows first."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...datasets.pictures import view_rgb
from ..figures.contact_sheet import draw_comparison
from ..train.preparation import open_data
from .predict_images import load_model, predict_image

_LOOKED_AT = 24
_SHOWN = 6


def draw_compared_rows(folders: Sequence[tuple[str, Path]]) -> bytes:
    """Predict rows of the validation split by each run's best checkpoint and draw the worst ones.

    Args:
        folders: Name and folder of each run; they share data and classes.

    Returns:
        PNG with image, truth and one prediction a run; of at most 24 rows, evenly apart, those
        with the smallest share of right pixels, as the mean over the runs.

    Raises:
        ValueError: Where a run has no checkpoint, or the runs or the data do not fit together.
        OSError: Where the data cannot be read.
    """
    loaded = [(name, load_model(folder)) for name, folder in folders]
    first = loaded[0][1]
    dataset = open_data(first.resolved.config)
    if any(model.space.classes != first.space.classes for _, model in loaded):
        raise ValueError("the runs have other classes, their pictures cannot stand side by side")
    count = dataset.splits["val"]
    rows = []
    for index in np.unique(np.linspace(0, count - 1, min(count, _LOOKED_AT), dtype=int)).tolist():
        row = dataset.row("val", index)
        labels = [predict_image(model, row.image, row.id)[0] for _, model in loaded]
        known = row.label != first.space.ignore_label
        shares = [100 * float((label == row.label)[known].mean()) for label in labels]
        right = ", ".join(f"{share:.1f}" for share in shares)
        title = f"{row.id}: {right} % of labelled pixels right"
        rows.append((sum(shares), title, view_rgb(row.image), row.label, labels))
    rows.sort(key=lambda item: item[0])
    return draw_comparison(
        [item[1:] for item in rows[:_SHOWN]], [name for name, _ in loaded], first.space
    )
