"""The learning rate as a function of the step, the average's decay as one of the update."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..config.phases import Phase, cost_before, list_phases
from ..config.schema import ExperimentConfig, OptimizerConfig, TrainerConfig

LARGEST_START_SHARE = 0.01
"""Share of the average that the weights after the first step may have where it is evaluated."""


class Schedule:
    """What a training's steps have by their number: the learning rate, the transform's phase.

    Args:
        config: The experiment.
        tell: Takes a line for a person where a phase begins.
    """

    def __init__(self, config: ExperimentConfig, tell: Callable[[str], None]) -> None:
        data, self._max_steps = config.data, config.trainer.max_steps
        self._optimizer = config.optimizer
        self._phases = list_phases(data.transform, data.phases, self._max_steps)
        self._tell = tell

    def begin(self, step: int, optimizer: torch.optim.Optimizer) -> float:
        """Set every group's learning rate for a step; says where a phase begins.

        Args:
            step: Number of the step, from 0.
            optimizer: The optimizer.

        Returns:
            The base learning rate times the step's factor.
        """
        factor = learning_rate_factor(step, self._optimizer, self._max_steps, self._phases)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        for number, phase in enumerate(self._phases, start=1):
            if phase.first == step and len(self._phases) > 1:
                height, width = phase.transform.crop
                which = f"phase {number} of {len(self._phases)}"
                self._tell(f"step {step}: {which} begins, crops of {height} x {width}")
        return self._optimizer.lr * factor


def learning_rate_factor(
    step: int, config: OptimizerConfig, max_steps: int, phases: Sequence[Phase] = ()
) -> float:
    """Factor on every learning rate at one step.

    Linear warm-up from `warmup_start` over `warmup_steps`, then the decay over progress, which
    counts steps, or their cost, from the end of the warm-up to the last step before `decay_steps`,
    which has rate 0.

    Args:
        step: Number of the step, from 0.
        config: The schedule.
        max_steps: Steps of the training, the default of `decay_steps`.
        phases: The training's phases; needed where `decay_over` is `cost`.

    Source: published training configs (LinearLR, then PolyLR); cosine: Loshchilov and Hutter 2017
        (SGDR), equation 5, without restarts.
    """
    if step < config.warmup_steps:
        # The last warm-up step already has the full rate, hence minus one.
        done = step / max(1, config.warmup_steps - 1)
        return config.warmup_start + (1.0 - config.warmup_start) * done
    progress = _decay_progress(step, config, max_steps, phases)
    if config.decay == "cosine":
        return (1.0 + math.cos(math.pi * progress)) / 2
    return (1.0 - progress) ** config.power


def _decay_progress(
    step: int, config: OptimizerConfig, max_steps: int, phases: Sequence[Phase]
) -> float:
    """Progress of the decay in [0, 1]."""
    last = (config.decay_steps or max_steps) - 1
    if config.decay_over == "steps" or last <= config.warmup_steps:
        rest = max(1, last - config.warmup_steps)
        return min(1.0, (step - config.warmup_steps) / rest)
    before = cost_before(phases, config.warmup_steps)
    rest = cost_before(phases, last) - before
    return min(1.0, (cost_before(phases, step) - before) / rest)


def average_decay(averaged: int, decay: float, start: Literal["ramp", "constant"]) -> float:
    """Decay of the averaged weights at one update.

    Args:
        averaged: Weights averaged before; the first are copied, so it is at least 1.
        decay: The configured decay, which is the largest.
        start: `constant` always has it; `ramp` has min(decay, (1 + n) / (10 + n)).

    Source: TensorFlow's ExponentialMovingAverage with `num_updates`.
    """
    return decay if start == "constant" else min(decay, (1 + averaged) / (10 + averaged))


def average_update(
    decay: float, start: Literal["ramp", "constant"]
) -> Callable[[Any, Any, torch.Tensor | int], None]:
    """Build the update of averaged tensors that `AveragedModel` takes.

    Args:
        decay: The configured decay.
        start: As in `average_decay`.
    """

    def update(averages: Any, current: Any, averaged: torch.Tensor | int) -> None:
        get_ema_multi_avg_fn(average_decay(int(averaged), decay, start))(
            averages, current, averaged
        )

    return update


def start_share(trainer: TrainerConfig, steps: int) -> float:
    """Share in [0, 1] of the average that the weights after the first step still have.

    Args:
        trainer: The decay and its start.
        steps: Optimizer steps done, at least 1.

    Returns:
        0 without an average.
    """
    if trainer.ema_decay is None:
        return 0.0
    decays = (average_decay(n, trainer.ema_decay, trainer.ema_start) for n in range(1, steps))
    return math.prod(decays)


def describe_slow_average(trainer: TrainerConfig) -> str | None:
    """Describe an average that is evaluated before it forgot its start; None where it has.

    Args:
        trainer: Decay, start, steps between evaluations.
    """
    first = min(trainer.evaluate_every, trainer.max_steps)
    share = start_share(trainer, first)
    ramped = start_share(trainer.model_copy(update={"ema_start": "ramp"}), first)
    if share <= max(LARGEST_START_SHARE, ramped):
        return None
    return (
        f"trainer.ema_decay: {trainer.ema_decay}: at the first evaluation, step {first}, "
        f"{share:.0%} of the average that is scored are the weights after the first step, and "
        f"more than {LARGEST_START_SHARE:.0%} make scores mean little: set trainer.ema_start=ramp"
    )
