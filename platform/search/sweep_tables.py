"""Tables of what a sweep's results say: importance, marginal effects, groups, where time went."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..config.stored_json import to_json
from .marginal_effects import ENOUGH_TRIALS, measure_marginal_effects
from .study.importance import measure_importance_intervals, measure_importances
from .study.study import Keeper
from .sweep_file.plan import SweepPlan
from .sweep_groups import Groups, describe_groups, describe_leader, group_rows, measure_groups
from .sweep_standing import results_of
from .trial_cost import spent_by_state


class Analysis(NamedTuple):
    """What the results of a sweep say beyond the list of its trials.

    Attributes:
        groups: Its configurations; None where it has no replicates.
        shares: Objective -> dotted key -> importance, empty of few results.
        spans: Their 95 % intervals, likewise.
        effects: Marginal effects, rows as `measure_marginal_effects` returns them.
        files: Name -> content of the tables.
    """

    groups: Groups | None
    shares: dict[str, dict[str, float]]
    spans: dict[str, dict[str, tuple[float, float]]]
    effects: list[dict[str, Any]]
    files: dict[str, str]

    def describe_leader(self, plan: SweepPlan) -> str:
        """The leading configuration in a sentence; empty without replicates."""
        if self.groups is None:
            return ""
        sentence = describe_leader(plan, self.groups)
        return f"{sentence[0].upper()}{sentence[1:]}."

    def describe_groups(self, plan: SweepPlan) -> str:
        """The table of groups in Markdown; empty without replicates."""
        return "" if self.groups is None else describe_groups(plan, self.groups)


def analyse_sweep(plan: SweepPlan, keeper: Keeper) -> Analysis:
    """Analyse the results of a sweep.

    Args:
        plan: The sweep.
        keeper: Its keeper, every trial ended.
    """
    objectives = plan.recipe.objectives
    shares: dict[str, dict[str, float]] = {}
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    files: dict[str, str] = {}
    if len(results_of(keeper.records)) >= ENOUGH_TRIALS:
        shares = measure_importances(keeper.study, objectives)
        spans = measure_importance_intervals(keeper.study, objectives)
        files["importance_intervals.json"] = to_json(spans)
    files["importance.json"] = to_json(shares)
    files["cost.json"] = to_json(spent_by_state(plan, keeper.records.values()))
    keys = list(plan.recipe.space.dimensions)
    effects = measure_marginal_effects(keeper.records, keys, objectives)
    if effects:
        files |= {"effects.json": to_json(effects), "effects.csv": to_csv(effects, effects)}
    groups = measure_groups(plan, keeper.records)
    if groups is not None:
        table = group_rows(plan, groups)
        files |= {"groups.json": to_json(table), "groups.csv": to_csv(table, table)}
    return Analysis(groups, shares, spans, effects, files)


def to_csv(rows: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV.

    Args:
        rows: What is written.
        every: Rows whose keys, in order, are the columns.
    """
    keys = list(dict.fromkeys(key for row in every for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, keys, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
