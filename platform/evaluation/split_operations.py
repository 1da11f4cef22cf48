"""Operations of a whole split, summed exactly over any number of workers."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from ...model.accounting.energy import EnergyRule, Form, price_layers
from ...model.accounting.operations import LayerOperations, OperationMeter, describe_layers
from ...model.accounting.product_counts import Record
from ..cluster.worker_group import WorkerGroup
from ..loading.evaluation_loader import read_evaluation_batches
from .scores import EvaluatedModel

_COUNTED = ("macs", "inputs", "outputs", "spiking", "other_spiking")


class SplitOperations(NamedTuple):
    """What a split's images cost.

    Attributes:
        layers: Of one image, mean over the split.
        images: (rows, layers, 5) sums of each image, in the order of the rows; `SUMS`.
        records: What does not depend on spikes, of all images.
    """

    layers: list[LayerOperations]
    images: Tensor
    records: list[Record]

    def price_images(self, rule: EnergyRule, form: Form = "unrolled") -> Tensor:
        """Millijoule of each image, (rows,) float64."""
        number = len(self.images)
        prices = [
            price_layers(describe_layers(self.records, sums, number), rule, form).total_mj
            for sums in self.images
        ]
        return torch.tensor(prices, dtype=torch.float64)


def collect_operations(meter: OperationMeter, group: WorkerGroup, rows: int) -> SplitOperations:
    """Join what the workers counted, each on every n-th row of a split.

    Args:
        meter: This worker's, which has seen the rows rank, rank + size, … in order.
        group: The workers.
        rows: Rows of the split, at least one for each worker.

    Returns:
        The same on every worker; whole numbers, so that sums do not depend on their order.
    """
    keys, table = meter.sums()
    images = torch.zeros(rows, len(keys), table.shape[-1], dtype=torch.float64)
    images[group.rank :: group.size] = table
    records = meter.records()
    counts = torch.tensor([[getattr(r, n) for n in _COUNTED] for r in records], dtype=torch.int64)
    group.sum(images)
    group.sum(counts)
    joined = [
        dataclasses.replace(record, **dict(zip(_COUNTED, numbers, strict=True)))
        for record, numbers in zip(records, counts.tolist(), strict=True)
    ]
    layers = describe_layers(joined, images.sum(0) / rows, rows)
    return SplitOperations(layers, images, joined)


def count_split_operations(
    evaluated: EvaluatedModel, split: str, *, group: WorkerGroup, most: int | None = None
) -> SplitOperations:
    """Run a network over a split and count every operation.

    Args:
        evaluated: The model and its data.
        split: Name of the split.
        group: The workers.
        most: Rows from the start of the split; None takes all.
    """
    model, dataset, config, device = evaluated
    rows = dataset.splits[split] if most is None else min(most, dataset.splits[split])
    share = range(group.rank, rows, group.size)
    batch = config.data.evaluation_batch
    was_training = model.training
    model.eval()
    with torch.inference_mode(), OperationMeter(model) as meter:
        for item in read_evaluation_batches(dataset, split, config.data.transform, share, batch):
            model(item.images.to(device))
    model.train(was_training)
    return collect_operations(meter, group, rows)
