"""A sweep's charts as PNG: front, parallel coordinates, importance, hypervolume over trials."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .charts import render_png


def draw_pareto(  # noqa: PLR0913
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    names: Mapping[tuple[float, float], str] | None = None,
    outside: Sequence[tuple[float, float]] = (),
    boxes: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    *,
    larger_is_better: bool = False,
) -> bytes:
    """Draw trials as points over two objectives, the front joined as a staircase.

    Args:
        points: All finished trials.
        front: Those that no other beats in both.
        labels: Names of the axes.
        names: Text beside points.
        outside: Finished trials that break a constraint.
        boxes: For each point the ends of its interval along both axes; where they are given, points
            are means of several trainings.
        larger_is_better: Whether that holds of the first axis, along which the staircase then
            rises before its points instead of behind them.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    if outside:
        label = "finished, break a constraint"
        axes.scatter(*zip(*outside, strict=True), color="0.65", marker="x", label=label)
    if points:
        label = "means of seeds, 95 % intervals" if boxes else "finished trials"
        axes.scatter(*zip(*points, strict=True), color="0.65", label=label)
    for (x, y), ((left, right), (low, high)) in zip(points, boxes, strict=False):
        reach = [[x - left], [right - x]], [[y - low], [high - y]]
        axes.errorbar([x], [y], xerr=reach[0], yerr=reach[1], color="0.65", capsize=2, zorder=1)
    if front:
        ordered = sorted(front)
        where = "pre" if larger_is_better else "post"
        axes.step(*zip(*ordered, strict=True), "o-", where=where, color="#c81e2d", label="front")
    for point, name in (names or {}).items():
        colour = "black" if point in front else "0.4"
        text = axes.annotate(
            name, point, textcoords="offset points", xytext=(5, 5), fontsize=8, color=colour
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    if names:
        # Room for the text of the last point.
        axes.margins(x=0.15)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    if points:
        axes.legend(fontsize=8)
    return render_png(figure)


def draw_parallel_coordinates(
    names: Sequence[str], trials: Sequence[Sequence[float | str]], colour_by: int
) -> bytes:
    """Draw trials as lines over one axis per parameter or objective.

    Args:
        names: Axis titles.
        trials: Per trial one value per axis; words become evenly spaced ticks.
        colour_by: Index of the numeric axis that colours the lines.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(1.9 * len(names) + 1, 4), layout="constrained")
    axes = figure.add_subplot()
    columns = [_scale_axis([trial[i] for trial in trials]) for i in range(len(names))]
    colours = columns[colour_by][0]
    for trial in range(len(trials)):
        heights = [column[0][trial] for column in columns]
        axes.plot(range(len(names)), heights, color=_colour_line(colours[trial]), alpha=0.85)
    for index, (_, ticks) in enumerate(columns):
        axes.axvline(index, color="0.3", linewidth=0.8)
        for height, text in ticks:
            axes.text(index + 0.03, height, text, fontsize=8, va="center")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.6)
    return render_png(figure)


def _scale_axis(values: Sequence[float | str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Scale the values of one axis to 0..1; returns them and the axis's ticks."""
    if all(isinstance(value, int | float) for value in values):
        numbers = [float(value) for value in values]
        low, high = min(numbers), max(numbers)
        span = high - low or 1.0
        heights = [(number - low) / span for number in numbers]
        return heights, [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [
            (0.0, f"{low:.4g}")
        ]
    words = sorted({str(value) for value in values})
    step = 1 / max(1, len(words) - 1)
    height = {word: index * step for index, word in enumerate(words)}
    return [height[str(value)] for value in values], [(height[word], word) for word in words]


def _colour_line(share: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    return colormaps["viridis"](share)


def draw_importance_bars(
    importances: Mapping[str, Mapping[str, float]],
    spans: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> bytes:
    """Draw one group of bars per parameter, one colour per objective.

    Args:
        importances: Objective -> dotted key -> share in [0, 1].
        spans: Objective -> dotted key -> ends of the share's interval, drawn as a whisker.

    Returns:
        PNG.
    """
    keys = list(dict.fromkeys(key for shares in importances.values() for key in shares))
    figure = Figure(figsize=(6.5, 0.45 * len(keys) * len(importances) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(importances)
    for index, (objective, shares) in enumerate(importances.items()):
        positions = [row + index * height for row in range(len(keys))]
        axes.barh(positions, [shares.get(key, 0.0) for key in keys], height, label=objective)
        for position, key in zip(positions, keys, strict=True):
            span = (spans or {}).get(objective, {}).get(key)
            if span is not None:
                axes.plot(span, (position, position), color="0.2", linewidth=1.2)
    middle = 0.4 - height / 2
    axes.set_yticks([row + middle for row in range(len(keys))], keys, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("importance (PED-ANOVA, shares of 1)", fontsize=8)
    axes.legend(fontsize=8)
    return render_png(figure)


def draw_hypervolume_curve(
    reference: tuple[float, float], values: Sequence[float], *, names: Sequence[str]
) -> bytes:
    """Draw the front's hypervolume after each result.

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
    return render_png(figure)
