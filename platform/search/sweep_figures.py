"""A sweep's figures as PNG: front, parallel coordinates, importance, hypervolume over trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..figures import search_charts as charts
from ..tracking.metric_table import metric_label
from ..tracking.pages.run_page import name_neuron
from .groups.intervals import Summary
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_groups import Groups, measure_groups
from .sweep_standing import broken_of, front_trials, hypervolumes, results_of

_NEURON = "model.neuron."


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
        groups = measure_groups(plan, records)
        shown = _draw_groups(groups, (names[1], names[0])) if groups and groups.groups else None
        pictures["front"] = shown or draw_front(plan, records)
    if any(importances.values()):
        pictures["importance"] = charts.draw_importance_bars(importances, spans)
    volume = hypervolumes(plan, records)
    if volume is not None:
        pictures["hypervolume"] = charts.draw_hypervolume_curve(*volume, names=names)
    return pictures


def _draw_groups(groups: Groups, labels: tuple[str, str]) -> bytes:
    """The front over means of configurations, each with its interval in both objectives."""
    boxes = [(_span(group.summaries[1]), _span(group.summaries[0])) for group in groups.groups]
    means = [(group.summaries[1].mean, group.summaries[0].mean) for group in groups.groups]
    best = sorted((m, g.number) for m, g in zip(means, groups.groups, strict=True) if g.front)
    return charts.draw_pareto(
        means,
        [mean for mean, _ in best],
        labels,
        [f"configuration {number}" for _, number in best],
        boxes=boxes,
    )


def _span(summary: Summary) -> tuple[float, float]:
    """Ends of a mean's interval; of one value the value itself."""
    if summary.low is None or summary.high is None:
        return summary.mean, summary.mean
    return summary.low, summary.high


def draw_front(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> bytes:
    """Draw the trials over the first two objectives, the front as a staircase with labels.

    Args:
        plan: The sweep, with at least two objectives.
        records: Its trials by number.

    Returns:
        PNG.
    """
    first, second = plan.recipe.objectives[:2]
    best = sorted(front_trials(plan, records), key=lambda item: item.values[1])
    return charts.draw_pareto(
        [(item.values[1], item.values[0]) for item in results_of(records)],
        [(item.values[1], item.values[0]) for item in best],
        (metric_label(second.metric), metric_label(first.metric)),
        [label_trial(plan, item) for item in best],
        outside=[(item.values[1], item.values[0]) for item in broken_of(records)],
        larger_is_better=second.direction == "maximize",
    )


def label_trial(plan: SweepPlan, item: TrialRecord) -> str:
    """`T2 D4 levels` where the sweep varies the neuron, else `trial 3`."""
    if any(key.startswith(_NEURON) for key in plan.recipe.space.dimensions):
        return name_neuron(plan.experiment(item.point).config)
    return f"trial {item.number}"


def _draw_parallel(plan: SweepPlan, done: Sequence[TrialRecord], names: Sequence[str]) -> bytes:
    keys = list(plan.recipe.space.dimensions)
    lines = [[*(_axis_value(r.point.get(key, "-")) for key in keys), *r.values] for r in done]
    titles = [*(key.rpartition(".")[2] for key in keys), *names]
    return charts.draw_parallel_coordinates(titles, lines, colour_by=len(keys))


def _axis_value(value: Any) -> float | str:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
