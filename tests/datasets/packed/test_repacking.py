"""Packing again after the source changed: what is old is never handed out as the new."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import LAYOUTS, Layout, write_index

from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.packed.pack import MANIFEST, pack
from spikeseg.datasets.packed.plan import PackPlan, plan_pack
from spikeseg.datasets.packed.storage import Storage
from spikeseg.datasets.spec import DataError


def plan(layout: Layout) -> PackPlan:
    return plan_pack(
        layout.name, make_dataset(layout.name, layout.options), layout.source, partial=True
    )


def quarantined(layout: Layout, output: Path, share: float = 0.5) -> str:
    return pack(
        layout.name,
        make_dataset(layout.name, layout.options),
        layout.source,
        output,
        on_bad_row="quarantine",
        max_bad_share=share,
        partial=True,
        workers=1,
    )


def test_an_untouched_source_gives_the_same_plan(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path)
    assert plan(layout).digest == plan(layout).digest


def test_another_category_in_the_annotation_is_another_plan(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path)
    before = plan(layout).digest
    path = layout.source / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] += 1
    path.write_text(json.dumps(content))
    assert plan(layout).digest != before


def test_a_label_of_another_name_is_another_plan(tmp_path: Path) -> None:
    layout = LAYOUTS["coco_panoptic"](tmp_path)
    before = plan(layout).digest
    path = layout.source / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    folder = path.with_suffix("")
    name = content["annotations"][0]["file_name"]
    (folder / name).rename(folder / "z.png")
    content["annotations"][0]["file_name"] = "z.png"
    path.write_text(json.dumps(content))
    assert plan(layout).digest != before


def test_a_label_rewritten_at_the_same_size_is_another_plan(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path)
    label = layout.source / "trainannot" / "a1.png"
    before, status = plan(layout).digest, label.stat()
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert plan(layout).digest != before


def test_a_mended_row_is_looked_at_again(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    whole = quarantined(layout, tmp_path / "whole")
    image = layout.source / "train" / "a1.png"
    content, status = image.read_bytes(), image.stat()

    def put_back(data: bytes) -> None:
        # Same size and time, as a file system without fine times shows it.
        image.write_bytes(data)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))

    put_back(bytes(len(content)))
    with pytest.raises(DataError, match=r"1 of 5 rows are bad"):
        quarantined(layout, tmp_path / "part", share=0.0)
    put_back(content)
    assert quarantined(layout, tmp_path / "part", share=0.0) == whole


def test_killed_between_table_and_manifest_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    label = layout.source / "trainannot" / "a1.png"
    values = np.array(Image.open(label))
    values[:2] = 12
    write_index(label, values)
    write = Storage.write

    def killed(self: Storage, name: str, content: bytes) -> None:
        if name == MANIFEST:
            raise RuntimeError("killed")
        write(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "write", killed)
        with pytest.raises(RuntimeError, match="killed"):
            quarantined(layout, tmp_path / "part")
    assert (tmp_path / "part" / "quarantine.csv").exists()
    assert quarantined(layout, tmp_path / "part") == quarantined(layout, tmp_path / "whole")
