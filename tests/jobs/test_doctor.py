"""`spikeseg doctor` says which backend the neurons of a GPU run on, and what it lacks."""

from pathlib import Path

import pytest
import torch
from command import spikeseg


@pytest.mark.parametrize("lacking", ["", "cupy is for CUDA 12: install cupy-cuda13x instead"])
def test_the_neurons_backend_is_told_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    lacking: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("spikeseg.model.neuron.backends.dispatch.find_obstacle", lambda *_: lacking)
    ran = spikeseg(capsys, "doctor", "--storage", str(tmp_path))
    told = f"neurons run on the torch backend: {lacking}" if lacking else "on the cuda backend"
    assert told in ran.out
