"""The part of a sweep's report about configurations with several seeds: a table an objective."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..evaluation.number_text import round_difference, round_interval, round_metric, round_share
from .groups.comparisons import Comparison
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import call_configuration, list_unnamed
from .sweep_groups import REFERENCE, Group, Groups, describe_leader

Cell = tuple[str, Any]
"""What a cell shows, and the value with every digit; the latter is empty where there is none."""


class GroupTable(NamedTuple):
    """Configurations by one objective.

    Attributes:
        metric: The objective.
        sentence: Which is the best, or what cannot be told.
        head: Names of the columns.
        rows: Cells of each configuration, from the best mean on, and whether it is on the front.
    """

    metric: str
    sentence: str
    head: list[str]
    rows: list[tuple[list[Cell], bool]]


def tabulate_groups(plan: SweepPlan, groups: Groups) -> Iterator[GroupTable]:
    """Tables of means with deviations, intervals and comparisons, one an objective.

    Args:
        plan: The sweep.
        groups: As `measure_groups` returns them, at least one.
    """
    keys = [key.rpartition(".")[2] for key in list_unnamed(plan)]
    resampled = any(ends is not None for group in groups.groups for ends in group.bootstraps)
    for axis, objective in enumerate(plan.recipe.objectives):
        head = ["configuration", *keys, "seeds", "mean", "standard deviation", "95 % interval"]
        head += ["bootstrap interval"] if resampled else []
        head += [
            f"against {REFERENCE}",
            "its 95 % interval",
            "p",
            "p (Holm)",
            "effect (d_z)",
            "verdict",
        ]
        ordered = sorted(
            groups.groups,
            key=lambda group: (objective.sign * group.summaries[axis].mean, group.number),
        )
        rows = [
            (list(_list_cells(plan, groups, group, axis, resampled=resampled)), group.front)
            for group in ordered
        ]
        sentence = describe_leader(plan, groups, axis)
        told = f"{sentence[0].upper()}{sentence[1:]}."
        yield GroupTable(objective.metric, told, head, rows)


def _list_cells(
    plan: SweepPlan, groups: Groups, group: Group, axis: int, *, resampled: bool
) -> Iterator[Cell]:
    metric = plan.recipe.objectives[axis].metric
    summary = group.summaries[axis]
    yield call_configuration(plan, group.number, group.point), ""
    for key in list_unnamed(plan):
        value = group.point.get(key, "-")
        yield (f"{value:.3g}" if isinstance(value, float) else str(value)), value
    yield str(summary.seeds), ", ".join(f"trial {number}" for number in group.trials)
    yield round_metric(metric, summary.mean), summary.mean
    yield round_metric(metric, summary.deviation), summary.deviation
    yield _interval(metric, summary.low, summary.high)
    if resampled:
        yield _interval(metric, *(group.bootstraps[axis] or (None, None)))
    sign = -plan.recipe.objectives[axis].sign
    yield from _compare(metric, group.comparisons[axis] if group.comparisons else None, sign)
    yield _judge(plan, groups, group, axis), ""


def _compare(metric: str, item: Comparison | None, sign: int) -> Iterator[Cell]:
    """Difference to the reference in the metric's own direction, its interval, p, effect size."""
    if item is None or item.difference is None:
        yield from (("-", "") for _ in range(5))
        return
    yield round_difference(metric, sign * item.difference), sign * item.difference
    if item.low is None or item.high is None:
        yield from (("-", "") for _ in range(4))
        return
    yield _interval(metric, *sorted((sign * item.low, sign * item.high)))
    yield round_share(item.p), item.p
    yield round_share(item.adjusted), item.adjusted
    effect = None if item.effect is None else sign * item.effect
    yield ("-" if effect is None else f"{effect:+.2f}"), effect


def _interval(metric: str, low: float | None, high: float | None) -> Cell:
    if low is None or high is None:
        return "-", ""
    return round_interval(metric, low, high), f"{low} to {high}"


def _judge(plan: SweepPlan, groups: Groups, group: Group, axis: int) -> str:
    """What is known of a configuration beside the one with the best mean."""
    leader = groups.leaders[axis]
    if group.stopped_by is not None:
        return f"no further seeds: {group.stopped_by} is clearly better"
    if group.number == leader.name:
        alone = len(groups.groups) == 1
        end = "highest" if plan.recipe.objectives[axis].direction == "maximize" else "lowest"
        return "best" if leader.crowned and not alone else f"{end}, not the best for sure"
    return f"cannot be told from {leader.name}" if group.number in leader.rivals else "worse"
