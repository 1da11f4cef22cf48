"""What the manifest knows to make a training senseless is refused before it starts."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.recipes import Resolved, override
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.loading.data_checks import check_data
from spikeseg.platform.train.preparation import check_parts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("checks") / "data")


def changed(data: Path, **values: Any) -> ExperimentConfig:
    """The tiny experiment with dotted fields, __ for each dot."""
    keys = {key.replace("__", "."): value for key, value in values.items()}
    return override(Resolved(experiment(data), {}), keys, "test").config


def with_pixels(data: Path, **pixels: list[int]) -> PackedDataset:
    """The data as if its manifest counted other pixels of some splits."""
    dataset = PackedDataset.open(data)
    dataset._class_pixels = {**dataset._class_pixels, **pixels}
    return dataset


def test_data_that_is_right_passes(data: Path) -> None:
    check_data(experiment(data), PackedDataset.open(data))
    check_parts(experiment(data))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_that_is_used_has_labelled_pixels(data: Path, split: str) -> None:
    empty = with_pixels(data, **{split: [0] * 9})
    with pytest.raises(ConfigError, match=rf"{data}: split '{split}' has no labelled pixel"):
        check_data(experiment(data), empty)


def test_a_test_split_that_is_not_scored_may_be_empty(data: Path) -> None:
    check_data(experiment(data, test=False), with_pixels(data, test=[0] * 9))


def test_one_class_is_nothing_to_tell_apart(data: Path) -> None:
    one = with_pixels(data, train=[0, 0, 90, *[0] * 6])
    name = one.label_space.classes[2]
    with pytest.raises(ConfigError, match=rf"pixels of one class only \({name}\) of the model's 9"):
        check_data(experiment(data), one)


def test_what_is_scored_has_a_class_that_is_learned(data: Path) -> None:
    apart = with_pixels(data, train=[9, 9, *[0] * 7], val=[0, 0, 5, 5, *[0] * 5])
    with pytest.raises(ConfigError, match="split 'val' has none of the classes of split 'train'"):
        check_data(experiment(data), apart)
    check_data(experiment(data), with_pixels(data, train=[9, 9, 0, *[1] * 6], val=[1, *[0] * 8]))


@pytest.mark.parametrize("key", ["data__transform__ignore_label", "loss__ignore_label"])
@pytest.mark.parametrize(("value", "means"), [(0, ", which is class background here"), (254, "")])
def test_padding_loss_and_scores_ignore_one_label(
    data: Path, key: str, value: int, means: str
) -> None:
    config = changed(data, **{key: value})
    with pytest.raises(ConfigError) as refused:
        check_data(config, PackedDataset.open(data))
    dotted = key.replace("__", ".")
    assert str(refused.value).startswith(f"{dotted}: {value}{means}, but pixels of {data} that")
    assert "have 255" in str(refused.value)


@pytest.mark.parametrize(
    ("values", "fine"),
    [
        ({"data__transform__crop": [16, 16]}, False),
        ({"data__transform__crop": [16, 17]}, True),
        ({"data__transform__crop": [16, 16], "trainer__micro_batch_size": 2}, True),
        ({"data__transform__crop": [16, 16], "model__neuron__timesteps": 2}, True),
        (
            {
                "data__phases": [{"until": 3, "transform": {"crop": [16, 16]}}],
            },
            False,
        ),
    ],
    ids=["one value", "two places", "two images", "two steps", "in a phase"],
)
def test_batch_norm_gets_more_than_one_value(
    data: Path, values: dict[str, Any], fine: bool
) -> None:
    config = changed(data, **values)
    if fine:
        check_data(config, PackedDataset.open(data))
        return
    with pytest.raises(ConfigError, match=r"trainer.micro_batch_size: 1 with data\..*crop 16 x 16"):
        check_data(config, PackedDataset.open(data))


def test_images_that_enter_whole_have_the_networks_stride(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PackedDataset.open(data)
    small = {"id": "tiny one", "height": 12, "width": 40}
    monkeypatch.setattr(dataset, "columns", lambda split, names: iter([small]))
    with pytest.raises(ConfigError, match=r"split 'val': row 'tiny one' is 12 x 40 pixels"):
        check_data(experiment(data), dataset)
    check_data(changed(data, data__transform__test_box=[32, 32]), dataset)


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    from spikeseg.platform.checkpoint.checkpoint import Evaluation, rank_score

    history = [
        Evaluation(step, {"val/mIoU": value})
        for step, value in ((1, float("nan")), (2, 3.0), (3, float("nan")), (4, 2.0))
    ]
    for order in (history, history[::-1]):
        assert max(order, key=lambda item: rank_score(item.metrics)).step == 2
    assert rank_score({"val/mIoU": float("inf")}) == -np.inf
    assert dataclasses.is_dataclass(history[0])
