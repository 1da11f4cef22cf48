"""What is reported of a network is what was counted, on the rows that were meant."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import small
from tiny import pack_shapes
from torch import nn

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import load_label_space
from spikeseg.model.accounting.firing import FiringRow
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.evaluation import scores
from spikeseg.platform.evaluation.scores import (
    EvaluatedModel,
    SplitCounts,
    class_table,
    health_metrics,
    measure_energy,
    measure_energy_and_health,
    predict_labels,
    score_split,
    sheet_rows,
)
from spikeseg.platform.train.state import TrainingState


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(scope="module")
def evaluated(data: Path) -> EvaluatedModel:
    config = small(data, energy_images=2)
    dataset, device = PackedDataset.open(data), torch.device("cpu")
    model = TrainingState(config, dataset, workers=1, device=device).model
    return EvaluatedModel(model, dataset, config, device)


def row(rate: float, dead: float, saturated: float) -> FiringRow:
    return FiringRow("layer", rate, dead, saturated, 4)


def test_health_is_the_share_of_silent_layers_and_the_worst_layers() -> None:
    rows = [row(0.0, 1.0, 0.0), row(0.5, 0.25, 0.125), row(0.0, 1.0, 0.0), row(4.0, 0.0, 0.75)]
    assert health_metrics(rows) == {
        "snn/dead_layers": 0.5,
        "snn/dead_fraction": 1.0,
        "snn/saturated_fraction": 0.75,
    }
    assert health_metrics(rows[1:2])["snn/dead_fraction"] == 0.25
    assert health_metrics(rows[:1])["snn/dead_layers"] == 1.0
    assert set(health_metrics([]).values()) == {0.0}


def test_a_class_that_never_occurs_has_no_score_and_others_have_theirs() -> None:
    counts = torch.zeros(11, 12, dtype=torch.int64)
    counts[0, 0], counts[0, 1], counts[1, 1] = 3, 1, 2
    table = class_table(load_label_space("camvid"), SplitCounts(counts, None))
    assert [(line["IoU"], line["Acc"]) for line in table[:3]] == [
        (75.0, 75.0),
        (66.6667, 100.0),
        (None, None),
    ]


def test_labels_are_predicted_at_the_images_own_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def logits(prediction: Any, size: tuple[int, int]) -> torch.Tensor:
        sizes.append(size)
        return prediction

    monkeypatch.setattr(scores, "semantic_logits", logits)
    labels = predict_labels(nn.Identity(), torch.rand(1, 3, 32, 48), (16, 24))
    assert sizes == [(32, 48)] and labels.shape == (1, 16, 24)


@pytest.mark.parametrize("training", [True, False], ids=["in training", "in evaluation"])
def test_every_measurement_is_in_eval_mode_and_puts_the_mode_back(
    evaluated: EvaluatedModel, training: bool
) -> None:
    modes: list[bool] = []
    model = evaluated.model.train(training)
    handle = model.register_forward_hook(lambda *_: modes.append(model.training))
    batches: list[int] = []
    score_split(evaluated, "val", group=OneWorker(), on_batch=lambda: batches.append(1))
    assert model.training is training
    measure_energy(evaluated)
    assert model.training is training
    sheet_rows(evaluated, "val", [0, 2])
    assert model.training is training
    handle.remove()
    assert modes and not any(modes)
    size = evaluated.config.data.evaluation_batch
    assert len(batches) == -(-evaluated.dataset.splits["val"] // size)


def test_energy_is_measured_on_the_first_images_that_were_asked_for(
    evaluated: EvaluatedModel,
) -> None:
    seen: list[int] = []
    handle = evaluated.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    measure_energy(evaluated)
    many = evaluated.config.trainer.model_copy(update={"energy_images": 100})
    measure_energy(evaluated._replace(config=evaluated.config.model_copy(update={"trainer": many})))
    handle.remove()
    assert seen == [2, evaluated.dataset.splits["val"]]


def test_the_firing_rate_is_the_mean_over_layers_behind_spikes(evaluated: EvaluatedModel) -> None:
    report, firing, metrics = measure_energy_and_health(evaluated)
    layers = [line for line in report.rows if line.kind in ("convolution", "linear")]
    rates = [line.rate for line in layers if line.spiking_input]
    assert len(rates) > 1
    assert metrics["snn/firing_rate"] == pytest.approx(sum(rates) / len(rates))
    assert metrics["energy/mJ"] == pytest.approx(sum(line.mj for line in report.rows))
    earlier = sum(4.6 * x.macs if not x.spiking_input else 0.9 * x.shortcut for x in layers)
    assert metrics["energy/mJ.earlier"] == pytest.approx(earlier * 1e-9)
    assert metrics["energy/mJ.earlier"] < metrics["energy/mJ"]
    assert metrics["snn/dead_fraction"] == max(line.dead for line in firing)


def test_a_contact_sheet_has_the_rows_that_were_asked_for(evaluated: EvaluatedModel) -> None:
    rows = sheet_rows(evaluated, "val", [3, 1])
    assert [name for name, *_ in rows] == [evaluated.dataset.row("val", n).id for n in (3, 1)]
    for index, (_, image, truth, predicted) in zip((3, 1), rows, strict=True):
        kept = evaluated.dataset.row("val", index)
        assert (image == kept.image).all() and (truth == kept.label).all()
        assert predicted.shape == truth.shape
