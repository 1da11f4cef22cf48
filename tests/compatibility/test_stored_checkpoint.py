"""A checkpoint that an earlier version wrote is scored, looked through, drawn and started from."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import spikeseg
from PIL import Image
from safetensors.torch import load_file
from stored_examples import Stored

# Another processor rounds otherwise, and a spike more or less may move a label at an edge.
_SAME_PIXELS = 0.95


def alone(stored: Stored, tmp_path: Path) -> Path:
    """The checkpoint's folder without the run that it was in."""
    return stored.checkpoint.rename(tmp_path / stored.checkpoint.name)


def test_a_run_scores_as_it_did(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    given = (str(stored.run), stored.data_here, "--split", "val", "--json")
    ran = spikeseg(capsys, "evaluate", *given)
    assert ran.code == 0, ran.err
    report, before = json.loads(ran.out), stored.expected["evaluation"]
    assert Path(report["checkpoint"]).name == "step-00000040"
    assert report["rows"] == before["rows"] == 3

    now, then = np.array(report["confusion"]), np.array(before["confusion"])
    assert (now.sum(1) == then.sum(1)).all()
    # Several classes are predicted, so that the network's answer is not that of any network.
    assert (then.sum(0) > 100).sum() > 2
    assert np.minimum(now, then).sum() >= _SAME_PIXELS * then.sum()

    state = json.loads((stored.checkpoint / "state.json").read_text())
    recorded = state["history"][-1]["metrics"]
    assert report["metrics"]["val/mIoU"] == pytest.approx(recorded["val/mIoU"], abs=1)
    assert report["metrics"]["val/aAcc"] == pytest.approx(recorded["val/aAcc"], abs=5)


def test_a_checkpoint_without_its_run_scores_the_same(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = alone(stored, tmp_path)
    given = (stored.data_here, "--split", "val", "--json")
    ran = spikeseg(capsys, "evaluate", str(checkpoint), *given)
    assert ran.code == 0, ran.err
    now = np.array(json.loads(ran.out)["confusion"])
    then = np.array(stored.expected["evaluation"]["confusion"])
    assert np.minimum(now, then).sum() >= _SAME_PIXELS * then.sum()


def test_images_get_the_labels_that_they_got(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = stored.data.glob("val-*.parquet")
    images = [tmp_path / f"val-{number}.png" for number in range(3)]
    for path, image in zip(images, pq.read_table(shard)["image"].to_pylist(), strict=True):
        path.write_bytes(image)
    output = tmp_path / "predicted"
    ran = spikeseg(capsys, "predict", str(stored.run), *map(str, images), "--output", str(output))
    assert ran.code == 0, ran.err

    written = sorted(path for path in output.glob("*.png") if "overlay" not in path.name)
    now = np.concatenate([np.asarray(Image.open(path)) for path in written])
    then = np.asarray(Image.open(stored.storage.parent / "predicted.png"))
    assert now.shape == then.shape == (96, 32)
    assert len(np.unique(then)) > 2
    assert (now == then).mean() >= _SAME_PIXELS


def test_every_layer_costs_the_energy_that_it_cost(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = spikeseg(capsys, "energy", str(stored.run), stored.data_here, "--json", "--images", "2")
    assert ran.code == 0, ran.err
    report, before = json.loads(ran.out), stored.expected["energy"]
    layers = [r for r in report["rows"] if r["kind"] in ("convolution", "linear")]
    # Then the sum over time steps was taken last; these networks have one.
    for key, was in (("name", "name"), ("macs", "macs"), ("spiking_input", "spiking_input")):
        assert [row[key] for row in layers] == [row[was] for row in before["rows"]]
    rates = [row["rate"] for row in layers]
    assert rates == pytest.approx([row["rate"] for row in before["rows"]], rel=0.05, abs=0.01)
    assert report["earlier_mj"] == pytest.approx(before["total_mj"], rel=0.02)


def test_a_training_starts_from_its_weights(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = alone(stored, tmp_path)
    averaged = load_file(checkpoint / "ema.safetensors")
    # One step that moves nothing but the statistics of BatchNorm.
    still = ("optimizer.lr=1e-12", "trainer.max_steps=1", "trainer.evaluate_every=1")
    given = (str(stored.storage.parent / "recipe.yaml"), stored.data_here, *still)
    start = (f"init.segmentor={checkpoint}", "trainer.test=false", "trainer.ema_decay=null")
    ran = spikeseg(capsys, "train", *given, *start, "--storage", str(stored.storage))
    assert ran.code == 0, ran.err

    (made,) = stored.storage.glob("*/checkpoints/step-00000001/model.safetensors")
    now = load_file(made)
    assert set(now) == set(averaged)
    weights = [key for key in averaged if "running_" not in key and "num_batches" not in key]
    assert len(weights) > 100
    for key in weights:
        assert (now[key] - averaged[key]).abs().max() < 1e-6, key
