"""What objectives and limits of a sweep can be about, and limits that say nothing."""

import math
from collections.abc import Mapping

from ...config.recipes import ConfigError, nearest
from ...config.schema import TrainerConfig
from .schema import Limit, SweepRecipe

METRICS = {
    "val/mIoU": 100.0,
    "val/mAcc": 100.0,
    "val/aAcc": 100.0,
    "energy/mJ": math.inf,
    "snn/firing_rate": math.inf,
    "snn/dead_fraction": 1.0,
    "snn/dead_layers": 1.0,
    "snn/saturated_fraction": 1.0,
    "train/loss": math.inf,
}
"""What every evaluation of a training measures -> its largest value; none can be below 0."""


def check_metrics(
    recipe: SweepRecipe, trainer: TrainerConfig, lines: Mapping[str, str], source: str
) -> None:
    """Check that objectives and limits are about what is measured, and can make a difference.

    Args:
        recipe: The sweep.
        trainer: Of its base.
        lines: Dotted key of the recipe -> "file:line".
        source: What errors name where `lines` does not know the key.

    Raises:
        ConfigError: Names file and line, key, value and rule.
    """
    constraints = [(f"constraints.{i}", item) for i, item in enumerate(recipe.constraints)]
    limits = [(f"pruner.limits.{i}", item) for i, item in enumerate(recipe.pruner.limits)]
    objectives = [(f"objectives.{i}", item) for i, item in enumerate(recipe.objectives)]
    for key, item in (*objectives, *constraints, *limits):
        if item.metric not in METRICS:
            at = lines.get(f"{key}.metric", lines.get(key, source))
            raise ConfigError(
                f"{at}: {key}.metric: got {item.metric!r}{nearest(item.metric, list(METRICS))}; an "
                f"evaluation measures {', '.join(METRICS)}"
            )
    for key, item in objectives:
        top, worst = METRICS[item.metric], item.reference
        if worst is not None and (worst >= top if item.direction == "maximize" else worst <= 0):
            at = lines.get(f"{key}.reference", source)
            raise ConfigError(
                f"{at}: {key}.reference: got {worst:g}: must be worse than results of interest, "
                f"and {item.metric} (0 to {top:g}) is never better than it"
            )
    for key, item in (*constraints, *limits):
        said = _says_nothing(item)
        if said:
            at, top = lines.get(key, source), METRICS[item.metric]
            raise ConfigError(f"{at}: {key}: got {item}: {item.metric} is 0 to {top:g}, {said}")
    for key, item in constraints:
        if item.after:
            at = lines.get(f"{key}.after", source)
            raise ConfigError(
                f"{at}: {key}.after: got {item.after}: constraints are about the last evaluation; "
                "pruner.limits stop trials earlier"
            )
    every = trainer.evaluate_every
    newest = (trainer.max_steps - 1) // every * every
    for key, item in limits:
        if newest < max(item.after, every):
            at = lines.get(f"{key}.after", lines.get(key, source))
            raise ConfigError(
                f"{at}: {key}: got after {item.after}: stops no trial, whose last evaluation "
                f"before its end is at step {newest}; constraints are about the end"
            )


def _says_nothing(limit: Limit) -> str:
    """Why a limit is the same for all trials; empty where it is not."""
    top, low, high = METRICS[limit.metric], limit.at_least, limit.at_most
    if (high is not None and high < 0) or (low is not None and low > top):
        return "so no trial can keep it"
    if (high is not None and high >= top) or (low is not None and low <= 0):
        return "so every trial keeps it"
    return ""
