"""Panoptic training: a mask per segment, scores exact over workers, refused where nothing fits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crash import Group, Kill
from pydantic import ValidationError
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.segment_targets import number_segments
from spikeseg.model.loss.matcher import SEGMENT_STRIDE, split_targets
from spikeseg.model.postprocess import PanopticMap
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.evaluation.panoptic import PanopticTotal, class_scores, panoptic_means
from spikeseg.platform.loading.evaluation_loader import read_evaluation_batches
from spikeseg.platform.loading.training_loader import TrainingRows
from spikeseg.platform.train.preparation import open_data

STEPS = 5


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    started = Group()
    yield started
    started.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def final(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def history(run: Path) -> list[dict[str, Any]]:
    text = (run / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text()
    return json.loads(text)["history"]


def panoptic(data: Path, **trainer: Any) -> ExperimentConfig:
    given = {"max_steps": STEPS, "micro_batches": 4, "evaluate_every": 2}
    config = experiment(data, **{**given, **trainer})
    return config.model_copy(update={"data": config.data.model_copy(update={"task": "panoptic"})})


def rows(data: Path, config: ExperimentConfig) -> TrainingRows:
    dataset = PackedDataset.open(data)
    return TrainingRows.from_config(dataset, config, size=3, micro_batches=2, pin_memory=False)


def test_targets_are_those_of_the_semantic_task_with_segments_told_apart(data: Path) -> None:
    told_apart = rows(data, panoptic(data)).read(4, 1)
    classes = rows(data, experiment(data)).read(4, 1)
    assert torch.equal(told_apart.images, classes.images)
    assert torch.equal(told_apart.targets % SEGMENT_STRIDE, classes.targets)
    dataset = PackedDataset.open(data)
    objects = {row.id: len(row.segments) for row in (dataset.row("train", i) for i in range(11))}
    for name, target in zip(told_apart.ids, told_apart.targets, strict=True):
        found = split_targets(target, ignore_label=255)
        # Background is one more mask; an object may be hidden, none is invented.
        assert 1 < len(found.labels) <= objects[name] + 1
        assert found.masks.sum(0).eq(1).all()


def test_targets_depend_on_nothing_but_seed_and_position(data: Path) -> None:
    config = panoptic(data)
    ahead = [batch for step in rows(data, config).steps(0, 5, range(2)) for batch in step]
    for number in (7, 2):
        again = rows(data, config).read(number // 2, number % 2)
        assert torch.equal(ahead[number].targets, again.targets)


def test_a_perfect_prediction_scores_100_and_a_merged_one_loses_both(data: Path) -> None:
    dataset = PackedDataset.open(data)
    config = panoptic(data)
    batch = next(
        read_evaluation_batches(dataset, "val", config.data.transform, range(5), 5, segments=True)
    )

    def pq(found: list[PanopticMap]) -> dict[str, float]:
        total = PanopticTotal(9, torch.device("cpu"))
        total.add(found, batch.segments)
        scores = class_scores(total.over(OneWorker()), dataset.label_space)
        return panoptic_means(scores)

    perfect = [
        PanopticMap(torch.from_numpy(s.numbers), s.classes.tolist(), [1.0] * len(s.classes))
        for s in batch.segments
    ]
    assert set(pq(perfect).values()) == {100.0}
    assert set(pq(perfect)) == {
        f"{name}{part}" for name in ("PQ", "SQ", "RQ") for part in ("", "_things", "_stuff")
    }
    background = [PanopticMap(torch.ones_like(found.segments), [0], [1.0]) for found in perfect]
    assert pq(background)["PQ_things"] == 0
    assert 0 < pq(background)["PQ_stuff"] < 100


def test_sums_of_iou_do_not_depend_on_the_order_of_images(data: Path) -> None:
    dataset = PackedDataset.open(data)
    labelled = [number_segments(dataset.row("train", i), 255) for i in range(11)]
    # Moved by a pixel or two: matches of every IoU.
    found = [
        PanopticMap(
            torch.from_numpy(np.roll(s.numbers, 1 + i % 2, axis=i % 2)), s.classes.tolist(), []
        )
        for i, s in enumerate(labelled)
    ]

    def summed(order: list[int]) -> torch.Tensor:
        total = PanopticTotal(9, torch.device("cpu"))
        for index in order:
            total.add([found[index]], [labelled[index]])
        return total.over(OneWorker()).iou

    forward = summed(list(range(11)))
    assert 0 < forward.sum() < 30
    for seed in range(20):
        assert torch.equal(summed(np.random.default_rng(seed).permutation(11).tolist()), forward)


@pytest.mark.slow
def test_a_panoptic_training_is_byte_equal_for_two_workers_and_after_a_kill(
    group: Group,
    data: Path,
    tmp_path: Path,
) -> None:
    text = panoptic(data, reduction="strict", checkpoint_every=1).model_dump_json()
    assert group.attempt(tmp_path / "alone", text, 0)[0] == [0]
    codes, _ = group.attempt(tmp_path / "run", text, 2, Kill(0, "reduce", 3, whole=True))
    # The other worker may meet the closed connection before it is killed too.
    assert codes[0] == -9 and all(codes)
    assert group.attempt(tmp_path / "run", text, 2)[0] == [0] * 2
    assert final(tmp_path / "run") == final(tmp_path / "alone")
    assert history(tmp_path / "run") == history(tmp_path / "alone")
    assert all("val/PQ" in item["metrics"] for item in history(tmp_path / "run"))
    semantic = panoptic(data, reduction="strict", checkpoint_every=1)
    semantic = semantic.model_copy(
        update={"data": semantic.data.model_copy(update={"task": "semantic"})}
    )
    assert group.attempt(tmp_path / "semantic", semantic.model_dump_json(), 0)[0] == [0]
    assert final(tmp_path / "semantic") != final(tmp_path / "alone"), "it is another training"


def test_data_without_segments_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedDataset, "has_segments", False)
    with pytest.raises(ConfigError, match=r"data\.task: panoptic, but .* without segments"):
        open_data(panoptic(data))


def test_a_decoder_without_queries_is_refused(data: Path) -> None:
    tree = experiment(data, decoder="fpn").model_dump()
    tree["data"]["task"] = "panoptic"
    with pytest.raises(ValidationError, match=r"data\.task is panoptic, which needs"):
        ExperimentConfig.model_validate_json(json.dumps(tree))


def test_matching_by_class_is_refused_since_segments_of_a_class_share_no_query(data: Path) -> None:
    tree = experiment(data).model_dump()
    tree["data"]["task"] = "panoptic"
    tree["model"]["query"] |= {"matching": "class", "num_queries": 9}
    with pytest.raises(ValidationError, match=r"needs model\.query\.matching hungarian, got class"):
        ExperimentConfig.model_validate_json(json.dumps(tree))
    tree["data"]["task"] = "semantic"
    assert ExperimentConfig.model_validate_json(json.dumps(tree)).model.query.matching == "class"
