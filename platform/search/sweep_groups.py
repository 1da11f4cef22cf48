"""Configurations as groups of trainings: means, intervals, comparisons, and which one is best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.seed_statistics import Summary, bootstrap_interval, summarize
from .groups.comparisons import Comparison, Leader, Values, compare_with, find_leader
from .study.pareto import front
from .study.replication import Replication
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import call_configuration, list_unnamed

REFERENCE = 0
"""First trial of the configuration that all others are compared with: the sweep's first point."""


class Group(NamedTuple):
    """A configuration that was trained with several seeds.

    Attributes:
        number: Number of its first trial.
        point: Dotted key -> value, without the seed.
        seeds: Seeds of its results.
        trials: Numbers of its results, in the order of the seeds.
        summaries: For each objective mean, deviation and interval, in its own unit.
        bootstraps: For each objective the ends of the bootstrap interval; None of few seeds.
        comparisons: For each objective the comparison with the reference, of which larger is
            better; empty for the reference itself, and where that is no group.
        stopped_by: The group that was clearly better, where this one got no further seeds.
        front: Whether no other group has a better mean in every objective.
    """

    number: int
    point: dict[str, Any]
    seeds: list[int]
    trials: list[int]
    summaries: list[Summary]
    bootstraps: list[tuple[float, float] | None]
    comparisons: list[Comparison]
    stopped_by: int | None
    front: bool


class Groups(NamedTuple):
    """All groups of a sweep.

    Attributes:
        groups: From the best mean of the first objective on.
        leaders: For each objective the best, and what it cannot be told from; empty where there
            is no group.
    """

    groups: list[Group]
    leaders: list[Leader]

    @property
    def leader(self) -> Leader | None:
        """The best by the first objective; None where there is no group."""
        return self.leaders[0] if self.leaders else None


def score_groups(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> list[float]:
    """Means of all objectives of the group with the best mean of the first; empty without a group.

    Args:
        plan: The sweep.
        records: Its trials by number.
    """
    if plan.recipe.replicates is None:
        return []
    objectives = plan.recipe.objectives
    members = Replication(plan.recipe.replicates, objectives, seed=plan.base.config.seed).members(
        records
    )
    means = [np.mean([item.values for item in items], axis=0) for items in members.values()]
    best = min(means, key=lambda mean: objectives[0].sign * mean[0], default=None)
    return [] if best is None else best.tolist()


def measure_groups(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> Groups | None:
    """Measure the groups of a sweep; None where it has no replicates.

    Args:
        plan: The sweep.
        records: Its trials by number.
    """
    if plan.recipe.replicates is None:
        return None
    objectives = plan.recipe.objectives
    replication = Replication(plan.recipe.replicates, objectives, seed=plan.base.config.seed)
    members = replication.members(records)
    if not members:
        return Groups([], [])
    values = replication.values(records, list(members))
    axes = range(len(objectives))
    compared = [_compare(values, axis) for axis in axes]
    summaries = {
        number: [summarize([item.values[axis] for item in items]) for axis in axes]
        for number, items in members.items()
    }
    configurations = sum(item.original is None for item in records.values())
    stopped = replication.stopped(records, configurations)
    numbers = list(members)
    signed = [
        [o.sign * s.mean for o, s in zip(objectives, summaries[number], strict=True)]
        for number in numbers
    ]
    best = {numbers[index] for index in front(signed)}
    groups = [
        Group(
            number,
            {key: value for key, value in items[0].point.items() if key != "seed"},
            [item.point["seed"] for item in items],
            [item.number for item in items],
            summaries[number],
            [bootstrap_interval([item.values[axis] for item in items]) for axis in axes],
            [column[number] for column in compared if number in column],
            stopped.get(number) if len(items) < plan.recipe.replicates.seeds else None,
            number in best,
        )
        for number, items in members.items()
    ]
    sign = objectives[0].sign
    groups.sort(key=lambda group: (sign * group.summaries[0].mean, group.number))
    leaders = [find_leader({number: values[number][axis] for number in numbers}) for axis in axes]
    return Groups(groups, leaders)


def _compare(values: Mapping[int, Sequence[Values]], axis: int) -> dict[int, Comparison]:
    if REFERENCE not in values:
        return {}
    return compare_with({number: item[axis] for number, item in values.items()}, REFERENCE)


def group_rows(plan: SweepPlan, groups: Groups) -> list[dict[str, Any]]:
    """Rows of `groups.json` and `groups.csv`, from the best mean of the first objective on.

    Args:
        plan: The sweep.
        groups: As `measure_groups` returns them.
    """
    rows = []
    for group in groups.groups:
        row: dict[str, Any] = {"group": group.number, **group.point, "seeds": len(group.seeds)}
        for axis, objective in enumerate(plan.recipe.objectives):
            row |= _columns(objective.metric, group.summaries[axis], group.bootstraps[axis])
            if group.comparisons:
                item = group.comparisons[axis]
                row |= _difference_columns(objective.metric, item, -objective.sign)
        rival = groups.leader is not None and group.number in groups.leader.rivals
        row |= {
            "front": group.front,
            "leader": groups.leader is not None and group.number == groups.leader.name,
            "not_told_from_leader": rival,
            "stopped_by": "" if group.stopped_by is None else group.stopped_by,
            "trials": " ".join(map(str, group.trials)),
        }
        rows.append(row)
    return rows


def _columns(
    metric: str, summary: Summary, bootstrap: tuple[float, float] | None
) -> dict[str, Any]:
    low, high = bootstrap or ("", "")
    return {
        metric: summary.mean,
        f"{metric} deviation": _blank(summary.deviation),
        f"{metric} low": _blank(summary.low),
        f"{metric} high": _blank(summary.high),
        f"{metric} bootstrap low": low,
        f"{metric} bootstrap high": high,
    }


def _difference_columns(metric: str, item: Comparison, sign: int) -> dict[str, Any]:
    """Columns of a comparison, its difference in the metric's own direction."""
    ends = [end for end in (item.low, item.high) if end is not None]
    low, high = sorted(sign * end for end in ends) if ends else ("", "")
    return {
        f"{metric} difference": "" if item.difference is None else sign * item.difference,
        f"{metric} difference low": low,
        f"{metric} difference high": high,
        f"{metric} p": item.p,
        f"{metric} p (Holm)": item.adjusted,
        f"{metric} effect": "" if item.effect is None else sign * item.effect,
    }


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def describe_leader(plan: SweepPlan, groups: Groups, axis: int = 0) -> str:
    """Which configuration is best, by how much, or what cannot be told, in one or two sentences.

    Args:
        plan: The sweep.
        groups: As `measure_groups` returns them.
        axis: Index of the objective.
    """
    if not groups.leaders:
        return "no configuration has a result with the seeds of a group"
    leader = groups.leaders[axis]
    metric = plan.recipe.objectives[axis].metric
    group = next(item for item in groups.groups if item.number == leader.name)
    mean = describe_summary(group.summaries[axis])
    names = {
        item.number: call_configuration(plan, item.number, item.point) for item in groups.groups
    }
    begin = f"configuration {names[leader.name]} has the best mean {metric}, {mean}"
    if len(groups.groups) == 1:
        return f"{begin}; there is no other group to compare it with"
    if leader.crowned:
        return (
            f"{begin}, and is better than each of the {len(groups.groups) - 1} other "
            "configurations by more than chance (paired t tests, Holm, 5 % over all)"
        )
    rivals = ", ".join(names[number] for number in leader.rivals)
    return f"{begin}; it cannot be told from configuration {rivals}: there is no best one"


def describe_groups(plan: SweepPlan, groups: Groups) -> str:
    """Groups as a table in Markdown: means with intervals, differences to the reference.

    Args:
        plan: The sweep.
        groups: As `measure_groups` returns them.
    """
    keys = list_unnamed(plan)
    names = [objective.metric for objective in plan.recipe.objectives]
    ends = [key.rpartition(".")[2] for key in keys]
    heads = ["configuration", *ends, *names, f"against {REFERENCE}", "p (Holm)", "front"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    sign = -plan.recipe.objectives[0].sign
    for group in groups.groups:
        item = group.comparisons[0] if group.comparisons else None
        cells = [
            call_configuration(plan, group.number, group.point),
            *(_shorten(group.point.get(key, "")) for key in keys),
            *map(describe_summary, group.summaries),
            "" if item is None or item.difference is None else f"{sign * item.difference:+.3g}",
            "" if item is None else f"{item.adjusted:.2g}",
            "yes" if group.front else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shorten(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe_summary(summary: Summary) -> str:
    """A mean with its 95 % interval and number of seeds, such as `40.1 [38.2, 42.0] (3 seeds)`."""
    seeds = f"({summary.seeds} seed{'' if summary.seeds == 1 else 's'})"
    if summary.low is None or summary.high is None:
        return f"{summary.mean:.4g} {seeds}"
    return f"{summary.mean:.4g} [{summary.low:.4g}, {summary.high:.4g}] {seeds}"
