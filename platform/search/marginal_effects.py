"""Marginal effects of a sweep's parameters: mean results by value, with intervals."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.seed_statistics import summarize
from .study.replication import is_result
from .study.trial_records import TrialRecord
from .sweep_file.schema import Objective

ENOUGH_TRIALS = 20
"""Completed trials from which on an estimate of importance is shown."""
_BINS = 4
_MOST_VALUES = 8


class MarginalEffect(NamedTuple):
    """What an objective does on average where a parameter changes.

    Attributes:
        key: Dotted key of the parameter.
        rows: Rows of `measure_marginal_effects` of this parameter, one a value.
        effect: Largest mean minus smallest; None where there is one value, or each was tried once.
    """

    key: str
    rows: tuple[Mapping[str, Any], ...]
    effect: float | None


def measure_marginal_effects(
    records: Mapping[int, TrialRecord], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[dict[str, Any]]:
    """Mean of each objective at each value of each parameter, over all else that was tried.

    Values of a sweep are not tried equally often beside each other, so a difference between two
    rows is no effect of the parameter alone; the interval says only how well the mean is known.
    Degenerate results count: without them a value that keeps a network from learning would look
    harmless.

    Args:
        records: Trials by number; configurations count once, with the mean of their results.
        keys: Dotted keys of the space; numbers of more than 8 values are put into quarters.
        objectives: The sweep's objectives.

    Returns:
        Rows of key, value, configurations, and for each objective mean and 95 % interval; ends of
        an interval are None of one configuration.
    """
    points, means = _configurations(records)
    rows = []
    for key in keys:
        there = [number for number in points if key in points[number]]
        labels = _label_values([points[number][key] for number in there])
        for label in dict.fromkeys(sorted(labels, key=lambda text: (text[0], str(text[1])))):
            members = [n for n, other in zip(there, labels, strict=True) if other == label]
            row: dict[str, Any] = {"key": key, "value": label[1], "configurations": len(members)}
            for axis, objective in enumerate(objectives):
                summary = summarize([means[number][axis] for number in members])
                row |= {
                    objective.metric: summary.mean,
                    f"{objective.metric} low": summary.low,
                    f"{objective.metric} high": summary.high,
                }
            rows.append(row)
    return rows


def _configurations(
    records: Mapping[int, TrialRecord],
) -> tuple[dict[int, dict[str, Any]], dict[int, list[float]]]:
    """Point and mean objective values of each configuration with a result."""
    points: dict[int, dict[str, Any]] = {}
    values: dict[int, list[tuple[float, ...]]] = {}
    for _, item in sorted(records.items()):
        if is_result(item):
            points[item.group] = item.point
            values.setdefault(item.group, []).append(item.values)
    means = {
        number: [sum(axis) / len(axis) for axis in zip(*several, strict=True)]
        for number, several in values.items()
    }
    return points, means


def _label_values(values: Sequence[Any]) -> list[tuple[float, Any]]:
    """An order and a name for each value: the value itself, or the quarter that it is in."""
    different = {json.dumps(value) for value in values}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers:
        return [(0.0, value if isinstance(value, str) else json.dumps(value)) for value in values]
    if len(different) <= _MOST_VALUES:
        return [(float(value), value) for value in values]
    edges = np.quantile(values, np.linspace(0, 1, _BINS + 1))
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    return [
        (float(edges[place]), f"{edges[place]:.3g} to {edges[place + 1]:.3g}") for place in places
    ]


def rank_effects(rows: Sequence[Mapping[str, Any]], metric: str) -> list[MarginalEffect]:
    """Marginal effects on an objective, the largest first.

    Args:
        rows: As `measure_marginal_effects` returns them.
        metric: The objective's name.
    """
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_key.setdefault(row["key"], []).append(row)
    effects = []
    for key, of_one in by_key.items():
        means = [row[metric] for row in of_one]
        known = len(of_one) > 1 and any(row["configurations"] > 1 for row in of_one)
        effect = max(means) - min(means) if known else None
        effects.append(MarginalEffect(key, tuple(of_one), effect))
    return sorted(effects, key=lambda item: (item.effect is None, -(item.effect or 0.0)))


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
    rows: Sequence[Mapping[str, Any]], shares: Mapping[str, Mapping[str, float]], completed: int
) -> dict[str, dict[str, float]]:
    """The estimates of importance that may be shown.

    Args:
        rows: As `measure_marginal_effects` returns them.
        shares: Objective -> dotted key -> share.
        completed: Completed trials.
    """
    return {
        metric: dict(of_one)
        for metric, of_one in shares.items()
        if of_one and not why_no_importance(of_one, rank_effects(rows, metric), completed)
    }
