"""Panoptic quality: by hand, added over images, and equal to the field's evaluator."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeseg.model.metrics.panoptic import (
    PanopticCounts,
    PanopticTarget,
    panoptic_counts,
    panoptic_scores,
)

PREDICTIONS = (
    "coco/perfect",
    "coco/perturbed",
    "coco/perturbed2",
    "cityscapes/perfect",
    "cityscapes/perturbed",
    "edge_cases/pred",
)


def line(text: str) -> torch.Tensor:
    return torch.tensor([[int(character) for character in text]])


def target(numbers: str, classes: list[int], crowd: list[int] | None = None) -> PanopticTarget:
    flags = torch.tensor(crowd or [0] * len(classes)).bool()
    return PanopticTarget(line(numbers), torch.tensor(classes), flags)


def counts(predicted: str, classes: list[int], labelled: PanopticTarget) -> PanopticCounts:
    return panoptic_counts(line(predicted), torch.tensor(classes), labelled, num_classes=3)


def test_a_match_needs_more_than_half() -> None:
    # Segment 1: IoU 3/4, a match. Segment 2: IoU exactly 1/2, none: one extra and one missed.
    found = counts("1110220000", [0, 1], target("1111222200", [0, 1]))
    assert found.counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert found.iou.tolist() == [0.75, 0, 0]


def test_void_is_taken_out_of_the_union() -> None:
    found = counts("1111111", [0], target("1111000", [0]))
    assert found.counts[0].tolist() == [1, 0, 0]
    assert found.iou[0] == 1


def test_a_prediction_mostly_on_void_or_on_its_own_crowd_is_dropped() -> None:
    labelled = target("0001111222", [0, 1], [0, 1])
    assert counts("1110000000", [2], labelled).counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert counts("0000000111", [1], labelled).counts[1].tolist() == [0, 0, 0]
    # A crowd of another class excuses nothing.
    assert counts("0000000111", [2], labelled).counts[2].tolist() == [0, 1, 0]
    # Exactly half on void does not excuse either.
    assert counts("0011000000", [2], labelled).counts[2].tolist() == [0, 1, 0]


def test_scores_are_means_over_the_classes_that_occur() -> None:
    total = PanopticCounts(
        torch.tensor([[2, 1, 1], [0, 1, 0], [0, 0, 0]]), torch.tensor([1.5, 0, 0]).double()
    )
    scores = panoptic_scores(total, [True, False, False])
    assert scores.things.pq == pytest.approx(50)
    assert scores.things.sq == pytest.approx(75)
    assert scores.things.rq == pytest.approx(100 * 2 / 3)
    assert (scores.stuff.pq, scores.stuff.classes) == (0, 1)
    assert scores.all.pq == pytest.approx(25)
    assert torch.isnan(scores.pq[2])


def test_images_add_up() -> None:
    labelled = target("1111222200", [0, 1])
    one = counts("1110220000", [0, 1], labelled)
    both = one + counts("2222111100", [1, 0], labelled)
    assert both.counts.tolist() == [[2, 0, 0], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("predicted", "classes", "message"),
    [
        ("2", [0], r"predicted segments are numbered 0\.\.1, got 2\.\.2"),
        ("1", [3], r"predicted classes must be 0\.\.2, got 3\.\.3"),
        ("11", [0], "must have one shape"),
    ],
    ids=["number", "class", "shape"],
)
def test_what_does_not_fit_together_is_refused(
    predicted: str, classes: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        counts(predicted, classes, target("1", [0]))


def read(folder: Path, item: dict[str, Any]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Segments of a panoptic file numbered in their listed order."""
    colours = np.array(Image.open(folder / item["file_name"]).convert("RGB")).astype(np.int64)
    ids = colours @ np.array([1, 256, 65536])
    numbers = np.zeros_like(ids)
    for number, segment in enumerate(item["segments_info"], start=1):
        numbers[ids == segment["id"]] = number
    return torch.from_numpy(numbers), item["segments_info"]


@pytest.mark.parametrize("name", PREDICTIONS)
def test_golden_quality_equals_the_evaluator(shared_folder: Path, name: str) -> None:
    folder = shared_folder / "reference" / "golden_metrics"
    expected = json.loads((folder / "panoptic" / "expected.json").read_text())[name]
    labels = json.loads((folder / expected["gt"]).read_text())
    found = json.loads((folder / expected["pred"]).read_text())
    categories = {item["id"]: index for index, item in enumerate(labels["categories"])}
    predictions = {item["image_id"]: item for item in found["annotations"]}
    total = PanopticCounts.zero(len(categories))
    for item in labels["annotations"]:
        numbers, segments = read((folder / expected["gt"]).with_suffix(""), item)
        labelled = PanopticTarget(
            numbers,
            torch.tensor([categories[s["category_id"]] for s in segments], dtype=torch.int64),
            torch.tensor([bool(s["iscrowd"]) for s in segments], dtype=torch.bool),
            torch.tensor([s["area"] for s in segments], dtype=torch.int64),
        )
        predicted, segments = read(
            (folder / expected["pred"]).with_suffix(""), predictions[item["image_id"]]
        )
        classes = [categories[s["category_id"]] for s in segments]
        total += panoptic_counts(
            predicted,
            torch.tensor(classes, dtype=torch.int64),
            labelled,
            num_classes=len(categories),
        )
    scores = panoptic_scores(total, [bool(c["isthing"]) for c in labels["categories"]])
    for key, quality in (("All", scores.all), ("Things", scores.things), ("Stuff", scores.stuff)):
        wanted = expected[key]
        assert quality.classes == wanted["classes"]
        if quality.classes:
            np.testing.assert_allclose(
                [quality.pq, quality.sq, quality.rq],
                [wanted["PQ"], wanted["SQ"], wanted["RQ"]],
                rtol=1e-12,
            )
    for category, values in expected["per_class"].items():
        index = categories[int(category)]
        assert total.counts[index].tolist() == [values["tp"], values["fp"], values["fn"]]
        assert float(total.iou[index]) == pytest.approx(values["iou_sum"], rel=1e-12)
        assert float(scores.pq[index]) == pytest.approx(100 * values["pq"], rel=1e-12)
        assert float(scores.sq[index]) == pytest.approx(100 * values["sq"], rel=1e-12)
