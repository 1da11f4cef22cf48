"""Marginal effect of each parameter of a sweep: means of an objective by value, and their range."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan

ENOUGH_TRIALS = 20
"""Completed trials from which on an estimate of importance is shown."""
_FEW_VALUES = 8


class ValueMean(NamedTuple):
    """Results in which a parameter has one value, or lies in one half of its range.

    Attributes:
        value: The value, or the half in words.
        results: How many results.
        mean: Mean of the objective over them.
    """

    value: str
    results: int
    mean: float


class MarginalEffect(NamedTuple):
    """What an objective does on average where a parameter changes.

    Attributes:
        key: Dotted key of the parameter.
        groups: Means by value; fewer than two where the results have one value alone.
        effect: Largest mean minus smallest.
    """

    key: str
    groups: tuple[ValueMean, ...]
    effect: float


def measure_effects(
    plan: SweepPlan, results: Sequence[TrialRecord], axis: int
) -> list[MarginalEffect]:
    """Marginal effects on an objective, the largest first.

    Args:
        plan: The sweep.
        results: Trials that count as results.
        axis: Index of the objective.
    """
    effects = []
    for key in plan.recipe.space.dimensions:
        pairs = [(item.point[key], item.values[axis]) for item in results if key in item.point]
        groups = tuple(_group(pairs))
        means = [group.mean for group in groups]
        effects.append(MarginalEffect(key, groups, max(means) - min(means) if means else 0.0))
    return sorted(effects, key=lambda item: -item.effect)


def _group(pairs: Sequence[tuple[Any, float]]) -> list[ValueMean]:
    texts = {json.dumps(value): value for value, _ in pairs}
    numbers = [v for v in texts.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(texts) > _FEW_VALUES and len(numbers) == len(texts):
        middle = statistics.median(value for value, _ in pairs)
        halves = {
            f"up to {middle:.3g}": [score for value, score in pairs if value <= middle],
            f"above {middle:.3g}": [score for value, score in pairs if value > middle],
        }
    else:
        ordered = sorted(
            texts,
            key=lambda text: (
                isinstance(texts[text], str),
                texts[text] if len(numbers) == len(texts) else text,
            ),
        )
        halves = {
            _as_text(texts[text]): [s for value, s in pairs if json.dumps(value) == text]
            for text in ordered
        }
    return [
        ValueMean(name, len(scores), math.fsum(scores) / len(scores))
        for name, scores in halves.items()
        if scores
    ]


def _as_text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def why_no_importance(
    shares: Mapping[str, float], effects: Sequence[MarginalEffect], completed: int
) -> str:
    """Why an estimate of importance is not shown, in a sentence; empty where it is.

    Args:
        shares: Dotted key -> estimated share.
        effects: The marginal effects on the same objective, the largest first.
        completed: Completed trials.
    """
    if completed < ENOUGH_TRIALS:
        return (
            f"Importance is not estimated: {completed} completed trials say too little, "
            f"{ENOUGH_TRIALS} are needed."
        )
    largest = sorted(shares, key=lambda key: -shares[key])[:2]
    marginal = [item.key for item in effects[:2]]
    if largest != marginal:
        return (
            f"Importance (PED-ANOVA) is not shown: it puts {' before '.join(largest)}, the "
            f"marginal effects put {' before '.join(marginal)}."
        )
    return ""


def choose_importances(
    plan: SweepPlan,
    results: Sequence[TrialRecord],
    shares: Mapping[str, Mapping[str, float]],
    completed: int,
) -> dict[str, dict[str, float]]:
    """The estimates of importance that may be shown.

    Args:
        plan: The sweep.
        results: Trials that count as results.
        shares: Objective -> dotted key -> share.
        completed: Completed trials.
    """
    kept = {}
    for axis, objective in enumerate(plan.recipe.objectives):
        of_one = shares.get(objective.metric, {})
        effects = measure_effects(plan, results, axis)
        if of_one and not why_no_importance(of_one, effects, completed):
            kept[objective.metric] = dict(of_one)
    return kept
