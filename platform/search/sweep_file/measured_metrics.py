"""Check that objectives, constraints and limits are measured, and can tell trials apart."""

from collections.abc import Callable, Iterator, Mapping

from ...config.recipes import ConfigError, nearest
from ...config.schema import ExperimentConfig
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
    for key, item in _items(recipe):
        field, rule = _broken_rule(recipe, base, key, item)
        if rule:
            key = f"{key}.{field}" if field else key
            at = lines.get(key, lines.get(key.removesuffix(f".{field}"), source))
            raise ConfigError(f"{at}: {key}: {rule}")


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


def _broken_rule(
    recipe: SweepRecipe, base: ExperimentConfig, key: str, item: Objective | Limit
) -> tuple[str, str]:
    """Field and sentence of the first rule that an item breaks; empty where it breaks none."""
    measured = evaluation_metrics(base.data.task)
    if item.metric not in measured:
        names = ", ".join(map(_listed, measured))
        why = _why_not_measured(item.metric, measured)
        return (
            "metric",
            f"got {item.metric!r}{why}; an evaluation of {recipe.base} measures {names}",
        )
    high = METRICS[item.metric].high
    if isinstance(item, Objective):
        worst = item.reference
        if worst is None or (worst < high if item.direction == "maximize" else worst > 0):
            return "", ""
        return "reference", (
            f"got {worst:g}: must be worse than results of interest, and {item.metric} (0 to "
            f"{high:g}) is never better than it"
        )
    if rule := _same_for_all(item, high):
        return "", f"got {item}: {item.metric} is 0 to {high:g}, {rule}"
    if key.startswith("constraints."):
        rule = "constraints are about the last evaluation; pruner.limits stop trials earlier"
        return ("after", f"got {item.after}: {rule}") if item.after else ("", "")
    every = base.trainer.evaluate_every
    newest = (base.trainer.max_steps - 1) // every * every
    if newest >= max(item.after, every):
        return "", ""
    return "after", (
        f"got {item.after}: stops no trial, whose last evaluation before its end is at step "
        f"{newest}; constraints are about the end"
    )


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


def _same_for_all(limit: Limit, top: float) -> str:
    """Why a limit on a metric of [0, top] is the same for all trials; empty where it is not."""
    low, high = limit.at_least, limit.at_most
    if (high is not None and high < 0) or (low is not None and low > top):
        return "so no trial can keep it"
    if (high is not None and high >= top) or (low is not None and low <= 0):
        return "so every trial keeps it"
    return ""
