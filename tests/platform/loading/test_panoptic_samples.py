"""Real panoptic files from the raw folder to what training sees: pack, inspect, read, target."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from command import spikeseg
from PIL import Image

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.transforms import TransformConfig
from spikeseg.model.loss.matcher import SEGMENT_STRIDE
from spikeseg.platform.loading.evaluation_loader import read_evaluation_batches
from spikeseg.platform.loading.training_loader import LoaderOptions, TrainingRows

Capture = pytest.CaptureFixture[str]

# An image as it is: nothing is resized, flipped or coloured, and the crop is as large as it.
AS_IT_IS = {"flip": 0.0, "photometric": False, "max_category_ratio": 1.0}


class Raw(NamedTuple):
    """One image, read here without the reader that is tested.

    Attributes:
        split: Its split.
        image: (H, W, 3) uint8.
        ids: (H, W) segment ids, 0 for none.
        classes: Segment id -> category id, in the annotation's numbers.
        crowds: Ids of crowds.
    """

    split: str
    image: np.ndarray
    ids: np.ndarray
    classes: dict[int, int]
    crowds: set[int]


def samples(shared_folder: Path, name: str) -> Path:
    folder = shared_folder / "data" / "samples" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: it holds real files of the raw layout")
    return folder


def pixels(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


def raw_coco(root: Path) -> Iterator[Raw]:
    content = json.loads((root / "annotations" / "panoptic_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for item in content["annotations"]:
        colours = np.asarray(
            Image.open(root / "annotations" / "panoptic_val2017" / item["file_name"])
        ).astype(int)
        yield Raw(
            "val",
            pixels(root / "val2017" / names[item["image_id"]]),
            colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2],
            {segment["id"]: segment["category_id"] for segment in item["segments_info"]},
            {segment["id"] for segment in item["segments_info"] if segment["iscrowd"]},
        )


def raw_cityscapes(root: Path) -> Iterator[Raw]:
    """From the owners' converter's files, where the reader takes instanceIds."""
    for split in ("train", "val"):
        content = json.loads((root / "gtFine" / f"cityscapes_panoptic_{split}.json").read_text())
        for item in content["annotations"]:
            name = item["image_id"]
            city = root / "leftImg8bit" / split / name.partition("_")[0]
            label = root / "gtFine" / f"cityscapes_panoptic_{split}" / item["file_name"]
            colours = np.asarray(Image.open(label)).astype(int)
            yield Raw(
                split,
                np.asarray(Image.open(city / f"{name}_leftImg8bit.png")),
                colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2],
                {segment["id"]: segment["category_id"] for segment in item["segments_info"]},
                {segment["id"] for segment in item["segments_info"] if segment["iscrowd"]},
            )


RAW = {"coco_panoptic": raw_coco, "cityscapes_panoptic": raw_cityscapes}


def packed(capsys: Capture, name: str, source: Path, output: Path) -> PackedDataset:
    line = ("data", "pack", name, "--allow-partial", "--source", str(source))
    assert spikeseg(capsys, *line, "--output", str(output)).code == 0
    return PackedDataset.open(output)


@pytest.mark.parametrize("name", sorted(RAW))
def test_panoptic_samples_come_through_the_loader_pixel_by_pixel(
    name: str, shared_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    source = samples(shared_folder, name.replace("cityscapes_panoptic", "cityscapes"))
    raws = list(RAW[name](source))
    dataset = packed(capsys, name, source, tmp_path / "packed")
    assert sum(dataset.splits.values()) == len(raws) >= 2
    space = dataset.label_space
    places = dict.fromkeys(dataset.splits, 0)
    for raw in raws:
        index = places[raw.split]
        places[raw.split] += 1
        row = dataset.row(raw.split, index)
        np.testing.assert_array_equal(row.image, raw.image)
        assert row.instances is not None
        # Numbers and ids name the same segments: each number has one id and each id one number.
        pairs = set(zip(row.instances.ravel().tolist(), raw.ids.ravel().tolist(), strict=True))
        assert len(pairs) == len({number for number, _ in pairs}) == len({id_ for _, id_ in pairs})
        assert {id_ for _, id_ in pairs} - {0} == set(raw.classes)
        for number, id_ in pairs - {(0, 0)}:
            assert row.segments[number - 1] == space.raw_to_train[raw.classes[id_]]
            assert row.crowd[number - 1] == (id_ in raw.crowds)
        expected = np.full(raw.ids.shape, space.ignore_label)
        for id_, category in raw.classes.items():
            expected[raw.ids == id_] = space.raw_to_train[category]
        np.testing.assert_array_equal(row.label, expected)

        transform = TransformConfig(crop=(16, 16), ignore_label=space.ignore_label, **AS_IT_IS)
        (batch,) = read_evaluation_batches(dataset, raw.split, transform, [index], 1, segments=True)
        np.testing.assert_array_equal(batch.targets[0].numpy(), expected)
        found = batch.segments[0]
        assert len(found.classes) == len(raw.classes)
        for number, (train_id, crowd) in enumerate(
            zip(found.classes.tolist(), found.crowd.tolist(), strict=True), start=1
        ):
            (id_,) = set(raw.ids[found.numbers == number].tolist())
            assert train_id == space.raw_to_train[raw.classes[id_]]
            assert crowd == (id_ in raw.crowds)
            assert (found.numbers == number).sum() == (raw.ids == id_).sum()


def test_panoptic_samples_become_training_targets_of_one_value_a_segment(
    shared_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    source = samples(shared_folder, "cityscapes")
    raws = [raw for raw in raw_cityscapes(source) if raw.split == "train"]
    dataset = packed(capsys, "cityscapes_panoptic", source, tmp_path / "packed")
    space = dataset.label_space
    size = raws[0].ids.shape
    transform = TransformConfig(crop=(size[0], size[1]), **AS_IT_IS)
    options = LoaderOptions(
        seed=0,
        size=len(raws),
        micro_batches=1,
        window=len(raws),
        prefetch=1,
        segments=True,
    )
    reader = TrainingRows(dataset, transform, options)
    ((batch,),) = reader.steps(0, 1, range(1))
    ids = [row["id"] for row in dataset.columns("train", ["id"])]
    assert sorted(batch.ids) == sorted(ids)
    assert any(raw.crowds for raw in raws), "the samples have a crowd that is left out"
    for target, name in zip(batch.targets.numpy(), batch.ids, strict=True):
        raw = raws[ids.index(name)]
        seen = set()
        for id_, category in raw.classes.items():
            (value,) = set(target[raw.ids == id_].tolist())
            if id_ in raw.crowds:
                assert value == space.ignore_label
            else:
                assert value % SEGMENT_STRIDE == space.raw_to_train[category]
                seen.add(value)
        assert len(seen) == len(raw.classes) - len(raw.crowds)
        assert set(target[raw.ids == 0].tolist()) <= {space.ignore_label}


@pytest.mark.parametrize("name", sorted(RAW))
def test_panoptic_samples_are_inspected(
    name: str, shared_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    source = samples(shared_folder, name.replace("cityscapes_panoptic", "cityscapes"))
    raws = list(RAW[name](source))
    packed(capsys, name, source, tmp_path / "packed")
    page = tmp_path / "page.html"
    line = ("data", "inspect", str(tmp_path / "packed"), "--json", "--verify", "--html", str(page))
    ran = spikeseg(capsys, *line)
    assert ran.code == 0
    report = json.loads(ran.out)
    for split, part in report["splits"].items():
        of_split = [raw for raw in raws if raw.split == split]
        assert part["rows"] == len(of_split)
        assert part["segments"] == sum(len(raw.classes) for raw in of_split)
        assert part["crowds"] == sum(len(raw.crowds) for raw in of_split)
    assert "base64," in page.read_text()
