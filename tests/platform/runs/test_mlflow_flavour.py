"""What MLflow loads labels images as the run itself does, and damaged folders are named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from trained_run import TrainedRun

from spikeseg.platform.runs.loaded_run import load_run
from spikeseg.platform.runs.mlflow_flavour import _load_pyfunc


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 40, 48, 3), dtype=np.uint8)


def test_the_model_labels_as_its_run_does(trained: TrainedRun) -> None:
    model = _load_pyfunc(str(trained.folder / "model"))
    run = load_run("tiny", trained.storage)
    batch = images(2)
    assert np.array_equal(model.predict(batch), np.stack([run.predict(one) for one in batch]))
    assert np.array_equal(model.predict(batch[0])[0], run.predict(batch[0]))
    assert model.classes == run.classes
    assert model.predict(batch[:0]).shape == (0, 40, 48)


@pytest.mark.parametrize(
    "wrong", [images(1).astype(np.float32), images(1)[..., :2], images(1)[0, 0]]
)
def test_another_shape_or_type_is_named(trained: TrainedRun, wrong: np.ndarray) -> None:
    model = _load_pyfunc(str(trained.folder / "model"))
    with pytest.raises(ValueError, match=r"images must be an array \(B, H, W, 3\)"):
        model.predict(wrong)


@pytest.mark.parametrize("file", ["model.safetensors", "classes.json", "config.yaml"])
def test_a_damaged_or_missing_file_is_named_with_its_folder(
    trained: TrainedRun, tmp_path: Path, file: str
) -> None:
    for name, content in (("damaged", b"\x80"), ("missing", None)):
        folder = tmp_path / name
        shutil.copytree(trained.folder / "model", folder)
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=str(folder)):
            _load_pyfunc(str(folder))
