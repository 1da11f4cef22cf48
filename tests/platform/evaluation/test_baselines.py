"""A score stands beside those of an answer that ignores the image, and is judged by them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import pack_shapes

from spikeseg.datasets.packed.baselines import read_baselines
from spikeseg.datasets.packed.manifest import read_manifest
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.packed.storage import Storage
from spikeseg.model.metrics.segmentation import confusion_counts, segmentation_scores
from spikeseg.platform.checkpoint.checkpoint import Evaluation
from spikeseg.platform.evaluation.baselines import (
    baseline_metrics,
    describe_baselines,
    is_degenerate,
)
from spikeseg.platform.evaluation.recording import metrics_of_step
from spikeseg.platform.evaluation.scores import summary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture
def dataset(data: Path) -> PackedDataset:
    return PackedDataset.open(data)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(2.0, True), (7.2, True), (18.3, True), (19.3, True), (19.31, False), (50.0, False)],
)
def test_a_score_within_a_point_of_the_best_baseline_or_below_is_degenerate(
    score: float, expected: bool
) -> None:
    known = {"val/baseline_majority": 7.2, "val/baseline_position": 18.3}
    assert is_degenerate({"val/mIoU": score, **known}) is expected
    # The baselines of a split judge that split.
    assert not is_degenerate({"test/mIoU": score, **known}, "test")


def test_nothing_is_said_where_there_is_nothing_to_compare() -> None:
    assert not is_degenerate({"val/mIoU": 1.0})
    assert not is_degenerate({"val/baseline_majority": 7.2})
    assert describe_baselines({"val/mIoU": 1.0}, "val") == ""


def test_the_line_of_an_evaluation_tells_the_baselines() -> None:
    metrics = {
        "val/mIoU": 23.8,
        "val/aAcc": 60.0,
        "energy/mJ": 0.1,
        "snn/firing_rate": 0.2,
        "val/baseline_majority": 7.2,
        "val/baseline_position": 18.3,
    }
    line = summary(Evaluation(5, metrics))
    assert line.startswith("step 5: val mIoU 23.80 (majority 7.2, position 18.3)  aAcc 60.00")
    assert "degenerate" not in line
    assert "position 18.3, degenerate)" in summary(Evaluation(5, {**metrics, "val/mIoU": 18.0}))
    recorded = metrics_of_step(Evaluation(5, {**metrics, "train/loss": 1.0}))
    assert recorded == {name: metrics[name] for name in list(metrics)[:4]}


def test_baselines_are_those_that_the_data_was_packed_with(
    data: Path, dataset: PackedDataset
) -> None:
    for split in ("val", "test"):
        stored = read_baselines(data, split)
        assert stored is not None
        assert baseline_metrics(dataset, split) == {
            f"{split}/baseline_majority": stored.majority,
            f"{split}/baseline_position": stored.position,
        }
    assert baseline_metrics(dataset, "train") == {}


def test_data_of_an_earlier_version_has_the_majority_from_its_counts(
    data: Path, dataset: PackedDataset
) -> None:
    storage = Storage.at(str(data))
    manifest = dataclasses.replace(read_manifest(storage), baselines={})
    old = PackedDataset(storage, manifest, None)
    known = baseline_metrics(old, "val")
    expected = baseline_metrics(dataset, "val")["val/baseline_majority"]
    assert known == {"val/baseline_majority": pytest.approx(expected)}

    # And both are what an evaluation of that answer scores.
    space = dataset.label_space
    counts = torch.zeros(len(space.classes), len(space.classes) + 1, dtype=torch.int64)
    learned = dataset.class_pixels("train")
    for index in range(dataset.splits["val"]):
        label = torch.from_numpy(dataset.row("val", index).label.astype("int64"))[None]
        answer = torch.full_like(label, learned.index(max(learned)))
        counts += confusion_counts(
            answer, label, num_classes=len(space.classes), ignore_label=space.ignore_label
        )
    assert segmentation_scores(counts).miou == pytest.approx(expected)
