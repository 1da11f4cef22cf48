"""What happens once, before the first step: weights to start from, and a look at their health."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ...model.initialize import calibrate_attention
from ...model.loss.criterion import DenseCriterion, SetCriterion
from ..config.schema import ExperimentConfig
from ..evaluation.recording import Recorder
from ..loading.training_loader import MicroBatch
from .health import first_step_health, record_first_step, wants_first_step
from .optimizer import parameter_table
from .preparation import load_initial_weights

_log = logging.getLogger(__name__)


def begin(
    model: nn.Module,
    config: ExperimentConfig,
    criterion: SetCriterion | DenseCriterion,
    first: MicroBatch,
    *,
    recorder: Recorder | None,
    folder: Path,
    tell: Callable[[str], None],
) -> None:
    """Give a new training its first weights; every rank does the same to its model.

    Args:
        model: The model as the seed drew it; changed in place.
        config: The experiment.
        criterion: The loss.
        first: The first micro-batch.
        recorder: Rank 0's journal; None on other ranks.
        folder: The run's folder.
        tell: Takes a line for a person.

    Raises:
        ConfigError: Where weights that `init` names do not fit.
    """
    device = next(model.parameters()).device
    for line in parameter_table(model, config.optimizer):
        tell(line)
    report = load_initial_weights(model, config)
    if report is not None:
        source = config.init.segmentor or config.init.backbone
        tell(f"initial weights of {source}: {report.numbers}")
        if recorder is not None:
            recorder.text("initial_weights.txt", f"{source}\n{_digest(model)}\n{report}\n")
    if config.model.compat == "corrected" and config.init.segmentor is None:
        # Loaded parts stay as they are: only what the seed drew is brought to life.
        within = "" if config.init.backbone is None else "decode_head"
        calibrate_attention(model, first.images.to(device), within=within)
    if recorder is None or not wants_first_step(config):
        return
    try:
        health = first_step_health(model, criterion, first, precision=config.trainer.precision)
        tell(record_first_step(health, recorder, folder))
    except (torch.OutOfMemoryError, OSError) as error:
        # A picture must never cost a training.
        _log.warning("the first step could not be drawn: %s", error)


def _digest(model: nn.Module) -> str:
    """SHA-256 over all weights as they were loaded and drawn."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256 of all weights after loading: {digest.hexdigest()}"
