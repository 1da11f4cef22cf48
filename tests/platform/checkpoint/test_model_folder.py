"""A model's folder holds the evaluated weights and what is needed to use them, and nothing more."""

import json
from pathlib import Path

import numpy as np
import pytest
from trained_run import TrainedRun

from spikeseg.platform.checkpoint.model_folder import (
    FILES,
    read_model_folder,
    write_model_folder,
)
from spikeseg.platform.checkpoint.run_folder import find_checkpoint


def test_what_is_written_is_read_back(trained: TrainedRun, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(trained.folder)
    image = np.arange(100 * 90 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 90, 3)
    write_model_folder(tmp_path / "model", checkpoint, image)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(FILES)
    content = read_model_folder(tmp_path / "model")
    evaluated = checkpoint.evaluated()
    assert content.weights.keys() == evaluated.keys()
    assert all((content.weights[name] == evaluated[name]).all() for name in evaluated)
    assert content.config == checkpoint.value("config", str)
    example = np.array(json.loads((tmp_path / "model" / "example.json").read_text()))
    assert np.array_equal(example, image[18:82, 13:77])


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no readable model of spikeseg"):
        read_model_folder(tmp_path)
