"""The Python front door: a run is loaded by its word and labels image arrays."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trained_run import TrainedRun

import spikeseg
from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.model.deployment.fold import fold
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.prediction.predict_many import PredictRequest, predict_many
from spikeseg.platform.prediction.predictor import PredictSettings
from spikeseg.platform.prediction.sources import SourceList
from spikeseg.platform.runs.predict_images import load_model
from spikeseg.platform.train.preparation import open_data
from spikeseg.platform.train.state import TrainingState


@pytest.fixture(scope="module")
def image(trained: TrainedRun) -> np.ndarray:
    return PackedDataset.open(str(trained.storage / "shapes")).row("test", 0).image


def blocks(repository: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (repository / "docs/python.md").read_text(), re.S)


def test_a_loaded_run_labels_an_array_as_predict_labels_a_file(
    trained: TrainedRun, image: np.ndarray, tmp_path: Path
) -> None:
    run = spikeseg.load("tiny", storage=trained.storage)
    labels = run.predict(image)
    assert (labels.shape, labels.dtype) == (image.shape[:2], np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    request = PredictRequest(trained.folder, tmp_path, PredictSettings(("label",)))
    predict_many(request, SourceList([str(tmp_path / "one.png")]))
    assert np.array_equal(labels, np.array(Image.open(tmp_path / "one_label.png")))
    assert run.palette[labels].shape == image.shape
    assert len(run.classes) == len(run.palette) == run.config.model.num_classes


def test_weights_lie_as_in_training_and_those_of_the_folded_form_contiguous(
    trained: TrainedRun,
) -> None:
    # The layout decides the last bits: in another one a run's own test score was not found again.
    loaded = load_model(trained.folder)
    state = TrainingState(
        loaded.resolved.config, open_data(loaded.resolved.config), workers=1, device=loaded.device
    )
    kernels = [w for w in loaded.model.parameters() if w.dim() == 4 and w.shape[2] > 1]
    assert kernels and all(w.is_contiguous(memory_format=torch.channels_last) for w in kernels)
    trained_in = [w.stride() for w in state.model.parameters()]
    assert [w.stride() for w in loaded.model.parameters()] == trained_in
    folded = fold(loaded.model).parameters()
    assert all(w.is_contiguous() for w in folded if w.dim() == 4)


def test_scores_are_those_of_the_checkpoint_that_was_loaded(trained: TrainedRun) -> None:
    result = json.loads((trained.folder / "result.json").read_text())
    run = spikeseg.load("tiny", storage=trained.storage)
    assert run.checkpoint.name == f"step-{result['best_step']:08d}"
    assert run.scores == result["metrics"]
    other = next(
        path
        for path in (trained.folder / "checkpoints").glob("step-*")
        if path.name != run.checkpoint.name
    )
    scores = spikeseg.load(other, storage=trained.storage).scores
    assert "val/mIoU" in scores and "test/mIoU" not in scores


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((32, 32), np.uint8), r"\(32, 32\) of uint8"),
        (np.zeros((32, 32, 4), np.uint8), r"\(32, 32, 4\) of uint8"),
        (np.zeros((32, 32, 3), np.float32), r"\(32, 32, 3\) of float32"),
    ],
    ids=["no channels", "four channels", "floats"],
)
def test_an_array_that_is_no_image_is_refused(
    trained: TrainedRun, wrong: np.ndarray, got: str
) -> None:
    run = spikeseg.load("tiny", storage=trained.storage)
    with pytest.raises(ValueError, match=rf"array \(H, W, 3\) of uint8, got {got}"):
        run.predict(wrong)
    with pytest.raises(ValueError, match=r"^image: 8 x 8 pixels would enter the network"):
        run.predict(np.zeros((8, 8, 3), np.uint8))


def test_the_lines_of_the_page_predict_an_image(
    trained: TrainedRun,
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(trained.storage)
    Image.fromarray(image).save("street.png")
    code = blocks(repository)[0]
    assert len([line for line in code.splitlines() if line]) <= 5
    names: dict[str, object] = {}
    exec(code, names)
    labels = names["labels"]
    assert isinstance(labels, np.ndarray) and labels.shape == image.shape[:2]


def test_the_lines_of_the_page_train_and_list_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKESEG_STORAGE", raising=False)
    made = Shapes(ShapesOptions(size=(32, 32), train=16, val=4, test=3, seed=3))
    pack("shapes", made, Path(), "data/shapes", progress=lambda done, total: None)
    exec(blocks(repository)[1], {})
    (run,) = spikeseg.list_runs()
    assert f"{run.word} 1 4 finished" in capsys.readouterr().out
    assert spikeseg.list_runs("nowhere") == []


def test_a_wrong_value_is_blamed_on_the_overrides(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^overrides: trainer\.max_step: no such field, did"):
        spikeseg.train("shapes_tiny", {"trainer.max_step": 4}, storage=tmp_path)
    with pytest.raises(ConfigError, match=r"^command line: trainer\.max_step: no such field"):
        spikeseg.train("shapes_tiny", ["trainer.max_step=4"], storage=tmp_path)


def test_importing_the_package_imports_no_part_of_it(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import spikeseg; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names), len(spikeseg.__all__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
        check=True,
    )
    assert done.stdout.strip() == "['spikeseg'] 3"
