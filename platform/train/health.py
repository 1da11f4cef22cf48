"""Health of a training: its first step as a picture, and neuron layers that die later."""

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...datasets.packed.files import write_file
from ...model.accounting.firing import FiringRow
from ...model.accounting.health import StepHealth, judge_firing, step_health
from ...model.loss.criterion import DenseCriterion, SetCriterion
from ..config.schema import ExperimentConfig
from ..evaluation.recording import Recorder
from ..figures.health import draw_health
from ..loading.training_loader import MicroBatch

_log = logging.getLogger(__name__)
_WORTH_A_STEP = 100
_NAMED = 4
FIGURE = "first_step.png"


def wants_first_step(config: ExperimentConfig) -> bool:
    """Whether the first step is to be drawn (`tracking.first_step`)."""
    wanted = config.tracking.first_step
    return config.trainer.max_steps >= _WORTH_A_STEP if wanted is None else wanted


def draw_first_step(
    model: nn.Module,
    criterion: SetCriterion | DenseCriterion,
    batch: MicroBatch,
    *,
    precision: str,
    recorder: Recorder,
    folder: Path,
) -> str:
    """Measure firing and gradients of the first micro-batch, on a copy, and draw them.

    Args:
        model: The model that training starts from; it stays as it is.
        criterion: The loss.
        batch: The first micro-batch.
        precision: Type of activations; 16-bit ones are bfloat16 here, whose gradients need no
            scaler.
        recorder: The run's journal, which gets picture and numbers.
        folder: The run's folder; the picture is in its `figures` too.

    Returns:
        A line for a person; it says why where nothing could be drawn.
    """
    try:
        health = _measure(model, criterion, batch, precision)
        neurons, norm = health.neurons, health.gradient_norm
        silent = describe(neurons.dead, neurons.saturated) or "every one fires"
        line = f"step 0: gradient norm {norm:.3g}; {len(health.firing)} neuron layers: {silent}"
        picture = draw_health(health, line)
        rows = {
            "gradient_norm": norm,
            "neurons": [dataclasses.asdict(row) for row in health.firing],
            "gradients": [dataclasses.asdict(row) for row in health.gradients],
        }
        recorder.text("tables/first_step.json", json.dumps(rows, indent=1))
        recorder.picture(f"figures/{FIGURE}", picture)
        (folder / "figures").mkdir(exist_ok=True)
        write_file(folder / "figures" / FIGURE, picture)
    except (torch.OutOfMemoryError, OSError) as error:
        # A picture must never cost a training.
        _log.warning("the first step could not be drawn: %s", error)
        return f"the first step could not be drawn: {error}"
    return line


def _measure(
    model: nn.Module,
    criterion: SetCriterion | DenseCriterion,
    batch: MicroBatch,
    precision: str,
) -> StepHealth:
    """Firing and gradients of one micro-batch in train mode, on a copy."""
    device = next(model.parameters()).device
    copied = copy.deepcopy(model).train()
    target = batch.targets.to(device)
    images = batch.images.to(device, memory_format=torch.channels_last)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"):
            prediction = copied(images)
        terms = criterion(prediction, target, criterion.count(target))
        return torch.stack(list(terms.values())).sum()

    return step_health(copied, loss)


class HealthWatch:
    """Says at every evaluation which neuron layers are newly dead or saturated.

    An attempt's first evaluation names all that are.

    Args:
        tell: Takes a line for a person.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._dead: set[str] = set()
        self._saturated: set[str] = set()

    def check(self, firing: Sequence[FiringRow], step: int) -> None:
        """Compare with the evaluation before; says nothing where no layer came to be silent.

        Args:
            firing: Every neuron layer.
            step: Optimizer steps done.
        """
        health = judge_firing(firing)
        dead = [name for name in health.dead if name not in self._dead]
        saturated = [name for name in health.saturated if name not in self._saturated]
        self._dead, self._saturated = set(health.dead), set(health.saturated)
        if dead or saturated:
            self._tell(
                f"step {step}: neuron layers newly {describe(dead, saturated)}; of "
                f"{len(firing)} in all {len(health.dead)} dead, {len(health.saturated)} saturated"
            )


def describe(dead: Sequence[str], saturated: Sequence[str]) -> str:
    """Names the first few layers of each kind; empty where there are none."""
    parts = []
    for names, kind in ((dead, "dead (never fired)"), (saturated, "saturated (always at D)")):
        if names:
            rest = len(names) - _NAMED
            listed = ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
            parts.append(f"{len(names)} {kind}: {listed}")
    return "; ".join(parts)
