"""What stands before a training's first step: checked data, device, loss and first weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...datasets.packed.reader import PackedDataset
from ...model.initialize import calibrate_attention
from ...model.loss.criterion import DenseCriterion, SetCriterion, build_criterion
from ...model.neuron.backends.dispatch import BackendError, choose_backend
from ...model.published.keys import KeyReport
from ...model.published.weights import (
    is_converted,
    load_all,
    load_backbone,
    load_backbone_weights,
    load_weights,
)
from ...model.segmentor import build_uncalibrated_segmentor
from ..checkpoint.run_folder import find_checkpoint
from ..config.recipes import ConfigError
from ..config.schema import ExperimentConfig, TrainerConfig
from ..evaluation.recording import Recorder
from ..loading.data_checks import check_data
from .optimizer import build_optimizer, describe_parameters
from .schedule import describe_slow_average


def check_parts(config: ExperimentConfig) -> nn.Module:
    """Check, without memory for weights, that data, device, model, loss and optimizer go together.

    Returns:
        The model on the meta device.

    Raises:
        ConfigError: Names the key and the rule.
    """
    check_data(config, open_data(config))
    device = choose_device(config.trainer.device)
    if config.trainer.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            "trainer.precision: fp16 scales gradients and needs a CUDA device; on the CPU take "
            "bf16 or fp32"
        )
    require_neurons(config, device)
    try:
        with torch.device("meta"):
            model = build_uncalibrated_segmentor(config.model)
            build_criterion(config.loss, config.model)
        build_optimizer(model, config.optimizer)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model


def open_data(config: ExperimentConfig) -> PackedDataset:
    """Open the experiment's data and check that it fits.

    Raises:
        ConfigError: Names the folder, the split or the number of classes.
    """
    try:
        dataset = PackedDataset.open(config.data.path)
    except ValueError as error:
        missing = "://" not in config.data.path and not Path(config.data.path).exists()
        hint = "; `spikeseg data pack` makes it" if missing else ""
        raise ConfigError(f"data.path: {error}{hint}") from error
    for split in ("train", "val"):
        if not dataset.splits.get(split):
            raise ConfigError(f"data.path: {config.data.path}: split {split!r} has no rows")
    classes = len(dataset.label_space.classes)
    if config.model.num_classes != classes:
        raise ConfigError(
            f"model.num_classes: {config.model.num_classes}, but {config.data.path} has {classes} "
            f"classes ({dataset.label_space.name})"
        )
    if config.model.in_channels != dataset.channels:
        raise ConfigError(
            f"model.in_channels: {config.model.in_channels}, but the images of {config.data.path} "
            f"have {dataset.channels} channels"
        )
    if config.data.task == "panoptic":
        _require_segments(config, dataset)
    return dataset


def _require_segments(config: ExperimentConfig, dataset: PackedDataset) -> None:
    space = dataset.label_space
    if space.is_thing is None or not dataset.has_segments:
        raise ConfigError(
            f"data.task: panoptic, but {config.data.path} ({dataset.name}) was packed without "
            "segments; pack a panoptic data set, or set data.task=semantic"
        )


def build_loss(config: ExperimentConfig, dataset: PackedDataset) -> DenseCriterion | SetCriterion:
    """Build the loss, with class weights from the training split where they are asked for."""
    pixels = torch.tensor(dataset.class_pixels("train"), dtype=torch.float32)
    return build_criterion(config.loss, config.model, pixels)


def build_seeded_model(config: ExperimentConfig) -> nn.Module:
    """Build the model with weights drawn from the experiment's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_uncalibrated_segmentor(config.model)


def load_initial_weights(model: nn.Module, config: ExperimentConfig) -> KeyReport | None:
    """Load what `init` names into a new model.

    Args:
        model: The model; on the meta device its keys and shapes are compared only.
        config: The experiment.

    Returns:
        How the keys of file and model met; None where `init` names nothing.

    Raises:
        ConfigError: Names the key, the file and what does not fit.
    """
    for key, source in (("backbone", config.init.backbone), ("segmentor", config.init.segmentor)):
        if source is None:
            continue
        path = Path(source)
        try:
            if key == "backbone" and path.is_dir() and not is_converted(path):
                weights = find_checkpoint(path).evaluated()
                return load_backbone_weights(model, weights, name=source)
            if key == "backbone":
                return load_backbone(model, path)
            if not path.is_dir() or is_converted(path):
                return load_weights(model, path)
            return load_all(model, find_checkpoint(path).evaluated(), name=source)
        except ValueError as error:
            raise ConfigError(f"init.{key}: {error}") from error
    return None


def set_numerics(trainer: TrainerConfig) -> None:
    """Set torch's threads and oneDNN as configured: they decide a result's last bits on the CPU."""
    torch.set_num_threads(trainer.threads)
    torch.backends.mkldnn.set_flags(trainer.onednn)


def place_model(model: nn.Module, trainer: TrainerConfig, device: torch.device) -> nn.Module:
    """Move a model to a device, its weights in a training's layout.

    The layout decides the last bits of a result, and a spike may turn on one: who scores a run's
    weights in another one finds other labels here and there.

    Args:
        model: The network.
        trainer: `memory_format` and, on a GPU, `precision` decide.
        device: Where it is to run.
    """
    model = model.to(device)
    fits = device.type == "cpu" or trainer.precision != "fp32"
    wanted = trainer.memory_format
    if wanted == "channels_last" or (wanted != "contiguous" and fits):
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def describe_environment(workers: int, device: torch.device) -> dict[str, Any]:
    """Versions and hardware that decide the last bits of a result.

    Args:
        workers: Number of workers.
        device: Where the model is.
    """
    return {
        "workers": workers,
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.enabled,
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
    }


def choose_device(name: str) -> torch.device:
    """Choose the device that `trainer.device` names.

    Raises:
        ConfigError: Where `cuda` is asked for and torch sees no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer.device: cuda, but torch sees no GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def require_neurons(config: ExperimentConfig, device: torch.device) -> None:
    """Refuse a neuron backend that was named and cannot run here.

    Raises:
        ConfigError: Says why, and what to install where that is what is missing.
    """
    wanted = config.model.neuron.backend
    if wanted != "cuda":
        return
    try:
        choose_backend(wanted, device.type)
    except BackendError as error:
        raise ConfigError(f"model.{error}") from error


def initialize_weights(
    model: nn.Module,
    config: ExperimentConfig,
    images: Tensor,
    *,
    recorder: Recorder | None,
    tell: Callable[[str], None],
) -> None:
    """Give a new training its first weights; every rank does the same to its model.

    Args:
        model: The model as the seed drew it; changed in place.
        config: The experiment.
        images: Of the first micro-batch, (B, 3, H, W), which calibrate what the seed drew.
        recorder: Rank 0's journal; None on other ranks.
        tell: Takes a line for a person.

    Raises:
        ConfigError: Where weights that `init` names do not fit.
    """
    for line in describe_parameters(model, config.optimizer):
        tell(line)
    if (slow := describe_slow_average(config.trainer)) is not None:
        tell(slow)
    report = load_initial_weights(model, config)
    if report is not None:
        source = config.init.segmentor or config.init.backbone
        tell(f"initial weights of {source}: {report.numbers}")
        if recorder is not None:
            recorder.text("initial_weights.txt", f"{source}\n{_digest(model)}\n{report}\n")
    if config.model.compat == "corrected" and config.init.segmentor is None:
        # Loaded parts stay as they are: only what the seed drew is brought to life.
        within = "" if config.init.backbone is None else "decode_head"
        calibrate_attention(model, images.to(next(model.parameters()).device), within=within)


def _digest(model: nn.Module) -> str:
    """SHA-256 over all weights as they were loaded and drawn."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256 of all weights after loading: {digest.hexdigest()}"
