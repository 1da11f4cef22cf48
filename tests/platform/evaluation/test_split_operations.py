"""Operations of a split are sums of whole numbers, over any number of workers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import small
from tiny import pack_shapes
from torch import Tensor

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.model.accounting.energy import PAPER_RULE, price_layers
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.evaluation.scores import EvaluatedModel
from spikeseg.platform.evaluation.split_operations import count_split_operations
from spikeseg.platform.train.state import TrainingState


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedModel:
    data: Path = pack_shapes(tmp_path_factory.mktemp("shapes") / "data")
    config = small(data)
    dataset, device = PackedDataset.open(data), torch.device("cpu")
    model = TrainingState(config, dataset, workers=1, device=device).model
    return EvaluatedModel(model, dataset, config, device)


class _Listening:
    """One of two workers that notes what it would add to the other's."""

    size = 2

    def __init__(self, rank: int, others: list[Tensor] | None = None) -> None:
        self.rank = rank
        self.noted: list[Tensor] = []
        self._others = others

    def sum(self, tensor: Tensor) -> None:
        self.noted.append(tensor.clone())
        if self._others is not None:
            tensor += self._others[len(self.noted) - 1]


def test_two_workers_count_what_one_does(evaluated: EvaluatedModel) -> None:
    alone = count_split_operations(evaluated, "val", group=OneWorker())
    first = _Listening(0)
    count_split_operations(evaluated, "val", group=_as_group(first))
    second = _Listening(1, first.noted)
    together = count_split_operations(evaluated, "val", group=_as_group(second))
    assert torch.equal(together.images, alone.images)
    assert together.layers == alone.layers


def _as_group(group: Any) -> Any:
    return group


def test_images_average_to_the_network(evaluated: EvaluatedModel) -> None:
    training = evaluated.model.training
    counted = count_split_operations(evaluated, "val", group=OneWorker(), most=4)
    assert evaluated.model.training is training
    prices = counted.price_images(PAPER_RULE)
    assert prices.shape == (4,)
    assert prices.std() > 0
    whole = price_layers(counted.layers, PAPER_RULE).total_mj
    assert float(prices.mean()) == pytest.approx(whole)
    for most in (1, 4):
        one = count_split_operations(evaluated, "val", group=OneWorker(), most=most)
        assert torch.equal(one.images, counted.images[:most])
