"""The learning rate as a function of the step."""

import torch

from ..config.schema import OptimizerConfig


def learning_rate_factor(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Factor on every learning rate at one step.

    Linear warm-up from `warmup_start` over `warmup_steps`, then (1 - progress) ** power, where
    progress counts from the end of the warm-up to the last step before `decay_steps`, which has
    rate 0.

    Args:
        step: Number of the step, from 0.
        config: The schedule.
        max_steps: Steps of the training, the default of `decay_steps`.

    Source: published training configs (LinearLR, then PolyLR).
    """
    if step < config.warmup_steps:
        # The last warm-up step already has the full rate, hence minus one.
        done = step / max(1, config.warmup_steps - 1)
        return config.warmup_start + (1.0 - config.warmup_start) * done
    end = config.decay_steps or max_steps
    rest = max(1, end - 1 - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / rest)
    return (1.0 - progress) ** config.power


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
