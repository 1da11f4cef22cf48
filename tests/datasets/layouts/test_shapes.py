"""The generated set cannot be solved by where a pixel is or by its colour."""

import dataclasses
import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.layouts.shapes import Level, Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import plan_pack
from spikeseg.datasets.spec import DataError, Row
from spikeseg.model.metrics.segmentation import confusion_counts, segmentation_scores

OPTIONS = ShapesOptions(size=(48, 48), train=160, val=48, test=1, seed=0)
CLASSES = 9
BINS = 8


def rows(split: str, level: Level = "hard") -> list[Row]:
    shapes = Shapes(dataclasses.replace(OPTIONS, level=level))
    raw = shapes.rows(Path(), partial=False)
    return [shapes.read(row).row for row in raw if row.split == split]


def miou(predicted: np.ndarray, labels: np.ndarray) -> float:
    counts = confusion_counts(
        torch.from_numpy(predicted.copy()),
        torch.from_numpy(labels.astype(np.int64)),
        num_classes=CLASSES,
        ignore_label=255,
    )
    return segmentation_scores(counts).miou


@pytest.mark.parametrize("level", get_args(Level))
def test_position_and_colour_alone_tell_next_to_nothing(level: Level) -> None:
    train, val = rows("train", level), rows("val", level)
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
    print(f"{level}: background {always:.1f}, place {by_position:.1f}, colour {by_colour:.1f}")
    assert always < 12
    assert by_position < 12
    # On the lighter levels colour tells object from background, and no class from another.
    assert by_colour < (12 if level == "hard" else 20)


def test_every_class_occurs_and_none_fills_the_images() -> None:
    labels = np.concatenate([row.label.ravel() for row in rows("train")])
    share = np.bincount(labels, minlength=CLASSES) / labels.size
    assert share[0] < 0.75
    assert share[1:].min() > 0.01


def test_a_row_does_not_depend_on_the_others() -> None:
    more = Shapes(ShapesOptions(size=(48, 48), train=3, val=1, test=1, seed=0))
    raw = more.rows(None, partial=False)[2]  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(more.read(raw).row.image, rows("train")[2].image)


def pixels(**options: object) -> str:
    """Hash of image, labels and instances of a few rows of all splits."""
    shapes = make_dataset("shapes", options)
    total = hashlib.sha256()
    for raw in shapes.rows(Path(), partial=False)[::40]:
        row = shapes.read(raw).row
        assert row.instances is not None
        for array in (row.image, row.label, row.instances):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def test_hard_has_the_pixels_from_before_there_were_levels() -> None:
    # Taken of the generator without levels.
    assert pixels() == pixels(level="hard") == "f6d2a0000ce0eb4a"


def pack_digest(**options: object) -> str:
    return plan_pack("shapes", make_dataset("shapes", options), Path()).digest


def test_data_of_every_level_has_a_digest_of_its_own_and_hard_the_one_it_had() -> None:
    digests = {level: pack_digest(level=level) for level in get_args(Level)}
    assert len(set(digests.values())) == 3
    # Taken of the generator without levels, with the default options.
    assert (
        digests["hard"]
        == pack_digest()
        == ("339e9293d3faf73a2e755862b7c6904cfc6a798c3d6272e9c659be3b1105a8d5")
    )


def test_brightness_tells_object_from_background_but_not_on_hard() -> None:
    brighter = {
        level: np.mean([contrast(row) > 0 for row in rows("val", level)])
        for level in get_args(Level)
    }
    assert min(brighter["easy"], brighter["standard"]) > 0.98
    assert 0.2 < brighter["hard"] < 0.8


def test_standard_has_the_objects_of_hard_in_other_colours() -> None:
    for one, other in zip(rows("val", "standard"), rows("val", "hard"), strict=True):
        np.testing.assert_array_equal(one.label, other.label)


def test_the_level_decides_how_many_objects_where_they_are_not_given() -> None:
    assert {level: ShapesOptions(level=level).number for level in get_args(Level)} == {
        "easy": (1, 3),
        "standard": (2, 4),
        "hard": (2, 4),
    }
    named = ShapesOptions(level="easy", objects=(5, 5))
    assert named.number == Shapes(named).options["objects"] == (5, 5)
    assert Shapes(ShapesOptions(level="easy")).options["objects"] == (1, 3)


def contrast(row: Row) -> float:
    """Mean brightness of the objects less that of the background."""
    light = row.image.mean(-1)
    return float(light[row.label > 0].mean() - light[row.label == 0].mean())


def test_an_unknown_level_is_refused_with_the_levels() -> None:
    with pytest.raises(DataError, match="level must be one of easy, standard, hard, got simple"):
        make_dataset("shapes", {"level": "simple"})
