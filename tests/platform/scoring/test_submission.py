"""Submission files have the owners' ids, names and colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.scoring.submission import SubmissionWriter


def write(kind: str, space: str, folder: Path, row_id: str) -> tuple[Path, np.ndarray, Image.Image]:
    label = np.arange(19, dtype=np.uint8)[None].repeat(2, 0)
    path = SubmissionWriter(kind, folder, load_label_space(space)).write(row_id, label)
    picture = Image.open(path)
    return path, np.array(picture), picture


def test_cityscapes_gets_label_ids_and_not_train_ids(tmp_path: Path) -> None:
    path, ids, _ = write("cityscapes", "cityscapes", tmp_path, "frankfurt/frankfurt_000000_000294")
    assert path.name == "frankfurt_frankfurt_000000_000294_pred_labelIds.png"
    official = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert ids[0].tolist() == official


def test_ade20k_counts_from_one(tmp_path: Path) -> None:
    path, ids, _ = write("ade20k", "ade20k", tmp_path, "ADE_val_00000001")
    assert path.name == "ADE_val_00000001.png" and ids[0].tolist() == list(range(1, 20))


def test_voc_keeps_its_ids_and_colours(tmp_path: Path) -> None:
    path, ids, picture = write("voc", "pascal_voc12", tmp_path, "2007_000033")
    assert path.name == "2007_000033.png" and ids[0].tolist() == list(range(19))
    assert picture.mode == "P"
    assert (picture.getpalette() or [])[3:6] == [128, 0, 0]


def test_other_classes_than_the_benchmarks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the 19 classes of cityscapes, the run has 11"):
        SubmissionWriter("cityscapes", tmp_path, load_label_space("camvid"))
