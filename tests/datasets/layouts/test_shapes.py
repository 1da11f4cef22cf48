"""The generated set cannot be solved by where a pixel is or by its colour."""

import numpy as np
import torch

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.spec import Row
from spikeseg.model.metrics.segmentation import confusion_counts, segmentation_scores

OPTIONS = ShapesOptions(size=(48, 48), train=160, val=48, test=1, seed=0)
CLASSES = 9
BINS = 8


def rows(split: str) -> list[Row]:
    shapes = Shapes(OPTIONS)
    raw = shapes.rows(None, partial=False)  # pyright: ignore[reportArgumentType]
    return [shapes.read(row).row for row in raw if row.split == split]


def miou(predicted: np.ndarray, labels: np.ndarray) -> float:
    counts = confusion_counts(
        torch.from_numpy(predicted.copy()),
        torch.from_numpy(labels.astype(np.int64)),
        num_classes=CLASSES,
        ignore_label=255,
    )
    return segmentation_scores(counts).miou


def test_position_and_colour_alone_tell_next_to_nothing() -> None:
    train, val = rows("train"), rows("val")
    labels = np.stack([row.label for row in train])
    wanted = np.stack([row.label for row in val])
    # Per pixel the class that is most frequent there once background is set aside by its share.
    prior = np.stack([(labels == k).mean(0) / (labels == k).mean() for k in range(CLASSES)])
    by_position = miou(np.broadcast_to(prior.argmax(0), wanted.shape), wanted)
    always = miou(np.zeros(wanted.shape, np.int64), wanted)

    def code(images: np.ndarray) -> np.ndarray:
        binned = images.astype(int) * BINS // 256
        return (binned[..., 0] * BINS + binned[..., 1]) * BINS + binned[..., 2]

    table = np.zeros((BINS**3, CLASSES))
    np.add.at(table, (code(np.stack([row.image for row in train])), labels), 1)
    balanced = table / table.sum(0)
    found = code(np.stack([row.image for row in val]))
    by_colour = miou(balanced.argmax(1)[found], wanted)
    print(f"background {always:.1f}, position {by_position:.1f}, colour {by_colour:.1f} mIoU")
    assert always < 12
    assert by_position < 12
    assert by_colour < 12


def test_every_class_occurs_and_none_fills_the_images() -> None:
    labels = np.concatenate([row.label.ravel() for row in rows("train")])
    share = np.bincount(labels, minlength=CLASSES) / labels.size
    assert share[0] < 0.75
    assert share[1:].min() > 0.01


def test_a_row_does_not_depend_on_the_others() -> None:
    more = Shapes(ShapesOptions(size=(48, 48), train=3, val=1, test=1, seed=0))
    raw = more.rows(None, partial=False)[2]  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(more.read(raw).row.image, rows("train")[2].image)
