"""A panoptic run from training over `evaluate` to the files that `predict` writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import spikeseg
from PIL import Image
from trained_run import TINY

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.config.recipes import load_experiment
from spikeseg.platform.train.trainer import train

pytestmark = pytest.mark.slow

FIELDS = (
    "data.task=panoptic",
    "data.object_threshold=0.3",
    "model.query.matching=hungarian",
    "model.query.num_queries=20",
    "trainer.max_steps=60",
    "trainer.evaluate_every=60",
    "optimizer.lr=8e-3",
)


def test_quality_is_that_of_training_and_segments_agree_with_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "shapes"
    made = Shapes(ShapesOptions(size=(32, 32), train=12, val=4, test=3, seed=3))
    pack("shapes", made, Path(), data, progress=lambda done, total: None)
    resolved = load_experiment("shapes_tiny", [f"data.path={data}", *TINY, *FIELDS])
    folder = train(resolved, storage=tmp_path, name="segments").folder
    capsys.readouterr()

    ran = spikeseg(capsys, "evaluate", str(folder), "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    trained = json.loads((folder / "result.json").read_text())["metrics"]
    for name in ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "mIoU"):
        assert report["metrics"][f"test/{name}"] == trained[f"test/{name}"], name
    # The background fills most of every image: any learning finds it.
    background = next(line for line in report["classes"] if line["class"] == "background")
    assert background["PQ"] > 0 and report["metrics"]["test/PQ"] > 0

    out = tmp_path / "out"
    line = ("predict", str(folder), str(data), "--split", "test", "--output", str(out))
    ran = spikeseg(capsys, *line, "--write", "panoptic", "--write", "coco", "--trained")
    assert ran.code == 0, ran.err
    classes = [line["class"] for line in report["classes"]]
    found = sorted(out.rglob("*_segments.json"))
    assert len(found) == 3
    total = 0
    for path in found:
        segments = json.loads(path.read_text())
        ids = np.asarray(Image.open(path.with_suffix(".png")))
        assert ids.shape == (32, 32)
        assert {int(number) for number in np.unique(ids)} - {0} == {s["id"] for s in segments}
        assert all(segment["class"] in classes for segment in segments)
        total += len(segments)
    assert total > 0
    regions = json.loads((out / "coco.json").read_text())
    assert len(regions["annotations"]) == total
