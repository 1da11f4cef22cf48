"""Health of a training: its first step as a picture, layers that die, scores that stay low."""

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
from ..checkpoint.checkpoint import Evaluation
from ..config.schema import ExperimentConfig
from ..evaluation.baselines import describe_baselines, is_degenerate
from ..evaluation.recording import Recorder
from ..figures.health import draw_health
from ..loading.training_loader import MicroBatch
from .schedule import LARGEST_START_SHARE, start_share

_log = logging.getLogger(__name__)
_WORTH_A_STEP = 100
_NAMED = 4
# Share of layers that never fire, and of values at D in a layer, from which on they are the reason.
_MANY_DEAD = 0.1
_SATURATED = 0.9
_USUAL_RATE = 8e-3
FIGURE = "first_step.png"


def wants_first_step(config: ExperimentConfig) -> bool:
    """Whether the untrained network is to be looked at (`tracking.first_step`)."""
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

    An attempt's first evaluation names all that are. The first one after a tenth of the steps says
    where the score is still degenerate, and which field may be why.

    Args:
        config: The experiment.
        tell: Takes a line for a person.
    """

    def __init__(self, config: ExperimentConfig, tell: Callable[[str], None]) -> None:
        self._config = config
        self._tell = tell
        self._dead: set[str] = set()
        self._saturated: set[str] = set()

    def check(self, firing: Sequence[FiringRow], history: Sequence[Evaluation]) -> None:
        """Compare with the evaluation before; says nothing where all is well.

        Args:
            firing: Every neuron layer.
            history: The evaluations so far, at least one.
        """
        step = history[-1].step
        if (line := describe_no_learning(history, self._config)) is not None:
            _log.warning("%s", line)
            self._tell(line)
        health = judge_firing(firing)
        dead = [name for name in health.dead if name not in self._dead]
        saturated = [name for name in health.saturated if name not in self._saturated]
        self._dead, self._saturated = set(health.dead), set(health.saturated)
        if dead or saturated:
            self._tell(
                f"step {step}: neuron layers newly {describe(dead, saturated)}; of "
                f"{len(firing)} in all {len(health.dead)} dead, {len(health.saturated)} saturated"
            )


def describe_no_learning(history: Sequence[Evaluation], config: ExperimentConfig) -> str | None:
    """Describe a network that has not learned by the first evaluation after a tenth of the steps.

    Args:
        history: The evaluations so far, at least one.
        config: The experiment.

    Returns:
        A sentence with the field that is most likely the reason; None at other evaluations, and
        where the score is not degenerate.
    """
    *before, now = history
    tenth = config.trainer.max_steps / 10
    first = now.step >= tenth and not any(past.step >= tenth for past in before)
    if not first or not is_degenerate(now.metrics):
        return None
    score = f"{now.metrics['val/mIoU']:.1f}{describe_baselines(now.metrics, 'val')}"
    reason = next(text for applies, text in _reasons(now, config) if applies)
    return (
        f"step {now.step} of {config.trainer.max_steps}: val mIoU is {score}, no better than an "
        f"answer that ignores the image. Look at {reason}"
    )


def _reasons(now: Evaluation, config: ExperimentConfig) -> list[tuple[bool, str]]:
    """Why a network may not learn, the likeliest first: whether it applies, and field and value."""
    model, optimizer, loss = config.model, config.optimizer, config.loss
    dead = now.metrics.get("snn/dead_layers", 0.0)
    saturated = now.metrics.get("snn/saturated_fraction", 0.0)
    queries = model.decoder == "query" and config.data.task == "semantic"
    return [
        (
            config.trainer.ema_start == "constant"
            and now.step > 1
            and start_share(config.trainer, now.step) > LARGEST_START_SHARE,
            f"trainer.ema_start ({config.trainer.ema_start}): the average that is scored has not "
            "forgotten its start",
        ),
        (
            now.step < optimizer.warmup_steps,
            f"optimizer.warmup_steps ({optimizer.warmup_steps}): the rate is still rising",
        ),
        (
            dead > _MANY_DEAD,
            f"model.neuron.threshold ({model.neuron.threshold}): {dead:.0%} of the neuron layers "
            "never fire",
        ),
        (
            saturated > _SATURATED,
            f"model.neuron.levels ({model.neuron.levels}): in a layer {saturated:.0%} of the "
            "values are the largest that a neuron has",
        ),
        (
            queries and model.query.matching == "hungarian",
            "model.query.matching (hungarian): class learns in fewer images",
        ),
        (
            optimizer.lr < _USUAL_RATE,
            f"optimizer.lr ({optimizer.lr:g}): small networks learned best at about "
            f"{_USUAL_RATE:g}",
        ),
        (
            loss.class_balance == 0,
            "loss.class_balance (0): frequent classes may outweigh the others, 0.5 helped",
        ),
        (True, f"optimizer.lr ({optimizer.lr:g}) and trainer.max_steps"),
    ]


def describe(dead: Sequence[str], saturated: Sequence[str]) -> str:
    """Names the first few layers of each kind; empty where there are none."""
    parts = []
    for names, kind in ((dead, "dead (never fired)"), (saturated, "saturated (always at D)")):
        if names:
            rest = len(names) - _NAMED
            listed = ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
            parts.append(f"{len(names)} {kind}: {listed}")
    return "; ".join(parts)
