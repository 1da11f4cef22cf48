"""A sweep's figures as PNG: front, parallel coordinates, importance, hypervolume over trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..figures import charts as figures
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_status import broken_of, front_trials, hypervolumes, results_of


def sweep_pictures(
    plan: SweepPlan,
    records: Mapping[int, TrialRecord],
    importances: Mapping[str, Mapping[str, float]],
) -> dict[str, bytes]:
    """All figures that the results allow.

    Args:
        plan: The sweep.
        records: Its trials by number.
        importances: Objective -> dotted key -> share, as `outcome.importances` gives them.

    Returns:
        Name -> PNG; empty where no trial is a result.
    """
    done = results_of(records)
    if not done:
        return {}
    names = [objective.metric for objective in plan.recipe.objectives]
    pictures = {"parallel": _parallel(plan, done, names)}
    if len(names) > 1:
        best = sorted(front_trials(plan, records), key=lambda item: item.values[1])
        pictures["front"] = figures.pareto(
            [(item.values[1], item.values[0]) for item in done],
            [(item.values[1], item.values[0]) for item in best],
            (names[1], names[0]),
            [f"trial {item.number}" for item in best],
            outside=[(item.values[1], item.values[0]) for item in broken_of(records)],
        )
    if any(importances.values()):
        pictures["importance"] = importance_bars(importances)
    volume = hypervolumes(plan, records)
    if volume is not None:
        pictures["hypervolume"] = hypervolume_curve(*volume, names=names)
    return pictures


def importance_bars(importances: Mapping[str, Mapping[str, float]]) -> bytes:
    """One group of bars per parameter, one colour per objective.

    Args:
        importances: Objective -> dotted key -> share in [0, 1].

    Returns:
        PNG.
    """
    keys = list(dict.fromkeys(key for shares in importances.values() for key in shares))
    figure = Figure(figsize=(6.5, 0.45 * len(keys) * len(importances) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(importances)
    for index, (objective, shares) in enumerate(importances.items()):
        places = [row + index * height for row in range(len(keys))]
        axes.barh(places, [shares.get(key, 0.0) for key in keys], height, label=objective)
    middle = 0.4 - height / 2
    axes.set_yticks([row + middle for row in range(len(keys))], keys, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("importance (PED-ANOVA, shares of 1)", fontsize=8)
    axes.legend(fontsize=8)
    return figures.rendered(figure)


def hypervolume_curve(
    reference: tuple[float, float], values: Sequence[float], *, names: Sequence[str]
) -> bytes:
    """The front's hypervolume after each result.

    Args:
        reference: The point it is measured against.
        values: One value a result, in the order of the trials' numbers.
        names: The objectives.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step(range(1, len(values) + 1), values, where="post", color="#c81e2d")
    axes.set_xlabel("results, by trial number", fontsize=8)
    axes.set_ylabel("hypervolume", fontsize=8)
    axes.set_title(
        f"reference: {names[0]} {reference[0]:.4g}, {names[1]} {reference[1]:.4g}", fontsize=9
    )
    axes.grid(alpha=0.3)
    return figures.rendered(figure)


def _parallel(plan: SweepPlan, done: Sequence[TrialRecord], names: Sequence[str]) -> bytes:
    keys = list(plan.recipe.space.dimensions)
    lines = [[*(_shown(r.point.get(key, "-")) for key in keys), *r.values] for r in done]
    titles = [*(key.rpartition(".")[2] for key in keys), *names]
    return figures.parallel_coordinates(titles, lines, colour_by=len(keys))


def _shown(value: Any) -> float | str:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
