"""Image-blind baselines: scored as the evaluator scores, equal however the data was packed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from raw_layouts import LAYOUTS

from spikeseg.datasets.layouts.camvid import CamVid
from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.baselines import (
    Baselines,
    compute_baselines,
    count_packed_labels,
    read_baselines,
)
from spikeseg.datasets.packed.label_counts import GRID, LabelCounts
from spikeseg.datasets.packed.manifest import read_manifest
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.plan import plan_pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError
from spikeseg.model.metrics.segmentation import confusion_counts, segmentation_scores
from spikeseg.platform.loading import pack_on_ray as packing

OPTIONS = ShapesOptions(size=(45, 70), train=9, val=5, test=3, seed=2)
IGNORED = 255


def counted(labels: list[np.ndarray], classes: int) -> LabelCounts:
    counts = LabelCounts(classes)
    for label in labels:
        counts.add_label(label)
    return counts


def predict_position(learned: LabelCounts, size: tuple[int, int]) -> np.ndarray:
    """The position baseline's label map of one image, drawn pixel by pixel."""
    majority = int(learned.pixels.argmax())
    drawn = np.zeros(size, np.int64)
    for y in range(size[0]):
        for x in range(size[1]):
            cell = learned.cells[GRID * y // size[0], GRID * x // size[1]]
            drawn[y, x] = cell.argmax() if cell.any() else majority
    return drawn


def score(predicted: list[np.ndarray], labels: list[np.ndarray], classes: int) -> float:
    """val/mIoU of these predictions, by the evaluator's own counts and scores."""
    counts = torch.zeros(classes, classes + 1, dtype=torch.int64)
    for map_, label in zip(predicted, labels, strict=True):
        counts += confusion_counts(
            torch.from_numpy(map_),
            torch.from_numpy(label.astype(np.int64)),
            num_classes=classes,
            ignore_label=IGNORED,
        )
    return segmentation_scores(counts).miou


def test_two_by_two_pixels_by_hand() -> None:
    # Class 0 is on top and class 1 below in training; class 1 covers three quarters of val.
    train = counted([np.array([[0, 0], [1, 1]], np.uint8), np.array([[0, 0]], np.uint8)], 3)
    val = counted([np.array([[0, 1], [1, 1]], np.uint8)], 3)
    stored = compute_baselines({"train": train, "val": val}, ("sky", "road", "car"))["val"]
    # Majority (sky): IoU 1/4 and 0/3; position: sky 1/2, road 2/3; nobody speaks of cars.
    assert stored["majority_class"] == "sky"
    assert stored["majority"] == pytest.approx(12.5)
    assert stored["position"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("size", [(45, 70), (7, 9), (32, 64), (1, 1), (100, 33)], ids=str)
def test_scores_are_the_evaluators(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    classes = 6

    def draw(most: int, ignored: float) -> np.ndarray:
        label = generator.integers(0, most, size).astype(np.uint8)
        label[: size[0] // 2] = generator.integers(0, 2)
        label[generator.random(size) < ignored] = IGNORED
        return label

    # Class 5 occurs nowhere, class 4 in val alone, some cells of training are all ignored.
    train = [draw(4, 0.7) for _ in range(3)]
    val = [draw(5, 0.3) for _ in range(4)] + [np.full(size, IGNORED, np.uint8)]
    val[0][0, 0] = 4
    train[0][0, 0] = 1
    learned = counted(train, classes)
    stored = compute_baselines({"train": learned, "val": counted(val, classes)}, tuple("abcdef"))[
        "val"
    ]
    majority = np.full(size, int(learned.pixels.argmax()), np.int64)
    assert stored["majority"] == pytest.approx(score([majority] * 5, val, classes), abs=1e-9)
    drawn = predict_position(learned, size)
    assert stored["position"] == pytest.approx(score([drawn] * 5, val, classes), abs=1e-9)


def test_packed_data_says_what_blind_predictors_score(tmp_path: Path) -> None:
    pack("shapes", Shapes(OPTIONS), Path(), tmp_path, rows_per_shard=4)
    dataset = PackedDataset.open(tmp_path)
    labels = {
        split: [dataset.row(split, i).label for i in range(rows)]
        for split, rows in dataset.splits.items()
    }
    learned = counted(labels["train"], 9)
    drawn = predict_position(learned, OPTIONS.size)
    for split in ("val", "test"):
        baselines = read_baselines(tmp_path, split)
        assert baselines is not None
        assert baselines == read_baselines(dataset, split)
        assert baselines == read_baselines(read_manifest(Storage.at(tmp_path)), split)
        expected = score([drawn] * len(labels[split]), labels[split], 9)
        assert baselines.position == pytest.approx(expected, abs=1e-9)
        assert baselines.majority_class == "background"
        nothing = [np.zeros(OPTIONS.size, np.int64)] * len(labels[split])
        expected = score(nothing, labels[split], 9)
        assert baselines.majority == pytest.approx(expected, abs=1e-9)
    assert read_baselines(tmp_path, "train") is None
    with pytest.raises(DataError, match="no split 'dev'; there are: train, val, test"):
        read_baselines(tmp_path, "dev")


def test_any_number_of_processes_counts_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_SMALL", 0)
    known = set[Baselines | None]()
    for count, rows in ((1, 3), (2, 4)):
        plan = plan_pack("shapes", Shapes(OPTIONS), Path(), rows_per_shard=rows)
        packing.pack_dataset(plan, tmp_path / str(count), where="local", workers=count)
        known.add(read_baselines(tmp_path / str(count), "val"))
    assert len(known) == 1
    assert None not in known


def test_labels_alone_give_the_counts_of_the_packing(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    pack("camvid", CamVid(), layout.source, tmp_path / "packed", rows_per_shard=1, partial=True)
    dataset = PackedDataset.open(tmp_path / "packed")
    counts = {split: count_packed_labels(dataset, split) for split in dataset.splits}
    for split, part in counts.items():
        assert part.pixels.tolist() == dataset.class_pixels(split)
        stored = compute_baselines(counts, dataset.label_space.classes).get(split)
        assert read_baselines(dataset, split) == (None if stored is None else Baselines(**stored))


def test_without_training_rows_there_is_nothing_to_learn_from() -> None:
    some = counted([np.zeros((4, 4), np.uint8)], 2)
    ignored = counted([np.full((4, 4), IGNORED, np.uint8)], 2)
    assert compute_baselines({"val": some}, ("a", "b")) == {}
    assert compute_baselines({"train": ignored, "val": some}, ("a", "b")) == {}
    assert compute_baselines({"train": some, "val": ignored}, ("a", "b")) == {}


def test_counts_survive_their_text_and_damage_is_named() -> None:
    counts = counted([np.arange(12, dtype=np.uint8).reshape(3, 4)], 12)
    again = LabelCounts.from_text(counts.to_text(), 12)
    assert (again.cells == counts.cells).all()
    assert (again.rows == counts.rows).all()
    assert again.largest == 12
    with pytest.raises(ValueError, match="label counts have"):
        LabelCounts.from_text(counts.to_text(), 11)
    with pytest.raises(ValueError, match="label counts are damaged"):
        LabelCounts.from_text("0" * 40, 12)
