"""Objectives, constraints and limits are about what trials measure, and can make a difference."""

from collections.abc import Callable, Iterator, Mapping

from ...config.recipes import ConfigError, nearest
from ...config.schema import ExperimentConfig, TrainerConfig
from ...tracking.metric_table import MEASURED, METRICS, NEEDS, evaluation_metrics
from .schema import Limit, Objective, SweepRecipe


def check_metrics(
    recipe: SweepRecipe, base: ExperimentConfig, lines: Mapping[str, str], source: str
) -> None:
    """Check objectives, constraints and limits against what the base's evaluations measure.

    Whether the label space has categories is seen in the data, by `check_categories`.

    Args:
        recipe: The sweep.
        base: What its trials start from.
        lines: Dotted key of the recipe -> "file:line".
        source: What errors name where `lines` does not know the key.

    Raises:
        ConfigError: Names file and line, key, value and rule.
    """
    measured = evaluation_metrics(base.data.task)
    for key, item in _items(recipe):
        if item.metric not in measured:
            at = lines.get(f"{key}.metric", lines.get(key, source))
            raise ConfigError(
                f"{at}: {key}.metric: got {item.metric!r}{_why_not_measured(item.metric, measured)}"
                f"; an evaluation of {recipe.base} measures {', '.join(map(_listed, measured))}"
            )
        if isinstance(item, Objective):
            _check_reference(item, lines.get(f"{key}.reference", source), key)
        elif rule := _same_for_all(item):
            high = METRICS[item.metric].high
            at = lines.get(key, source)
            raise ConfigError(f"{at}: {key}: got {item}: {item.metric} is 0 to {high:g}, {rule}")
    _check_steps(recipe, base.trainer, lines, source)


def check_categories(recipe: SweepRecipe, has_categories: Callable[[], bool]) -> None:
    """Refuse objectives, constraints and limits over categories that the data does not have.

    Args:
        recipe: The sweep.
        has_categories: Whether the label space of the base's data has categories; only called
            where the sweep needs them, since it opens the data.

    Raises:
        ConfigError: Names key, value and rule.
    """
    for key, item in _items(recipe):
        if METRICS[item.metric].needs == "categories" and not has_categories():
            raise ConfigError(
                f"{key}.metric: got {item.metric!r}: needs {NEEDS['categories']}, and that of the "
                "base's data has none"
            )


def _items(recipe: SweepRecipe) -> Iterator[tuple[str, Objective | Limit]]:
    for index, objective in enumerate(recipe.objectives):
        yield f"objectives.{index}", objective
    for index, limit in enumerate(recipe.constraints):
        yield f"constraints.{index}", limit
    for index, limit in enumerate(recipe.pruner.limits):
        yield f"pruner.limits.{index}", limit


def _listed(name: str) -> str:
    needs = METRICS[name].needs
    return f"{name} (of {NEEDS[needs]})" if needs == "categories" else name


def _why_not_measured(name: str, measured: list[str]) -> str:
    metric = METRICS.get(name)
    if metric is None:
        return nearest(name, measured)
    if metric.measured != "evaluation":
        return f": is measured {MEASURED[metric.measured]}"
    return f": needs {NEEDS[metric.needs]}"


def _check_reference(objective: Objective, at: str, key: str) -> None:
    reference, high = objective.reference, METRICS[objective.metric].high
    if reference is None:
        return
    if reference >= high if objective.direction == "maximize" else reference <= 0:
        raise ConfigError(
            f"{at}: {key}.reference: got {reference:g}: must be worse than results of interest, "
            f"and {objective.metric} (0 to {high:g}) is never better than it"
        )


def _same_for_all(limit: Limit) -> str:
    """Why a limit is the same for all trials; empty where it is not."""
    top, low, high = METRICS[limit.metric].high, limit.at_least, limit.at_most
    if (high is not None and high < 0) or (low is not None and low > top):
        return "so no trial can keep it"
    if (high is not None and high >= top) or (low is not None and low <= 0):
        return "so every trial keeps it"
    return ""


def _check_steps(
    recipe: SweepRecipe, trainer: TrainerConfig, lines: Mapping[str, str], source: str
) -> None:
    """Refuse a constraint that counts from a step on, and a limit that no evaluation meets."""
    for index, item in enumerate(recipe.constraints):
        if item.after:
            key = f"constraints.{index}.after"
            raise ConfigError(
                f"{lines.get(key, source)}: {key}: got {item.after}: constraints are about the "
                "last evaluation; pruner.limits stop trials earlier"
            )
    every = trainer.evaluate_every
    newest = (trainer.max_steps - 1) // every * every
    for index, item in enumerate(recipe.pruner.limits):
        if newest < max(item.after, every):
            key = f"pruner.limits.{index}"
            at = lines.get(f"{key}.after", lines.get(key, source))
            raise ConfigError(
                f"{at}: {key}: got after {item.after}: stops no trial, whose last evaluation "
                f"before its end is at step {newest}; constraints are about the end"
            )
