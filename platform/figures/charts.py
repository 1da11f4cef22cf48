"""Pictures that people look at, as PNG bytes: contact sheets, curves, sweeps."""

import io
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ...datasets.spec import LabelSpace

_MARGIN = 6
_CAPTION = 18
_SHORT_SIDE = 160
_NAMED_CLASSES = 60
_WRITTEN_CLASSES = 20
_LARGEST_DRAWN = 1e100
_RIGHT = (224, 224, 224)
_WRONG = (200, 30, 45)


def png(array: np.ndarray) -> bytes:
    """PNG of (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def colour_labels(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """(H, W) uint8 train ids as (H, W, 3) uint8 colours; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(space.palette)] = np.array(space.palette, np.uint8)
    table[space.ignore_label] = 0
    return table[label]


def overlay(image: np.ndarray, label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Image and label colours in equal parts, (H, W, 3) uint8."""
    return ((image.astype(np.uint16) + colour_labels(label, space)) // 2).astype(np.uint8)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    space: LabelSpace,
    spikes: Sequence[np.ndarray] = (),
) -> bytes:
    """Image, truth, prediction and error of a few rows, with a legend.

    Args:
        rows: Id, (H, W, 3) uint8 image, (H, W) uint8 truth, (H, W) uint8 prediction.
        space: Names and colours.
        spikes: Per row a (h, w) map of mean spike counts, where one was taken.

    Returns:
        PNG.
    """
    highest = max((float(item.max()) for item in spikes), default=0.0)
    strips = [
        _strip(*row, space, [spike_colours(item, highest) for item in spikes[index : index + 1]])
        for index, row in enumerate(rows)
    ]
    width = max(strip.width for strip in strips)
    legend = _legend(space, width)
    height = sum(strip.height for strip in strips) + legend.height + _CAPTION
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    titles = ["image", "truth", "prediction", "error (red)"]
    if spikes:
        titles.append(f"spikes, 0 to {highest:.2g}")
    cell = width // len(titles)
    for column, title in enumerate(titles):
        pen.text((column * cell + _MARGIN, 3), title, fill="black", font=_font(13))
    top = _CAPTION
    for strip in (*strips, legend):
        sheet.paste(strip, (0, top))
        top += strip.height
    return png(np.asarray(sheet))


def spike_colours(spikes: np.ndarray, highest: float) -> np.ndarray:
    """(h, w) mean spike counts as (h, w, 3) uint8 colours, dark at 0 and bright at `highest`."""
    from matplotlib import colormaps

    scaled = spikes / (highest or 1.0)
    return (colormaps["inferno"](scaled)[..., :3] * 255).astype(np.uint8)


def confusion(counts: np.ndarray, classes: Sequence[str]) -> bytes:
    """Confusion matrix in percent of each true class's pixels.

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
    return rendered(figure)


def firing(rates: np.ndarray, layers: Sequence[str], steps: Sequence[int]) -> bytes:
    """Mean spike count of every layer's input over training.

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
    return rendered(figure)


def curves(series: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """One small plot per metric over steps.

    Args:
        series: Metric name -> (step, value) pairs.

    Returns:
        PNG.
    """
    return compared_curves({name: {"": points} for name, points in series.items()})


def compared_curves(series: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> bytes:
    """One small plot per metric over steps, one line per run.

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
    return rendered(figure)


def pareto(
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    names: Sequence[str] = (),
    outside: Sequence[tuple[float, float]] = (),
) -> bytes:
    """Trials as points over two objectives, the front joined.

    Args:
        points: All finished trials.
        front: Those that no other beats in both.
        labels: Names of the axes.
        names: Text beside each point of the front.
        outside: Finished trials that break a constraint.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    if outside:
        label = "finished, break a constraint"
        axes.scatter(*zip(*outside, strict=True), color="0.65", marker="x", label=label)
    if points:
        axes.scatter(*zip(*points, strict=True), color="0.65", label="finished trials")
    if front:
        ordered = sorted(front)
        axes.plot(*zip(*ordered, strict=True), "o-", color="#c81e2d", label="front")
        for point, name in zip(front, names, strict=False):
            axes.annotate(name, point, textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    if points:
        axes.legend(fontsize=8)
    return rendered(figure)


def parallel_coordinates(
    names: Sequence[str], trials: Sequence[Sequence[float | str]], colour_by: int
) -> bytes:
    """Trials as lines over one axis per parameter or objective.

    Args:
        names: Axis titles.
        trials: Per trial one value per axis; words become evenly spaced ticks.
        colour_by: Index of the numeric axis that colours the lines.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(1.9 * len(names) + 1, 4), layout="constrained")
    axes = figure.add_subplot()
    columns = [_scaled([trial[i] for trial in trials]) for i in range(len(names))]
    colours = columns[colour_by][0]
    for trial in range(len(trials)):
        heights = [column[0][trial] for column in columns]
        axes.plot(range(len(names)), heights, color=_viridis(colours[trial]), alpha=0.85)
    for index, (_, ticks) in enumerate(columns):
        axes.axvline(index, color="0.3", linewidth=0.8)
        for height, text in ticks:
            axes.text(index + 0.03, height, text, fontsize=8, va="center")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.6)
    return rendered(figure)


def _scaled(values: Sequence[float | str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Values on 0..1, and the ticks of their axis."""
    if all(isinstance(value, int | float) for value in values):
        numbers = [float(value) for value in values]
        low, high = min(numbers), max(numbers)
        span = high - low or 1.0
        places = [(number - low) / span for number in numbers]
        return places, [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [
            (0.0, f"{low:.4g}")
        ]
    words = sorted({str(value) for value in values})
    step = 1 / max(1, len(words) - 1)
    place = {word: index * step for index, word in enumerate(words)}
    return [place[str(value)] for value in values], [(place[word], word) for word in words]


def _viridis(share: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    return colormaps["viridis"](share)


def rendered(figure: Figure) -> bytes:
    """PNG of a figure."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _strip(
    row_id: str,
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    space: LabelSpace,
    further: Sequence[np.ndarray],
) -> Image.Image:
    wrong = (predicted != truth) & (truth != space.ignore_label)
    error = np.where(wrong[..., None], np.uint8(_WRONG), np.uint8(_RIGHT))  # pyright: ignore[reportArgumentType]
    error[truth == space.ignore_label] = 0
    cells = [image, colour_labels(truth, space), colour_labels(predicted, space), error, *further]
    factor = max(1.0, _SHORT_SIDE / min(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    strip = Image.new(
        "RGB", (len(cells) * (size[0] + _MARGIN) + _MARGIN, size[1] + _CAPTION + _MARGIN), "white"
    )
    for column, cell in enumerate(cells):
        enlarged = cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST)
        strip.paste(Image.fromarray(enlarged), (_MARGIN + column * (size[0] + _MARGIN), 0))
    counted = max(1, int((truth != space.ignore_label).sum()))
    text = f"{row_id}: {100 * (1 - wrong.sum() / counted):.1f} % of labelled pixels right"
    ImageDraw.Draw(strip).text((_MARGIN, size[1] + 2), text, fill="black", font=_font(12))
    return strip


def _legend(space: LabelSpace, width: int) -> Image.Image:
    font = _font(12)
    entries = [*zip(space.classes, space.palette, strict=True), ("ignored", (0, 0, 0))]
    places = []
    x = y = _MARGIN
    for name, colour in entries:
        needed = 22 + int(font.getlength(name)) + 14
        if x + needed > width:
            x, y = _MARGIN, y + 18
        places.append((x, y, name, colour))
        x += needed
    legend = Image.new("RGB", (width, y + 24), "white")
    pen = ImageDraw.Draw(legend)
    for left, top, name, colour in places:
        pen.rectangle((left, top + 1, left + 14, top + 13), fill=tuple(colour), outline="black")
        pen.text((left + 19, top), name, fill="black", font=font)
    return legend


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font
