"""A training of seconds on generated data, without Ray and MLflow; a module that can be killed."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...datasets.layouts.shapes import Shapes, ShapesOptions
from ...datasets.packed.pack import pack
from ...platform.checkpoint.run_folder import RunFolder
from ...platform.cluster.worker_group import OneWorker
from ...platform.config.recipes import Resolved, load_experiment, override
from ...platform.runs.predict_images import evaluate_checkpoint
from ...platform.train.faults.worker_guard import Guard
from ...platform.train.loop import Training

_SIZE = (32, 32)


def pack_small_data(folder: Path) -> Path:
    """Generate and pack a few rows of shapes; returns the folder."""
    options = ShapesOptions(size=_SIZE, train=64, val=8, test=8)
    pack("shapes", Shapes(options), Path(), folder, workers=1)
    return folder


def load_small_experiment(data: Path, steps: int, *, decoder: str = "query") -> Resolved:
    """The experiment: shapes_tiny at 32 x 32 with a checkpoint in the middle.

    Args:
        data: Packed data.
        steps: Steps of the training.
        decoder: `query`, or `fpn`, whose steps can be CUDA graphs.
    """
    dense = ("model.decoder=fpn", "loss.pixel_weight=0", "loss.semantic_weight=0")
    dense += ("optimizer.rules=[]",)
    values = (
        *(dense if decoder == "fpn" else ()),
        *(f"data.path={data}", f"data.transform.crop=[{_SIZE[0]},{_SIZE[1]}]"),
        *("trainer.workers=0", "trainer.micro_batch_size=4", "trainer.micro_batches=1"),
        *(f"trainer.max_steps={steps}", f"trainer.evaluate_every={steps}", "trainer.log_every=1"),
        *(f"trainer.checkpoint_every={steps // 2}", "trainer.energy_images=1"),
        "optimizer.warmup_steps=2",
    )
    return load_experiment("shapes_tiny", values)


def train_small(
    experiment: Resolved, device: str, folder: Path, *, backend: str = "auto"
) -> list[float]:
    """Train step by step, then save a checkpoint.

    Args:
        experiment: As `load_small_experiment` gives it.
        device: `cpu` or `cuda`.
        folder: The run's folder; a training that was killed there goes on.
        backend: The neurons' backend.

    Returns:
        The loss of every step.
    """
    training = _start(experiment, device, folder, backend)
    config, run = training.config, training.run
    losses: list[float] = []
    with Guard(config.trainer, run.path, attempt=run.attempt, rank=0) as guard:
        while training.step < config.trainer.max_steps:
            metrics = training.advance(training.step + 1, guard)
            if metrics is not None:
                losses.append(metrics["train/loss"])
    _go_on(training)
    return losses


def _start(experiment: Resolved, device: str, folder: Path, backend: str) -> Training:
    values = {"trainer.device": device, "model.neuron.backend": backend}
    run = RunFolder(folder)
    run.claim()
    config = override(experiment, values, "benchmark").config
    training = Training(config, run, group=OneWorker(), recorder=None, progress=None)
    training.start()
    return training


def _go_on(training: Training) -> None:
    """Train to the end, with checkpoint and evaluation where the experiment has them."""
    for _ in training.evaluations():
        pass


def score_on(folder: Path, device: str, *, backend: str = "auto") -> float:
    """val/mIoU, percent, of a run's best checkpoint on a device.

    Args:
        folder: The run's folder.
        device: `cpu` or `cuda`.
        backend: The neurons' backend.
    """
    values = (f"trainer.device={device}", f"model.neuron.backend={backend}")
    return evaluate_checkpoint(folder, values, split="val")["metrics"]["val/mIoU"]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a run's newest checkpoint, optimizer's included, by name.

    Raises:
        RuntimeError: Where there is none.
    """
    newest = RunFolder(folder).newest()
    files = {} if newest is None else newest.state_dict()
    files.pop("state", None)
    tensors = {f"{file}/{name}": value for file in files for name, value in files[file].items()}
    if not tensors:
        raise RuntimeError(f"{folder}: no checkpoint")
    return tensors


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def main(arguments: list[str]) -> None:
    """Train in this process: folder, data, steps, device, and `host` for kernels on the CPU."""
    folder, data, steps, device, *rest = arguments
    experiment = load_small_experiment(Path(data), int(steps))
    with contextlib.ExitStack() as stack:
        if rest == ["host"]:
            from .host_kernels import host_kernels

            stack.enter_context(host_kernels())
        stack.enter_context(_deterministic())
        _go_on(_start(experiment, device, Path(folder), "auto"))


if __name__ == "__main__":
    main(sys.argv[1:])
