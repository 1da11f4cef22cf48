"""Comparisons: labels, spikes and mIoU counted by hand on two images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import settle
from tiny import experiment, pack_shapes
from torch import Tensor

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.model.postprocess import semantic_logits
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.export.metadata import ExportSource
from spikeseg.platform.export.parity import (
    Candidate,
    ParityImages,
    compare,
    generate_images,
    read_split_images,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    data = pack_shapes(tmp_path_factory.mktemp("data") / "shapes")
    config = experiment(data, decoder="fpn")
    torch.manual_seed(0)
    model = settle(build_uncalibrated_segmentor(config.model), torch.randn(4, 3, 32, 32))
    return ExportSource(model, config, PackedDataset.open(data).label_space, "tiny")


def score(source: ExportSource, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return semantic_logits(source.model(images), (32, 32)).numpy()


def test_the_network_itself_changes_nothing(source: ExportSource) -> None:
    images = [(torch.randn(1, 3, 32, 32), None) for _ in range(2)]
    report = compare(
        source,
        Candidate(lambda x: {"scores": score(source, torch.from_numpy(x))}, {}),
        ParityImages(images, "noise"),
    )
    assert report["labels_equal"] == 1 and report["images_with_equal_labels"] == 2
    assert report["spikes_compared"] == 0 and "miou" not in report


def test_changes_are_counted(source: ExportSource) -> None:
    images = [torch.randn(1, 3, 32, 32) for _ in range(2)]
    truth = [torch.from_numpy(score(source, x)).argmax(1) for x in images]
    name, neuron = "backbone.ConvBlock1_1.0.spike1", None
    neuron = source.model.get_submodule(name)
    spikes: list[np.ndarray] = []
    hook = neuron.register_forward_hook(
        lambda module, inputs, output: spikes.append((output * module.divisor).numpy())
    )
    calls: list[int] = []

    def run(x: np.ndarray) -> dict[str, Any]:
        scores = score(source, torch.from_numpy(x)).copy()
        counts = spikes[-1][0].copy()
        if not calls:
            # Of the first image four pixels and one spike differ.
            scores[0, :, :2, :2] = -scores[0, :, :2, :2]
            counts.flat[0] += 1
        calls.append(1)
        return {"scores": scores, "counts": counts}

    batches = list(zip(images, truth, strict=True))
    report = compare(
        source, Candidate(run, {name: "counts"}), ParityImages(batches, "noise"), spike_images=2
    )
    hook.remove()
    assert report["labels_equal"] == pytest.approx(1 - 4 / 2048)
    assert report["images_with_equal_labels"] == 1
    assert report["spikes_changed"] == 1
    assert report["spikes_compared"] == 2 * spikes[0][0].size
    assert report["miou"]["trained"] == 100 > report["miou"]["exported"]


def test_rows_are_taken_evenly_and_of_the_size_that_fits(source: ExportSource) -> None:
    dataset = PackedDataset.open(Path(source.config.data.path))
    transform = source.config.data.transform
    for count, expected in ((2, 2), (None, 5), (99, 5)):
        images = read_split_images(dataset, transform, count, None)
        assert len(list(images.batches)) == expected
    assert not list(read_split_images(dataset, transform, None, [48, 48]).batches)
    made = generate_images(transform, (48, 64))
    assert made.origin == "generated pictures"
    assert {tuple(x.shape) for x, target in made.batches if target is None} == {(1, 3, 48, 64)}
