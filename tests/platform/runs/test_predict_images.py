"""What a run recorded of the machine it was trained on binds nobody who uses it."""

from pathlib import Path

import pytest
import torch
import yaml
from command import spikeseg
from trained_run import TrainedRun

from spikeseg.platform.checkpoint.checkpoint import read_checkpoint, write_checkpoint
from spikeseg.platform.checkpoint.run_folder import find_checkpoint
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.runs.predict_images import Machine, load_model

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def of_a_gpu(trained: TrainedRun, tmp_path: Path) -> Path:
    """The same checkpoint as a training on a GPU with four workers would have written it."""
    saved = read_checkpoint(find_checkpoint(trained.folder).path)
    config = yaml.safe_load(saved.state["config"])
    config["trainer"] |= {"device": "cuda", "workers": 4, "micro_batches": 4, "threads": 3}
    config["model"]["neuron"]["backend"] = "cuda"
    state = {**saved.state, "config": yaml.safe_dump(config)}
    folder = tmp_path / saved.path.name
    write_checkpoint(folder, saved.step, {"model": saved.evaluated()}, state)
    return folder


def test_a_checkpoint_of_a_gpu_computes_the_same_on_a_cpu(
    trained: TrainedRun, of_a_gpu: Path
) -> None:
    loaded = load_model(of_a_gpu, (), Machine(threads=1))
    assert loaded.device.type == "cpu" and torch.get_num_threads() == 1
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        now, before = loaded.model(images), load_model(trained.folder).model(images)
    for a, b in zip(now[:2], before[:2], strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_gpu_that_was_asked_for_is_an_order(of_a_gpu: Path) -> None:
    for overrides, machine in (
        (["trainer.device=cuda"], Machine()),
        ((), Machine(device="cuda")),
    ):
        with pytest.raises(ConfigError, match="cuda, but torch sees no GPU"):
            load_model(of_a_gpu, overrides, machine)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "energy"])
def test_every_verb_of_inference_takes_device_and_threads(
    trained: TrainedRun,
    of_a_gpu: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    more = {
        "predict": [f"{trained.storage}/shapes", "--split", "test", "--output", str(tmp_path / "o")]
    }.get(verb, [])
    ran = spikeseg(capsys, verb, str(of_a_gpu), *more, "--device", "cpu", "--threads", "1")
    assert ran.code == 0, ran.err
