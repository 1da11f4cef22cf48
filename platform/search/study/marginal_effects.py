"""Importance of parameters with intervals, and the mean result at each value of a parameter."""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..groups.intervals import summarize
from ..sweep_file.schema import Objective
from .importance import measure_importances
from .replication import is_result
from .samplers import merge_replicates
from .trial_records import TrialRecord

_RESAMPLES = 60
_SEED = 28
_BINS = 4
_MOST_VALUES = 8


def measure_importance_intervals(
    study: optuna.Study, objectives: Sequence[Objective]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Estimate 95 % intervals of importances: results are drawn anew with replacement.

    Args:
        study: The sweep's study, with at least two results; a configuration with several seeds
            counts once, with its mean.
        objectives: Its objectives, in the study's order.

    Returns:
        Objective -> dotted key -> low and high share of 1. An interval that holds most of [0, 1]
        says that the results do not tell.
    """
    done = [
        trial
        for trial in merge_replicates(study.get_trials(deepcopy=False))
        if trial.state == TrialState.COMPLETE
    ]
    generator = np.random.default_rng(_SEED)
    drawn: dict[str, dict[str, list[float]]] = {item.metric: {} for item in objectives}
    for _ in range(_RESAMPLES):
        chosen = [done[index] for index in generator.integers(len(done), size=len(done))]
        for name, shares in measure_importances(_copy_study(study, chosen), objectives).items():
            for key, share in shares.items():
                drawn[name].setdefault(key, []).append(share)
    return {
        name: {
            key: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
            for key, values in shares.items()
        }
        for name, shares in drawn.items()
    }


def _copy_study(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study in memory of these trials, of which some may come twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied = optuna.create_study(directions=study.directions)
        copied.add_trials(
            [
                create_trial(params=t.params, distributions=t.distributions, values=t.values)
                for t in trials
            ]
        )
    return copied


def measure_marginal_effects(
    records: Mapping[int, TrialRecord], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[dict[str, Any]]:
    """Mean of each objective at each value of each parameter, over all else that was tried.

    Values of a sweep are not tried equally often beside each other, so a difference between two
    rows is no effect of the parameter alone; the interval says only how well the mean is known.

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
