"""Pictures that people look at, as PNG bytes: contact sheets, curves, sweeps."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_NAMED_CLASSES = 60
_WRITTEN_CLASSES = 20
_LARGEST_DRAWN = 1e100


def draw_confusion(counts: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw the confusion matrix in percent of each true class's pixels.

    Args:
        counts: (K, K or K + 1) pixels by label and prediction; a last column K is left out.
        classes: K names.

    Returns:
        PNG.
    """
    number = len(classes)
    shares = 100 * counts[:, :number] / np.maximum(1, counts.sum(1, keepdims=True))
    side = 2.5 + 0.34 * min(number, 60)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="% of the true class's pixels", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    if number <= _NAMED_CLASSES:
        axes.set_xticks(range(number), classes, rotation=90, fontsize=8)
        axes.set_yticks(range(number), classes, fontsize=8)
    if number <= _WRITTEN_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 50 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", size=7, color=colour)
    return render_png(figure)


def draw_class_bars(values: Mapping[str, float | None]) -> bytes:
    """Draw a bar for the IoU of every class, the lowest at the bottom.

    Args:
        values: Class -> IoU in percent; None where the class never occurs, which is left out.

    Returns:
        PNG.
    """
    known = sorted(((v, name) for name, v in values.items() if v is not None))
    figure = Figure(figsize=(6, 0.8 + 0.2 * max(1, len(known))), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(known)), [value for value, _ in known], color="#3b6ea8")
    axes.set_yticks(range(len(known)), [name for _, name in known], fontsize=7)
    for position, (value, _) in enumerate(known):
        axes.text(value + 1, position, f"{value:.1f}", va="center", fontsize=7)
    axes.set_xlim(0, 108)
    axes.set_xlabel("IoU, %")
    # Names are anybody's: a $ in one is no formula.
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    return render_png(figure)


def draw_firing(rates: np.ndarray, layers: Sequence[str], steps: Sequence[int]) -> bytes:
    """Draw the mean spike count of every layer's input over training.

    Args:
        rates: (layers, steps) mean spike counts.
        layers: Names.
        steps: Optimizer steps.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(6.5, 1.5 + 0.14 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rates, aspect="auto", cmap="inferno", vmin=0, interpolation="nearest")
    figure.colorbar(image, label="mean spike count at the layer's input")
    axes.set_yticks(range(len(layers)), layers, fontsize=5)
    every = max(1, len(steps) // 8)
    axes.set_xticks(range(0, len(steps), every), [str(step) for step in steps[::every]])
    axes.set_xlabel("step")
    return render_png(figure)


def draw_curves(series: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """Draw one small plot per metric over steps.

    Args:
        series: Metric name -> (step, value) pairs.

    Returns:
        PNG.
    """
    return draw_compared_curves({name: {"": points} for name, points in series.items()})


def draw_compared_curves(series: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> bytes:
    """Draw one small plot per metric over steps, one line per run.

    Values that no axis can show (infinite, or MLflow's 1.8e308 for that) leave a gap.

    Args:
        series: Metric name -> name of the run -> (step, value) pairs.

    Returns:
        PNG.
    """
    names = [name for name, runs in series.items() if any(runs.values())]
    columns = min(3, max(1, len(names)))
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, index + 1)
        for run, points in series[name].items():
            steps = [step for step, _ in points]
            values = [value if abs(value) < _LARGEST_DRAWN else math.nan for _, value in points]
            axes.plot(steps, values, marker="o", markersize=3, linewidth=1.5, label=run)
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if index == 0 and len(series[name]) > 1:
            # Names are anybody's: a $ in one is no formula.
            for text in axes.legend(fontsize=7).get_texts():
                text.set_parse_math(False)
    return render_png(figure)


def render_png(figure: Figure) -> bytes:
    """Render a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
