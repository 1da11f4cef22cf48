"""Semantic scores: by hand, added over workers, and equal to the field's evaluators."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeseg.datasets.spec import load_label_space
from spikeseg.model.metrics.segmentation import (
    confusion_counts,
    grouped_counts,
    segmentation_scores,
)
from spikeseg.model.postprocess import label_map

CASES = (
    "camvid_real",
    "absent_classes",
    "predictions_out_of_range",
    "fully_ignored_image",
    "perfect",
    "ade20k_real",
    "coco_stuff_real",
)


def test_scores_of_six_pixels_are_those_counted_by_hand() -> None:
    target = torch.tensor([0, 0, 1, 1, 2, 255])
    predicted = torch.tensor([0, 1, 1, 1, 0, 0])
    counts = confusion_counts(predicted, target, num_classes=4, ignore_label=255)
    assert counts.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]
    scores = segmentation_scores(counts)
    # IoU 1/3, 2/3, 0, undefined; accuracy 1/2, 1, 0, undefined.
    assert scores.iou[:3].tolist() == pytest.approx([100 / 3, 200 / 3, 0])
    assert torch.isnan(scores.iou[3])
    assert scores.miou == pytest.approx(100 / 3)
    assert scores.macc == pytest.approx(50)
    assert scores.aacc == pytest.approx(60)
    assert scores.mdice == pytest.approx(100 * (0.5 + 0.8 + 0) / 3)
    assert scores.mfscore == pytest.approx(100 * (0.5 + 0.8) / 2)


def test_classes_of_one_category_count_as_one_by_hand() -> None:
    # Classes 0 and 1 are one category; of their four pixels one is taken for 2, one for no class.
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    predicted = torch.tensor([1, 2, 0, 9, 2, 0])
    counts = confusion_counts(predicted, target, num_classes=3, ignore_label=255)
    grouped = grouped_counts(counts, [0, 0, 1])
    assert grouped.tolist() == [[2, 1, 1], [1, 1, 0]]
    assert grouped.dtype == torch.int64
    # 2 of 4 + 3 - 2 pixels, and 1 of 2 + 2 - 1.
    assert segmentation_scores(grouped).iou.tolist() == pytest.approx([40, 100 / 3])


def test_counts_add_up_over_images_and_workers_in_integers() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (6, 7, 9), generator=generator)
    predicted = torch.randint(0, 5, (6, 7, 9), generator=generator)
    whole = confusion_counts(predicted, target, num_classes=5, ignore_label=255)
    parts = [
        confusion_counts(predicted[i::3], target[i::3], num_classes=5, ignore_label=255)
        for i in range(3)
    ]
    assert whole.dtype == torch.int64
    assert torch.equal(sum(parts[1:], parts[0]), whole)


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be 0\.\.4 or 255, got 1\.\.7"):
        confusion_counts(torch.zeros(2), torch.tensor([1, 7]), num_classes=5, ignore_label=255)


@pytest.mark.parametrize("case", CASES)
def test_golden_scores_equal_the_evaluators(shared_folder: Path, case: str) -> None:
    folder = shared_folder / "reference" / "golden_metrics"
    expected = json.loads((folder / "semseg" / "expected.json").read_text())[case]
    classes = expected["num_classes"]
    counts = torch.zeros(classes, classes + 1, dtype=torch.int64)
    with np.load(folder / expected["files"]) as content:
        for name in sorted(key for key in content if key.startswith("pred_")):
            predicted = torch.from_numpy(content[name].astype(np.int64))
            target = torch.from_numpy(content[name.replace("pred", "gt")].astype(np.int64))
            counts += confusion_counts(predicted, target, num_classes=classes, ignore_label=255)
    hit = counts[:, :classes].diagonal()
    assert hit.tolist() == expected["areas"]["intersect"]
    assert counts.sum(1).tolist() == expected["areas"]["label"]
    assert counts[:, :classes].sum(0).tolist() == expected["areas"]["pred"]
    scores = segmentation_scores(counts)
    found = {
        "mIoU": scores.miou,
        "mAcc": scores.macc,
        "aAcc": scores.aacc,
        "mDice": scores.mdice,
        "mFscore": scores.mfscore,
    }
    assert set(found) <= set(expected["percent"])
    for name, value in found.items():
        assert value == pytest.approx(expected["percent"][name], abs=1e-9), name
        assert round(value, 2) == round(expected["reference_rounded"][name], 2), name
    for name, values in (("IoU", scores.iou), ("Acc", scores.acc)):
        wanted = [np.nan if v is None else 100 * v for v in expected["per_class"][name]]
        np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("case", ["ade20k_real", "coco_stuff_real"])
def test_golden_raw_labels_map_to_the_golden_train_ids(shared_folder: Path, case: str) -> None:
    space = load_label_space("ade20k" if case.startswith("ade") else "coco_stuff164k")
    file = shared_folder / "reference" / "golden_metrics" / "semseg" / f"{case}.npz"
    with np.load(file) as content:
        raws = [key for key in content if key.startswith("raw_")]
        assert raws
        for name in raws:
            mapped = np.vectorize(space.raw_to_train.__getitem__)(content[name])
            np.testing.assert_array_equal(mapped, content[name.replace("raw", "gt")])


def test_golden_logits_are_upsampled_before_the_class_is_taken(shared_folder: Path) -> None:
    file = shared_folder / "reference" / "golden_metrics" / "semseg" / "resize_argmax.npz"
    with np.load(file) as content:
        logits = torch.from_numpy(content["logits"])[None]
        margin = content["margin"]
        found = label_map(logits, margin.shape[-2:])[0].numpy()
        clear = margin > 1e-4
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(found[clear], content["label"][clear])


def test_golden_cityscapes_scores_equal_the_official_evaluator(shared_folder: Path) -> None:
    folder = shared_folder / "reference" / "golden_metrics" / "cityscapes_official"
    expected = json.loads((folder / "expected.json").read_text())
    space = load_label_space("cityscapes")
    table = np.full(256, 255, np.int64)
    table[list(space.raw_to_train)] = list(space.raw_to_train.values())
    counts = torch.zeros(19, 20, dtype=torch.int64)
    for label, prediction in expected["files"]:
        target, found = (
            torch.from_numpy(table[np.array(Image.open(folder / name))])
            for name in (label, prediction)
        )
        counts += confusion_counts(found, target, num_classes=19, ignore_label=255)
    scores = segmentation_scores(counts)
    wanted = [expected["classIoU"][name] for name in space.classes]
    np.testing.assert_allclose(
        scores.iou.numpy() / 100,
        [np.nan if value is None else value for value in wanted],
        rtol=1e-12,
    )
    assert scores.miou / 100 == pytest.approx(expected["meanClassIoU"], rel=1e-12)
    assert space.categories is not None
    names = list(dict.fromkeys(space.categories))
    assert names == [name for name in expected["categoryIoU"] if name != "void"]
    groups = [names.index(name) for name in space.categories]
    categories = segmentation_scores(grouped_counts(counts, groups))
    np.testing.assert_allclose(
        categories.iou.numpy() / 100, [expected["categoryIoU"][name] for name in names], rtol=1e-12
    )
    assert categories.miou / 100 == pytest.approx(expected["meanCategoryIoU"], rel=1e-12)
