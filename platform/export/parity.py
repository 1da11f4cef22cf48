"""How an exported file's answers differ from the trained network's: spikes, labels, mIoU."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.layouts.shapes import Shapes, ShapesOptions
from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import Row
from ...datasets.transforms import TransformConfig, test_transform
from ...model.metrics.segmentation import confusion_counts, segmentation_scores
from ...model.neuron.kinds import find_neurons as find_model_neurons
from ...model.postprocess import label_map, semantic_logits
from ..config.errors import ConfigError
from ..loading.evaluation_loader import read_evaluation_batches
from .metadata import ExportSource
from .open_exported import Run

# Pictures that are generated where there is no data; of more than one size where sizes are free.
_GENERATED = 4


class ParityImages(NamedTuple):
    """Images to compare on.

    Attributes:
        batches: Normalized images (B, 3, h, w), and label maps (B, H, W) or None.
        origin: Where they come from, in words.
    """

    batches: Iterable[tuple[Tensor, Tensor | None]]
    origin: str


class Candidate(NamedTuple):
    """A form of the network that is compared.

    Attributes:
        run: Gives the outputs of a batch by name, `scores` among them.
        neurons: Neuron's path in the segmentor -> output that has its spike counts.
    """

    run: Run
    neurons: dict[str, str]


def read_split_images(
    dataset: PackedDataset,
    transform: TransformConfig,
    count: int | None,
    size: list[int] | None,
    *,
    split: str = "val",
) -> ParityImages:
    """Images of a split, one by one.

    Args:
        dataset: The packed data.
        transform: Test-time resizing and normalization.
        count: How many rows; all if not given.
        size: Height and width that an input must have; rows of others are left out.
        split: Name of the split.

    Raises:
        ConfigError: Where the split has no rows.
    """
    if not dataset.splits.get(split):
        raise ConfigError(
            f"split {split!r} has no rows in {dataset.path}; there are: {', '.join(dataset.splits)}"
        )
    total = dataset.splits[split]
    count = total if count is None else min(count, total)
    # Evenly over the split, since its first rows may be one scene.
    rows = sorted({index * total // count for index in range(count)})

    def read() -> Iterator[tuple[Tensor, Tensor | None]]:
        for batch in read_evaluation_batches(dataset, split, transform, rows, 1):
            if size is None or list(batch.images.shape[2:]) == size:
                yield batch.images, batch.targets

    return ParityImages(read(), f"split {split} of {dataset.name}")


def generate_images(transform: TransformConfig, size: tuple[int, int]) -> ParityImages:
    """Generated pictures, where the run's data is not at hand; they have no labels."""
    made = Shapes(ShapesOptions(size=size, train=_GENERATED))
    images = [made.read(raw).row.image for raw in made.rows(Path(), partial=False)]
    inputs = [test_transform(transform, Row("", x, x[..., 0])) for x in images[:_GENERATED]]
    return ParityImages([(torch.from_numpy(x)[None], None) for x in inputs], "generated pictures")


@torch.inference_mode()
def compare(
    source: ExportSource, candidate: Candidate, images: ParityImages, *, spike_images: int = 4
) -> dict[str, Any]:
    """Compare a form with the trained network on images.

    Args:
        source: The trained network.
        candidate: The other form.
        images: What to compare on.
        spike_images: Spikes are counted on so many of the images.

    Returns:
        Entry `parity` of the metadata.
    """
    ignore, classes = source.space.ignore_label, len(source.space.classes)
    counts = torch.zeros(2, classes, classes + 1, dtype=torch.int64)
    pixels = equal = whole = number = changed = compared = 0
    largest, labelled = 0.0, False
    for inputs, targets in images.batches:
        size = (inputs.shape[2], inputs.shape[3])
        with _SpikeCounts(source.model) as spikes:
            scores = semantic_logits(source.model(inputs), size)
        outputs = candidate.run(inputs.numpy())
        if number < spike_images:
            for path, output in candidate.neurons.items():
                differs, values = _count_changes(spikes.counts[path], outputs[output])
                changed, compared = changed + differs, compared + values
        others = torch.from_numpy(outputs["scores"])
        largest = max(largest, float((scores - others).abs().max()))
        target_size = size if targets is None else (targets.shape[1], targets.shape[2])
        maps = [label_map(logits, target_size) for logits in (scores, others)]
        same = int((maps[0] == maps[1]).sum())
        pixels, equal, number = pixels + maps[0].numel(), equal + same, number + 1
        whole += same == maps[0].numel()
        if targets is not None:
            labelled = True
            for index, predicted in enumerate(maps):
                counts[index] += confusion_counts(
                    predicted, targets, num_classes=classes, ignore_label=ignore
                )
    report: dict[str, Any] = {
        "compared_with": "trained form, torch, float32",
        "images": number,
        "images_from": images.origin,
        "labels_equal": equal / max(1, pixels),
        "images_with_equal_labels": whole,
        "largest_score_difference": largest,
        "spikes_compared": compared,
        "spikes_changed": changed,
    }
    if labelled:
        trained, exported = (segmentation_scores(item).miou for item in counts)
        report["miou"] = {
            "trained": round(trained, 4),
            "exported": round(exported, 4),
            "change": round(exported - trained, 4),
        }
    return report


def _count_changes(expected: Tensor, counts: np.ndarray) -> tuple[int, int]:
    """Spike counts that differ, and how many there are; of repeated steps the first is compared."""
    other = torch.from_numpy(counts.astype(np.float32)).flatten()
    values = expected.flatten()[: other.numel()]
    return int((values != other).sum()), other.numel()


class _SpikeCounts:
    """Spike counts of every neuron of a model in one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.counts: dict[str, Tensor] = {}
        self._hooks = [
            neuron.register_forward_hook(
                lambda module, inputs, output, name=name: self.counts.update(
                    {name: torch.round(output * module.divisor)}
                )
            )
            for name, neuron in find_model_neurons(model)
        ]

    def __enter__(self) -> "_SpikeCounts":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
