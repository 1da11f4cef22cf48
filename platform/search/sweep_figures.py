"""A sweep's figures as PNG: front, parallel coordinates, importance, hypervolume over trials."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation.seed_statistics import Summary
from ..figures import search_charts as charts
from ..tracking.metric_table import metric_label
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import name_point
from .sweep_groups import Groups, measure_groups
from .sweep_standing import broken_of, front_trials, hypervolumes, results_of

# Of so many configurations all have their names in the picture, of more those of the front.
_MOST_NAMES = 12


def draw_sweep(
    plan: SweepPlan,
    records: Mapping[int, TrialRecord],
    importances: Mapping[str, Mapping[str, float]],
    spans: Mapping[str, Mapping[str, tuple[float, float]]],
) -> dict[str, bytes]:
    """Draw all figures that the results allow.

    Args:
        plan: The sweep.
        records: Its trials by number.
        importances: Objective -> dotted key -> share, as `measure_importances` returns them.
        spans: Their intervals, likewise.

    Returns:
        Name -> PNG; empty where no trial is a result.
    """
    done = results_of(records)
    if not done:
        return {}
    names = [objective.metric for objective in plan.recipe.objectives]
    pictures = {"parallel": _draw_parallel(plan, done, names)}
    if len(names) > 1:
        pictures["front"] = draw_front(plan, records)
    if any(importances.values()):
        pictures["importance"] = charts.draw_importance_bars(importances, spans)
    volume = hypervolumes(plan, records)
    if volume is not None:
        pictures["hypervolume"] = charts.draw_hypervolume_curve(*volume, names=names)
    return pictures


def _draw_groups(plan: SweepPlan, groups: Groups) -> bytes:
    """The front over means of configurations, each with its interval in both objectives."""
    first, second = plan.recipe.objectives[:2]
    boxes = [(_span(group.summaries[1]), _span(group.summaries[0])) for group in groups.groups]
    means = [(group.summaries[1].mean, group.summaries[0].mean) for group in groups.groups]
    pairs = list(zip(means, groups.groups, strict=True))
    best = sorted(mean for mean, group in pairs if group.front)
    few = len(pairs) <= _MOST_NAMES
    named = [
        (mean, name_point(plan, group.point) or f"configuration {group.number}")
        for mean, group in pairs
        if few or group.front
    ]
    return charts.draw_pareto(
        means,
        best,
        (metric_label(second.metric), metric_label(first.metric)),
        _join_names(named),
        boxes=boxes,
        larger_is_better=second.direction == "maximize",
    )


def _join_names(
    named: Iterable[tuple[tuple[float, float], str]],
) -> dict[tuple[float, float], str]:
    """Text beside each point; equal points have the names of all."""
    names: dict[tuple[float, float], list[str]] = {}
    for point, name in named:
        names.setdefault(point, []).append(name)
    return {point: " = ".join(dict.fromkeys(alike)) for point, alike in names.items()}


def _span(summary: Summary) -> tuple[float, float]:
    """Ends of a mean's interval; of one value the value itself."""
    if summary.low is None or summary.high is None:
        return summary.mean, summary.mean
    return summary.low, summary.high


def draw_front(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> bytes:
    """Draw results over the first two objectives, the front as a staircase with labels.

    Results are trials; of a sweep with replicates they are means of configurations with their
    intervals in both objectives.

    Args:
        plan: The sweep, with at least two objectives.
        records: Its trials by number.

    Returns:
        PNG.
    """
    groups = measure_groups(plan, records)
    if groups is not None and groups.groups:
        return _draw_groups(plan, groups)
    first, second = plan.recipe.objectives[:2]
    best = sorted(front_trials(plan, records), key=lambda item: item.values[1])
    return charts.draw_pareto(
        [(item.values[1], item.values[0]) for item in results_of(records)],
        [(item.values[1], item.values[0]) for item in best],
        (metric_label(second.metric), metric_label(first.metric)),
        _join_names(((i.values[1], i.values[0]), label_trial(plan, i)) for i in best),
        outside=[(item.values[1], item.values[0]) for item in broken_of(records)],
        larger_is_better=second.direction == "maximize",
    )


def label_trial(plan: SweepPlan, item: TrialRecord) -> str:
    """`T2 D4 levels` where the sweep varies the neuron, else `trial 3`."""
    return name_point(plan, item.point) or f"trial {item.number}"


def _draw_parallel(plan: SweepPlan, done: Sequence[TrialRecord], names: Sequence[str]) -> bytes:
    keys = list(plan.recipe.space.dimensions)
    lines = [[*(_axis_value(r.point.get(key, "-")) for key in keys), *r.values] for r in done]
    titles = [*(key.rpartition(".")[2] for key in keys), *names]
    return charts.draw_parallel_coordinates(titles, lines, colour_by=len(keys))


def _axis_value(value: Any) -> float | str:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
